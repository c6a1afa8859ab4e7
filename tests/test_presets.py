"""Presets: nanoGPT's learn as nanoGPT does, and all fit the flags that are given beside them."""

import dataclasses

import pytest

from gpt.training.presets import parse
from gpt.training.settings import Settings


def resolve(*argv: str) -> Settings:
    return Settings(**parse([*argv, "--device=cpu"])[0])


# Every setting, spelled out: a default that changes must not change what these presets learn.
CHAR = dict(
    dataset="shakespeare",
    encoding="utf-8",
    tokenizer="char",
    separator=None,
    documents="flat",
    vocab_size=None,
    model="gpt2",
    parts=None,
    bias=False,
    block_size=64,
    n_layer=4,
    n_head=4,
    n_kv_head=None,
    n_embd=128,
    dropout=0.0,
    batch_size=12,
    gradient_accumulation_steps=1,
    max_iters=2000,
    learning_rate=1e-3,
    optimizer="adamw",
    muon_lr=0.02,
    muon_momentum=0.95,
    ngram_lr=0.03,
    decay_lr=True,
    schedule="cosine",
    decay_fraction=0.6,
    warmup_iters=100,
    lr_decay_iters=2000,
    min_lr=1e-4,
    weight_decay=0.1,
    beta1=0.9,
    beta2=0.99,
    grad_clip=1.0,
    seed=1337,
    out_dir="out",
    init_from="scratch",
    overwrite=False,
    eval_interval=250,
    eval_iters=20,
    eval_only=False,
    skip_final_eval=False,
    log_interval=1,
    save_interval=None,
    device="cpu",
    dtype="auto",
    compile=True,
    workers="auto",
    recompute=False,
)
BABY = CHAR | dict(
    block_size=256,
    n_layer=6,
    n_head=6,
    n_embd=384,
    dropout=0.2,
    batch_size=64,
    max_iters=5000,
    lr_decay_iters=5000,
    eval_iters=200,
    log_interval=10,
)
GPT2 = CHAR | dict(
    dataset="openwebtext",
    tokenizer=None,
    block_size=1024,
    n_layer=12,
    n_head=12,
    n_embd=768,
    gradient_accumulation_steps=40,
    max_iters=600_000,
    learning_rate=6e-4,
    warmup_iters=2000,
    lr_decay_iters=600_000,
    min_lr=6e-5,
    beta2=0.95,
    eval_interval=1000,
    eval_iters=200,
    log_interval=10,
)
FINETUNE = CHAR | dict(
    tokenizer=None,
    block_size=1024,
    batch_size=1,
    gradient_accumulation_steps=32,
    max_iters=20,
    learning_rate=3e-5,
    decay_lr=False,
    lr_decay_iters=None,
    min_lr=None,
    beta2=0.95,
    out_dir="out-shakespeare",
    eval_interval=5,
    eval_iters=40,
    log_interval=10,
)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("shakespeare-char", CHAR),
        ("baby-gpt", BABY),
        ("train_shakespeare_char", BABY | {"out_dir": "out-shakespeare-char"}),
        ("gpt2", GPT2),
        ("train_gpt2", GPT2),
        ("finetune_shakespeare", FINETUNE),
    ],
)
def test_the_presets_of_nanogpt_learn_as_nanogpt_does(name, settings):
    assert dataclasses.asdict(resolve("--preset", name, "--init_from=scratch")) == settings


@pytest.mark.parametrize(
    "argv, steps",
    [
        ("", 20),  # the demo
        ("--max_iters=100", 20),
        ("--max_iters=25", 5),
        ("--lr_decay_iters=25", 5),
        ("--max_iters=25 --warmup_iters=7", 7),
        ("--max_iters=60 --schedule=cosine", 20),
        ("--preset=speedrun --max_iters=2", 0),
        ("--max_iters=50 --decay_fraction=0.9", 5),
        ("--preset=modern --max_iters=50", 5),
        ("--preset=shakespeare-char --max_iters=50", 100),  # nanoGPT's
    ],
)
def test_the_warm_up_of_a_preset_fits_a_short_run(argv, steps):
    assert resolve(*argv.split()).warmup_iters == steps


def test_the_parts_of_a_preset_are_for_its_own_kind_of_model():
    assert resolve("--preset=speedrun", "--model=llama").parts is None
    assert "ngrams" in resolve("--preset=speedrun", "--model=modern").parts
    with pytest.raises(ValueError, match="--parts is for --model modern: a llama has no choice"):
        resolve("--preset=speedrun", "--model=llama", "--parts=rotary")
