"""The steps of a `tokenizer.json` around its model, in the terms of our tokenizers.

Each function reads one kind of step and raises ValueError, which names the step, for what would be
done there and not here.

| step | what is read |
|---|---|
| normalizer | NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace of a text or of all digits |
| pre_tokenizer | Split (Isolated), Digits, and ByteLevel last; or Metaspace |
| post_processor | TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel, and sequences |
| decoder | ByteLevel; or Replace, ByteFallback, Fuse and Strip in this order |
"""

from collections.abc import Sequence
from functools import cache
from reprlib import repr as short_repr  # a file may hold values of any size

from .files import member
from .normalizers import ANY_DIGIT, FORMS, LOWERCASE, Step, check_steps
from .pieces import PATTERNS, Pattern
from .sentencepiece_bpe import MARK, SCHEMES, Metaspace
from .transformers_config import Ids, items


def _steps(step: object, inside: str) -> list:
    """The steps of a Sequence, whose member `inside` holds them; of any other step, itself."""
    if step is None:
        return []
    if member(step, "type") != "Sequence":
        return [step]
    steps = step.get(inside)
    return steps if isinstance(steps, list) else [steps]


def _kinds(steps: list) -> list:
    return [member(step, "type") for step in steps]


# ---- normalizer ----


def read_normalizer(normalizer: object) -> list[Step]:
    """The steps of `normalizers.normalize`."""
    steps: list[Step] = []
    for step in _steps(normalizer, "normalizers"):
        kind, pattern = member(step, "type"), member(member(step, "pattern"), "String")
        if kind in FORMS:
            steps.append(kind)
        elif kind == "Lowercase":
            steps.append(LOWERCASE)
        elif kind == "Replace" and member(step.get("pattern"), "Regex") == ANY_DIGIT:
            steps.append(("digits", step.get("content")))
        elif kind == "Prepend":
            steps.append(("prepend", step.get("prepend")))
        elif kind == "Replace" and isinstance(pattern, str):
            steps.append(("replace", pattern, step.get("content")))
        else:
            raise ValueError(
                f"it changes the text first (normalizer {short_repr(kind)}), which is not "
                f"supported; only {', '.join(FORMS)}, Lowercase, Prepend and Replace of a text "
                f"or of {ANY_DIGIT} are"
            )
    return list(check_steps(steps))


# ---- pre_tokenizer ----


def is_byte_level(pre_tokenizer: object) -> bool:
    return "ByteLevel" in _kinds(_steps(pre_tokenizer, "pretokenizers"))


def byte_level_pattern(pre_tokenizer: object) -> Pattern:
    """The patterns by which a `pre_tokenizer` cuts a text, one after the other."""
    steps = _steps(pre_tokenizer, "pretokenizers")
    kinds = _kinds(steps)
    patterns: list[str] = []
    for step, kind in zip(steps, kinds):
        if kind == "Split":
            patterns.append(_split_pattern(step))
        elif kind == "Digits":
            patterns.append(r"\p{N}" if step.get("individual_digits") else r"\p{N}+")
        elif kind == "ByteLevel" and step is steps[-1]:
            if step.get("add_prefix_space", True):
                raise ValueError("it adds a space before the text, which is not supported")
            patterns += ["gpt2"] if step.get("use_regex", True) else []
        else:
            raise ValueError(
                f"pre_tokenizer {short_repr(kinds)} cannot be read; only Split, Digits, and "
                "ByteLevel at the end"
            )
    return tuple(patterns) if len(patterns) > 1 else patterns[0] if patterns else None


def _split_pattern(step: dict) -> str:
    pattern, how = step.get("pattern"), (step.get("behavior"), bool(step.get("invert")))
    text, expression = member(pattern, "String"), member(pattern, "Regex")
    if isinstance(text, str) and text:
        import regex

        expression = regex.escape(text, special_only=True)
    if not isinstance(expression, str):
        raise ValueError(f"the pattern {short_repr(pattern)} of a Split cannot be read")
    name = next((name for name, known in PATTERNS.items() if expression == known), expression)
    # Isolated keeps what the pattern does not match, Removed (inverted) drops it. The published
    # patterns match everything, so for them both do the same.
    if how != ("Isolated", False) and not (how == ("Removed", True) and name in PATTERNS):
        raise ValueError(
            f"a Split with behavior {short_repr(how[0])} and invert {how[1]} cannot be read; "
            "only Isolated, not inverted"
        )
    if name not in PATTERNS:
        _check_expression(expression)
    return name


PROBE = "It's 12,345.6 d'\u00e9t\u00e9  \n\n\t\u8a9e x__y (\u0301) 1234567890\r\n  "


