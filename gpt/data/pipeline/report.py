"""A page that shows what became of the documents: `python -m gpt.data stats FOLDER... --out FILE`.

One HTML file without scripts, which asks nothing of a network. What each step kept, what each rule
removed or changed with ten examples, and what the documents at the end are: their languages,
licences, sizes and sources. Texts of documents are shown as text, whatever they hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tokenizer.files import write_atomic

from .charts import bar, histogram
from .document import Document
from .markup import PAGE, Html, details, escaped, section, table
from .shards import SUFFIX, read_documents
from .steps import totals
from .tally import Tally

ROWS = 30  # of a table of languages, licences or sources
MOST_NAMES = 200_000  # that are counted at once: the rarest half is let go beyond
WORDS = {  # the page speaks of each step
    "extract": "Texts are taken out of files and archives.",
    "clean": "Texts are mended, and what is private or repeated on every page is cut.",
    "filter": "Documents that the rules of published data sets would not keep are left out.",
    "dedup": "Of documents that are equal, or nearly so, one stays.",
    "split": "Some documents are held out to validate.",
    "tokenize": "Texts become numbers.",
}


def write_report(folders: list[str], out: str | Path) -> None:
    """Write the page of these folders, in the order of the steps, to the file `out`.

    Raises FileNotFoundError for a folder that is not complete, and ValueError for a damaged one.
    """
    if not folders:
        raise ValueError("stats takes the folders of the steps, in their order, and has got none")
    try:
        page = report([Path(folder) for folder in folders])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"a manifest of {', '.join(map(str, folders))} is damaged ({error!r}): delete it and "
            "run the step that made it again"
        ) from None
    write_atomic(out, page.encode())


def report(folders: list[Path]) -> str:
    """The page of these folders, in the order of the steps. Raises as `write_report`."""
    steps = [made(folder) for folder in folders]
    parts = [summary(steps)]
    parts += [of_step(step, f"step-{i}") for i, step in enumerate(steps)]
    documents = [step for step in steps if step.holds_documents]
    if documents:
        parts.append(of_documents(documents[-1]))
    title = f"From {steps[0].count + steps[0].removed:,} to {steps[-1].count:,} documents"
    return PAGE.replace("TITLE", escaped(title)).replace("BODY", "\n".join(parts))


class Made:
    """What a step made: its folder, its manifest and the tally of all its shards."""

    def __init__(self, folder: Path, manifest: dict, tally: Tally):
        self.folder, self.manifest, self.tally = folder, manifest, tally
        shards = manifest["shards"]
        self.name = str(manifest.get("step", folder.name))
        self.count = sum(shard.get("documents", 0) for shard in shards)
        self.characters = sum(shard.get("characters", 0) for shard in shards)
        self.bytes = sum(shard.get("size", 0) for shard in shards)
        self.tokens = {  # of a step that makes them
            split: sum(shard[split]["tokens"] for shard in shards if split in shard)
            for split in ("train", "val")
        }
        self.removed = sum(tally.removed_counts.values())
        self.holds_documents = all((folder / f"{s['name']}{SUFFIX}").is_file() for s in shards)


def made(folder: Path) -> Made:
    """What the manifest of a folder says. Raises FileNotFoundError and ValueError."""
    try:
        return Made(folder, *totals(folder))
    except (KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{folder / 'manifest.json'} is damaged: delete it and run the step that made it again"
        ) from None


# ---- the steps -----------------------------------------------------------------------------------


def summary(steps: list[Made]) -> Html:
    """The funnel: how many documents and characters each step left."""
    most = max(max(step.count + step.removed for step in steps), 1)
    widest = max(max(step.characters for step in steps), 1)
    rows = [
        [
            Html(f'<a href="#step-{i}">{escaped(step.name)}</a>'),
            f"{step.count + step.removed:,}",
            f"{step.removed:,}",
            f"{step.count:,}",
            bar(step.count / most),
            f"{step.characters:,}" if step.characters else "",
            bar(step.characters / widest),
            f"{step.bytes / 1e6:,.1f}" if step.bytes else "",
        ]
        for i, step in enumerate(steps)
    ]
    names = ["step", "documents in", "left out", "documents out", "", "characters out", "", "MB"]
    note = "MB is what the shards take on the disk, compressed."
    return section("Step by step", Html(f"<p>{escaped(note)}</p>") + table(names, rows))


def of_step(step: Made, anchor: str) -> Html:
    """What the rules of a step did, with examples, and the step's settings."""
    parts, total = [], max(step.count + step.removed, 1)
    if any(step.tokens.values()):
        train, val = step.tokens["train"], step.tokens["val"]
        parts.append(f"<p>{train:,} tokens to train on, and {val:,} to validate.</p>")
    if words := WORDS.get(step.name):
        parts.append(f"<p>{escaped(words)}</p>")
    for kind, counts in [
        ("left out", step.tally.removed_counts),
        ("changed", step.tally.changed_counts),
    ]:
        rows = [
            [
                rule,
                f"{count:,}",
                f"{count / total:.2%}" if kind == "left out" else f"{1000 * count / total:,.1f}",
                examples(step.tally.examples.get(rule, [])),
            ]
            for rule, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ]
        if rows:
            share = "of all" if kind == "left out" else "per 1,000 documents"
            what = "documents" if kind == "left out" else "places"
            parts.append(table([kind, what, share, "examples"], rows))
    if not (step.tally.removed_counts or step.tally.changed_counts):
        parts.append("<p>Nothing was left out or changed.</p>")
    known = [[key, repr(value)] for key, value in sorted(step.manifest.get("settings", {}).items())]
    known += [[f"version of {k}", v] for k, v in step.manifest.get("libraries", {}).items()]
    parts.append(details("settings and versions", table(["name", "value"], known)))
    return section(f"{step.name}, {step.folder}", Html("".join(parts)), anchor)


