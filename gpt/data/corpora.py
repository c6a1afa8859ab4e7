"""Text to train on that nobody has to look for.

- `python-docs`: the documentation that ships with every Python, taken from its own files.
- `python-code`: the source of Python's standard library, taken the same way.
- `shakespeare`: the tinyshakespeare of Andrej Karpathy's char-rnn and nanoGPT, fetched once.

The first two need no network. They differ from one Python to the next and are the same every
time on one, so a loss measured on them compares runs on one installation. The standard library
is parsed, never imported: reading it runs none of it.
"""

import ast
import hashlib
import os
import sysconfig
import tokenize
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from tokenizer.fetch import cache_folder, fetch

# What is left out of the standard library, by the name of a folder or file.
SKIPPED = {
    *("site-packages", "dist-packages", "sitecustomize.py", "usercustomize.py"),  # not Python's own
    *("test", "tests", "idle_test", "__pycache__"),
    *("idlelib", "turtledemo", "lib2to3", "distutils"),  # programs; what newer Pythons dropped
    *("encodings", "pydoc_data"),  # character tables; the topics, which are read as a dict below
}
SKIPPED_PREFIXES = ("_sysconfigdata", "config-")  # how this Python was built: paths and flags

MAX_CHARACTERS = 128  # distinct characters in a corpus: a small vocabulary for a small model

SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


# ---- Python's documentation and source -----------------------------------------------------------


def python_docs() -> str:
    """Python's language reference and the docstrings of its standard library, about 2 MB.

    One document per topic of `help()` (`pydoc_data.topics`) and one per module, headed alike:

        The "bisect" module
        *******************

        Bisection algorithms.

        bisect.insort_right(a, x, lo=0, hi=None, *, key=None)
            Insert item x in list a, and keep it sorted assuming a is sorted.

    Raises FileNotFoundError when this Python comes without its source.
    """
    documents = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ast.parse warns of doubtful escapes, not ours to mend
        for name, source in _standard_library("python-docs"):
            with suppress(SyntaxError, ValueError):  # a file that does not parse is left out
                module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                heading = f'The "{module}" module'
                text = "\n\n".join(_docstrings(ast.parse(source), module))
                if text:
                    documents[module] = f"{heading}\n{'*' * len(heading)}\n\n{text}"
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions pack it apart; the docstrings are most of the text
        topics = {}
    documents |= {f"topic {name}": text for name, text in topics.items()}
    return _corpus(_without_repeats(documents))


def python_code() -> str:
    """The source of Python's standard library, about 8 MB, each file headed by `# json/tool.py`.

    Tabs are expanded and rare characters replaced as in the other corpus (see `_plain`), so it is
    text to learn from, not files to run. Raises FileNotFoundError as `python_docs` does.
    """
    files = _standard_library("python-code")
    return _corpus({name: f"# {name}\n{source}" for name, source in files})


def _standard_library(title: str) -> Iterator[tuple[str, str]]:
    """Name (`json/tool.py`) and source of each file of the standard library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if _wanted(name)]
        paths += [Path(folder, name) for name in files if name.endswith(".py") and _wanted(name)]
    if not paths:
        raise FileNotFoundError(
            f"this Python has no source of its standard library in {root}, which {title} is made "
            "of: pass a text file of your own as --dataset FILE"
        )
    # disable=None: no bar where the output is no terminal.
    for path in tqdm(sorted(paths), desc=title, unit="file", leave=False, disable=None):
        try:
            with tokenize.open(path) as file:  # honours "# -*- coding: ... -*-"
                source = file.read()
        except (OSError, SyntaxError, ValueError):  # a broken link, or undecodable on purpose
            continue
        yield path.relative_to(root).as_posix(), source


def _wanted(name: str) -> bool:
    return name not in SKIPPED and not name.startswith(SKIPPED_PREFIXES)


def _docstrings(node: ast.AST, name: str) -> Iterator[str]:
    """The docstring of a module, class or function, then those of what it defines."""
    indent = "    "
    if isinstance(node, ast.Module):
        heading, indent = "", ""
    elif isinstance(node, ast.ClassDef):
        heading = f"class {name}\n"
    else:
        heading = f"{name}({ast.unparse(node.args)})\n"
    text = ast.get_docstring(node)  # cleaned as inspect.cleandoc does
    if text:
        yield heading + "\n".join(indent + line for line in text.split("\n"))
    if isinstance(node, ast.Module | ast.ClassDef):  # nobody can call a function's own functions
        for child in _definitions(node):
            yield from _docstrings(child, f"{name}.{child.name}")


def _definitions(node: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Classes and functions that stand in a body, also those within its `if` and `try`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        elif isinstance(child, ast.stmt | ast.ExceptHandler):
            yield from _definitions(child)


def _without_repeats(documents: dict[str, str]) -> dict[str, str]:
    """Documents without those that are mostly part of a longer one.

    Many topics are sections of others ("function" of "compound"). One in the training split and
    the other in the validation split would reward learning by heart.
    """
    kept, seen = {}, set()
    for name, text in sorted(documents.items(), key=lambda item: (-len(item[1]), item[0])):
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if sum(line in seen for line in lines) <= len(lines) / 2:
            kept[name] = text
            seen.update(lines)
    return kept


def _corpus(documents: dict[str, str]) -> str:
    """One text of all documents, two blank lines between them.

    They follow each other by a hash of their names: an order that is the same everywhere and
    mixes all kinds, so that the last tenth (the validation split) is a fair sample of the whole
    and not the end of the alphabet.
    """
    names = sorted(documents, key=lambda name: hashlib.sha256(name.encode()).digest())
    return _plain("\n\n\n".join(documents[name].strip() for name in names)) + "\n"


def _plain(text: str) -> str:
    r"""Text of at most MAX_CHARACTERS distinct characters, all printable but the newline.

    Line ends become "\n", tabs and odd spaces become spaces, control characters and spaces at
    line ends go. If too many kinds of characters are left, the rarest of those outside ASCII lose
    their accents, or become "?" where that does not help.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").expandtabs()
    odd = [c for c in set(text) if c != "\n" and not c.isprintable()]
    text = text.translate({ord(c): " " if c.isspace() else None for c in odd})
    text = "\n".join(line.rstrip() for line in text.split("\n"))

    counts = Counter(text)
    if len(counts) > MAX_CHARACTERS:
        # "?" may be new to the text: it is counted in, so that the bound holds.
        kinds = sorted(counts | Counter("?"), key=lambda c: (not c.isascii(), -counts[c], c))
        rare = {c: unicodedata.normalize("NFKD", c)[0] for c in kinds[MAX_CHARACTERS:]}
        kept = set(kinds[:MAX_CHARACTERS])
        text = text.translate({ord(c): b if b in kept else "?" for c, b in rare.items()})
    return text


# ---- Shakespeare ---------------------------------------------------------------------------------


def shakespeare() -> str:
    """tinyshakespeare, 1,115,394 characters: fetched once, then read from the cache folder.

    That folder is $TENSORLITE_CACHE, else $XDG_CACHE_HOME/tensorlite, else ~/.cache/tensorlite.
    Raises ConnectionError when it is not there yet and can't be fetched.
    """
    path = cache_folder() / "tinyshakespeare.txt"
    return fetch(SHAKESPEARE_URL, SHAKESPEARE_SHA256, path).decode("utf-8")


CORPORA: dict[str, Callable[[], str]] = {
    "python-docs": python_docs,
    "python-code": python_code,
    "shakespeare": shakespeare,
}
