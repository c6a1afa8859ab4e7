"""Adapters: they begin as nothing, merge exactly, train alone, and are PEFT's in their files."""

import json
import shutil
import warnings

import numpy as np
import pytest

import gpt
import gpt.training.loop as loop
import tensorlite as tl
from gpt import checkpoint, models
from gpt.finetune.settings import Tuning
from gpt.finetune.tune import choose_trainable, tune
from gpt.generate import generate_ids
from gpt.models import Adapted, LoraConfig
from gpt.training.loop import gradients
from gpt.training.optimizer import make_optimizer
from gpt.training.settings import is_model
from tensorlite.device import RowRandom

from .llama_cases import logits_of, make
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
    model.unmerge()
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
# Files
# =================================================================================================


@pytest.fixture
def saved(tmp_path):
    """A base, and an adapter of it: (its folder, the logits that it gives)."""
    base_model().save_pretrained(tmp_path / "base")
    model = Adapted(gpt.load(tmp_path / "base"), tmp_path / "base")
    model.add_adapter("a", LoraConfig(rank=4, targets=("c_attn", "c_fc"), rslora=True))
    shaken(model).save_pretrained(tmp_path / "adapter", step=7)
    return tmp_path / "adapter", logits(model)


def test_a_folder_is_opened_merged_or_to_go_on(saved, tmp_path):
    path, expected = saved
    assert {p.name for p in path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "adapted",
    }
    assert checkpoint.load_step(path) == 7 and is_model(str(path))
    merged, adapted = gpt.load(path), Adapted.from_pretrained(path)
    assert type(merged) is gpt.GPT
    np.testing.assert_allclose(logits(merged), expected, atol=1e-5)
    assert np.array_equal(logits(adapted), expected)
    for model in (merged, adapted):
        new = generate_ids(model, [[1, 2, 3]], max_new_tokens=5, temperature=0)
        assert len(new[0]) in (5, 8)
    adapted.save_pretrained(tmp_path / "again", step=7)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (path / name).read_bytes()


def test_an_adapter_of_an_adapted_model(saved, tmp_path):
    path, _ = saved
    model = Adapted(gpt.load(path), path)
    model.add_adapter("b", LoraConfig(rank=2))
    shaken(model).save_pretrained(tmp_path / "second")
    np.testing.assert_allclose(logits(gpt.load(tmp_path / "second")), logits(model), atol=1e-5)
    said(path, base_model_name_or_path=str(tmp_path / "second"))
    with pytest.raises(ValueError, match="names itself as the model that it changes"):
        gpt.load(path)


def said(path, **changes):
    """Write other values into adapter_config.json."""
    file = path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_more_ids_and_a_shorter_context_than_the_base(tmp_path):
    base_model().save_pretrained(tmp_path / "base")
    grown = models.with_config(gpt.load(tmp_path / "base"), vocab_size=303, block_size=24)
    model = Adapted(grown, tmp_path / "base")
    model.add_adapter("a", LoraConfig(rank=2), new_tokens=3)
    shaken(model).save_pretrained(tmp_path / "adapter")
    loaded = gpt.load(tmp_path / "adapter")
    assert loaded.config.vocab_size == 303 and loaded.config.block_size == 24
    ids = np.arange(283, 303)[None]
    np.testing.assert_allclose(logits(loaded, ids), logits(model, ids), atol=1e-5)
    base_model(vocab_size=310).save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="303 ids and 24 positions, which cannot be made of .*310"):
        gpt.load(tmp_path / "adapter")


def test_the_base_must_not_have_been_trained_since(saved, tmp_path):
    path, _ = saved
    model = gpt.load(tmp_path / "base")
    model.save_pretrained(tmp_path / "base", step=9)
    gpt.load(path)
    model.h[2].mlp.c_fc.weight.data[0] *= 1.01
    model.save_pretrained(tmp_path / "base", step=10)
    with pytest.raises(ValueError, match="base has other weights than the one that the adapter in"):
        gpt.load(path)


