"""Deduplication: what theory says is found, the plain twins, and the same result for any ranks."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpt.data.pipeline import steps
from gpt.data.pipeline.dedup import Dedup, Settings, repeats, substrings
from gpt.data.pipeline.dedup.components import join
from gpt.data.pipeline.dedup.exact import text_hash
from gpt.data.pipeline.dedup.minhash import (
    MULTIPLIER,
    MinHash,
    Words,
    characters,
    error_probabilities,
    found_probability,
    ngram_hashes,
    threshold,
)
from gpt.data.pipeline.dedup.paragraphs import cut_paragraphs, paragraph_hashes
from gpt.data.pipeline.document import Document
from gpt.data.pipeline.shards import read_documents, write_shards
from gpt.data.pipeline.split import Settings as SplitSettings
from gpt.data.pipeline.split import Split
from gpt.data.pipeline.steps import run, totals
from tensorlite import parallel

from .test_train import ENVIRONMENT, ROOT


def folder_of(path: Path, shards: list[list[str]]) -> str:
    """A complete folder with these texts; a document's source is its shard and place."""
    path.mkdir()
    entries = []
    for k, texts in enumerate(shards):
        documents = [Document(text, f"{k}/{place}") for place, text in enumerate(texts)]
        stated = write_shards(path / f"{k:05d}", documents)
        entries.append({"name": f"{k:05d}"} | stated)
    (path / "manifest.json").write_text(json.dumps({"shards": entries}))
    return str(path)


def dedup(tmp_path: Path, shards: list[list[str]], **settings) -> list[Document]:
    source = folder_of(tmp_path / "in", shards)
    run(Dedup(Settings(**settings)), [source], tmp_path / "out")
    return list(read_documents(tmp_path / "out"))


def random_words(rng, count: int) -> list[str]:
    return [f"w{k}" for k in rng.integers(0, 20_000, count)]


# ---- signatures ----------------------------------------------------------------------------------


def plain_signature(words: list[int], bands=14, rows=8, n=5) -> list[int]:
    """Whole numbers of Python, one shingle and one permutation at a time."""
    a, b = np.random.PCG64(1).random_raw(2 * bands * rows).reshape(2, -1).tolist()
    hashes = []
    for k in range(max(1, len(words) - n + 1)):
        z = 0
        for word in words[k : k + n]:
            z = (z * int(MULTIPLIER) + word) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        hashes.append((z ^ z >> 31) >> 32)
    return [min((x * p + q) % 2**64 >> 32 for x in hashes) for p, q in zip(a, b)]


@pytest.mark.parametrize("count", [1, 3, 5, 6, 132, 300])
def test_signature_equals_the_plain_one(count):
    text = " ".join(random_words(np.random.default_rng(count), count))
    words = Words()(text).tolist()
    assert MinHash().signature(text).tolist() == plain_signature(words)
    points = [ord(c) for c in text]
    assert MinHash(n=9, shingle="characters").signature(text).tolist() == plain_signature(
        points, n=9
    )


def test_words_and_characters():
    hasher = Words()
    assert np.array_equal(hasher("Über den WOLKEN, -- 2x"), hasher("über den\nwolken 2x!"))
    assert len(hasher("... !")) == 0 and MinHash().signature("... !") is None
    assert characters("A\n\n b").tolist() == [97, 32, 98]
    assert len(ngram_hashes(np.arange(7, dtype=np.uint64), 5)) == 3


def test_hashes_of_words_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr("gpt.data.pipeline.dedup.minhash.MOST_WORDS", 10)
    hasher = Words()
    text = " ".join(random_words(np.random.default_rng(0), 100)) + " " + "x" * 1000
    assert np.array_equal(hasher(text), Words()(text))
    assert len(hasher) <= 10 and max(map(len, hasher)) <= 32


def planted_pair(rng, same: int, other: int) -> tuple[str, str]:
    """Texts with `same` common sequences of 5 words, and `other` more of them in either."""
    begin = random_words(rng, same + 4)
    return tuple(" ".join(begin + random_words(rng, other)) for _ in range(2))


SIMILARITIES = {0.5: (80, 40), 0.7: (70, 15), 0.8: (80, 10), 0.9: (90, 5), 0.95: (190, 5)}


@pytest.mark.parametrize("s", SIMILARITIES)
def test_the_share_of_pairs_found_is_that_of_theory(s):
    rng, minhash, pairs = np.random.default_rng(7), MinHash(), 1000
    same, other = SIMILARITIES[s]
    assert same / (same + 2 * other) == s
    found, agree = 0, []
    for _ in range(pairs):
        one, two = (minhash.signature(text) for text in planted_pair(rng, same, other))
        agree.append((one == two).mean())
        found += (one == two).reshape(14, 8).all(axis=1).any()
    assert abs(found / pairs - found_probability(s)) < 0.03
    sigma = (s * (1 - s) / (112 * pairs)) ** 0.5  # of the mean, if the numbers are independent
    assert abs(np.mean(agree) - s) < 4 * sigma
    assert np.std(agree) == pytest.approx((s * (1 - s) / 112) ** 0.5, rel=0.15)


