"""Small models of each family, made by transformers with random weights, for the tests of ours."""

import json
import logging
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

KINDS = ["gpt2", "llama", "mistral", "qwen2", "qwen3"]
LLAMAS = KINDS[1:]
WINDOWED, FULL = "sliding_attention", "full_attention"


def small(kind: str, **changes) -> dict:
    """The settings of a model of some thousand weights."""
    if kind == "gpt2":
        sizes = dict(vocab_size=97, n_embd=48, n_layer=2, n_head=4, n_positions=64)
        return sizes | dict(bos_token_id=0, eos_token_id=1) | changes
    sizes = dict(vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=2)
    heads = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=12)
    return sizes | heads | dict(max_position_embeddings=64) | changes


def make(kind: str, **changes):
    """The model of transformers with these settings, random weights, and logits of about 10."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **small(kind, **changes))
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            numbers = torch.randn_like(p)
            p.copy_(0.3 * numbers if p.ndim > 1 else 1 + 0.5 * numbers)
    return model


def logits_of(model, ids) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.tensor(ids)).logits.float().numpy()


def reopened(folder):
    """transformers' model of a folder, all of whose tensors and settings it knows."""
    from transformers import AutoModelForCausalLM

    told = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, attn_implementation="eager"
        )
    finally:
        logger.removeHandler(handler)
    assert not any(info.values()), info
    assert not [line for line in told if "nrecognized" in line or "nexpected k" in line], told
    return model.eval()


def change(folder: Path, remove=(), **values) -> None:
    """Write other values into config.json."""
    path = Path(folder) / "config.json"
    raw = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in raw.items() if key not in remove}))


# ---- settings drawn by hypothesis ----------------------------------------------------------------


@st.composite
def ropes(draw, context: int) -> dict:
    """rope_scaling of each type, with or without what may be left out."""
    kind = draw(st.sampled_from(["default", "linear", "dynamic", "llama3", "yarn", "yarn"]))
    rope = {"rope_type": kind}
    if kind != "default":
        rope["factor"] = draw(st.sampled_from([1.0, 1.5, 2.0, 4.0, 32.0]))
    if kind in ("llama3", "yarn") and (kind == "llama3" or draw(st.booleans())):
        rope["original_max_position_embeddings"] = draw(st.integers(4, context))
    if kind == "llama3":
        rope |= {"low_freq_factor": draw(st.sampled_from([0.5, 1.0])), "high_freq_factor": 4.0}
    if kind == "yarn":
        optional = {
            "attention_factor": st.sampled_from([0.5, 1.3]),
            "beta_fast": st.sampled_from([2.0, 16, 64.0]),
            "beta_slow": st.sampled_from([0.5, 1, 2.0]),
            "mscale": st.sampled_from([0.7, 1.0]),
            "mscale_all_dim": st.sampled_from([0.7, 1.0]),
            "truncate": st.booleans(),
        }
        rope |= draw(st.fixed_dictionaries({}, optional=optional))
    return rope


@st.composite
def configurations(draw, kind: str) -> tuple[dict, int]:
    """Settings of a small model, and how many tokens it reads."""
    layers, context = draw(st.integers(1, 3)), draw(st.integers(8, 40))
    vocabulary, tied = draw(st.integers(5, 60)), draw(st.booleans())
    eos = draw(st.sampled_from([None, 2, [1, 3]]))
    ids = dict(bos_token_id=draw(st.sampled_from([None, 0])), eos_token_id=eos, pad_token_id=4)
    both = dict(vocab_size=vocabulary, tie_word_embeddings=tied) | ids
    if kind == "gpt2":
        heads = draw(st.integers(1, 4))
        sizes = dict(n_layer=layers, n_positions=context, n_head=heads)
        n_embd = heads * draw(st.integers(1, 10))
        return both | sizes | dict(n_embd=n_embd), draw(st.integers(1, context))
    groups, shared = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    heads = groups * shared
    settings = both | dict(
        num_hidden_layers=layers,
        max_position_embeddings=context,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=2 * draw(st.integers(2, 6)),
        hidden_size=heads * draw(st.integers(2, 6)),
        intermediate_size=draw(st.integers(1, 40)),
        rms_norm_eps=draw(st.sampled_from([1e-6, 1e-5, 1e-2])),
        rope_theta=draw(st.sampled_from([10.0, 10000.0, 500000.0])),
        rope_scaling=draw(ropes(context)),
    )
    if kind == "qwen2":  # has no head_dim of its own
        settings["hidden_size"] = heads * settings.pop("head_dim")
    if kind in ("llama", "qwen3"):
        settings["attention_bias"] = draw(st.booleans())
    if kind == "llama":
        settings["mlp_bias"] = draw(st.booleans())
    window = draw(st.sampled_from([None, 1, 3, 7]))
    if kind == "mistral":
        settings["sliding_window"] = window
    if kind in ("qwen2", "qwen3") and window:
        settings |= dict(use_sliding_window=True, sliding_window=window)
        if draw(st.booleans()):
            types = st.lists(st.sampled_from([WINDOWED, FULL]), min_size=layers, max_size=layers)
            settings["layer_types"] = draw(types)
        else:
            settings["max_window_layers"] = draw(st.integers(0, layers))
    rope = settings["rope_scaling"]
    longest = int(context * rope["factor"]) if rope["rope_type"] == "dynamic" else context
    return settings, draw(st.integers(1, min(longest, 100)) | st.just(min(longest, 100)))
