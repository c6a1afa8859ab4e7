"""Tensors of checkpoints: every type exactly, any memory to read into, and hostile files."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gpt.checkpoint import TensorFiles, tensors

INDEX = "model.safetensors.index.json"
A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def pack(header, numbers: bytes = b"") -> bytes:
    """A .safetensors file of a header, which may be text, and the bytes behind it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def one(dtype: str, shape, numbers: bytes) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, len(numbers)]}


def write(folder, header, numbers: bytes = b"") -> TensorFiles:
    (folder / "model.safetensors").write_bytes(pack(header, numbers))
    return TensorFiles(folder)


def write_bits(folder, dtype: str, array: np.ndarray) -> TensorFiles:
    """A checkpoint of one tensor "a", whose bytes are those of `array`."""
    return write(folder, {"a": one(dtype, list(array.shape), array.tobytes())}, array.tobytes())


def shard(folder, **change) -> None:
    """A checkpoint in two files."""
    save_file({"x": np.ones(2, np.float32), "z": np.full(3, 2.0)}, folder / A, {"step": "7"})
    save_file({"y": np.arange(3)}, folder / B)
    index = {"weight_map": {"x": A, "y": B, "z": A} | change}
    (folder / INDEX).write_text(json.dumps(index))


# ---- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_number_of_16_bits_is_that_of_torch(dtype, tmp_path):
    torch = pytest.importorskip("torch")
    bits = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    ours = write_bits(tmp_path, dtype, bits).read("a")
    kind = torch.float16 if dtype == "F16" else torch.bfloat16
    theirs = torch.from_numpy(bits.view(np.int16)).view(kind).float().numpy()
    assert ours.dtype == np.float32 and ours.shape == (256, 256)
    np.testing.assert_array_equal(ours, theirs)  # NaN equals NaN here
    signs = np.isfinite(ours)
    np.testing.assert_array_equal(np.signbit(ours[signs]), np.signbit(theirs[signs]))


@pytest.mark.parametrize("name", "int8 uint8 int16 uint16 int32 uint32 int64 uint64".split())
def test_integers_stay_what_they_are(name, tmp_path):
    info = np.iinfo(name)
    array = np.array([[info.min, info.max, 3]], name)
    save_file({"a": array}, tmp_path / "model.safetensors")
    files = TensorFiles(tmp_path)
    assert files.dtype("a") == f"{name[0].upper()}{info.bits}"
    again = files.read("a")
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


def test_float32_and_float64(tmp_path):
    array = np.array([1 / 3, -0.0, np.inf, -np.inf, np.nan, 1e-42, 3.4e38])
    save_file({"s": array.astype(np.float32), "d": array}, tmp_path / "model.safetensors")
    files = TensorFiles(tmp_path)
    for name in "sd":
        assert files.read(name).tobytes() == array.astype(np.float32).tobytes()


@pytest.mark.parametrize("where", [None, "transposed"])
def test_a_number_beyond_float32_is_an_error(where, tmp_path):
    array = np.zeros((40, 40))
    array[39, 39] = -1e39
    save_file({"weights": array}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="'weights' in .*too large for float32"):
        out = None if where is None else np.zeros((40, 40), np.float32).T
        TensorFiles(tmp_path).read("weights", out)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "BOOL", "F4", "float32"])
def test_other_types_are_refused_by_name(dtype, tmp_path):
    files = write_bits(tmp_path, dtype, np.zeros(4, np.uint8))
    assert files.dtype("a") == dtype and files.shape("a") == (4,)
    with pytest.raises(ValueError, match=f"'a' in .*type {dtype}; F16, BF16,.* are read. Take"):
        files.read("a")


# ---- where they are written ----------------------------------------------------------------------

LAYOUTS = {
    "contiguous": lambda shape: np.empty(shape, np.float32),
    "transposed": lambda shape: np.empty(shape[::-1], np.float32).T,
    "every second": lambda shape: np.empty((*shape[:-1], 2 * shape[-1]), np.float32)[..., ::2],
    "backwards": lambda shape: np.empty(shape, np.float32)[..., ::-1],
    "axes swapped": lambda shape: np.empty((*shape[1:], shape[0]), np.float32).transpose(
        len(shape) - 1, *range(len(shape) - 1)
    ),
}


