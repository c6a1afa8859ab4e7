"""Beam search against transformers', and against all continuations there are."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpt
from gpt import GPT, GPTConfig, generate_ids
from gpt.generate.beam import beam_search
from gpt.generate.sampling import Sampling
from gpt.models import Llama, LlamaConfig


def opinionated(model, seed: int, scale: float = 0.5):
    """The model with large random weights, so that it prefers some tokens by far."""
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        p.data[...] = scale * rng.standard_normal(p.shape) + (p.ndim == 1)
    return model.eval()


def make(family: str, V: int, seed: int, block_size: int = 64):
    shape = dict(vocab_size=V, block_size=block_size, n_layer=2, n_head=2, n_embd=16)
    if family == "gpt2":
        return opinionated(GPT(GPTConfig(**shape)), seed)
    return opinionated(Llama(LlamaConfig(**shape, n_kv_head=1, tied=False)), seed)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """The same model in transformers."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    folder = tmp_path_factory.mktemp("model")

    def load(model):
        model.save_pretrained(folder)
        return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()

    return load


@given(
    family=st.sampled_from(["gpt2", "llama"]),
    V=st.integers(20, 100),
    seed=st.integers(0, 1000),
    num_beams=st.integers(2, 5),
    length_penalty=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]),
    n_eos=st.integers(0, 3),
    n_prompt=st.integers(1, 10),
    n_new=st.integers(1, 16),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3]),
)
def test_the_ids_are_those_of_transformers(
    theirs, family, V, seed, num_beams, length_penalty, n_eos, n_prompt, n_new, repetition_penalty
):
    import torch

    model, rng = make(family, V, seed), np.random.default_rng(seed)
    prompt = rng.integers(0, V, n_prompt).tolist()
    # Ids that the model says without end tokens, so that they do occur.
    said = beam_search(model, prompt, n_new, num_beams)
    eos = list(dict.fromkeys(said[::-1]))[:n_eos]
    expected = theirs(model).generate(
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
    if (end := next((i for i, new in enumerate(expected) if new in eos), None)) is not None:
        expected = expected[:end]
    sampling = Sampling(repetition_penalty=repetition_penalty)
    found = beam_search(model, prompt, n_new, num_beams, eos, length_penalty, sampling)
    assert found == expected
