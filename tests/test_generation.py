"""The properties of generation: what is drawn, how often; no fast way changes anything."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt import GPT, GPTConfig, Llama, LlamaConfig, generate_ids
from gpt.generate import Sampling, Writer, complete, generate, nth_seed, penalise, stream, write
from gpt.generate.context import Context, window_start
from tokenizer import BPETokenizer, CharTokenizer

FAMILIES = {
    "gpt2": {},
    "llama": {"n_kv_head": 2},
    "mistral": {"n_kv_head": 2, "windows": (7, 7), "family": "mistral"},
    "qwen3": {"n_kv_head": 1, "head_size": 8, "qk_norm": True},
}
CHARS = CharTokenizer("\n abcdefgh")


def make(family: str, vocab_size=29, block_size=64, seed=0, scale=0.5, **settings):
    """A small model that prefers some ids by far: its weights are random and large.

    (Norms of random signs keep GPT-2, whose output projection is the token embedding, from saying
    the same id for ever.)
    """
    shape = dict(vocab_size=vocab_size, block_size=block_size, n_layer=2, n_head=4, n_embd=24)
    if family == "gpt2":
        model = GPT(GPTConfig(**shape, **settings))
    else:
        model = Llama(LlamaConfig(**shape, **FAMILIES[family], tied=False, **settings))
    rng = np.random.default_rng(seed)
    for name, p in model.named_parameters():
        norm = p.ndim == 1 and name.endswith("weight")
        p.data[...] = (1.0 if norm else scale) * rng.standard_normal(p.shape)
    return model.eval()


def in_transformers(model, folder):
    """The same model in transformers."""
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model.save_pretrained(folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def logits_of(model, ids: list[int]) -> np.ndarray:
    """The logits (V,) for the next id, by the definition."""
    seen = ids[window_start(len(ids), model.config.block_size) :]
    return model(np.array([seen]))[0].numpy()[0, -1]


def greedily(model, ids: list[int], n: int) -> list[int]:
    """The continuation by the definition."""
    ids, begin = list(ids), len(ids)
    for _ in range(n):
        ids.append(int(logits_of(model, ids).argmax()))
    return ids[begin:]


def log_softmax(logits) -> np.ndarray:
    z = np.asarray(logits, np.float64)
    return z - z.max() - np.log(np.exp(z - z.max()).sum())


def assert_frequencies(counts, p) -> None:
    """Pearson's chi-square, five standard deviations above its mean at most."""
    counts, p = np.asarray(counts), np.asarray(p)
    assert not counts[p == 0].any()
    expected = counts.sum() * p[p > 0]
    chi_square, freedom = ((counts[p > 0] - expected) ** 2 / expected).sum(), len(expected) - 1
    assert chi_square <= freedom + 5 * math.sqrt(2 * freedom) + 1e-9, (counts, expected)


# ---- each fast way changes nothing ---------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_that_of_transformers(family, tmp_path):
    torch = pytest.importorskip("torch")
    model = make(family, vocab_size=97, block_size=300, scale=0.3)
    prompt = np.random.default_rng(0).integers(0, 97, (1, 31))
    theirs = (
        in_transformers(model, tmp_path)
        .generate(
            torch.tensor(prompt),
            attention_mask=torch.ones(1, 31, dtype=torch.int64),
            max_new_tokens=200,
            do_sample=False,
            pad_token_id=0,
        )[0, 31:]
        .tolist()
    )
    ours = generate_ids(model, prompt.tolist(), 200, temperature=0)[0]
    assert ours == theirs and len(set(ours)) > 3


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=5)
@given(st.lists(st.integers(0, 28), min_size=1, max_size=20), st.integers(1, 20))
def test_with_the_cache_and_without_it(family, prompt, n):
    """Within the context and beyond it."""
    for block_size in (64, 8):
        model = make(family, block_size=block_size)
        cached = generate_ids(model, [prompt], n, temperature=0)[0]
        assert cached == generate_ids(model, [prompt], n, temperature=0, use_cache=False)[0]
        assert cached == greedily(model, prompt, n)


