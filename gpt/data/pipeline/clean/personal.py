"""Personal data: addresses, telephone numbers, cards and accounts, found to be masked.

Each kind has a pattern and, where the kind has one, a check (Luhn's digit of a card, that of an
IBAN, that an IP address is public), so that dates, versions, ISBNs and hashes stay. Names of people
and postal addresses are not looked for: no pattern finds them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from .masks import Place

# ---- e-mail addresses ----------------------------------------------------------------------------

LOCAL_PART = re.compile(r"(?<![\w.+%-])[^\W_][\w.+%-]{0,63}\Z")  # at most 64 characters: RFC 5321
DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(?P<top>[^\W\d_]{2,24})(?![\w-])")
# What follows the last point of file names such as logo@2x.png, which are no domains.
FILES = frozenset("png jpg jpeg gif svg webp bmp ico css js ts json html htm xml pdf txt".split())


def emails(text: str) -> Iterator[Place]:
    """E-mail addresses, looked for around each "@"."""
    at = text.find("@")
    while at >= 0:
        local = LOCAL_PART.search(text[max(0, at - 65) : at])
        domain = DOMAIN.match(text, at + 1) if local else None
        if domain and domain["top"].lower() not in FILES:
            yield Place(at - len(local[0]), domain.end(), "email")
        at = text.find("@", at + 1)


# ---- telephone numbers ---------------------------------------------------------------------------

# A run of at least 7 digits with no more than two signs between them: every telephone or card
# number is in one. It is found fast, and the patterns below look at these runs alone.
DIGITS = re.compile(r"\d(?:[ ().\-/\xa0]{0,3}\d){6,60}+")
GAP = r"[ .\-\xa0]"
INTERNATIONAL = re.compile(  # +49 (0) 30 901820, 0049-30-901820: E.164 has at most 15 digits
    rf"(?<![\w+.,])(?:\+|00(?=(?:[17]|[2-9]\d){GAP}))[1-9]\d{{0,2}}"
    r"(?:(?:[ ][\-/][ ]|[ .\-/\xa0])?(?:\(\d{1,4}\)|\d{1,12})){1,7}+(?![\w-])"
)
NORTH_AMERICAN = re.compile(  # (212) 555-0123, 1-212-555-0123, 212.555.0123: no 0 or 1 at first
    r"(?<![\w.,/+\-])(?:1[ .\-])?"
    r"(?:\([2-9]\d\d\)[ ]?[2-9]\d\d[ .\-]|[2-9]\d\d-[2-9]\d\d-|[2-9]\d\d\.[2-9]\d\d\.)"
    r"\d{4}(?![\w\-/]|[.,]\d)"
)
NATIONAL = re.compile(  # 020 7946 0958, 030/901820, 01.23.45.67.89: a zero, groups, 9 to 12 digits
    rf"(?<![\w.,/+\-])(?<!\d:)(?:0[1-9](?:\.\d\d){{4}}|(?:\(0[1-9]\d{{0,4}}\)|0[1-9]\d{{0,4}})"
    rf"(?:(?:[ \-/]|[ ]/[ ])\d{{2,8}})(?:{GAP}\d{{2,6}}){{0,4}})(?![\w\-/]|[.,]\d)"
)
NAMED = re.compile(  # what "Tel.:" or "call" says to be one
    r"(?<!\w)(?:tel|telephone|tél|téléphone|telefon|telefone|teléfono|phone|mobile|mobil|cell|fax"
    r"|whatsapp|call|hotline|handy|portable)\b[ ]?(?:no|number|us at|us|at|nr)?[.:]{0,2}[ ]{0,2}"
    r"(?P<number>\(?\d(?:[ ().\-/\xa0]{0,3}\d){6,14})(?![\w\-/]|[.,]\d)",
    re.IGNORECASE,
)
DATE = re.compile(r"(?:19|20)\d\d([-/. ])[01]?\d\1[0-3]?\d|[0-3]?\d([-/. ])[01]?\d\2(?:19|20)\d\d")
NO_PHONE = re.compile(  # dates, 01 02 03 04 05, 0101 1100 0011, thousands such as 093 028 805,
    rf"{DATE.pattern}|\A(?:0\d*\D+)+0\d*\Z|\A[01\D]+\Z|\A0\d\d(?:[ ]\d{{3}})+\Z"
    r"|\A\+\d+\.\d+\Z|\A0\d{4}-\d{4}\Z"  # decimals; ZIP codes such as 02110-1301;
    r"|\A\+\d{5,}-[01]\d-[0-3]\d\Z"  # dates of years above 9999
)
COUNTRY_CODES = frozenset(  # of the plan E.164: of one digit, two, three (as first digits)
    "1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 "
    "64 65 66 81 82 84 86 90 91 92 93 94 95 98 21 22 23 24 25 26 29 35 37 38 42 50 59 67 68 69 80 "
    "85 87 88 96 97 99".split()
)


def phones(text: str, start: int, end: int) -> Iterator[Place]:
    """Telephone numbers that touch text[start:end], a run of digits."""
    before, after = max(0, start - 24), min(len(text), end + 2)
    for match in NAMED.finditer(text, before, after):
        if not DATE.match(match["number"]):
            yield Place(*match.span("number"), "phone")
    for match in INTERNATIONAL.finditer(text, max(0, start - 3), after):
        digits = only_digits(match[0]).removeprefix("" if match[0][0] == "+" else "00")
        known = digits[:1] in COUNTRY_CODES or digits[:2] in COUNTRY_CODES
        if known and 8 <= len(digits) <= 15 and not NO_PHONE.search(match[0]):
            yield Place(*match.span(), "phone")
    for match in NORTH_AMERICAN.finditer(text, max(0, start - 2), after):
        yield Place(*match.span(), "phone")
    for match in NATIONAL.finditer(text, max(0, start - 2), after):
        digits = only_digits(match[0])
        if 9 <= len(digits) <= 12 and not NO_PHONE.search(match[0]):
            yield Place(*match.span(), "phone")


def only_digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


# ---- cards and accounts --------------------------------------------------------------------------

CARD_START = re.compile(r"(?<![\w.,+\-])\d")
CARDS = [  # other digits may stand before and behind, such as a date
    re.compile(rf"\d(?:[ \-]?\d){{{length - 1}}}(?![\w\-]|[.,]\d)") for length in range(13, 20)
]
CARD_GROUPS = re.compile(r"\d+|\d{4}(?:[ \-]\d{3,7})+")  # and no table of small numbers
ISSUERS = re.compile(  # first digits and length: Visa, Mastercard, American Express, Diners, ...
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720))\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|(?:6011|65\d\d|64[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}"
    r"|62\d{14,17}|(?:5018|5020|5038|6304|6759|676[1-3])\d{8,15}"
)
IBAN = re.compile(r"[A-Z]{2}\d\d(?<![^\W_]....)(?:[ ]?[A-Z0-9]){11,30}")
IBAN_LENGTHS = dict(  # by country: the register of SWIFT, ISO 13616
    pair.split(":")
    for pair in (
        "AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 "
        "DE:22 DK:18 DO:28 EE:20 EG:29 ES:24 FI:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 "
        "HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 "
        "LV:21 LY:25 MC:27 MD:24 ME:22 MK:19 MR:27 MT:31 MU:30 NL:18 NO:15 PK:24 PL:28 PS:29 PT:25 "
        "QA:29 RO:24 RS:22 SA:24 SC:31 SE:24 SI:19 SK:24 SM:27 SV:28 TL:23 TN:24 TR:26 UA:29 VA:22 "
        "VG:24 XK:20"
    ).split()
)


def cards(text: str, start: int, end: int) -> Iterator[Place]:
    """Numbers of payment cards in text[start:end], a run of digits."""
    stop = min(len(text), end + 2)
    for first in CARD_START.finditer(text, start, stop):
        for form in CARDS:
            match = form.match(text, first.start(), stop)
            if not match or not CARD_GROUPS.fullmatch(match[0]):
                continue
            if ISSUERS.fullmatch(digits := only_digits(match[0])) and luhn(digits):
                yield Place(*match.span(), "card")


def luhn(digits: str) -> bool:
    """Whether the last digit is the one that Luhn's sum asks for: ISO/IEC 7812-1, annex B."""
    numbers = [int(digit) for digit in reversed(digits)]
    doubled = (sum(divmod(2 * number, 10)) for number in numbers[1::2])
    return (sum(numbers[::2]) + sum(doubled)) % 10 == 0


