"""Models of 8 and 4 bits a weight: near the float ones, equal to their plain twins, and small."""

import json
import math
import subprocess
import sys
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import tensorlite as tl
import train
from gpt import GPT, GPTConfig, LlamaConfig, ModernConfig, generate_ids, load, quantize
from gpt.checkpoint import read_json, write_json
from gpt.evaluate import full_loss
from gpt.models import dequantize, product
from gpt.models import make as make_model
from gpt.models.few_bits import Int4, quantize_matrix
from tensorlite import threads as in_threads
from tokenizer import CharTokenizer

FORMS = [(8, None), (4, 32), (4, 64)]
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SIZES = dict(vocab_size=67, block_size=16, n_layer=2, n_head=2, n_embd=48)
CONFIGS = {
    "gpt2": GPTConfig(**SIZES),
    "gpt2 without biases": GPTConfig(**SIZES, bias=False),
    "gpt2 with a head": GPTConfig(**SIZES, tied=False),
    "nanochat": ModernConfig(**SIZES, rotary=True, qk_norm=True, embedding_norm=True),
    "modern": ModernConfig(**SIZES, ngrams=(2,)),
    "llama": LlamaConfig(**SIZES, n_kv_head=1, rope_parameters=ROPE),
    "qwen2": LlamaConfig(**SIZES, family="qwen2", qkv_bias=True, tied=False, rope_parameters=ROPE),
    "qwen3": LlamaConfig(**SIZES, family="qwen3", qk_norm=True, head_size=8, rope_parameters=ROPE),
}


def make(name):
    """A model of which every parameter is drawn, biases and norms too."""
    config, rng = CONFIGS[name], np.random.default_rng(0)
    model = make_model(config)
    for p in model.parameters():
        p.data[...] += rng.standard_normal(p.shape) * 0.2
    return model.eval()


# ---- matrices ----


@pytest.mark.parametrize(("m", "n"), [(5, 64), (3, 33), (1, 1), (7, 100)])
@pytest.mark.parametrize(("bits", "group_size"), FORMS)
def test_a_product_is_that_of_the_plain_twin(bits, group_size, m, n):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((m, n)).astype(np.float32)
    matrix = quantize_matrix(weight, bits, group_size)
    plain = matrix.take(slice(None))
    assert plain.shape == (m, n) and plain.dtype == np.float32
    for rows in (0, 1, 3, 50):
        x = rng.standard_normal((rows, n)).astype(np.float32)
        y = matrix.times(x)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, x @ plain.T, rtol=1e-5, atol=1e-5)
    ids = rng.integers(0, m, (2, 3))
    np.testing.assert_array_equal(matrix.take(ids), plain[ids])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("bits", "group_size"), FORMS)
