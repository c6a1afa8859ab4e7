"""Folders of published models: older forms, what they leave out, and what is refused by name."""

import copy
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import gpt
from gpt import GPTConfig, Llama, LlamaConfig, checkpoint, models
from tensorlite import nn

from .llama_cases import FULL, KINDS, LLAMAS, WINDOWED, change, logits_of, make, small

OURS = {
    "gpt2": GPTConfig(19, 16, 2, 2, 8, tied=False),
    "llama": LlamaConfig(19, 16, 2, 4, 8, n_kv_head=2, head_size=4, tied=False),
    "mistral": LlamaConfig(19, 16, 2, 4, 8, n_kv_head=2, windows=(3, 3), family="mistral"),
    "qwen2": LlamaConfig(19, 16, 2, 4, 8, n_kv_head=2, qkv_bias=True, windows=(None, 3)),
    "qwen3": LlamaConfig(19, 16, 2, 4, 8, n_kv_head=2, head_size=4, qk_norm=True),
}
HEAVY = {"rope_theta": 1e4, "original_max_position_embeddings": 8}
ROPES = [
    HEAVY | {"rope_type": "dynamic", "factor": 2.0},
    HEAVY | {"rope_type": "yarn", "factor": 2.0, "beta_fast": 4, "truncate": False},
    HEAVY | {"rope_type": "llama3", "factor": 2, "low_freq_factor": 1, "high_freq_factor": 4},
]


def folder_of(kind: str, folder: Path) -> Path:
    models.make(OURS[kind]).save_pretrained(folder)
    return folder


# ---- what a file does not say, and how older ones say it -----------------------------------------


