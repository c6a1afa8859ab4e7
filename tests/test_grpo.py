"""GRPO: the objective is PyTorch's, answers are a function of their seeds, and a run is resumed."""

import json
import re
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import tensorlite as tl
from gpt import GPT, GPTConfig, models
from gpt.data import IGNORE
from gpt.data.chat import prepare_chat
from gpt.evaluate import token_logprobs
from gpt.finetune import grpo
from gpt.finetune.answers import Answering, as_arrays, prompts_of, read_answers
from gpt.finetune.policy_gradient import (
    clipped_objective,
    group_advantages,
    kl_estimate,
    token_weights,
)
from gpt.finetune.rewards import Reward, arithmetic
from gpt.finetune.tune import tune
from gpt.training.loop import train_step
from gpt.training.optimizer import make_optimizer
from tensorlite import parallel
from tensorlite.parallel import ALONE
from tokenizer import BPETokenizer, CharTokenizer

from .test_resume import assert_same, wait_for
from .test_task import finish, launch, lines_of

LETTERS = "abcdefgh: \n"
SIZES = dict(block_size=24, n_layer=1, n_head=2, n_embd=16)
REWARDS = """
def share_of_a(prompt, answer, record):
    assert prompt == record["prompt"] and "\\n" not in answer
    return answer.count("a") / max(1, len(answer))

def raises(prompt, answer, record):
    return 1 / 0

def text(prompt, answer, record):
    return "1.0"

def nan(prompt, answer, record):
    return float("nan")

not_a_function = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a tokenizer, prompts, and reward functions."""
    folder = tmp_path_factory.mktemp("grpo")
    tokenizer = CharTokenizer.train(LETTERS)
    GPT(GPTConfig(tokenizer.vocab_size, **SIZES)).save_pretrained(folder / "base")
    tokenizer.save(folder / "base")
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), rng.integers(2, 7))) for _ in range(40)]
    lines = [json.dumps({"prompt": f"{word}:"}) for word in words]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "score.py").write_text(REWARDS)
    return folder


@pytest.fixture(scope="module")
def char():
    return CharTokenizer.train(LETTERS)


def given(folder, out, **more):
    return dict(
        init_from=str(folder / "base"),
        dataset=str(folder / "prompts.jsonl"),
        reward=f"{folder / 'score.py'}:share_of_a",
        out_dir=str(out),
        max_new_tokens=6,
        stop="\n",
        group=4,
        batch_size=16,
        val_fraction=0.2,
        log_interval=1,
        warmup_iters=2,
        workers="1",
    ) | dict(more)


def task_of(folder, tmp_path, tokenizer, **more):
    """(the task, its settings, the model), as a run has them."""
    s = grpo.Settings(**given(folder, tmp_path / "out", **more))
    (tmp_path / "out").mkdir(exist_ok=True)
    model = models.load(s.init_from)
    records = [json.loads(line) for line in open(s.dataset)]
    run = SimpleNamespace(settings=s, out=tmp_path / "out", saved=0)
    task, model, _ = grpo.prepare(run, records, tokenizer, model)
    return task, s, model


# =================================================================================================
# The objective, against PyTorch: the formulas of TRL's GRPOTrainer
# =================================================================================================