def test_an_adapter_of_another_model_is_refused(saved, tmp_path):
    path, _ = saved
    for changes, message in [
        (dict(n_embd=32), r"attn.c_attn.lora_A.weight is \(4, 16\), not \(4, 32\)"),
        (dict(n_layer=2), r"the model has nothing for transformer.h.2.attn"),
    ]:
        base_model(**changes).save_pretrained(tmp_path / "base")
        with pytest.raises(ValueError, match=f"does not fit the model in .*base: .*{message}"):
            gpt.load(path)
    base_model("llama").save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="it changes no layer of it; the model has nothing for"):
        gpt.load(path)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(FileNotFoundError, match="and there is no such folder: write where it is"):
        gpt.load(path)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(peft_type="IA3"), "peft_type 'IA3' is not supported"),
        (dict(bias="all"), "bias 'all' is not supported"),
        (dict(lora_bias=True), "lora_bias True is not supported"),
        (dict(init_lora_weights="pissa"), "init_lora_weights 'pissa' is not supported"),
        (dict(rank_pattern={"c_fc": 2}), "rank_pattern {'c_fc': 2}, which is not supported"),
        (dict(trainable_token_indices=[3]), r"trainable_token_indices \[3\] is not supported"),
        (dict(trainable_token_indices={"wte": [298, 299]}), "it lacks transformer.wte.token_adapt"),
        (dict(trainable_token_indices={"wte": [2**70]}), "is not supported, only the last ids"),
        (dict(task_type="SEQ_2_SEQ_LM"), "task_type 'SEQ_2_SEQ_LM' is not supported"),
        (dict(use_dora="yes"), "use_dora is true or false, not 'yes'"),
        (dict(use_dora=True), "it lacks transformer.h.0.attn.c_attn.lora_magnitude_vector"),
        (dict(r=2**40), r"lora_A.weight is \(4, 16\), not \(1099511627776, 16\)"),
        (dict(r="4"), "rank of an adapter is an integer"),
        (dict(lora_alpha=[1]), "alpha of an adapter is a number"),
        (dict(base_model_name_or_path=3), "names no model in base_model_name_or_path"),
        (dict(base_model_name_or_path="."), "names itself"),
    ],
)
def test_settings_that_are_not_supported_are_named(saved, changes, message, monkeypatch):
    path, _ = saved
    monkeypatch.chdir(path)
    said(path, **changes)
    with pytest.raises(ValueError, match=message):
        gpt.load(path)


def test_damaged_and_pickled_files_are_refused(saved):
    path, _ = saved
    file = path / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged or no .safetensors file"):
        gpt.load(path)
    file.rename(path / "adapter_model.bin")
    with pytest.raises(ValueError, match="adapter_model.bin is a pickled adapter"):
        gpt.load(path)


# =================================================================================================
# PEFT
# =================================================================================================


@pytest.fixture
def peft():
    pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("peft")


