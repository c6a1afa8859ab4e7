"""From a model to text: the filters, `generate`, and `sample.py` as a user drives it."""

import io
import json
import math
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sample
import tensorlite as tl
import tokenizer as tokenizers
import train
from gpt import GPT, GPTConfig, data
from gpt import generate as texts
from gpt.generate import Sampling, penalise
from gpt.generate.context import window_start
from gpt.generate.sampling import top_k_ids, top_p_ids
from tokenizer import BPETokenizer, CharTokenizer

from .test_resume import damaged
from .test_train import ENVIRONMENT, TINY, cli, command, corpus, files, ok, refused

CHARS = CharTokenizer("\n abcdefgh")


def make(vocab_size: int = CHARS.vocab_size, block_size: int = 8) -> GPT:
    """A model with strong opinions, none of them learned."""
    model = GPT(GPTConfig(vocab_size, block_size, n_layer=1, n_head=2, n_embd=16, bias=False))
    rng = np.random.default_rng(0)
    for p in model.parameters():
        p.data[...] += 0.3 * rng.standard_normal(p.shape)
    return model


class Script:
    """Stands in for a model: says these ids one after another, whatever it is given."""

    training = False

    def __init__(self, ids, vocab_size: int):
        self.ids, self.contexts = iter(ids), []
        self.config = GPTConfig(vocab_size, 8, 1, 1, 1)

    def next_logits(self, idx, cache=None, last=1):
        self.contexts.append(np.asarray(idx)[0].tolist())
        logits = np.zeros((1, 1, self.config.vocab_size), np.float32)
        logits[0, 0, next(self.ids)] = 50
        return tl.tensor(logits)

    def train(self, mode=True):
        self.training = mode
        return self

    def eval(self):
        return self.train(False)


def generate(model, *args, **settings) -> str:
    return texts.generate(model, *args, **script_settings(model), **settings)


def stream(model, *args, **settings):
    return texts.stream(model, *args, **script_settings(model), **settings)


def script_settings(model) -> dict:
    return {"use_cache": False} if isinstance(model, Script) else {}


def say(text: str, **settings) -> str:
    """The continuation when the model wants to say `text`, letter by letter."""
    ids = CHARS.encode(text)
    settings = {"max_new_tokens": len(ids), "temperature": 0} | settings
    script = Script(ids, CHARS.vocab_size)
    return generate(script, CHARS, "a", return_full_text=False, **settings)


# ---- one token -----------------------------------------------------------------------------------

logits_arrays = st.lists(st.floats(-8, 8), min_size=1, max_size=12).map(np.array)


def probabilities(logits, **settings) -> np.ndarray:
    """How often `Sampling` draws each id, from 2000 evenly spaced random numbers."""
    draws = [Sampling(**settings).draw(logits, (i + 0.5) / 2000) for i in range(2000)]
    return np.bincount(draws, minlength=len(logits)) / 2000


def plain(logits, temperature=1.0, top_k=None, top_p=None, min_p=None) -> np.ndarray:
    """The same from the definitions."""
    weights = [math.exp(x / temperature) for x in logits]
    ranked = sorted(range(len(weights)), key=lambda i: -weights[i])
    if top_k is not None:
        ranked = ranked[:top_k]
    if top_p is not None:
        total, kept = sum(weights[i] for i in ranked), []
        while sum(weights[i] for i in kept) < top_p * total:
            kept.append(ranked[len(kept)])
        ranked = kept
    if min_p is not None:
        ranked = [i for i in ranked if weights[i] >= min_p * weights[ranked[0]]]
    weights = [w if i in ranked else 0.0 for i, w in enumerate(weights)]
    return np.array(weights) / sum(weights)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": 100},
        {"top_p": 0.6},
        {"top_p": 1.0},
        {"top_p": 1e-6},
        {"min_p": 0.2},
        {"min_p": 1.0},
        {"temperature": 2.0, "top_k": 4, "top_p": 0.8, "min_p": 0.3},
    ],
)
def test_tokens_are_drawn_as_the_definitions_say(settings):
    logits = np.array([0.3, -1.0, 2.0, 1.1, 0.9, -4.0, 1.7])
    settings = {"temperature": 1.0} | settings
    drawn, expected = probabilities(logits, **settings), plain(logits, **settings)
    np.testing.assert_allclose(drawn, expected, atol=1.1e-3)
    assert not drawn[expected == 0].any()


