"""Compares our tokenizers with tiktoken and with Hugging Face's, which are written in Rust.

    python benchmarks/tokenizers.py [TEXT ...] [--gpt2 FOLDER] [--picture docs/tokenizers.png]

Encoding: each TEXT, and 12 MB of Python's standard library, with the vocabulary of GPT-2 (FOLDER
has its encoder.json and vocab.bpe; without --gpt2 they are downloaded). Checks that the ids are
equal to tiktoken's. Then measures the speed in MB/s of text: the first call of a new tokenizer of
ours, later calls, later calls that return an array, two workers (on texts of 64 KB), tiktoken, and
HF tokenizers. Apart from the two workers, each uses one thread. Then encodes the 12 MB with every
line as a text of its own.

Training: on the 12 MB, in texts of 64 KB, with ours and with HF tokenizers, to 8,192 and 32,768
ids, with one and two workers (or their threads). The times include counting and progress. Then the
time of our training for 1 to 12 MB and 1,024 to 32,768 ids, as a table and a picture.

Then the encoding of long pieces, such as a megabyte without a space, and `encode_file` of 1 GB with
its peak memory. Where candidates are compared, they alternate and the times are medians.

Needs tiktoken and tokenizers (extra `oracle`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
# This folder is removed from the path, because this file would be imported as `tokenizers`.
sys.path[:] = [
    str(ROOT),
    *(p for p in sys.path if Path(p or ".").resolve() != Path(__file__).parent),
]

import tokenizer  # noqa: E402
from tokenizer import BPETokenizer, pieces  # noqa: E402

TURNS = 5
SIZE = 12_000_000


def python_source(size: int) -> str:
    root = Path(sysconfig.get_paths()["stdlib"])
    texts, total = [], 0
    for path in sorted(root.rglob("*.py")):
        if "site-packages" not in path.parts and total < size:
            text = path.read_bytes().decode("utf-8", "ignore")
            texts.append(text)
            total += len(text.encode())
    return "\n".join(texts).encode()[:size].decode("utf-8", "ignore")


def parts(text: str, size: int = 2**16) -> list[str]:
    return list(pieces.blocks(text, size, "gpt2"))


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def by_turns(functions: dict) -> dict[str, float]:
    """name -> median seconds; all functions are called one after the other, TURNS times."""
    times = {name: [] for name in functions}
    for _ in range(TURNS):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return {name: statistics.median(values) for name, values in times.items()}


# ---- encoding ------------------------------------------------------------------------------------


def encoding(texts: dict[str, str], folder: Path | None) -> None:
    import tiktoken
    import tokenizers as huggingface

    def new():
        return tokenizer.load(folder) if folder else tokenizer.pretrained("gpt2")

    ours = new()
    rust = tiktoken.Encoding(
        "gpt2",
        pat_str=pieces.PATTERNS["gpt2"],
        mergeable_ranks={token: i for i, token in ours.tokens.items()},
        special_tokens=ours.special_tokens,
    )
    with tempfile.TemporaryDirectory() as exported:
        ours.export(exported, "huggingface")
        hf = huggingface.Tokenizer.from_file(f"{exported}/tokenizer.json")

    print(f"{'encoding, MB/s':24}{'tiktoken':>10}", end="")
    columns = "first call", "1 thread", "to array", "2 workers"
    print("".join(f"{'ours, ' + name:>17}{'ratio':>6}" for name in columns), f"{'HF':>8}")
    for name, text in texts.items():
        divided = parts(text)
        assert ours.encode_ordinary(text) == rust.encode_ordinary(text), name
        fresh = iter([new() for _ in range(TURNS)])
        times = by_turns(
            {
                "tiktoken": lambda t=text: rust.encode_ordinary(t),
                "first call": lambda t=text, n=fresh: next(n).encode_ordinary(t),
                "1 thread": lambda t=text: ours.encode_ordinary(t),
                "to array": lambda t=text: ours.encode_to_numpy(t, (), ()),
                "2 workers": lambda d=divided: ours.encode_batch(d, 2, (), ()),
                "HF": lambda d=divided: [hf.encode(t).ids for t in d],
            }
        )
        size = len(text.encode()) / 1e6
        print(f"{name[:23]:24}{size / times['tiktoken']:10.1f}", end="")
        for column in columns:
            ratio = times["tiktoken"] / times[column]
            print(f"{size / times[column]:17.1f}{ratio:6.2f}", end="")
        print(f"{size / times['HF']:9.1f}")

    lines = text.splitlines(keepends=True)
    times = by_turns(
        {
            "tiktoken": lambda: [rust.encode_ordinary(line) for line in lines],
            "1 thread": lambda: ours.encode_batch(lines, 1, (), ()),
            "2 workers": lambda: ours.encode_batch(lines, 2, (), ()),
        }
    )
    print(f"\n{len(lines):,} lines, seconds: ", end="")
    print(", ".join(f"{column} {times[column]:.2f}" for column in times))


# ---- training ------------------------------------------------------------------------------------


def train_ours(texts: list[str], size: int, workers: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning that a megabyte is too small for 32,768 ids
        BPETokenizer.train(texts, size, workers=workers)


def their_training(path: str, size: int) -> None:
    """Train HF tokenizers on the texts in a file and print the seconds.

    This runs in a process of its own, because the number of threads is set by an environment
    variable that must be there before the import.
    """
    import tokenizers as huggingface

    texts = json.loads(Path(path).read_text())
    model = huggingface.Tokenizer(huggingface.models.BPE())
    model.pre_tokenizer = huggingface.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = huggingface.trainers.BpeTrainer(
        vocab_size=size,
        show_progress=False,
        initial_alphabet=huggingface.pre_tokenizers.ByteLevel.alphabet(),
    )
    print(seconds(lambda: model.train_from_iterator(texts, trainer)))


def training(text: str) -> None:
    print(f"\n{'training, seconds':24}{'ours':>10}{'HF':>10}{'ratio':>8}")
    texts = parts(text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "texts.json")
        path.write_text(json.dumps(texts))
        for size in (8192, 32768):
            for workers in (1, 2):
                command = [sys.executable, __file__, "--their_training", str(path), str(size)]
                environment = os.environ | {"RAYON_NUM_THREADS": str(workers)}
                ours, theirs = [], []
                for _ in range(TURNS):
                    ours.append(seconds(lambda s=size, w=workers: train_ours(texts, s, w)))
                    run = subprocess.run(command, env=environment, capture_output=True, check=True)
                    theirs.append(float(run.stdout))
                ours, theirs = statistics.median(ours), statistics.median(theirs)
                name = f"{size:,} ids, {workers} thread{'s' * (workers > 1)}"
                print(f"{name:24}{ours:10.2f}{theirs:10.2f}{ours / theirs:8.2f}")


def growth(text: str, picture: str | None) -> None:
    megabytes, sizes = (1, 2, 4, 8, 12), (1024, 4096, 8192, 16384, 32768)
    print(f"\n{'training, seconds':24}" + "".join(f"{n:>8,}" for n in sizes) + "  ids")
    times = {}
    for m in megabytes:
        texts = parts(text.encode()[: m * 10**6].decode("utf-8", "ignore"))
        for n in sizes:
            runs = [seconds(lambda t=texts, n=n: train_ours(t, n, 1)) for _ in range(3)]
            times[m, n] = statistics.median(runs)
        print(f"{m:>10} MB{'':12}" + "".join(f"{times[m, n]:8.2f}" for n in sizes))
    if not picture:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
    for n in sizes:
        left.plot(megabytes, [times[m, n] for m in megabytes], "o-", label=f"{n:,} ids")
    for m in megabytes:
        right.plot(sizes, [times[m, n] for n in sizes], "o-", label=f"{m} MB")
    left.set(xlabel="MB of Python source", ylabel="seconds to train", ylim=0)
    right.set(xlabel="ids")
    for axes in (left, right):
        axes.legend(fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=110)


# ---- long pieces and large files -----------------------------------------------------------------


def long_pieces(folder: Path | None) -> None:
    import base64
    import random

    rng = random.Random(0)
    tokens = tokenizer.load(folder) if folder else tokenizer.pretrained("gpt2")
    print(f"\n{'a piece of 1 MB':24}{'seconds':>10}{'tokens':>10}")
    for name, text in {
        "a": "a" * 10**6,
        "letters": "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=10**6)),
        "base64": base64.b64encode(rng.randbytes(750_000)).decode(),
        "Chinese": "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(333_333)),
        "spaces": " " * 10**6,
    }.items():
        start = time.perf_counter()
        ids = tokens.encode_ordinary(text)
        print(f"{name:24}{time.perf_counter() - start:10.2f}{len(ids):10,}")
        assert tokens.decode(ids) == text
    start = time.perf_counter()
    whole = BPETokenizer.train("abcab" * 1000, 300, pattern=None)
    ids = whole.encode_ordinary("abcab" * 200_000)
    print(f"{'no pattern':24}{time.perf_counter() - start:10.2f}{len(ids):10,}")


def large_file(text: str, folder: Path | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "text")
        with open(source, "w", encoding="utf-8") as file:
            while file.tell() < 10**9:
                file.write(text)
        size = source.stat().st_size / 1e6
        for workers in (1, 2):
            code = (
                "import resource, sys, tokenizer\n"
                "where, source, target, workers = sys.argv[1:]\n"
                "t = tokenizer.load(where) if where else tokenizer.pretrained('gpt2')\n"
                "n = t.encode_file(source, target, workers=int(workers))\n"
                "status = open('/proc/self/status').read().split()\n"
                "own = status[status.index('VmHWM:') + 1]\n"
                "print(n, own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
            )
            where = str(folder or "")
            command = [
                sys.executable,
                "-c",
                code,
                where,
                source,
                Path(scratch, "ids"),
                str(workers),
            ]
            start = time.perf_counter()
            run = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
            took = time.perf_counter() - start
            n, own, child = map(int, run.stdout.split())
            each = f"{own / 1024:.0f} MB" + (f", {child / 1024:.0f} MB a worker" if child else "")
            print(
                f"\nencode_file, {size:,.0f} MB, {workers} worker{'s' * (workers > 1)}: "
                f"{size / took:.0f} MB/s, {n:,} tokens, peak memory {each}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", nargs="*", type=Path, metavar="TEXT")
    parser.add_argument("--gpt2", type=Path, metavar="FOLDER")
    parser.add_argument("--picture", metavar="FILE")
    parser.add_argument("--their_training", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.their_training:
        return their_training(options.their_training[0], int(options.their_training[1]))
    source = python_source(SIZE)
    texts = {path.name: path.read_text("utf-8") for path in options.texts}
    encoding(texts | {"Python source": source}, options.gpt2)
    training(source)
    growth(source, options.picture)
    long_pieces(options.gpt2)
    large_file(source, options.gpt2)


if __name__ == "__main__":
    main()
