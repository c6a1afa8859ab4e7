"""Models and tokenizers as .gguf files: llama.cpp gives our logits and our ids."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from gpt import GPT, GPTConfig, Llama, LlamaConfig
from gpt.checkpoint.gguf import interleaved
from gpt.export import write_file
from tokenizer import BPETokenizer, CharTokenizer
from tokenizer.sentencepiece_bpe import SentencePieceBPE

TEXT = "It's a test: to be, or not to be in 1999?  ÄÖ naïve 東京\n\n  12345 THAT'S it\t\r\n "
TEXT += "<|endoftext|>"
SIZE = 300
TOKENIZER = BPETokenizer.train(TEXT * 3, SIZE, special_tokens=["<|endoftext|>"])
SIZES = dict(vocab_size=SIZE, block_size=64, n_layer=2, n_head=4, n_embd=32)


def opinionated(model):
    """Every parameter drawn, biases and norms too, so that none can be left out unnoticed."""
    # llama.cpp rounds what goes into GELU to float16: with larger weights, that would show.
    rng, large = np.random.default_rng(0), 0.3 if isinstance(model, Llama) else 0.08
    for name, p in model.named_parameters():
        p.data[...] = rng.standard_normal(p.shape) * (large if p.ndim == 2 else 0.1)
        p.data[...] += 1 if "norm" in name or "ln_" in name and "weight" in name else 0
    return model.eval()


DYNAMIC = {"rope_theta": 1e4, "rope_type": "dynamic", "factor": 2.0}
DYNAMIC |= {"original_max_position_embeddings": 32}
ROPES = {
    "default": {"rope_theta": 5000.0},
    "linear": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}
CONFIGS = {
    "gpt2": GPTConfig(**SIZES),
    "gpt2 without biases": GPTConfig(**SIZES, bias=False),
    "gpt2 with a head": GPTConfig(**SIZES, tied=False),
    "llama": LlamaConfig(**SIZES),
    "llama with groups and a head": LlamaConfig(**SIZES, n_kv_head=2, tied=False),
    "llama with biases": LlamaConfig(**SIZES, bias=True, n_kv_head=2),
    "llama with larger heads": LlamaConfig(**SIZES, head_size=16, n_inner=96),
    "mistral": LlamaConfig(**SIZES, family="mistral", n_kv_head=1),
    "qwen2": LlamaConfig(**SIZES, family="qwen2", qkv_bias=True, n_kv_head=2),
    "qwen3": LlamaConfig(**SIZES, family="qwen3", qk_norm=True, n_kv_head=2, head_size=16),
}
for kind, rope in ROPES.items():
    CONFIGS[f"llama, {kind}"] = LlamaConfig(**SIZES, rope_parameters=rope)
for kind in ("linear", "yarn"):
    CONFIGS[f"qwen2, {kind}"] = dataclasses.replace(CONFIGS["qwen2"], rope_parameters=ROPES[kind])
sharper = ROPES["yarn"] | {"attention_factor": 1.3, "beta_fast": 16, "beta_slow": 2}
CONFIGS["llama, yarn with numbers of its own"] = LlamaConfig(**SIZES, rope_parameters=sharper)


def write(path, model, tokenizer=TOKENIZER, dtype="f32"):
    pytest.importorskip("gguf")
    write_file(path, model, tokenizer, dtype)
    return path


def llama_cpp(path):
    """The model in llama.cpp, keys and values in float32."""
    module = pytest.importorskip("llama_cpp")
    settings = dict(n_ctx=64, n_batch=64, logits_all=True, type_k=0, type_v=0, verbose=False)
    return module.Llama(str(path), **settings)


def make(config):
    return opinionated((Llama if isinstance(config, LlamaConfig) else GPT)(config))


@pytest.mark.parametrize("name", CONFIGS)
def test_llama_cpp_computes_our_logits(name, tmp_path):
    model = make(CONFIGS[name])
    theirs = llama_cpp(write(tmp_path / "m.gguf", model))
    ids = np.random.default_rng(1).integers(0, SIZE, 60)
    theirs.eval(ids.tolist())
    ours = model(ids[None])[0].data[0]  # (60, V)
    assert ours.std() > 0.1
    np.testing.assert_allclose(theirs.scores[:60], ours, rtol=0, atol=1e-3)


def test_float16_is_half_the_size_and_nearly_the_same(tmp_path):
    model = make(CONFIGS["llama"])
    path = write(tmp_path / "half.gguf", model, dtype="f16")
    whole = write(tmp_path / "whole.gguf", model)
    fewer = 2 * sum(p.size for p in model.parameters() if p.ndim == 2)
    assert whole.stat().st_size - path.stat().st_size == pytest.approx(fewer, rel=0.01)
    theirs = llama_cpp(path)
    theirs.eval([1, 2, 3])
    np.testing.assert_allclose(theirs.scores[:3], model([[1, 2, 3]])[0].data[0], atol=0.05)


def test_the_context_ends_where_a_window_would_hide_something(tmp_path):
    gguf = pytest.importorskip("gguf")
    config = LlamaConfig(**SIZES, family="mistral", windows=(16, 16))
    reader = gguf.GGUFReader(write(tmp_path / "m.gguf", Llama(config)))
    assert reader.fields["llama.context_length"].contents() == 16


def test_rows_of_queries_are_interleaved():
    rows = np.arange(8)[:, None]  # two heads of four numbers
    assert interleaved(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


# ---- tokenizers ----


def byte_level(pattern, ignore_merges=False, added=None):
    trained = BPETokenizer.train(TEXT * 3, SIZE - 20, "gpt2", ["<|endoftext|>"])
    if not ignore_merges and not added and isinstance(pattern, str):
        return BPETokenizer(trained.merges, pattern, trained.special_tokens)
    more = dict(tokens=dict(trained.tokens), ignore_merges=ignore_merges, added_tokens=added)
    return BPETokenizer(trained.merges, pattern, trained.special_tokens, **more)


def sentencepiece(prefix=True, edit=list, **changes):
    """As transformers makes one of a SentencePiece model: tokens in the order of their scores."""
    words = [f"▁{word}" for word in TEXT.split(" ")] * 2
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    learned = []
    for _ in range(40):
        counts = Counter()
        for word in words:
            pieces = cut(word, learned)
            counts.update(a + b for a, b in zip(pieces, pieces[1:]))
        learned.append(max(sorted(counts), key=counts.get))
    characters = sorted({c for c in "".join(words) if c.isascii() or c == "▁"})
    tokens += [token for token in learned if all(c in characters for c in token)] + characters
    ids = {token: i for i, token in enumerate(tokens)}
    merges = []
    for token in tokens[259:]:
        halves = [(token[:k], token[k:]) for k in range(1, len(token))]
        merges += sorted((ids[a], ids[b]) for a, b in halves if a in ids and b in ids)
    steps = [("replace", " ", "▁")]
    settings = dict(
        unknown="<unk>",
        byte_fallback=True,
        fuse_unknown=True,
        special_tokens={"<unk>": 0, "<s>": 1, "</s>": 2},
        eos_token="</s>",
        normalizer=[("prepend", "▁"), *steps] if prefix else steps,
    )
    return SentencePieceBPE(edit(merges), dict(enumerate(tokens)), **settings | changes)


def cut(word, learned):
    """The pieces that merging by the learned tokens makes of a word, best first."""
    pieces = list(word)
    while True:
        pairs = [a + b for a, b in zip(pieces, pieces[1:])]
        best = min((learned.index(p) for p in pairs if p in learned), default=None)
        if best is None:
            return pieces
        i = pairs.index(learned[best])
        pieces[i : i + 2] = [learned[best]]


DIGITS_FIRST = (r"\p{N}", "gpt2")
TOKENIZERS = {
    "gpt2": byte_level("gpt2"),
    "qwen2": byte_level("qwen2"),
    "smollm": byte_level(DIGITS_FIRST),
    "cl100k": byte_level("cl100k"),
    "cl100k, whole pieces first": byte_level("cl100k", ignore_merges=True),
    "added tokens": byte_level("gpt2", added={"<think>": 281, "to be": 282}),
    "sentencepiece": sentencepiece(),
    "sentencepiece without a space first": sentencepiece(prefix=False),
    "sentencepiece, merged in another order": sentencepiece(edit=lambda merges: merges[::-1]),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_llama_cpp_gives_our_ids(name, tmp_path):
    tokenizer, rng = TOKENIZERS[name], np.random.default_rng(0)
    config = dataclasses.replace(CONFIGS["llama"], vocab_size=tokenizer.vocab_size + 3)
    theirs = llama_cpp(write(tmp_path / "m.gguf", make(config), tokenizer))
    parts = [*TEXT, *TEXT.split(" "), "\n\n", "  ", "to be", "<think>", "e\u0301", "'LL", "123456"]
    texts = [TEXT, *("".join(rng.choice(parts, rng.integers(1, 20))) for _ in range(300))]
    for text in texts:
        ids = theirs.tokenize(text.encode(), add_bos=False, special=False)
        assert ids == tokenizer.encode_ordinary(text), repr(text)
    for token, token_id in tokenizer.special_tokens.items():
        assert theirs.tokenize(token.encode(), add_bos=False, special=True) == [token_id]
    assert theirs.token_eos() == tokenizer.eos_token_id


def test_ids_around_a_text_are_kept(tmp_path):
    tokenizer = sentencepiece()
    names = tokenizer.conventions._replace(bos_token="<s>", prefix_ids=[1])
    tokenizer.set_conventions(names)
    config = dataclasses.replace(CONFIGS["llama"], vocab_size=tokenizer.vocab_size)
    theirs = llama_cpp(write(tmp_path / "m.gguf", make(config), tokenizer))
    assert theirs.tokenize(b"to be") == [1, *tokenizer.encode("to be")]


@pytest.mark.parametrize("eos", [(), -1, (-1,), (7, 8)])
def test_ids_that_mean_none(eos, tmp_path):
    """-1 in older files, and an empty list: the tokenizer's own counts."""
    config = dataclasses.replace(CONFIGS["llama"], eos_token_id=eos, pad_token_id=-1)
    gguf = pytest.importorskip("gguf")
    fields = gguf.GGUFReader(write(tmp_path / "m.gguf", make(config))).fields
    assert "tokenizer.ggml.padding_token_id" not in fields
    ids = fields["tokenizer.ggml.eos_token_id"].contents()
    assert ids == (7 if eos == (7, 8) else TOKENIZER.eos_token_id)


