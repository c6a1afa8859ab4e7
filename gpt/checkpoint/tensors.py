"""The tensors of a checkpoint, in one .safetensors file or in several, read one at a time.

A .safetensors file is 8 bytes, the size of the header; the header, which is JSON: {name: {"dtype",
"shape", "data_offsets": [begin, end]}}; and the numbers, row by row, in little-endian order
(https://huggingface.co/docs/safetensors). A large checkpoint is several such files, its shards,
and `model.safetensors.index.json`, which says in which shard a tensor is. The library safetensors
cannot give bfloat16 to NumPy and maps whole files into memory, so both are read here, a block at a
time. Files are checked as if an enemy had written them.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .files import INDEX, MODEL, missing, read_json

# The types that are read, as the header names them. BF16 is the upper half of a float32.
FLOATS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}
INTEGERS = {f"{sign.upper()}{8 * n}": f"<{sign}{n}" for sign in "iu" for n in (1, 2, 4, 8)}
DTYPES = {name: np.dtype(code) for name, code in (FLOATS | INTEGERS).items()}
LONGEST_HEADER = 100_000_000  # bytes, as in the library
BLOCK = 2**21  # bytes of a file that are in memory at once: as many as a cache holds
COLUMNS = 16  # that are transposed together: a cache line of the float32 memory on the other side


class Entry(NamedTuple):
    """Where a tensor is: from byte `start` on of a file, whose state was `state` then."""

    path: Path
    state: tuple[int, ...]
    dtype: str
    shape: tuple[int, ...]
    start: int


class TensorFiles:
    """The tensors of a checkpoint's folder by name, in one .safetensors file or in shards.

    >>> files = TensorFiles("meta-llama/Llama-3.2-1B")  # doctest: +SKIP
    >>> files.shape("model.norm.weight"), files.dtype("model.norm.weight")  # doctest: +SKIP
    ((2048,), 'BF16')

    `names` are sorted; `metadata` is that of the only file, or of the first shard by name. As in
    transformers, the index is not read where model.safetensors is in the folder. `file` is the
    name of another single file.

    Raises FileNotFoundError where the folder holds no checkpoint, and ValueError for one in another
    form, for a damaged file, for shards that do not agree with the index, and for a file outside
    the folder.
    """

    def __init__(self, directory: str | Path, file: str = MODEL):
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise FileNotFoundError(f"there is no folder {self.directory}")
        path, index = self.directory / file, self.directory / INDEX
        if os.path.lexists(path):
            shards = {path: None}
        elif file == MODEL and os.path.lexists(index):
            shards = self._shards(index)
        else:
            raise missing(path)
        headers = [read_header(self._inside(path)) for path in shards]
        self.metadata = headers[0][1]
        self._entries: dict[str, Entry] = {}
        for (path, expected), (entries, _) in zip(shards.items(), headers):
            if expected is not None and (lost := expected - entries.keys()):
                raise ValueError(f"{path} lacks tensors that {INDEX} places in it: {some(lost)}")
            if expected is not None and (unknown := entries.keys() - expected):
                raise ValueError(f"{path} holds tensors that {INDEX} does not: {some(unknown)}")
            self._entries |= entries
        self.names = sorted(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entry(name).shape

    def dtype(self, name: str) -> str:
        """The type of a tensor's numbers, as the file names it: "F32", "BF16", "I8", ..."""
        return self._entry(name).dtype

    def read(self, name: str, out: np.ndarray | None = None) -> np.ndarray:
        """A tensor as float32, or as the file's integers: in new memory, or in `out`.

        `out` must have the tensor's shape and float32 or the file's integer type. It need not be
        contiguous: for a layer that is stored (out, in) and kept (in, out), give `weight.data.T`.

        Raises ValueError for another `out`, for types that are not read (float8, say), for a
        float64 number that float32 cannot hold, and for a file that has changed since it was
        opened. `out` may then be filled in part.
        """
        entry = self._entry(name)
        what = f"tensor {name!r} in {entry.path}"
        if entry.dtype not in DTYPES:
            raise ValueError(
                f"{what} holds numbers of type {entry.dtype}; {', '.join(DTYPES)} are read. Take "
                "an edition of the model with bfloat16 or float16 numbers instead"
            )
        source = DTYPES[entry.dtype]
        dtype = np.dtype(np.float32) if entry.dtype in FLOATS else source.newbyteorder("=")
        if out is None:
            out = np.empty(entry.shape, dtype)
        elif out.shape != entry.shape or out.dtype != dtype:
            raise ValueError(
                f"{what} has shape {entry.shape} and becomes {dtype}; it cannot be written into "
                f"an array of shape {out.shape} and {out.dtype}"
            )
        convert = convert_bf16 if entry.dtype == "BF16" else np.copyto
        try:
            with open(entry.path, "rb") as file, np.errstate(over="raise", invalid="ignore"):
                file.seek(entry.start)
                for matrix in matrices(out):
                    read_matrix(file, source, matrix, convert)
                changed = state_of(file) != entry.state
        except FloatingPointError:
            raise ValueError(f"{what} holds a number that is too large for float32") from None
        except EOFError:
            changed = True
        if changed:
            raise ValueError(f"{entry.path} has changed since it was opened: open it again")
        return out

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise ValueError(f"{self.directory} holds no tensor {name!r}")
        return self._entries[name]

    def _shards(self, index: Path) -> dict[Path, set[str]]:
        """The names of the tensors of each shard, as the index has them; every shard is there."""
        shards: dict[Path, set[str]] = {}
        for name, file in sorted(read_index(self._inside(index)).items(), key=lambda item: item[1]):
            shards.setdefault(self.directory / file, set()).add(name)
        if lost := [path.name for path in shards if not os.path.lexists(path)]:
            raise FileNotFoundError(
                f"{self.directory} lacks {len(lost)} of the {len(shards)} files that {INDEX} "
                f"names: {some(lost)}"
            )
        return shards

    def _inside(self, path: Path) -> Path:
        """`path`, if it is a file that is really in the folder.

        In Hugging Face's cache, files are links from models--OWNER--NAME/snapshots/REVISION to
        models--OWNER--NAME/blobs; they may lead anywhere in models--OWNER--NAME.
        """
        folder, target = self.directory.resolve(), path.resolve()
        above = folder.parent
        if above.name == "snapshots" and above.parent.name.startswith("models--"):
            folder = above.parent
        if not target.is_relative_to(folder):
            raise ValueError(
                f"{path} is a link that leaves the folder, to {target}: put a copy there"
            )
        if not target.exists():
            raise FileNotFoundError(f"{path} is a link to {target}, which does not exist")
        if not target.is_file():
            raise ValueError(f"{path} should be a file, and is not")
        return path