def test_theory():
    assert found_probability(0.5, 1, 3) == 0.125 and found_probability(0.5, 2, 1) == 0.75
    assert threshold(16, 4) == 0.5
    below, above = error_probabilities(1, 1)  # threshold 1: s itself, whose mean is 1/2
    assert below == pytest.approx(0.5) and above == pytest.approx(0)


# ---- groups --------------------------------------------------------------------------------------


def plain_labels(n: int, pairs) -> list[int]:
    labels = list(range(n))
    for a, b in pairs:
        low, high = sorted((labels[a], labels[b]))
        labels = [low if label == high else label for label in labels]
    return labels


def test_join_equals_the_plain_one():
    rng = np.random.default_rng(3)
    shapes = [rng.integers(0, 60, (2, edges)) for edges in (0, 1, 20, 40, 100)]
    shapes.append(np.array([range(59), range(1, 60)]))  # a path
    shapes.append(np.array([range(59), [59] * 59]))  # a star about the largest number
    shapes.append(rng.permutation(60).reshape(2, 30))
    for a, b in shapes:
        expected = plain_labels(60, zip(a.tolist(), b.tolist()))
        assert join(np.arange(60), a, b).tolist() == expected
        half = len(a) // 2
        later = join(np.arange(60), a[half:], b[half:])
        assert join(later, b[:half], a[:half]).tolist() == expected


def test_repeats_equal_the_plain_ones():
    keys = np.random.default_rng(0).integers(0, 50, 200).astype(np.uint64)
    seen, expected = {}, {}
    for place, key in enumerate(keys.tolist()):
        if key in seen:
            expected[place] = seen[key]
        seen.setdefault(key, place)
    later, first = repeats.repeats(keys)
    assert dict(zip(later.tolist(), first.tolist())) == expected
    assert len(later) == len(expected)


def variants(rng, originals: int, each: int) -> list[str]:
    """Texts of which some are near-duplicates of each other, to all degrees, in a random order."""
    texts = []
    for _ in range(originals):
        original = random_words(rng, 60)
        for _ in range(each):
            words, changes = list(original), rng.integers(0, 6)
            for place, word in zip(rng.integers(0, 60, changes), random_words(rng, changes)):
                words[place] = word
            texts.append(" ".join(words))
    return [texts[k] for k in rng.permutation(len(texts))]


def in_shards(texts: list[str], count: int) -> list[list[str]]:
    return [list(part) for part in np.array_split(np.array(texts, object), count)]


def test_survivors_equal_those_of_all_pairs(tmp_path):
    texts = variants(np.random.default_rng(5), 400, 5)
    signatures = np.array([MinHash().signature(text) for text in texts])
    pairs = np.zeros((2000, 2000), bool)
    for band in signatures.reshape(2000, 14, 8).transpose(1, 0, 2):
        pairs |= (band[:, None] == band[None]).all(axis=2)
    labels = np.arange(2000)
    for _ in range(20):  # the smallest number among all neighbours: a path has at most 4 steps
        labels = np.where(pairs, labels[None], 2000).min(axis=1)
    survivors = [texts[k] for k in np.flatnonzero(labels == np.arange(2000))]
    assert 400 < len(survivors) < 1500
    assert [d.text for d in dedup(tmp_path, in_shards(texts, 7))] == survivors


def test_copies_and_near_duplicates(tmp_path):
    long = " ".join(f"word{k}" for k in range(200))
    shards = [
        [long, "Short text.", "", "!!!", "???"],
        ["short  TEXT.", long + " more", "!!!", long.upper(), "", "another"],
    ]
    left = dedup(tmp_path, shards)
    assert [d.text for d in left] == [long, "Short text.", "", "!!!", "???", "another"]
    assert [d.group for d in left] == [f"{text_hash(d.text):016x}" for d in left]
    manifest, tally = totals(tmp_path / "out")
    assert tally.removed_counts == {"exact copy": 4, "near-duplicate": 1}
    assert manifest["near_duplicates"]["found_by_similarity"]["0.8"] == 0.9235


def test_copies_only(tmp_path):
    long = " ".join(f"word{k}" for k in range(200))
    left = dedup(tmp_path, [[long, long + " more", long]], near=False)
    assert [d.text for d in left] == [long, long + " more"]


def test_shards_without_documents(tmp_path):
    left = dedup(tmp_path, [[], ["one", "two"], []], paragraphs=2, substrings=2)
    assert [d.text for d in left] == ["one", "two"]