def ibans(text: str) -> Iterator[Place]:
    """International bank account numbers, with or without spaces."""
    for match in IBAN.finditer(text):
        length = int(IBAN_LENGTHS.get(match[0][:2], 0))
        end = match.start()
        for _ in range(length):  # the pattern may have taken capitals that follow the number
            end += 1 + (text[end : end + 1] == " ")
        number = text[match.start() : end].replace(" ", "")
        fits = end <= match.end() and len(number) == length > 0
        if fits and not text[end : end + 1].isalnum() and remainder(number) == 1:
            yield Place(match.start(), end, "iban")


def remainder(number: str) -> int:
    """An IBAN modulo 97, which is 1 for those that may be: ISO 7064, MOD 97-10."""
    turned = number[4:] + number[:4]
    return int("".join(str(int(sign, 36)) for sign in turned)) % 97


# ---- addresses of machines -----------------------------------------------------------------------

IPV4 = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w\-]|\.\d)")
VERSION_BEFORE = re.compile(
    r"(?:\b(?:v|ver|version|versions|release|build|rev|revision|firmware|section|chapter|assembly)"
    r"[.:=]?[ ]?\"?|[A-Za-z]/|[<>=~^]=[ ]?|[~^]|[\w.\-])\Z",
    re.IGNORECASE,
)
IPV6_SIGN = re.compile(r":[0-9A-Fa-f]{0,4}:")
IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{0,3}:[0-9A-Fa-f:]{2,35}(?![\w:])")


def addresses(text: str) -> Iterator[Place]:
    """Public IP addresses: private ones (127.0.0.1, 192.168.0.1) say nothing of a person.

    Four numbers are a version where a word such as "version" or the name of a program stands before
    them, or if all are below 32: one in 4,000 addresses is lost by that. They are the number of a
    section if a paragraph begins with them and a point follows.
    """
    for match in IPV4.finditer(text):
        before = text[max(0, match.start() - 12) : match.start()]
        section = before[-2:] in ("", "\n\n") and text[match.end() : match.end() + 1] == "."
        if section or VERSION_BEFORE.search(before):
            continue
        try:
            address = IPv4Address(match[0])
        except ValueError:
            continue
        if address.is_global and max(address.packed) >= 32:
            yield Place(*match.span(), "ip")
    if IPV6_SIGN.search(text):
        for match in IPV6.finditer(text):
            try:
                if IPv6Address(match[0]).is_global:
                    yield Place(*match.span(), "ip")
            except ValueError:
                continue


def personal_places(text: str) -> Iterator[Place]:
    """All personal data of a text, in no order; places may overlap."""
    yield from emails(text)
    for run in DIGITS.finditer(text):
        yield from cards(text, *run.span())
        yield from phones(text, *run.span())
    yield from ibans(text)
    yield from addresses(text)