# ---- what the files say --------------------------------------------------------------------------


def read_index(path: Path) -> dict[str, str]:
    """{tensor: file} of an index; the files are plain names. Raises ValueError otherwise."""
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f'{path} has no "weight_map" that says where the tensors are')
    for file in places.values():
        plain = isinstance(file, str) and not set(file) & set("/\\\0") and not file.startswith(".")
        if not plain or not file.endswith(".safetensors"):
            raise ValueError(f"{path} names a file {file!r}, which is no plain NAME.safetensors")
    return places


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors of a .safetensors file, and its metadata. Raises ValueError for a damaged one."""
    with open(path, "rb") as file:
        state = state_of(file)
        size = int.from_bytes(file.read(8), "little")
        room = os.fstat(file.fileno()).st_size - 8 - size  # for the numbers
        if room < 0 or size > LONGEST_HEADER:
            raise ValueError(
                f"{path} is damaged or no .safetensors file: it begins with a size of {size} for "
                f"its header, which is beyond the end of the file or {LONGEST_HEADER} bytes"
            )
        text = file.read(size)
    try:
        header = json.loads(text.decode(), object_pairs_hook=distinct)
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise ValueError("__metadata__ is not a text for each name")
        entries, end = {}, 0
        for name, (begin, next_end, dtype, shape) in sorted(
            ((name, described(name, value)) for name, value in header.items()),
            key=lambda item: item[1][:2],
        ):
            if begin != end:
                raise ValueError(f"tensor {name!r} begins at byte {begin}, not at {end}")
            entries[name] = Entry(path, state, dtype, shape, 8 + size + begin)
            end = next_end
        if end != room:
            raise ValueError(f"it has {room} bytes of numbers, and its tensors have {end}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no .safetensors file: {error}") from None
    return entries, metadata


def described(name: str, value: dict) -> tuple[int, int, str, tuple[int, ...]]:
    """(begin, end, dtype, shape) of a tensor, from what the header says of it."""
    try:
        (begin, end), dtype, shape = value["data_offsets"], value["dtype"], tuple(value["shape"])
        if not (isinstance(dtype, str) and all(type(n) is int for n in (begin, end, *shape))):
            raise TypeError
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"tensor {name!r} is described by {str(value)[:100]}") from None
    itemsize = DTYPES[dtype].itemsize if dtype in DTYPES else 1
    if min(shape, default=0) < 0 or len(shape) > 64 or math.prod(max(n, 1) for n in shape) >= 2**60:
        raise ValueError(f"tensor {name!r} cannot have the shape {str(shape)[:100]}")
    if not 0 <= begin <= end or dtype in DTYPES and end - begin != itemsize * math.prod(shape):
        raise ValueError(
            f"tensor {name!r} has bytes {begin} to {end}, which is not what {dtype} numbers of "
            f"shape {shape} take"
        )
    return begin, end, dtype, shape


def distinct(pairs: list[tuple]) -> dict:
    """A JSON object, of which json would quietly keep the last of two equal names."""
    if twice := [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]:
        raise ValueError(f"the name {twice[0]!r} occurs twice")
    return dict(pairs)


def state_of(file) -> tuple[int, ...]:
    """What is different when a file has been written again or replaced by another."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def some(names) -> str:
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# ---- from bytes to numbers -----------------------------------------------------------------------


def matrices(out: np.ndarray):
    """Views (R, C) of an array of any shape and strides, which follow each other in a file."""
    if out.flags.c_contiguous:
        yield out.reshape(1, -1)
    elif out.ndim < 2:
        yield out[None]
    else:
        for index in np.ndindex(out.shape[:-2]):
            yield out[index]


def read_matrix(file, source: np.dtype, out: np.ndarray, convert) -> None:
    """Fill `out` (R, C) with the next numbers of a file, of type `source`, a block at a time.

    Raises EOFError where the file ends before.
    """
    R, C = out.shape
    width = max(1, min(C, BLOCK // source.itemsize))
    height = max(1, BLOCK // source.itemsize // width)  # 1 where a row is longer than a block
    transposed = abs(out.strides[0]) < abs(out.strides[1])
    step = COLUMNS if transposed else width
    for r in range(0, R, height):
        for c in range(0, C, width):
            part = out[r : r + height, c : c + width]
            block = np.empty(part.shape, source)
            if file.readinto(block.view(np.uint8)) < block.nbytes:
                raise EOFError
            for i in range(0, width, step):
                convert(part[:, i : i + step], block[:, i : i + step])


def convert_bf16(out: np.ndarray, bits: np.ndarray) -> None:
    """Write bfloat16 numbers, given as uint16 of any shape, into float32 memory of that shape."""
    np.left_shift(bits, 16, out=out.view(np.uint32), dtype=np.uint32)
