"""Cutting a text into pieces: words, numbers, runs of punctuation, which no merge crosses.

`splitter` cuts by a regular expression, a published one or the user's. For the published ones,
`piece_starts` finds the same places with NumPy, several times as fast; the tests hold the two
equal. `blocks` divides a long text at places where every pattern begins a piece.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import chain

import numpy as np

# As published: GPT-2's in https://github.com/openai/gpt-2 (src/encoder.py), cl100k's and o200k's in
# https://github.com/openai/tiktoken (tiktoken_ext/openai_public.py), Qwen2's in the tokenizer.json
# of its models (https://huggingface.co/Qwen/Qwen2-0.5B). In all of them a space belongs
# to the word after it. This is why `\s+(?!\S)` comes before `\s+`: it leaves the last of several.
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d"
    r"| ?\p{L}+"
    r"| ?\p{N}+"
    r"| ?[^\s\p{L}\p{N}]+"
    r"|\s+(?!\S)"
    r"|\s+",
    # Contractions in capitals too; at most three digits; one sign may lead a word; line ends apart.
    "cl100k": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+",
    # cl100k with each digit by itself.
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+",
    # Also cuts where a small letter meets a capital, and keeps a contraction with its word.
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+",
}

SHORT_TEXT = 750  # characters; measured: up to this length the regular expression is faster
BLOCK = 2**16  # characters whose arrays stay in a core's cache

Pattern = str | tuple[str, ...] | None  # see `splitter`

# ---- by regular expressions ----


def splitter(pattern: Pattern) -> Callable[[str], list[str]]:
    """A function that cuts a text into pieces, by a name in PATTERNS or a regular expression.

    >>> splitter("gpt2")("It's 10  o'clock")
    ['It', "'s", ' 10', ' ', ' o', "'", 'clock']

    The pieces joined are the text, whatever the expression is: text that it does not match becomes
    pieces too. With None, the whole text is one piece. With several patterns, each cuts the pieces
    of the one before it further.

    >>> splitter((r"\\p{N}", "gpt2"))("in 1999")
    ['in', ' ', '1', '9', '9', '9']

    Raises ValueError if it is not a regular expression, TypeError if it is not a str.
    """
    if pattern is None:
        return lambda text: [text] if text else []
    if isinstance(pattern, tuple):
        return partial(_split_by_each, [splitter(one) for one in pattern])
    if not isinstance(pattern, str):
        raise TypeError(f"pattern must be a str or None, not {type(pattern).__name__}")

    import regex  # here, so that `import tokenizer` is quick; re knows no \p{L}

    try:
        compiled = regex.compile(PATTERNS.get(pattern, pattern))
    except (regex.error, RecursionError) as error:
        names = ", ".join(PATTERNS)
        raise ValueError(
            f"pattern {pattern[:80]!r} is neither one of {names} nor a regular expression: {error}"
        ) from None
    return partial(_split, compiled)


def _split(compiled, text: str) -> list[str]:
    if not compiled.groups:  # with groups, findall returns the groups and not the match
        pieces = compiled.findall(text)
        if "".join(pieces) == text:
            return pieces
    # Sorted, since a pattern with the flag (?r) searches backwards.
    pieces, end = [], 0
    for span in sorted(match.span() for match in compiled.finditer(text)):
        if end <= span[0] < span[1]:
            pieces += [text[end : span[0]], text[slice(*span)]]
            end = span[1]
    pieces.append(text[end:])
    return [piece for piece in pieces if piece]


def _split_by_each(splits, text: str) -> list[str]:
    pieces = [text] if text else []
    for split in splits:
        pieces = list(chain.from_iterable(map(split, pieces)))
    return pieces


def blocks(text: str, size: int, pattern: Pattern) -> Iterator[str]:
    """`text` in blocks of `size` characters or a few more, whose pieces are those of the text.

    The text is divided only where all published patterns begin a piece, whatever the text around
    the place is:
    - between a letter or digit and a character that is neither, nor a mark, nor an apostrophe;
    - before a blank that does not follow another blank;
    - after a single line end that is followed by neither a blank nor a slash.
    For other patterns no such place is known, and the text is one block.

    >>> list(blocks("one two three four", 5, "gpt2"))
    ['one two', ' three', ' four']
    """
    start = 0
    while start < len(text):
        end = next_cut(text, start + size, pattern)
        yield text[start:end]
        start = end


def next_cut(text: str, place: int, pattern: Pattern) -> int:
    """The first place from `place` on where `blocks` may divide `text`; else its end."""
    if pattern not in PATTERNS or place >= len(text):
        return len(text)
    found = _cut().search(text, max(place - 1, 0))
    return found.end() if found else len(text)


@cache
def _cut():
    import regex

    return regex.compile(
        r"[\p{L}\p{N}](?=[^\p{L}\p{N}\p{M}'])"  # the match ends where the text may be divided
        r"|\S(?=[^\S\r\n])"
        r"|(?<=\S)\n(?=[^\s/])"
    )


# ---- the same with NumPy ----

# The kinds of characters that the patterns distinguish, and which of them each pattern does.
OTHER, MARK, NUMBER, LOWER, UPPER, LETTER, BLANK, NEWLINE, NOTHING = range(9)
KINDS = {
    "gpt2": [OTHER, OTHER, NUMBER, LETTER, LETTER, LETTER, BLANK, BLANK],
    "cl100k": [OTHER, OTHER, NUMBER, LETTER, LETTER, LETTER, BLANK, NEWLINE],
    "qwen2": [OTHER, OTHER, NUMBER, LETTER, LETTER, LETTER, BLANK, NEWLINE],
    "o200k": [OTHER, MARK, NUMBER, LOWER, UPPER, LETTER, BLANK, NEWLINE],
}
SPACE, APOSTROPHE, SLASH, LONG_S = map(ord, " '/\u017f")  # LONG_S: an "s" in another case


@cache
def _kind_of(pattern: str, n: int) -> np.ndarray:
    """The kinds of the n characters with codes 0 to n - 1, (n,) uint8."""
    import regex

    every = "".join(map(chr, range(n)))
    kinds = np.zeros(len(every), np.uint8)
    for kind, characters in [
        (MARK, r"\p{M}+"),
        (NUMBER, r"\p{N}+"),
        (LOWER, r"\p{Ll}+"),
        (UPPER, r"[\p{Lu}\p{Lt}]+"),
        (LETTER, r"[\p{Lm}\p{Lo}]+"),
        (BLANK, r"\s+"),
        (NEWLINE, r"[\r\n]+"),
    ]:
        for run in regex.finditer(characters, every):
            kinds[slice(*run.span())] = kind
    return np.array(KINDS[pattern], np.uint8)[kinds]


def piece_starts(text: str, pattern: str, walls: np.ndarray | None = None) -> np.ndarray | None:
    """Where the pieces of `text` begin, (pieces,) places of characters; `pattern` in PATTERNS.

    `text` holds no surrogates. The characters at `walls`, no two of them neighbours, separate
    texts: each is a piece, and the text on one side of it has no influence on the other side.
    Returns None for text that only `splitter` can cut: for o200k, text with marks or with letters
    that have no case, and a few rare sequences.

    >>> piece_starts("It's 10  o'clock", "gpt2")
    array([ 0,  2,  4,  7,  8, 10, 11])
    """
    n = len(text)
    if not n:
        return np.zeros(0, np.intp)
    if text.isascii():
        encoding, dtype, characters = "ascii", np.uint8, 0x80
    else:
        encoding, dtype, characters = "utf-32-le", np.uint32, 0x110000
    codes = np.zeros(n + 2, dtype)  # two more, to look ahead
    codes[:n] = np.frombuffer(text.encode(encoding), dtype)
    kinds = np.full(n + 2, NOTHING, np.uint8)  # one more on either side
    np.take(_kind_of(pattern, characters), codes[:n], out=kinds[1:-1])
    if walls is not None:
        kinds[1 + walls] = NOTHING
    start = (_gpt2_starts if pattern == "gpt2" else _later_starts)(codes, kinds, pattern)
    return None if start is None else np.flatnonzero(start)


def _gpt2_starts(codes, kinds, pattern) -> np.ndarray:
    """Which characters begin a piece (n,) bool; codes (n + 2,), kinds (n + 2,) from the one before.

    A piece begins where the kind changes. The last of several blanks begins one too, and a space
    belongs to the piece after it.
    """
    start = kinds[1:-1] != kinds[:-2]
    last_blank = start[1:] & (kinds[1:-2] == BLANK) & (kinds[2:-1] != NOTHING)
    start[1:] ^= last_blank & (codes[:-3] == SPACE)
    start[:-1] |= last_blank
    quotes = np.flatnonzero(start & (codes[:-2] == APOSTROPHE))
    quotes, ends = _contractions(codes, quotes, any_case=False)
    start[quotes + 1] = False
    start[ends[ends < len(start)]] = True
    return start


def _contractions(codes, quotes, any_case: bool):
    """The apostrophes at `quotes` that begin 's 't 're 've 'm 'll or 'd, and where these end."""
    a, b = codes[quotes + 1], codes[quotes + 2]
    if any_case:
        a, b = (np.where(x == LONG_S, ord("s"), x | 32) for x in (a, b))
    size = np.zeros(len(quotes), np.intp)
    for letters in ("s", "t", "re", "ve", "m", "ll", "d"):
        fits = a == ord(letters[0])
        if letters[1:]:
            fits &= b == ord(letters[1])
        size[fits] = 1 + len(letters)
    return quotes[size > 0], (quotes + size)[size > 0]