def test_several_threads_give_the_same(bits, group_size, threads, monkeypatch):
    monkeypatch.setattr(product, "BLOCK", 1000)  # weights: many blocks, and a last shorter one
    monkeypatch.setattr(in_threads, "MANY", 1)
    rng = np.random.default_rng(0)
    matrix = quantize_matrix(rng.standard_normal((101, 64), np.float32), bits, group_size)
    x = rng.standard_normal((2, 64), np.float32)
    with threadpool_limits(threads):
        before = [pool["num_threads"] for pool in threadpool_info()]
        np.testing.assert_allclose(
            matrix.times(x), x @ matrix.take(slice(None)).T, rtol=1e-5, atol=1e-5
        )
        assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_many_callers_at_once(monkeypatch):
    monkeypatch.setattr(product, "BLOCK", 1000)
    monkeypatch.setattr(in_threads, "MANY", 1)
    rng = np.random.default_rng(0)
    matrix = quantize_matrix(rng.standard_normal((101, 64), np.float32), 8, None)
    xs = rng.standard_normal((6, 20, 1, 64)).astype(np.float32)
    answers = [[None] * 20 for _ in xs]

    def call(i):
        answers[i] = [matrix.times(x) for x in xs[i]]

    with threadpool_limits(2):
        callers = [threading.Thread(target=call, args=(i,)) for i in range(len(xs))]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join()
        assert {
            pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"
        } <= {
            1,
            2,
        }
    expected = xs @ matrix.take(slice(None)).T
    np.testing.assert_allclose(np.array(answers), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("where", ["here", "in another thread"])
def test_an_error_in_a_thread_is_raised(where, monkeypatch):
    monkeypatch.setattr(product, "BLOCK", 4)
    monkeypatch.setattr(in_threads, "MANY", 1)
    here = threading.current_thread()

    def unpack(rows, out):
        if (threading.current_thread() is here) == (where == "here"):
            raise RuntimeError("unpack")
        threading.Event().wait(0.001)  # leave a block to the other one
        out[...] = 0

    with threadpool_limits(2):
        before = [pool["num_threads"] for pool in threadpool_info()]
        with pytest.raises(RuntimeError, match="unpack"):
            product.product(np.ones((1, 4), np.float32), (100, 4), unpack)
        assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_8_bits_are_within_half_a_step():
    weight = np.random.default_rng(0).standard_normal((20, 50)).astype(np.float32)
    weight[3] = 0
    matrix = quantize_matrix(weight, 8, None)
    step = np.abs(weight).max(axis=1, keepdims=True) / 127
    assert (np.abs(matrix.take(slice(None)) - weight) <= step * 0.5001).all()
    assert np.abs(matrix.values).max() == 127 and not matrix.values[3].any()


def test_4_bits_lose_less_than_rounding_to_the_largest():
    weight = np.random.default_rng(0).standard_normal((50, 320)).astype(np.float32)
    weight[0] = 0
    lost = {}
    for size in (32, 64):
        back = quantize_matrix(weight, 4, size).take(slice(None))
        lost[size] = np.square(back - weight).mean()
    groups = weight.reshape(50, -1, 32)
    step = np.maximum(np.abs(groups).max(axis=-1, keepdims=True), 1e-9) / 7
    plainly = np.square(np.rint(groups / step) * step - groups).mean()
    assert lost[32] < 0.8 * plainly and lost[32] < lost[64] < 1.3 * lost[32]
    assert not quantize_matrix(weight, 4, 32).take(0).any()


def test_the_bytes_of_4_bits_are_those_that_the_docstring_says():
    matrix = Int4(1, 4, group_size=4)
    matrix.set(slice(0, 1), np.array([[-8, 1, 2, -3]], np.float32))
    assert matrix.scale.tolist() == [[1.0]]
    assert matrix.values.tolist() == [[0 | 10 << 4, 9 | 5 << 4]]


@pytest.mark.parametrize(
    ("weight", "form", "match"),
    [
        (np.ones((2, 2)), (3, None), "8 or 4 bits, not 3"),
        (np.ones((2, 2)), (8, 32), "group_size of 8 bits is None, not 32"),
        (np.ones((2, 2)), (4, 16), "group_size of 4 bits is 32 or 64, not 16"),
        (np.full((2, 2), np.nan), (8, None), "not finite"),
        (np.full((2, 2), 1e30), (4, 32), "above 500,000"),
    ],
)
def test_what_cannot_be_quantised(weight, form, match):
    with pytest.raises(ValueError, match=match):
        quantize_matrix(weight, *form)


# ---- models ----


@pytest.mark.parametrize(("bits", "group_size"), FORMS)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_computes_what_its_plain_twin_does(name, bits, group_size):
    """Logits, the loss, generation with a cache: with the same matrices in float32."""
    model = make(name)
    few = quantize(model, bits, group_size)
    plain = dequantize(few)
    ids = np.random.default_rng(1).integers(0, 67, (2, 10))
    ours, theirs = few(ids, ids), plain(ids, ids)
    np.testing.assert_allclose(ours[0].data, theirs[0].data, atol=2e-5)
    assert few.loss(ids, ids).item() == pytest.approx(theirs[1].item(), rel=1e-5)
    exact = model(ids)[0].data
    far = np.square(ours[0].data - exact).mean() ** 0.5 / exact.std()
    assert 1e-4 < far < (0.06 if bits == 8 else 0.6), far
    prompts, settings = [[1, 2, 3], [4]], dict(max_new_tokens=20, temperature=0)
    assert generate_ids(few, prompts, **settings) == generate_ids(plain, prompts, **settings)
    assert few.num_params() == model.num_params() and few.config == model.config


@pytest.mark.parametrize(("bits", "group_size"), FORMS)
@pytest.mark.parametrize("name", CONFIGS)
def test_saved_and_loaded(name, bits, group_size, tmp_path):
    few = quantize(make(name), bits, group_size)
    few.save_pretrained(tmp_path, step=3)
    again = load(tmp_path)
    assert type(again) is type(few)
    assert again.config == few.config
    assert (again.bits, again.group_size) == (bits, group_size)
    ids = np.arange(10)[None]
    np.testing.assert_array_equal(again(ids)[0].data, few(ids)[0].data)
    for one, other in zip(again.published().values(), few.published().values(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["gpt2", "modern", "llama"])
def test_a_subclass_is_of_its_family(name, tmp_path):
    model = make(name)
    shape = type("Shape", (type(model.config),), {})(**vars(model.config))
    assert type(make_model(shape)) is type(model)
    own = type("Own", (type(model),), {})(model.config)
    few = quantize(own, 8)
    assert type(few) is type(quantize(model, 8))
    type("OwnFew", (type(few),), {})(few.config, 8).save_pretrained(tmp_path)
    assert type(load(tmp_path)) is type(few)


def test_nothing_of_it_can_be_trained(tmp_path, capsys):
    few = quantize(make("gpt2"), 8)
    assert not any(p.requires_grad for p in few.parameters())
    x = tl.tensor(np.ones((1, 48), np.float32), requires_grad=True)
    with pytest.raises(ValueError, match="pass no gradient on"):
        few.h[0].mlp.c_fc(x)
    with pytest.raises(ValueError, match="has 8 bits a weight already"):
        quantize(few, 4)
    with pytest.raises(ValueError, match="on the CPU alone"):
        few.to("cuda")
    assert few.to("cpu") is few
    few.save_pretrained(tmp_path / "few")
    CharTokenizer.train("to be or not").save(tmp_path / "few")
    with pytest.raises(ValueError, match="gpt.load opens it"):
        GPT.from_pretrained(tmp_path / "few")
    (tmp_path / "my.txt").write_text("to be or not to be " * 100)
    init = ["--init_from", str(tmp_path / "few"), "--dataset", str(tmp_path / "my.txt")]
    assert train.main([*init, "--out_dir", str(tmp_path / "out"), "--workers", "1"]) == 2
    assert "have 8 bits, which cannot be trained" in capsys.readouterr().err


def test_ids_outside_the_vocabulary():
    few = quantize(make("gpt2"), 8)
    for ids in ([[67]], [[-1]]):
        with pytest.raises(IndexError, match="outside the vocabulary of 67"):
            few(ids)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quantised by 'gptq', which is not supported"),
        ({"quant_method": "awq"}, "'awq'"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "'bitsandbytes'"),
        ({"quant_method": "fp8"}, "'fp8'"),
        ({"load_in_8bit": True}, "quantised by None"),
        ("int8", "'int8'"),
        ({"quant_method": "tensorlite", "bits": 5}, "8 or 4 bits, not 5"),
        ({"quant_method": "tensorlite", "bits": 4, "group_size": 7}, "32 or 64, not 7"),
        ({"quant_method": "tensorlite", "bits": 4, "group_size": 64}, "does not fit"),
        (None, "numbers of type I8, not floats"),
    ],
)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_other_quantised_folders_are_refused_by_name(name, said, match, tmp_path):
    quantize(make(name), 8).save_pretrained(tmp_path)
    write_json(
        tmp_path / "config.json",
        read_json(tmp_path / "config.json") | {"quantization_config": said},
    )
    with pytest.raises(ValueError, match=match):
        load(tmp_path)