# ---- what is refused, by its name ----


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"rope_parameters": DYNAMIC}, "rope_type 'dynamic'"),
        ({"rope_parameters": ROPES["yarn"] | {"truncate": False}}, "truncate false"),
        ({"rope_parameters": ROPES["llama3"], "family": "qwen2", "qkv_bias": True}, "'llama3'"),
        ({"family": "qwen3", "qk_norm": True, "bias": True, "mlp_bias": False}, "biases in"),
    ],
)
def test_settings_that_llama_cpp_lacks(changes, match, tmp_path):
    model = Llama(LlamaConfig(**SIZES, **changes))
    with pytest.raises(ValueError, match=match):
        write(tmp_path / "m.gguf", model)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tokenizer", "match"),
    [
        (CharTokenizer("abc"), "CharTokenizer has no form in GGUF"),
        (byte_level("o200k"), "pattern 'o200k' has no form in GGUF; llama.cpp has gpt2"),
        (byte_level(None), "pattern 'None'"),
        (byte_level(r"\w+"), "pattern"),
        (sentencepiece(normalizer=[], metaspace=("always", True)), "marks as in"),
        (sentencepiece(edit=lambda merges: merges[:-1]), "merges have no form"),
        (BPETokenizer([(97, 98)], normalizer=["NFKC"]), "NFKC"),
        (BPETokenizer.train(TEXT * 9, SIZE + 9), "309 ids, the model 300"),
    ],
    ids=["characters", "o200k", "none", "own", "metaspace", "fewer merges", "NFKC", "too many"],
)
@pytest.mark.filterwarnings("ignore:the text gives only")
def test_tokenizers_that_llama_cpp_lacks(tokenizer, match, tmp_path):
    config = CONFIGS["llama"]
    if isinstance(tokenizer, SentencePieceBPE):
        config = dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    with pytest.raises(ValueError, match=match):  # also where there is no package gguf
        write_file(tmp_path / "m.gguf", Llama(config), tokenizer, "f32")
