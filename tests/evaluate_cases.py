"""Small models with their tokenizers, and drawn questions, for the tests of evaluation."""

import json
from pathlib import Path

import numpy as np

import tokenizer
from gpt import GPT, GPTConfig, Llama, LlamaConfig
from gpt.checkpoint import save_tokenizer

WORDS = (
    "the a cat dog sat on mat blue sky over river why does water run down hill Who ate it".split()
)
BLOCK = 48


def make_folder(folder: Path, kind: str = "gpt2", seed: int = 0, block_size: int = BLOCK) -> Path:
    """A model with random weights, whose probabilities are far from even, and its tokenizer."""
    text = " ".join(draw_words(np.random.default_rng(0), 400)) + "\nQuestion: Answer: A. B. C. D.\n"
    tok = tokenizer.BPETokenizer.train(text, 300, special_tokens=["<|endoftext|>"])
    sizes = dict(vocab_size=tok.vocab_size, block_size=block_size, n_layer=2, n_head=2, n_embd=32)
    if kind == "llama":  # with a token that begins every text, and an output of its own
        tok.set_conventions(tok.conventions._replace(prefix_ids=[tok.eos_token_id]))
        model = Llama(LlamaConfig(**sizes, n_kv_head=1, tied=False, eos_token_id=1), seed)
    else:
        model = GPT(GPTConfig(**sizes, eos_token_id=tok.eos_token_id), seed)
    for p in model.parameters():
        if p.ndim > 1:
            p.data *= 8
    for i, token in tok.vocabulary.items():  # bytes that are no text are unlikely
        if not token.isascii():
            model.head.weight.data[i] = 0
    model.save_pretrained(folder)
    save_tokenizer(folder, tok)
    return folder


def draw_words(rng, n: int) -> list[str]:
    return [WORDS[i] for i in rng.integers(0, len(WORDS), n)]


def draw_text(rng, low: int, high: int) -> str:
    return " ".join(draw_words(rng, int(rng.integers(low, high + 1))))


def draw_records(form: str, n: int, seed: int = 0) -> list[dict]:
    """Questions in one of the published forms; some are longer than the context of the models."""
    rng, records = np.random.default_rng(seed), []
    for i in range(n):
        question = draw_text(rng, 3, 12) if i % 5 else draw_text(rng, 50, 60)
        choices = [draw_text(rng, 1, 6) for _ in range(4)]
        choices[1] += " été" if i % 3 == 0 else ""  # more bytes than characters
        answer = int(rng.integers(4))
        if form == "hellaswag":
            ctx_a, ctx_b = f"{question} [title] [step] so.", draw_text(rng, 1, 2)
            record = dict(ind=i, activity_label="Running", ctx_a=ctx_a, ctx_b=ctx_b)
            record |= dict(ctx=f"{ctx_a} {ctx_b}", endings=[f"{c} [sub] now." for c in choices])
            record |= dict(label=str(answer))
        elif form == "arc":
            labels = list("1234" if i % 2 else "ABCD")
            record = dict(question=question + "?", choices=dict(text=choices, label=labels))
            record |= dict(answerKey=labels[answer])
        else:
            record = dict(question=f" {question}\n", choices=choices, answer=answer)
            record |= dict(subject="high_school_biology") if form == "mmlu" else {}
        records.append(record)
    return records


def write_jsonl(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