def test_advantages_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    rewards = np.random.default_rng(0).normal(size=(5, 4))
    rewards[2] = 0.1  # whose mean is not exactly 0.1
    t = torch.tensor(rewards)
    centred = t - t.mean(dim=1, keepdim=True)
    expected = (centred / (t.std(dim=1, keepdim=True) + 1e-4)).numpy()
    assert np.abs(group_advantages(rewards) - expected).max() < 1e-5
    assert np.abs(group_advantages(rewards, by_spread=False) - centred.numpy()).max() < 1e-12
    assert (group_advantages(rewards)[2] == 0).all()


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_loss_and_gradient_are_those_of_pytorch(loss_type):
    torch = pytest.importorskip("torch")
    rng, (B, T), longest = np.random.default_rng(1), (6, 5), 7
    logprobs = rng.normal(-2, 0.5, (B, T))
    old, reference = logprobs + rng.normal(0, 0.3, (2, B, T))
    advantages, lengths = rng.normal(size=(B, 1)), np.array([5, 1, 3, 5, 2, 4])
    mask = np.arange(T) < lengths[:, None]
    beta, low, high = 0.1, 0.2, 0.28

    p = torch.tensor(logprobs, requires_grad=True)
    o, r, a, m = map(torch.tensor, (old, reference, advantages, mask))
    ratio = torch.exp(p - o)
    loss = -torch.min(ratio * a, torch.clamp(ratio, 1 - low, 1 + high) * a)
    loss = loss + beta * (torch.exp(r - p) - (r - p) - 1)
    expected = {
        "grpo": ((loss * m).sum(-1) / m.sum(-1).clamp(min=1.0)).mean(),
        "dapo": (loss * m).sum() / m.sum().clamp(min=1.0),
        "dr_grpo": (loss * m).sum() / (B * longest),
    }[loss_type]
    expected.backward()

    x = tl.Tensor(logprobs, requires_grad=True)
    objective, clipped = clipped_objective(x, old, advantages, low, high)
    objective = objective - beta * kl_estimate(x, reference)
    ours = -(objective * token_weights(lengths, loss_type, longest)[:, None] * mask).sum()
    ours.backward()
    assert ours.item() == pytest.approx(expected.item(), abs=1e-5)
    assert np.abs(x.grad.numpy() - p.grad.numpy()).max() < 1e-5
    beyond = (ratio > 1 + high) & (a > 0) | (ratio < 1 - low) & (a < 0)
    assert (clipped == beyond.numpy()).all() and 0 < clipped.mean() < 1


def test_kl_estimate_is_right_on_average():
    rng = np.random.default_rng(2)
    p, q = rng.dirichlet(np.ones(5), 2)
    estimates = kl_estimate(np.log(p), np.log(q))
    assert (estimates >= 0).all()
    assert (p * estimates).sum() == pytest.approx((p * np.log(p / q)).sum(), abs=1e-12)


# =================================================================================================
# Answers and rewards
# =================================================================================================


def test_answers_are_a_function_of_prompt_and_seed(folder, char):
    model = models.load(folder / "base")
    records = [{"prompt": f"{'abcd'[:n]}:"} for n in (1, 2, 3, 4)]
    prompts = prompts_of(records, char, model)
    answering = Answering(char, Reward(f"{folder / 'score.py'}:share_of_a"), 6, "\n")
    answers = answering.draw(model, prompts * 8, list(range(32)))
    assert answering.draw(model, prompts[2:3], [18])[0].ids == answers[18].ids
    parts = [team_of(rank) for rank in range(3)]
    divided = [answering.draw(model, prompts * 8, list(range(32)), team=team) for team in parts]
    assert [a.text for part in divided for a in part] == [a.text for a in answers]
    x, y, logprobs = as_arrays(prompts * 8, answers)
    assert logprobs.dtype == np.float32
    assert np.abs(token_logprobs(model, x, y).numpy() - logprobs).max() < 1e-5
    newline = char.encode("\n")[0]
    assert {a.ids[-1] == newline for a in answers} == {True, False}
    for row, answer in zip(y, answers):
        assert row[row != IGNORE].tolist() == answer.ids
        assert answer.text == char.decode([i for i in answer.ids if i != newline])
        assert answer.reward == answer.text.count("a") / max(1, len(answer.text))


def team_of(rank):
    """Rank `rank` of three, which gathers its own answers alone."""
    part = [range(0, 10), range(10, 21), range(21, 32)][rank]
    return SimpleNamespace(share=lambda n: part, gather=lambda x: [x])


