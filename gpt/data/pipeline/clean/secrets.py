"""Keys, tokens and passwords in code and text, found to be masked.

Providers mark their keys with a prefix, so that such scanners find them: the forms below are those
that their documentation states. A value that is assigned to a name such as "password" is one if it
looks drawn at random, by its entropy: the method of detect-secrets (Yelp) and truffleHog.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from .masks import Place

PRIVATE_KEY = re.compile(r"-----(?:BEGIN|END) (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
MAX_PRIVATE_KEY = 20_000  # characters; one of 16,384 bits has 13,000
# What a key begins with -> the form of the whole key.
KEYS = {
    "AKIA": r"AKIA[A-Z2-7]{16}",  # Amazon: the identifier of an access key
    "ASIA": r"ASIA[A-Z2-7]{16}",
    "ghp_": r"ghp_[A-Za-z0-9]{36,251}",  # GitHub: personal, OAuth, user, server, refresh
    "gho_": r"gho_[A-Za-z0-9]{36,251}",
    "ghu_": r"ghu_[A-Za-z0-9]{36,251}",
    "ghs_": r"ghs_[A-Za-z0-9]{36,251}",
    "ghr_": r"ghr_[A-Za-z0-9]{36,251}",
    "github_pat_": r"github_pat_[A-Za-z0-9_]{36,251}",
    "glpat-": r"glpat-[\w-]{20,64}",  # GitLab
    "AIza": r"AIza[\w-]{35}",  # Google
    "xox": r"xox[abeoprs]-[A-Za-z0-9-]{20,250}",  # Slack
    "sk_live_": r"sk_live_[A-Za-z0-9]{20,250}",  # Stripe
    "rk_live_": r"rk_live_[A-Za-z0-9]{20,250}",
    "sk-": r"sk-(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{32,250}",  # OpenAI, Anthropic
    "hf_": r"hf_[A-Za-z]{34}",  # Hugging Face
    "npm_": r"npm_[A-Za-z0-9]{36}",
    "pypi-": r"pypi-[\w-]{50,250}",
    "SG.": r"SG\.[\w-]{16,32}\.[\w-]{32,64}",  # SendGrid
    "eyJ": r"eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,1000}",  # JSON Web Token: RFC 7519
}
KEY_FORMS = {
    prefix: re.compile(rf"(?<![A-Za-z0-9_-]){form}(?![A-Za-z0-9_])")
    for prefix, form in KEYS.items()
}
NAMES = "passw passphrase pwd secret token key credential".split()
ASSIGNED = re.compile(  # searched in small letters
    r"(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|auth[_-]?key"
    r"|credential)[\w.\-]{0,30}[\"'\]]{0,2}[ \t]{0,4}(?::=|=>|[:=])[ \t]{0,4}"
    r"(?:[\"'](?P<quoted>[^\"'\s]{8,200}+)[\"']|(?P<bare>[a-z0-9+/=_\-]{12,200}+)(?=\s|\Z))"
)
HEX = re.compile(r"[0-9a-f]+|[0-9A-F]+")
MIN_ENTROPY_HEX = 3.0  # bits a character; detect-secrets' own limits
MIN_ENTROPY = 3.7  # below its 4.5 of base64, which only long values reach; passwords are short


def secret_places(text: str) -> Iterator[Place]:
    """All keys and passwords of a text, in no order; places may overlap."""
    if "PRIVATE KEY" in text:
        yield from private_keys(text)
    for prefix, form in KEY_FORMS.items():
        if prefix in text:
            for match in form.finditer(text):
                yield Place(*match.span(), "key")
    lower = text.replace("İ", "I").lower()  # of which the small letter is two characters
    if any(name in lower for name in NAMES):
        for match in ASSIGNED.finditer(lower):
            start, end = match.span("quoted" if match["quoted"] else "bare")
            if looks_random(text[start:end]):
                yield Place(start, end, "secret")


def private_keys(text: str) -> Iterator[Place]:
    """Blocks of PEM (RFC 7468) and PGP, from their first line to their last."""
    marks = list(PRIVATE_KEY.finditer(text))
    for begin, end in zip(marks, marks[1:]):
        kinds = begin[0][5:8], end[0][5:8]
        if kinds == ("BEG", "END") and end.end() - begin.start() <= MAX_PRIVATE_KEY:
            yield Place(begin.start(), end.end(), "private key")


def looks_random(value: str) -> bool:
    """Whether a value looks drawn, by its letters and digits and by its entropy.

    >>> looks_random("8fK2pQ9xLm4Rz7"), looks_random("your-password-here"), looks_random("a.b.c[1]")
    (True, False, False)
    """
    if HEX.fullmatch(value):
        return len(value) >= 16 and entropy(value) >= MIN_ENTROPY_HEX
    kinds = [any(map(kind, value)) for kind in (str.islower, str.isupper, str.isdigit)]
    called = any(sign in value for sign in "(){}[]<>$%")  # a call, an index, a place to fill
    limit = min(MIN_ENTROPY, math.log2(len(value)) - 0.5)
    return sum(kinds) >= 2 and kinds[2] and not called and entropy(value) >= limit


def entropy(value: str) -> float:
    """Shannon's entropy of the characters, in bits a character.

    >>> entropy("abab")
    1.0
    """
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())
