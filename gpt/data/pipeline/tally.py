"""What a rule removed or changed: how often, and ten examples to look at."""

from __future__ import annotations

import hashlib
from collections import Counter

from .document import Document

EXAMPLES = 10  # of each rule
EXCERPT = 300  # characters of an example


class Tally:
    """Counts of what happened to documents, by the name of a rule.

    `removed` counts documents that were left out, `changed` places in texts that were changed or
    parts of texts that were taken out. The examples of a rule are those whose text has the smallest
    hashes: they are the same in whatever order the documents come.
    """

    def __init__(self):
        self.removed_counts: Counter[str] = Counter()
        self.changed_counts: Counter[str] = Counter()
        self.examples: dict[str, list[list[str]]] = {}  # rule -> [hash, source, excerpt] each

    def removed(self, rule: str, document: Document, detail: str = "") -> None:
        """Count a document that a rule left out; `detail` says what the rule found."""
        self.removed_counts[rule] += 1
        self._example(rule, document.source, detail or document.text)

    def changed(self, rule: str, document: Document, times: int = 1, detail: str = "") -> None:
        """Count `times` places of a document that a rule changed; none are not counted."""
        if times:
            self.changed_counts[rule] += times
            self._example(rule, document.source, detail or document.text)

    def failed(self, rule: str, source: str, error: object) -> None:
        """Count a file or record of which no document could be made, and say why."""
        self.removed_counts[rule] += 1
        self._example(rule, source, " ".join(str(error).split()))

    def _example(self, rule: str, source: str, text: str) -> None:
        excerpt = text[:EXCERPT].encode("utf-8", "replace").decode()
        named = f"{source}\0{excerpt}".encode("utf-8", "surrogatepass")
        key = hashlib.sha256(named).hexdigest()[:16]
        self._keep(rule, [[key, source, excerpt]])

    def _keep(self, rule: str, examples: list[list[str]]) -> None:
        self.examples[rule] = sorted(self.examples.get(rule, []) + examples)[:EXAMPLES]

    def add(self, other: dict) -> None:
        """Add what `as_json` of another tally gave."""
        self.removed_counts.update(other["removed"])
        self.changed_counts.update(other["changed"])
        for rule, examples in other["examples"].items():
            self._keep(rule, examples)

    def as_json(self) -> dict:
        """The counts and examples, in an order that depends on nothing but them."""
        return {
            "removed": dict(sorted(self.removed_counts.items())),
            "changed": dict(sorted(self.changed_counts.items())),
            "examples": dict(sorted(self.examples.items())),
        }
