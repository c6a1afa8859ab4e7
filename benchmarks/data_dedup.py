"""Near-duplicates: how long they take to find, and whether their share is that of theory.

    python benchmarks/data_dedup.py [--documents 100000] [--ranks 1 2] [--pairs 10000]

Finds pairs of texts of known similarity, and compares their share with theory. Then makes documents
of 3 KB, whose words are drawn from a vocabulary of 30,000 by Zipf's law. Every tenth is a copy of
an earlier one in which up to 5% of the words have been changed. Measures the parts of the work on
2,000 of them, and the step `dedup` on a quarter of them and on all, with each number of ranks:
seconds, and the peak memory of the largest rank. Last, sorts the keys of a million documents.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gpt.data.pipeline.dedup import Dedup, Settings
from gpt.data.pipeline.dedup.exact import text_hash
from gpt.data.pipeline.dedup.minhash import MinHash, found_probability
from gpt.data.pipeline.dedup.repeats import repeats
from gpt.data.pipeline.document import Document
from gpt.data.pipeline.shards import read_shard, shards_in, write_shards
from gpt.data.pipeline.steps import run
from tensorlite import parallel

ROOT = Path(__file__).resolve().parent.parent
IN_SHARD = 2500
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
SIMILARITIES = {0.5: (80, 40), 0.7: (70, 15), 0.8: (80, 10), 0.9: (90, 5), 0.95: (190, 5)}


def vocabulary(rng, size: int = 30_000) -> np.ndarray:
    return np.array(
        ["".join(rng.choice(SYLLABLES, length)) for length in rng.integers(1, 5, size)], object
    )


def make_documents(rng, count: int):
    """Texts of about 3 KB; every tenth is an earlier one of which up to 5% has been changed."""
    words = vocabulary(rng)
    chances = 1 / np.arange(1, len(words) + 1)
    edges = np.cumsum(chances) / chances.sum()
    earlier = []
    for k in range(count):
        if k % 10 == 9:
            ids = earlier[rng.integers(len(earlier))].copy()
            changes = rng.integers(0, len(ids) // 20)
            ids[rng.integers(0, len(ids), changes)] = rng.integers(0, len(words), changes)
        else:
            ids = np.searchsorted(edges, rng.random(rng.integers(170, 640)))
            if k % 100 == 0:
                earlier.append(ids)
        yield Document(" ".join(words[np.minimum(ids, len(words) - 1)]), f"made/{k}")


def make_folder(folder: Path, count: int) -> None:
    folder.mkdir()
    documents, entries = make_documents(np.random.default_rng(1), count), []
    for k in range(-(-count // IN_SHARD)):
        some = (d for d, _ in zip(documents, range(min(IN_SHARD, count - k * IN_SHARD))))
        stated = write_shards(folder / f"{k:05d}", some)
        entries.append({"name": f"{k:05d}"} | stated)
    (folder / "manifest.json").write_text(json.dumps({"shards": entries}))


def show_shares(pairs: int) -> None:
    """Of pairs with a known similarity, the share that is found."""
    print(f"| similarity | found of {pairs:,} pairs | theory |\n|---|---|---|")
    rng, minhash = np.random.default_rng(7), MinHash()

    def draw(count: int) -> list[str]:
        return [f"w{k}" for k in rng.integers(0, 10**9, count)]

    for s, (same, other) in SIMILARITIES.items():
        found = 0
        for _ in range(pairs):
            begin = draw(same + 4)
            one, two = (minhash.keys(" ".join(begin + draw(other))) for _ in range(2))
            found += (one == two).any()
        print(f"| {s} | {found / pairs:.4f} | {found_probability(s):.4f} |", flush=True)


def show_parts(folder: Path, count: int = 2000) -> None:
    """What the parts of the work take for a document."""
    shard = shards_in(folder)[0]
    texts, minhash = [d.text for d in read_shard(shard)][:count], MinHash()
    size = sum(map(len, texts)) / len(texts)
    work = {
        "read": lambda: list(read_shard(shard)),
        "hash of the text": lambda: [text_hash(text) for text in texts],
        "words": lambda: [minhash.items(text) for text in texts],
        "all of MinHash": lambda: [minhash.keys(text) for text in texts],
    }
    print(f"\n| for a document of {size:,.0f} characters | us |\n|---|---|")
    for name, function in work.items():
        start = time.perf_counter()
        n = len(function())
        print(f"| {name} | {(time.perf_counter() - start) / n * 1e6:.0f} |", flush=True)


def measure(source: Path, out: Path, ranks: int) -> dict:
    """Seconds and MB of the step as so many processes, and the documents that are left."""
    command = [sys.executable, __file__, "--work", str(source), str(out)]
    if ranks > 1:
        command = [parallel.mpiexec(), "-n", str(ranks), *command]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def work(source: str, out: str) -> None:
    team = parallel.join()
    start = time.perf_counter()
    manifest = run(Dedup(Settings()), [source], out, team)
    seconds = time.perf_counter() - start
    memory = max(team.gather(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
    if team.rank == 0:
        left = sum(shard["documents"] for shard in manifest["shards"])
        print(json.dumps({"seconds": seconds, "MB": memory, "left": left}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(*args.work)
    show_shares(args.pairs)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for count in (args.documents // 4, args.documents):
            make_folder(folder / str(count), count)
        show_parts(folder / str(args.documents))
        print("\n| documents | ranks | s | us a document | MB | left |\n|---|---|---|---|---|---|")
        for count in (args.documents // 4, args.documents):
            for ranks in args.ranks:
                out = folder / f"{count}-{ranks}"
                m = measure(folder / str(count), out, ranks)
                each = m["seconds"] / count * 1e6
                row = f"{count:,} | {ranks} | {m['seconds']:.1f} | {each:.0f} | {m['MB']:.0f}"
                print(f"| {row} | {m['left']:,} |", flush=True)
    keys = np.random.default_rng(0).integers(0, 2**64, 1_000_000, np.uint64)
    start = time.perf_counter()
    repeats(keys)
    seconds = 15 * (time.perf_counter() - start)
    print(f"\nThe 15 keys of {len(keys):,} documents are sorted in {seconds:.1f} s.")
    print(f"At the last rate above, a million documents take {each / 60:.1f} minutes.")


if __name__ == "__main__":
    main()
