"""The model card: what it says, that the hub can read it, and whose README.md it never replaces."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import train
from gpt import (
    GPT,
    Adapted,
    Classifier,
    GPTConfig,
    LoraConfig,
    Modern,
    ModernConfig,
    evaluate,
)
from gpt.models import read_parts
from gpt.training.card import CARD, MARK, card, is_ours
from gpt.training.settings import Settings

ARGV = (
    "--n_layer=1 --n_head=2 --n_embd=16 --block_size=16 --batch_size=4 --max_iters=4 "
    "--eval_interval=2 --eval_iters=2 --warmup_iters=1 --workers=1"
).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    (folder / "text.txt").write_text("She sells sea shells, and so on and on. " * 600)
    assert (
        train.main([*ARGV, f"--dataset={folder / 'text.txt'}", f"--out_dir={folder / 'out'}"]) == 0
    )
    return folder


def test_it_says_what_the_run_knows_and_what_it_does_not(folder):
    card = (folder / "out" / CARD).read_text()
    final = json.loads((folder / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    run = json.loads((folder / "out" / "run.json").read_text())
    full, error = final["val_loss_full"], final["val_loss_full_error"]
    assert f"| val loss full | {full:.4f} | {error:.4f} |" in card
    assert run["data"] in card and "`text.txt`" in card and "beginning with random weights" in card
    parameters = sum(p.size for p in GPT.from_pretrained(folder / "out").parameters())
    assert f"parameters: {parameters:,}, of which {parameters:,}" in card
    assert "tokens: about 256 in 4 steps" in card  # 4 windows of 16, 4 times
    assert "licence: not known to the run" in card and "kWh" in card and "not measured" in card
    assert "is finished, at step 4" in card
    assert (
        "was not finished when this was written, at step"
        in (folder / "out/best" / CARD).read_text()
    )


def test_the_hub_reads_its_head(folder):
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard.load(folder / "out" / CARD).data
    assert data.library_name == "transformers" and data.pipeline_tag == "text-generation"
    results = {r.metric_type: r.metric_value for r in data.eval_results}
    final = json.loads((folder / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert results["val_loss_full"] == final["val_loss_full"]
    assert data.to_dict()["tags"] == ["tensorlite", "pretraining"]


def test_a_readme_of_the_user_is_left_alone(folder, tmp_path):
    out, argv = tmp_path / "out", [*ARGV, f"--dataset={folder / 'text.txt'}"]
    out.mkdir()
    (out / CARD).write_text("# mine\n")
    assert train.main([*argv, f"--out_dir={out}"]) == 0
    assert (out / CARD).read_text() == "# mine\n" and is_ours(out / "best" / CARD)
    assert train.main([*argv, f"--out_dir={out}", "--overwrite", "--max_iters=2"]) == 0
    assert (out / CARD).read_text() == "# mine\n"
    (out / CARD).write_text(MARK)  # one of ours is replaced
    assert train.main([*argv, f"--out_dir={out}", "--overwrite", "--max_iters=2"]) == 0
    assert "at step 2" in (out / CARD).read_text()


def test_the_error_is_that_of_a_mean_over_batches():
    model = GPT(GPTConfig(vocab_size=20, block_size=8, n_layer=1, n_head=2, n_embd=8))
    tokens = np.random.default_rng(0).integers(0, 20, 8 * 128 * 5 + 1)
    mean, error = evaluate.loss_and_error(model, tokens, 128)
    losses = [evaluate.full_loss(model, tokens[i : i + 1025], 128) for i in range(0, 5120, 1024)]
    assert mean == pytest.approx(np.mean(losses), 1e-6)
    assert error == pytest.approx(np.std(losses, ddof=1) / math.sqrt(5), 1e-4)
    assert math.isnan(evaluate.loss_and_error(model, tokens[:1025], 128)[1])


NANOCHAT = "rotary,qk_norm,embedding_norm,relu2,logit_cap"
OPENS = {"load": "gpt.load of tensorlite does.", "classifier": "gpt.load_classifier of tensorlite"}


def card_of(model) -> str:
    """The card after 4 steps of 64 tokens."""
    clock = SimpleNamespace(tokens_per_step=64, steps=[])
    run = SimpleNamespace(settings=Settings(), out=Path("out"), fingerprint="", clock=clock)
    return card(run, model, 4, {}, done=True)


def small(parts=None):
    """A model of 20 ids, 1 block and 16 numbers: gpt2, or modern with these parts."""
    sizes = (20, 8, 1, 2, 16)
    if parts is None:
        return GPT(GPTConfig(*sizes))
    return Modern(ModernConfig(*sizes, **read_parts(parts)))


def adapted(model):
    model = Adapted(model, "base")
    model.add_adapter("one", LoraConfig(rank=1))
    return model


@pytest.mark.parametrize(
    "model, library, opens",
    [
        (lambda: small(), "transformers", None),
        (lambda: adapted(small()), "peft", None),
        (lambda: Classifier(small(), ["a", "b"]), "transformers", None),
        (lambda: small(NANOCHAT), "transformers", None),
        (lambda: small(NANOCHAT + ",ngrams"), "tensorlite", "load"),
        (lambda: adapted(small(NANOCHAT)), "tensorlite", "load"),
        (lambda: Classifier(small(NANOCHAT), ["a", "b"]), "tensorlite", "classifier"),
        (lambda: adapted(Classifier(small(NANOCHAT), ["a", "b"])), "tensorlite", "classifier"),
    ],
)
def test_it_names_the_library_that_opens_the_model(model, library, opens):
    text = card_of(model())
    assert f'library_name: "{library}"' in text
    assert [name for name, words in OPENS.items() if words in text] == [opens] * (opens is not None)


def test_flops_are_those_of_what_is_multiplied():
    """Blocks and head; rows that are looked up, of tables of any size, are not multiplied."""
    block, attention = 12 * 16**2, 12 * 16 * 8
    for parts in ("tied", "", "ngrams=2+3"):
        said = f"FLOPs: about {(6 * (block + 20 * 16) + attention) * 256:.2e} (6 for each token and"
        assert said in card_of(small(parts))
    said = f"FLOPs: about {(6 * (block + 2 * 16) + attention) * 256:.2e} (6"
    assert said in card_of(Classifier(small("rotary"), ["a", "b"]))
