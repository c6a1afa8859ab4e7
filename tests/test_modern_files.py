"""The folders of the modern family: nanochat's layout, our own, and train.py --model modern."""

import json
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpt
import sample
import tokenizer as tokenizers
import train
from gpt import Modern, ModernConfig, classify, export
from gpt.evaluate import __main__ as evaluate
from gpt.finetune import __main__ as finetune
from gpt.models.modern_config import DEFAULT_PARTS, read_parts

from .llama_cases import change, logits_of, reopened
from .test_llama_files import VALUES
from .test_modern import ids, make
from .test_train import TINY, cli, ok, short_end, text

__all__ = ["short_end", "text"]  # fixtures

NANOCHAT = "rotary,qk_norm,embedding_norm,relu2,logit_cap"
OURS = "rotary,qk_norm,relu2,zero_init,ngrams=2+3"
TINY = [*TINY, "--model=modern"]


def same(model, other) -> None:
    """The weights are the same to the bit."""
    for (name, a), (other_name, b) in zip(model.named_parameters(), other.named_parameters()):
        assert name == other_name
        np.testing.assert_array_equal(a.data, b.data, err_msg=name)


def weights(folder) -> dict[str, np.ndarray]:
    return gpt.load(folder).state_dict()


def refused(main, capsys, *argv) -> str:
    """The one line on stderr with which a command line is refused."""
    status, _, err = cli(main, capsys, *argv)
    assert status == 2 and err.count("\n") == 1 and ": error: " in err, err
    return err


# ---- nanochat ------------------------------------------------------------------------------------


@settings(max_examples=6)
@given(
    heads=st.sampled_from([(1, 6), (2, 12), (4, 16), (8, 16)]),
    layers=st.integers(1, 3),
    inner=st.sampled_from([None, 20, 100]),
    relu2=st.booleans(),
    tied=st.booleans(),
    logit_cap=st.sampled_from([None, 15.0, 2.5]),
    rope_theta=st.sampled_from([10000.0, 100.0]),
    norm_eps=st.sampled_from([1e-6, 1e-2]),
)
def test_transformers_computes_the_same(heads, layers, tmp_path_factory, **fields):
    pytest.importorskip("transformers")
    folder, fields = tmp_path_factory.mktemp("model"), fields | {"n_inner": fields.pop("inner")}
    sizes = dict(n_head=heads[0], n_embd=heads[1], n_layer=layers)
    model = make("rotary,qk_norm,embedding_norm", **sizes, **fields)
    model.save_pretrained(folder)
    theirs, x = reopened(folder), ids(2, 16)
    assert type(theirs).__name__ == "NanoChatForCausalLM"
    ours = model(x)[0].numpy()
    np.testing.assert_allclose(logits_of(theirs, x), ours, rtol=0, atol=1e-4)
    theirs.save_pretrained(folder / "again")
    again = gpt.load(folder / "again")
    assert type(again) is Modern and again.config == model.config
    np.testing.assert_allclose(again(x)[0].numpy(), ours, rtol=0, atol=1e-5)
    same(again, model)