@given(logits_arrays, st.integers(1, 15))
def test_top_k_keeps_the_k_likeliest(logits, k):
    kept = top_k_ids(logits, k)
    assert kept.tolist() == sorted(set(kept.tolist())) and len(kept) == min(k, len(logits))
    assert sorted(logits[kept])[::-1] == sorted(logits)[::-1][:k]
    # Of equally likely ones, the first.
    assert kept.tolist() == sorted(np.argsort(-logits, kind="stable")[:k].tolist())


@given(logits_arrays, st.floats(0.01, 1))
def test_top_p_keeps_the_fewest_that_reach_p(logits, p):
    weights = np.exp(logits) / np.exp(logits).sum()
    kept = np.isin(np.arange(len(logits)), top_p_ids(weights, p))
    assert weights[kept].sum() >= p - 1e-9
    assert weights[kept].sum() - weights[kept].min() < p + 1e-9
    assert weights[kept].min() >= weights[~kept].max(initial=0)


@given(logits_arrays, st.lists(st.integers(0, 0), max_size=3), st.floats(1.0, 3.0))
def test_the_penalty_makes_seen_ids_less_likely_once(logits, seen, penalty):
    before = logits.copy()
    after = penalise(logits, seen, penalty)
    np.testing.assert_array_equal(logits, before)
    np.testing.assert_array_equal(after[1:], logits[1:])
    x = logits[0]
    assert after[0] == (x if not seen else x / penalty if x > 0 else x * penalty) <= x


def test_the_last_random_number_does_not_fall_off_the_end():
    logits = np.array([1.0, 2.0, -np.inf], np.float32)
    assert Sampling(top_p=0.9).draw(logits, np.nextafter(1.0, 0.0)) in (0, 1)
    assert Sampling(top_k=1).draw(logits, 0.0) == 1


# ---- a text --------------------------------------------------------------------------------------


def test_greedy_is_the_likeliest_token_each_time():
    model = make()
    text = generate(model, CHARS, "abc", max_new_tokens=20, temperature=0)
    ids = CHARS.encode("abc")
    for _ in range(20):
        logits, _ = model.eval()(np.array([ids[window_start(len(ids), 8) :]]))
        ids.append(int(logits.numpy()[0, -1, : CHARS.unknown_id].argmax()))
    assert text == CHARS.decode(ids)
    assert text == generate(model, CHARS, "abc", 20, 0, seed=5)
    assert text == generate(model, CHARS, "abc", max_new_tokens=20, top_k=1, temperature=1.5)
    assert text == "abc" + generate(model, CHARS, "abc", 20, 0, return_full_text=False)


def test_seeds_decide():
    model = make()
    texts = {s: generate(model, CHARS, "a", 40, 1.0, seed=s) for s in range(5)}
    assert len(set(texts.values())) == 5
    for seed, text in texts.items():
        assert generate(model, CHARS, "a", 40, 1.0, seed=seed) == text
    assert generate(model, CHARS, "a", 40, 1.0) != generate(model, CHARS, "a", 40, 1.0)


def test_repetition_penalty_reaches_the_text():
    model = make()
    often = generate(model, CHARS, "a", 60, 0)
    seldom = generate(model, CHARS, "a", 60, 0, repetition_penalty=5.0)
    assert len(set(seldom)) > len(set(often))


def test_the_context_loses_its_older_half_when_it_is_full():
    script = Script(CHARS.encode("abcdefgh" * 2), CHARS.vocab_size)
    generate(script, CHARS, "ha", max_new_tokens=16, temperature=0)
    everything = CHARS.encode("ha" + "abcdefgh" * 2)
    starts = [0] * 7 + [4] * 4 + [8] * 4 + [12]
    assert script.contexts == [everything[start:n] for start, n in zip(starts, range(2, 18))]


