"""train.py with --model llama, and of both families: what it makes is read by transformers."""

import json
import re
import subprocess

import numpy as np
import pytest

import gpt
import tokenizer as tokenizers
import train
from gpt import GPT, Llama, generate_ids
from gpt.generate import generate
from tokenizer import CharTokenizer

from .llama_cases import make
from .test_parallel import LIMIT, mpi, two_cores
from .test_train import ENVIRONMENT, TINY, command, corpus, ok, refused, short_end, text

__all__ = ["mpi", "short_end", "text", "two_cores"]  # fixtures

LLAMA = [*TINY, "--model=llama", "--n_head=4", "--n_kv_head=2", "--dropout=0.1"]


def weights(folder) -> dict[str, np.ndarray]:
    return gpt.load(folder).state_dict()


def test_a_llama_learns_and_resumes_bit_for_bit(text, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run = ["--dataset", text, *LLAMA, "--lr_decay_iters=25", "--out_dir"]
    ok(train.main, capsys, *run, whole)
    ok(train.main, capsys, *run, parts, "--max_iters=10")
    ok(train.main, capsys, "--init_from=resume", "--out_dir", parts, "--max_iters=25")
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    losses = [line["val_loss"] for line in lines if "val_loss" in line]
    assert losses[-1] < losses[0] - 0.2
    model = gpt.load(whole)
    assert type(model) is Llama and model.config.n_kv_head == 2 and model.config.family == "llama"


def test_two_workers_train_what_one_trains(two_cores, text, tmp_path, capsys):
    run = ["--dataset", text, *LLAMA, "--max_iters=6", "--learning_rate=3e-3", "--out_dir"]
    ok(train.main, capsys, *run, tmp_path / "one", "--workers=1")
    done = subprocess.run(
        command("train.py", *run, tmp_path / "two", "--workers=2"),
        env=ENVIRONMENT | LIMIT,
        capture_output=True,
        text=True,
        timeout=70,
    )
    assert done.returncode == 0 and "2 workers" in done.stdout, done.stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-4, err_msg=name)


def test_a_qwen3_of_transformers_is_fine_tuned(text, tmp_path, capsys):
    pytest.importorskip("transformers")
    model = make("qwen3", head_dim=8, tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "model")
    CharTokenizer("".join(sorted(set(text.read_text())))).save(tmp_path / "model")
    before = gpt.load(tmp_path / "model")
    run = ["--dataset", text, *TINY[4:], "--init_from", tmp_path / "model"]
    ok(train.main, capsys, *run, "--out_dir", tmp_path / "out", "--max_iters=8")
    after = gpt.load(tmp_path / "out")
    assert after.config.family == "qwen3" and after.config.qk_norm and after.config.head_size == 8
    old, new = before.state_dict(), after.state_dict()
    assert old.keys() == new.keys()
    assert all((old[name] != new[name]).any() for name in old)
    said = refused(train.main, capsys, *run, "--n_kv_head=1", "--out_dir", tmp_path / "other")
    assert "--n_kv_head 2, which cannot be 1" in said


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--n_kv_head=2"], "--n_kv_head is for --model llama"),
        (["--model=bert"], "--model is gpt2, llama or modern, not 'bert'"),
        (["--model=llama", "--n_head=4", "--n_kv_head=3"], "4 heads cannot share 3 heads"),
        (["--model=llama", "--n_kv_head=0"], "n_kv_head"),
        (["--model=llama", "--n_embd=6"], "head_size is even, .*not 3"),
    ],
)
def test_shapes_that_are_refused(argv, words, text, tmp_path, capsys):
    said = refused(train.main, capsys, "--dataset", text, *TINY, *argv, "--out_dir", tmp_path / "o")
    assert re.search(words, said)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("tokens", ["char", "bpe:300"])
def test_transformers_writes_the_same_text(kind, tokens, text, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    run = ["--dataset", text, *TINY, "--block_size=32", "--tokenizer", tokens, "--model", kind]
    ok(train.main, capsys, *run, "--out_dir", tmp_path / "out", "--max_iters=200")
    out = tmp_path / "out"
    model, tokenizer = gpt.load(out), tokenizers.load(out)
    assert type(model) is (GPT if kind == "gpt2" else Llama)
    auto = transformers.AutoTokenizer.from_pretrained(out)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    for prompt in ("the dog", "a café sees", "under"):
        ids = tokenizer.encode(prompt)
        asked = auto(prompt, return_tensors="pt")
        assert asked["input_ids"].tolist() == [ids]
        answer = theirs.generate(**asked, do_sample=False, max_new_tokens=16)[0].tolist()
        assert answer == ids + generate_ids(model, [ids], 16, temperature=0)[0]
        assert auto.decode(answer) == generate(model, tokenizer, prompt, 16, temperature=0)


def test_transformers_computes_the_logits_of_the_demo(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text(corpus(2000), encoding="utf-8")
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    short = ["--max_iters=3", "--warmup_iters=1", "--eval_iters=1", "--workers=1"]
    run = ["--preset=demo", "--dataset", text, *short, "--out_dir", tmp_path / "out"]
    ok(train.main, capsys, *run)
    sentence = text.read_text(encoding="utf-8")[:150]
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(sentence)["input_ids"]
    assert ids == tokenizers.load(tmp_path / "out").encode(sentence) and len(ids) > 16
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits.numpy()
    logits, _ = gpt.load(tmp_path / "out")(np.array([ids]))
    np.testing.assert_allclose(logits.data, expected, rtol=0, atol=1e-4)
