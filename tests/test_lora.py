"""Adapters: they begin as nothing, merge exactly, and train alone, whatever the method."""

import importlib
import json

import numpy as np
import pytest

import gpt
import gpt.training.loop as loop
import tensorlite as tl
import tokenizer as tokenizers
from gpt import checkpoint, export, models
from gpt.finetune.settings import Tuning
from gpt.finetune.tune import choose_trainable, tune
from gpt.models import Adapted, LoraConfig
from gpt.training.loop import gradients
from gpt.training.optimizer import make_optimizer
from tensorlite.device import RowRandom

from .test_finetune import METHOD, SIZES, Continue, folder, given, lines_of

__all__ = ["folder"]  # a fixture

IDS = np.random.default_rng(0).integers(0, 97, (3, 20))


def base_model(kind="gpt2", **changes):
    config = gpt.GPTConfig if kind == "gpt2" else gpt.LlamaConfig
    return models.make(config(**SIZES | changes), seed=3)


def shaken(model, seed=1):
    """The model with adapters that are not zero any more."""
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        p.data += 0.1 * rng.standard_normal(p.shape).astype(np.float32)
    return model


def logits(model, ids=IDS):
    with tl.no_grad():
        return model(ids)[0].numpy()


# =================================================================================================
# On a model
# =================================================================================================


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_changes_nothing_at_first_and_merges_exactly(kind, dora):
    plain = base_model(kind).eval()
    before, weights = logits(plain), {n: p.data.copy() for n, p in plain.named_parameters()}
    model = Adapted(plain, "base").eval()
    assert model.parameters() == [] and np.array_equal(logits(model), before)
    model.add_adapter("a", LoraConfig(rank=4, dora=dora))
    np.testing.assert_allclose(logits(model), before, atol=1e-6)  # DoRA divides and multiplies
    after = logits(shaken(model))
    assert abs(after - before).max() > 0.1
    model.merge()
    np.testing.assert_allclose(logits(model), after, atol=1e-5)
    model.train().eval()  # takes the changes out of the weights again
    assert np.array_equal(logits(model), after)
    model.set_adapter(None)
    assert np.array_equal(logits(model), before)
    for name, p in plain.named_parameters():
        assert np.array_equal(p.data, weights[name]), name


def test_several_adapters_of_one_model():
    model = Adapted(base_model(), "base").eval()
    results = {}
    for i, name in enumerate(("a", "b")):
        model.add_adapter(name, LoraConfig(rank=2 + i, targets=("c_attn", "mlp.c_proj")[i:]))
        results[name] = logits(shaken(model, i))
    assert {n.split(".lora")[0][4:] for n, _ in model.named_parameters()} == {"mlp.c_proj"}
    model.merge()
    model.set_adapter("a")  # the weights of the base come back first
    assert np.array_equal(logits(model), results["a"])
    assert len(model.parameters()) == 2 * 2 * 3  # A and B of two layers in each of three blocks
    with pytest.raises(ValueError, match="there is no adapter 'c'; there are a, b"):
        model.set_adapter("c")
    with pytest.raises(ValueError, match="there is an adapter 'a' already"):
        model.add_adapter("a", LoraConfig())


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(rank=0), "rank of an adapter is an integer, at least 1, not 0"),
        (dict(alpha=float("nan")), "alpha of an adapter is a number, not nan"),
        (dict(dropout=1.0), "dropout of an adapter is at least 0 and below 1"),
        (dict(targets=("q_proj",)), "no linear layer is named 'q_proj'; there are c_attn, c_fc, c"),
    ],
)
def test_adapters_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Adapted(base_model(), "base").add_adapter("a", LoraConfig(**wrong))


def test_quantised_models_take_no_adapter():
    with pytest.raises(ValueError, match="quantised weights pass no gradient on"):
        Adapted(gpt.quantize(base_model(n_embd=32), 8), "base")