def test_a_long_prompt_is_cropped_and_said_so():
    model, prompt = make(), "abcdefgh" + "hgfedcba"
    with pytest.warns(UserWarning, match="16 tokens; the model sees the last 8"):
        long = generate(model, CHARS, prompt, 20, seed=1, repetition_penalty=1.3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short = generate(model, CHARS, prompt[-8:], 20, seed=1, repetition_penalty=1.3)
    assert long == prompt[:-8] + short and len(long) == 36


@pytest.mark.parametrize(
    "stop, expected",
    [
        ((), "abcadeabcd"),
        ("d", "abca"),
        (("d",), "abca"),
        (("cad",), "ab"),
        (("bcd",), "abcadea"),
        (("zz", "de", "ca"), "ab"),
        (("de", "e"), "abca"),
        (("e", "de"), "abca"),
        (("a",), ""),
        (("",), "abcadeabcd"),
        (("abcadeabcd",), ""),
        (("cdx", "hhh"), "abcadeabcd"),
    ],
)
def test_the_text_ends_before_a_stop_string(stop, expected):
    assert say("abcadeabcd", stop=stop) == expected
    assert generate(Script(CHARS.encode("abcadeabcd"), 11), CHARS, "", 10, 0, stop=stop) == expected


def test_a_stop_string_may_begin_in_one_token_and_end_in_another():
    tokenizer = BPETokenizer([(97, 98), (99, 100)])  # "ab" is 256, "cd" is 257
    for stop, expected in (("bc", "a"), ("abc", ""), ("dab", "abc"), ("da", "abc")):
        script = Script([256, 257, 256, 257], tokenizer.vocab_size)
        pieces = list(stream(script, tokenizer, "x", 4, 0, stop=[stop]))
        assert "".join(pieces) == expected
    # In the prompt it does not count.
    assert say("bcd", stop="a") == "bcd"


def test_end_of_text_ends_it_and_is_no_part_of_it():
    tokenizer = BPETokenizer.train("", 257, special_tokens=["<|endoftext|>"])
    script = Script([104, 105, 256, 104], 257)
    assert generate(script, tokenizer, "x", 9, 0) == "xhi"
    assert generate(Script([256], 257), tokenizer, "x", 9, 0, return_full_text=False) == ""
    script = Script([104, 105, 256], 257)
    assert generate(script, tokenizer, "", 9, 0) == "hi" and script.contexts[0] == [256]
    # Held back for a stop string, and not forgotten when the text ends.
    assert generate(Script([104, 105, 256], 257), tokenizer, "", 9, 0, stop=["hit"]) == "hi"


@pytest.mark.parametrize("settings", [{}, {"top_k": 300}, {"top_p": 0.99}, {"min_p": 1e-9}])
def test_ids_in_a_gap_of_the_vocabulary_are_never_drawn(settings):
    """cl100k's 100256 and 100275 have no bytes; nor has an id between special tokens."""
    bytes_ = {i: bytes([i]) for i in range(256)}
    for special in ({"<|endoftext|>": 1000}, {"<|endoftext|>": 300, "<|end|>": 400}):
        tokenizer = BPETokenizer([], "gpt2", special, bytes_)
        for seed in range(20):
            model = Script([256, 299, 301, 256] * 5, tokenizer.vocab_size)
            text = generate(model, tokenizer, "ab", 20, 50.0, seed=seed, **settings)
            assert text.startswith("ab")
        # However much the model wants one, the likeliest of the others is taken.
        model = Script([299, 299, 256], tokenizer.vocab_size)
        assert generate(model, tokenizer, "x", 3, 0, return_full_text=False) == "\0\0\0"
    # A model of fewer ids than the tokenizer has.
    text = generate(Script([97] * 9, 300), tokenizer, "ab", 9, 30.0, seed=0)
    assert text.startswith("ab") and "<|end|>" not in text


def test_a_tokenizer_without_any_text():
    tokenizer = BPETokenizer([], special_tokens={"<|endoftext|>": 256})
    tokenizer.vocabulary.clear()
    with pytest.raises(ValueError, match="has no token that stands for text"):
        generate(make(vocab_size=257), tokenizer, "")


def test_special_tokens_in_a_prompt_count_where_they_are_allowed():
    tokenizer = BPETokenizer([], special_tokens={"<|endoftext|>": 256, "<|end|>": 257})
    prompt = "<|end|>a<|endoftext|>"
    plain = list(prompt.encode())
    for allowed, ids in (
        ((), plain),
        ("all", [257, 97, 256]),
        ({"<|end|>"}, [257, 97, *plain[8:]]),
    ):
        model = Script([98], 258)
        model.config = GPTConfig(258, 64, 1, 1, 1)
        assert generate(model, tokenizer, prompt, 1, 0, allowed_special=allowed) == prompt + "b"
        assert model.contexts == [ids]


def test_bytes_that_are_no_text_are_never_drawn():
    tokenizer = BPETokenizer.train("", 256)
    for ids in ([0xFF, 0x41], [0xC3, 0x41, 0x42], [0x41, 0x80, 0x42], [0xE2, 0x82, 0x41]):
        for temperature in (0, 1.0, 50.0):
            text = generate(Script(ids * 20, 256), tokenizer, "", 15, temperature, seed=3)
            assert "\ufffd" not in text and text.encode()


def test_half_a_character_is_held_back():
    tokenizer = BPETokenizer.train("", 256)
    ids = list("aé€😀b".encode())
    pieces = list(stream(Script(ids, 256), tokenizer, "x", len(ids), 0))
    assert [p for p in pieces if p] == ["a", "é", "€", "😀", "b"]
    for n, expected in ((2, "a"), (3, "aé"), (5, "aé")):
        assert generate(Script(ids, 256), tokenizer, "", n, 0) == expected
    assert generate(Script(ids, 256), tokenizer, "", len(ids), 0, stop=["€"]) == "aé"


def test_pieces_join_to_the_text():
    model = make()
    pieces = list(stream(model, CHARS, "ab", 30, seed=3))
    assert "ab" + "".join(pieces) == generate(model, CHARS, "ab", 30, seed=3)
    assert len([p for p in pieces if p]) == 30


@pytest.mark.parametrize("mode", [True, False])
def test_the_training_flag_is_put_back(mode):
    model = make().train(mode)
    generate(model, CHARS, "a", 3)
    assert model.training is mode and model.h[0].attn.training is mode
    pieces = stream(model, CHARS, "a", 3)
    next(pieces)
    pieces.close()
    assert model.training is mode
    with pytest.raises(RuntimeError):  # it has nothing to say
        generate(Script([], CHARS.vocab_size).train(mode), CHARS, "a", 3)


def test_dropout_is_off():
    model = make()
    wet = GPT(GPTConfig(**vars(model.config) | {"dropout": 0.5}))
    wet.load_state_dict(model.state_dict())
    assert generate(wet.train(), CHARS, "a", 30, 0) == generate(model, CHARS, "a", 30, 0)


def test_an_empty_prompt_starts_behind_a_line_end():
    model = make()
    text = generate(model, CHARS, "", 20, seed=2)
    assert text == generate(model, CHARS, "\n", 20, seed=2)[1:] and len(text) == 20


def test_no_new_tokens_at_all():
    assert generate(make(), CHARS, "abc", max_new_tokens=0) == "abc"
    assert generate(make(), CHARS, "", max_new_tokens=0) == ""
    assert generate(make(), CHARS, "abc", max_new_tokens=0, return_full_text=False) == ""


def test_ids_that_the_tokenizer_lacks_are_never_drawn():
    model = make(vocab_size=200)
    text = generate(model, CHARS, "a", 100, temperature=10.0, seed=0)
    assert len(text) == 101 and set(text) <= set(CHARS.characters + "\ufffd")


def test_a_tokenizer_that_is_not_the_models():
    with pytest.raises(ValueError, match="do not belong together"):
        generate(make(vocab_size=5), CHARS, "h")


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": -1},
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_p": math.nan},
        {"min_p": 0.0},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.nan},
        {"repetition_penalty": math.inf},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        generate(make(), CHARS, "a", **settings)