def test_where_the_window_begins():
    for block_size in (1, 2, 7, 8):
        starts = [window_start(n, block_size) for n in range(50)]
        half = max(1, block_size // 2)
        for n, start in enumerate(starts):
            assert start % half == 0 and 0 <= n - start <= block_size
            assert start == 0 if n <= block_size else n - start > block_size - half - 1
        assert starts == sorted(starts)
    for family in FAMILIES:
        model = make(family, block_size=8)
        ids = generate_ids(model, [[1, 2, 3]], 40, temperature=0)[0]
        assert ids == greedily(model, [1, 2, 3], 40)


def test_dynamic_positions_beyond_the_length_they_were_made_for():
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    rope["original_max_position_embeddings"] = 16
    model = make("llama", block_size=48, rope_parameters=rope)
    assert model.config.cache_size == 16
    ids = generate_ids(model, [[1, 2, 3], [4]], 60, temperature=0)
    assert ids == [greedily(model, [1, 2, 3], 60), greedily(model, [4], 60)]


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_that_are_written_together_are_those_that_are_written_alone(family):
    model, rng = make(family), np.random.default_rng(1)
    how = [
        Sampling(temperature=0),
        Sampling(temperature=1.3, top_k=9),
        Sampling(temperature=1.0, top_p=0.8, repetition_penalty=1.4),
        Sampling(temperature=0.7, min_p=0.05, frequency_penalty=0.3, logit_bias={3: 2.0}),
    ]

    def writers():
        lengths = (1, 50, 17, 2, 31, 8)
        prompts = [np.random.default_rng(n).integers(0, 29, n).tolist() for n in lengths]
        return [
            Writer(prompt, 5 * i + 2, how[i % 4], seed=i, eos=[7], logprobs=True)
            for i, prompt in enumerate(prompts)
        ]

    together, alone = writers(), writers()
    for _ in write(model, together):
        pass
    for writer in alone:
        for _ in write(model, [writer]):
            pass
    assert [w.ids for w in together] == [w.ids for w in alone]
    assert [w.finish for w in together] == [w.finish for w in alone]
    for a, b in zip(together, alone):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
    texts = generate_ids(model, [[1], [2, 3], [4]], 9, 1.0, seed=[5, 6, 7])
    order = rng.permutation(3)
    prompts, seeds = [[1], [2, 3], [4]], [5, 6, 7]
    again = generate_ids(model, [prompts[i] for i in order], 9, 1.0, seed=[seeds[i] for i in order])
    assert again == [texts[i] for i in order]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_a_prompt_read_in_parts_is_read_as_a_whole(family, chunk):
    model, rng = make(family), np.random.default_rng(0)
    texts = [rng.integers(0, 29, n).tolist() for n in (40, 23)]
    parts, whole = (Context(model, 50, chunk=c).read(texts, last=4) for c in (chunk, 2048))
    np.testing.assert_allclose(parts, whole, atol=1e-4)
    for text, row in zip(texts, parts[:, -1]):
        np.testing.assert_allclose(row, logits_of(model, text), atol=1e-4)


# ---- how often an id is drawn --------------------------------------------------------------------


def definition(logits, temperature=1.0, top_k=None, top_p=None, min_p=None) -> np.ndarray:
    """The probabilities (V,), from what each setting is said to do."""
    p = np.exp(log_softmax(np.asarray(logits) / temperature))
    kept = sorted(range(len(p)), key=lambda i: -p[i])[:top_k]
    if top_p is not None:
        total, few = sum(p[i] for i in kept), []
        while sum(p[i] for i in few) < top_p * total:
            few.append(kept[len(few)])
        kept = few
    kept = [i for i in kept if p[i] >= (min_p or 0) * p.max()]
    q = np.zeros(len(p))
    q[kept] = p[kept]
    return q / q.sum()


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 4},
        {"top_p": 0.7},
        {"min_p": 0.2},
        {"temperature": 1.5, "top_k": 8, "top_p": 0.9, "min_p": 0.1},
    ],
)
def test_ids_are_drawn_as_often_as_they_are_likely(filters):
    rng = np.random.default_rng(0)
    logits = 1.5 * rng.standard_normal(12)
    sampling = Sampling(**{"temperature": 1.0} | filters)
    draws = [sampling.draw(logits, u) for u in rng.random(10_000)]
    assert_frequencies(np.bincount(draws, minlength=12), definition(logits, **filters))


def test_the_frequencies_of_other_logits_are_noticed():
    rng = np.random.default_rng(0)
    logits = 1.5 * rng.standard_normal(12)
    draws = [Sampling(temperature=0.9).draw(logits, u) for u in rng.random(10_000)]
    with pytest.raises(AssertionError):
        assert_frequencies(np.bincount(draws, minlength=12), definition(logits))


