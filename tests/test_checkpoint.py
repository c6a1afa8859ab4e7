"""Models on disk: Hugging Face's GPT-2 layout, written whole or not at all, read with suspicion."""

import json
import os
import stat

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import gpt
import tensorlite as tl
from gpt import GPT, GPTConfig, checkpoint

from .test_resume import damaged

CONFIG = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=12)


def make(bias: bool, seed: int = 0) -> GPT:
    """A model with no zeros and no ones that a loader could leave in place unnoticed."""
    model = GPT(GPTConfig(**vars(CONFIG) | {"bias": bias, "dropout": 0.25}))
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        p.data[...] = 0.3 * rng.standard_normal(p.shape)
    return model


def assert_equal(a: GPT, b: GPT) -> None:
    assert a.config == b.config
    other = b.state_dict()
    assert a.state_dict().keys() == other.keys()
    for name, array in a.state_dict().items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def rewrite(folder, change) -> None:
    """Write the tensors of a checkpoint again as `change` makes them."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


@pytest.mark.parametrize("bias", [True, False])
def test_round_trip(bias, tmp_path):
    model = make(bias)
    model.save_pretrained(tmp_path)
    again = GPT.from_pretrained(tmp_path)
    assert_equal(again, model)
    assert_equal(GPT.from_pretrained(str(tmp_path)), model)
    ids = np.arange(8)[None] % 11
    logits = again.eval()(ids)[0].numpy()  # of matrices that lie in memory in another order
    np.testing.assert_allclose(logits, model.eval()(ids)[0].numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_the_file_has_the_names_and_shapes_of_gpt2(bias, tmp_path):
    model = make(bias)
    model.save_pretrained(tmp_path)
    C, V, T = 12, 11, 8
    layer = {
        **{"ln_1.weight": (C,), "ln_1.bias": (C,), "ln_2.weight": (C,), "ln_2.bias": (C,)},
        **{"attn.c_attn.weight": (C, 3 * C), "attn.c_attn.bias": (3 * C,)},
        **{"attn.c_proj.weight": (C, C), "attn.c_proj.bias": (C,)},
        **{"mlp.c_fc.weight": (C, 4 * C), "mlp.c_fc.bias": (4 * C,)},
        **{"mlp.c_proj.weight": (4 * C, C), "mlp.c_proj.bias": (C,)},
    }
    expected = {"wte.weight": (V, C), "wpe.weight": (T, C), "ln_f.weight": (C,), "ln_f.bias": (C,)}
    expected |= {f"h.{i}.{name}": shape for i in range(2) for name, shape in layer.items()}
    stored = load_file(tmp_path / "model.safetensors")
    assert {n: a.shape for n, a in stored.items()} == {
        f"transformer.{n}": shape for n, shape in expected.items()
    }
    assert {a.dtype for a in stored.values()} == {np.dtype(np.float32)}
    if not bias:
        assert not any(a.any() for n, a in stored.items() if n.endswith(".bias"))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "gpt2" and config["architectures"] == ["GPT2LMHeadModel"]
    assert config["activation_function"] == "gelu_new" and config["n_positions"] == 8


def test_other_peoples_files_are_read(tmp_path):
    model = make(True)
    model.save_pretrained(tmp_path)

    def as_published(tensors):  # GPT-2 as OpenAI's checkpoint was converted
        tensors = {name.removeprefix("transformer."): a for name, a in tensors.items()}
        tensors["lm_head.weight"] = tensors["wte.weight"].copy()
        for i in range(2):
            tensors[f"h.{i}.attn.bias"] = np.tri(8, dtype=np.float32)[None, None]
            tensors[f"h.{i}.attn.masked_bias"] = np.array(-1e4, np.float32)
        return tensors

    rewrite(tmp_path, as_published)
    (tmp_path / "config.json").write_text(  # without `bias` and the dropout, which are ours
        json.dumps(
            {
                **{"model_type": "gpt2", "vocab_size": 11, "n_positions": 8, "n_ctx": 8},
                **{"n_layer": 2, "n_head": 2, "n_embd": 12, "resid_pdrop": 0.25},
            }
        )
    )
    assert_equal(GPT.from_pretrained(tmp_path), model)


def test_equal_checkpoints_are_equal_files(tmp_path):
    for i in range(4):  # the order of two keys would come out right by chance
        make(False).save_pretrained(tmp_path / str(i), step=7)
        for name in ("model.safetensors", "config.json"):
            assert (tmp_path / str(i) / name).read_bytes() == (tmp_path / "0" / name).read_bytes()
    assert checkpoint.load_step(tmp_path / "0") == 7


def test_nothing_else_is_left_in_the_folder(tmp_path):
    make(False).save_pretrained(tmp_path / "a" / "b")
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["config.json", "model.safetensors"]


def test_others_may_read_a_checkpoint(tmp_path):
    before = os.umask(0o022)
    try:
        make(False).save_pretrained(tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o644}


def test_non_contiguous_weights_are_stored_by_value(tmp_path):
    model = make(False)
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensors = {"t": array.T, "s": array[:, ::2], "f": np.asfortranarray(array)}
    checkpoint.write_tensors(tmp_path / "a.safetensors", tensors, {})
    for name, stored in load_file(tmp_path / "a.safetensors").items():
        np.testing.assert_array_equal(stored, tensors[name])
    weight = model.h[0].mlp.c_fc.weight
    weight.data = np.asfortranarray(weight.data)
    model.save_pretrained(tmp_path)
    assert_equal(GPT.from_pretrained(tmp_path), model)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    checkpoint.write_tensors(path, {"a": np.zeros(3)}, {})
    before = path.read_bytes()

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.write_tensors(path, {"a": np.ones(3)}, {})
    assert os.listdir(tmp_path) == ["a.safetensors"] and path.read_bytes() == before


# ---- what cannot be loaded -----------------------------------------------------------------------


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        GPT.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        GPT.from_pretrained(tmp_path)
    make(False).save_pretrained(tmp_path)
    assert checkpoint.load_step(tmp_path) == 0
    (tmp_path / "model.safetensors").unlink()
    assert checkpoint.load_step(tmp_path) is None
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_damaged_files(name, tmp_path):
    make(False).save_pretrained(tmp_path)
    for content in damaged((tmp_path / name).read_bytes().rstrip()):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "change, word",
    [
        ({"model_type": "llama"}, "llama"),
        ({"model_type": None}, "None"),
        ({"activation_function": "relu"}, "relu"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon"),
        ({"tie_word_embeddings": False}, "lm_head"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"rotary_pct": 0.25}, "rotary_pct 0.25, which is not supported"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"n_inner": 13}, "n_inner"),
        ({"n_head": 5}, "divisible"),
        ({"n_embd": "12"}, "n_embd"),
        ({"n_layer": 0}, "n_layer"),
        ({"n_layer": 3}, r"h\.2\."),
        ({"n_layer": 1}, r"h\.1\."),
        ({"n_layer": 10**9}, "n_layer|layers"),
        ({"n_positions": 9}, "wpe"),
        ({"vocab_size": 12}, "wte"),
        ({"resid_pdrop": None}, "dropout is a number, .*not None"),
        ({"resid_pdrop": float("nan")}, "dropout"),
    ],
)
def test_other_architectures_and_shapes(change, word, tmp_path):
    make(False).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=word) as caught:
        GPT.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_incomplete_configurations(tmp_path):
    make(False).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    whole = json.loads(path.read_text())
    for key in ("model_type", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
        path.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        with pytest.raises(ValueError, match=key if key != "model_type" else "None"):
            GPT.from_pretrained(tmp_path)


def test_missing_unknown_and_misshapen_tensors(tmp_path):
    name = "transformer.h.1.mlp.c_fc.weight"
    for change, word in (
        (lambda t: {n: a for n, a in t.items() if n != name}, "c_fc"),
        (lambda t: t | {"transformer.h.0.rotary": np.zeros(3)}, "rotary"),
        (lambda t: t | {name: np.zeros((48, 12), np.float32)}, r"\(48, 12\)"),
        (lambda t: {"model.layers.0.q_proj.weight": np.zeros((3, 3))}, "q_proj|layers"),
    ):
        make(False).save_pretrained(tmp_path)
        rewrite(tmp_path, change)
        with pytest.raises(ValueError, match=word):
            GPT.from_pretrained(tmp_path)


def test_biases_that_were_trained_elsewhere_are_kept(tmp_path):
    # Other programs know no `bias`: they train the zeros we write and keep our config.json.
    model = make(True)
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bias": False}))
    assert_equal(GPT.from_pretrained(tmp_path), model)


def set_config(folder, **change) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: v for name, v in config.items() if v is not ...}))


@pytest.mark.parametrize("tied", [True, ...])
def test_an_output_layer_of_its_own_where_the_configuration_says_there_is_none(tied, tmp_path):
    model = make(True)
    model.save_pretrained(tmp_path)
    set_config(tmp_path, tie_word_embeddings=tied)
    head = model.wte.weight.data.copy()
    head[3, 5] += 1e-3
    rewrite(tmp_path, lambda t: t | {"lm_head.weight": head})
    with pytest.raises(ValueError, match=r"lm_head\.weight is another matrix.*is true"):
        GPT.from_pretrained(tmp_path)
    rewrite(tmp_path, lambda t: t | {"lm_head.weight": model.wte.weight.data.copy()})
    assert_equal(GPT.from_pretrained(tmp_path), model)


def test_one_matrix_may_be_stored_under_either_of_its_names(tmp_path):
    model, wte = make(True), "transformer.wte.weight"
    model.save_pretrained(tmp_path)
    rewrite(tmp_path, lambda t: {"lm_head.weight" if n == wte else n: a for n, a in t.items()})
    assert_equal(GPT.from_pretrained(tmp_path), model)
    set_config(tmp_path, tie_word_embeddings=False)  # then they are two, and one is lost
    with pytest.raises(ValueError, match=r"1 tensors are missing: transformer\.wte\.weight"):
        GPT.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    rewrite(tmp_path, lambda t: t | {"wte.weight": t[wte] + 1})
    with pytest.raises(ValueError, match="twice"):
        GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8"])
def test_numbers_of_other_types(dtype, tmp_path):
    model = make(True)
    model.save_pretrained(tmp_path)
    rewrite(tmp_path, lambda t: {n: a.astype(dtype) for n, a in t.items()})
    if dtype == "int8":
        with pytest.raises(ValueError, match="it holds numbers of type I8, not floats"):
            GPT.from_pretrained(tmp_path)
    else:
        for name, array in GPT.from_pretrained(tmp_path).state_dict().items():
            expected = model.state_dict()[name].astype(dtype).astype(np.float32)
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    "name, word",
    [
        ("pytorch_model.bin", "pickled"),
        ("pytorch_model.bin.index.json", "pickled"),
        ("ckpt.pt", "pickled"),
        ("adapter_model.safetensors", "adapter"),
        ("model-q4.gguf", "GGUF"),
        ("tf_model.h5", "TensorFlow"),
    ],
)
def test_checkpoints_in_other_forms_are_called_what_they_are(name, word, tmp_path):
    make(False).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(b"...")
    for _ in range(2):
        with pytest.raises(ValueError, match=word) as caught:
            GPT.from_pretrained(tmp_path)
        assert str(tmp_path / name) in str(caught.value)
        (tmp_path / "config.json").unlink(missing_ok=True)  # nanoGPT writes none


def test_the_ids_that_begin_and_end_texts_are_kept(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"

    def again(generation=None, **change):
        make(True).save_pretrained(a)
        set_config(a, **change)
        if generation:
            (a / "generation_config.json").write_text(json.dumps(generation))
        GPT.from_pretrained(a).save_pretrained(b)
        config = json.loads((b / "config.json").read_text())
        return [config[f"{name}_token_id"] for name in ("bos", "eos", "pad")]

    assert again() == [None, None, None]
    assert again(bos_token_id=9, eos_token_id=10, pad_token_id=0) == [9, 10, 0]
    assert again(eos_token_id=[10, 3]) == [None, [10, 3], None]
    # Where nothing is said, transformers takes GPT-2's, which this vocabulary does not have.
    assert again(bos_token_id=..., eos_token_id=...) == [None, None, None]
    assert again({"eos_token_id": 7}, bos_token_id=9, eos_token_id=10) == [9, 7, None]
    assert not (b / "generation_config.json").exists()  # it says nothing more
    said = {"do_sample": True, "top_k": 3, "eos_token_id": [7, 8]}
    assert again(said) == [None, [7, 8], None]
    assert json.loads((b / "generation_config.json").read_text()) == said
    assert again() == [None, None, None]
    assert not (b / "generation_config.json").exists()  # one of another model would count


# ---- the oracle ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_transformers_computes_the_same(bias, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = make(bias)
    model.save_pretrained(tmp_path)
    theirs, info = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ids = np.random.default_rng(0).integers(0, 11, (3, 8))
    with tl.no_grad():
        ours = model.eval()(ids)[0].numpy()
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
    theirs.save_pretrained(tmp_path / "theirs")
    again = GPT.from_pretrained(tmp_path / "theirs").eval()(ids)[0].numpy()
    np.testing.assert_allclose(again, ours, rtol=0, atol=1e-6)


def of_transformers(dtype="float32", **settings):
    """A GPT-2 of transformers' own making."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = dict(vocab_size=11, n_positions=8, n_embd=12, n_layer=2, n_head=2)
    ends = dict(bos_token_id=9, eos_token_id=10)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **ends, **settings))
    return model.to(getattr(torch, dtype)).eval()