# ---- sample.py -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a short run."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "corpus.txt").write_text(corpus(), encoding="utf-8")
    argv = ["--dataset", folder / "corpus.txt", *TINY, "--out_dir", folder / "out"]
    assert train.main([str(a) for a in argv]) == 0
    return folder / "out"


def test_sample_equals_generate(run, capsys):
    before = files(run)
    stdout = ok(sample.main, capsys, "--out_dir", run, "--start=the ", "--max_new_tokens=30")
    model, tokenizer = GPT.from_pretrained(run), tokenizers.load(run)
    assert stdout == generate(model, tokenizer, "the ", 30, 0.8, 200, seed=1337) + "\n"
    argv = ["--out-dir", run, "--start", "the ", "--max-new-tokens", 30]
    assert ok(sample.main, capsys, *argv) == stdout
    other = "--temperature=0.5 --top_k=0 --top_p=0.9 --min_p=0.01 --repetition_penalty=1.2".split()
    stdout = ok(sample.main, capsys, *argv, *other, "--seed=3", "--stop=\n", "--stop=zz")
    expected = generate(
        model, tokenizer, "the ", 30, 0.5, None, 0.9, 0.01, 1.2, seed=3, stop=["\n", "zz"]
    )
    assert stdout == expected + "\n"
    assert files(run) == before