def _later_starts(codes, kinds, pattern) -> np.ndarray | None:
    """`_gpt2_starts` for cl100k, qwen2 and o200k.

    A line end belongs to the punctuation before it, and the last line end in a run of white space
    ends a piece. A blank or a single sign belongs to the word after it.
    """
    start = kinds[1:-1] != kinds[:-2]
    n = len(start)
    by_case = pattern == "o200k"

    first, past = _runs(kinds, NEWLINE)
    before = kinds[first]
    start[first[(before == OTHER) | (before == BLANK)]] = False
    after_sign = before == OTHER
    if by_case:
        hard = (kinds == MARK) | (kinds == LETTER)
        if hard.any() or (codes[past[after_sign]] == SLASH).any():  # [\r\n/]*
            return None
        # A capital after a small letter begins a piece, a small one after a capital does not.
        start &= ~((kinds[1:-1] == LOWER) & (kinds[:-2] == UPPER))

    first_blank, past_blank = _runs(kinds, BLANK)
    before, after = kinds[first_blank], kinds[past_blank + 1]
    between = first_blank[(before == NEWLINE) & (after == NEWLINE)]  # two line ends: all one piece
    start[between] = after_sign[np.searchsorted(past, between)]
    ends = past_blank[(after != NEWLINE) & (after != NOTHING)]
    start[ends - 1] = True
    after = kinds[ends + 1]
    word = (after >= LOWER) & (after <= LETTER)
    start[ends[word | ((after == OTHER) & (codes[ends - 1] == SPACE))]] = False

    first, past = _runs(kinds, NUMBER)
    most = 1 if pattern == "qwen2" else 3  # digits in a piece
    if np.any(past - first > most):
        digits = np.flatnonzero(kinds[1:-1] == NUMBER)
        start[digits] = (digits - np.repeat(first, past - first)) % most == 0

    letter = (kinds[1:-1] >= LOWER) & (kinds[1:-1] <= LETTER)
    quotes = codes[:-2] == APOSTROPHE
    if by_case:  # a contraction stays with its word
        quotes[1:] &= letter[:-1]
        quotes[0] = False
    else:
        quotes &= start
    quotes, ends = _contractions(codes, np.flatnonzero(quotes), any_case=True)
    lone_sign = start & (kinds[1:-1] == OTHER)
    start[1:] &= ~(lone_sign[:-1] & letter[1:])
    start[quotes + 1] = start[ends - 1] = False
    if by_case:
        if np.isin(ends, quotes, assume_unique=True).any():  # it's's
            return None
        start[quotes] = False
    start[ends[ends < n]] = True
    return start


def _runs(kinds, kind):
    """Where the runs of a kind begin, and where they end."""
    here = kinds == kind
    edges = np.flatnonzero(here[1:] != here[:-1])
    return edges[::2], edges[1::2]