def test_a_corpus_without_documents(tmp_path):
    assert dedup(tmp_path, [[], []], paragraphs=2, substrings=2) == []


def test_mark_keeps_all_and_their_group(tmp_path):
    long = " ".join(f"word{k}" for k in range(200))
    shards = [[long, "other"], [long + " more", "OTHER"]]
    left = dedup(tmp_path, shards, mark=True)
    assert [d.text for d in left] == [text for shard in shards for text in shard]
    groups = [d.group for d in left]
    assert groups[0] == groups[2] != groups[1] == groups[3]


# ---- parts of texts ------------------------------------------------------------------------------


def test_paragraphs_seen_before(tmp_path):
    menu, long = "Home | About | Contact", " ".join(f"word{k}" for k in range(200))
    shards = [
        [f"{menu}\n\nFirst page.\n\n{menu}", f"{long}\n\nKept once."],
        [f"{menu}\n  \nSecond page.", f"{long} more\n\nOnly in a copy, kept.", menu],
        ["Only in a copy, kept.\n\nThird page."],
    ]
    left = dedup(tmp_path, shards, paragraphs=15)
    assert [d.text for d in left] == [
        f"{menu}\n\nFirst page.",
        f"{long}\n\nKept once.",
        "Second page.",
        "Only in a copy, kept.\n\nThird page.",
    ]
    _, tally = totals(tmp_path / "out")
    assert tally.changed_counts == {"paragraph seen before": 3}
    assert tally.removed_counts == {"near-duplicate": 1, "all of it seen before": 1}
    assert {e[2] for e in tally.examples["paragraph seen before"]} == {menu}


def test_cut_paragraphs():
    text = "a a\n\nb\n \n\n  c c c\n\nd d\n"
    assert len(paragraph_hashes(text, 3)) == 3
    assert cut_paragraphs(text, 3, [False] * 3) == (text, [])
    assert cut_paragraphs(text, 3, [True, False, True]) == ("b\n \n\n  c c c", ["a a", "d d\n"])
    assert cut_paragraphs("", 1, []) == ("", [])


def plain_repeated(texts: list[str], length: int) -> list[bool]:
    seen, result = set(), []
    for text in texts:
        cut = [False] * (len(text) + 1)
        for k in range(len(text) - length + 1):
            if text[k : k + length] in seen:
                cut[k : k + length] = [True] * length
            seen.add(text[k : k + length])
        result += cut
    return result


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 13, 40])
def test_repeated_substrings_equal_the_plain_ones(length):
    rng = np.random.default_rng(length)
    texts = ["".join(rng.choice(list("abö\U0001f600"), size)) for size in (40, 0, 1, 25, 60)]
    texts += [texts[0][10:30] + "x" + texts[4], "a" * 50, texts[3]]
    points = [substrings.code_points(text + chr(0x10FFFF)) for text in texts]
    joined = np.concatenate(points)
    joined[joined == 0x10FFFF] = substrings.END
    found = substrings.repeated_within(joined, length)
    assert found.tolist() == plain_repeated(texts, length) and (length > 1 or found.any())


def test_substrings_seen_before(tmp_path):
    notice = "Permission is hereby granted, free of charge, to any person obtaining a copy."
    shards = [[f"One. {notice} Then."], [f"Two. {notice} End.", "Nothing here.", notice]]
    left = dedup(tmp_path, shards, substrings=50, near=False)
    assert [d.text for d in left] == [f"One. {notice} Then.", "TwoEnd.", "Nothing here."]
    _, tally = totals(tmp_path / "out")
    assert tally.changed_counts == {"substring seen before": 2}
    assert tally.removed_counts == {"all of it seen before": 1}
    assert {e[2] for e in tally.examples["substring seen before"]} == {f". {notice} ", notice}


def test_substrings_of_a_corpus_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(substrings, "MOST", 1000)
    rng = np.random.default_rng(0)
    texts = [" ".join(random_words(rng, 30)) for _ in range(8)]
    with pytest.raises(ValueError, match="more than 1,000 characters.*--paragraphs"):
        dedup(tmp_path, in_shards(texts, 4), substrings=50)


# ---- whoever does it, in whatever order ----------------------------------------------------------

HARD = dict(paragraphs=40, substrings=60)


def hard_corpus() -> list[list[str]]:
    rng = np.random.default_rng(11)
    blocks = variants(rng, 30, 3)
    texts = ["\n\n".join(blocks[k] for k in rng.integers(0, 90, 3)) for _ in range(60)]
    return in_shards(texts + variants(rng, 20, 6) + texts[:9], 6)