def fields(config) -> dict:
    """What transformers' configuration says, in the fields of ours."""
    kind = config.model_type
    if kind == "gpt2":
        return dict(
            vocab_size=config.vocab_size,
            block_size=config.n_positions,
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_embd=config.n_embd,
            dropout=config.resid_pdrop,
            tied=config.tie_word_embeddings,
            pad_token_id=config.pad_token_id,
        )
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None) or [WINDOWED] * config.num_hidden_layers
    some = [window if t == WINDOWED and kind != "llama" else None for t in types]
    bias = getattr(config, "attention_bias", False)
    return dict(
        family=kind,
        vocab_size=config.vocab_size,
        block_size=config.max_position_embeddings,
        n_layer=config.num_hidden_layers,
        n_head=config.num_attention_heads,
        n_kv_head=config.num_key_value_heads,
        n_embd=config.hidden_size,
        n_inner=config.intermediate_size,
        head_size=getattr(config, "head_dim", config.hidden_size // config.num_attention_heads),
        qkv_bias=bias or kind == "qwen2",
        out_bias=bias,
        mlp_bias=getattr(config, "mlp_bias", False),
        dropout=config.attention_dropout,
        norm_eps=config.rms_norm_eps,
        windows=tuple(some),
        tied=config.tie_word_embeddings,
        rope_parameters=config.rope_parameters,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )


REQUIRED = """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
n_embd n_layer n_head n_positions""".split()
NULL = ["num_key_value_heads", "sliding_window", "bos_token_id", "eos_token_id", "pad_token_id"]
OPTIONAL = """head_dim rms_norm_eps max_position_embeddings rope_parameters attention_bias mlp_bias
use_sliding_window max_window_layers tie_word_embeddings attention_dropout resid_pdrop""".split()


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_file_does_not_say_is_what_transformers_takes(kind, tmp_path):
    """Each key left out, each that may be null set to null, and all that may be left out."""
    transformers = pytest.importorskip("transformers")
    settings = small(kind)
    if kind != "gpt2":
        settings |= dict(num_attention_heads=32, hidden_size=64, num_hidden_layers=30)
        settings |= dict(use_sliding_window=True, sliding_window=7)
    said = transformers.AutoConfig.for_model(kind, **settings).to_dict()
    keys = [key for key in (*REQUIRED, *NULL, *OPTIONAL, "model_type") if key in said]
    whole = {key: said[key] for key in keys}
    cases = [{k: v for k, v in whole.items() if k != key} for key in whole]
    cases += [whole | {key: None} for key in NULL if key in whole]
    if kind == "mistral":  # transformers knows no null there
        cases.remove(whole | {"num_key_value_heads": None})
    kept = {"model_type", "use_sliding_window", *REQUIRED}
    cases += [whole, {k: v for k, v in whole.items() if k in kept}]
    checked = 0
    for case in cases:
        (tmp_path / "config.json").write_text(json.dumps(case))
        missing = [key for key in REQUIRED if key in whole and key not in case]
        if missing or "model_type" not in case:
            with pytest.raises(ValueError, match=missing[0] if missing else "None"):
                models.read_config(tmp_path)
            continue
        ours = vars(models.read_config(tmp_path))
        theirs = fields(transformers.AutoConfig.from_pretrained(tmp_path))
        assert {name: ours[name] for name in theirs} == theirs, case
        checked += 1
    assert checked > (5 if kind == "gpt2" else 8)


@pytest.mark.parametrize("kind", LLAMAS)
@pytest.mark.parametrize(
    "rope",
    [
        None,
        {"type": "linear", "factor": 4.0},
        {"type": "dynamic", "factor": 2.0},
        {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        {"type": "yarn", "factor": 4.0},
        {"type": "default", "rope_type": "linear", "factor": 2.0},
        {"rope_type": "linear", "type": "default", "factor": 2.0},
    ],
)
def test_older_forms(kind, rope, tmp_path):
    """rope_theta and rope_scaling with `type`; no head_dim; no num_key_value_heads, no tie."""
    transformers = pytest.importorskip("transformers")
    heads = 8 if kind == "mistral" else 4  # its default number of heads of keys and values
    model = make(kind, num_attention_heads=heads, num_key_value_heads=heads, head_dim=48 // heads)
    model.save_pretrained(tmp_path)
    left_out = ["rope_parameters", "tie_word_embeddings", "use_cache", "dtype", "layer_types"]
    if kind in ("llama", "mistral"):
        left_out += ["num_key_value_heads"]
    if kind != "qwen3":
        left_out += ["head_dim"]
    change(tmp_path, left_out, rope_theta=500.0, rope_scaling=rope, torch_dtype="float32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    x = np.random.default_rng(0).integers(0, 97, (2, 40))
    ours = gpt.load(tmp_path)
    np.testing.assert_allclose(ours(x)[0].numpy(), logits_of(theirs, x), rtol=0, atol=1e-4)
    assert ours.config.rope_parameters["rope_theta"] == 500


def test_rope_scaling_counts_before_rope_parameters(tmp_path):
    transformers = pytest.importorskip("transformers")
    make("llama").save_pretrained(tmp_path)
    change(tmp_path, rope_scaling={"rope_type": "linear", "factor": 2.0}, rope_theta=77.0)
    said = transformers.AutoConfig.from_pretrained(tmp_path).rope_parameters
    assert models.read_config(tmp_path).rope_parameters == said
    assert said == {"rope_type": "linear", "factor": 2.0, "rope_theta": 77.0}


# ---- refused by name -----------------------------------------------------------------------------

NO_ROPE = dict(rope_scaling=None)
REFUSED = [
    ("llama", dict(attention_multiplier=0.1), "attention_multiplier 0.1, which is not supported"),
    (
        "llama",
        dict(quantization_config={"quant_method": "awq"}),
        "quantised by 'awq', which is not",
    ),
    ("llama", dict(auto_map={"AutoModel": "x.Y"}), "auto_map"),
    ("llama", dict(hidden_act="gelu"), "hidden_act 'gelu' is not supported, only 'silu'"),
    ("llama", dict(partial_rotary_factor=0.5), "partial_rotary_factor 0.5 is not supported"),
    ("llama", dict(sliding_window=3, layer_types=[WINDOWED] * 2), "a llama has 'full_attention'"),
    ("llama", dict(layer_types=[FULL]), "layer_types has .* for each of 2 layers"),
    ("llama", dict(layer_types=["linear_attention"] * 2), "layer_types .*linear_attention"),
    ("llama", dict(tie_word_embeddings="no"), "tie_word_embeddings is true or false, not 'no'"),
    ("llama", dict(num_hidden_layers=10**9), "num_hidden_layers is a positive integer, not 1000"),
    ("llama", dict(num_hidden_layers=5000), "holds no 5000 layers"),
    ("llama", dict(num_hidden_layers=3), r"9 tensors are missing: model\.layers\.2\.input_layer"),
    ("llama", dict(num_hidden_layers=1), r"9 tensors are not the model's: model\.layers\.1\."),
    ("llama", dict(num_attention_heads=3), "3 heads cannot share 2 heads"),
    ("llama", dict(head_dim=3), "head_size is even, for rotary positions, not 3"),
    ("llama", dict(head_dim=8), r"k_proj\.weight is \(8, 8\), not \(16, 8\)"),
    ("llama", dict(hidden_size="8"), "n_embd is a positive integer .*, not '8'"),
    ("llama", dict(hidden_size=-8), "n_embd is a positive integer .*, not -8"),
    ("llama", dict(vocab_size=2**30, hidden_size=2**30), "a model that no memory holds"),
    ("llama", dict(vocab_size=2**31 - 1, hidden_size=2**31 - 1), "a model that no memory holds"),
    ("llama", dict(intermediate_size=10**6), r"\(32, 8\), not \(1000000, 8\)"),
    ("llama", dict(rms_norm_eps=float("nan")), "norm_eps is a number above 0 .*nan"),
    ("llama", dict(attention_dropout=1.0), "dropout is a number, at least 0 and below 1"),
    ("llama", NO_ROPE | dict(rope_parameters=[1]), "rope_parameters are an object"),
    ("llama", dict(eos_token_id="x"), "eos_token_id is a token id, not 'x'"),
    ("llama", dict(eos_token_id=[None]), r"eos_token_id is a token id, not \[None\]"),
    ("mistral", dict(attention_bias=True), "attention_bias True is not supported"),
    ("qwen2", dict(layer_types=[WINDOWED] * 2, use_sliding_window=False), "there is no window"),
    ("mistral", dict(layer_types=[FULL, WINDOWED]), "a mistral has 'sliding_attention' in all"),
    ("mistral", dict(sliding_window="3"), "windows are None or one positive integer"),
    ("qwen2", dict(mlp_bias=True), "mlp_bias True is not supported"),
    ("qwen2", dict(attention_bias=False), "attention_bias False is not supported"),
    ("qwen2", dict(max_window_layers="x"), "max_window_layers is an integer, not 'x'"),
    ("qwen3", dict(num_experts=8), "num_experts 8, which is not supported"),
    ("qwen3", dict(model_type="qwen3_moe"), "model of type 'qwen3_moe'; the types .* 'qwen3'"),
    ("gpt2", dict(n_inner=13), "n_inner 13 is not supported"),
    ("gpt2", dict(n_positions=10**6), r"wpe\.weight is \(16, 8\), not \(1000000, 8\)"),
    ("gpt2", dict(quantization_config={"bits": 8}), "quantised by None, which is not supported"),
]


@pytest.mark.parametrize("kind, changes, message", REFUSED)
def test_settings_are_refused_by_name(kind, changes, message, tmp_path):
    folder_of(kind, tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as error:
        gpt.load(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    "rope, message",
    [
        ({"rope_type": "longrope", "factor": 2.0}, "rope_type is one of .*, not 'longrope'"),
        ({"rope_type": ["yarn"]}, "rope_type is one of"),
        ({"rope_type": "linear"}, "type 'linear' have no factor"),
        ({"rope_type": "linear", "factor": "4"}, "factor is a number above 0, not '4'"),
        ({"rope_type": "dynamic", "factor": float("inf")}, "factor is a number above 0, not inf"),
        ({"rope_type": "linear", "factor": 2.0, "scale": 1}, "have scale, which would be ignored"),
        ({"rope_type": "yarn", "factor": 2.0, "truncate": 1}, "truncate is true or false, not 1"),
        (ROPES[2] | {"low_freq_factor": 4}, "low_freq_factor is not below high_freq_factor"),
        ({FULL: {"rope_type": "default"}}, "have full_attention, which would be ignored"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor is not"),
    ],
)
def test_positions_are_refused_by_name(rope, message, tmp_path):
    folder_of("llama", tmp_path)
    change(tmp_path, rope_scaling=rope)
    with pytest.raises(ValueError, match=message) as error:
        gpt.load(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_sizes_are_compared_before_memory_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(nn.Linear, "arrange", lambda self: pytest.fail("memory was used"))
    for kind, changes in (("llama", {"intermediate_size": 1000}), ("gpt2", {"n_embd": 1000})):
        folder_of(kind, tmp_path)
        change(tmp_path, **changes)
        with pytest.raises(ValueError, match="does not fit its config.json"):
            gpt.load(tmp_path)


def test_tensors_are_named_that_do_not_fit(tmp_path):
    arrays = Llama(OURS["llama"]).published()
    norm, gate = "model.norm.weight", "model.layers.0.mlp.gate_proj.weight"
    cases = [
        (lambda t: t.pop(norm), r"1 tensors are missing: model\.norm\.weight$"),
        (lambda t: t.update({gate: t[gate].T}), r"gate_proj\.weight is \(8, 32\), not \(32, 8\)"),
        (lambda t: t.update({norm: t[norm].astype(np.int32)}), "numbers of type I32, not floats"),
        (
            lambda t: t.update({f"x{i}": t[norm] for i in range(7)}),
            r"7 tensors are not the model's: x0, x1, x2, x3, x4, \.\.\.$",
        ),
        (
            lambda t: t.update({n: a[:1] for n, a in t.items()}),
            r"(\S+ is \(\S+(, \d+)?\), not \([^)]*\); ){4}\S+ is [^;]*; and 16 more$",
        ),
    ]
    for spoil, message in cases:
        tensors = copy.copy(arrays)
        spoil(tensors)
        checkpoint.write_llama(tmp_path, OURS["llama"], tensors)
        with pytest.raises(ValueError, match=message) as error:
            gpt.load(tmp_path)
        assert str(error.value).startswith(f"{tmp_path} does not fit its config.json")


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_header(kind, tmp_path):
    folder_of(kind, tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for content in (b"", whole[:7], whole[:-1], b"\xff" * 8 + whole[8:], whole[:9] + whole[10:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
            gpt.load(tmp_path)


# ---- any value at any place ----------------------------------------------------------------------

VALUES = [None, -1, 0, 1.5, "x", [], {}, 10**12, True, float("nan"), float("inf"), 10**400]


def changed(raw: dict):
    """The configuration with each value, or each in rope_scaling, replaced by each of VALUES."""
    rope = raw.get("rope_scaling") or {}
    for key in rope or raw:
        for value in VALUES:
            yield raw | ({"rope_scaling": rope | {key: value}} if rope else {key: value})


CASES = [(kind, None) for kind in KINDS] + [("llama", rope) for rope in ROPES]


@pytest.mark.parametrize("kind, rope", CASES)
def test_any_value_is_refused_or_gives_a_model(kind, rope, tmp_path):
    """ValueError, or a model that reads, saves and loads again; and no memory for absurd sizes."""
    folder_of(kind, tmp_path)
    path = tmp_path / "config.json"
    if rope:
        change(tmp_path, rope_scaling=rope)
    tracemalloc.start()
    refused, accepted = 0, set()
    for raw in changed(json.loads(path.read_text())):
        path.write_text(json.dumps(raw))
        try:
            model = gpt.load(tmp_path)
        except ValueError:
            refused += 1
            continue
        assert np.isfinite(model([[1, 2, 3]])[0].numpy()).all(), raw
        if repr(model.config) not in accepted:
            model.save_pretrained(tmp_path / "again")
            assert gpt.load(tmp_path / "again").config == model.config, raw
        accepted.add(repr(model.config))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused > 20 and len(accepted) > 1 and peak < 20e6