@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=30).map(lambda x: np.array(x) / 8),
    st.none() | st.integers(1, 40),
    st.none() | st.floats(0.01, 1),
    st.none() | st.floats(0.01, 1),
    st.sampled_from([0.5, 1.0, 1.7]),
)
def test_the_filters_are_their_definitions(logits, top_k, top_p, min_p, temperature):
    ids, p = Sampling(temperature, top_k, top_p, min_p).choices(logits)
    expected = definition(logits, temperature, top_k, top_p, min_p)
    q = np.zeros(len(logits))
    q[ids] = p
    np.testing.assert_allclose(np.sort(q), np.sort(expected), atol=1e-12)  # ties: any of them
    if len(set(logits)) == len(logits):
        np.testing.assert_allclose(q, expected, atol=1e-12)
    assert list(ids) == sorted(ids)


@given(
    st.lists(st.integers(0, 9), max_size=12),
    st.integers(0, 4),
    st.floats(0.5, 2),
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.dictionaries(st.integers(0, 9), st.floats(-5, 5)),
)
def test_bias_and_penalties_are_their_formulas(text, begin, penalty, presence, frequency, bias):
    logits = np.linspace(-3, 3, 10)
    sampling = Sampling(1.0, None, None, None, penalty, presence, frequency, bias)
    expected = []
    for i in range(10):
        x = logits[i] + bias.get(i, 0)
        if i in text:  # Keskar et al., 2019
            x = x / penalty if x > 0 else x * penalty
        count = text[begin:].count(i)  # OpenAI: only what was generated counts
        expected.append(x - count * frequency - (count > 0) * presence)
    np.testing.assert_allclose(sampling.logits(logits, text, begin), expected, atol=1e-12)
    np.testing.assert_array_equal(penalise(logits, text, 1.0), logits)
    np.testing.assert_array_equal(logits, np.linspace(-3, 3, 10))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_logits_that_are_not_finite(value, temperature):
    with pytest.raises(FloatingPointError, match="no token can be drawn"):
        Sampling(temperature).choices(np.full(5, value))


def test_logprobs_are_the_models():
    """Whatever the how make of its probabilities."""
    model = make("llama")
    prompts = [[1, 2, 3], [4]]
    how = dict(temperature=1.5, top_k=20, repetition_penalty=1.5, logit_bias={2: 3.0})
    texts, logprobs = generate_ids(
        model, prompts, 12, **how, eos_token_id=[5, 6, 7, 8], seed=1, return_logprobs=True
    )
    assert {len(text) for text in texts} != {12}  # one has ended: its end token has one more
    for prompt, text, given_ in zip(prompts, texts, logprobs):
        assert len(given_) == len(text) + (len(text) < 12)
        for i, new in enumerate(text):
            expected = log_softmax(logits_of(model, prompt + text[:i]))[new]
            assert given_[i] == pytest.approx(expected, abs=1e-4)
    for c in complete(make("gpt2"), CHARS, ["ab"], 6, 1.0, seed=0, logprobs=True):
        ids = CHARS.encode("ab") + c.ids
        for i, logprob in enumerate(c.logprobs):  # of 29 ids, though ten stand for text
            expected = log_softmax(logits_of(make("gpt2"), ids[: 2 + i]))[c.ids[i]]
            assert logprob == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_that_recomputes_blocks_in_training_uses_the_cache_all_the_same(family):
    model = make(family)
    expected = generate_ids(model, [[1, 2, 3]], 20, temperature=0)
    model.recompute = True
    assert generate_ids(model, [[1, 2, 3]], 20, temperature=0) == expected


# ---- drafts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "mistral"])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_draft_changes_nothing(family, temperature):
    """Within the context of 16 tokens and beyond it."""
    model = make(family, block_size=16)
    small = GPT(GPTConfig(vocab_size=29, block_size=64, n_layer=1, n_head=1, n_embd=8))
    for how in ({}, {"repetition_penalty": 1.3}, {"eos_token_id": [3, 11]}):
        how = how | {"temperature": temperature, "seed": 4}
        expected = generate_ids(model, [[1, 2, 1, 2]], 28, **how)
        for draft in (model, make(family, seed=1), small, "ngrams"):
            assert generate_ids(model, [[1, 2, 1, 2]], 28, **how, draft=draft) == expected


