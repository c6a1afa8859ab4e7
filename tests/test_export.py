"""python -m gpt.export: what it writes, what it prints, what it refuses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tokenizer as tokenizers
from gpt import GPT, GPTConfig, load
from gpt.checkpoint import save_tokenizer
from gpt.export import main
from tokenizer import BPETokenizer, CharTokenizer

ROOT = Path(__file__).parents[1]
TEXT = "To be, or not to be, that is the question: " * 30


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a model with a BPE tokenizer, beside a text."""
    monkeypatch.chdir(tmp_path)
    tokenizer = BPETokenizer.train(TEXT, 280, special_tokens=["<|endoftext|>"])
    config = GPTConfig(vocab_size=280, block_size=16, n_layer=1, n_head=2, n_embd=256)
    GPT(config).save_pretrained("model")
    save_tokenizer("model", tokenizer)
    Path("text.txt").write_text(TEXT)
    return tmp_path


@pytest.mark.parametrize(("format", "most"), [("int8", 0.27), ("int4", 0.15)])
def test_few_bits(format, most, folder, capsys):
    line = ["model", "--format", format, "--out", "few", "--dataset", "text.txt"]
    assert main(line) == 0
    printed = capsys.readouterr().out
    sizes = [Path(name, "model.safetensors").stat().st_size for name in ("few", "model")]
    assert sizes[0] / sizes[1] < most
    assert float(re.search(r"\((0\.\d+)\), in few", printed)[1]) == pytest.approx(
        sizes[0] / sizes[1], rel=0.05
    )
    before, now = map(float, re.search(r"text.txt: (\S+) before, (\S+) now", printed).groups())
    assert before == pytest.approx(280, rel=0.2) and now == pytest.approx(before, rel=0.02)
    assert load("few").bits == int(format[3:])
    assert tokenizers.load("few").encode(TEXT) == tokenizers.load("model").encode(TEXT)


def test_without_a_dataset_it_says_what_one_would_show(folder, capsys):
    assert main(["model", "--format", "int4", "--group-size=64", "--out", "few"]) == 0
    assert "--dataset FILE" in capsys.readouterr().out
    assert load("few").group_size == 64


def test_transformers_reads_the_folder(folder, capsys):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    assert main(["model", "--format", "int8", "--out", "few"]) == 0
    assert main(["few", "--format", "huggingface", "--out", "theirs"]) == 0
    assert "have 8 bits" in capsys.readouterr().out
    ids = tokenizers.load("model").encode(TEXT)[:16]
    assert transformers.AutoTokenizer.from_pretrained("theirs").encode(TEXT)[:16] == ids
    model = transformers.AutoModelForCausalLM.from_pretrained("theirs")
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits.numpy()
    np.testing.assert_allclose(load("few")([ids])[0].data, theirs, atol=1e-4)


def test_gguf(folder, capsys):
    gguf = pytest.importorskip("gguf")
    line = ["model", "--format", "gguf", "--dtype", "f16", "--out", "model.gguf"]
    assert main(line) == 0 and capsys.readouterr().out == "written: model.gguf\n"
    reader = gguf.GGUFReader("model.gguf")
    assert reader.fields["general.architecture"].contents() == "gpt2"
    assert {t.name for t in reader.tensors} >= {"token_embd.weight", "blk.0.ffn_up.bias"}


def test_gguf_without_the_package(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert main(["model", "--format", "gguf", "--out", "model.gguf"]) == 2
    assert "pip install 'tensorlite[export]'" in capsys.readouterr().err
    assert not Path("model.gguf").exists()


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("model --format int8 --out model", "--out model exists already"),
        ("nothing --format int8 --out few", "there is no folder nothing"),
        ("model --format int8 --out few --dtype f16", "--dtype says nothing about --format int8"),
        ("model --format gguf --out few --dataset text.txt", "--dataset says nothing"),
        ("model --format int8 --out few --group_size 32", "--group_size says nothing"),
        ("model --format int8 --out few --dataset none.txt", "none.txt"),
        ("model --format int8 --out few --dataset short.txt", "short.txt has 1 tokens"),
        ("model --format int8 --out few --tokenizer none", "none"),
        ("model --format int3 --out few", "invalid choice: 'int3'"),
        ("characters --format gguf --out few", "CharTokenizer has no form in GGUF"),
        ("bare --format gguf --out few", "--tokenizer names one"),
        ("bare --format int8 --out few --dataset text.txt", "--tokenizer names one"),
        ("few8 --format int4 --out few", "has 8 bits a weight already"),
    ],
)
def test_mistakes_are_one_line(line, match, folder, capsys):
    Path("short.txt").write_text("a")
    for name in ("characters", "bare"):
        load("model").save_pretrained(name)
    save_tokenizer("characters", CharTokenizer("abc"))
    main(["model", "--format", "int8", "--out", "few8"])
    capsys.readouterr()
    try:
        status = main(line.split())
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and error.count("\n") == 1 and match in error, error
    assert not Path("few").exists()


def test_the_command(folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "gpt.export", "--help"]
    run = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert run.returncode == 0
    assert "python -m gpt.export out --format int8 --out out-int8" in run.stdout