def test_a_new_nanochat_of_transformers_opens(tmp_path):
    """With what its config.json leaves to the defaults, and its bfloat16."""
    transformers = pytest.importorskip("transformers")
    config = transformers.NanoChatConfig(
        vocab_size=41, hidden_size=24, num_attention_heads=2, num_hidden_layers=2
    )
    transformers.NanoChatForCausalLM(config).bfloat16().save_pretrained(tmp_path)
    change(tmp_path, qkv_bias=False, logits_soft_cap=15.0, rope_scaling=None, rope_theta=10000.0)
    change(tmp_path, remove=("hidden_act", "max_position_embeddings", "intermediate_size"))
    ours, x = gpt.load(tmp_path), ids(2, 30)
    assert ours.config.n_inner == 8192 and ours.config.block_size == 2048
    assert ours.config.relu2 and ours.config.logit_cap == 15.0 and ours.config.eos_ids == {1}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32")
    np.testing.assert_allclose(ours(x)[0].numpy(), logits_of(theirs, x), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(num_key_value_heads=1), "num_key_value_heads 1 is not supported, only .* 2"),
        (dict(hidden_act="silu"), "hidden_act 'silu' is not supported"),
        (dict(attention_bias=True), "attention_bias True is not supported"),
        (dict(head_dim=12), "head_dim 12, which is not supported"),
        (dict(rope_parameters={"rope_type": "yarn"}), "rope_parameters .* are not supported"),
        (
            dict(rope_parameters={"partial_rotary_factor": 0.5}),
            "partial_rotary_factor is not supported",
        ),
        (dict(logits_soft_cap=7.0), "logits_soft_cap 7.0 is not supported"),
        (dict(sliding_window=7), "sliding_window 7, which is not supported"),
        (dict(num_hidden_layers=10**9), "holds no 1000000000 layers"),
        (dict(hidden_size=32), "does not fit its config.json"),
    ],
)
def test_settings_of_a_nanochat_are_refused_by_name(changes, words, tmp_path):
    make(NANOCHAT).save_pretrained(tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(ValueError, match=words):
        gpt.load(tmp_path)


# ---- our own layout ------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", ["", "rotary", OURS, "rotary,qk_norm,embedding_norm,ngrams=2"])
def test_a_model_with_other_parts_has_a_layout_of_ours(parts, tmp_path):
    model, x = make(parts, bos_token_id=3, generation={"top_k": 5}), ids(2, 16)
    model.save_pretrained(tmp_path, 7)
    said = json.loads((tmp_path / "config.json").read_text())
    assert said["model_type"] == "tensorlite" and "transformers cannot open it" in said["note"]
    again = gpt.load(tmp_path)
    assert again.config == model.config
    np.testing.assert_allclose(again(x)[0].numpy(), model(x)[0].numpy(), rtol=0, atol=1e-5)
    same(again, model)
    transformers = pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="tensorlite"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_config_json_says_what_opens_the_folder(tmp_path):
    few, classifier = gpt.quantize(make(NANOCHAT), 8), gpt.Classifier(make(NANOCHAT), ["a", "b"])
    for model, opens in ((make(OURS), "load"), (few, "load"), (classifier, "load_classifier")):
        model.save_pretrained(tmp_path)
        note = json.loads((tmp_path / "config.json").read_text())["note"]
        assert note.startswith("No published layout says all that there is in this model")
        assert note.endswith(f": gpt.{opens} of tensorlite does.")
        getattr(gpt, opens)(tmp_path)


@pytest.mark.parametrize("parts", [NANOCHAT, OURS])
def test_classifiers_and_adapters_come_back(parts, tmp_path):
    x, rng = ids(2, 9), np.random.default_rng(1)
    classifier = gpt.Classifier(make(parts), ["ham", "spam"], seed=1).eval()
    classifier.save_pretrained(tmp_path / "classifier")
    again = gpt.load_classifier(tmp_path / "classifier")
    assert again.labels == ("ham", "spam") and again.config == classifier.config
    same(again, classifier)
    with pytest.raises(ValueError, match="holds a classifier"):
        gpt.load(tmp_path / "classifier")
    with pytest.raises(ValueError, match="transformers has no classifiers of the modern family"):
        folder = str(tmp_path / "classifier")
        export.export(export.parse([folder, "--format=huggingface", "--out", folder + "2"]))
    for head in (False, True):
        base, body = tmp_path / f"base{head}", make(parts)
        (gpt.Classifier(body, ["a", "b"]) if head else body).save_pretrained(base)
        whole = (gpt.load_classifier if head else gpt.load)(base)
        adapted = gpt.Adapted(whole, base)
        adapted.add_adapter("one", gpt.LoraConfig(rank=2), seed=3)
        for p in adapted.parameters():
            p.data[...] = 0.2 * rng.standard_normal(p.shape)
        adapted.save_pretrained(tmp_path / f"adapter{head}")
        merged = (gpt.load_classifier if head else gpt.load)(tmp_path / f"adapter{head}")
        given = (x, [9, 4]) if head else (x,)
        mine, theirs = adapted.eval()(*given), merged(*given)
        mine, theirs = (mine, theirs) if head else (mine[0], theirs[0])
        np.testing.assert_allclose(theirs.numpy(), mine.numpy(), rtol=0, atol=2e-5)


def test_a_part_that_is_not_known_is_refused(tmp_path):
    make(OURS).save_pretrained(tmp_path)
    change(tmp_path, mixture=True)
    with pytest.raises(ValueError, match="config.json says mixture, which is no part of a modern"):
        gpt.load(tmp_path)
    change(tmp_path, remove=("mixture", "vocab_size"))
    with pytest.raises(ValueError, match="config.json does not say vocab_size, which every"):
        gpt.load(tmp_path)


@pytest.mark.parametrize("parts", [NANOCHAT, OURS])
def test_any_value_is_refused_or_gives_a_model(parts, tmp_path):
    """ValueError, or a model that reads, saves and loads again; and no memory for absurd sizes."""
    make(parts, ngram_rows=100).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    raw, refusals, accepted = json.loads(path.read_text()), 0, set()
    rope = raw.get("rope_parameters", {})
    tracemalloc.start()
    for key in raw:
        for value in [*VALUES, {"rope_theta": "x"}, [2, "x"], rope | {"rope_theta": -1}]:
            path.write_text(json.dumps(raw | {key: value}))
            try:
                model = gpt.load(tmp_path)
            except ValueError:
                refusals += 1
                continue
            assert np.isfinite(model([[1, 2, 3]])[0].numpy()).all(), (key, value)
            if repr(model.config) not in accepted:
                model.save_pretrained(tmp_path / "again")
                assert gpt.load(tmp_path / "again").config == model.config, (key, value)
            accepted.add(repr(model.config))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refusals > 50 and len(accepted) > 1 and peak < 20e6


# ---- train.py and what comes after it ------------------------------------------------------------


@pytest.mark.parametrize("parts", [NANOCHAT, OURS])
def test_a_modern_model_learns_and_resumes_bit_for_bit(parts, text, tmp_path, capsys):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    more = [f"--parts={parts}", "--dropout=0.1", "--optimizer=muon", "--lr_decay_iters=25"]
    run = ["--dataset", text, *TINY, *more, "--out_dir"]
    ok(train.main, capsys, *run, whole)
    ok(train.main, capsys, *run, halves, "--max_iters=10")
    ok(train.main, capsys, "--init_from=resume", "--out_dir", halves, "--max_iters=25")
    assert (whole / "model.safetensors").read_bytes() == (halves / "model.safetensors").read_bytes()
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    losses = [line["val_loss"] for line in lines if "val_loss" in line]
    assert losses[-1] < losses[0] - 0.2
    said = refused(train.main, capsys, *run[2:], halves, "--init_from=resume", "--parts=tied")
    assert "--parts" in said


def test_a_folder_is_used_wherever_a_language_model_is(text, tmp_path, capsys):
    out = tmp_path / "out"
    ok(
        train.main,
        capsys,
        "--dataset",
        text,
        *TINY,
        f"--parts={OURS}",
        "--block_size=200",
        "--out_dir",
        out,
    )
    card = (out / "README.md").read_text()
    assert 'library_name: "tensorlite"' in card and "transformers cannot open it" in card
    assert ok(sample.main, capsys, "--out_dir", out, "--max_new_tokens=9", "--temperature=0")
    assert ok(evaluate.main, capsys, out, "--task=perplexity", "--dataset", text)
    chats = tmp_path / "chats.jsonl"
    lines = [{"instruction": "say " + "a" * i, "output": "the cat"} for i in range(40)]
    chats.write_text("".join(json.dumps(line) + "\n" for line in lines))
    more = ["--dataset", chats, "--max_iters=2", "--workers=1", "--out_dir"]
    start = ["instruct", "--init_from", out, *more]
    ok(finetune.main, capsys, *start, tmp_path / "tuned")
    tuned = gpt.load(tmp_path / "tuned")
    assert type(tuned) is Modern and tuned.config.ngram_vocab <= tuned.config.vocab_size
    ok(finetune.main, capsys, *start, tmp_path / "last", "--train=last:1")
    ok(finetune.main, capsys, *start, tmp_path / "lora", "--lora=2", "--learning_rate=0.1")
    merged, base = weights(tmp_path / "lora"), weights(out)
    changed = {name for name in base if (merged[name][: len(base[name])] != base[name]).any()}
    assert changed == {name for name in base if name.startswith("h.")}
    mails = tmp_path / "mails.tsv"
    lines = [f"{'ab'[i % 2]}\tthe {('cat', 'dog')[i % 2]} {'a' * i}\n" for i in range(40)]
    mails.write_text("".join(lines))
    more = ["--dataset", mails, "--columns=label,text", "--max_iters=3", "--workers=1"]
    ok(finetune.main, capsys, "classify", "--init_from", out, *more, "--out_dir", tmp_path / "mail")
    assert ok(classify.main, capsys, tmp_path / "mail", "the cat")
    more = ["--init_from", out, "--out_dir", out / "2"]
    ok(train.main, capsys, "--dataset", text, *TINY[4:-1], *more)
    assert json.loads((out / "2" / "run.json").read_text())["settings"]["model"] == "modern"


def test_exports(text, tmp_path, capsys):
    nanochat, ours = tmp_path / "nanochat", tmp_path / "ours"
    run = ["--dataset", text, *TINY, "--max_iters=1", "--out_dir"]
    ok(train.main, capsys, *run, nanochat, f"--parts={NANOCHAT}")
    ok(train.main, capsys, *run, ours, f"--parts={OURS}")
    said = refused(export.main, capsys, nanochat, "--format=gguf", "--out", tmp_path / "x")
    assert "llama.cpp has no models of the modern family" in said
    said = refused(export.main, capsys, ours, "--format=huggingface", "--out", tmp_path / "x")
    assert re.search("transformers has no model with the parts .*ngrams=2[+]3", said)
    assert not (tmp_path / "x").exists()
    ok(export.main, capsys, nanochat, "--format=int8", "--out", tmp_path / "few")
    ok(export.main, capsys, tmp_path / "few", "--format=huggingface", "--out", tmp_path / "hf8")
    few, many = (gpt.load(tmp_path / name)([[1, 2, 3]])[0].numpy() for name in ("few", "hf8"))
    np.testing.assert_allclose(few, many, rtol=0, atol=1e-3)
    ok(export.main, capsys, nanochat, "--format=huggingface", "--out", tmp_path / "hf")
    same(gpt.load(tmp_path / "hf"), gpt.load(nanochat))
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    mine = tokenizers.load(tmp_path / "hf")
    start = tokens("a quick", return_tensors="pt")
    assert start["input_ids"][0].tolist() == mine.encode("a quick")
    x = [mine.encode("a quick")]
    np.testing.assert_allclose(logits_of(theirs, x), gpt.load(nanochat)(x)[0].numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--parts=rotray"], "--parts has 'rotray'; the parts are rotary, qk_norm"),
        (["--parts=tied", "--model=gpt2"], "--parts is for --model modern: a gpt2"),
        (["--bias=True"], "a modern model has no biases"),
        (["--n_kv_head=1"], "--n_kv_head is for --model llama"),
        (["--n_embd=6", "--n_head=2", "--parts=rotary"], "n_embd / n_head is even, not 3"),
    ],
)
def test_shapes_that_are_refused(argv, words, text, tmp_path, capsys):
    said = refused(train.main, capsys, "--dataset", text, *TINY, *argv, "--out_dir", tmp_path / "o")
    assert re.search(words, said)


def test_the_default_parts_are_published():
    fields = read_parts(DEFAULT_PARTS)
    assert gpt.checkpoint.is_nanochat(ModernConfig(65, 64, 4, 4, 128, **fields))