@cache
def _check_expression(expression: str) -> None:
    """Refuse what Oniguruma, which Hugging Face uses, and `regex` read differently."""
    import regex

    outside = regex.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "", expression)
    if regex.search(r"&&|\}\+|\\[hHRXGKZzOyY]", expression) or regex.search(r"[\^$]", outside):
        raise ValueError(
            f"the pattern {short_repr(expression)} has a sign that means something else in the "
            r"regular expressions there: one of ^ $ && }+ \h \H \R \X \G \K \Z \z \O \y \Y"
        )
    try:
        empty = any(m.start() == m.end() for m in regex.finditer(expression, PROBE))
    except (regex.error, RecursionError) as error:
        raise ValueError(
            f"the pattern {short_repr(expression)} is not a regular expression: {error}"
        ) from None
    if empty:
        raise ValueError(
            f"the pattern {short_repr(expression)} matches the empty text, which would cut a "
            "text there and does not here"
        )


def read_metaspace(pre_tokenizer: object, normalizer: Sequence[Step]) -> Metaspace | None:
    """How spaces become marks; None where the normalizer has done it."""
    steps = _steps(pre_tokenizer, "pretokenizers")
    kinds = _kinds(steps)
    replaced = ("replace", " ", MARK) in map(tuple, normalizer)
    if kinds == ["Metaspace"]:
        step = steps[0]
        scheme = step.get("prepend_scheme")
        if scheme is None:  # as old files say it
            scheme = "always" if step.get("add_prefix_space", True) else "never"
        if step.get("replacement", MARK) != MARK or scheme not in SCHEMES:
            raise ValueError(
                f"Metaspace with the replacement {short_repr(step.get('replacement'))} and the "
                f"prepend_scheme {short_repr(scheme)} cannot be read"
            )
        return Metaspace(scheme, step.get("split", True) is not False)
    # Gemma's files cut at spaces, of which the normalizer has left none.
    at_spaces = kinds == ["Split"] and member(steps[0].get("pattern"), "String") == " "
    if replaced and (not kinds or at_spaces):
        return None
    raise ValueError(
        f"pre_tokenizer {short_repr(kinds)} cannot be read; only sequences that end with "
        f"ByteLevel, Metaspace, or none with a normalizer that replaces spaces by {MARK}"
    )


# ---- post_processor ----


def read_around(processor: object) -> Ids:
    """The ids that a `post_processor` puts before and after a text."""
    prefix: list[int] = []
    suffix: list[int] = []
    for step in _steps(processor, "processors"):
        kind = member(step, "type")
        if kind == "TemplateProcessing":
            before, after = _template(step)
        elif kind in ("BertProcessing", "RobertaProcessing"):
            before, after = ([_token_id(step, end)] for end in ("cls", "sep"))
        elif kind == "ByteLevel":  # it changes only offsets
            continue
        else:
            raise ValueError(f"post_processor {short_repr(kind)} cannot be read")
        prefix, suffix = before + prefix, suffix + after
    return prefix, suffix


def _template(step: dict) -> Ids:
    """What stands before and after the text in the template for a single text."""
    sides: list[list[int]] = [[]]
    for piece in items(step.get("single")):
        name = member(member(piece, "SpecialToken"), "id")
        if member(piece, "Sequence") is not None:
            sides.append([])
            continue
        ids = member(member(step.get("special_tokens"), name), "ids") if name else None
        if not isinstance(ids, list):
            raise ValueError(f"the post_processor has {short_repr(piece)}, which has no ids")
        sides[-1] += ids
    if len(sides) != 2:
        raise ValueError(f"the post_processor puts {len(sides) - 1} texts in place of one")
    return sides[0], sides[1]


def _token_id(step: dict, end: str) -> object:
    token = step.get(end)
    if not isinstance(token, list) or len(token) != 2:
        raise ValueError(f"{end} of the post_processor must be a name and an id")
    return token[1]


# ---- decoder ----


def check_byte_level_decoder(decoder: object) -> None:
    kinds = _kinds(_steps(decoder, "decoders"))
    if kinds not in ([], ["ByteLevel"]):
        raise ValueError(f"decoder {short_repr(kinds)} cannot be read; only ByteLevel")


def read_sentencepiece_decoder(decoder: object, byte_fallback: bool) -> bool:
    """Whether a space at the start of a text is left out."""
    steps = _steps(decoder, "decoders")
    expected = [
        {"type": "Replace", "pattern": {"String": MARK}, "content": " "},
        *([{"type": "ByteFallback"}] if byte_fallback else []),
        {"type": "Fuse"},
    ]
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    if steps == [*expected, strip]:
        return True
    if steps != expected:
        raise ValueError(
            f"decoder {short_repr(_kinds(steps))} cannot be read; only {_kinds(expected)} with or "
            f"without Strip of one space at the start after them, which put spaces for {MARK}"
        )
    return False
