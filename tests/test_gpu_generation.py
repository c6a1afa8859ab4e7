"""Generation on a GPU: the tokens are those of the CPU, and Python waits for few of them.

On the strict device, whose kernels the emulator executes, or on a GPU where there is one.
"""

import gc
import re
import warnings
import weakref

import numpy as np
import pytest

import gpt.generate.gpu_forward as gpu_forward
import gpt.generate.gpu_step as gpu_step
import tensorlite as tl
from gpt import GPT, GPTConfig, Llama, LlamaConfig, Modern, ModernConfig, generate_ids
from gpt.generate import Grammar, generate, stream
from gpt.generate.context import Context
from gpt.generate.gpu_step import AHEAD
from tests import strict, strict_memory
from tests.gpu import HAS_GPU, cuda, no_gpu  # noqa: F401 - cuda is a fixture
from tokenizer import BPETokenizer, CharTokenizer

SHAPE = dict(vocab_size=29, block_size=16, n_layer=1, n_head=2, n_embd=32)
PROMPTS = [[1, 2, 3], [4, 5]]


@pytest.fixture(autouse=True)
def without_timing(monkeypatch):
    """The first way is taken at once: to execute a step takes long here."""
    if not HAS_GPU:
        monkeypatch.setattr(gpu_step, "milliseconds", lambda step: 1.0)
    monkeypatch.setattr(gpu_step, "_chosen", {})