def content(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in out.iterdir() if p.is_file() and p.name[0] != "."}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder of documents, and what one process makes of it."""
    tmp_path = tmp_path_factory.mktemp("dedup")
    source = folder_of(tmp_path / "in", hard_corpus())
    run(Dedup(Settings(**HARD)), [source], tmp_path / "out")
    tally = totals(tmp_path / "out")[1]
    assert len(tally.removed_counts) >= 2 and len(tally.changed_counts) == 2
    return source, content(tmp_path / "out")


def test_parts_of_the_keys_and_another_order_give_the_same(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(repeats, "MOST", 16)
    dealt = steps.dealt
    monkeypatch.setattr(steps, "dealt", lambda *args: [hand[::-1] for hand in dealt(*args)])
    run(Dedup(Settings(**HARD)), [alone[0]], tmp_path / "out")
    assert content(tmp_path / "out") == alone[1]


def test_parts_of_the_work_give_the_same(alone, tmp_path):
    def whole(part) -> bool:
        try:
            done = run(Dedup(Settings(**HARD)), [alone[0]], tmp_path / "out", part=part)
            return done is not None
        except RuntimeError as error:
            assert "run the same command" in str(error)
            return False

    rounds = 1
    while not [whole(part) for part in ((0, 2), (1, 2))][1]:
        rounds += 1
        assert rounds < 8
    assert content(tmp_path / "out") == alone[1]


RANKS = """
import sys
from gpt.data.pipeline.dedup import Dedup, Settings
from gpt.data.pipeline.steps import run
from tensorlite import parallel
source, out, paragraphs, substrings = sys.argv[1:]
settings = Settings(paragraphs=int(paragraphs), substrings=int(substrings))
run(Dedup(settings), [source], out, parallel.join())
"""


@pytest.mark.parametrize("n", [2, 3])
def test_ranks_give_the_same(alone, tmp_path, n):
    if importlib.util.find_spec("mpi4py") is None or parallel.mpiexec() is None:
        pytest.skip("there is no MPI")
    command = [parallel.mpiexec(), "-n", str(n), sys.executable, "-c", RANKS, alone[0]]
    command += [str(tmp_path / "out"), *map(str, HARD.values())]
    limit = {"MPIEXEC_TIMEOUT": "60"}
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT | limit, capture_output=True, text=True, timeout=70
    )
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "out") == alone[1]


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(shingle="letters"), "'letters'; it can be 'words' or 'characters'"),
        (dict(bands=0), "bands is 0; it must be from 1 to 256"),
        (dict(rows=1000), "rows is 1000"),
        (dict(n=-1), "n is -1"),
        (dict(paragraphs=-1), "paragraphs is -1"),
        (dict(substrings=-5), "substrings is -5"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValueError, match=message):
        Dedup(Settings(**settings))


# ---- the split -----------------------------------------------------------------------------------


def test_split_keeps_groups_together(tmp_path):
    rng = np.random.default_rng(2)
    source = folder_of(tmp_path / "in", in_shards(variants(rng, 300, 4), 3))
    run(Dedup(Settings(mark=True)), [source], tmp_path / "marked")
    run(Split(SplitSettings(val_fraction=0.2)), [str(tmp_path / "marked")], tmp_path / "out")
    sides = {}
    for document in read_documents(tmp_path / "out"):
        sides.setdefault(document.group, set()).add(document.split)
    assert all(len(side) == 1 for side in sides.values()) and len(sides) > 300
    held_out = sum(side == {"val"} for side in sides.values())
    assert abs(held_out / len(sides) - 0.2) < 0.06
    counted = totals(tmp_path / "out")[1].changed_counts["held out for validation"]
    assert counted == sum(d.split == "val" for d in read_documents(tmp_path / "out"))


def test_split_does_not_depend_on_other_documents(tmp_path):
    texts = [f"text {k}" for k in range(500)]
    sides = []
    for name, shards in (("a", [texts]), ("b", [texts[250:], ["new"], texts[:250]])):
        source = folder_of(tmp_path / name, shards)
        run(Split(SplitSettings(val_fraction=0.3)), [source], tmp_path / f"{name}-out")
        documents = read_documents(tmp_path / f"{name}-out")
        sides.append({d.text: d.split for d in documents if d.text != "new"})
    assert sides[0] == sides[1]
    assert 100 < sum(split == "val" for split in sides[0].values()) < 200


@pytest.mark.parametrize("share, split", [(0, "train"), (1, "val")])
def test_split_of_nothing_and_all(tmp_path, share, split):
    source = folder_of(tmp_path / "in", [["a", "b"]])
    run(Split(SplitSettings(val_fraction=share)), [source], tmp_path / "out")
    assert {d.split for d in read_documents(tmp_path / "out")} == {split}


def test_split_settings_that_cannot_work():
    with pytest.raises(ValueError, match="val_fraction is 20; it is a share between 0 and 1"):
        SplitSettings(val_fraction=20)