def test_transformers_own_output_layer(tmp_path):
    model = of_transformers(tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    ours = GPT.from_pretrained(tmp_path)
    ours.save_pretrained(tmp_path / "again")
    import torch

    with torch.no_grad():
        expected = model(torch.arange(8)[None]).logits.numpy()
        again = (
            type(model).from_pretrained(tmp_path / "again")(torch.arange(8)[None]).logits.numpy()
        )
    np.testing.assert_allclose(ours(np.arange(8)[None])[0].numpy(), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(again, expected, rtol=0, atol=1e-6)


def test_forms_that_transformers_saves(tmp_path):
    torch = pytest.importorskip("torch")

    for form, size in (("bfloat16", "1GB"), ("float16", "5KB"), ("float32", "5KB")):
        theirs = of_transformers(form)
        theirs.save_pretrained(tmp_path / form, max_shard_size=size)
        assert (size == "5KB") == (tmp_path / form / "model.safetensors.index.json").exists()
        with torch.no_grad():
            expected = theirs.float()(torch.arange(8)[None]).logits.numpy()
        ours = gpt.load(tmp_path / form)(np.arange(8)[None])[0].numpy()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_transformers_stops_where_the_model_does(tmp_path):
    theirs = of_transformers()
    theirs.save_pretrained(tmp_path / "a")
    GPT.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    again = type(theirs).from_pretrained(tmp_path / "b")
    assert (again.config.bos_token_id, again.config.eos_token_id) == (9, 10)
    assert again.generation_config.eos_token_id == 10
    import torch

    with torch.no_grad():  # a model that says the end whatever it is given
        again.transformer.ln_f.weight.zero_()
        again.transformer.wte.weight[10] *= 10
        again.transformer.ln_f.bias.copy_(again.transformer.wte.weight[10])
    ids = again.generate(torch.tensor([[1, 2]]), max_new_tokens=5, do_sample=False)
    assert ids.tolist() == [[1, 2, 10]]