def test_a_draft_where_the_angles_depend_on_the_length_of_the_text():
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    rope["original_max_position_embeddings"] = 16
    model = make("llama", block_size=64, rope_parameters=rope)
    for how in ({"temperature": 0}, {"temperature": 1.0, "seed": 4}):
        expected = generate_ids(model, [[1, 2, 1, 2]], 50, **how)
        for draft in (model, "ngrams"):
            assert generate_ids(model, [[1, 2, 1, 2]], 50, **how, draft=draft) == expected


def test_a_draft_in_the_middle_of_which_the_text_ends():
    model, ends = make("gpt2"), set()
    for seed in range(12):
        how = dict(temperature=1.0, seed=seed, eos_token_id=[3, 11, 12])
        text = generate_ids(model, [[1, 2]], 12, **how)[0]
        for n_guesses in (1, 4, 9):
            writer = Writer([1, 2], 12, Sampling(1.0), seed, [3, 11, 12])
            for _ in write(model, [writer], draft=model, n_guesses=n_guesses):
                pass
            assert writer.new_ids == text and writer.finish == ("eos", "length")[len(text) == 12]
        ends.add(len(text))
    assert len(ends) > 4


def test_with_a_draft_ids_are_drawn_as_often_as_they_are_likely():
    model, draft = (make("gpt2", vocab_size=3, scale=0.2, seed=seed) for seed in (0, 1))
    first = np.exp(log_softmax(logits_of(model, [1])))
    both = [first[i] * np.exp(log_softmax(logits_of(model, [1, i]))) for i in range(3)]
    counts = np.zeros((3, 3))
    for seed in range(400):
        counts[tuple(generate_ids(model, [[1]], 2, 1.0, seed=seed, draft=draft)[0])] += 1
    assert_frequencies(counts.ravel(), np.ravel(both))


def test_a_draft_saves_passes():
    model = make("gpt2")
    writer = Writer([1, 2], 40, Sampling(1.0), seed=0)
    assert sum(1 for _ in write(model, [writer], draft=model, n_guesses=4)) == 8
    assert model.training is False
    other = make("gpt2", seed=1).train()
    generate_ids(model, [[1]], 5, draft=other)
    assert other.training is True


# ---- where a text ends ---------------------------------------------------------------------------


def test_why_a_text_has_ended():
    model = make("gpt2", vocab_size=CHARS.vocab_size)
    whole = generate(model, CHARS, "a", 40, 1.0, seed=3, return_full_text=False)
    assert len(whole) == 40
    (c,) = complete(model, CHARS, ["a"], 40, 1.0, seed=3)
    assert (c.prompt, c.text, c.finish, c.logprobs) == ("a", whole, "length", None)
    stop = whole[5:7]
    (c,) = complete(model, CHARS, ["a"], 40, 1.0, seed=3, stop=[stop])
    assert c.finish == "stop" and c.text == whole[: whole.index(stop)]
    end = CHARS.encode(whole[4])[0]
    (c,) = complete(model, CHARS, ["a"], 40, 1.0, seed=3, stop=[end])
    assert c.finish == "eos" and c.text == whole[: whole.index(whole[4])]
    assert c.ids == CHARS.encode(c.text)
    (c,) = complete(model, CHARS, ["a"], 0)
    assert (c.text, c.ids, c.finish) == ("", [], "length")
    named = make("gpt2", vocab_size=CHARS.vocab_size, eos_token_id=(end,))
    (d,) = complete(named, CHARS, ["a"], 40, 1.0, seed=3)
    assert d.finish == "eos" and d.text == whole[: whole.index(whole[4])]


def test_an_end_token_need_not_stand_for_text():
    """A model may end its texts with an id that the tokenizer has no bytes for."""
    tokenizer = BPETokenizer([], "gpt2", {"<|end|>": 300}, {i: bytes([i]) for i in range(256)})
    model = make("gpt2", vocab_size=301, eos_token_id=280)
    (c,) = complete(model, tokenizer, ["a"], 20, 1.0, seed=0, logit_bias={280: 100.0})
    assert (c.text, c.finish) == ("", "eos")
    (c,) = complete(model, tokenizer, ["a"], 20, 1.0, seed=0, logit_bias={281: 100.0})
    assert 281 not in c.ids and c.finish == "length"


