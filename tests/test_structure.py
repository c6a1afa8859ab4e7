"""The house: imports run one way, without a circle, and by public names; files are short."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("tensorlite", "tokenizer", "gpt")
LONGEST = 450  # lines of a file that one reads in one go
# The rooms of gpt from the ground up: each imports from those before it, and from itself.
ROOMS = ["commandline", "config", "checkpoint", "attention", "model", "models", "data", "generate"]
ROOMS += ["evaluate", "training", "finetune", "serve", "export", "classify"]


def modules(root: Path) -> dict[str, Path]:
    """Every module below `root` by its dotted name."""
    found = {}
    folders = [root / p for p in PACKAGES if (root / p).is_dir()]
    for path in sorted([*root.glob("*.py"), *(p for f in folders for p in f.rglob("*.py"))]):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, path: Path, known) -> list[tuple[str, list[str]]]:
    """(module, names taken from it) for every import of a module in `known`, in functions too."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*above, source] if source else above)
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found.append((inner, []) if inner in known else (source, [alias.name]))
    return [(module, names) for module, names in found if module in known and module != name]


def graph(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    return {
        name: {module for module, _ in imports_of(name, path, known)}
        for name, path in known.items()
    }


def circle(edges: dict[str, set[str]]) -> list[str]:
    """The modules of one circle of imports, [] where there is none."""
    state, trail = {}, []

    def visit(name):
        state[name] = "open"
        trail.append(name)
        for other in sorted(edges[name]):
            if state.get(other) == "open":
                return [*trail[trail.index(other) :], other]
            if other not in state and (found := visit(other)):
                return found
        trail.pop()
        state[name] = "done"
        return []

    for name in edges:
        if name not in state and (found := visit(name)):
            return found
    return []


def test_no_import_runs_in_a_circle():
    edges = graph(ROOT)
    assert len(edges) > 40 and edges["tensorlite.ops"] >= {"tensorlite.op", "tensorlite.tensor"}
    assert circle(edges) == []


@pytest.mark.parametrize("where", ["at the top", "in a function"])
def test_a_planted_circle_is_found(where, tmp_path):
    indent = "def f():\n    " if where == "in a function" else ""
    files = {"__init__": "", "a": "from .b import f", "b": "from .c import f"}
    files["c"] = f"{indent}from . import a"
    (tmp_path / "gpt").mkdir()
    for name, text in files.items():
        (tmp_path / "gpt" / f"{name}.py").write_text(text)
    assert circle(graph(tmp_path)) == [f"gpt.{letter}" for letter in "abca"]
    (tmp_path / "gpt" / "c.py").write_text("")
    assert circle(graph(tmp_path)) == []


def test_imports_run_one_way():
    edges, faults = graph(ROOT), []
    for name in edges:
        package, _, rest = name.partition(".")
        for other in edges[name]:
            there, _, inside = other.partition(".")
            if there == package == "gpt" and rest and inside:
                here, below = (ROOMS.index(x.split(".")[0]) for x in (rest, inside))
                allowed = below <= here
            elif package in ("train", "sample"):
                allowed = True
            else:
                allowed = there == package or package == "gpt" and there in PACKAGES
            if not allowed:
                faults.append(f"{name} imports {other}")
    assert faults == []


def test_no_module_uses_anothers_private_names():
    known, faults = modules(ROOT), []
    for name, path in known.items():
        for module, names in imports_of(name, path, known):
            faults += [f"{name} imports {n} of {module}" for n in names if n.startswith("_")]
        tree = ast.parse(path.read_text())
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                private = node.attr.startswith("_") and not node.attr.startswith("__")
                if private and node.value.id in imported and node.value.id not in ("os", "sys"):
                    faults.append(f"{name}:{node.lineno} uses {node.value.id}.{node.attr}")
    assert faults == []


def test_a_cpu_imports_no_kernels():
    look = "import sys, train, sample; print([m for m in sys.modules if '.kernels' in m])"
    found = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stdout + found.stderr


def test_files_are_short():
    longest = {name: len(path.read_text().splitlines()) for name, path in modules(ROOT).items()}
    assert {name: n for name, n in longest.items() if n > LONGEST} == {}
    assert longest["train"] <= 150


def test_every_module_says_what_it_is():
    silent = [
        n for n, p in modules(ROOT).items() if not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert silent == []
