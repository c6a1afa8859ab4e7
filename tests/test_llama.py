"""GPT-2 and the Llama family compute what transformers computes, and come back from their files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpt
from gpt import GPT, GPTConfig, Llama, LlamaConfig
from tensorlite.device import RowRandom

torch = pytest.importorskip("torch", reason="the families are compared with transformers")
transformers = pytest.importorskip("transformers")
from .llama_cases import KINDS, LLAMAS, configurations, logits_of, make, reopened  # noqa: E402

transformers.utils.logging.disable_progress_bar()


def ids(*shape, below: int = 97) -> np.ndarray:
    return np.random.default_rng(0).integers(0, below, shape)


def close(ours, theirs, within: float) -> None:
    scale = max(1.0, np.abs(theirs).max() / 10)  # logits are of about 10
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=within * scale)


# ---- logits and files ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers_and_files_come_back(kind, tmp_path_factory):
    @settings(max_examples=14)
    @given(configurations(kind), st.sampled_from([None, 1.5]))
    def same(drawn, penalty):
        changes, length = drawn
        folder = tmp_path_factory.mktemp(kind)
        model = make(kind, **changes)
        model.generation_config.repetition_penalty = penalty
        model.save_pretrained(folder / "theirs")
        x = ids(2, length, below=changes["vocab_size"])
        theirs = logits_of(model, x)

        ours = gpt.load(folder / "theirs")
        assert type(ours) is (GPT if kind == "gpt2" else Llama) and not ours.training
        close(ours(x)[0].numpy(), theirs, 1e-4)
        config, eos = ours.config, changes["eos_token_id"]
        assert config.eos_token_id == (tuple(eos) if isinstance(eos, list) else eos)
        assert config.bos_token_id == changes["bos_token_id"] and config.pad_token_id == 4
        assert config.generation.get("repetition_penalty") == penalty

        ours.save_pretrained(folder / "ours")
        again, back = gpt.load(folder / "ours"), reopened(folder / "ours")
        assert again.config == config
        for name, array in ours.published().items():
            assert array.tobytes() == again.published()[name].tobytes()
        close(logits_of(back, x), theirs, 1e-5)
        assert back.generation_config.repetition_penalty == penalty
        assert back.config.eos_token_id == eos and back.config.tie_word_embeddings == config.tied

    same()


@pytest.mark.parametrize("tied", [True, False])
def test_a_gpt2_without_biases(tied, tmp_path):
    ours = GPT(GPTConfig(97, 16, 2, 4, 48, bias=False, tied=tied)).eval()
    for p in ours.parameters():
        p.data *= 10 if p.ndim == 2 else 2
    ours.save_pretrained(tmp_path)
    x = ids(2, 16)
    close(ours(x)[0].numpy(), logits_of(reopened(tmp_path), x), 1e-4)
    assert gpt.load(tmp_path).config == ours.config


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_two_bytes_and_shards(kind, dtype, tmp_path):
    model = make(kind, tie_word_embeddings=kind == "mistral").to(getattr(torch, dtype))
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    x = ids(2, 20)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ours = gpt.load(tmp_path)
    assert {p.dtype for p in ours.parameters()} == {np.dtype(np.float32)}
    close(ours(x)[0].numpy(), logits_of(theirs, x), 1e-4)


def test_a_model_of_ours_is_saved_as_the_family_that_has_all_of_it(tmp_path):
    kinds = {
        "llama": {},
        "mistral": dict(windows=(3, 3)),
        "qwen2": dict(qkv_bias=True, windows=(None, 3)),
        "qwen3": dict(qk_norm=True, bias=False, windows=(3, None)),
    }
    x = ids(2, 16)
    for kind, changes in kinds.items():
        config = LlamaConfig(97, 16, 2, 4, 48, n_kv_head=2, tied=False, **changes)
        assert config.family == kind
        ours = Llama(config).eval()
        ours.save_pretrained(tmp_path / kind)
        theirs = reopened(tmp_path / kind)
        assert theirs.config.model_type == kind
        assert type(theirs).__name__ == theirs.config.architectures[0]
        close(ours(x)[0].numpy(), logits_of(theirs, x), 1e-4)
        assert gpt.load(tmp_path / kind).config == config


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(windows=(3, None)), "no published family .* windows"),
        (dict(qkv_bias=True, windows=(3, 4)), "windows are None or one positive integer"),
        (dict(windows=(0, 0)), "windows are None or one positive integer"),
        (dict(windows=(3,)), "windows are None or one positive integer"),
        (dict(mlp_bias=True, qk_norm=True), "no published family"),
        (dict(family="qwen3"), r"no published family is like this \(qwen3\)"),
        (dict(n_kv_head=3), "4 heads cannot share 3 heads"),
        (dict(head_size=7), "head_size is even, .*not 7"),
        (dict(norm_eps=0), "norm_eps is a number above 0"),
        (dict(dropout="0.1"), "dropout is a number"),
        (dict(n_head=5), "n_embd must be divisible by n_head"),
        (dict(rope_parameters={"rope_type": "longrope"}), "rope_type is one of .*'longrope'"),
        (dict(rope_parameters={"rope_type": "linear", "rope_theta": 1e4}), "have no factor"),
        (dict(rope_parameters={"rope_theta": 0.5}), "rope_theta is a number above 1, not 0.5"),
    ],
)
def test_shapes_that_no_model_has(changes, message):
    with pytest.raises(ValueError, match=message):
        LlamaConfig(97, 16, 2, **dict(n_head=4, n_embd=48, n_kv_head=2) | changes)


# ---- gradients and training ----------------------------------------------------------------------


def gradients(model) -> dict[str, np.ndarray]:
    """The gradients by the published names: what `published` gives if they were the weights."""
    twin = gpt.models.make(model.config, seed=None)
    for p, q in zip(model.parameters(), twin.parameters()):
        q.data, p.grad = p.grad.data, None
    return twin.published()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_pytorch(kind, tied, tmp_path):
    more = {
        "gpt2": {},
        "llama": dict(mlp_bias=tied, attention_bias=tied),
        "mistral": dict(sliding_window=5),
        "qwen2": dict(use_sliding_window=True, sliding_window=5, max_window_layers=1),
        "qwen3": dict(attention_bias=tied),
    }
    model = make(kind, tie_word_embeddings=tied, **more[kind])
    model.save_pretrained(tmp_path)
    ours, x = gpt.load(tmp_path), ids(3, 17)
    loss = model(torch.tensor(x), labels=torch.tensor(x)).loss
    loss.backward()
    value = ours.loss(x[:, :-1], x[:, 1:])
    assert value.item() == pytest.approx(loss.item(), rel=1e-5)
    value.backward()
    grads = gradients(ours)
    theirs = {name: p.grad.numpy() for name, p in model.named_parameters()}
    assert grads.keys() == theirs.keys()
    for name, grad in theirs.items():
        np.testing.assert_allclose(
            grads[name], grad, rtol=1e-4, atol=1e-4 * np.abs(grad).max(), err_msg=name
        )


OURS = {
    "gpt2": GPTConfig(97, 16, 2, 4, 48, dropout=0.2),
    "llama": LlamaConfig(97, 16, 2, 4, 48, dropout=0.2, n_kv_head=2, bias=True, tied=False),
    "mistral": LlamaConfig(97, 16, 2, 4, 48, dropout=0.2, n_kv_head=2, windows=(3, 3)),
    "qwen2": LlamaConfig(97, 16, 2, 4, 48, dropout=0.2, qkv_bias=True, windows=(None, 3)),
    "qwen3": LlamaConfig(97, 16, 2, 4, 48, dropout=0.2, head_size=8, qk_norm=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_recomputing_and_dropout(kind):
    model, x, y = gpt.models.make(OURS[kind]), ids(3, 16), ids(3, 17)[:, 1:]

    def rng():
        return RowRandom(7, "dropout", rows=range(3))

    model.eval()
    plain = model.loss(x, y).item()
    assert plain == pytest.approx(model(x, y)[1].item(), rel=1e-6)
    assert model.loss(x, y, rng()).item() == plain
    model.train()
    dropped = model.loss(x, y, rng())
    assert dropped.item() != plain and dropped.item() == model.loss(x, y, rng()).item()
    assert dropped.item() == pytest.approx(model(x, y, rng())[1].item(), rel=1e-6)
    dropped.backward()
    expected = gradients(model)
    model.recompute = True
    again = model.loss(x, y, rng())
    again.backward()
    assert again.item() == dropped.item()
    for name, grad in gradients(model).items():
        np.testing.assert_array_equal(grad, expected[name], err_msg=name)


@pytest.mark.parametrize("kind", LLAMAS)
def test_how_many_parameters(kind):
    config = OURS[kind]
    model = gpt.models.make(config)
    theirs = make(
        kind,
        head_dim=config.head_size,
        num_key_value_heads=config.n_kv_head,
        intermediate_size=config.n_inner,
        tie_word_embeddings=config.tied,
        **dict(attention_bias=True, mlp_bias=True) if kind == "llama" else {},
    )
    assert model.num_params() == theirs.num_parameters()
    assert model.num_params(non_embedding=True) == model.num_params()
