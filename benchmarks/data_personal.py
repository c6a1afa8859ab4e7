"""Personal data in made texts: how much the masks find, and how much of what they mask is none.

    python benchmarks/data_personal.py --texts 1000 --seed 1

Each text is a few sentences of letters, pages of contact, logs, code and bills, in which values are
set: e-mail addresses, telephone numbers as ten countries write them, cards, accounts, addresses of
machines, keys, passwords. As many others only look so: versions, dates, ISBNs, hashes, order
numbers whose last digit is not that of a card, prices, coordinates, private addresses. A mask is
right if it stands exactly where a value stood, and is of its kind.
"""

from __future__ import annotations

import argparse
import string
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gpt.data.pipeline.clean.masks import Place, outermost
from gpt.data.pipeline.clean.personal import IBAN_LENGTHS, personal_places
from gpt.data.pipeline.clean.secrets import secret_places

FIRST = (
    "anna ben carla dmitri elif farid grace hiro ines jonas kavya liam mei noor olga pablo".split()
)
LAST = "smith müller garcia rossi tanaka novak silva dubois kim larsen okafor weber".split()
HOSTS = "example gmail web mail-server firma uni-mainz acme posta".split()
TOPS = "com org de co.uk net io fr museum edu com.br".split()

# ---- values --------------------------------------------------------------------------------------


def digits(rng, n: int) -> str:
    return "".join(str(d) for d in rng.integers(0, 10, n))


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def fill(rng, pattern: str) -> str:
    """A pattern with # for any digit and @ for any of 2 to 9."""
    return "".join(
        str(rng.integers(10)) if c == "#" else str(rng.integers(2, 10)) if c == "@" else c
        for c in pattern
    )


def email(rng) -> str:
    ascii_last = pick(rng, LAST).replace("ü", "ue")
    name = pick(rng, FIRST) + pick(rng, [".", "_", "", "-"]) + ascii_last
    name += pick(rng, ["", "", digits(rng, 2), "+news"])
    address = f"{name}@{pick(rng, ['', '', 'mx.'])}{pick(rng, HOSTS)}.{pick(rng, TOPS)}"
    return pick(rng, [str, str, str.upper, str.title])(address)


def phone(rng) -> str:
    forms = [
        *("+1 @## @## ####", "+1-@##-@##-####", "(@##) @##-####", "@##-@##-####", "@##.@##.####"),
        *("1-@##-@##-####", "+1 (@##) @##-####", "+1@##@######"),
        *("+49 30 @######", "+49 (0) 89 @#####", "030/@######", "0049 211 @######", "0171 @######"),
        *("+44 20 7@## ####", "020 7@## ####", "+44 (0)161 @## ####", "07@## @#####"),
        *("+33 1 @# ## ## ##", "01 @# ## ## ##", "06.@#.##.##.##"),
        *("+39 06 @### ####", "+34 91@ ### ###", "+91 98### #####", "+81 3-@###-####"),
        *("+86 138 #### ####", "+55 11 9@###-####", "+61 2 9@## ####", "+7 495 @##-##-##"),
        *("+41 44 @## ## ##", "+46 8 @## ## ##"),
    ]
    return fill(rng, pick(rng, forms))


def check_digit(body: str) -> str:
    """The digit that makes a number right by Luhn's sum."""
    total = 0
    for i, c in enumerate(reversed(body)):
        d = int(c) * (2 if i % 2 == 0 else 1)
        total += d - 9 if d > 9 else d
    return str(-total % 10)


def card(rng) -> str:
    form = pick(
        rng, ["4" + "#" * 14, "5@".replace("@", "3") + "#" * 13, "37" + "#" * 12, "6011" + "#" * 11]
    )
    body = fill(rng, form)
    number = body + check_digit(body)
    sign = pick(rng, ["", " ", "-"])
    if len(number) == 15:
        return sign.join([number[:4], number[4:10], number[10:]])
    return sign.join(number[i : i + 4] for i in range(0, 16, 4))