@pytest.mark.parametrize("shape", [(7,), (1, 1), (0, 3), (45, 70), (3, 50, 4), (2, 3, 1, 37)])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("block", [8, 100, 2**21])
def test_blocks_into_any_memory(dtype, shape, block, tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "BLOCK", block)
    rng = np.random.default_rng(0)
    expected = rng.integers(-128, 128, shape).astype(np.float32)  # exact in every type
    bits = {"BF16": (expected.view(np.uint32) >> 16).astype(np.uint16)}.get(dtype)
    stored = expected.astype(tensors.DTYPES[dtype]) if bits is None else bits
    files = write_bits(tmp_path, dtype, stored)
    np.testing.assert_array_equal(files.read("a"), expected)
    for layout, empty in LAYOUTS.items():
        out = empty(shape)
        out[...] = np.nan
        assert files.read("a", out=out) is out
        np.testing.assert_array_equal(out, expected, err_msg=layout)


def test_scalars(tmp_path):
    save_file({"a": np.array(2.5, np.float16)}, tmp_path / "model.safetensors")
    out = np.zeros((), np.float32)
    assert TensorFiles(tmp_path).read("a") == 2.5 == TensorFiles(tmp_path).read("a", out=out)
    assert out == 2.5


def test_other_memory_is_refused(tmp_path):
    save_file({"a": np.ones((2, 3)), "i": np.ones(2, np.int8)}, tmp_path / "model.safetensors")
    files = TensorFiles(tmp_path)
    for name, out in (
        ("a", np.zeros((3, 2), np.float32)),
        ("a", np.zeros((1, 2, 3), np.float32)),
        ("a", np.zeros((2, 3))),
        ("a", np.zeros((2, 3), np.int32)),
        ("i", np.zeros(2, np.float32)),
        ("i", np.zeros(2, np.uint8)),
    ):
        with pytest.raises(ValueError, match=f"'{name}' in .*cannot be written into an array of"):
            files.read(name, out)
    with pytest.raises(ValueError, match="holds no tensor 'b'"):
        files.read("b")
    with pytest.raises(ValueError, match="read-only"):
        files.read("a", np.broadcast_to(np.zeros(3, np.float32), (2, 3)))