@pytest.mark.parametrize("recompute", [False, True])
def test_dropout_is_that_of_the_row(recompute):
    """A batch in parts, with blocks computed again, has the gradients of the whole batch."""
    found = []
    for size, again in ((6, False), (2, recompute)):
        s = Tuning(lora=4, dropout=0.3, batch_size=size, gradient_accumulation_steps=6 // size)
        model = shaken(choose_trainable(base_model(dropout=0.0), s)).train()
        model.model.recompute = again
        task = Continue(s, [np.arange(9 + i) for i in range(6)])
        optimizer = make_optimizer(model, s)
        loss, _ = gradients(model, optimizer, task, task.batch(0), s, 0)
        found.append((loss, [p.grad.numpy() for p in model.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    for a, b in zip(found[0][1], found[1][1]):
        np.testing.assert_allclose(a, b, atol=1e-5)
    s = Tuning(lora=4, dropout=0.3)
    model = shaken(choose_trainable(base_model(dropout=0.0), s)).train()
    losses = [model.loss(IDS, IDS, RowRandom(i, rows=range(3))).item() for i in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_are_learned(kind, tied):
    """Their rows are those of the whole embedding, in value and in gradient; others are frozen."""
    grown = models.with_config(base_model(kind, tied=tied), vocab_size=303)
    rows, names = np.random.default_rng(5).standard_normal((3, 16)), ("wte", "embed_tokens")
    ids = np.random.default_rng(0).integers(280, 303, (3, 20))
    whole = models.with_config(grown)
    model = Adapted(grown, "base")
    model.add_adapter("a", LoraConfig(rank=2), new_tokens=3)
    own = {n: p for n, p in model.named_parameters() if "trainable_tokens" in n}
    assert len(own) == 2 - tied
    for name, p in own.items():
        part = getattr(whole, name.partition(".")[0])
        p.data[...] = part.weight.data[-3:] = rows
    for a in (model, whole):
        a.loss(ids[:, :-1], ids[:, 1:]).backward()
    np.testing.assert_allclose(logits(model, ids), logits(whole, ids), atol=1e-5)
    for name, p in own.items():
        expected = getattr(whole, name.partition(".")[0]).weight.grad.numpy()
        np.testing.assert_allclose(p.grad.numpy(), expected[-3:], atol=1e-6)
    assert all(p.grad is None for p in model.model.parameters())
    model.merge()
    np.testing.assert_allclose(logits(model, ids), logits(whole, ids), atol=1e-5)
    model.set_adapter(None)
    for name in names:
        if hasattr(grown, name):
            mean = getattr(grown, name).weight.data
            np.testing.assert_array_equal(mean[-1], mean[-2])


# =================================================================================================
# Runs
# =================================================================================================


def test_a_run_trains_and_keeps_adapters_alone(folder, tmp_path, capsys):
    out, base = tmp_path / "out", (folder / "base" / "model.safetensors").read_bytes()
    assert tune(METHOD, given(folder, out, epochs=2, learning_rate=1e-2, lora=2)) == 0
    measured = [line["val_loss"] for line in lines_of(out) if "val_loss" in line]
    assert measured[-1] < measured[0]
    model = Adapted.from_pretrained(out)
    trained = sum(p.size for p in model.parameters())
    assert f"{trained:,} parameters train, " in capsys.readouterr().out
    assert not (out / "model.safetensors").exists() and not (out / "config.json").exists()
    assert (out / "best" / "adapter_model.safetensors").exists()
    card = (out / "README.md").read_text()
    assert f", and of its adapters {trained:,} were trained" in card and '"peft"' in card
    assert (folder / "base" / "model.safetensors").read_bytes() == base
    # What it has learned can be tuned further, whole or by another adapter.
    for more in (dict(lora=2), {}):
        again = given(folder, tmp_path / f"more{len(more)}", max_iters=1, **more)
        assert tune(METHOD, again | dict(init_from=str(out), learning_rate=1e-9)) == 0
        loss = lines_of(tmp_path / f"more{len(more)}")[0]["val_loss"]
        assert loss == pytest.approx(measured[-1], abs=1e-4)


@pytest.mark.parametrize("more", [{}, dict(dora=True, recompute=True)])
def test_a_resumed_run_is_the_uninterrupted_one(folder, tmp_path, monkeypatch, more):
    whole, out = tmp_path / "whole", tmp_path / "out"
    more = dict(epochs=2, save_interval=1, lora=2, **more)
    tune(METHOD, given(folder, whole, **more))
    real, calls = loop.train_step, []

    def stop(*args):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stop)
        with pytest.raises(KeyboardInterrupt):
            tune(METHOD, given(folder, out, **more))
    assert checkpoint.load_step(out) == 7
    tune(METHOD, dict(init_from="resume", out_dir=str(out)))
    for name in ("adapter_model.safetensors", "optimizer-12.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    (out / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="has lost its adapter_model.safetensors"):
        tune(METHOD, dict(init_from="resume", out_dir=str(out)))
    # A run with all weights in the same folder leaves nothing of the adapter.
    tune(METHOD, given(folder, out, max_iters=1, overwrite=True))
    assert not checkpoint.is_adapter(out) and not (out / "adapted").exists()


@pytest.mark.parametrize("method", ["classify", "instruct", "reward", "dpo", "grpo"])
def test_every_method_trains_adapters(method, folder, tmp_path, monkeypatch):
    """Stopped after two steps of four and resumed, it ends with the file of the whole run."""
    module = importlib.import_module(f"gpt.finetune.{method}")
    records = [
        {"instruction": f"{i}", "output": "cat", "chosen": "cat", "rejected": "sat"}
        | {"text": f"the {i}", "label": "ab"[i % 2], "prompt": f"{i}", "completion": "cat"}
        | {"desirable": i % 2 == 0}
        for i in range(40)
    ]
    (tmp_path / "records.json").write_text(json.dumps(records))
    (tmp_path / "score.py").write_text("def score(prompt, answer, record): return len(answer)")
    tokenizer = tokenizers.load(folder / "base")
    base_model(vocab_size=tokenizer.vocab_size).save_pretrained(tmp_path / "base")
    tokenizer.save(tmp_path / "base")
    settings = given(tmp_path, tmp_path / "whole", lora=2, max_iters=4, save_interval=1)
    settings |= dict(dataset=str(tmp_path / "records.json"), val_fraction=0.2)
    if method in ("instruct", "reward", "dpo"):
        settings |= dict(template="chatml")
    again = {}
    if method == "grpo":
        again = dict(reward=f"{tmp_path / 'score.py'}:score")  # given again for a resumed run
        settings |= dict(max_new_tokens=4, dropout=0.0, **again)
    assert tune(module, settings) == 0
    real, calls = loop.train_step, []

    def stop(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stop)
        with pytest.raises(KeyboardInterrupt):
            tune(module, settings | dict(out_dir=str(tmp_path / "out")))
    tune(module, dict(init_from="resume", out_dir=str(tmp_path / "out"), **again))
    files = (tmp_path / out / "adapter_model.safetensors" for out in ("whole", "out"))
    assert len({file.read_bytes() for file in files}) == 1
    load = models.load_classifier if method in ("classify", "reward") else gpt.load
    new = 2 if "template" in settings else 0
    assert load(tmp_path / "out").config.vocab_size == tokenizer.vocab_size + new
    rows = [
        n for n, _ in Adapted.from_pretrained(tmp_path / "out").named_parameters() if "wte" in n
    ]
    assert bool(rows) == bool(new)
    # Exported, it is the same model without a base.
    more = ["--format", "huggingface", "--out", str(tmp_path / "one")]
    assert export.main([str(tmp_path / "out"), *more]) == 0
    made, expected = (load(tmp_path / name).state_dict() for name in ("one", "out"))
    assert made.keys() == expected.keys()
    for name, array in made.items():
        assert np.array_equal(array, expected[name])


def test_at_most_2_per_cent_of_a_gpt2_train():
    """GPT-2's sizes, but for fewer and narrower layers in proportion."""
    config = gpt.GPTConfig(50257, 1024, n_layer=2, n_head=12, n_embd=768)
    model = models.make(config, seed=None)
    total = sum(p.size for p in model.parameters())
    for p in model.parameters():
        p.data[...] = 0
    adapted = choose_trainable(model, Tuning(lora=8))
    assert sum(p.size for p in make_optimizer(adapted, Tuning()).params) < 0.02 * total
