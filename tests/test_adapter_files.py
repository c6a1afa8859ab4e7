"""The files of adapters: PEFT's, in both directions, and what is wrong in them is named."""

import json
import shutil
import warnings

import numpy as np
import pytest

import gpt
from gpt import checkpoint, models
from gpt.generate import generate_ids
from gpt.models import Adapted, LoraConfig
from gpt.training.settings import is_model

from .llama_cases import logits_of, make
from .test_lora import IDS, base_model, logits, shaken

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
    for changes, message in [
        (dict(vocab_size=310), "303 ids, and the one in .*base has 310"),
        (
            dict(vocab_size=299),
            "303 ids, and the one in .*base has 299: the adapter does not",
        ),
        (dict(block_size=16), "24 positions, and the one in .*base has 16"),
    ]:
        base_model(**changes).save_pretrained(tmp_path / "base")
        with pytest.raises(ValueError, match=message):
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
        (dict(lora_alpha=None), "lora_alpha is a number, not None"),
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