def iban(rng) -> str:
    country = pick(rng, "DE FR GB NL ES IT CH AT PL BE NO SE".split())
    letters = {"GB": "NWBK", "NL": "ABNA", "IT": "X"}.get(country, "")
    body = letters + digits(rng, int(IBAN_LENGTHS[country]) - 4 - len(letters))
    turned = "".join(str(int(c, 36)) for c in body + country + "00")
    number = f"{country}{98 - int(turned) % 97:02d}{body}"
    return (
        number
        if rng.random() < 0.5
        else " ".join(number[i : i + 4] for i in range(0, len(number), 4))
    )


def ip(rng) -> str:
    if rng.random() < 0.2:
        return "2a02:" + ":".join(f"{int(x):x}" for x in rng.integers(1, 65536, 7))
    return f"{pick(rng, [81, 93, 134, 151, 185, 203, 217])}." + ".".join(
        str(x) for x in rng.integers(1, 113, 3)
    )


def drawn(rng, letters: str, n: int) -> str:
    return "".join(letters[i] for i in rng.integers(0, len(letters), n))


BOTH = string.ascii_letters + string.digits


def key(rng) -> str:
    forms = [
        ("AKIA", string.ascii_uppercase + "234567", 16),
        ("ghp_", BOTH, 36),
        ("glpat-", BOTH, 20),
        ("AIza", BOTH + "_-", 35),
        ("sk_live_", BOTH, 24),
        ("hf_", string.ascii_letters, 34),
        ("npm_", BOTH, 36),
        ("xoxb-", string.digits, 24),
    ]
    prefix, letters, n = pick(rng, forms)
    return prefix + drawn(rng, letters, n)


def secret(rng) -> str:
    return pick(
        rng, [drawn(rng, BOTH, int(rng.integers(12, 40))), drawn(rng, "0123456789abcdef", 32)]
    )


# ---- what only looks so --------------------------------------------------------------------------


def failing_card(rng) -> str:
    body = "4" + digits(rng, 14)
    return body + str((int(check_digit(body)) + int(rng.integers(1, 10))) % 10)


def isbn(rng) -> str:
    return fill(
        rng, pick(rng, ["978-3-16-######-#", "978@#########", "0-306-#####-#", "978 0 14 ###### #"])
    )


LOOKALIKES: list[Callable] = [
    lambda rng: (
        f"version {rng.integers(1, 20)}.{rng.integers(20)}.{rng.integers(20)}.{rng.integers(200)}"
    ),
    lambda rng: (
        f"libfoo {rng.integers(1, 9)}.{rng.integers(9)}.{rng.integers(9)}.{rng.integers(9)}"
    ),
    lambda rng: fill(rng, "Chrome/12#.0.6@##.1@#"),
    lambda rng: f"20{rng.integers(10, 26)}-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}",
    lambda rng: (
        f"{rng.integers(1, 29):02d}.{rng.integers(1, 13):02d}.20{rng.integers(10, 26)} 12:30:45"
    ),
    lambda rng: f"20{rng.integers(10, 26)}-11-05T08:15:{rng.integers(60):02d}.{digits(rng, 6)}Z",
    isbn,
    lambda rng: drawn(rng, "0123456789abcdef", pick(rng, [7, 32, 40, 64])),
    lambda rng: "-".join(drawn(rng, "0123456789abcdef", n) for n in (8, 4, 4, 4, 12)),
    lambda rng: f"order {failing_card(rng)}",
    lambda rng: f"invoice no. {digits(rng, pick(rng, [6, 8, 10, 12]))}",
    lambda rng: fill(rng, "$@,###,###.##"),
    lambda rng: fill(rng, "4@.######, -7@.######"),
    lambda rng: f"{pick(rng, ['192.168', '10.0', '127.0', '172.16'])}.{rng.integers(256)}.1",
    lambda rng: f"{digits(rng, 3)} {digits(rng, 3)} {digits(rng, 3)}",
    lambda rng: fill(rng, "ISSN 1@##-####"),
    lambda rng: f"pages 1{digits(rng, 3)}-2{digits(rng, 3)}",
    lambda rng: f"icon@{rng.integers(2, 4)}x.png",
    lambda rng: "@angular/core@1" + fill(rng, "@.#.#"),
    lambda rng: fill(rng, "MA 02@##-@###"),
    lambda rng: fill(rng, "+@#######.#"),
    lambda rng: "@property",
    lambda rng: 'password = os.environ["DB_PASSWORD"]',
    lambda rng: 'api_key = "your-api-key-goes-here"',
    lambda rng: 'token: "${GITHUB_TOKEN}"',
    lambda rng: "tokens = tokenizer.encode(text)",
    lambda rng: "std::chrono::steady_clock",
    lambda rng: f"DE{digits(rng, 20)}",  # as long as an account, with a wrong check
    lambda rng: f"00{digits(rng, 8)}",
    lambda rng: " ".join(f"{int(x):03d}" for x in np.arange(4) + rng.integers(1, 90)),
]

