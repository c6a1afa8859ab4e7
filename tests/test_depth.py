"""`train.py --depth N`: what it chooses, what overrides it, and starts that suit any width."""

import dataclasses
import json
import math

import numpy as np
import pytest

import train
from gpt import models
from gpt.models import ModernConfig, read_parts
from gpt.training.depth import DEEPEST, settings_of_depth
from gpt.training.presets import parse
from gpt.training.pretrain import Pretraining
from gpt.training.settings import Settings


def resolve(*argv: str) -> Settings:
    return Settings(**parse([*argv, "--device=cpu"])[0])


def tokens(s: Settings) -> int:
    return s.batch_size * s.gradient_accumulation_steps * s.block_size * s.max_iters


@pytest.mark.parametrize("depth", range(1, DEEPEST + 1))
def test_every_depth_follows_the_rules(depth):
    s = resolve(f"--depth={depth}")
    assert (s.model, s.optimizer, s.schedule, s.min_lr) == ("modern", "muon", "wsd", 0)
    assert (s.n_layer, s.n_embd, s.n_head) == (depth, 32 * depth, depth)
    assert s.block_size == max(64, 32 * depth) and s.batch_size % 4 == 0
    assert tokens(s) == pytest.approx(20 * 12 * depth * s.n_embd**2, rel=1e-3)
    assert s.muon_lr == pytest.approx(0.03, rel=0.1)
    assert s.learning_rate == pytest.approx(0.02 * math.sqrt(128 / s.n_embd), rel=0.1)
    assert s.muon_lr * s.weight_decay * s.max_iters == pytest.approx(1, rel=0.05)
    assert 20 <= s.warmup_iters <= s.max_iters / 20


def test_the_batch_grows_with_the_tokens():
    small, large = (resolve(f"--depth={n}") for n in (2, 16))
    growth = (tokens(large) / tokens(small)) ** 0.383
    in_a_step = [s.batch_size * s.block_size for s in (small, large)]
    assert in_a_step[1] / in_a_step[0] == pytest.approx(growth, rel=0.15)


def test_other_flags_override_and_count_in_the_rules():
    plain, larger = resolve("--depth=4"), resolve("--depth=4", "--batch_size=80")
    assert larger.batch_size == 4 * plain.batch_size and tokens(larger) == tokens(plain)
    for name in ("muon_lr", "learning_rate"):
        assert getattr(larger, name) == pytest.approx(2 * getattr(plain, name), rel=0.05)
    assert resolve("--depth=4", "--batch_size=40", "--gradient_accumulation_steps=2") == (
        dataclasses.replace(larger, batch_size=40, gradient_accumulation_steps=2)
    )
    wide = resolve("--n_embd", "512", "--depth", "4")
    assert (wide.n_layer, wide.n_head, wide.block_size) == (4, 16, 512)
    assert wide.learning_rate == pytest.approx(plain.learning_rate / 2, rel=0.15)
    longer = resolve("--depth=4", f"--max_iters={10 * plain.max_iters}")
    assert longer.weight_decay == pytest.approx(plain.weight_decay / 10, rel=0.05)
    assert longer.muon_lr == plain.muon_lr
    own = (
        "--muon_lr=0.5 --weight_decay=0.25 --learning_rate=0.125 --schedule=cosine --warmup_iters=7"
    )
    s = resolve("--depth=2", *own.split(), "--model=gpt2", "--n_layer=3", "--n_head=1")
    assert (s.muon_lr, s.weight_decay, s.learning_rate, s.schedule) == (0.5, 0.25, 0.125, "cosine")
    assert (s.warmup_iters, s.model, s.n_layer, s.n_head) == (7, "gpt2", 3, 1)
    assert resolve("--depth=2", "--max_iters=0").max_iters == 0
    assert resolve("--depth=1e1") == resolve("--depth=10")


def test_the_weight_decay_follows_the_optimizer_and_has_a_limit():
    s = resolve("--depth=4", "--optimizer=adamw", "--learning_rate=2e-3")
    assert s.learning_rate * s.weight_decay * s.max_iters == pytest.approx(1, rel=0.05)
    assert resolve("--depth=1", "--max_iters=3").weight_decay == 0.2


@pytest.mark.parametrize("width, heads", [(100, 2), (30, 1), (160, 5), (192, 6), (134, 1)])
def test_heads_divide_any_even_width_into_even_sizes(width, heads):
    s = resolve("--depth=4", f"--n_embd={width}")
    assert s.n_head == heads
    ModernConfig(9, 8, 1, s.n_head, width, rotary=True)


