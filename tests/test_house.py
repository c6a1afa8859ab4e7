"""How the source is built: imports run one way, files stay short, private names stay private."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("gpt",)
SCRIPTS = ("train.py", "sample.py")

# What the modules and rooms of gpt/ may import of each other, and of the other packages.
GPT = {
    "config": set(),
    "attention": {"config"},
    "checkpoint": {"config"},
    "model": {"config", "attention", "checkpoint"},
    "data": set(),
    "generate": {"config", "model"},
    "evaluate": {"config", "model", "generate", "data"},
    "training": {"config", "model", "generate", "evaluate", "data", "checkpoint"},
}
PACKAGES_OF = {"tensorlite": set(), "tokenizer": set(), "gpt": {"tensorlite", "tokenizer"}}


def modules(root: Path, packages) -> dict[str, Path]:
    """The modules of these packages, by name; a package is the module of its __init__.py."""
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]):
    """What a module imports of the known ones: (module, the names taken from it, line).

    Imports inside functions count too.
    """
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in known:
                    yield alias.name, [], node.lineno
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*parents, source] if source else parents)
            names = [alias.name for alias in node.names]
            for child in [n for n in names if f"{source}.{n}" in known]:
                yield f"{source}.{child}", [], node.lineno
            names = [n for n in names if f"{source}.{n}" not in known]
            if names and source in known:
                yield source, names, node.lineno


def circles(root: Path, packages) -> list[list[str]]:
    """Modules that import each other in a circle, as paths that end where they began."""
    known = modules(root, packages)
    graph = {name: {m for m, _, _ in imports(name, known[name], known)} for name in known}
    done, found = set(), []

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in done:
            for other in sorted(graph[name]):
                visit(other, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    return found


def private_names(root: Path, packages) -> list[str]:
    """Places where a module uses an underscored name of another one."""
    known, found = modules(root, packages), []
    for name, path in known.items():
        tree = ast.parse(path.read_bytes())
        taken = {}  # the names under which this module knows other modules
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                taken |= {(a.asname or a.name): a.name for a in node.names}
        own = {other.rpartition(".")[2] for other in known} | set(packages)
        for module, names, line in imports(name, path, known):
            found += [f"{name}:{line} {module}.{n}" for n in names if is_private(n)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if is_private(node.attr) and taken.get(node.value.id) in own:
                    found.append(f"{name}:{node.lineno} {node.value.id}.{node.attr}")
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_imported_in_a_circle(package):
    assert circles(ROOT, [package]) == []


@pytest.mark.parametrize("place", ["top", "function", "package"])
def test_a_planted_circle_is_found(place, tmp_path):
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "__init__.py").write_text("from .a import f\n")
    (tmp_path / "house" / "a.py").write_text("from .b import g\n\ndef f():\n    return g()\n")
    (tmp_path / "house" / "b.py").write_text("def g():\n    return 1\n")
    assert circles(tmp_path, ["house"]) == []
    planted = {
        "top": "from .a import f\n",
        "function": "def g():\n    from house.a import f\n",
        "package": "import house\n",
    }
    (tmp_path / "house" / "b.py").write_text(planted[place])
    (circle,) = circles(tmp_path, ["house"])
    assert circle[0] == circle[-1] and {"house.a", "house.b"} <= set(circle)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_one_way(package):
    known = modules(ROOT, PACKAGES_OF) | {Path(s).stem: ROOT / s for s in SCRIPTS}
    for name, path in modules(ROOT, [package]).items():
        others = {module.split(".")[0] for module, _, _ in imports(name, path, known)}
        assert others <= PACKAGES_OF[package] | {package}, name


def test_the_rooms_of_gpt_import_one_way():
    known = modules(ROOT, ["gpt"])
    for name, path in known.items():
        if name == "gpt":
            continue
        room = name.split(".")[1]
        others = {module.split(".")[1] for module, _, _ in imports(name, path, known)}
        assert others <= GPT[room] | {room}, name


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_uses_a_private_name_of_another(package):
    assert private_names(ROOT, [package]) == []


def test_a_private_name_of_another_module_is_found(tmp_path):
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "a.py").write_text(
        "def _f(): pass\n\n\ndef g(self):\n    self._x = _f()\n"
    )
    (tmp_path / "house" / "b.py").write_text("from . import a\nfrom .a import _f\n\na._f()\n")
    assert private_names(tmp_path, ["house"]) == ["house.b:2 house.a._f", "house.b:4 a._f"]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_is_too_long_to_finish(package):
    for name, path in modules(ROOT, [package]).items():
        assert len(path.read_text().splitlines()) <= 450, name


def test_train_is_short():
    assert len((ROOT / "train.py").read_text().splitlines()) <= 150
