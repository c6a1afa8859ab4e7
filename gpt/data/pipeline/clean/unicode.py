"""Text as Unicode means it: broken encodings mended, one form of each character, no hidden ones."""

from __future__ import annotations

import re
import unicodedata

import regex

from ..document import Document
from ..libraries import library
from ..tally import Tally

# One sign for the end of a line: those of Windows, of old Macs, of Unicode (NEL, LS, PS).
LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
WIDE_SPACE = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f]")  # not \u3000, of Chinese text
# Control characters but tab and line feed, half characters (surrogates), and what shows nothing:
# zero-width spaces, soft hyphens, marks of direction, tags, fillers, those that are no characters.
# The joiners U+200C and U+200D stay: Persian, the scripts of India and emoji need them.
HIDDEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b"
    "\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e0fff]"
)
MANY_MARKS = regex.compile(r"(\p{M}{31,}+)")
EMPTY_LINES = re.compile(r"\n{4,}")
ASCII_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
UNTIDY = (" \n", "\t\n", "\n\n\n\n")


def mend(text: str) -> str:
    """The text with mojibake undone: UTF-8 that was read as another encoding, by ftfy.

    >>> mend("schÃ¶n")
    'schön'

    ftfy is asked for no more: quotes, ligatures and the width of characters stay as they are, as in
    datatrove. It looks at one line at a time, and here only at lines that have a sign of mojibake.
    """
    if text.isascii():
        return text
    ftfy = library("ftfy", "mending broken encodings")
    lines = text.split("\n")
    bad = [not line.isascii() and ftfy.is_bad(line) for line in lines]
    if not any(bad):
        return text
    config = ftfy.TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        remove_control_chars=False,
        normalization=None,
        explain=False,
    )
    fixed = [ftfy.fix_text(line, config) if b else line for line, b in zip(lines, bad)]
    return "\n".join(fixed)


def tidy(document: Document, text: str, tally: Tally) -> str:
    """The text in Unicode's form NFC, with line feeds as the ends of lines, spaces of one width,
    no hidden characters, no white space at the ends of lines, and at most two empty lines in a row.

    Hidden characters are counted, the rest is not: nothing that one can read is lost by it.
    """
    untidy = text.endswith((" ", "\t")) or any(map(text.__contains__, UNTIDY))
    if text.isascii() and not untidy and not ASCII_HIDDEN.search(text):
        return text  # most ASCII is as it should be
    text = LINE_END.sub("\n", text)
    text, hidden = HIDDEN.subn("", text)
    if hidden:
        first = HIDDEN.search(document.text)
        where = first.start() if first else 0
        excerpt = document.text[max(0, where - 60) : where + 60]
        tally.changed("hidden characters", document, hidden, ascii(excerpt)[1:-1])
    text = WIDE_SPACE.sub(" ", text)
    text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    return compose(EMPTY_LINES.sub("\n\n\n", text))


def compose(text: str) -> str:
    """The text in Unicode's form NFC, but for marks after the thirtieth of one character.

    More than 30 marks are no language's (Unicode Standard Annex 15, "Stream-Safe Text Format"), and
    sorting them takes a time that grows with the square of their number.
    """
    parts = MANY_MARKS.split(text)  # text, marks, text, ...
    parts[::2] = (unicodedata.normalize("NFC", part) for part in parts[::2])
    return "".join(parts)
