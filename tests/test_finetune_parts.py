"""A step of any method may be divided among processes, or computed in parts: dropout included."""

import numpy as np
import pytest

from gpt import GPTConfig, models
from gpt.finetune import classify, distill, dpo, instruct, kto, reward
from gpt.finetune.labels import Labelled
from tensorlite.device import RowRandom

SIZES = dict(vocab_size=30, block_size=24, n_layer=2, n_head=2, n_embd=8)
RNG = np.random.default_rng(0)
IDS = [RNG.integers(0, 30, n) for n in (5, 9, 12, 3, 7, 14, 6, 4, 20, 11, 3, 17)]
TEXTS = [(ids, np.arange(len(ids)) > 0) for ids in IDS]
PARTS = np.arange(10), np.array([10]), np.array([11])  # to train, to validate, to test
PAIRS = np.arange(4), np.array([4]), np.array([5])


def task_of(method: str, model):
    """(a task on these texts, the model that it trains)."""
    if method == "classify":
        given = Labelled([], ("a", "b"), np.arange(12) % 2)
        task = classify.Classification(classify.Settings(dropout=0.5), IDS, given, PARTS, 0)
        return task, models.Classifier(model, given.labels, seed=1)
    if method == "reward":
        body = models.Classifier(model, ["reward"], "regression", seed=1)
        return reward.Rewards(reward.Settings(dropout=0.5), TEXTS, PAIRS), body
    if method == "instruct":
        rows = [instruct.Rows([TEXTS[i] for i in part], 24, True) for part in PARTS]
        return instruct.Instructions(instruct.Settings(dropout=0.5), rows), model
    if method == "distill":
        teacher = models.make(GPTConfig(**SIZES), seed=5).eval()
        return distill.Distillation(distill.Settings(dropout=0.5), TEXTS, PARTS, teacher), model
    if method == "kto":
        parts = PARTS[0], np.array([10, 11]), []
        mixed = kto.with_mismatched(TEXTS, parts, 25)
        return kto.Answers(
            dpo.Settings(loss="kto", dropout=0.5), mixed, np.arange(12) % 2 == 0, parts
        ), model
    return dpo.Preferences(dpo.Settings(dropout=0.5), TEXTS, PAIRS), model


@pytest.mark.parametrize("method", ["classify", "instruct", "distill", "reward", "dpo", "kto"])
def test_the_parts_of_a_step_add_up_to_it_with_dropout(method):
    task, model = task_of(method, models.make(GPTConfig(**SIZES, dropout=0.5)))
    examples = task.batch(0, model.eval())
    model.train()

    def loss(first: int, last: int) -> float:
        rng = RowRandom(1, "dropout", 0, rows=range(first, last))
        return task.loss(model, examples[first:last], rng).item()

    n, whole = len(examples), loss(0, len(examples))
    without = task.loss(model.eval(), examples).item()
    model.train()
    assert whole != pytest.approx(without, abs=1e-4)
    assert sum(loss(i, i + 1) for i in range(n)) == pytest.approx(whole, abs=2e-6)
