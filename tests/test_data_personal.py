"""Masks of personal data and keys: what they find in made texts, and what they leave."""

import pytest

from benchmarks.data_personal import KINDS, LOOKALIKES, found_places, made_text, scores
from gpt.data.pipeline.clean.masks import Place, excerpt, masked, outermost
from gpt.data.pipeline.clean.personal import IBAN_LENGTHS, luhn, personal_places, remainder
from gpt.data.pipeline.clean.secrets import KEYS, secret_places
from gpt.data.pipeline.document import Document
from gpt.data.pipeline.tally import Tally


def found(text: str) -> list[tuple[str, str]]:
    return [(place.kind, text[place.start : place.end]) for place in found_places(text)]


def test_recall_and_precision_by_kind():
    texts = [made_text(1, i) for i in range(1000)]
    assert len(LOOKALIKES) >= 25
    for kind, score in scores(texts).items():
        assert score.there >= 200, kind
        assert score.recall >= 0.95 and score.precision >= 0.95, (kind, score)
    assert list(scores(texts)) == list(KINDS)


@pytest.mark.parametrize(
    "text, values",
    [
        ("a.b+c@mail.example.co.uk, x", [("email", "a.b+c@mail.example.co.uk")]),
        ("<me@exämple.org>", [("email", "me@exämple.org")]),
        ("(see me@x.org.)", [("email", "me@x.org")]),
        ("Tel. 0 30 / 12 34 56 78", [("phone", "0 30 / 12 34 56 78")]),
        ("call 212 555 0123 now", [("phone", "212 555 0123")]),
        ("+49 (0)30 / 90 18 20.", [("phone", "+49 (0)30 / 90 18 20")]),
        ("4111 1111 1111 1111", [("card", "4111 1111 1111 1111")]),
        ("4111111111111111.", [("card", "4111111111111111")]),
        ("GB82 WEST 1234 5698 7654 32 IS IT", [("iban", "GB82 WEST 1234 5698 7654 32")]),
        ("DE89370400440532013000", [("iban", "DE89370400440532013000")]),
        ("from 81.2.69.142:8080", [("ip", "81.2.69.142")]),
        ('İ password = "8fK2pQ9xLm4Rz7vW"', [("secret", "8fK2pQ9xLm4Rz7vW")]),
        ("[2001:4860:4860::8888]:53", [("ip", "2001:4860:4860::8888")]),
    ],
)
def test_values_are_found(text, values):
    assert found(text) == values


@pytest.mark.parametrize(
    "text",
    [
        *("4111 1111 1111 1112", "978-3-16-148410-0", "9780306406157", "ISBN 0-306-40615-2"),
        *("4 5 0 2 8 8 0 0 0 0 0 0 0 0 0 0", "4 2 41718 0 149941444", "\n\n43.81.7.1. Of lines"),
        *("08:06 5319217", "'+999999999-12-31'"),
        *("v1.2.3.4", "version 81.2.69.142", "==81.2.69.142", "pip 23.3.1.0", "192.168.178.20"),
        *("2024-01-02 2024-03-04", "01.02.2024", "12:30:45.123456", "Phone: 2024-01-02"),
        *("deadbeef12345678", "550e8400-e29b-41d4-a716-446655440000", "0x0123456789"),
        *("3.14159265358979", "1,234,567,890", "1000000000000", "-7.1234567, 45.1234567"),
        *("DE89370400440532013001", "GB82 WEST", "a@b", "@app.route", "logo@2x.png", "x@1.2.3"),
        *("std::vector<int>::iterator", "12::34", "fe80::1", "::1", "1-2-3-4-5-6-7-8-9"),
        *("Boston, MA 02110-1301, USA", "+35236450.6"),
        *("0101 1100 0011", "01 02 03 04 05", "@@ -1234567,7 +1234567,7 @@"),
        *('password = "changeme"', "token = get_token(request)", "secret: <your-secret-here>"),
        *("sk-learn-is-a-library-with-a-long-name", "max_tokens=4096", "AKIA", "ghp_short"),
    ],
)
def test_what_only_looks_so_stays(text):
    assert found(text) == []
    assert found(f"x {text} y") == []


