"""Token files in shards, the index of their documents, and documents that do not see each other."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokenizer as tokenizers
from gpt import data, models
from gpt.data import ShardedTokens
from gpt.data.token_folder import About, vocabulary_hash
from gpt.evaluate import estimate_loss, holds_unknown, loss_and_error
from gpt.training.pretrain import Pretraining
from gpt.training.settings import Settings

from .test_packing import CONFIGS, assert_close, gradients

TOKENIZER = tokenizers.BPETokenizer([], special_tokens={"<|endoftext|>": 256})

# ---- several arrays as one -----------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 2**32))
def test_shards_are_one_array(lengths, seed):
    rng = np.random.default_rng(seed)
    shards = [rng.integers(0, 99, n).astype("<u2") for n in lengths]
    offsets = [np.flatnonzero(np.append(True, rng.random(n - 1) < 0.4)) for n in lengths]
    offsets = [np.append(o, n).astype(np.uint64) for o, n in zip(offsets, lengths)]
    tokens, whole = ShardedTokens(shards, offsets), np.concatenate(shards)
    assert len(tokens) == len(whole) and tokens.max() == whole.max()
    places = rng.integers(0, len(whole), (3, 4))
    found = tokens[places]
    assert found.dtype == "<u2" and np.array_equal(found, whole[places])
    for start, stop in rng.integers(-3, len(whole) + 3, (9, 2)):
        assert np.array_equal(tokens[start:stop], whole[start:stop])
    begins = np.concatenate([np.isin(np.arange(n), o[:-1]) for n, o in zip(lengths, offsets)])
    assert np.array_equal(tokens.documents(places), (np.cumsum(begins) - 1)[places])


def test_places_outside_are_refused():
    tokens = ShardedTokens([np.arange(3), np.arange(2)])
    for place in 5, -1:
        with pytest.raises(IndexError, match="of 5 ids"):
            tokens[np.array([0, place])]
    with pytest.raises(ValueError, match="goes on by 1, not 2"):
        tokens[::2]


def test_windows_and_losses_are_those_of_one_array():
    model = models.make(CONFIGS["gpt2"])
    whole = np.random.default_rng(1).integers(0, 50, 700).astype("<u2")
    tokens = ShardedTokens(np.split(whole, [3, 200, 210, 600]))
    starts = data.draw_starts(np.random.default_rng(0), 700, 40, 24)
    for ours, theirs in zip(
        data.draw_batch(tokens, starts, 24), data.draw_batch(whole, starts, 24)
    ):
        assert np.array_equal(ours, theirs) and ours.dtype == np.int64
    assert estimate_loss(model, tokens, 4, 3, 1) == estimate_loss(model, whole, 4, 3, 1)
    assert loss_and_error(model, tokens, 4) == loss_and_error(model, whole, 4)
    char = tokenizers.CharTokenizer.train("ab")
    assert not holds_unknown(char, tokens[:0]) and not holds_unknown(object(), tokens)
    assert holds_unknown(char, tokens) == bool((whole == char.unknown_id).any())


# ---- files ---------------------------------------------------------------------------------------


def write_shards(folder, vocab_size: int = 257, **splits) -> dict[str, list[np.ndarray]]:
    """A folder as the step tokenize makes it; `splits` has the documents (N,) of each shard."""
    folder.mkdir()
    documents, shards, ids = {}, {}, {}
    for split, parts in splits.items():
        ids[split] = [np.concatenate(part) for part in parts]
        documents[split], shards[split] = sum(map(len, parts)), {}
        for number, (part, own) in enumerate(zip(parts, ids[split])):
            name = f"{split}-{number:05}"
            data.write_tokens(folder / f"{name}.bin", own, vocab_size)
            offsets = np.cumsum([0, *map(len, part)])
            (folder / f"{name}.idx").write_bytes(offsets.astype("<u8").tobytes())
            shards[split][name] = len(own)
    TOKENIZER.save(folder)
    About(vocab_size, 256, vocabulary_hash(TOKENIZER), documents, shards).write(folder)
    return ids


def some_documents(*counts: int, seed: int = 0) -> list[list[np.ndarray]]:
    """Shards of so many documents: bytes that the id 256 ends."""
    rng = np.random.default_rng(seed)
    return [
        [np.append(rng.integers(97, 123, rng.integers(0, 30)), 256) for _ in range(n)]
        for n in counts
    ]


@pytest.fixture
def folder(tmp_path):
    splits = {"train": some_documents(9, 1, 30), "val": some_documents(5, 4, seed=1)}
    ids = write_shards(tmp_path / "corpus", **splits)
    return tmp_path / "corpus", ids


def test_a_folder_of_shards(folder):
    path, ids = folder
    assert data.is_token_data(str(path))
    assert data.validation_size(str(path)) == sum(map(len, ids["val"]))
    train, val = data.open_tokens(str(path), 257)
    assert isinstance(train, ShardedTokens) and len(train.shards) == 3
    assert np.array_equal(train[:], np.concatenate(ids["train"])) and train.dtype == "<u2"
    assert np.array_equal(val[:], np.concatenate(ids["val"]))
    assert train.offsets is None
    train, val = data.open_tokens(str(path), 257, documents=True)
    places = np.arange(len(train))
    numbers = np.cumsum(np.concatenate(ids["train"]) == 256) - (train[:] == 256)
    assert np.array_equal(train.documents(places), numbers)
    about = data.read_about(path)
    assert about.documents == {"train": 40, "val": 9} and about.end_of_text == 256


def test_one_file_with_an_index_beside_it(tmp_path):
    data.write_tokens(tmp_path / "train.bin", [5, 8, 0, 2, 0], 9)
    data.write_tokens(tmp_path / "val.bin", [5, 0], 9)
    train, _ = data.open_tokens(str(tmp_path), 9)
    assert isinstance(train, np.memmap)  # nanoGPT's, as it was
    with pytest.raises(ValueError, match=r"there is no .*train\.idx: --documents packed needs"):
        data.open_tokens(str(tmp_path), 9, documents=True)
    (tmp_path / "train.idx").write_bytes(np.array([0, 3, 5], "<u8").tobytes())
    (tmp_path / "val.idx").write_bytes(np.array([0, 2], "<u8").tobytes())
    train, _ = data.open_tokens(str(tmp_path), 9, documents=True)
    assert train.documents(np.arange(5)).tolist() == [0, 0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"needs an index of documents, and .* is a single file"):
        data.open_tokens(str(tmp_path / "train.bin"), 9, documents=True)


@pytest.mark.parametrize(
    "offsets, fault",
    [
        (b"1234567", "its 7 bytes are no list of offsets of 8 bytes"),
        (b"", "its 0 bytes are no list"),
        (np.array([0, 3, 6], "<u8").tobytes(), "it goes from 0 to 6"),
        (np.array([1, 3, 5], "<u8").tobytes(), "it goes from 1 to 5"),
        (np.array([0, 3, 3, 5], "<u8").tobytes(), "document 1 has no ids"),
        (np.array([0, 2**63, 3, 5], "<u8").tobytes(), "document 1 has no ids"),
    ],
)
def test_an_index_that_does_not_fit(tmp_path, offsets, fault):
    for split in "train", "val":
        data.write_tokens(tmp_path / f"{split}.bin", [5, 8, 0, 2, 0], 9)
        (tmp_path / f"{split}.idx").write_bytes(offsets)
    with pytest.raises(ValueError, match=r"train\.idx does not fit train\.bin.*" + fault):
        data.open_tokens(str(tmp_path), 9, documents=True)


def test_shards_that_are_gone_or_others(folder):
    path, ids = folder
    last = path / "train-00002.bin"
    whole = last.read_bytes()
    last.write_bytes(whole[:-2])
    with pytest.raises(ValueError, match=r"train-00002\.bin is gone or is not the .* bytes that"):
        data.open_tokens(str(path), 257)
    last.unlink()
    with pytest.raises(ValueError, match=r"train-00002\.bin is gone"):
        data.open_tokens(str(path), 257)
    last.write_bytes(whole)
    data.write_tokens(path / "train-00007.bin", [1], 257)  # left by an earlier run
    assert len(data.open_tokens(str(path), 257)[0].shards) == 3
    with pytest.raises(ValueError, match="a vocabulary of 257, stored as uint16: --vocab_size 100"):
        data.open_tokens(str(path), 100)
    with pytest.raises(ValueError, match="--vocab_size 70000 cannot hold them"):
        data.open_tokens(str(path), 70_000)
    (path / "tokens.json").unlink()
    with pytest.raises(ValueError, match=r"there is no .*tokens\.json, which says how many shards"):
        data.open_tokens(str(path), 257)


def test_a_split_without_shards(tmp_path):
    write_shards(tmp_path / "corpus", train=some_documents(3), val=[])
    with pytest.raises(ValueError, match="for validation: run .* larger --val_fraction"):
        data.open_tokens(str(tmp_path / "corpus"), 257)


@pytest.mark.parametrize(
    "changed",
    [
        {"vocab_size": "257"},
        {"vocab_size": 0},
        {"shards": {"train": {"../train-0": 3}, "val": {}}},
        {"shards": {"train": {"train-0": -1}, "val": {}}},
        {"shards": {"train": ["train-0"], "val": {}}},
        {"shards": {"train": {}}},
        {"documents": {"train": True, "val": 1}},
        {"documents": None},
    ],
)
def test_a_damaged_tokens_json(folder, changed):
    path = folder[0] / "tokens.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(ValueError, match=r"tokens\.json is damaged \(.*run python -m gpt\.data"):
        data.open_tokens(str(folder[0]), 257)


def test_the_tokenizer_is_that_of_the_folder(folder):
    data.check_tokenizer(folder[0], TOKENIZER)
    data.check_tokenizer(folder[0], tokenizers.load(folder[0]))
    other = tokenizers.BPETokenizer([(97, 98)], special_tokens={"<|endoftext|>": 257})
    with pytest.raises(ValueError, match="were made with another tokenizer than"):
        data.check_tokenizer(folder[0], other)


def test_uint32(tmp_path):
    parts = [[np.array([5, 70_000])], [np.array([69_999, 2, 70_000])]]
    write_shards(tmp_path / "corpus", 70_001, train=parts, val=parts[:1])
    train, _ = data.open_tokens(str(tmp_path / "corpus"), 70_001)
    assert train.dtype == "<u4" and train[:].tolist() == [5, 70_000, 69_999, 2, 70_000]


# ---- documents that do not see each other --------------------------------------------------------


def text_of(lengths, seed: int = 2) -> tuple[ShardedTokens, list[np.ndarray]]:
    """Documents of so many ids, the last of each 0, in two shards; each alone, after a 0."""
    rng = np.random.default_rng(seed)
    own = [np.append(rng.integers(1, 50, n - 1), 0) for n in lengths]
    parts = [own[: len(own) // 2], own[len(own) // 2 :]]
    shards = [np.concatenate(part) for part in parts]
    offsets = [np.cumsum([0, *map(len, part)]).astype(np.uint64) for part in parts]
    return ShardedTokens(shards, offsets), [own[0], *(np.append(0, ids) for ids in own[1:])]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_loss_is_that_of_the_documents_alone(name):
    """One window over seven documents, and each of them by itself."""
    model = models.make(CONFIGS[name])
    tokens, alone = text_of([5, 2, 6, 1, 4, 3, 4])
    assert len(tokens) == 25
    settings = Settings(block_size=24, batch_size=1, documents="packed")
    task = Pretraining(settings, tokens, tokens)
    batch = task.batch(0, model)
    assert batch.arrays[0].tolist() == [0]
    loss = task.loss(model, batch)
    found = gradients(model, loss)
    losses = [model.loss(ids[None, :-1], ids[None, 1:]) * (len(ids) - 1) for ids in alone]
    expected = sum(losses[1:], losses[0]) / 24
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert_close(found, gradients(model, expected))
    flat = Pretraining(dataclasses.replace(settings, documents="flat"), tokens, tokens)
    assert abs(flat.loss(model, batch).item() - expected.item()) > 1e-5
    for measured in (
        estimate_loss(model, tokens, 1, 1, 1, documents=True),
        loss_and_error(model, tokens, 1, documents=True)[0],
        task.evaluate(model)["val_loss"],
    ):
        assert measured == pytest.approx(expected.item(), abs=1e-6)


def test_where_documents_begin_in_a_window():
    tokens = ShardedTokens([np.array([7, 8, 0, 2, 9, 0, 4])], [np.array([0, 3, 6, 7], np.uint64)])
    found = data.draw_documents(tokens, np.array([0, 1]), 5)
    assert found.tolist() == [[0, 0, 1, 1, 1], [0, 1, 1, 1, 2]]
    assert data.documents_ended(tokens[:], 0).tolist() == [0, 3, 6, 7]
    assert data.documents_ended(tokens[:6], 0).tolist() == [0, 3, 6]
    assert data.documents_ended(tokens[:2], 0).tolist() == [0, 2]
