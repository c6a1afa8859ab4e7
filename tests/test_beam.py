"""Beam search against transformers', and against all continuations that there are."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt import generate_ids
from gpt.generate import generate
from gpt.generate.beam import beam_search
from gpt.generate.sampling import Sampling
from tokenizer import BPETokenizer, CharTokenizer

from .test_generation import in_transformers, logits_of, make


@settings(max_examples=4)
@given(
    family=st.sampled_from(["gpt2", "llama"]),
    V=st.integers(20, 100),
    seed=st.integers(0, 1000),
    num_beams=st.integers(2, 5),
    n_prompt=st.integers(1, 10),
    n_new=st.integers(1, 12),
    n_eos=st.integers(0, 3),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
)
@example("gpt2", 30, 22, 4, 3, 10, 3, 1.0)  # three end tokens are among the likeliest candidates
@example("llama", 30, 4, 2, 3, 10, 3, 1.0)
@example("llama", 30, 47, 2, 3, 10, 3, 1.0)
def test_the_ids_are_those_of_transformers(
    tmp_path_factory, family, V, seed, num_beams, n_prompt, n_new, n_eos, repetition_penalty
):
    torch = pytest.importorskip("torch")
    model, rng = make(family, vocab_size=V, seed=seed), np.random.default_rng(seed)
    theirs = in_transformers(model, tmp_path_factory.mktemp("model"))
    prompt = rng.integers(0, V, n_prompt).tolist()
    sampling = Sampling(repetition_penalty=repetition_penalty)
    # End tokens that are likely soon, and some that the model says later.
    soon = np.argsort(-logits_of(model, prompt))[1:].tolist()
    later = list(dict.fromkeys(beam_search(model, prompt, n_new, 3)[::-1]))
    for length_penalty in (-1.0, 0.0, 0.5, 1.0, 2.0):
        for eos in (soon[:n_eos], later[:n_eos]):
            expected = theirs.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, n_prompt, dtype=torch.int64),
                max_new_tokens=n_new,
                num_beams=num_beams,
                do_sample=False,
                length_penalty=length_penalty,
                early_stopping=False,
                eos_token_id=eos or None,
                pad_token_id=0,
                repetition_penalty=repetition_penalty,
            )[0, n_prompt:].tolist()
            if expected[-1] in eos:
                expected = expected[:-1]
            found = beam_search(model, prompt, n_new, num_beams, eos, length_penalty, sampling)
            assert found == expected, (eos, length_penalty)


def all_texts(V: int, n: int, eos: set[int]):
    """Every continuation of n ids, or of fewer with an end token as the last."""
    for ids in itertools.product(range(V), repeat=n):
        end = next((i for i, new in enumerate(ids) if new in eos), n - 1)
        if all(new == 0 for new in ids[end + 1 :]):  # once each
            yield list(ids[: end + 1])


def log_probability(model, prompt: list[int], ids: list[int]) -> float:
    logits = model(np.array([prompt + ids]))[0].numpy()[0].astype(np.float64)  # (T, V)
    total = 0.0
    for row, new in zip(logits[len(prompt) - 1 :], ids):
        total += row[new] - np.log(np.exp(row - row.max()).sum()) - row.max()
    return total


@given(
    V=st.integers(2, 5),
    n=st.integers(1, 3),
    seed=st.integers(0, 1000),
    length_penalty=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]),
    eos=st.sets(st.integers(0, 1), max_size=2),
)
def test_with_enough_beams_it_is_the_best_text_of_all(V, n, seed, length_penalty, eos):
    model = make("llama", vocab_size=V, seed=seed)
    texts = list(all_texts(V, n, eos))
    scores = [log_probability(model, [1], ids) / len(ids) ** length_penalty for ids in texts]
    best = texts[int(np.argmax(scores))]
    found = beam_search(model, [1], n, V**n, eos, length_penalty)
    assert found == [i for i in best if i not in eos]


def test_a_beam_finds_what_greedy_misses():
    """The likeliest first id need not begin the likeliest text."""
    better = 0
    for seed in range(20):
        model = make("gpt2", vocab_size=12, seed=seed, scale=0.2)
        greedy = generate_ids(model, [[1]], 4, temperature=0)[0]
        beams = generate_ids(model, [[1]], 4, num_beams=4)[0]
        gain = log_probability(model, [1], beams) - log_probability(model, [1], greedy)
        assert gain > -1e-5
        better += gain > 1e-3
    assert better >= 3


def test_of_equal_texts_it_is_the_first():
    model = make("gpt2", vocab_size=7)
    for p in model.parameters():
        p.data[...] = 0
    assert beam_search(model, [3], 4, num_beams=3) == [0, 0, 0, 0]
    assert beam_search(model, [3], 4, num_beams=3, eos=[0], length_penalty=0) == []


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_with_the_cache_it_is_the_same(family):
    """Also beyond the context."""
    for seed in range(3):
        model = make(family, vocab_size=30, block_size=8, seed=seed)
        for prompt in ([1], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]):
            ids = beam_search(model, prompt, 12, 3)
            assert ids == beam_search(model, prompt, 12, 3, use_cache=False) and len(ids) == 12


def test_bias_and_penalties_reach_the_scores():
    model = make("gpt2", vocab_size=20)
    ids = generate_ids(model, [[1, 2]], 8, num_beams=3)[0]
    never = {i: -math.inf for i in range(20) if i % 2}
    assert not any(
        i % 2 for i in generate_ids(model, [[1, 2]], 8, num_beams=3, logit_bias=never)[0]
    )
    once = generate_ids(model, [[1, 2]], 8, num_beams=3, presence_penalty=1000.0)[0]
    assert len(set(once)) == 8 and once != ids
    only = {i: -math.inf for i in range(20) if i != 4}  # fewer candidates than beams
    assert generate_ids(model, [[1, 2]], 5, num_beams=3, logit_bias=only)[0] == [4] * 5


def test_a_text_from_beams():
    tokenizer = CharTokenizer("abcdefgh")
    model = make("gpt2", vocab_size=20)  # eight ids with text, one for unknown, others without
    w = generate(model, tokenizer, "abc", 12, num_beams=3)
    assert len(w) == 15 and w.startswith("abc") and set(w) <= set("abcdefgh")
    assert generate(model, tokenizer, "abc", 12, num_beams=3, return_full_text=False) == w[3:]
    bytewise = BPETokenizer([], special_tokens={"<|endoftext|>": 256})
    text = generate(make("gpt2", vocab_size=257), bytewise, "a", 5, num_beams=2)
    assert text.startswith("a") and len(text) > 1
    for how in ({"stop": ["b"]}, {"draft": "ngrams"}):
        with pytest.raises(ValueError, match="go with num_beams 1"):
            generate(model, tokenizer, "abc", 12, num_beams=3, **how)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"num_beams": 0}, "num_beams is at least 1, not 0"),
        ({"length_penalty": math.inf}, "length_penalty is a finite number, not inf"),
        ({"length_penalty": math.nan}, "length_penalty is a finite number, not nan"),
        ({"max_new_tokens": -1}, "max_new_tokens is at least 0, not -1"),
    ],
)
def test_numbers_out_of_range(change, words):
    change = {"max_new_tokens": 3, "num_beams": 2} | change
    with pytest.raises(ValueError, match=words):
        beam_search(make("gpt2"), [1], **change)


def test_no_new_tokens_and_no_finite_score():
    model = make("gpt2")
    assert beam_search(model, [1], 0, num_beams=3) == []
    never = Sampling(logit_bias=dict.fromkeys(range(29), -math.inf))
    with pytest.raises(FloatingPointError, match="the best score is -inf: no token can be chosen"):
        beam_search(model, [1], 2, num_beams=3, sampling=never)
    model.wte.weight.data[4] = np.nan
    with pytest.raises(FloatingPointError, match="the best score is nan: no token can be chosen"):
        beam_search(model, [1], 2, num_beams=3)
    for how in ({"return_logprobs": True}, {"draft": "ngrams"}):
        with pytest.raises(ValueError, match="go with num_beams 1"):
            generate_ids(model, [[1]], 2, num_beams=3, **how)