def test_what_it_has_chosen_is_said_in_a_line():
    given, notes = parse(["--depth=3", "--batch_size=12"])
    (line,) = notes
    assert line.startswith(
        "--depth 3: n_layer 3, n_embd 96, n_head 3, block_size 96, batch_size 12"
    )
    for name in ("max_iters", "muon_lr", "learning_rate", "weight_decay"):
        assert f"{name} {given[name]}" in line
    assert line.endswith(f"{12 * 96 * given['max_iters']:,} tokens")


@pytest.mark.parametrize(
    "argv, words",
    [
        ("--depth=0", "--depth is 1 to 32, not 0"),
        ("--depth=33", "--depth is 1 to 32, not 33"),
        ("--depth=4 --preset=gpt2", "both --depth 4 and the preset gpt2: give one of them"),
        ("baby-gpt --depth=4", "both --depth 4 and the preset baby-gpt: give one of them"),
        ("--depth=four", "argument --depth: is a whole number, not 'four'"),
        ("--depth=4 --n_embd=0", "--n_embd is at least 1, not 0"),
        ("--depth=4 --batch_size=-1", "--batch_size is at least 1, not -1"),
        ("--depth=4 --muon_lr=0", "--muon_lr is above 0, not 0.0"),
        ("--depth=4 --optimizer=adamw", "with --optimizer adamw, give --learning_rate too"),
        ("--depth=4 --model=llama", "with --model llama, give --learning_rate too"),
        ("--depth=4 --init_from=FOLDER", "--depth is for a new model: leave it out"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(argv, words, tmp_path, capsys):
    models.make(ModernConfig(5, 8, 1, 1, 4)).save_pretrained(tmp_path)
    argv = [*argv.replace("FOLDER", str(tmp_path)).split(), f"--out_dir={tmp_path / 'out'}"]
    try:
        status = train.main(argv)
    except SystemExit as stop:
        status = stop.code
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2 and words in line


def test_a_run_is_saved_and_resumed_with_what_was_chosen(tmp_path, capsys):
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_text("To be, or not to be, that is the question. " * 60)
    argv = [f"--dataset={text}", f"--out_dir={out}", "--workers=1", "--device=cpu"]
    argv += "--depth=1 --block_size=16 --max_iters=100 --eval_iters=1 --batch_size=4".split()
    assert train.main(argv) == 0
    found = capsys.readouterr()
    assert "--depth 1: n_layer 1, n_embd 32" in found.err
    saved = json.loads((out / "run.json").read_text())["settings"]
    chosen = settings_of_depth(1, {"block_size": 16, "max_iters": 100, "batch_size": 4})
    assert {name: saved[name] for name in chosen} == chosen
    again = [*argv[:3], "--init_from=resume", "--depth=9", "--max_iters=101"]
    assert train.main(again) == 0
    found = capsys.readouterr()
    assert "--depth is ignored: a resumed run keeps its settings" in found.err
    assert json.loads((out / "run.json").read_text())["settings"] == saved | {"max_iters": 101}


def test_a_text_that_is_read_often_is_noted():
    s = Settings(batch_size=2, block_size=8, max_iters=50, warmup_iters=1, device="cpu")
    for n, note in ((200, ""), (199, "the run reads its 199 tokens 4 times"), (80, "10 times")):
        found = Pretraining(s, np.zeros(n, int), np.zeros(20, int)).repetition()
        assert note in found and bool(note) == bool(found)


@pytest.mark.parametrize("parts", ["", "zero_init", "zero_init,tied"])
def test_weights_begin_with_the_same_effect_at_any_width(parts):
    for width in (64, 256):
        config = ModernConfig(64, 16, 2, 2, width, **read_parts(parts))
        state = models.make(config).state_dict()
        into = np.array([state[f"h.1.{name}.weight"].std() for name in ("attn.c_attn", "mlp.c_fc")])
        np.testing.assert_allclose(into, 1 / math.sqrt(width), rtol=0.03)
        back = state["h.1.mlp.c_proj.weight"].std()
        ends = 0 if config.zero_init else 1 / math.sqrt(4 * width * 2 * 2)
        assert back == pytest.approx(ends, rel=0.03)
        if config.tied:
            assert state["wte.weight"].std() == pytest.approx(0.02, rel=0.05)
        else:
            assert state["wte.weight"].std() == pytest.approx(0.2, rel=0.05)
            head = 0 if config.zero_init else 0.02
            assert state["lm_head.weight"].std() == pytest.approx(head, rel=0.05)