def test_several_samples(run, capsys):
    argv = ["--out_dir", run, "--max_new_tokens=20", "--start=a"]
    stdout = ok(sample.main, capsys, *argv, "--num_samples=3")
    first, second, third = stdout.split("\n---------------\n")
    assert first == ok(sample.main, capsys, *argv)
    for seed in (1338, 1339):  # no text is another command line's too
        others = ok(sample.main, capsys, *argv, f"--seed={seed}", "--num_samples=3")
        assert not {first, second, third} & set(others.split("\n---------------\n"))
    assert stdout == ok(sample.main, capsys, *argv, "--num_samples=3", "--seed=1337")
    assert len({first, second, third}) == 3
    greedy = ok(sample.main, capsys, *argv, "--temperature=0")
    assert greedy == ok(sample.main, capsys, *argv, "--temperature=0", "--seed=9")


def test_a_prompt_from_a_file_and_none(run, tmp_path, capsys):
    (tmp_path / "prompt.txt").write_text("the café", encoding="utf-8")
    argv = ["--out_dir", run, "--max_new_tokens=5"]
    stdout = ok(sample.main, capsys, *argv, f"--start=FILE:{tmp_path}/prompt.txt")
    assert stdout.startswith("the café") and len(stdout) == 8 + 5 + 1
    assert len(ok(sample.main, capsys, *argv)) == 6
    assert "gone.txt" in refused(sample.main, capsys, *argv, f"--start=FILE:{tmp_path}/gone.txt")
    (tmp_path / "prompt.txt").write_bytes(b"caf\xe9")
    err = refused(sample.main, capsys, *argv, f"--start=FILE:{tmp_path}/prompt.txt")
    assert "prompt.txt" in err and "utf-8" in err
    start = f"--start=FILE:{tmp_path}/prompt.txt"
    assert ok(sample.main, capsys, *argv, start, "--encoding=latin-1").startswith("café")


def test_a_prompt_in_a_file_is_read_as_training_text_is(run, tmp_path, capsys, monkeypatch):
    """A byte order mark does not count, and line ends are kept."""
    prompts = []
    monkeypatch.setattr(sample, "answer", lambda _, __, prompt, *more: prompts.append(prompt))
    path = tmp_path / "prompt.txt"
    for content, encoding in (
        (b"\xef\xbb\xbfone\r\ntwo\rthree", "utf-8"),
        ("one\r\ntwo\rthree".encode("utf-16"), "utf-16"),
    ):
        path.write_bytes(content)
        ok(sample.main, capsys, "--out_dir", run, f"--start=FILE:{path}", f"--encoding={encoding}")
        assert prompts.pop() == data.read_text(str(path), encoding) == "one\r\ntwo\rthree"


def test_special_tokens_of_prompts(run, tmp_path, capsys, monkeypatch):
    """--special makes <|endoftext|> in a prompt a token; without it a line says that it is text."""
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    tokenizer = BPETokenizer([], special_tokens={"<|endoftext|>": 256})
    model = make(tokenizer.vocab_size, 64)
    model.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    argv = ["--out_dir", tmp_path, "--start=<|endoftext|>The", "--max_new_tokens=9", "--top_k=0"]
    status, stdout, err = cli(sample.main, capsys, *argv)
    assert status == 0 and err.count("\n") == 2 and "--special makes it a token" in err
    assert stdout == generate(model, tokenizer, "<|endoftext|>The", 9, seed=1337) + "\n"
    special = generate(model, tokenizer, "<|endoftext|>The", 9, seed=1337, allowed_special="all")
    assert ok(sample.main, capsys, *argv, "--special") == special + "\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("<|endoftext|>The\n"))
    argv[1:3] = [tmp_path, "--interactive"]
    assert ok(sample.main, capsys, *argv, "--special") == special + "\n"
    status, _, err = cli(sample.main, capsys, "--out_dir", run, "--special", "--max_new_tokens=1")
    assert status == 0 and err.count("\n") == 2 and "no special tokens" in err