def test_a_model_with_a_chat_template_is_asked_by_it(tmp_path):
    text = "Name a colour. Red, green or blue? "
    tokenizer = prepare_chat(BPETokenizer.train(text * 3, 270), "chatml")
    end = tokenizer.special_tokens["<|im_end|>"]
    model = GPT(GPTConfig(tokenizer.vocab_size, 64, 1, 2, 16))
    model.wte.weight.data[end] *= 30  # so that it often ends an answer, or is never drawn
    (prompt,) = prompts_of([{"prompt": "Name a colour."}], tokenizer, model)
    assert prompt.shown == [{"role": "user", "content": "Name a colour."}]
    assert tokenizer.decode(prompt.ids).endswith("<|im_end|>\n<|im_start|>assistant\n")
    seen = []
    reward = SimpleNamespace(__call__=None)
    reward = lambda prompt, answer, record: seen.append((prompt, answer, record)) or 0.5  # noqa: E731
    answers = Answering(tokenizer, reward, 20).draw(model, [prompt] * 40, range(40))
    ended = [a for a in answers if a.ids[-1] == end]
    assert ended and all(len(a.ids) == 20 for a in answers if a.ids[-1] != end)
    assert all("<|im_end|>" not in a.text and end not in a.ids[:-1] for a in answers)
    assert seen[0][0] == prompt.shown and seen[0][2] == {"prompt": "Name a colour."}
    with pytest.raises(ValueError, match="record 1: .* has the columns text"):
        prompts_of([{"text": "x"}], tokenizer, model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "raised ZeroDivisionError: division by zero, for the prompt 'ab:' and the"),
        ("text", "gave '1.0' for the prompt 'ab:' and the answer 'cd'; a reward is a number"),
        ("nan", "gave nan for the prompt 'ab:' and the answer 'cd'; a reward is a number"),
        ("missing", "there is no function missing in .*score.py"),
        ("not_a_function", "there is no function not_a_function in"),
    ],
)
def test_bad_reward_functions_are_named(folder, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        Reward(f"{folder / 'score.py'}:{name}")("ab:", "cd", {})
    assert f"score.py:{name}" in str(caught.value)


def test_reward_functions_that_cannot_be_found(tmp_path):
    (tmp_path / "broken.py").write_text("def f(:\n")
    for name, error, message in (
        ("score.py", ValueError, "--reward is FILE.py:NAME or MODULE:NAME, not 'score.py'"),
        ("nowhere.py:f", FileNotFoundError, "there is no file nowhere.py, which --reward names"),
        ("no_module:f", ValueError, "no_module cannot be imported: ModuleNotFoundError"),
        (f"{tmp_path}/broken.py:f", ValueError, "broken.py cannot be imported: SyntaxError"),
    ):
        with pytest.raises(error, match=message):
            Reward(name)


def test_the_file_of_a_reward_may_have_dataclasses(tmp_path):
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\n"
    text += "class Found:\n    n: int\ndef score(prompt, answer, record):\n"
    (tmp_path / "random.py").write_text(text + "    return Found(len(answer)).n\n")
    assert Reward(f"{tmp_path / 'random.py'}:score")("", "abc", {}) == 3
    import random

    assert random.__file__ != str(tmp_path / "random.py")


def test_the_examples_of_rewards():
    assert Reward("gpt.finetune.rewards:sorted_letters")("sort hgfa:", " afgh\n", {}) == 1.0
    assert arithmetic("12 - 30 =", "-18", {}) == 1.0 and arithmetic("7*8=", "54", {}) == 0.0
    with pytest.raises(ValueError, match="a prompt ends with a sum"):
        arithmetic("what is 3?", "3", {})


# =================================================================================================
# The task
# =================================================================================================


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_parts_of_the_loss_add_up_and_only_ungrouped_rewards_count(folder, tmp_path, char, beta):
    task, s, model = task_of(folder, tmp_path, char, beta=beta)
    task.reference.wte.weight.data *= 1.5
    batch = task.batch(0, model)
    assert task.batch(0, model) is not batch and len(batch) == 16
    whole = task.loss(model, batch).item()
    assert whole == pytest.approx(
        sum(task.loss(model, batch[i : i + 5]).item() for i in range(0, 16, 5)), abs=1e-6
    )
    x, y, old = as_arrays(task.prompts, task.answers)
    rewards = np.array([a.reward for a in task.answers]).reshape(4, 4)
    advantages = group_advantages(rewards).reshape(-1, 1)
    kl = kl_estimate(old, token_logprobs(task.reference, x, y).numpy())
    counted = y != IGNORE
    expected = ((beta * kl - advantages) * counted).sum(axis=1) / counted.sum(axis=1)
    assert whole == pytest.approx(expected.mean(), abs=1e-5)
    # Where all answers earn the same, nothing is learned from them but the KL divergence.
    task.answering.reward = lambda *_: 0.25
    assert (task.batch(1, model).whole == 0) == (beta == 0)
    before = model.state_dict()["wte.weight"].copy()
    stepped = train_step(model, make_optimizer(model, s), task, s, 1)
    assert (stepped is None) == (beta == 0) == (model.wte.weight.data == before).all()


def test_several_updates_learn_from_one_batch_of_answers(folder, tmp_path, char):
    task, s, model = task_of(folder, tmp_path, char, updates=3, learning_rate=0.05, decay_lr=False)
    optimizer, drawn, clipped = make_optimizer(model, s), [], []
    for step in range(6):
        train_step(model, optimizer, task, s, step)
        drawn.append([a.ids for a in task.answers])
        clipped.append(task.clipped[0])
    assert drawn[0] == drawn[1] == drawn[2] != drawn[3] == drawn[4] == drawn[5]
    assert clipped[0] == clipped[3] == 0 < clipped[2]
    kept = read_answers(tmp_path / "out" / "answers-3.json", model, 16)
    assert kept == task.answers
    assert task.steps_per_epoch == 3 * 7  # 28 prompts, 4 a step
    for text in ("[]", '{"answers": [{"ids": [1]}]}', json.dumps({"answers": [{"ids": [99],
            "logprobs": [0.0], "text": "", "reward": 0}]})):  # fmt: skip
        (tmp_path / "damaged.json").write_text(text)
        with pytest.raises(ValueError, match="damaged.json"):
            read_answers(tmp_path / "damaged.json", model, 1)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (dict(batch_size=18), "--batch_size 18 is no multiple of --group 4"),
        (dict(group=1), "--group is at least 2"),
        (dict(clip=1.0), "--clip is above 0 and below 1, not 1.0"),
        (dict(clip_high=0.0), "--clip_high is above 0, not 0.0"),
        (dict(loss_type="ppo"), "--loss_type is grpo, dapo or dr_grpo, not 'ppo'"),
        (dict(dropout=0.1), "--dropout is 0 in GRPO"),
        (dict(beta=-1.0), "--beta is at least 0"),
        (dict(reward=""), "--reward names the function that scores answers"),
        (dict(max_new_tokens=20), "record 1 and --max_new_tokens 20 are longer than"),
        (dict(val_fraction=0.0), "--val_fraction 0.0 of 40 prompts is none"),
    ],
)
def test_what_cannot_work_is_refused(folder, tmp_path, char, more, message):
    with pytest.raises(ValueError, match=message):
        task_of(folder, tmp_path, char, **more)