KINDS: dict[str, Callable] = {
    **{"email": email, "phone": phone, "card": card, "iban": iban, "ip": ip},
    **{"key": key, "secret": secret},
}
SENTENCES = {
    "email": ["Write to {} for more.", "Contact: {}", "<a href=mailto:{}>mail</a>", "From: X <{}>"],
    "phone": ["Tel.: {}", "Call us at {} today.", "phone {}, room 12", "Our number is {}.", "({})"],
    "card": ["Card {} was charged.", "PAN={}", "She paid with {}, as always."],
    "iban": ["IBAN: {}", "Transfer it to {} by Monday.", "account {}."],
    "ip": ["{} - - GET /index.html", "Login from {} failed.", "ping {}", "http://{}/"],
    "key": ["export KEY={}", 'client = Client("{}")', "The key {} was left in the log."],
    "secret": ['password = "{}"', "api_key: '{}'", '"auth_token": "{}"', "SECRET_TOKEN={}"],
}
AROUND = ["See {} here.", "It was {}, I think.", "{}", "- {}", "Value: {}", "In {} we found it."]
FILLER = [
    "The meeting is on Friday.",
    "Nothing else has changed.",
    "def f(x): return x + 1",
    "* * *",
]


class Made(NamedTuple):
    """A text, and where its values are."""

    text: str
    places: list[Place]


def made_text(seed: int, number: int) -> Made:
    """Text `number` of a set: three to eight lines, each with a value, a lookalike or neither."""
    rng, text, places = np.random.default_rng([seed, number]), "", []
    for _ in range(int(rng.integers(3, 9))):
        kind = pick(rng, [*KINDS, *["like"] * 7, "filler", "filler"])
        if kind == "filler":
            text += pick(rng, FILLER)
        elif kind == "like":
            text += pick(rng, AROUND).format(pick(rng, LOOKALIKES)(rng))
        else:
            value, sentence = KINDS[kind](rng), pick(rng, SENTENCES[kind])
            start = len(text) + sentence.index("{}")
            places.append(Place(start, start + len(value), kind))
            text += sentence.format(value)
        text += "\n"
    return Made(text, places)


def found_places(text: str) -> list[Place]:
    """What the step "clean" would mask."""
    return outermost([*personal_places(text), *secret_places(text)])


class Score(NamedTuple):
    """Of one kind: values that are there, those found, all places that were masked."""

    there: int
    right: int
    masked: int

    @property
    def recall(self) -> float:
        return self.right / self.there if self.there else 1.0

    @property
    def precision(self) -> float:
        return self.right / self.masked if self.masked else 1.0


def scores(texts: list[Made]) -> dict[str, Score]:
    """The scores of the masks, by kind."""
    there, right, masked = Counter(), Counter(), Counter()
    for text, places in texts:
        found = found_places(text)
        there.update(place.kind for place in places)
        masked.update(place.kind for place in found)
        right.update(place.kind for place in found if place in places)
    return {kind: Score(there[kind], right[kind], masked[kind]) for kind in KINDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="so many mistakes")
    args = parser.parse_args()
    texts = [made_text(args.seed, i) for i in range(args.texts)]
    print("| kind | values | recall | precision |\n|---|---|---|---|")
    for kind, score in scores(texts).items():
        print(f"| {kind} | {score.there} | {score.recall:.3f} | {score.precision:.3f} |")
    mistakes = [
        (place, text[place.start : place.end], text[max(0, place.start - 20) : place.end + 20])
        for text, places in texts
        for place in sorted(set(places) ^ set(found_places(text)))
    ]
    for place, value, around in mistakes[: args.show]:
        print(place.kind, repr(value), "in", repr(around))


if __name__ == "__main__":
    main()
