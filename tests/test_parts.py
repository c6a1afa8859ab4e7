"""benchmarks/parts.py and width.py, without training: parts, gains, and missing texts."""

import sys

import pytest

from benchmarks import parts, width
from benchmarks.parts import arguments_of, gain, toggled
from gpt.models.modern_config import DEFAULT_PARTS
from gpt.training.presets import parse
from gpt.training.settings import Settings


@pytest.mark.parametrize(
    "part, expected",
    [
        ("logit_cap", ["rotary"]),
        ("logit_cap=15", ["rotary"]),  # what logit_cap alone means
        ("logit_cap=30", ["rotary", "logit_cap=30"]),
        ("ngrams=2+3", ["rotary", "logit_cap", "ngrams=2+3"]),
    ],
)
def test_one_part_is_the_other_way_round(part, expected):
    assert toggled(["rotary", "logit_cap"], part) == expected
    if len(expected) == 3:
        assert toggled(expected, part) == ["rotary", "logit_cap"]


def test_a_default_part_with_a_value():
    assert toggled(["rotary", "logit_cap=30"], "logit_cap=30") == ["rotary"]
    assert toggled(["rotary", "logit_cap=30"], "logit_cap") == ["rotary", "logit_cap"]


def test_a_part_that_helps_has_a_gain_above_0():
    assert "logit_cap" in DEFAULT_PARTS.split(",")
    worse = ([2.0, 2.1], [2.1, 2.3])  # with the default parts, and with one of them toggled
    assert gain("logit_cap", *worse) == gain("logit_cap=15", *worse) == "+0.150 ± 0.050"
    assert gain("logit_cap=30", *worse) == gain("tied", *worse) == "-0.150 ± 0.050"
    assert gain("tied", [2.0], [1.9]) == "+0.100 ± nan"


def test_the_arguments_of_a_run_tell_it_from_others():
    default = DEFAULT_PARTS.split(",")
    usual = ("a.txt", default, 1, 200)
    others = [("b.txt", default, 1, 200), ("a.txt", ["rotary"], 1, 200)]
    others += [("a.txt", default, 2, 200), ("a.txt", default, 1, 100)]
    found = {tuple(arguments_of(*run)) for run in [usual, *others]}
    assert len(found) == 5
    settings = Settings(**parse(arguments_of(*usual))[0])
    assert (settings.max_iters, settings.eval_interval, settings.seed) == (200, 200, 1)


@pytest.mark.parametrize(
    "program, arguments, message",
    [
        (parts, ["no.txt"], "parts.py: error: no dataset"),
        (parts, ["python-docs", "--parts", "tyed"], "parts.py: error: --parts has 'tyed'"),
        (width, ["no.txt"], "width.py: error: no dataset 'no.txt'"),
    ],
)
def test_mistakes_are_one_line(program, arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    with pytest.raises(SystemExit) as stop:
        program.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and line.startswith(message)