def test_prompts_that_are_no_text_are_refused(char, folder):
    model = models.load(folder / "base")
    for record, message in (
        ({"text": "a"}, "record 2 has no column 'prompt'"),
        ({"prompt": ""}, "the prompt of record 2 is ''"),
        ({"prompt": [{"role": "user", "content": "a"}]}, "record 2 .* without a chat template"),
    ):
        with pytest.raises(ValueError, match=message):
            prompts_of([{"prompt": "a:"}, record], char, model)


def test_no_prompt_is_both_trained_on_and_measured(folder, tmp_path, char):
    records = [{"prompt": f"{w}:"} for w in "abcdefgh" * 5]
    s = grpo.Settings(**given(folder, tmp_path))
    model = models.load(s.init_from)
    task, *_ = grpo.prepare(SimpleNamespace(settings=s, out=tmp_path), records, char, model)
    parts = [{p.shown for p in part} for part in (task.train, task.val, task.test)]
    assert sum(map(len, parts)) == 8 and set.union(*parts) == {f"{w}:" for w in "abcdefgh"}


# =================================================================================================
# Whole runs, as commands
# =================================================================================================

ARGV = (
    "--max_iters=40 --eval_interval=10 --save_interval=7 --learning_rate=1e-2 --updates=3 "
    "--beta=0.01 --decay_lr=False"
).split()


