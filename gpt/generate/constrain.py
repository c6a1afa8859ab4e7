"""A text that must match a grammar: a regular expression, a JSON schema, or one of some answers.

Before each token is drawn, the ids after which the text could no longer match are ruled out. The
others keep the probabilities of the model, in proportion, also where several ways to cut the same
text into tokens remain. The library llguidance finds the ids (`pip install
'tensorlite[constrain]'`): from the bytes of all ids it makes a tree, and follows its branches only
as far as the grammar allows.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# JSON as json.dumps writes it. With free white space, a model could write nothing else for ever.
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True)
class Grammar:
    """What a whole text must be; `stream`, `generate` and `complete` take one as `constraint`.

    >>> Grammar.regex("[0-9]{4}-[0-9]{2}")  # doctest: +SKIP
    Grammar(rule='/[0-9]{4}-[0-9]{2}/')

    `rule` is in the notation of llguidance, which extends Lark's.
    """

    rule: str

    def __post_init__(self):
        library = llguidance()
        if error := library.LLMatcher.validate_grammar(self.lark):
            place_and_reason, *more = error.splitlines()
            reasons = [line for line in more if line.startswith("error: ")] or [place_and_reason]
            reason = reasons[0].partition(": ")[2] or error
            raise ValueError(f"a text cannot be constrained to {self.rule}: {reason}")

    @property
    def lark(self) -> str:
        # Without forcing, the tokenizer's own way to cut a text is not preferred to other ways.
        return f'%llguidance {{"no_forcing": true}}\nstart: {self.rule}'

    @staticmethod
    def regex(pattern: str) -> Grammar:
        r"""All of the text matches a pattern, as with re.fullmatch.

        The syntax is that of Rust's regex library: Python's without look-around, references to
        groups, \b, and anchors in the middle. Classes such as \d are Unicode's; \w has combining
        marks too, which Python's has not. Raises ValueError for a pattern that is not valid.
        """
        # A rule ends at a slash that is not escaped, and cannot hold an escaped line end.
        written = {"/": r"\/", "\\\n": r"\n"}
        body = re.sub(r"\\.|/", lambda m: written.get(m[0], m[0]), pattern, flags=re.DOTALL)
        return Grammar(f"/{body or '(?:)'}/")

    @staticmethod
    def json_schema(schema: Mapping | str) -> Grammar:
        """JSON that is valid for a schema, which is a dict or its JSON.

        It is on one line, with spaces as in json.dumps, and with the keys in the schema's order.
        Raises ValueError for a schema that is not valid, that nothing can satisfy, or with keywords
        that are not supported.
        """
        try:
            schema = json.loads(schema) if isinstance(schema, str) else dict(schema)
            rule = json.dumps(schema | {"x-guidance": JSON_STYLE})
        except (TypeError, ValueError) as error:
            raise ValueError(f"a schema is a dict, or a JSON object as str: {error}") from None
        return Grammar(f"%json {rule}")

    @staticmethod
    def choices(answers: Sequence[str]) -> Grammar:
        """One of these answers. Raises ValueError where there are none."""
        if isinstance(answers, str) or not answers or not all(isinstance(a, str) for a in answers):
            raise ValueError(f"choices are a list of answers, not {answers!r}")
        escaped = ("".join(f"\\x{{{ord(c):x}}}" for c in answer) for answer in answers)
        return Grammar.regex("|".join(escaped))

    def constraint(self, tokenizer, n_ids: int, eos: Collection[int] = ()) -> Constraint:
        """The constraint for one text of ids below n_ids, at its beginning."""
        return Constraint(self, tokenizer, n_ids, eos)


class Constraint:
    """How far one text has come in its grammar.

    allowed   (n_ids,), bool: the ids that may follow; an end token only where the text may end
    complete  the text matches the grammar, and may end here
    finished  nothing can follow: the text ends here

    Raises ValueError where the text is not complete and no token of the tokenizer can follow.
    """

    def __init__(self, grammar: Grammar, tokenizer, n_ids: int, eos: Collection[int] = ()):
        self.n_ids, self.eos = n_ids, [i for i in eos if 0 <= i < n_ids]
        tokens = tokens_of(tokenizer, n_ids, frozenset(eos))
        self.matcher = llguidance().LLMatcher(tokens, grammar.lark, log_level=0)
        self.look("the beginning")

    def take(self, new: int) -> None:
        """The text goes on with this id, one of those allowed that is not an end token."""
        self.matcher.consume_token(new)
        self.look(f"id {new}")

    def look(self, place: str) -> None:
        bits = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
        self.allowed = np.unpackbits(bits, bitorder="little")[: self.n_ids].astype(bool)
        self.complete = self.matcher.is_accepting()
        self.finished = self.complete and not self.allowed.any()
        self.allowed[self.eos] = self.complete
        if not self.complete and not self.allowed.any():
            reason = self.matcher.get_error().partition("\n")[0]
            raise ValueError(
                f"no token of the tokenizer can follow {place} in a text that matches the "
                f"constraint (llguidance: {reason or 'no token'})"
            )


@functools.lru_cache(maxsize=4)
def tokens_of(tokenizer, n_ids: int, eos: frozenset[int]):
    """What llguidance makes of the bytes of the ids, which takes a while for many ids.

    Ids that stand for no text have no bytes, and never follow.
    """
    wordless = {*tokenizer.special_tokens.values(), getattr(tokenizer, "unknown_id", None), *eos}
    words = tokenizer.vocabulary
    tokens = [b"" if i in wordless else words.get(i, b"") for i in range(n_ids)]
    library = llguidance()
    return library.LLTokenizer(library.TokenizerWrapper(Tokens([*tokens, b"<end>"])))


class Tokens:
    """Tokens as llguidance asks for them. The last is an end token, which has to be there."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes]):
        self.tokens, self.eos_token_id = tokens, len(tokens) - 1
        self.special_token_ids = [self.eos_token_id]

    def __call__(self, text) -> list[int]:
        return []  # the ids of a text; called once, to see whether it takes bytes


def llguidance():
    """The library. Raises ImportError that says how to install it."""
    try:
        import llguidance
    except ImportError:
        raise ImportError(
            "constraints need the library llguidance: pip install 'tensorlite[constrain]'"
        ) from None
    return llguidance
