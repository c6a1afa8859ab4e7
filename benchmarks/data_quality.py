"""Is a model better if it is trained on cleaned text than on the raw text?

    python benchmarks/data_quality.py FOLDER [FOLDER ...] [--seeds 1 2 3] [--steps 400]

The folders hold pages of documentation: benchmarks/data.py says where to find some. They go through
the steps extract, clean, filter, dedup and split of `python -m gpt.data`, with default settings.
The raw text is what `extract` wrote, the cleaned text what `dedup` wrote.

Held out are documents that went through all steps, by the hash of their group of near-duplicates;
the first 4,000 characters of each are measured. From both texts, documents that are like one of
these are left out: those that have at least 0.3 of its sequences of 5 words, or of whose own
sequences it has 0.3. This finds them in the raw text too, where they have their menus, and where
there are copies of them.

The tokenizer has 4,096 ids. It is trained on a sample of both texts, as much of each. For each seed
and each text, train.py then trains a model of 1.8 million parameters in a process with one BLAS
thread (--jobs of them at a time): the same settings, tokens seen and held-out set. With
--all_steps, models are trained on what `clean` and `filter` wrote, too.

A row of the table is a text: how many documents like the held-out ones were left out of it, what
remains, how often the training reads it, and the bits per byte of held-out text for each seed. The
program ends with status 1 if the model of the cleaned text is not better for each seed. Everything
is kept in --out, so that a benchmark which was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gpt.commandline import option
from gpt.data.pipeline import Document, Step, Tally, Unit, read_documents, run, shards_in
from gpt.data.pipeline.dedup.minhash import Words, ngram_hashes
from gpt.data.pipeline.recipe import make_step
from gpt.data.pipeline.shards import read_shard
from gpt.data.pipeline.split import share_of
from gpt.data.pipeline.steps import totals
from gpt.data.token_folder import read_about
from gpt.training.metrics import read_metrics
from tokenizer import BPETokenizer
from tokenizer.base import END_OF_TEXT

ROOT = Path(__file__).resolve().parent.parent
STEPS = ("extract", "clean", "filter", "dedup")
RAW, CLEANED = STEPS[0], STEPS[-1]
ALIKE = "like a held-out document"
LONGEST = 4000  # characters that are measured of a held-out document: none has most of the set
VOCAB_SIZE, SAMPLE = 4096, 2_000_000  # ids; characters of each text that they are found in
BATCH, BLOCK = 12, 128
RECIPE = f"""--preset demo --batch_size {BATCH} --block_size {BLOCK} --workers 1 --device cpu
--eval_iters 1 --log_interval 100 --init_from auto""".split()


# ---- what is held out ----------------------------------------------------------------------------


class HeldOut:
    """The sequences of 5 words of the held-out texts."""

    def __init__(self, texts: list[str]):
        self.words, self.sizes = Words(), []
        self.owners = defaultdict(list)  # from a sequence's hash to the texts that have it
        for k, text in enumerate(texts):
            found = self.sequences(text)
            self.sizes.append(len(found))
            for sequence in found:
                self.owners[sequence].append(k)

    def sequences(self, text: str) -> set[int]:
        return set(ngram_hashes(self.words(text), 5).tolist())

    def overlap(self, text: str) -> float:
        """How like one of the held-out texts this one is: the largest overlap coefficient.

        That is the number of sequences which both have, as a part of those of the one with fewer:
        1 where one text is a part of the other.
        """
        found = self.sequences(text)
        shared = Counter(k for sequence in found for k in self.owners.get(sequence, ()))
        return max((n / min(len(found), self.sizes[k]) for k, n in shared.items()), default=0.0)


@dataclass
class ApartSettings:
    overlap: float = option(0.3, "leave out documents that are at least so like a held-out one")


class Apart(Step):
    """A text to train on, and the held-out documents.

    Of its two inputs, the second is the folder of `split`, whose documents for validation are held
    out. Those of the first are for training, if they are not like one of these.
    """

    name = "apart"
    Settings = ApartSettings

    def units(self, inputs: list[str]) -> list[Unit]:
        self.held_out = HeldOut(held_out_texts(inputs[1]))
        self.known = [shard.key for shard in shards_in(inputs[1])]
        folders = enumerate(map(shards_in, inputs))
        return [Unit(f"{i}{s.name}", s.key, s.size, s) for i, shards in folders for s in shards]

    def extra_key(self) -> str:
        return hashlib.sha256(" ".join(self.known).encode()).hexdigest()

    def documents(self, unit: Unit, tally: Tally) -> Iterator[Document]:
        for document in read_shard(unit.source):
            if document.split == "val":
                document.text = document.text[:LONGEST]
                yield document
            elif not document.split:  # it is of the first input
                if self.held_out.overlap(document.text) < self.settings.overlap:
                    document.split = "train"
                    yield document
                else:
                    tally.removed(ALIKE, document)


def held_out_texts(folder: str | Path) -> list[str]:
    """The texts of the documents for validation. Raises ValueError where there are none."""
    texts = [d.text for d in read_documents(folder) if d.split == "val"]
    if not texts:
        raise ValueError(f"no document of {folder} is held out: give a larger --val_fraction")
    return texts


# ---- from folders of pages to token files --------------------------------------------------------


def prepare(folders: list[str], out: Path, val_fraction: float, progress=print) -> None:
    """Do all steps: OUT/STEP, OUT/STEP-apart and OUT/STEP-tokens for each of STEPS."""
    inputs = folders
    for name in (*STEPS, "split"):
        progress(name)
        step = make_step(name, {"val_fraction": val_fraction} if name == "split" else {})
        run(step, inputs, out / name)
        inputs = [str(out / name)]
    for name in STEPS:
        progress(f"{name}, without what is like the held-out documents")
        run(Apart(ApartSettings()), [str(out / name), str(out / "split")], out / f"{name}-apart")
    progress("tokens")
    texts = [text for name in (RAW, CLEANED) for text in sample(out / f"{name}-apart", SAMPLE)]
    tokenizer = BPETokenizer.train("\n".join(texts), VOCAB_SIZE, special_tokens=[END_OF_TEXT])
    (out / "tokenizer").mkdir(exist_ok=True)
    tokenizer.save(out / "tokenizer")
    for name in STEPS:
        step = make_step("tokenize", {"tokenizer": str(out / "tokenizer")})
        run(step, [str(out / f"{name}-apart")], out / f"{name}-tokens")


def sample(folder: Path, characters: int) -> list[str]:
    """The training texts of a folder with about so many characters in all, by their hashes."""
    share = characters / sum(shard["characters"] for shard in totals(folder)[0]["shards"])
    training = (d for d in read_documents(folder) if d.split == "train")
    return [d.text for d in training if share_of(d, 2) < share]


# ---- training ------------------------------------------------------------------------------------


def arguments_of(out: Path, name: str, seed: int, steps: int) -> list[str]:
    """What train.py is given for a run on what a step wrote."""
    arguments = [*RECIPE, "--dataset", str(out / f"{name}-tokens"), "--seed", str(seed)]
    arguments += ["--max_iters", str(steps), "--eval_interval", str(steps)]
    return [*arguments, "--out_dir", str(out / "runs" / f"{name}-{seed}-{steps}")]


def bits_per_byte(arguments: list[str]) -> float:
    """Train with these arguments, unless that has been done; the result on the held-out set."""
    done = subprocess.run(
        [sys.executable, "train.py", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    if done.returncode:
        raise RuntimeError(f"train.py {' '.join(arguments)} failed: see above")
    return read_metrics(Path(arguments[-1]) / "metrics.jsonl")[-1]["bits_per_byte"]


def train_all(
    out: Path, names: tuple[str, ...], seeds: list[int], steps: int, jobs: int
) -> dict[str, dict[int, float]]:
    """The results of the text of each name, by seed."""
    runs = [(name, seed) for seed in seeds for name in names]
    results = {name: {} for name in names}
    with ThreadPoolExecutor(jobs) as pool:
        arguments = (arguments_of(out, name, seed, steps) for name, seed in runs)
        for (name, seed), bits in zip(runs, pool.map(bits_per_byte, arguments)):
            results[name][seed] = bits
            print(f"seed {seed}, {name}: {bits:.4f}", flush=True)
    return results


# ---- the table -----------------------------------------------------------------------------------


def row(out: Path, name: str, steps: int, held_out: int, results: dict[int, float]) -> str:
    """The row of a text, with its results by seed; `held_out` characters are not of it."""
    manifest, tally = totals(out / f"{name}-apart")
    about = read_about(out / f"{name}-tokens")
    characters = sum(shard["characters"] for shard in manifest["shards"]) - held_out
    tokens = sum(about.shards["train"].values())
    cells = [f"`{name}`", f"{tally.removed_counts[ALIKE]:,}", f"{about.documents['train']:,}"]
    cells += [f"{characters / 1e6:.1f}", f"{tokens / 1e6:.2f}"]
    cells += [f"{steps * BATCH * BLOCK / tokens:.2f}", *(f"{b:.4f}" for b in results.values())]
    return f"| {' | '.join(cells)} |"


def verdict(raw: dict[int, float], cleaned: dict[int, float]) -> tuple[str, bool]:
    """What the results by seed say, and whether the cleaned text was better for all of them."""
    differences = [cleaned[seed] - raw[seed] for seed in raw]
    shown = ", ".join(f"{difference:+.4f}" for difference in differences)
    mean = statistics.mean(differences)
    share = mean / statistics.mean(raw.values())
    better = all(difference < 0 for difference in differences)
    return f"cleaned minus raw: {shown}; mean {mean:+.4f} bits per byte, {share:+.1%}", better


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", help="what is read")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=400, help="of each training")
    parser.add_argument("--all_steps", action="store_true", help="see above")
    parser.add_argument("--val_fraction", type=float, default=0.1, help="of the documents")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--out", type=Path, default=Path("data-quality"), help="a folder")
    given = parser.parse_args()
    out = given.out.resolve()
    names = STEPS if given.all_steps else (RAW, CLEANED)
    try:
        prepare([str(Path(f).resolve()) for f in given.folders], out, given.val_fraction)
        results = train_all(out, names, given.seeds, given.steps, given.jobs)
    except (OSError, ValueError, RuntimeError) as error:
        parser.exit(2, f"data_quality.py: error: {error}\n")
    texts = [text[:LONGEST] for text in held_out_texts(out / "split")]
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    print(f"held out: {len(texts):,} documents, {size / 1e6:.2f} MB")
    print(f"tokens seen: {given.steps * BATCH * BLOCK:,}\n")
    heads = ["text", "like the held-out", "documents", "M characters", "M tokens", "passes"]
    heads += [f"seed {seed}" for seed in given.seeds]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name in names:
        print(row(out, name, given.steps, sum(map(len, texts)), results[name]))
    said, better = verdict(results[RAW], results[CLEANED])
    print(f"\n{said}")
    return 0 if better else 1


if __name__ == "__main__":
    sys.exit(main())
