"""Files, read within the limits of a tokenizer's, and written whole or not at all."""

import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as short_repr  # a file may hold values of any size

# 200,000 merges take 3 MB. JSON grows about tenfold when it is read, so a file that is not a
# tokenizer should be refused by its size, before it fills the memory.
MAX_FILE_BYTES = 64 * 2**20
MAX_VALUES = 5_000_000  # in JSON; o200k's 200,000 tokens and 470,000 merges are two million


def read_bytes(file: Path) -> bytes:
    """The content of a file; raises ValueError if it cannot be a tokenizer's."""
    if not file.exists():
        raise ValueError(f"there is no {file.name} beside it")
    if not file.is_file():  # reading a pipe or a device might never end
        raise ValueError("it is not a regular file")
    size = file.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f"the file has {size:,} bytes; a tokenizer has at most {MAX_FILE_BYTES:,}")
    return file.read_bytes()


def read_json(file: Path) -> object:
    """The JSON in a file. Raises ValueError also where one object has a name twice."""
    data = read_bytes(file)
    values = sum(data.count(sign) for sign in (b",", b"[", b"{"))
    if values > MAX_VALUES:
        raise ValueError(
            f"the file has about {values:,} values; a tokenizer has at most {MAX_VALUES:,}"
        )
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_no_name_twice)
    except _Twice:
        raise
    except (ValueError, RecursionError) as error:  # RecursionError: [[[[[[...
        raise ValueError(f"the file is not JSON, or it is cut short ({error})") from None


class _Twice(ValueError):
    """A name occurs twice in one object."""


def _no_name_twice(pairs: list[tuple[str, object]]) -> dict:
    names = dict(pairs)
    if len(names) < len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise _Twice(f"{short_repr(name)} occurs twice in one object")
    return names


def member(value: object, name: str) -> object:
    """The member `name` of a JSON object; None if `value` is no object or has no such member."""
    return value.get(name) if isinstance(value, dict) else None


def write_atomic(path: str | os.PathLike, data: bytes | memoryview) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one, never half."""
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator:
    """A file to write to, which appears at `path` when the block ends without an error."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to")
    # The temporary file is in the same folder, since a rename is atomic only within one file
    # system. The module tempfile is not used, because only the owner may read its files.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