def test_many_prompts_are_continued_as_one_at_a_time():
    model = make("llama", vocab_size=CHARS.vocab_size)
    prompts = ["a", "abcdefgh" * 3, "", "hg", "bad cab"]
    expected = [
        generate(model, CHARS, p, 20, 1.0, seed=nth_seed(9, i), stop=["ab"], return_full_text=False)
        for i, p in enumerate(prompts)
    ]
    assert len({*expected}) == 5
    for batch_size in (1, 2, 8):
        texts = complete(model, CHARS, prompts, 20, 1.0, stop=["ab"], batch_size=batch_size, seed=9)
        assert [c.text for c in texts] == expected
    assert nth_seed(9, 0) == 9 and nth_seed(None, 3) is None
    assert len({nth_seed(s, i) for s in range(20) for i in range(20)}) == 400


def test_pieces_join_to_the_text():
    model = make("qwen3", vocab_size=256)
    for seed in range(3):
        how = dict(temperature=1.0, seed=seed, stop=["zz", "a"])
        pieces = list(stream(model, BPETokenizer([]), "x", 60, draft="ngrams", **how))
        assert "".join(pieces) == generate(model, BPETokenizer([]), "x", 60, **how)[1:]


# ---- what cannot be --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, words",
    [
        ({"prompts": [[1], []]}, "a prompt has at least one id"),
        ({"prompts": [[1, 29]]}, "id 29 is not one of the 29 ids"),
        ({"prompts": [[-1]]}, "id -1 is not one of the 29 ids"),
        ({"eos_token_id": 29}, "id 29 is not one of the 29 ids"),
        ({"eos_token_id": [1, -1]}, "id -1 is not one of the 29 ids"),
        ({"temperature": -1}, "temperature is a number, 0 or more, not -1"),
        ({"top_p": 0.0}, "top_p is above 0 and at most 1, not 0.0"),
        ({"top_p": 1.1}, "top_p is above 0 and at most 1, not 1.1"),
        ({"top_k": 0}, "top_k is at least 1, not 0"),
        ({"min_p": -0.1}, "min_p is above 0 and at most 1, not -0.1"),
        ({"repetition_penalty": 0}, "repetition_penalty is above 0, not 0"),
        ({"presence_penalty": math.inf}, "presence_penalty is a number, not inf"),
        ({"frequency_penalty": math.nan}, "frequency_penalty is a number, not nan"),
        ({"logit_bias": {1: math.nan}}, "logit_bias is numbers"),
        ({"logit_bias": {29: 1.0}}, "logit_bias has id 29; the model knows 0 to 28"),
        ({"max_new_tokens": -1}, "max_new_tokens is at least 0, not -1"),
        ({"seed": [1, 2]}, "there are 2 seeds for 1 prompts"),
        ({"draft": make("gpt2", vocab_size=30)}, "the draft knows 30 ids, the model 29"),
        ({"draft": "ngram"}, "a draft is a model or 'ngrams', not 'ngram'"),
        ({"draft": "ngrams", "prompts": [[1], [2]]}, "a draft helps one text at a time, not 2"),
    ],
)
def test_bad_input_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        generate_ids(make("gpt2"), **{"prompts": [[1]], "max_new_tokens": 3} | change)


def test_ids_are_integers_that_the_model_knows():
    model = make("gpt2", CHARS.vocab_size)
    with pytest.raises(TypeError, match="float"):
        generate_ids(model, [[1.7]], 3)
    with pytest.raises(ValueError, match="id 99 is not one of the 11 ids"):
        generate(model, CHARS, "a", stop=[99, "b"])


def test_prompts_are_several_and_batches_not_empty():
    how = make("gpt2", CHARS.vocab_size), CHARS
    with pytest.raises(TypeError, match="several prompts, not one str"):
        next(complete(*how, "abc"))
    with pytest.raises(ValueError, match="batch_size is at least 1, not -1"):
        next(complete(*how, ["abc"], batch_size=-1))


def test_what_begins_a_text_is_not_put_twice_before_it():
    tokenizer = BPETokenizer([], special_tokens={"<s>": 256, "<|endoftext|>": 257})
    tokenizer.prefix_ids = [256]
    model = make("gpt2", vocab_size=258)
    plain = generate(model, tokenizer, "ab", 5, 0, return_full_text=False)
    begun = generate(model, tokenizer, "<s>ab", 5, 0, return_full_text=False, allowed_special="all")
    assert (
        begun
        == plain
        == generate(
            model,
            BPETokenizer([], special_tokens={"<s>": 256, "<|endoftext|>": 257}),
            "<s>ab",
            5,
            0,
            return_full_text=False,
            allowed_special="all",
        )
    )
