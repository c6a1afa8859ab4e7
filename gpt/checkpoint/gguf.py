"""A model as one file in the format of llama.cpp (GGUF): float weights, settings, tokenizer.

Names and settings are those of llama.cpp's convert_hf_to_gguf.py; the package gguf writes the
file. What llama.cpp would compute differently is refused by name.

This file knows settings, arrays and names and no model, as gpt2.py and llama.py do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .files import sync_directory
from .gguf_tokenizer import vocabulary

GPT2 = {  # our names -> llama.cpp's, of the layers and of the rest
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
}
LLAMA = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
LAYER = re.compile(r"(?:transformer\.h|model\.layers)\.(\d+)\.(.*)")
# llama.cpp's architecture of each family; that of mistral is the one of llama.
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}


def write_gguf(
    path: str | Path,
    config,
    arrays: dict[str, np.ndarray],
    tokenizer,
    dtype: str = "f32",
    rope: tuple[np.ndarray, float] | None = None,
) -> None:
    """Write a model as a .gguf file, which appears whole or not at all.

    `config` is a GPTConfig, or a LlamaConfig; `arrays` are the parameters by their published names;
    `dtype` is "f32" or "f16", for matrices. `rope` is for a LlamaConfig: (by what the frequency of
    each pair is divided, what cosines and sines are scaled by), of its rotary positions.

    Raises ValueError for what llama.cpp cannot do, and where the package gguf is missing.
    """
    vocab = vocabulary(tokenizer, config)
    try:
        import gguf
    except ImportError:
        raise ValueError("GGUF needs the package gguf: pip install 'tensorlite[export]'") from None
    path = Path(path)
    family = getattr(config, "family", None)
    architecture = ARCHITECTURES[family] if family else "gpt2"
    temporary = path.with_name(path.name + ".tmp")
    writer = gguf.GGUFWriter(temporary, architecture)
    try:
        if family:
            llama_settings(gguf, writer, config, architecture, *rope)
        else:
            writer.add_head_count(config.n_head)
            writer.add_feed_forward_length(4 * config.n_embd)
            writer.add_layer_norm_eps(1e-5)
            writer.add_context_length(config.block_size)
        writer.add_embedding_length(config.n_embd)
        writer.add_block_count(config.n_layer)
        writer.add_file_type(gguf.LlamaFileType[{"f32": "ALL_F32", "f16": "MOSTLY_F16"}[dtype]])
        vocab.add_to(writer)
        for name, array in converted(config, arrays, architecture):
            half = dtype == "f16" and array.ndim == 2 and name != "position_embd.weight"
            with np.errstate(over="ignore"):
                array = np.ascontiguousarray(array, np.float16 if half else np.float32)
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has numbers that {dtype} does not hold, or no numbers")
            writer.add_tensor(name, array)
        if family and config.rope_parameters.get("rope_type") == "llama3":
            writer.add_tensor("rope_freqs.weight", rope[0].astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def converted(config, arrays: dict[str, np.ndarray], architecture: str) -> Iterator[tuple]:
    """(llama.cpp's name, what it has there) of every array."""
    names = GPT2 if architecture == "gpt2" else LLAMA
    for name, array in arrays.items():
        theirs = their_name(name, names)
        if names is GPT2 and ".c_" in name and array.ndim == 2:
            array = array.T  # (in, out) -> (out, in)
        if architecture == "llama" and theirs.split(".")[-2] in ("attn_q", "attn_k"):
            heads = config.n_head if "attn_q" in theirs else config.n_kv_head
            array = interleaved(array, heads)
        yield theirs, array
        bare = names is GPT2 and not config.bias and (LAYER.match(name) or "ln_f" in name)
        if bare:  # GPT-2 has biases everywhere: zeros mean the same as none
            yield theirs.removesuffix("weight") + "bias", np.zeros(len(array), np.float32)


def their_name(name: str, names: dict[str, str]) -> str:
    """
    >>> their_name("transformer.h.3.attn.c_attn.bias", GPT2)
    'blk.3.attn_qkv.bias'
    """
    layer = LAYER.match(name)
    inner, _, kind = (layer[2] if layer else name).rpartition(".")
    return f"{f'blk.{layer[1]}.' if layer else ''}{names[inner]}.{kind}"


def interleaved(array: np.ndarray, heads: int) -> np.ndarray:
    """The rows of queries or keys as llama.cpp turns them: array (heads x hs, ...) -> the same.

    Rotary positions turn pairs of numbers; here a pair is i and hs / 2 + i, there 2 i and 2 i + 1.
    """
    pairs = array.reshape(heads, 2, -1, *array.shape[1:])  # (heads, 2, hs / 2, ...)
    return pairs.swapaxes(1, 2).reshape(array.shape)


def llama_settings(gguf, writer, config, architecture: str, factors, scale: float) -> None:
    """Write the settings of a LlamaConfig. Raises ValueError for those that llama.cpp lacks."""
    rope = dict(config.rope_parameters)
    kind, factor = rope.get("rope_type", "default"), rope.get("factor", 1.0)
    if kind == "dynamic" or (kind == "llama3" and architecture != "llama"):
        raise ValueError(
            f"rotary positions of rope_type {kind!r} in a model of the family {config.family} "
            "cannot be written as GGUF: llama.cpp does not have them"
        )
    if architecture == "qwen3" and (config.qkv_bias or config.out_bias):
        raise ValueError("a qwen3 with biases in attention cannot be written as GGUF")
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_kv_head)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    writer.add_feed_forward_length(config.n_inner)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    # llama.cpp has no windows for these families; up to the length of one, nothing differs.
    writer.add_context_length(min([config.block_size, *filter(None, config.windows)]))
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(factor)
    if kind == "yarn":
        if not rope.get("truncate", True):
            raise ValueError("yarn with truncate false cannot be written as GGUF")
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(factor)
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(float(rope.get("beta_fast") or 32))
        writer.add_rope_scaling_yarn_beta_slow(float(rope.get("beta_slow") or 1))
        # llama.cpp multiplies by what is usual, which is put into this factor here.
        usual = 1 + 0.1 * float(np.log(factor))
        writer.add_rope_scaling_attn_factors(scale / usual)