MEASURE = """
import resource, sys
import numpy as np
from gpt.checkpoint.tensors import TensorFiles
files = TensorFiles(sys.argv[1])
arrays = {name: np.zeros(files.shape(name)[::-1], np.float32) for name in files.names}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, array in arrays.items():
    files.read(name, out=array.T)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_the_memory_of_reading(tmp_path):
    """The result and a block, in a process that maps no part of the file."""
    n, size = 4, 2048 * 2560 * 2  # 42 MB in bfloat16, 84 MB in float32
    header = {
        str(i): {
            "dtype": "BF16",
            "shape": [2048, 2560],
            "data_offsets": [i * size, i * size + size],
        }
        for i in range(n)
    }
    (tmp_path / "model.safetensors").write_bytes(pack(header))
    with open(tmp_path / "model.safetensors", "ab") as file:
        for _ in range(n):
            file.write(b"\1" * size)
    run = [sys.executable, "-c", MEASURE, str(tmp_path)]
    grown = float(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    assert grown < 1.1 * 2 * n * size / 2**20


# ---- folders -------------------------------------------------------------------------------------


def test_names_shapes_and_metadata(tmp_path):
    save_file({"b": np.ones((2, 3)), "a": np.ones(0)}, tmp_path / "model.safetensors", {"k": "v"})
    files = TensorFiles(str(tmp_path))
    assert files.names == ["a", "b"] and files.metadata == {"k": "v"}
    assert [files.shape(name) for name in files.names] == [(0,), (2, 3)]
    assert files.dtype("b") == "F64"


def test_shards(tmp_path):
    shard(tmp_path)
    files = TensorFiles(tmp_path)
    assert files.names == ["x", "y", "z"] and files.metadata == {"step": "7"}
    np.testing.assert_array_equal(files.read("z"), np.full(3, 2.0, np.float32))
    np.testing.assert_array_equal(files.read("y"), np.arange(3))
    # transformers takes the single file where there are both.
    save_file({"w": np.ones(1)}, tmp_path / "model.safetensors")
    assert TensorFiles(tmp_path).names == ["w"]


def test_shards_that_transformers_saves(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    files, expected = TensorFiles(tmp_path), model.state_dict()
    assert files.names == sorted(expected)
    for name in files.names:
        assert files.dtype(name) == "BF16"
        np.testing.assert_array_equal(files.read(name), expected[name].float().numpy())


def test_shards_that_do_not_agree_with_the_index(tmp_path):
    shard(tmp_path, w=B)
    with pytest.raises(ValueError, match=f"{B} lacks tensors that {INDEX} places in it: w"):
        TensorFiles(tmp_path)
    shard(tmp_path, z=B)
    with pytest.raises(ValueError, match=f"{A} holds tensors that {INDEX} does not: z"):
        TensorFiles(tmp_path)
    shard(tmp_path, **{str(i): f"{i}.safetensors" for i in range(7)})
    lost = r"lacks 7 of the 9 files that .* names: 0\.safetensors,.* 4\.safetensors and 2 more"
    with pytest.raises(FileNotFoundError, match=lost):
        TensorFiles(tmp_path)
    shard(tmp_path)
    (tmp_path / A).write_bytes((tmp_path / A).read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{A} is damaged"):
        TensorFiles(tmp_path)


@pytest.mark.parametrize(
    "file",
    ["../secret.safetensors", "/secret.safetensors", "a/b.safetensors", "..", "", ".safetensors"]
    + ["a\\b.safetensors", "a\0.safetensors", "pytorch_model.bin", 3, None, ["a"]],
)
def test_an_index_that_names_other_files(file, tmp_path):
    shard(tmp_path, w=file)
    with pytest.raises(ValueError, match="names a file"):
        TensorFiles(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": [1]}'])
def test_an_index_that_is_none(content, tmp_path):
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(ValueError, match=INDEX):
        TensorFiles(tmp_path)


def test_links(tmp_path):
    folder, secret = tmp_path / "model", tmp_path / "secret.safetensors"
    folder.mkdir()
    save_file({"a": np.ones(1)}, secret)
    (folder / "model.safetensors").symlink_to(secret)
    with pytest.raises(ValueError, match="link that leaves the folder, to .*secret"):
        TensorFiles(folder)
    (folder / "model.safetensors").unlink()
    shard(folder)
    (folder / B).rename(tmp_path / B)
    (folder / B).symlink_to(f"../{B}")
    with pytest.raises(ValueError, match=f"{B} is a link that leaves"):
        TensorFiles(folder)
    (folder / B).unlink()
    (tmp_path / B).rename(folder / "c")
    (folder / B).symlink_to("c")
    (tmp_path / "other").symlink_to(folder)  # the folder itself may be reached by a link
    assert TensorFiles(tmp_path / "other").names == ["x", "y", "z"]
    (folder / "c").unlink()
    with pytest.raises(FileNotFoundError, match="link to .*c, which does not exist"):
        TensorFiles(folder)


def test_the_links_of_hugging_faces_cache(tmp_path):
    model = tmp_path / "models--me--tiny"
    folder, blobs = model / "snapshots" / "0123", model / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    shard(folder)
    for i, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / str(i))
        path.symlink_to(f"../../blobs/{i}")
    assert TensorFiles(folder).names == ["x", "y", "z"]
    (folder / A).unlink()
    (folder / A).symlink_to("../../../elsewhere")
    with pytest.raises(ValueError, match="leaves the folder"):
        TensorFiles(folder)


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        TensorFiles(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        TensorFiles(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="pickled"):
        TensorFiles(tmp_path)
    shard(tmp_path)
    (tmp_path / B).unlink()
    os.mkfifo(tmp_path / B)  # opening it would wait forever
    with pytest.raises(ValueError, match=f"{B} should be a file"):
        TensorFiles(tmp_path)
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(ValueError, match=r"model\.safetensors should be a file"):
        TensorFiles(tmp_path)


def test_a_file_that_changes(tmp_path):
    path = tmp_path / "model.safetensors"

    def save(n):
        save_file({"a": np.zeros(n), "b": np.ones(n)}, path)

    for change in (
        lambda: os.truncate(path, path.stat().st_size - 8),
        lambda: save(4),
        lambda: os.utime(path, ns=(1, 1)),  # written again with the same size
        lambda: (save_file({"a": np.zeros(3)}, tmp_path / "c"), (tmp_path / "c").rename(path)),
    ):
        save(3)
        files = TensorFiles(tmp_path)
        change()
        with pytest.raises(ValueError, match="has changed since it was opened"):
            files.read("b")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        files.read("b")


# ---- hostile headers -----------------------------------------------------------------------------

GOOD = {"a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}}
GOOD |= {"b": {"dtype": "I8", "shape": [4], "data_offsets": [8, 12]}}
NUMBERS = bytes(12)


def changed(name: str, **change) -> dict:
    return GOOD | {name: GOOD[name] | change}


DAMAGED = {
    "empty": (b"", "beyond the end"),
    "short": (b"\1\0\0", "beyond the end"),
    "size beyond": (
        (1000).to_bytes(8, "little") + b"{}",
        "size of 1000 for its header, which is b",
    ),
    "huge size": (b"\xff" * 8 + b"{}", "beyond"),
    "not JSON": (pack(b"{]"), "Expecting"),
    "not UTF-8": (pack(b'{"\xff": 1}'), "utf-8"),
    "deep": (pack(b"[" * 100_000), "recursion|nest"),
    "list": (pack([]), "no JSON object"),
    "null": (pack(b"null"), "no JSON object"),
    "long number": (pack(b'{"a": ' + b"1" * 10_000 + b"}"), "integer|described"),
    "metadata": (pack({"__metadata__": {"step": 7}}), "__metadata__"),
    "metadata list": (pack({"__metadata__": []}), "__metadata__"),
    "twice": (pack(b'{"a": {}, "a": {}}'), "'a' occurs twice"),
    "key twice": (pack(b'{"a": {"dtype": "F32", "dtype": "F32"}}'), "'dtype' occurs twice"),
    "no description": (pack({"a": 3}), "'a' is described by 3"),
    "no shape": (pack({"a": {"dtype": "F32", "data_offsets": [0, 0]}}), "is described by"),
    "dtype": (pack(changed("a", dtype=["F32"]), NUMBERS), "is described by"),
    "float shape": (pack(changed("a", shape=[2.0]), NUMBERS), "is described by"),
    "true shape": (pack(changed("a", shape=[True, 2]), NUMBERS), "is described by"),
    "three offsets": (pack(changed("a", data_offsets=[0, 4, 8]), NUMBERS), "is described by"),
    "negative": (pack(changed("a", shape=[-2, -1]), NUMBERS), r"cannot have the shape \(-2, -1\)"),
    "huge": (pack(changed("a", shape=[2**40, 2**40]), NUMBERS), "cannot have the shape"),
    "huge and empty": (pack({"a": one("F32", [0, 2**70], b"")}), "cannot have the shape"),
    "dimensions": (pack(changed("a", shape=[1] * 100 + [2]), NUMBERS), "cannot have the shape"),
    "shape and size": (pack(changed("a", shape=[3]), NUMBERS), "F32 numbers of shape .3,. take"),
    "dtype and size": (pack(changed("a", dtype="F16"), NUMBERS), "F16 numbers of shape"),
    "backwards": (pack(changed("a", data_offsets=[8, 0]), NUMBERS), "has bytes 8 to 0"),
    "before": (pack(changed("a", data_offsets=[-8, 0]), NUMBERS), "has bytes -8 to 0"),
    "overlap": (pack(changed("b", data_offsets=[4, 8]), NUMBERS), "'b' begins at byte 4, not at 8"),
    "same": (pack(GOOD | {"c": GOOD["a"]}, NUMBERS), "begins at byte 0, not at 8"),
    "hole": (pack(changed("b", data_offsets=[9, 13]), NUMBERS + b"0"), "begins at byte 9"),
    "outside": (pack(changed("b", data_offsets=[2**50, 2**50 + 4]), NUMBERS), "begins at byte"),
    "truncated": (pack(GOOD, NUMBERS[:-1]), "has 11 bytes of numbers, and its tensors have 12"),
    "extra": (pack(GOOD, NUMBERS + b"0"), "has 13 bytes of numbers, and its tensors have 12"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files(case, tmp_path):
    content, words = DAMAGED[case]
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        TensorFiles(tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "model.safetensors") in message and len(message) < 1000
    if "twice" not in case and "dimensions" not in case:  # where the library is more lenient
        with pytest.raises(SafetensorError), safe_open(tmp_path / "model.safetensors", "numpy"):
            pass


def test_a_header_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "LONGEST_HEADER", 100)
    with pytest.raises(ValueError, match="beyond the end of the file or 100 bytes"):
        write(tmp_path, GOOD, NUMBERS)


numbers = st.sampled_from([-1, 0, 1, 2, 3, 4, 8, 12, 16, 2**63, 2**64])
tensor = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "I8", "U64"]),
        "shape": st.lists(numbers, max_size=3),
        "data_offsets": st.tuples(numbers, numbers),
    }
)


@given(st.dictionaries(st.sampled_from("abc"), tensor), st.integers(0, 20))
def test_what_the_library_refuses_is_refused(tmp_path_factory, header, n):
    header = dict(GOOD, **header)
    folder = tmp_path_factory.mktemp("hostile")
    path = folder / "model.safetensors"
    path.write_bytes(pack(header, bytes(n)))
    try:
        with safe_open(path, "numpy") as file:
            names = sorted(file.keys())
    except SafetensorError:
        with pytest.raises(ValueError, match="damaged"):
            TensorFiles(folder)
    else:
        files = TensorFiles(folder)
        assert files.names == names
        assert all(files.read(name).shape == files.shape(name) for name in names)