def test_a_trained_model_loses_little(tmp_path):
    """Trained until it predicts: a text of few words, of which perplexity is near 1."""
    text = np.array([i * i % 13 for i in range(600)])
    model = GPT(GPTConfig(vocab_size=13, block_size=8, n_layer=1, n_head=2, n_embd=64))
    optimizer = tl.optim.AdamW(model.parameters(), lr=3e-3)
    rng = np.random.default_rng(0)
    for _ in range(60):
        starts = rng.integers(0, 500, 16)
        x = np.stack([text[i : i + 8] for i in starts])
        y = np.stack([text[i + 1 : i + 9] for i in starts])
        model.loss(x, y).backward()
        optimizer.step()
        optimizer.zero_grad()
    before = full_loss(model, text, 8)
    assert before < 1
    for bits, most in ((8, 0.005), (4, 0.03)):
        few = quantize(model, bits)
        assert math.exp(abs(full_loss(few, text, 8) - before)) - 1 < most
    few.save_pretrained(tmp_path)
    dtypes = header(tmp_path / "model.safetensors")
    assert dtypes["transformer.h.0.mlp.c_proj.weight"] == ("U8", [64, 128])
    assert dtypes["transformer.h.0.mlp.c_proj.weight_scale"] == ("F16", [64, 8])


def header(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + size])
    return {n: (e["dtype"], e["shape"]) for n, e in entries.items() if n != "__metadata__"}


MEASURE = """
import resource, sys, gpt
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = gpt.load(sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_loading_never_holds_float32(tmp_path):
    config = GPTConfig(vocab_size=20_000, block_size=64, n_layer=1, n_head=2, n_embd=1024)
    quantize(GPT(config, seed=0), 8).save_pretrained(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    run = [sys.executable, "-c", MEASURE, str(tmp_path)]
    took = int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert took < 1.3 * size, (took, size)