def test_prompts_that_need_a_warning(run, capsys):
    argv = ["--out_dir", run, "--max_new_tokens=5"]
    status, stdout, err = cli(sample.main, capsys, *argv, "--start", "the cat sees the dog")
    assert status == 0 and stdout.startswith("the cat sees the dog")
    assert err.count("\n") == 2 and "20 tokens; the model sees the last 16" in err
    status, stdout, err = cli(sample.main, capsys, *argv, "--start", "XYZ")
    assert status == 0 and stdout.startswith("XYZ")
    assert err.count("\n") == 2 and "'X', 'Y', 'Z'" in err
    assert re.search(r"^5 tokens, [\d.,]+ a second$", err, re.MULTILINE)


def test_a_prompt_that_begins_with_dashes(run, tmp_path, capsys, monkeypatch):
    argv = ["--out_dir", run, "--max-new-tokens=2"]
    for prompt in ("--dash-es and more", "-a-b c"):
        status, stdout, _ = cli(sample.main, capsys, *argv, "--start", prompt)
        assert status == 0 and stdout.startswith(prompt), stdout
    status, stdout, _ = cli(sample.main, capsys, *argv, "--start=--dash-es")
    assert status == 0 and stdout.startswith("--dash-es")
    assert "--NAME=VALUE" in refused(sample.main, capsys, *argv, "--start", "--dash-es")


def test_a_folder_in_the_home_folder(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(run.parent))
    (run.parent / "prompt.txt").write_text("the dog")
    argv = ["--out_dir=~/out", "--tokenizer=~/out", "--start=FILE:~/prompt.txt"]
    assert ok(sample.main, capsys, *argv, "--max_new_tokens=2").startswith("the dog")


def test_an_empty_prompt_warns_of_nothing():
    """A line end was looked up, which not every text has."""
    tokenizer = CharTokenizer("bac")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for characters in (tokenizer, CharTokenizer("a\n"), BPETokenizer([])):
            script = Script([1, 1], max(characters.vocab_size, 2))
            generate(script, characters, "", 2, temperature=0)
            assert script.contexts[0] == [{4: 0, 3: 1, 256: 10}[characters.vocab_size]]


def test_an_output_without_the_characters_gets_escapes(tmp_path):
    model, text = make(4), CharTokenizer("aΩ\n")
    model.save_pretrained(tmp_path)
    text.save(tmp_path)
    done = subprocess.run(
        command("sample.py", "--out_dir", tmp_path, "--start=aΩ", "--max_new_tokens=3"),
        env=ENVIRONMENT | {"PYTHONIOENCODING": "cp1252"},
        capture_output=True,
    )
    assert done.returncode == 0 and done.stdout.startswith(b"a\\u03a9")
    assert done.stderr.startswith(b"3 tokens")


def test_a_model_of_another_project(tmp_path, capsys):
    """Its folder has a tokenizer.json."""
    model, bpe = make(260), BPETokenizer.train(corpus(), 260)
    model.save_pretrained(tmp_path)
    bpe.export(tmp_path, "huggingface")
    argv = ["--out_dir", tmp_path, "--start=the ", "--max_new_tokens=9"]
    stdout = ok(sample.main, capsys, *argv)
    assert stdout == generate(model, bpe, "the ", 9, 0.8, 200, seed=1337) + "\n"
    (tmp_path / "tokenizer.json").unlink()
    assert "has no tokenizer" in refused(sample.main, capsys, *argv)


