"""Searches for files, texts and lists of ids that crash a tokenizer or make it hang.

    python benchmarks/fuzz_tokenizer.py [--inputs 100000] [--seed 0]

One third of the inputs are files in the formats that `tokenizer.load` reads, in which bytes are
changed, cut out, repeated, copied from other files, or replaced by keywords of the formats. One
third are texts for tokenizers of every pattern; all ways of encoding a text must agree, and a BPE
tokenizer must decode the ids to the text. One third are lists of ids, which are decoded at once and
one by one. A fault is a disagreement, an input that takes more than 10 seconds, or an exception.
Two exceptions are not faults: a ValueError from `load` whose message begins with the path, and one
from `decode` for an id that does not exist.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:] = [
    str(ROOT),
    *(p for p in sys.path if Path(p or ".").resolve() != Path(__file__).parent),
]

from tqdm import tqdm  # noqa: E402

import tokenizer  # noqa: E402
from tokenizer import BPETokenizer, CharTokenizer, StreamDecoder  # noqa: E402
from tokenizer.texts import replace_surrogates  # noqa: E402

EOS = "<|endoftext|>"
CORPUS = (ROOT / "tokenizer" / "bpe.py").read_text() + "naïve 語 😀 It's 1234 IT'S\r\n\t" * 9
WORDS = [b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"true", b"-1", b"1e999", b"NaN", b"0"]
WORDS += [
    b'"model"',
    b'"vocab"',
    b'"merges"',
    b'"tokens"',
    b'"pattern"',
    b"\\ud800",
    b"\xff",
    b"\0",
]
WORDS += [b"AA== 0\n", b"= ", b"\n", b" ", b"9" * 30, b'"\\u0120a"', b"#version", "Ġ".encode()]
ALPHABETS = [
    "ab ",
    "aBsStTrReElLvVmMdD'  \t\n\r!/(123é",
    "".join(map(chr, range(256))),
    "語ſŁ\xa0\u0301٣½’\x1c\x85\u2028ǅʰ𝔄😀\ud800\udc00" + EOS,
]


class Hang(Exception):
    pass


def originals(folder: Path) -> list[Path]:
    """Make folders that each hold a valid vocabulary in one of the formats."""
    ours = BPETokenizer.train(CORPUS, 320, "gpt2", [EOS])
    CharTokenizer.train(CORPUS).save(folder / "char")
    ours.save(folder / "ours")
    BPETokenizer(None, "o200k", {EOS: 400}, ours.tokens).save(folder / "tokens")
    ours.export(folder / "hf", "huggingface")
    ours.export(folder / "ranks", "tiktoken")
    for name, files in {
        "gpt2": ("encoder.json", "vocab.bpe"),
        "hf2": ("vocab.json", "merges.txt"),
    }.items():
        (folder / name).mkdir()
        model = json.loads((folder / "hf" / "tokenizer.json").read_text())["model"]
        (folder / name / files[0]).write_text(json.dumps(model["vocab"]))
        (folder / name / files[1]).write_text("\n".join(map(" ".join, model["merges"])))
    return sorted(path for path in folder.iterdir())


def mutated(rng: random.Random, data: bytes, other: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 5))):
        i, j = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        match rng.randrange(7):
            case 0:
                data = data[:i] + rng.randbytes(rng.randrange(4)) + data[i + 1 :]
            case 1:
                data = data[:i] + data[j:]
            case 2:
                data = data[:j] + data[i:]
            case 3:
                data = data[:i]
            case 4:
                data = data[:i] + rng.choice(WORDS) + data[i:]
            case 5:
                k = rng.randrange(len(other) + 1)
                data = data[:i] + other[k : k + 200] + data[i:]
            case 6:
                data = b"".join(rng.choices(WORDS, k=rng.randrange(30)))
    return data


def fuzz_load(rng: random.Random, folders: list[Path], scratch: Path) -> str:
    folder = rng.choice(folders)
    for path in scratch.iterdir():
        path.unlink()
    files = sorted(folder.iterdir())
    changed = rng.choice(files)
    for path in files:
        data = path.read_bytes()
        if path == changed:
            another = rng.choice(sorted(rng.choice(folders).iterdir())).read_bytes()
            data = mutated(rng, data, another)
        (scratch / path.name).write_bytes(data)
    try:
        tokens = tokenizer.load(scratch)
    except ValueError as error:
        assert str(error).startswith(str(scratch)) and len(str(error)) < 1000, str(error)
        return "files refused"
    ids = tokens.encode_ordinary("It's 12 語\n")
    tokens.decode(ids)
    return "files read"


def fuzz_encode(rng: random.Random, tokenizers: list) -> str:
    tokens = rng.choice(tokenizers)
    alphabet = rng.choice(ALPHABETS)
    text = "".join(rng.choices(alphabet, k=rng.choice((0, 3, 30, 300))))
    text *= rng.choice((1, 1, 1, 30))
    text += rng.choice(("", "", CORPUS[: rng.randrange(3000)], rng.choice(alphabet) * 5000))
    ids = tokens.encode_ordinary(text)
    assert tokens.encode(text, (), ()) == ids
    assert tokens.encode_to_numpy(text, (), ()).tolist() == ids
    whole = replace_surrogates(text)
    if isinstance(tokens, BPETokenizer):
        assert tokens._encode_plainly(whole) == ids
        assert tokens.decode(ids) == whole
        assert tokens.decode(tokens.encode(text, "all")) == whole
    return "texts"


def fuzz_decode(rng: random.Random, tokenizers: list) -> str:
    tokens = rng.choice(tokenizers)
    ids = [rng.randrange(tokens.vocab_size) for _ in range(rng.randrange(200))]
    if rng.random() < 0.1:
        ids.append(rng.choice((-1, tokens.vocab_size, 10**30)))
        try:
            tokens.decode(ids)
        except ValueError:
            return "ids refused"
        raise AssertionError("an id that is not there was decoded")
    ids = [i for i in ids if i in tokens.vocabulary]
    text = tokens.decode(ids)
    assert tokens.decode_bytes(ids).decode("utf-8", "replace") == text
    decoder = StreamDecoder(tokens)
    assert "".join(map(decoder.push, ids)) + decoder.finish() == text
    strict = StreamDecoder(tokens, errors="strict")
    for token_id in ids:
        try:
            strict.push(token_id)
        except UnicodeError:
            pass
    return "lists of ids"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    seen, faults, slowest = Counter(), 0, 0.0

    def hang(*_):
        raise Hang("more than 10 seconds")

    signal.signal(signal.SIGALRM, hang)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder, "scratch")
        folders = originals(Path(folder))
        scratch.mkdir()
        trained = [
            BPETokenizer.train(CORPUS, 320, pattern, [EOS])
            for pattern in ("gpt2", "cl100k", "o200k", None, r"\w+|\s", r"(a)|b*", "(?r)x?")
        ]
        trained += [
            BPETokenizer(None, "cl100k", {EOS: 999}, trained[0].tokens),
            tokenizer.load(folders[0]),
        ]
        for i in tqdm(range(options.inputs), desc="inputs", disable=None):
            rng = random.Random(f"{options.seed} {i}")
            signal.setitimer(signal.ITIMER_REAL, 10)
            start = time.perf_counter()
            try:
                match i % 3:
                    case 0:
                        seen[fuzz_load(rng, folders, scratch)] += 1
                    case 1:
                        seen[fuzz_encode(rng, trained)] += 1
                    case 2:
                        seen[fuzz_decode(rng, trained)] += 1
            except Exception:
                faults += 1
                print(f"--seed {options.seed}, input {i}:", file=sys.stderr)
                traceback.print_exc()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            slowest = max(slowest, time.perf_counter() - start)
    print(f"{sum(seen.values()) + faults:,} inputs, {faults} faults; the slowest {slowest:.2f} s")
    print(", ".join(f"{count:,} {what}" for what, count in sorted(seen.items())))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
