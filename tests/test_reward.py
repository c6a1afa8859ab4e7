"""Reward models: what they learn, and runs of them."""

import json
import math

import numpy as np
import pytest

import tensorlite as tl
import tokenizer
from gpt import GPT, GPTConfig
from gpt.data.chat import Chat
from gpt.finetune import reward
from gpt.finetune.conversations import split_by_question
from gpt.finetune.pairs import conversation, read_pairs
from gpt.finetune.reward import Rewards, Settings, bradley_terry_loss
from gpt.finetune.tune import tune
from gpt.models import Classifier
from tensorlite.device import RowRandom

from .test_preferences import (
    ARGV,
    SIZES,
    check_resumed_after_a_kill,
    check_same_curve,
    finish,
    folder,
    given,
    lines_of,
    needs_mpi,
    pair_records,
    start,
)

__all__ = ["folder"]  # a fixture


def test_the_loss_is_that_of_each_pair_alone(folder):
    chat = Chat(tokenizer.load(folder / "base"))
    texts, conversations = read_pairs(pair_records(12), chat, 64)
    s = Settings(val_fraction=0.2, batch_size=16)
    task = Rewards(s, texts, split_by_question(s, conversations))
    body = GPT(GPTConfig(**SIZES | dict(vocab_size=chat.tokenizer.vocab_size)), seed=1)
    model = Classifier(body, ["reward"], "regression", seed=1)
    examples, losses = task.batch(0), []
    for row in examples.arrays[0]:
        pair = [texts[2 * task.train[row] + i][0] for i in (0, 1)]
        chosen, rejected = (model(ids[None], [len(ids)])[0, 0] for ids in pair)
        losses.append(bradley_terry_loss(chosen, rejected))
    expected = tl.stack(losses).mean()
    expected.backward()
    gradients = [p.grad.numpy().copy() for p in model.parameters()]
    for p in model.parameters():
        p.grad = None
    parts = [task.loss(model, part) for part in (examples[:5], examples[5:])]
    for part in parts:
        part.backward()
    assert sum(part.item() for part in parts) == pytest.approx(expected.item(), abs=1e-5)
    for p, gradient in zip(model.parameters(), gradients):
        np.testing.assert_allclose(p.grad.numpy(), gradient, atol=1e-5)
    rng = RowRandom(1, "dropout", 0, rows=range(len(examples)))
    assert task.loss(model, examples, rng).item() == task.loss(model, examples).item()  # p is 0


@pytest.mark.parametrize("more", [{}, dict(lora=4), dict(train="head")])
def test_it_begins_at_ln_2_and_learns(folder, tmp_path, more):
    out = tmp_path / "out"
    lr = 1e-2 if "lora" in more else 3e-2
    tune(reward, given(folder, out, epochs=4, learning_rate=lr, **more))
    first, *_, last, final = lines_of(out)
    assert first["val_loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert first["val_accuracy"] == 0.5 and first["val_margin"] == 0
    assert last["val_loss"] < first["val_loss"] and final["test_margin"] > 0
    if "train" not in more:
        assert final["test_accuracy"] > 0.8


def test_a_saved_reward_model_gives_rewards(folder, tmp_path):
    """As the docstring of the module says."""
    out = tmp_path / "out"
    tune(reward, given(folder, out, epochs=4, learning_rate=3e-2))
    model, chat = Classifier.from_pretrained(out), Chat(tokenizer.load(out))
    rewards = []
    for record in pair_records(20, seed=5):
        for name in ("chosen", "rejected"):
            ids, _ = chat.example(conversation(record, name))
            assert ids[-1] != model.config.pad_token_id
            rewards.append(model(ids[None], [len(ids)]).item())
    assert np.mean(np.array(rewards[::2]) > rewards[1::2]) > 0.9
    saved = json.loads((out / "config.json").read_text())
    assert saved["architectures"] == ["GPT2ForSequenceClassification"]
    assert saved["id2label"] == {"0": "reward"} and saved["problem_type"] == "regression"


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """The run that was left alone."""
    out = tmp_path_factory.mktemp("whole") / "out"
    finish(start("reward", folder, out, *ARGV, "--workers=1"))
    return out


def test_killed_and_resumed_it_is_the_same_bit_for_bit(folder, whole, tmp_path):
    check_resumed_after_a_kill("reward", folder, whole, tmp_path / "out")


@needs_mpi
def test_two_workers_give_the_same_curve(folder, whole, tmp_path):
    finish(start("reward", folder, tmp_path / "out", *ARGV, ranks=2))
    check_same_curve(tmp_path / "out", whole)


def test_what_is_no_pair_is_refused(folder, tmp_path):
    (tmp_path / "bad.json").write_text(json.dumps([{"text": "a"}]))
    more = given(folder, tmp_path / "out") | dict(dataset=str(tmp_path / "bad.json"))
    with pytest.raises(ValueError, match="record 1: there is no column 'chosen', only text"):
        tune(reward, more)
    assert not (tmp_path / "out").exists()
