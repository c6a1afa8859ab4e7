"""The documentation shows what happens: its examples run, its commands and links are checked.

Docstrings are doctests. In README.md and docs/*.md the Python blocks of a page run in order, in one
namespace: a block that begins with `>>>` as a doctest, any other as it is. Blocks that define tests
are then run by pytest, together with the blocks before them. The command lines of a page are parsed
by the programs that they call, and every relative link must lead to a file.
"""

import doctest
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import gpt
import gpt.classify
import gpt.data.__main__
import gpt.evaluate.__main__
import gpt.export
import gpt.finetune.__main__
import sample
import tensorlite as tl
import tokenizer
import train
from gpt.training.settings import Settings
from tokenizer.__main__ import parser as tokenizer_parser

ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("tensorlite", "tokenizer", "gpt")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name not in ("__init__.py", "__main__.py")
]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^```(\w*) ?(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    if name == "gpt.evaluate.harness":
        pytest.importorskip("lm_eval", reason="this module is for lm-eval alone")
    module = importlib.import_module(name)
    # Docstrings round with Python's function, not with ours.
    names = vars(tl) | vars(tokenizer) | vars(gpt) | {"np": np, "round": round}
    result = doctest.testmod(module, globs=names | vars(module), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


# ---- the Python of a page ----


def blocks(page: Path, language: str = "python") -> list[tuple[int, str]]:
    """(the line before it, the text) of each fenced block of a language.

    A block that begins with "```python torch" is left out where there is no module `torch`.
    """
    text = page.read_text()
    return [
        (text.count("\n", 0, match.start()) + 1, match[3])
        for match in FENCE.finditer(text)
        if match[1] == language and (not match[2] or importlib.util.find_spec(match[2]))
    ]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the text that the pages speak of; operations defined there are forgotten."""
    monkeypatch.chdir(tmp_path)
    text = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind\n"
    Path("my.txt").write_text(text * 50)
    operations = dict(tl.OPS)
    yield tmp_path
    tl.OPS.clear()
    tl.OPS.update(operations)


@pytest.mark.filterwarnings("ignore:the text gives only")  # my.txt is short
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_python_of_a_page(page, workplace):
    run_blocks(page, blocks(page))


def run_blocks(page: Path, found: list[tuple[int, str]]) -> None:
    namespace = {"__name__": "page"}
    for line, block in found:
        name = f"{page.name}, line {line}"
        if not block.startswith(">>>"):
            exec(compile("\n" * line + block, str(page), "exec"), namespace)
            continue
        test = doctest.DocTestParser().get_doctest(block, namespace, name, str(page), line)
        output = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
        runner.run(test, out=output.append, clear_globs=False)
        assert not output, "".join(output)
        namespace = test.globs


def test_a_wrong_example_is_found(workplace):
    page = ROOT / "README.md"
    run_blocks(page, [(1, "x = 2\n"), (3, ">>> x + x\n4\n>>> y = 7\n"), (6, "assert y == 7\n")])
    with pytest.raises(AssertionError, match="Failed example"):
        run_blocks(page, [(1, ">>> 2 + 2\n5\n")])


