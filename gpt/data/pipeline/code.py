"""Which documents are source code: rules for prose are not meant for them."""

from __future__ import annotations

from pathlib import PurePosixPath

from .document import Document

SUFFIXES = frozenset(
    ".asm .awk .bash .bat .c .cc .cfg .clj .cmake .cpp .cs .css .cu .cuh .cxx .d .dart .el .erl "
    ".ex .f .f90 .fs .go .h .hh .hpp .hs .hxx .ini .ipynb .java .jl .js .json .jsx .kt .lisp .lua "
    ".m .m4 .mjs .ml .mk .nim .pas .php .pl .pm .proto .ps1 .pxd .py .pyi .pyx .r .rb .rs .s "
    ".scala .scm .scss .sh .sql .sv .swift .tcl .toml .ts .tsx .v .vhd .vim .xsl .yaml .yml "
    ".zig".split()
)


def is_code(document: Document) -> bool:
    """Whether the document's source is a file of source code, by the end of its name.

    >>> is_code(Document("x = 1", "numpy/core/shape.py")), is_code(Document("x", "index.html"))
    (True, False)
    """
    path, _, inside = document.source.partition("#")
    return not inside and PurePosixPath(path).suffix.lower() in SUFFIXES
