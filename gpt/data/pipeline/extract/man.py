r"""The text of man pages: of the roff macros man(7) and mdoc(7), what a reader of the text needs.

This is no typesetter. Headings and paragraphs are kept, fonts and sizes are dropped, and so are
tables and whatever depends on a condition or defines a macro.

    .SH NAME                                    NAME
    ls \- list directory contents       ->      ls - list directory contents
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..document import Document
from ..tally import Tally
from .faults import NotText
from .plain import decode, is_binary
from .streams import read_whole

MAN_NAME = re.compile(r".+\.[1-9n][a-z]{0,6}(\.(gz|bz2|xz|zst))?")
MAN_START = re.compile(r"\s*(?:[.'].*\n\s*)*?\.\s*(TH|Dd|Sh|SH|so)\s")

ESCAPE = re.compile(
    r"\\(?:\".*"  # a comment
    r"|[fFmMgk](?:\[[^\]]{0,50}\]|\(..|.)"  # fonts, colours
    r"|s[-+]?(?:\[[^\]]{0,50}\]|\(..|'[^']{0,50}'|\d{1,2})"  # sizes
    r"|[hvwdDlLoRSHXZxAb]'[^']{0,200}'"  # movements and lines
    r"|\*?\((?P<two>..)|\*?\[(?P<long>[^\]]{0,50})\]|\*(?P<string>.)"
    r"|n(?:\(..|\[[^\]]{0,50}\]|.)"
    r"|(?P<one>.)|$)"
)
MAX_WORDS = 1000  # of a line with macros of mdoc(7)
ONE = {"-": "-", "e": "\\", "\\": "\\", " ": " ", "~": " ", "0": " ", ".": ".", "'": "'", "`": "`"}
SPECIAL = {
    **{"em": "—", "en": "–", "hy": "-", "mi": "-", "bu": "•", "co": "©", "rg": "®", "tm": "™"},
    **{"lq": "“", "rq": "”", "oq": "‘", "cq": "’", "aq": "'", "dq": '"', "ga": "`", "ha": "^"},
    **{"ti": "~", "rs": "\\", "sl": "/", "<=": "≤", ">=": "≥", "->": "→", "mu": "×", "+-": "±"},
    **{"R": "®", "Tm": "™", "Aq": "'", "C`": '"', "C'": '"', "C+": "C++", "la": "<", "ra": ">"},
}
JOINED = set("BR RB BI IB IR RI".split())  # fonts in turn: words without a space between them
FONTS = set("B I SM SB R CW".split())
BREAKS = set("PP P LP Pp sp br TP TQ RS RE HP IP It Bl El Ed D1 Dl UE ME YS SY EE".split())
LITERAL = {"nf": True, "EX": True, "Bd": True, "fi": False, "EE": False, "Ed": False}
SKIPPED = {"de": "..", "de1": "..", "am": "..", "ig": "..", "TS": ".TE", "EQ": ".EN", "PS": ".PE"}
OPENING = {"Dq": "“", "Qq": '"', "Sq": "‘", "Ql": "‘", "Op": "[", "Pq": "(", "Aq": "<", "Brq": "{"}
OPENING |= {"Bq": "[", "Oo": "[", "Po": "(", "Fl": "-"}
CLOSING = {"Dq": "”", "Qq": '"', "Sq": "’", "Ql": "’", "Op": "]", "Pq": ")", "Aq": ">", "Brq": "}"}
CLOSING |= {"Bq": "]"}
ENDS = {"Oc": "]", "Pc": ")", "Ns": ""} | {sign: sign for sign in ".,:;)]?!"}  # no space before
INLINE = set("Ar Cm Ic Em Sy Li Pa Va Ev Fa Ft Fn Nm Tn No Vt Er Dv An Sx Cd Xr Lk Mt Ms".split())
MDOC = INLINE | set(OPENING) | set(ENDS)


def _character(found: re.Match) -> str:
    name = found["two"] or found["long"] or found["string"]
    if name is not None:
        if re.fullmatch(r"u[0-9A-F]{4,5}", name):
            return chr(int(name[1:], 16))
        return SPECIAL.get(name, "")
    return ONE.get(found["one"], "")


def unescaped(text: str) -> str:
    r"""Text without roff's escapes.

    >>> unescaped(r"\fB\-\-all\fR \(em everything")
    '--all — everything'
    """
    return ESCAPE.sub(_character, text) if "\\" in text else text


def arguments(text: str) -> list[str]:
    """The arguments of a macro, which may be in double quotes.

    >>> arguments('LS "1" "GNU coreutils"')
    ['LS', '1', 'GNU coreutils']
    """
    found = re.findall(r'"((?:[^"]++|"")*+)(?:"|$)|(\S+)', text)
    return [quoted.replace('""', '"') or plain for quoted, plain in found]


def mdoc_line(name: str, words: list[str], page: str) -> str:
    """What a macro of mdoc(7) says: `words` may call further macros. `page` is the page's name.

    >>> mdoc_line("Op", ["Fl", "c", "Ar", "file"], "tar")
    '[-c file]'
    """
    text, closing = "", ""
    words = [name, *words[:MAX_WORDS]]
    for i, word in enumerate(words):
        if word in OPENING:
            text += OPENING[word]
            closing = CLOSING.get(word, "") + closing
        elif word in ENDS:
            last = i == len(words) - 1 and word != "Ns"  # a full stop stands behind the bracket
            text = text.rstrip() + (closing if last else "") + ENDS[word] + " " * (word != "Ns")
            closing = "" if last else closing
        elif word == "Nm" and (i + 1 == len(words) or words[i + 1] in MDOC):
            text += page + " "
        elif i > 1 and words[i - 2] == "Xr":
            text = f"{text.rstrip()}({word}) "
        elif word not in INLINE:
            text += word + " "
    return text.rstrip() + closing


def man_text(source: str) -> str:
    """The text of a man page, paragraphs divided by empty lines; "" for one that names another."""
    paragraphs: list[str] = []
    words: list[str] = []
    literal, until, braces, page = False, "", 0, ""

    def end_paragraph():
        text = ("\n" if literal else " ").join(words)
        if text.strip():
            paragraphs.append(text.strip("\n") if literal else " ".join(text.split()))
        words.clear()

    for line in source.replace("\\\n", "").split("\n"):
        if until or braces:  # inside a definition, a table or a condition
            braces += line.count("\\{") - line.count("\\}") if braces else 0
            until = "" if until and line.startswith(until) else until
            continue
        if not line.startswith((".", "'")):
            if line.strip() or literal:
                words.append(unescaped(line))
            else:
                end_paragraph()
            continue
        name, _, rest = line[1:].strip().partition(" ")
        if name in SKIPPED:
            until = SKIPPED[name]
        elif name in ("if", "ie", "el", "while"):
            braces = max(line.count("\\{") - line.count("\\}"), 0)
        elif name in ("SH", "SS", "Sh", "Ss"):
            end_paragraph()
            literal = False
            paragraphs.append(unescaped(" ".join(arguments(rest))))
        elif name in BREAKS or name in LITERAL:
            end_paragraph()
            literal = LITERAL.get(name, literal)
            given = arguments(rest)
            if name in ("It", "D1", "Dl") and given:
                words.append(unescaped(mdoc_line("No", given, page)))
            elif name == "IP" and given:
                words.append(unescaped(given[0]))
        elif name in JOINED:
            words.append(unescaped("".join(arguments(rest))))
        elif name in FONTS:
            words.append(unescaped(" ".join(arguments(rest))))
        elif name == "Nd":
            words.append("- " + unescaped(" ".join(arguments(rest))))
        elif name in MDOC:
            given = arguments(rest)
            page = page or (given[0] if name == "Nm" and given else "")
            words.append(unescaped(mdoc_line(name, given, page)))
    end_paragraph()
    return "\n\n".join(paragraphs)


def read_man(path: Path, source: str, tally: Tally) -> Iterator[Document]:
    """The document of a man page. Raises NotText, or TooLarge."""
    data = read_whole(path)
    if is_binary(data):
        raise NotText("it has zero bytes, so it is not text")
    yield Document(man_text(decode(data)), source)