def test_blocks_that_need_another_library(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\n1\n```\n```python numpy\n2\n```\n```python nothing\n3\n```\n")
    assert blocks(page) == [(1, "1\n"), (4, "2\n")]


PROFILE = """
from hypothesis import settings
settings.register_profile("docs", derandomize=True, deadline=None, max_examples=5)
settings.load_profile("docs")
"""


def test_the_property_tests_of_the_pages(tmp_path):
    """They pass, and fail when the gradient that they test is wrong."""
    (tmp_path / "conftest.py").write_text(PROFILE)
    for page in PAGES:
        plain = [block for _, block in blocks(page) if not block.startswith(">>>")]
        tests = [i for i, b in enumerate(plain) if re.search("^(def )?test_", b, re.MULTILINE)]
        if tests:
            (tmp_path / f"test_{page.stem}.py").write_text("".join(plain[: tests[-1] + 1]))
            wrong = "".join(plain[: tests[0] + 1]).replace("g * 3", "g * 2")
            (tmp_path / f"test_{page.stem}_wrong.py").write_text(wrong)
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    output = subprocess.run(run, cwd=ROOT, capture_output=True, text=True).stdout
    failed = re.findall(r"^FAILED .*/test_(\w+).py::(\w+)", output, re.MULTILINE)
    assert sorted(failed) == [
        ("README_wrong", "test_cube"),
        ("engine_wrong", "test_cube"),
        ("testing_wrong", "test_cube"),
        ("testing_wrong", "test_cube_in_one_line"),
    ], output
    assert "4 failed, 9 passed" in output, output


# ---- the commands of a page ----

PROGRAMS = r"(?:python|make|mpiexec|pip|\. \.venv)"
LAUNCHER = re.compile(r"mpiexec -n \d+ (?:--hostfile \w+ )?")


def commands(page: Path) -> list[str]:
    """The command lines in fenced and indented blocks, after "$ " or not, and between backticks."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    lines = re.findall(rf"^(?: {{4}})?(?:\$ )?({PROGRAMS} .*)$", text, re.MULTILINE)
    return lines + re.findall(rf"(?<!`)`({PROGRAMS} [^`]*)`", text)


def check_command(line: str) -> None:
    """Raise, or exit as the program itself does, for a command that would be refused."""
    words = shlex.split(LAUNCHER.sub("", line), comments=True)
    program, arguments = words[0], words[1:]
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = re.findall(r"\w+", "".join(re.findall(r"\[(.*?)\]", line)))
        assert set(extras) <= set(project["optional-dependencies"])
    elif words == [".", ".venv/bin/activate"]:
        pass
    elif arguments[0] == "train.py":
        given, _ = train.parse(arguments[1:])
        Settings(**given)
    elif arguments[0] == "sample.py":
        sample.parse(arguments[1:])
    elif arguments[:2] == ["-m", "tokenizer"]:
        tokenizer_parser().parse_args(arguments[2:])
    elif arguments[:2] == ["-m", "gpt.export"]:
        gpt.export.parse(arguments[2:])
    elif arguments[:2] == ["-m", "gpt.classify"]:
        gpt.classify.parse(arguments[2:])
    elif arguments[:2] == ["-m", "gpt.evaluate"]:
        gpt.evaluate.__main__.parse(arguments[2:])
    elif arguments[:2] == ["-m", "gpt.data"]:
        gpt.data.__main__.parser_of(arguments[2]).parse_args(arguments[3:])
    elif arguments[:2] == ["-m", "gpt.finetune"]:
        assert arguments[2] in gpt.finetune.__main__.METHODS
        method = importlib.import_module(f"gpt.finetune.{arguments[2]}")
        given, _ = gpt.finetune.__main__.parse(method, arguments[2:])
        method.Settings(**given)
    elif arguments[:2] == ["-m", "pytest"]:
        assert all((ROOT / name).exists() for name in arguments[2:] if name[0] != "-")
    else:  # a benchmark: some need what is not installed here, so that they cannot be asked
        path = ROOT / arguments[0]
        assert path.parent == ROOT / "benchmarks"
        source = path.read_text()
        flags = [word for word in arguments if re.fullmatch("--[a-z_]+", word)]
        assert all(f'"{flag}"' in source for flag in flags)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_commands_of_a_page(page, workplace):
    for line in commands(page):
        try:
            check_command(line)
        except SystemExit as stop:
            assert not stop.code or "--help" in line, f"{page.name}: {line}"
        except (AssertionError, ValueError, IndexError) as error:
            raise AssertionError(f"{page.name}: {line}: {error}") from error


@pytest.mark.parametrize(
    "line",
    [
        "make nothing",
        "pip install -e '.[nothing]'",
        "python train.py --no_such_flag 1",
        "python train.py --preset nothing",
        "python train.py --max_iters -1",
        "python sample.py --no_such_flag 1",
        "python -m tokenizer train my.txt",
        "python -m gpt.export out --format int3 --out few",
        "python -m gpt.evaluate out --task perplexity --dataset my.txt --k 3",
        "python -m something",
        "python -m gpt.data polish corpus --out clean",
        "python -m gpt.data clean corpus --out clean --no_such_flag 1",
        "python -m gpt.finetune nothing --init_from out --dataset my.txt",
        "python -m gpt.finetune classify --dataset sms.tsv",
        "python -m gpt.finetune classify --init_from out --dataset sms.tsv --lora -1",
        "python -m gpt.classify --file texts.txt",
        "python -m gpt.evaluate out --task nothing",
        "python benchmarks/nothing.py",
        "python benchmarks/ops.py --no_such_flag",
        "mpiexec -n 2 python train.py --no_such_flag 1",
    ],
)
def test_a_wrong_command_is_found(line):
    with pytest.raises((AssertionError, ValueError, OSError, SystemExit)) as caught:
        check_command(line)
    assert caught.type is not SystemExit or caught.value.code


def test_the_readme_names_the_first_commands():
    assert {"make train", "make test"} <= {line.split("  ")[0] for line in commands(PAGES[0])}


# ---- the links of a page ----


def anchors(page: Path) -> set[str]:
    """The names by which GitHub lets one link to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_links_of_a_page(page):
    text = FENCE.sub("", page.read_text())
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = Path(os.path.normpath(page.parent / name)) if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_page_can_be_reached_from_the_readme():
    readme = PAGES[0].read_text()
    assert [page.name for page in PAGES[1:] if f"](docs/{page.name})" not in readme] == []
