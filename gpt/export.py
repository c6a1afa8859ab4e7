"""A model in another form: in fewer bits, for transformers, or for llama.cpp.

    python -m gpt.export out --format int8 --out out-int8
    python -m gpt.export out --format int4 --out out-int4 --dataset held-out.txt
    python -m gpt.export out-int8 --format huggingface --out out-hf
    python -m gpt.export out --format gguf --out model.gguf

The model is the folder of a run of train.py, or any folder that `gpt.load` opens, or
hf:OWNER/NAME, which is fetched once.

int8, int4   matrices of 8 or 4 bits a weight: a quarter, a seventh of the size. gpt.load and
             sample.py read the folder; transformers cannot. --dataset FILE prints the perplexity
             on a text before and after: give one that the model was not trained on.
huggingface  float32, as transformers reads it: AutoModelForCausalLM, or a classifier of texts,
             AutoModelForSequenceClassification; and AutoTokenizer.
gguf         one file for llama.cpp, with the tokenizer in it (pip install 'tensorlite[export]').
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path

import numpy as np

import tokenizer as tokenizers
from tokenizer.texts import read_text

from . import checkpoint
from .checkpoint.gguf import write_gguf
from .commandline import Parser, run_program
from .evaluate import full_loss
from .model import GPT
from .models import (
    Classifier,
    LlamaConfig,
    Modern,
    Quantized,
    dequantize,
    holds_classifier,
    load,
    load_classifier,
    name_parts,
    quantize,
)
from .models.positions import frequencies

PROGRAM = "gpt.export"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run_program(PROGRAM, lambda: export(parse(sys.argv[1:] if argv is None else argv)))


def parse(argv: list[str]) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("python -m gpt.export", None, __doc__, formatter_class=raw, allow_abbrev=False)
    add = parser.add_argument
    formats = ("int8", "int4", "huggingface", "gguf")
    add(
        "model",
        type=os.path.expanduser,
        metavar="DIR",
        help="the folder of the model, or hf:OWNER/NAME",
    )
    add("--format", choices=formats, required=True, help="what to write")
    add("--out", type=os.path.expanduser, required=True, help="a new folder, or FILE.gguf")
    add("--tokenizer", type=os.path.expanduser, help="a name or path, if DIR holds none")
    add("--dataset", type=os.path.expanduser, metavar="FILE", help="a text, for the perplexity")
    add("--group_size", type=int, choices=(32, 64), help="of int4: weights with one scale (32)")
    add("--dtype", choices=("f32", "f16"), help="of gguf: the type of matrices (f32)")
    options = parser.parse_args(argv)
    few = options.format in ("int8", "int4")
    for name, fits in [
        ("group_size", options.format == "int4"),
        ("dtype", options.format == "gguf"),
        ("dataset", few),
    ]:
        if getattr(options, name) is not None and not fits:
            parser.error(f"--{name} says nothing about --format {options.format}")
    return options


def export(options: argparse.Namespace) -> None:
    """Do what the options say."""
    out = Path(options.out)
    if out.is_dir() and not any(out.iterdir()) and options.format != "gguf":
        out.rmdir()
    if os.path.lexists(out):
        raise ValueError(f"--out {out} exists already: name a new one")
    folder = checkpoint.local_folder(options.model)
    classifies = options.format == "huggingface" and holds_classifier(folder)
    model = load_classifier(folder) if classifies else load(folder)
    refuse_unpublished(model, options.format)
    tokenizer = find_tokenizer(options)
    if options.format in ("int8", "int4"):
        tokens = options.dataset and read_tokens(options.dataset, model, tokenizer)
        made = quantize(model, int(options.format[3:]), options.group_size)
        write_folder(out, made, tokenizer)
        before, after = 4 * model.num_params(), (out / checkpoint.MODEL).stat().st_size
        print(f"weights: {before / 1e6:,.1f} MB in float32, {after / 1e6:,.1f} MB now", end=" ")
        print(f"({after / before:.3f}), in {out}")
        if options.dataset is None:
            print("--dataset FILE, a text, shows what it costs in perplexity")
            return
        old, new = (math.exp(full_loss(m, tokens, batch_size=1)) for m in (model, made))
        print(f"perplexity on {options.dataset}: {old:.4f} before, {new:.4f} now", end=" ")
        print(f"({new / old - 1:+.2%})")
        return
    if isinstance(model, Quantized):
        print(f"the weights have {model.bits} bits and are written as float ones, rounded as is")
        model = dequantize(model)
    if options.format == "huggingface":
        write_folder(out, model, tokenizer)
    else:
        write_file(out, model, tokenizer, options.dtype or "f32")
    print(f"written: {out}")


def refuse_unpublished(model: GPT | Classifier, form: str) -> None:
    """Raise ValueError for a form that a model of the modern family does not have."""
    body = getattr(model, "body", model)  # of a classifier
    if not isinstance(body, Modern) or form in ("int8", "int4"):
        return
    if form == "gguf":
        raise ValueError("llama.cpp has no models of the modern family: train.py --model llama")
    if body is not model:
        raise ValueError("transformers has no classifiers of the modern family")
    if not checkpoint.is_nanochat(model.config):
        parts = name_parts(vars(model.config))
        raise ValueError(
            f"transformers has no model with the parts {parts}. It has those with rotary, "
            "qk_norm and embedding_norm, and without ngrams (train.py --parts)"
        )


def find_tokenizer(options: argparse.Namespace):
    """The tokenizer in the model's folder, or the one that is named; None where there is none."""
    try:
        return tokenizers.find(options.tokenizer or str(checkpoint.local_folder(options.model)))
    except FileNotFoundError:
        if options.tokenizer is not None:
            raise
        return None


def write_folder(out: Path, model: GPT | Classifier, tokenizer) -> None:
    """The model, and the tokenizer's files for us and for transformers."""
    model.save_pretrained(out)
    checkpoint.save_tokenizer(out, tokenizer)
    if tokenizer is None:
        print("there is no tokenizer in the folder; --tokenizer names one")


def write_file(path: Path, model: GPT, tokenizer, dtype: str) -> None:
    """The model as a .gguf file."""
    if tokenizer is None:
        raise ValueError("the folder holds no tokenizer, which GGUF needs: --tokenizer names one")
    config, rope = model.config, None
    if isinstance(config, LlamaConfig):
        said, more = config.rope_parameters, (config.head_size, config.rope_context, 0)
        plain, _ = frequencies({"rope_type": "default", "rope_theta": said["rope_theta"]}, *more)
        own, scale = frequencies(said, *more)
        rope = plain / own, scale
    write_gguf(path, config, model.published(), tokenizer, dtype, rope)


def read_tokens(dataset: str, model: GPT, tokenizer) -> np.ndarray:
    """The ids of a text, at least as many as a context has, and one."""
    if tokenizer is None:
        raise ValueError("--dataset needs a tokenizer: --tokenizer names one")
    tokens = np.array(tokenizer.encode_ordinary(read_text(Path(dataset), "utf-8")))
    if len(tokens) <= model.config.block_size:
        raise ValueError(
            f"{dataset} has {len(tokens)} tokens, which is less than one context of "
            f"{model.config.block_size} and the token after it"
        )
    if tokens.max() >= model.config.vocab_size:
        raise ValueError(f"the tokenizer has ids beyond the model's {model.config.vocab_size}")
    return tokens


if __name__ == "__main__":
    sys.exit(main())
