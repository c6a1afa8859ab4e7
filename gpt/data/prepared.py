"""From the name of a corpus to token files: `train.py --dataset NAME`.

A corpus is fetched (fetched.py), or is what this machine has, and goes through the steps of the
pipeline, each into a folder of its own in the cache folder:

    corpora/NAME/raw -> extract -> clean -> dedup -> split -> tokens-HASH

What is done already is not done again, and what was stopped goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from tensorlite.parallel import ALONE, Team
from tokenizer.base import FILE_NAME
from tokenizer.fetch import cache_folder

from ..checkpoint.planned import PLAN, only_process
from .fetched import FETCHED, fetch_corpus
from .pipeline.recipe import make_step
from .pipeline.shards import shards_in
from .pipeline.steps import run
from .pipeline.tokenize import new_tokenizer

SYSTEM_DOCS = "system-docs"  # manual pages and documentation, as this machine has them
PREPARED = (*FETCHED, SYSTEM_DOCS)
TOKENIZER = "bpe:8192"  # small, for small models; trained on the corpus, so it needs no network


def prepare(
    name: str,
    tokenizer: str | None = None,
    team: Team = ALONE,
    say: Callable[[str], object] = print,
) -> Path:
    """The folder of token files of a corpus, made if need be. All ranks of the team call this.

    `tokenizer` is bpe:N, which is trained on a sample of the corpus, or the name or path of one
    that there is; None is bpe:8192. `say` is given what to tell the user.

    Raises ValueError for another name or tokenizer, and as `fetch_corpus` and the steps do.
    """
    tokenizer = tokenizer or TOKENIZER
    if name not in PREPARED:
        raise ValueError(f"{name!r} is no corpus that is prepared: {', '.join(PREPARED)} are")
    if tokenizer == "char":
        raise ValueError(
            f"--tokenizer char has an id for each character of a text, and {name} is too large to "
            "look for them all: bpe:N, gpt2, or a saved tokenizer"
        )
    folder = cache_folder() / "corpora" / name
    folder.mkdir(parents=True, exist_ok=True)
    with only_process(folder, say) if team.rank == 0 else nullcontext():
        inputs = team.same(inputs_of(name, say) if team.rank == 0 else None)
        settings = {}
        if name in FETCHED:
            settings = {"licence": FETCHED[name].licence} | FETCHED[name].settings
        for step in ("extract", "clean", "dedup", "split"):
            run(make_step(step, settings if step == "extract" else {}), inputs, folder / step, team)
            inputs = [str(folder / step)]
        if tokenizer.startswith("bpe:"):
            made = str(saved_tokenizer(tokenizer, folder / "split")) if team.rank == 0 else None
            tokenizer = team.same(made)
        step = make_step("tokenize", {"tokenizer": tokenizer})
        # By what the tokenizer and the documents are: a run that is resumed finds its own.
        keys = [step.extra_key(), *(shard.key for shard in shards_in(folder / "split"))]
        out = folder / f"tokens-{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:12]}"
        if team.rank == 0:  # by one path, whichever of several equal ones is named
            out.mkdir(exist_ok=True)
            step.tokenizer.save(out)
        team.wait()
        run(make_step("tokenize", {"tokenizer": str(out)}), inputs, out, team)
    return out


def inputs_of(name: str, say: Callable[[str], object] = print) -> list[str]:
    """The files or folders that a corpus is made of. Raises as `fetch_corpus` does."""
    if name != SYSTEM_DOCS:
        folder = fetch_corpus(name, say)
        paths = sorted(folder.glob("[!.]*"))
        return [str(path) for path in paths if path.name != PLAN and path.suffix != ".part"]
    from .pipeline.extract import system_docs_inputs

    if not (paths := system_docs_inputs()):
        raise FileNotFoundError(
            f"this machine has no manual pages and no documentation to make {name} of"
        )
    return [str(path) for path in paths]


def saved_tokenizer(name: str, folder: Path) -> Path:
    """The folder of the tokenizer bpe:N for these documents, trained if need be."""
    if not name[4:].isdigit():
        raise ValueError(f"--tokenizer bpe:N takes a number of ids, not {name[4:]!r}")
    shards = "".join(shard.key for shard in shards_in(folder))
    digest = hashlib.sha256(shards.encode()).hexdigest()
    path = folder.parent / f"bpe-{name[4:]}-{digest[:8]}"
    if not (path / FILE_NAME).exists():
        path.mkdir(exist_ok=True)
        new_tokenizer(int(name[4:]), folder).save(path)
    return path