def start(folder, out, *argv, ranks=1):
    """The command, as a new run unless `argv` says otherwise."""
    new = not any(a.startswith("--init_from") for a in argv)
    more = [f"--{n}={v}" for n, v in given(folder, out, workers=str(ranks)).items()] if new else []
    command = [sys.executable, "-m", "gpt.finetune", "grpo", *more, f"--out_dir={out}", *argv]
    return launch(command, ranks)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """The run that was left alone."""
    out = tmp_path_factory.mktemp("whole") / "out"
    stdout = finish(start(folder, out, *ARGV))
    assert re.search(
        r"mean reward on validation prompts 0\.\d+ before, 0\.\d+ after; answers", stdout
    )
    return out


def test_it_learns_and_says_how_well(whole):
    *lines, final = lines_of(whole)
    measured = [line for line in lines if "val_loss" in line]
    assert [line["step"] for line in measured] == [0, 10, 20, 30, 40]
    first, last = measured[0], measured[-1]
    assert first["val_reward"] < 0.3 < 0.7 < last["val_reward"] == -last["val_loss"]
    assert first["val_kl"] == pytest.approx(0, abs=1e-6) and last["val_kl"] > 0.01
    assert 0 <= last["clipped"] < 1 and last["train_reward"] > 0.5 and last["val_length"] <= 6
    assert last["val_greedy_accuracy"] > first["val_greedy_accuracy"]
    assert final["test_reward"] > 0.5 and final["test_kl"] > 0


def test_killed_and_resumed_it_is_the_same_bit_for_bit(folder, whole, tmp_path):
    out, argv = tmp_path / "out", ARGV
    again = ["--init_from=resume", f"--reward={folder / 'score.py'}:share_of_a"]
    for lines, how in ((16, signal.SIGKILL), (34, signal.SIGTERM)):
        process = start(folder, out, *argv)
        wait_for(process, out, lines)
        process.send_signal(how)
        said, _ = process.communicate()
        assert process.returncode == (-how if how == signal.SIGKILL else 0)  # it was not done
        argv = again
    assert "stopped at step " in said and " --init_from resume --reward " in said
    process = start(folder, out, "--init_from=resume")
    _, err = process.communicate()
    assert process.returncode == 2 and "it is given again where a run is resumed" in err
    assert f"resuming {out} at step " in finish(start(folder, out, *argv))
    assert_same(out, whole)
    assert len(list(out.glob("answers-*.json"))) <= 4  # older ones are deleted


@pytest.mark.skipif(parallel.fault() is not None, reason="the extra mpi is not installed")
def test_two_workers_give_the_same_curve(folder, whole, tmp_path):
    finish(start(folder, tmp_path / "out", *ARGV, ranks=2))
    for line, expected in zip(lines_of(tmp_path / "out"), lines_of(whole), strict=True):
        assert line.keys() == expected.keys() and line["step"] == expected["step"]
        for name in ("train_loss", "val_loss", "val_kl", "clipped"):
            assert line.get(name) == pytest.approx(expected.get(name), abs=1e-4)


def test_adapters_learn_from_rewards_too(folder, tmp_path):
    out = tmp_path / "out"
    tune(grpo, given(folder, out, lora=2, max_iters=10, eval_interval=5, learning_rate=2e-2), ALONE)
    rewards = [line["val_reward"] for line in lines_of(out) if "val_reward" in line]
    assert rewards[-1] > rewards[0]
