"""The layouts of the modern family: nanochat's, where it says all, or one of our own.

What is read and written are the fields of `ModernConfig` (gpt/models/modern_config.py) as a
dictionary, and arrays by the names of Hugging Face's NanoChatForCausalLM or, in our own layout, by
the model's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from .files import CONFIG, MODEL, write_tensors
from .layout import (
    HARMLESS,
    OURS,
    QUANTIZATION,
    TOKEN_IDS,
    Tensors,
    check_keys,
    model_type,
    read_settings,
    write_settings,
)
from .llama import EMBEDDING, HEAD, read_rope
from .tensors import TensorFiles

NANOCHAT = "nanochat"
SIZES = {  # a field and its key
    "vocab_size": "vocab_size",
    "block_size": "max_position_embeddings",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
    "n_inner": "intermediate_size",
    "norm_eps": "rms_norm_eps",
    "logit_cap": "final_logit_softcapping",
    "tied": "tie_word_embeddings",
    "dropout": "attention_dropout",
}
# What transformers takes where a file does not say it.
ABSENT = {
    "vocab_size": 50304,
    "max_position_embeddings": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "hidden_size": 768,
    "intermediate_size": 8192,
    "rms_norm_eps": 1e-6,
    "final_logit_softcapping": 15.0,
    "tie_word_embeddings": False,
    "attention_dropout": 0.0,
    "hidden_act": "relu2",
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
ACTIVATIONS = {"relu2": True, "gelu_new": False, "gelu_pytorch_tanh": False}
ALWAYS = {"rotary": True, "qk_norm": True, "embedding_norm": True}  # parts of any nanochat


def note_of(classifier: bool) -> str:
    """What is said of a model in our own layout, where people look for how to open it."""
    opens = "gpt.load_classifier" if classifier else "gpt.load"
    return (
        "No published layout says all that there is in this model, so that transformers cannot "
        f"open it: {opens} of tensorlite does."
    )


def is_nanochat(config) -> bool:
    """Whether nanochat's layout says all that a ModernConfig says."""
    return not config.ngrams and all(getattr(config, name) for name in ALWAYS)


def modern_names(config, arrays: dict) -> dict:
    """The parameters of a Modern by their published names, from those by their own.

    In nanochat's layout matrices are (out, in), and those of queries, keys and values are apart:
    views.
    """
    if not is_nanochat(config):
        return arrays
    named, C = {EMBEDDING: arrays["wte.weight"]}, config.n_embd
    if not config.tied:
        named[HEAD] = arrays[HEAD]
    for i in range(config.n_layer):
        ours, theirs = f"h.{i}.", f"model.layers.{i}."
        for j, name in enumerate("qkv"):
            part = arrays[f"{ours}attn.c_attn.weight"][:, j * C : (j + 1) * C]
            named[f"{theirs}self_attn.{name}_proj.weight"] = part.T
        named[f"{theirs}self_attn.o_proj.weight"] = arrays[f"{ours}attn.c_proj.weight"].T
        named[f"{theirs}mlp.fc1.weight"] = arrays[f"{ours}mlp.c_fc.weight"].T
        named[f"{theirs}mlp.fc2.weight"] = arrays[f"{ours}mlp.c_proj.weight"].T
    return named


def write_modern(
    directory: str | Path, config, arrays: dict | None, step: int = 0, more: dict | None = None
) -> None:
    """Write `config.json` and `model.safetensors` in nanochat's layout, or in our own.

    `config` is a ModernConfig, `arrays` the parameters by their published names, or None for
    config.json alone; `step` is the number of updates that made them. What is written into
    config.json as `more`, as in `write_gpt2`, only our own layout says.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if is_nanochat(config) and not more:
        settings = {
            "model_type": NANOCHAT,
            "architectures": ["NanoChatForCausalLM"],
            **{key: getattr(config, name) for name, key in SIZES.items()},
            "num_key_value_heads": config.n_head,
            "hidden_act": "relu2" if config.relu2 else "gelu_new",
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        }
    else:
        fields = dataclasses.asdict(config)
        del fields["generation"]
        more = more or {}
        settings = {"model_type": OURS, "note": note_of("id2label" in more), **fields, **more}
    write_settings(directory, settings, config)
    if arrays is not None:
        write_tensors(directory / MODEL, arrays, {"format": "pt", "step": str(step)})


def read_modern(directory: str | Path) -> tuple[dict, Tensors]:
    """The fields of a ModernConfig, and the tensors, of a folder in one of the two layouts.

    Raises FileNotFoundError when there is none, ValueError for one that is damaged, or says
    something that is not supported.
    """
    fields, path = read_modern_fields(directory), Path(directory)
    tensors = Tensors(TensorFiles(directory), path)
    if model_type(directory) == NANOCHAT:
        tensors.tie(fields["tied"], HEAD, EMBEDDING)
    layers = fields.get("n_layer")
    if type(layers) is int and layers > len(tensors.theirs):  # checked before so many are made
        raise ValueError(f"{path} does not fit its {CONFIG}: it holds no {layers} layers")
    return fields, tensors


def read_modern_fields(directory: str | Path) -> dict:
    """The fields of a ModernConfig in a folder's config.json. Raises as `read_modern` does."""
    path, raw = Path(directory) / CONFIG, read_settings(directory, (NANOCHAT, OURS))
    if raw["model_type"] == OURS:
        others = HARMLESS - {*TOKEN_IDS} | {"note", QUANTIZATION}  # what `more` may be among them
        fields = {key: value for key, value in raw.items() if key not in others}
        if isinstance(fields.get("ngrams"), list):
            fields["ngrams"] = tuple(fields["ngrams"])
        return fields
    only = {"attention_bias": (False,), "hidden_act": tuple(ACTIVATIONS)}
    cap = raw.get("final_logit_softcapping", ABSENT["final_logit_softcapping"])
    only["logits_soft_cap"] = (None, cap)  # its older name, which published folders have besides
    known = {*SIZES.values(), "num_key_value_heads", "rope_parameters"}
    known |= {"rope_theta", "rope_scaling"}
    check_keys(path, raw, known, only)
    raw = ABSENT | raw
    heads = raw.get("num_key_value_heads") or raw["num_attention_heads"]
    if heads != raw["num_attention_heads"]:
        raise ValueError(
            f"{path}: num_key_value_heads {heads} is not supported, only as many as "
            f"num_attention_heads, {raw['num_attention_heads']}"
        )
    rope = read_rope(path, raw, raw["max_position_embeddings"])
    if rope.keys() != {"rope_theta", "rope_type"} or rope["rope_type"] != "default":
        raise ValueError(
            f"{path}: rope_parameters {rope} are not supported, only those of type 'default'"
        )
    return {
        **{name: raw[key] for name, key in SIZES.items()},
        **ALWAYS,
        "relu2": ACTIVATIONS[raw["hidden_act"]],
        "rope_theta": rope["rope_theta"],
        "generation": raw["generation"],
        **{name: raw[name] for name in TOKEN_IDS},
    }
