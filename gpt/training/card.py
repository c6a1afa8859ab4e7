"""The model card: a README.md beside every checkpoint, for people and for Hugging Face's hub.

It follows Mitchell et al., "Model Cards for Model Reporting" (2019), with the YAML head of the hub
(https://huggingface.co/docs/hub/model-cards). What the run knows is filled in; what it cannot know
says so. A README.md that this did not write is left alone.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from tensorlite.parallel import physical_cores
from tokenizer.base import write_atomic

from ..checkpoint import is_nanochat, note_of
from ..evaluate import duration
from ..models import Adapted, ModernConfig
from .settings import NO_MODEL

CARD = "README.md"
MARK = "<!-- Written by tensorlite at every checkpoint. Remove this line to keep your changes. -->"
WATTS = {"cpu": 10, "cuda": 400}  # assumed: of a physical core, of a GPU
LICENCES = {
    "python-docs": "PSF-2.0 (Python's documentation)",
    "python-code": "PSF-2.0 (Python's standard library)",
    "shakespeare": "public domain",
}


def is_ours(path: Path) -> bool:
    """Whether this wrote the file."""
    return path.is_file() and MARK.encode() in path.read_bytes()


def write_card(run, model, folder: Path, step: int, final: dict | None = None) -> None:
    """Write the card of a run's model after `step` updates; `final` is what was measured last."""
    path = folder / CARD
    if path.exists() and not is_ours(path):
        return
    results = final if final is not None else last_measured(run.metrics.lines)
    write_atomic(path, card(run, model, step, results, done=final is not None).encode())


def last_measured(lines: list[dict]) -> dict:
    """The latest line of metrics.jsonl that has a validation loss."""
    measured = [line for line in lines if "val_loss" in line]
    return measured[-1] if measured else {}


def card(run, model, step: int, results: dict, done: bool) -> str:
    """The text of the card."""
    s, name = run.settings, run.out.resolve().name
    body = getattr(model, "body", model)  # of a classifier
    figures = [(key, value) for key, value in results.items() if shown(key, value)]
    tuned, adapted = s.init_from not in NO_MODEL, isinstance(model, Adapted)
    modern, classifier = isinstance(body.config, ModernConfig), body is not model
    ours = modern and (adapted or classifier or not is_nanochat(body.config))
    library = "tensorlite" if ours else "peft" if adapted else "transformers"
    note = f" {note_of(classifier)}" if ours else ""
    kind = "text-classification" if classifier else "text-generation"
    head = {
        "library_name": library,
        "pipeline_tag": kind,
        "tags": ["tensorlite", s.method],
        "license": "unknown",
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": kind},
                        "dataset": {"name": Path(s.dataset).name, "type": "custom"},
                        "metrics": [{"type": key, "value": value} for key, value in figures],
                    }
                ],
            }
        ],
    }
    if not figures:
        del head["model-index"]
    yaml = "".join(f"{key}: {json.dumps(value)}\n" for key, value in head.items())
    rows = [
        f"| {key.replace('_', ' ')} | {value:.4f} | {error_of(key, results)} |"
        for key, value in figures
    ]
    table = "\n".join(["| figure | value | standard error |", "|---|---|---|", *rows])
    start = f"`{Path(s.init_from).name}`" if tuned else "random weights"
    licence = LICENCES.get(s.dataset, "not known to the run: state it before you publish")
    return f"""---
{yaml}---
{MARK}

# {name}

A language model that was trained with tensorlite ({s.method}), beginning with {start}. The run
{"is finished" if done else "was not finished when this was written"}, at step {step:,}.{note}

## Data

- dataset: `{Path(s.dataset).name}`
- SHA-256 of what was read: `{run.fingerprint}`
- licence: {licence}
- whose text it is, how it was collected, personal data in it: not known to the run

## Training

{training(run, model, step)}

## Results

{table if figures else "Nothing has been measured yet."}

They are measured on examples of the same dataset that were held out. How far they hold for other
text is not known to the run.

## Use and limits

- Intended use: learning and experiments. The run knows of no other use that the model is fit for.
- It repeats the biases of its data and states what is false; neither was measured.
- It may repeat its training text word for word. That is measured by
  `python -m gpt.evaluate DIR --task memorisation --train_text FILE`; the run did not measure it.
- Whether evaluation sets are part of its training text is measured by `--task contamination`.
"""


def training(run, model, step: int) -> str:
    """How large the model is and what its training took, a line each."""
    s, clock = run.settings, run.clock
    body = getattr(model, "body", model)
    config, adapted = body.config, isinstance(model, Adapted)
    part = "and of its adapters" if adapted else "of which"
    total = sum(p.size for p in (model.model if adapted else model).parameters())
    trained = sum(p.size for p in model.parameters() if p.requires_grad)
    tokens = clock.tokens_per_step * step
    length = min(config.block_size, clock.tokens_per_step)
    head = body.head if body is model else model.score  # of a language model, of a classifier
    multiplied = sum(p.size for part in (body.blocks, head) for p in part.parameters())
    flops = 6 * multiplied + 12 * config.n_layer * config.n_embd * length
    lines = [
        f"parameters: {total:,}, {part} {trained:,} were trained",
        f"shape: {config.n_layer} blocks, {config.n_head} heads, {config.n_embd} wide, "
        f"{config.vocab_size:,} ids, a context of {config.block_size:,} tokens",
        f"tokens: about {tokens:,} in {step:,} steps",
        f"FLOPs: about {flops * tokens:.2e} (6 for each token and parameter of the blocks and the "
        "head, and attention's)",
    ]
    if clock.steps:
        seconds = clock.tokens_per_step * step / clock.speed()
        places = run.team.size if s.device == "cuda" else physical_cores()
        unit = "GPU" if s.device == "cuda" else "core"
        watts, kwh = WATTS[s.device], WATTS[s.device] * places * seconds / 3.6e6
        lines += [
            f"time: about {duration(seconds)} (steps, at the median time of those last made)",
            f"energy: about {kwh:.2g} kWh, if each of {places} {unit}s takes {watts} W; "
            "not measured",
        ]
    changed = {"learning_rate": s.learning_rate, "batch_size": s.batch_size, "seed": s.seed}
    lines.append("settings: " + ", ".join(f"{k} {v}" for k, v in changed.items()) + " (run.json)")
    return "\n".join(f"- {line}" for line in lines)


def shown(key: str, value) -> bool:
    """Whether an entry of a line of metrics.jsonl is a figure for the card."""
    name, _, _ = key.partition("/")  # of a mixture: NAME/SOURCE
    figure = name.startswith(("val_", "test_")) or name == "bits_per_byte"
    number = isinstance(value, (int, float)) and math.isfinite(value)
    return figure and number and not name.endswith("_error")


def error_of(key: str, results: dict) -> str:
    """The standard error of a figure, in words."""
    name, slash, source = key.partition("/")
    error = results.get(f"{name}_error{slash}{source}")
    return "not measured" if error is None else f"{error:.4f}"