@pytest.fixture(autouse=True)
def no_warning():
    """Every step is recorded, unless a test says otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def make(kind=GPT, scale=0.5, **settings):
    """A small model on the CPU that prefers some ids by far."""
    configs = {GPT: GPTConfig, Llama: LlamaConfig, Modern: ModernConfig}
    config = configs[kind](**SHAPE | settings)
    model, rng = kind(config), np.random.default_rng(0)
    for name, p in model.named_parameters():
        norm = p.ndim == 1 and name.endswith("weight")
        p.data[...] = (1.0 if norm else scale) * rng.standard_normal(p.shape)
    return model.eval()


def both(write, model):
    """What `write()` gives with the model on the CPU, and on the GPU."""
    on_cpu = write()
    model.to("cuda")
    strict.waits.clear()
    strict.launches.clear()
    return on_cpu, write()


@pytest.mark.parametrize(
    "how",
    [
        dict(temperature=0),
        dict(temperature=1.0),
        dict(temperature=1.5, top_k=5, eos_token_id=7),
        dict(temperature=1.5, top_p=0.9, min_p=0.01, logit_bias={3: 2.0, 18: -3.0}),
    ],
)
def test_tokens_are_those_of_the_cpu(how):
    """Beyond the context too, where the older half of the text is forgotten."""
    model = make(block_size=8)
    on_cpu, on_gpu = both(lambda: generate_ids(model, PROMPTS, 11, seed=3, **how), model)
    assert on_gpu == on_cpu and len({*on_cpu[0], *on_cpu[1]}) > 2
    assert HAS_GPU or strict.launches["graph"]


def test_a_text_alone_beyond_the_context():
    model = make(block_size=8)
    on_cpu, on_gpu = both(lambda: generate_ids(model, [[1, 2]], 15, 1.0, seed=1), model)
    assert on_gpu == on_cpu


@pytest.mark.parametrize("tied", [True, False])
def test_the_models_own_pass_is_recorded_for_many_texts(tied):
    model = make(tied=tied, bias=False)
    prompts = [[i, i + 1] for i in range(9)]
    on_cpu, on_gpu = both(lambda: generate_ids(model, prompts, 8, temperature=0), model)
    assert on_gpu == on_cpu
    assert HAS_GPU or strict.launches["cublasLt"] and not strict.launches["few_rows_head"]


@pytest.mark.parametrize(
    "settings",
    [
        dict(n_kv_head=1, n_inner=24),
        dict(n_kv_head=2, windows=(7,), family="mistral"),
        dict(n_kv_head=1, head_size=16, qk_norm=True, tied=False),
    ],
)
def test_other_families(settings):
    model = make(Llama, **settings)
    on_cpu, on_gpu = both(lambda: generate_ids(model, PROMPTS, 8, seed=1), model)
    assert on_gpu == on_cpu
    assert HAS_GPU or strict.launches["graph"]


def test_the_modern_family():
    parts = dict(rotary=True, qk_norm=True, relu2=True, embedding_norm=True, logit_cap=5.0)
    model = make(Modern, **parts)
    on_cpu, on_gpu = both(lambda: generate_ids(model, PROMPTS, 8, seed=1), model)
    assert on_gpu == on_cpu
    assert HAS_GPU or strict.launches["graph"]


def test_ngrams_are_looked_up_step_by_step():
    model = make(Modern, ngrams=(2, 3), ngram_rows=100, n_embd=16)
    on_cpu = generate_ids(model, PROMPTS, 6, seed=1)
    with pytest.warns(UserWarning, match="a table of n-grams is no part of a recorded step"):
        assert generate_ids(model.to("cuda"), PROMPTS, 6, seed=1) == on_cpu


def test_the_way_that_is_faster_is_taken(monkeypatch):
    times = {}

    def milliseconds(step):
        return times.setdefault(step.fn.__name__, 2.0 if not times else 1.0)

    monkeypatch.setattr(gpu_step, "milliseconds", milliseconds)
    model = make()
    on_cpu, on_gpu = both(lambda: generate_ids(model, PROMPTS, 6, temperature=0), model)
    assert on_gpu == on_cpu and set(times) == {"by_model", "by_few_rows"}
    assert HAS_GPU or strict.launches["cublasLt"] > strict.launches["few_rows_head"]


def test_a_model_of_16_bits():
    model = make(scale=0.2)
    model.to("cuda")
    with tl.autocast("float16"):
        expected = generate_ids(model, PROMPTS, 5, temperature=0)
    for p in model.parameters():
        p.data = p.data.astype(np.float16)
    assert generate_ids(model, PROMPTS, 5, temperature=0) == expected
    assert HAS_GPU or strict.launches["graph"]


def test_log_probabilities():
    model = make()
    (ids, logprobs), (gpu_ids, gpu_logprobs) = both(
        lambda: generate_ids(model, PROMPTS, 6, seed=3, return_logprobs=True), model
    )
    assert ids == gpu_ids
    np.testing.assert_allclose(gpu_logprobs, logprobs, atol=1e-4)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_in_16_bits_the_likeliest_token_is_nearly_the_likeliest(precision):
    model = make(scale=0.2)
    model.to("cuda")
    with tl.autocast(precision):
        texts, logprobs = generate_ids(model, PROMPTS, 10, temperature=0, return_logprobs=True)
        first = Context(model, 10).read(PROMPTS)
    assert first.dtype == np.float32 and (first != first.astype(np.float16)).any()
    model.to("cpu")
    for prompt, new, found in zip(PROMPTS, texts, logprobs):
        logits = model(np.array([prompt + new]))[0].numpy()[0, len(prompt) - 1 : -1]
        z = logits - logits.max(axis=1, keepdims=True)
        z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
        chosen = z[np.arange(len(new)), new]
        np.testing.assert_allclose(found, chosen, atol=0.05)
        assert (chosen >= z.max(axis=1) - 0.05).all()


@pytest.mark.parametrize(
    "kind, parts", [(GPT, {}), (Modern, {"rotary": True}), (Modern, {"logit_cap": 2.0})]
)
def test_products_of_16_bits_give_logits_of_32(kind, parts, monkeypatch):
    """Rounded to 16 bits, many logits would be equal."""
    drawn_from, draw = [], gpu_forward.draw

    def keep_and_draw(logits, *others):
        drawn_from.append(logits)
        draw(logits, *others)

    monkeypatch.setattr(gpu_forward, "draw", keep_and_draw)
    model = make(kind, 0.2, **parts).to("cuda")
    with tl.autocast("float16"):
        generate_ids(model, PROMPTS, 3, temperature=0)
    for logits in (tl.Tensor(array).numpy() for array in drawn_from):
        assert (logits != logits.astype(np.float16)).any()
        assert "logit_cap" not in parts or np.abs(logits).max() < 2


@no_gpu
def test_nothing_waits_for_a_token():
    model, waits = make(block_size=64).to("cuda"), []
    for n in (6, 18):
        strict.waits.clear()
        generate_ids(model, [[1, 2]], n, temperature=0)
        waits.append(len(strict.waits))
    assert waits[1] - waits[0] <= 12 / AHEAD


@no_gpu
def test_a_recording_is_used_again_with_the_weights_as_they_are_then():
    model = make().to("cuda")
    how = dict(temperature=1.0, seed=1)
    with tl.autocast("bfloat16"):
        first = generate_ids(model, PROMPTS, 6, **how)
        strict.waits.clear()
        assert generate_ids(model, PROMPTS, 6, **how) == first
        assert "synchronize" not in {w.kind for w in strict.waits}  # a recording begins with it
        for p in model.parameters():
            p.data[...] = p.data * 0.8
        again = generate_ids(model, PROMPTS, 6, **how)
        anew = make()
        for p in anew.parameters():
            p.data[...] = p.data * np.float32(0.8)
        assert again == generate_ids(anew.to("cuda"), PROMPTS, 6, **how) != first
        strict.waits.clear()
        generate_ids(model, PROMPTS, 4, temperature=0.5)
        assert "synchronize" in {w.kind for w in strict.waits}
    alive, memory = weakref.ref(model), strict_memory.alive()
    gc.collect()
    assert strict_memory.alive() == memory  # no cycle of references keeps what is not used again
    del model
    gc.collect()
    assert alive() is None  # a recording that is kept keeps no model


def test_two_texts_of_a_model_that_are_written_in_turns():
    tokenizer, model = CharTokenizer("\n abcdefghijklmnopqrstuvwxyz."), make()
    model.to("cuda")
    alone = [list(stream(model, tokenizer, p, 5, 1.0, seed=2)) for p in ("ab", "cde")]
    pairs = zip(*(stream(model, tokenizer, p, 5, 1.0, seed=2) for p in ("ab", "cde")), strict=True)
    assert list(pairs) == list(zip(*alone, strict=True))


def test_texts_that_end_early_make_room():
    """When half of the texts have ended, the others go on alone."""
    model, prompts = make(), [[1], [2], [3], [4]]
    texts = generate_ids(model, prompts, 9, temperature=0)
    eos = next(i for i in range(29) if sum(i in text for text in texts) in (2, 3))

    def write():
        return generate_ids(model, prompts, 9, temperature=0, eos_token_id=eos)

    on_cpu, on_gpu = both(write, model)
    assert on_gpu == on_cpu and len({len(text) for text in on_cpu}) > 1


def test_the_longest_of_two_texts_ends_early():
    """What is empty in the cache before the other text is left out then."""
    model, prompts = make(), [[1, 2, 3, 4], [5]]
    long, short = generate_ids(model, prompts, 10, 1.0, seed=4)
    eos = next(i for i in long[2:] if i not in {*long[:2], *short})

    def write():
        return generate_ids(model, prompts, 10, 1.0, seed=4, eos_token_id=eos)

    on_cpu, on_gpu = both(write, model)
    assert on_gpu == on_cpu and 2 <= len(on_cpu[0]) < 10 == len(on_cpu[1])


def test_tokens_that_do_not_continue_a_text_are_drawn_again():
    """With 256 bytes for tokens, most are not the next byte of a character."""
    tokenizer = BPETokenizer(merges=[], special_tokens={})
    model = make(vocab_size=256, scale=0.1)
    on_cpu, on_gpu = both(lambda: generate(model, tokenizer, "ab", 8, 1.5, seed=5), model)
    assert on_gpu == on_cpu


def test_a_text_streams():
    tokenizer, model = CharTokenizer("\n abcdefghijklmnopqrstuvwxyz."), make()
    on_cpu, on_gpu = both(lambda: list(stream(model, tokenizer, "ab", 10, 1.0, seed=2)), model)
    assert "".join(on_gpu) == "".join(on_cpu) and len(on_gpu) == 10
    first = next(stream(model, tokenizer, "ab", 10, 1.0, seed=2))
    assert first == on_gpu[0]  # and the rest of the text is never asked for


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (dict(repetition_penalty=1.5), "a penalty"),
        (dict(presence_penalty=0.5), "a penalty"),
        (dict(constraint=Grammar.regex("[abc]{6}")), "a constraint"),
        (dict(draft="ngrams"), "a draft"),
        (dict(num_beams=2), "a beam search"),
        (dict(use_cache=False), "without a cache"),
    ],
)
def test_what_a_recorded_step_cannot_do_is_said_and_done(how, reason):
    tokenizer, model = CharTokenizer("\n abcdefghijklmnopqrstuvwxyz."), make()
    text = generate(model, tokenizer, "ab", 6, 1.0, seed=2, **how)
    model.to("cuda")
    with pytest.warns(UserWarning, match=reason):
        assert generate(model, tokenizer, "ab", 6, 1.0, seed=2, **how) == text


def test_a_model_that_cannot_be_recorded_goes_on_without(monkeypatch):
    model = make(n_head=1, n_embd=12)  # heads of 12 numbers, for which there is no kernel
    text = generate_ids(model, PROMPTS, 6, temperature=0)
    model.to("cuda")
    with pytest.warns(UserWarning, match=re.escape("this model (attention with heads of 12")):
        assert generate_ids(model, PROMPTS, 6, temperature=0) == text


def test_logits_that_are_not_finite_raise():
    model = make()
    model.wpe.weight.data[6] = np.nan
    model.to("cuda")
    with pytest.raises(FloatingPointError, match="no token can be drawn"):
        generate_ids(model, PROMPTS, 10)