def theirs(peft, base, **how):
    """PEFT's model of the base in a folder, with a random adapter of all linear layers."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base)
    how = dict(task_type="CAUSAL_LM", target_modules="all-linear", init_lora_weights=False) | how
    return peft.get_peft_model(model, peft.LoraConfig(**how)).eval()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("dora", [False, True])
def test_peft_reads_ours_and_we_read_theirs(peft, kind, dora, tmp_path):
    from transformers import AutoModelForCausalLM

    base = tmp_path / "base"
    make(kind).save_pretrained(base)
    ours = Adapted(gpt.load(base), base)
    targets = ("c_attn", "mlp.c_proj") if kind == "gpt2" else ("q_proj", "down_proj")
    ours.add_adapter("a", LoraConfig(rank=4, dora=dora, targets=targets))
    shaken(ours).save_pretrained(tmp_path / "ours")
    opened = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), tmp_path / "ours"
    )
    np.testing.assert_allclose(logits_of(opened, IDS), logits(ours), atol=1e-4)
    if not dora:  # transformers itself does not find the magnitudes, in PEFT's own files neither
        opened = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
        np.testing.assert_allclose(logits_of(opened, IDS), logits(ours), atol=1e-4)
    model = theirs(peft, base, r=3, use_dora=dora, use_rslora=True)
    model.save_pretrained(tmp_path / "theirs")
    for load in (gpt.load, Adapted.from_pretrained):
        found = logits(load(tmp_path / "theirs"))
        np.testing.assert_allclose(found, logits_of(model, IDS), atol=2e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_in_peft(peft, kind, tied, tmp_path):
    from transformers import AutoModelForCausalLM

    base, ids = tmp_path / "base", np.random.default_rng(0).integers(80, 99, (3, 20))
    make(kind, tie_word_embeddings=tied).save_pretrained(base)
    ours = Adapted(models.with_config(gpt.load(base), vocab_size=99), base).eval()
    ours.add_adapter("a", LoraConfig(rank=4), new_tokens=2)
    shaken(ours).save_pretrained(tmp_path / "ours")
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(99)
    model.save_pretrained(tmp_path / "grown")
    opened = peft.PeftModel.from_pretrained(model, tmp_path / "ours")
    np.testing.assert_allclose(logits_of(opened, ids), logits(ours, ids), atol=1e-4)
    names = [n for n in ("wte", "embed_tokens", "lm_head") if hasattr(ours.model, n)]
    rows = {name: [97, 98] for name in names}
    model = theirs(peft, tmp_path / "grown", r=3, trainable_token_indices=rows)
    shift = 0.0
    for name, p in model.named_parameters():
        if "tokens_delta" in name:
            p.data += 1.0
            shift += 1
    assert shift == 2 - tied
    model.save_pretrained(tmp_path / "theirs")
    np.testing.assert_allclose(
        logits(gpt.load(tmp_path / "theirs"), ids), logits_of(model, ids), atol=2e-4
    )


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_classifiers_too(peft, kind, tmp_path):
    from transformers import AutoModelForSequenceClassification

    base, labels = tmp_path / "base", ("a", "b", "c")
    make(kind, pad_token_id=0).save_pretrained(base)
    classifier = gpt.Classifier(gpt.load(base), labels)
    ours = Adapted(classifier, base)
    ours.add_adapter("a", LoraConfig(rank=4))
    assert "score.weight" in dict(ours.named_parameters())
    shaken(ours).save_pretrained(tmp_path / "ours")
    ids = np.random.default_rng(1).integers(1, 97, (3, 9))
    lengths = [9] * 3
    expected = ours(ids, lengths).data
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    opened = peft.PeftModel.from_pretrained(model, tmp_path / "ours")
    np.testing.assert_allclose(logits_of(opened, ids), expected, atol=1e-4)
    again = models.load_classifier(tmp_path / "ours")
    np.testing.assert_allclose(again(ids, lengths).data, expected, atol=1e-4)
    assert again.labels == labels
    with pytest.raises(ValueError, match="holds a classifier of texts, not a language model"):
        gpt.load(tmp_path / "ours")
    ours.set_adapter(None)
    assert not ours(ids, lengths).data.any() and ours.model.score is ours.own_head
    # Theirs, on a language model and on a classifier.
    for start in ("base", "theirs"):
        if start == "theirs":  # a classifier whose folder is the base
            base = tmp_path / "whole"
            model = AutoModelForSequenceClassification.from_pretrained(
                tmp_path / "base", num_labels=3
            )
            model.save_pretrained(base)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
        how = dict(task_type="SEQ_CLS", target_modules="all-linear", init_lora_weights=False)
        model = peft.get_peft_model(model, peft.LoraConfig(r=3, **how)).eval()
        model.save_pretrained(tmp_path / start / "adapter")
        found = models.load_classifier(tmp_path / start / "adapter")
        np.testing.assert_allclose(found(ids, lengths).data, logits_of(model, ids), atol=1e-4)
        assert found.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
        with pytest.raises(ValueError, match="holds a classifier of texts"):
            gpt.load(tmp_path / start / "adapter")


@pytest.mark.parametrize("dora", [False, True])
def test_gradients_are_those_of_peft(peft, dora, tmp_path):
    import torch

    make("gpt2").save_pretrained(tmp_path / "base")
    model = theirs(peft, tmp_path / "base", r=4, use_dora=dora)
    model.save_pretrained(tmp_path / "theirs")
    ours = Adapted.from_pretrained(tmp_path / "theirs")
    expected = model(torch.tensor(IDS), labels=torch.tensor(IDS)).loss
    expected.backward()
    loss = ours.loss(IDS[:, :-1], IDS[:, 1:])
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    grads = {n.replace(".default", ""): p.grad for n, p in model.named_parameters()}
    for name, p in ours.named_parameters():
        name = f"base_model.model.transformer.{name}".replace("vector", "vector.weight")
        np.testing.assert_allclose(p.grad.numpy().T, grads[name].numpy(), atol=2e-5, err_msg=name)


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


def test_at_most_2_per_cent_of_a_gpt2_train():
    """GPT-2's sizes, but for fewer and narrower layers in proportion."""
    config = gpt.GPTConfig(50257, 1024, n_layer=2, n_head=12, n_embd=768)
    model = models.make(config, seed=None)
    total = sum(p.size for p in model.parameters())
    for p in model.parameters():
        p.data[...] = 0
    adapted = choose_trainable(model, Tuning(lora=8))
    assert sum(p.size for p in make_optimizer(adapted, Tuning()).params) < 0.02 * total