def test_interactive(run, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat\na dog\n\nnever read\n"))
    stdout = ok(sample.main, capsys, "--out_dir", run, "--interactive", "--max_new_tokens=4")
    assert stdout.startswith("the cat") and "a dog" in stdout and "never" not in stdout
    monkeypatch.setattr(sys, "stdin", io.StringIO("the cat"))
    ok(sample.main, capsys, "--out_dir", run, "--interactive", "--max_new_tokens=4")


def test_the_best_checkpoint_samples_too(run, capsys):
    ok(sample.main, capsys, "--out_dir", run / "best", "--max_new_tokens=5")


def test_a_reader_that_goes_away_is_no_error(run):
    argv = ["--out_dir", run, "--max_new_tokens=100000"]
    process = subprocess.Popen(
        command("sample.py", *argv),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 0


def test_bpe_trains_and_samples_text_that_decodes(run, tmp_path, capsys):
    out = tmp_path / "out"
    argv = ["--dataset", run.parent / "corpus.txt", *TINY, "--tokenizer=bpe:300", "--n_embd=32"]
    ok(train.main, capsys, *argv, "--out_dir", out, "--max_iters=300")
    stdout = ok(sample.main, capsys, "--out_dir", out, "--start=the ", "--top_k=5")
    assert len(stdout) > 500 and "\ufffd" not in stdout
    assert set(stdout) <= set(corpus())
    model, tokenizer = GPT.from_pretrained(out), tokenizers.load(out)
    text = generate(model, tokenizer, "the ", 200, top_k=5, seed=0)
    assert tokenizer.decode_bytes(tokenizer.encode(text)).decode("utf-8", errors="strict") == text


def test_a_model_of_token_files_needs_a_tokenizer_by_name(run, tmp_path, capsys):
    tokenizer, out = tokenizers.load(run), tmp_path / "out"
    ids = tokenizer.encode(corpus())
    data.write_tokens(tmp_path / "all.bin", ids, tokenizer.vocab_size)
    argv = ["--dataset", tmp_path / "all.bin", *TINY, "--vocab_size", tokenizer.vocab_size]
    ok(train.main, capsys, *argv, "--out_dir", out)
    assert "--tokenizer" in refused(sample.main, capsys, "--out_dir", out)
    stdout = ok(
        sample.main, capsys, "--out_dir", out, "--tokenizer", run, "--max_new_tokens=9", "--start=a"
    )
    assert len(stdout) == 11 and set(stdout) <= set(corpus() + "\ufffd")


@pytest.mark.parametrize(
    "argv, words",
    [
        ("--no_such_flag", "--no_such_flag"),
        ("--num_samples=0", "--num_samples at least 1"),
        ("--seed=-1", "--seed at least 0"),
        ("--top_k=-1", "top_k at least"),
        ("--top_p=2", "top_p at most 1"),
        ("--min_p=0", "min_p above 0"),
        ("--temperature=-1", "temperature"),
        ("--temperature=warm", "--temperature warm"),
        ("--repetition_penalty=0", "repetition_penalty above 0"),
        ("--max_new_tokens=-1", "max_new_tokens at least 0"),
        ("--device=tpu", "--device tpu"),
        ("--out_dir=nowhere", "nowhere"),
        ("--tokenizer=nowhere", "nowhere"),
    ],
)
def test_arguments_that_cannot_work_are_refused(argv, words, run, capsys):
    err = refused(sample.main, capsys, "--out_dir", run, *argv.split())
    assert all(word in err for word in words.split()), err


def test_cuda_without_a_gpu_is_refused(run, capsys):
    if tl.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "cuda" in refused(sample.main, capsys, "--out_dir", run, "--device=cuda")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tensorlite-tokenizer.json"])
def test_folders_that_hold_no_model_of_ours_are_refused(name, run, tmp_path, capsys):
    for path, content in files(run).items():
        if "/" not in path:
            (tmp_path / path).write_bytes(content)
    for content in damaged((run / name).read_bytes().rstrip()):
        (tmp_path / name).write_bytes(content)
        refused(sample.main, capsys, "--out_dir", tmp_path)
    (tmp_path / name).unlink()
    refused(sample.main, capsys, "--out_dir", tmp_path)


def test_another_architecture_is_refused(run, tmp_path, capsys):
    for path, content in files(run).items():
        if "/" not in path:
            (tmp_path / path).write_bytes(content)
    config = json.loads((run / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    err = refused(sample.main, capsys, "--out_dir", tmp_path)
    assert "bert" in err and "gpt2" in err and "llama" in err
