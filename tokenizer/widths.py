"""What a token file seems to hold, if it does not hold ids of the expected type.

A `.bin` file holds ids and nothing else. Nothing in it says how wide they are, and ids of another
width would be read as wrong ids without an error. But they can be recognized: the upper half of a
wider id is 0 or small, text has no control characters, and other formats begin with marks of their
own.
"""

import os

import numpy as np

from .texts import CONTROL

HEAD = 2**22  # bytes at the start of a file that are examined
FEW = 128  # bytes; a file with fewer is not judged
MARKS = {
    b"\x93NUMPY": "a NumPy file (.npy): write its ids alone, numpy.load(FILE).astype('{0}')"
    ".tofile(NEW)",
    b"PK\x03\x04": "a zip archive, as .npz files and PyTorch's are",
    b"\x1f\x8b\x08": "a file compressed by gzip",
    b"\x28\xb5\x2f\xfd": "a file compressed by zstd",
    b"PAR1": "a Parquet file",
    (20240520).to_bytes(4, "little"): "a token file of llm.c, whose first 1,024 bytes are a header:"
    " write its ids alone, numpy.fromfile(FILE, '<u2', offset=1024).astype('{0}').tofile(NEW)",
}
TYPES = ("<u2", "<u4", "<i8", ">u2", ">u4", "|u1")


def looks_like(path: str | os.PathLike, dtype: np.dtype) -> str | None:
    """What the file at `path` seems to hold instead of ids of `dtype`, and what to do; or None.

    `dtype` is uint16 or uint32. Of a large file, only the first megabytes are examined.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD)
    for mark, name in MARKS.items():
        if head.startswith(mark):
            return name.format(dtype.str)
    if len(head) < FEW:
        return None
    if not CONTROL.search(head) and _is_text(head):
        return "text: `python -m tokenizer encode` makes a token file of it"

    halves = np.frombuffer(head[: len(head) // 8 * 8], dtype).reshape(-1, 8 // dtype.itemsize)
    low, high = int(halves[:, ::2].max()), int(halves[:, 1::2].max())
    # Ids stay below 2**24. In a file of the right width, both of two neighbours may be large.
    if high < 2**8 and low > 16 * high:
        if dtype.itemsize == 4 or not halves[:, 2:].any():
            return f"ids of 64 bits, for the upper halves are 0: {_rewrite('<i8', dtype)}"
        return (
            f"uint32, for every other number is {'0' if high == 0 else f'at most {high}'}: if it "
            "was written for more than 65,536 ids, name their --tokenizer or give --vocab_size; "
            f"else {_rewrite('<u4', dtype)}"
        )
    if kind := _other_numbers(head, dtype):
        return kind
    if dtype.itemsize == 2 and len(head) > 16 * FEW:
        # Ids below 128 that take a byte each: first and second bytes are alike, and not 0.
        first, second = np.frombuffer(head[: len(head) // 2 * 2], np.uint8).reshape(-1, 2).T
        counts = np.bincount(first, minlength=256), np.bincount(second, minlength=256)
        alike = np.minimum(*counts).sum() > 0.75 * len(first)
        if alike and first.max() < 128 and 0 < second.max() < 128:
            return f"uint8, for its two halves are alike: {_rewrite('|u1', dtype)}"
    return None


def _other_numbers(head: bytes, dtype: np.dtype) -> str | None:
    """Floating-point numbers that are all small integers, or ids of the other byte order."""
    for name, floats in (("float32", "<f4"), ("float64", "<f8")):
        values = np.frombuffer(head[: len(head) // 8 * 8], floats)
        with np.errstate(invalid="ignore"):
            whole = np.all((values == np.trunc(values)) & (values >= 0) & (values < 2**24))
        if whole and values.max() > 0:
            return f"numbers of type {name}: {_rewrite(floats, dtype)}"
    swapped = np.frombuffer(head[: len(head) // 8 * 8], dtype.newbyteorder(">"))
    if swapped.max() < 2**8 < np.frombuffer(head[: len(head) // 8 * 8], dtype).max():
        return f"ids of the other byte order: {_rewrite(swapped.dtype.str, dtype)}"
    return None


def types_that_fit(path: str | os.PathLike, vocab_size: int) -> list[str]:
    """The types, by NumPy's names, for which all ids at the start of a file are in range."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    head = head[: len(head) // 8 * 8]
    types = TYPES if vocab_size < 2**8 else TYPES[:-1]  # for which every byte is in range
    fit = [t for t in types if 0 <= np.frombuffer(head, t).min(initial=0)]
    return [t for t in fit if np.frombuffer(head, t).max(initial=0) < vocab_size]


def _is_text(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.end == len(head) == HEAD  # only because the last character is cut
    return True


def _rewrite(old: str, dtype: np.dtype) -> str:
    return f"write it again, numpy.fromfile(FILE, '{old}').astype('{dtype.str}').tofile(NEW)"
