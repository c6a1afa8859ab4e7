"""The layouts of the Llama family: the config.json of each model_type, and the tensors' names.

What is read and written are the fields of `LlamaConfig` (gpt/models/config.py) as a dictionary,
and arrays by the names of Hugging Face's LlamaForCausalLM.
"""

from __future__ import annotations

import math
from pathlib import Path

from ..config import LIMIT
from .files import CONFIG, MODEL, write_tensors
from .layout import TOKEN_IDS, Tensors, check_keys, read_settings, write_settings
from .tensors import TensorFiles

CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
SIZES = {  # a size's field and its key
    "vocab_size": "vocab_size",
    "block_size": "max_position_embeddings",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "n_embd": "hidden_size",
    "n_inner": "intermediate_size",
    "norm_eps": "rms_norm_eps",
}
# What transformers takes where a file does not say it. A null in the file is said: no window.
QWEN = {
    "max_position_embeddings": 32768,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
ABSENT = {
    "llama": {"max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2},
    "mistral": {
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "qwen2": QWEN,
    "qwen3": QWEN | {"head_dim": 128},
}
FLAGS = ("attention_bias", "mlp_bias", "tie_word_embeddings", "use_sliding_window")
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
WINDOWED, FULL = "sliding_attention", "full_attention"  # entries of layer_types


def read_llama(directory: str | Path) -> tuple[dict, Tensors]:
    """The fields of a LlamaConfig, and the tensors, of a folder of the Llama family.

    Raises FileNotFoundError when there is none, ValueError for one that is damaged, or says
    something that is not supported.
    """
    fields, path = read_fields(directory), Path(directory)
    tensors = Tensors(TensorFiles(directory), path)
    # Frequencies of rotary positions, which older versions of transformers wrote.
    tensors.drop(*(n for n in list(tensors.theirs) if n.endswith("rotary_emb.inv_freq")))
    tensors.tie(fields["tied"], HEAD, EMBEDDING)
    if fields["n_layer"] > len(tensors.theirs):  # checked before so many layers are made
        raise ValueError(
            f"{path} does not fit its {CONFIG}: it holds no {fields['n_layer']} layers"
        )
    return fields, tensors


def read_fields(directory: str | Path) -> dict:
    """The fields of a LlamaConfig in a folder's config.json. Raises as `read_llama` does."""
    path, raw = Path(directory) / CONFIG, read_settings(directory, CLASSES)
    family = raw["model_type"]
    known = {*SIZES.values(), *FLAGS, "head_dim", "layer_types", "sliding_window"}
    known |= {"rope_theta", "rope_scaling", "rope_parameters", "max_window_layers"}
    only = {"hidden_act": ("silu", "swish"), "partial_rotary_factor": (None, 1.0)}
    if family not in ("llama", "qwen3"):
        only["attention_bias"] = (None, False) if family == "mistral" else (None, True)
    if family != "llama":
        only["mlp_bias"] = (None, False)
    check_keys(path, raw, known, only)
    raw = {"rms_norm_eps": 1e-6} | ABSENT[family] | raw
    for key in FLAGS:
        if raw.setdefault(key, False) not in (None, False, True):
            raise ValueError(f"{path}: {key} is true or false, not {raw[key]!r}")
    if raw.get("num_key_value_heads") is None:
        raw["num_key_value_heads"] = raw.get("num_attention_heads")
    every = bool(raw["attention_bias"])
    if missing := [key for key in SIZES.values() if raw.get(key) is None]:
        raise ValueError(f"{path} is incomplete: {', '.join(missing[:5])} is missing")
    fields = {name: raw[key] for name, key in SIZES.items()}
    context = fields["block_size"]
    if type(context) is not int or not 0 < context < LIMIT:
        raise ValueError(f"{path}: max_position_embeddings is a positive integer, not {context!r}")
    rope = read_rope(path, raw, context)
    factor = rope.get("factor")
    if rope["rope_type"] == "dynamic" and type(factor) in (int, float) and 0 < factor < math.inf:
        # It reads contexts longer than it was trained on.
        fields["block_size"] = int(context * factor)
    return fields | {
        "family": family,
        "head_size": raw.get("head_dim"),
        "dropout": raw.get("attention_dropout") or 0.0,
        "qkv_bias": True if family == "qwen2" else every,
        "out_bias": False if family == "qwen2" else every,
        "mlp_bias": bool(raw["mlp_bias"]),
        "qk_norm": family == "qwen3",
        "windows": read_windows(path, raw, family),
        "tied": bool(raw["tie_word_embeddings"]),
        "rope_parameters": rope,
        "generation": raw["generation"],
        **{name: raw.get(name) for name in TOKEN_IDS},
    }


def read_rope(path: Path, raw: dict, context: int) -> dict:
    """The parameters of rotary positions, under the names that transformers has now."""
    said = raw.get("rope_scaling") or raw.get("rope_parameters") or {}  # as in transformers
    if not isinstance(said, dict):
        raise ValueError(f"{path}: rope_parameters are an object, not {said!r}")
    kind = said.get("type") or "default"  # the older name
    rope = {"rope_theta": raw.get("rope_theta", 10000.0), "rope_type": kind}
    rope |= {key: value for key, value in said.items() if value is not None and key != "type"}
    if rope.pop("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(f"{path}: partial_rotary_factor is not supported, only 1.0")
    if rope["rope_type"] in ("llama3", "yarn", "dynamic"):
        rope.setdefault("original_max_position_embeddings", context)
    if rope["rope_type"] == "dynamic":  # for transformers, the context is what the file gives
        rope["original_max_position_embeddings"] = context
    return rope


def read_windows(path: Path, raw: dict, family: str) -> tuple[int | None, ...]:
    """How far back each layer sees."""
    n, window = raw["num_hidden_layers"], raw.get("sliding_window")
    if type(n) is not int or not 0 < n < 10_000:
        raise ValueError(f"{path}: num_hidden_layers is a positive integer, not {n!r}")
    if family in ("qwen2", "qwen3"):
        window, first = window if raw["use_sliding_window"] else None, raw["max_window_layers"]
        if type(first) is not int:
            raise ValueError(f"{path}: max_window_layers is an integer, not {first!r}")
    else:
        first = 0 if family == "mistral" else n
    expected = [WINDOWED if window is not None and i >= first else FULL for i in range(n)]
    types = expected if raw.get("layer_types") is None else raw["layer_types"]
    if (
        not isinstance(types, list)
        or len(types) != n
        or any(t not in (WINDOWED, FULL) for t in types)
    ):
        raise ValueError(
            f"{path}: layer_types has {WINDOWED!r} or {FULL!r} for each of {n} layers, not "
            f"{str(types)[:100]}"
        )
    if WINDOWED in types and window is None:
        raise ValueError(
            f"{path}: layer_types has {WINDOWED!r}, and there is no window: sliding_window is "
            f"{raw.get('sliding_window')!r}, use_sliding_window {raw['use_sliding_window']!r}"
        )
    if family in ("llama", "mistral") and types != expected:
        raise ValueError(
            f"{path}: a {family} has {expected[0]!r} in all layers here, and its layer_types say "
            "something else"
        )
    return tuple(window if t == WINDOWED else None for t in types)


def write_llama(
    directory: str | Path, config, arrays: dict | None, step: int = 0, more: dict | None = None
) -> None:
    """Write `config.json` and `model.safetensors`, which AutoModelForCausalLM reads.

    `config` is a LlamaConfig, `arrays` the parameters by their published names, or None for
    config.json alone; `step` is the number of updates that made them. `more` is written into
    config.json as in `write_gpt2`.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    rope, windows = dict(config.rope_parameters), config.windows
    context = config.block_size
    if rope["rope_type"] == "dynamic":
        context = rope.pop("original_max_position_embeddings")
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    settings = {
        "model_type": config.family,
        "architectures": [CLASSES[config.family]],
        **{key: getattr(config, name) for name, key in SIZES.items()},
        "max_position_embeddings": context,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "attention_dropout": config.dropout,
        "tie_word_embeddings": config.tied,
        # Older versions of transformers read these two, newer ones rope_parameters.
        "rope_theta": rope["rope_theta"],
        "rope_scaling": None if rope["rope_type"] == "default" else scaling,
        "rope_parameters": rope,
    }
    if config.family in ("llama", "qwen3"):
        settings["attention_bias"] = config.out_bias
    if config.family == "llama":
        settings["mlp_bias"] = config.mlp_bias
    if config.family != "llama":
        settings["sliding_window"] = next(filter(None, windows), None)
        settings["layer_types"] = [WINDOWED if w else FULL for w in windows]
    if config.family in ("qwen2", "qwen3"):
        settings["use_sliding_window"] = any(windows)
    if config.family == "mistral":
        del settings["layer_types"]
    write_settings(directory, settings | (more or {}), config)
    if arrays is not None:
        write_tensors(directory / MODEL, arrays, {"format": "pt", "step": str(step)})