def examples(kept: list[list[str]]) -> Html:
    """Examples of what a rule found: where, and the excerpt."""
    if not kept:
        return Html()
    title = "1 example" if len(kept) == 1 else f"{len(kept)} examples"
    shown = [
        f"<dt>{escaped(source)}</dt><dd><pre>{escaped(excerpt)}</pre></dd>"
        for _, source, excerpt in kept
    ]
    return details(title, Html(f"<dl>{''.join(shown)}</dl>"))


# ---- the documents -------------------------------------------------------------------------------


def of_documents(step: Made) -> Html:
    """What the documents of a folder are: sizes, languages, licences and sources."""
    counts = {kind: Counter() for kind in ("language", "licence", "source", "split")}
    sizes: Counter[int] = Counter()
    for document in read_documents(step.folder):
        sizes[len(document.text).bit_length()] += 1
        for kind, name in names_of(document):
            counts[kind][name] += 1
            if len(counts[kind]) > MOST_NAMES:
                counts[kind] = Counter(dict(counts[kind].most_common(MOST_NAMES // 2)))
    parts = [histogram(sizes)]
    for kind, found in counts.items():
        if found and not (kind == "split" and set(found) == {"unknown"}):
            parts.append(shares(kind, found))
    return section(f"The documents of {step.folder}", Html("".join(parts)), "documents")


def names_of(document: Document) -> Iterator[tuple[str, str]]:
    """What a document is counted under."""
    for kind in ("language", "licence", "split"):
        yield kind, getattr(document, kind) or "unknown"
    yield "source", site_of(document)


def site_of(document: Document) -> str:
    """The host of a document's address, else the file or the first two folders of its source.

    >>> site_of(Document("", "usr/share/doc/bash/README", ""))
    'usr/share'
    >>> site_of(Document("", "dump.xml#12", "https://simple.wikipedia.org/wiki/April"))
    'simple.wikipedia.org'
    """
    try:
        host = urlsplit(document.url).hostname
    except ValueError:
        host = None
    path = document.source.partition("#")[0].split("/")
    return (host or "/".join(path[:2] if len(path) > 2 else path))[:200] or "unknown"


def shares(kind: str, found: Counter[str]) -> Html:
    """A table of the most frequent names, with their counts and shares."""
    total, ranked = found.total(), sorted(found.items(), key=lambda item: (-item[1], item[0]))
    rows = [[n, f"{c:,}", f"{c / total:.2%}", bar(c / ranked[0][1])] for n, c in ranked[:ROWS]]
    if rest := ranked[ROWS:]:
        count = sum(c for _, c in rest)
        rows.append([f"{len(rest):,} others", f"{count:,}", f"{count / total:.2%}", ""])
    return table([kind, "documents", "share", ""], rows)
