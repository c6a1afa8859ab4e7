"""The step "filter": documents that break a published rule of quality are left out.

The order is that of FineWeb's pipeline, cheap rules first: the user's lists, languages, Gopher's
quality and repetition, C4 (which also cuts lines), FineWeb. Source code has rules of its own, those
of Codex. A family is switched off by its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gpt.commandline import option

from ..code import is_code
from ..document import Document
from ..shards import read_shard
from ..steps import Step, Unit
from ..tally import Tally
from . import c4, codex, fineweb, gopher
from .blocklist import Domains, Words, read_list
from .measures import Measures, first_broken

# Languages that set no spaces between words: rules that count words say nothing of them.
UNSPACED = frozenset("ja zh th lo km my bo dz".split())


@dataclass
class FilterSettings:
    languages: str = option(
        "",
        "keep documents in these languages alone, such as en,de (those whose language is not known "
        "are left out); empty keeps all",
    )
    gopher: bool = option(True, "Gopher's rules of quality: length, words, symbols, stop words")
    repetition: bool = option(True, "Gopher's rules of repetition: lines, paragraphs, n-grams")
    c4: bool = option(True, "C4's rules for English: lines are cut, pages with { left out")
    c4_terminal: bool = option(
        False, "cut lines without . ? ! or a quote at their end, as C4 did and FineWeb did not"
    )
    fineweb: bool = option(True, "FineWeb's rules: ends of lines, short lines, repeated lines")
    codex: bool = option(True, "Codex's rules for source code: long lines, few letters and digits")
    code: bool = option(False, "judge files of source code by the rules for prose too")
    blocked_words: str = option("", "file of words, one a line: documents with one are left out")
    blocked_domains: str = option("", "file of domains, one a line: their documents are left out")


class Filter(Step):
    """The step: see the module. Raises as `read_list` for lists that cannot be read."""

    name = "filter"
    version = 3
    libraries = "regex"
    Settings = FilterSettings

    def __init__(self, settings: FilterSettings):
        super().__init__(settings)
        lists = settings.blocked_words, settings.blocked_domains
        words, domains = (
            read_list(path, what) if path else [] for path, what in zip(lists, ("words", "domains"))
        )
        self.lists = hashlib.sha256("\n".join([*words, "", *domains]).encode()).hexdigest()
        self.words, self.domains = Words(words), Domains(domains)
        self.languages = {code.strip() for code in settings.languages.split(",")} - {""}

    def extra_key(self) -> str:
        return self.lists

    def documents(self, unit: Unit, tally: Tally) -> Iterator[Document]:
        for document in read_shard(unit.source):
            kept = self.judge(document, tally)
            if kept is not None:
                yield kept

    def judge(self, document: Document, tally: Tally) -> Document | None:
        """The document as it is kept, perhaps with lines cut, or None; `tally` counts either."""
        rule, detail = self.unwanted(document)
        if rule:
            return tally.removed(rule, document, detail)
        if is_code(document):
            rule = first_broken(codex.RULES, document.text) if self.settings.codex else ""
            if rule:
                return tally.removed(rule, document)
            if not self.settings.code:
                return document
        measures = Measures(document.text)
        english = document.language in ("", "en")
        spaced = document.language not in UNSPACED
        rule = self.gopher(measures, english, spaced)
        if not rule and self.settings.c4 and english:
            verdict = c4.judge(document.text, self.settings.c4_terminal)
            rule = verdict.rule
            if verdict.text != document.text:
                document = replace(document, text=verdict.text)
                measures = Measures(document.text)
        else:
            verdict = None
        if not rule and self.settings.fineweb:
            rules = fineweb.RULES | (fineweb.WORD_RULES if spaced else {})
            rule = first_broken(rules, measures)
        if rule:
            return tally.removed(rule, document)
        for name, lines in verdict.cut.items() if verdict else ():
            tally.changed(name, document, len(lines), lines[0])
        return document

    def unwanted(self, document: Document) -> tuple[str, str]:
        """Which of the user's own wishes a document is against, and what was found; ("", "")."""
        if self.languages and document.language not in self.languages:
            return "language", f"{document.language or 'unknown'}: {document.text[:200]}"
        if domain := self.domains.found_in(document):
            return "blocked domain", f"{domain}: {document.url}"
        if self.words.entries and (word := self.words.found_in(document)):
            return "blocked word", word
        return "", ""

    def gopher(self, measures: Measures, english: bool, spaced: bool) -> str:
        """The first of Gopher's rules that a text breaks, of those that are for its language."""
        rule = ""
        if self.settings.gopher and spaced:
            rules = gopher.QUALITY | (gopher.STOP_WORDS_RULE if english else {})
            rule = first_broken(rules, measures)
        if self.settings.repetition and not rule:
            rule = first_broken(gopher.REPETITION, measures)
            if spaced and not rule:
                rule = gopher.repeated_ngram(measures)
        return rule