@pytest.mark.parametrize("prefix", KEYS)
def test_every_form_of_a_key_is_found(prefix):
    body = {
        "SG.": "a1" * 11 + "." + "b2" * 21,
        "eyJ": "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc123abc1",
    }
    body |= {"xox": "b-" + "1a" * 12, "hf_": "aBcDe" * 6 + "fghi", "AIza": "a1" * 17 + "_"}
    body |= dict.fromkeys(["AKIA", "ASIA"], "Q2W3E4R5T6Y7U2I3")
    body |= dict.fromkeys(["pypi-"], "a1" * 30)
    key = prefix + body.get(prefix, "a1B2c3" * 6)
    assert found(f'x = "{key}" # it') == [("key", key)]


def test_private_keys_are_masked_whole():
    inside = "\n".join(["MIIEpAIBAAKCAQEA" * 4] * 5)
    for name in ("RSA PRIVATE KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY", "PGP PRIVATE KEY BLOCK"):
        key = f"-----BEGIN {name}-----\n{inside}\n-----END {name}-----"
        assert found(f"a\n{key}\nb") == [("private key", key)]


def test_checks_of_numbers():
    assert luhn("79927398713") and not luhn("79927398710")
    assert remainder("GB82WEST12345698765432") == 1 != remainder("GB82WEST12345698765433")
    assert all(15 <= int(n) <= 34 for n in IBAN_LENGTHS.values())


def test_masks_stand_where_values_stood_and_the_tally_does_not_tell_them():
    text = "Mail me@example.org or you@example.org, card 4111 1111 1111 1111."
    tally = Tally()
    result = masked(Document(text, "a.txt"), text, personal_places(text), tally)
    assert result == "Mail <email> or <email>, card <card>."
    assert tally.as_json()["changed"] == {"masked: card": 1, "masked: email": 2}
    assert tally.as_json()["examples"]["masked: email"][0][2].startswith("Mail xx@xxxxxxx.xxx or")
    shown = str(tally.as_json()["examples"]["masked: card"])
    assert "0000 0000 0000 0000" in shown


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1111 12/25",
        "2026-11-27 4111 1111 1111 1111",
        "1 4111 1111 1111 1111",
        "4111111111111111 123",
    ],
)
def test_cards_are_found_between_other_numbers(text):
    assert [place for place in found(text) if place[0] == "card"] != []
    assert "1111" not in masked(Document(text, "a"), text, personal_places(text), Tally())


def test_places_that_overlap_are_masked_once():
    places = [Place(3, 6, "b"), Place(0, 5, "a"), Place(0, 2, "c"), Place(6, 7, "d")]
    assert outermost(places) == [Place(0, 5, "a"), Place(6, 7, "d")]
    assert (
        excerpt("a" * 200, Place(100, 101, "x"), [Place(100, 101, "x")])
        == "a" * 40 + "x" + "a" * 40
    )


def test_hostile_texts_are_searched_in_one_pass():
    parts = [
        "a.",
        "@",
        "a@",
        "a.b@",
        "1",
        "1-",
        "+1",
        "0 1 ",
        "1.",
        "::",
        "2a:",
        "A1",
        "DE89 ",
        "(",
    ]
    parts += ["token=", "password: '", "-----BEGIN PRIVATE KEY-----", "eyJ", "sk-", "tel ", "xoxb-"]
    parts += ["eyJaaaaaaaaaaa.", "call 1", "AKIA", "00 1 ", "(2", "2001:", "secret" * 5, "-"]
    for part in parts:
        text = part * (100_000 // len(part))
        for place in [*personal_places(text), *secret_places(text)]:
            assert 0 <= place.start < place.end <= len(text)
