"""How fast the rules of the steps "clean" and "filter" are, in MB a second of a core's time.

    OMP_NUM_THREADS=1 python benchmarks/data_rules.py --megabytes 4 --size 4000

The text is Python's documentation and source, cut into documents of about `--size` characters at
the ends of lines, as pages of the web are; each family judges all of them, whatever the others say.
The best of three runs counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from gpt.data.corpora import python_code, python_docs
from gpt.data.pipeline.clean.boilerplate import count_lines, cut
from gpt.data.pipeline.clean.personal import personal_places
from gpt.data.pipeline.clean.secrets import secret_places
from gpt.data.pipeline.clean.unicode import mend, tidy
from gpt.data.pipeline.document import Document
from gpt.data.pipeline.filter import Filter, FilterSettings, c4, fineweb, gopher
from gpt.data.pipeline.filter.measures import Measures
from gpt.data.pipeline.tally import Tally


def documents(characters: int, size: int) -> list[Document]:
    """Documents of about `size` characters each, which end at the end of a line."""
    text, found, start = python_docs() + python_code(), [], 0
    while start < min(characters, len(text) - size):
        end = text.index("\n", start + size) + 1
        found.append(Document(text[start:end], f"{len(found)}.txt"))
        start = end
    return found


def families(texts: list[Document]) -> dict[str, Callable[[Document], object]]:
    """What is measured, by its name; the texts are all that a site has."""
    table, tally = count_lines(texts), Tally()
    step = Filter(FilterSettings())
    return {
        "filter: gopher quality": lambda d: judged(QUALITY, d),
        "filter: gopher repetition": lambda d: gopher.repetition(Measures(d.text)),
        "filter: c4": lambda d: c4.judge(d.text, terminal=False),
        "filter: fineweb": lambda d: judged(FINEWEB, d),
        "filter: the step": lambda d: step.judge(d, tally),
        "clean: count lines": lambda d: count_lines([d]),
        "clean: cut boilerplate": lambda d: cut(d, table, 10, 0.2),
        "clean: mend (ftfy)": lambda d: mend(d.text),
        "clean: tidy": lambda d: tidy(d, d.text, tally),
        "clean: personal data": lambda d: list(personal_places(d.text)),
        "clean: secrets": lambda d: list(secret_places(d.text)),
    }


QUALITY = gopher.QUALITY | gopher.STOP_WORDS_RULE
FINEWEB = fineweb.RULES | fineweb.WORD_RULES


def judged(rules: dict, document: Document) -> list[bool]:
    """What all rules of a family say, with the measures counted once."""
    measures = Measures(document.text)
    return [rule(measures) for rule in rules.values()]


def seconds(work: Callable[[Document], object], texts: list[Document]) -> float:
    """The best of three runs over all texts."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for text in texts:
            work(text)
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=4)
    parser.add_argument("--size", type=int, default=4000, help="characters of a document")
    args = parser.parse_args()
    texts = documents(int(args.megabytes * 1e6), args.size)
    size = sum(len(text.text.encode()) for text in texts) / 1e6
    print(f"{len(texts)} documents, {size:.1f} MB\n\n| rules | MB/s |\n|---|---|")
    for name, work in families(texts).items():
        print(f"| {name} | {size / seconds(work, texts):.1f} |", flush=True)


if __name__ == "__main__":
    main()
