"""Pieces of an HTML page in which every text is escaped unless it is marked as HTML."""

from __future__ import annotations

import html


class Html(str):
    """Text that is HTML already. Everything else is escaped where it enters a page."""

    def __add__(self, other: Html) -> Html:
        return Html(str.__add__(self, other if isinstance(other, Html) else escaped(other)))


def escaped(text: object) -> Html:
    r"""Any text as HTML that shows it; what has no shape of its own is shown by its number.

    >>> escaped("<b>\u202e\x00")
    '&lt;b&gt;[U+202E][U+0000]'
    """
    if isinstance(text, Html):
        return text
    shown = (c if c.isprintable() or c in "\n\t" else f"[U+{ord(c):04X}]" for c in str(text))
    return Html(html.escape("".join(shown)))


def table(names: list[str], rows: list[list[object]]) -> Html:
    """A table; cells that begin with a digit are set to the right, with the names above them."""
    first = rows[0] if rows else names
    head = "".join(f"<th{kind(cell)}>{escaped(name)}</th>" for name, cell in zip(names, first))
    body = "".join(
        f"<tr>{''.join(f'<td{kind(cell)}>{escaped(cell)}</td>' for cell in row)}</tr>"
        for row in rows
    )
    return Html(
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def kind(cell: object) -> str:
    """The attribute of a cell that holds a number, which no HTML is."""
    is_number = not isinstance(cell, Html) and str(cell)[:1].isdigit()
    return " class=number" if is_number else ""


def section(title: str, body: Html, anchor: str = "") -> Html:
    """A part of the page under a heading; `anchor` is what a link to it says."""
    where = f' id="{escaped(anchor)}"' if anchor else ""
    return Html(f"<section{where}><h2>{escaped(title)}</h2>{body}</section>")


def details(title: str, body: Html) -> Html:
    """What is shown when the reader asks for it."""
    return Html(f"<details><summary>{escaped(title)}</summary>{body}</details>")


# The policy forbids scripts and requests, even if hostile text found a way into the page as HTML.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>TITLE</title>
<style>
:root { --back: #fff; --text: #1c2430; --faint: #5b6675; --line: #dde2e8; --bar: #3d7dca;
  --code: #f4f6f8; }
@media (prefers-color-scheme: dark) { :root { --back: #12161c; --text: #e4e8ee; --faint: #98a3b3;
  --line: #2c343f; --bar: #5b9bea; --code: #1b212a; } }
body { margin: 0 auto; max-width: 70rem; padding: 1rem 1.5rem 4rem; background: var(--back);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
a { color: var(--bar); }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--faint); font-weight: 500; white-space: nowrap; }
th:first-child { width: 18rem; }
.number { width: 1%; text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
summary { cursor: pointer; color: var(--faint); }
dt { color: var(--faint); font-size: .85rem; margin-top: .6rem; }
dd { margin: 0; }
pre { margin: .2rem 0; padding: .5rem .7rem; background: var(--code); border-radius: 4px;
  white-space: pre-wrap; overflow-wrap: anywhere; font: .85rem/1.4 ui-monospace, monospace;
  max-height: 16rem; overflow-y: auto; unicode-bidi: isolate; }
svg { max-width: 100%; height: auto; } td svg { min-width: 6rem; height: 12px; }
svg rect { fill: var(--bar); }
svg text { fill: var(--faint); font: 12px system-ui, sans-serif; }
</style>
</head>
<body>
<h1>TITLE</h1>
BODY
</body>
</html>
"""
