"""Instruction tuning: the loss of the answers alone, packed or padded, resumed, by two workers."""

import io
import json
import re
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import sample
import tensorlite as tl
from gpt import GPT, GPTConfig, LlamaConfig, load, models
from gpt.data import IGNORE, inputs_and_targets
from gpt.data.chat import Chat, messages_of
from gpt.finetune.conversations import chat_with
from gpt.finetune.instruct import Instructions, Rows, Settings, prepare
from gpt.finetune.tune import tune
from gpt.generate import Conversation
from gpt.generate.chat import fit
from gpt.training.loop import train_step
from gpt.training.optimizer import make_optimizer
from tensorlite import parallel
from tokenizer import BPETokenizer, find

from .test_resume import assert_same, wait_for
from .test_sample import cli, ok, refused
from .test_task import finish, launch, lines_of

SIZES = dict(vocab_size=300, block_size=48, n_layer=2, n_head=2, n_embd=16)
WORDS = "red blue green dog cat bird one two three sun moon sea".split()


def records(n=60):
    """Questions, and the same answer to all of them."""
    words = [WORDS[i % len(WORDS)] for i in np.random.default_rng(0).integers(0, 100, n)]
    return [
        {"instruction": f"Say {w} {i}", "input": "", "output": "red two"}
        for i, w in enumerate(words)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("instruct")
    (folder / "data.json").write_text(json.dumps(records()))
    words = " ".join(WORDS)
    tokenizer = BPETokenizer.train(f"{words} Say user assistant\n" * 3, 300)
    GPT(GPTConfig(**SIZES)).save_pretrained(folder / "base")
    tokenizer.save(folder / "base")
    return folder


def given(folder, out, **more):
    return dict(
        init_from=str(folder / "base"),
        dataset=str(folder / "data.json"),
        out_dir=str(out),
        template="chatml",
        log_interval=1,
        warmup_iters=2,
        workers="1",
        **more,
    )


class Run:
    """As much of a run as `prepare` asks for."""

    def __init__(self, **settings):
        self.settings = Settings(template="chatml", **settings)


def task_of(folder, made=None, **settings):
    model = load(folder / "base") if made is None else made
    return prepare(Run(**settings), records(), find(str(folder / "base")), model)


# =================================================================================================
# What the task computes
# =================================================================================================


@pytest.mark.parametrize("make", [GPTConfig, LlamaConfig])
def test_the_loss_is_that_of_the_answers_packed_or_padded(folder, make):
    base = models.make(make(**SIZES))
    losses = {}
    for pack in (True, False):
        task, model, tokenizer = task_of(folder, base, pack=pack)
        rows = np.arange(len(task.training.rows))
        assert task.training.targets.sum() == task.weights.sum()
        mean = task.training.mean_loss("loss", model)["loss"]
        losses[pack] = task.training.loss(model, rows).item(), mean
        assert losses[pack][0] == pytest.approx(losses[pack][1], abs=1e-5)
    assert losses[True] == pytest.approx(losses[False], abs=1e-5)
    assert len(task_of(folder)[0].lengths) < 0.6 * len(rows)  # several share a row
    # The same by hand: only the answers count, and the token that ends them.
    chat = Chat(tokenizer)
    texts = [chat.example(messages_of(record)) for record in records()]
    x, y = inputs_and_targets(*zip(*texts))
    counted = np.unique(y[y != IGNORE])
    assert set(counted) >= chat.end_ids and tokenizer.eos_token_id in chat.end_ids
    logits = model(x)[0].data.astype(np.float64)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    nll = -np.take_along_axis(logits, np.maximum(y, 0)[..., None], -1)[..., 0][y != IGNORE]
    parts = [task.training, task.validation, task.test]
    total = sum(part.mean_loss("loss", model)["loss"] * part.targets.sum() for part in parts)
    assert total == pytest.approx(nll.sum(), rel=1e-5)
    assert sum(part.targets.sum() for part in parts) == nll.size


def test_the_model_knows_the_template_and_what_ends_an_answer(folder):
    _, model, tokenizer = task_of(folder)
    assert tokenizer.chat_template and tokenizer.eos_token == "<|im_end|>"
    assert model.config.vocab_size == max(300, tokenizer.vocab_size)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    model.config = GPTConfig(**SIZES | {"vocab_size": model.config.vocab_size}, eos_token_id=7)
    chat, again = chat_with(Settings(), tokenizer, model)  # its own template, and one more end
    assert again.config.eos_token_id == (7, tokenizer.eos_token_id)
    assert chat.tokenizer is tokenizer
    plain, _ = chat_with(Settings(), find(str(folder / "base")), load(folder / "base"))
    assert "### Response:" in plain.tokenizer.chat_template


def test_long_conversations_are_left_out_and_never_cut(folder, capsys):
    long = {"prompt": "Say sun", "completion": "sun " * 60}
    tokenizer, model = find(str(folder / "base")), load(folder / "base")
    task, *_ = prepare(Run(), [*records(), long, long], tokenizer, model)
    assert "2 of 62 conversations are left out: an answer would end" in capsys.readouterr().out
    n = sum(len(part.ids) for part in (task.training, task.validation, task.test))
    assert n == 60 and max(task.lengths) <= 48
    with pytest.raises(ValueError, match="--max_length 49 is beyond the model's context of 48"):
        prepare(Run(max_length=49), records(), tokenizer, model)
    with pytest.raises(ValueError, match="no example is left to learn from"):
        prepare(Run(max_length=8), records(), tokenizer, model)
    with pytest.raises(ValueError, match="none to validate"):
        prepare(Run(val_fraction=0.0), records(), tokenizer, model)
    with pytest.raises(ValueError, match="record 61: message 1, of assistant, has no text"):
        prepare(Run(), [*records(), {**long, "completion": ""}], tokenizer, model)


def test_equal_questions_are_in_one_part(folder):
    tokenizer = find(str(folder / "base"))
    same = [{"prompt": f"Say {i % 20}", "completion": f"{i}"} for i in range(100)]
    task, *_ = prepare(Run(test_fraction=0.3), same, tokenizer, load(folder / "base"))
    asked = [
        {tuple(ids[: np.flatnonzero(c)[0]]) for ids, c in zip(part.ids, part.counted)}
        for part in (task.training, task.validation, task.test)
    ]
    assert len(asked[2]) == 6 and not (asked[0] & asked[1] or asked[0] & asked[2])


def test_a_batch_without_answers_is_skipped(folder, tmp_path):
    ids = [np.arange(10), np.arange(20)]
    nothing = Rows([(i, np.zeros(len(i), bool)) for i in ids], 48, True)
    held_out = Rows([(i, np.ones(len(i), bool)) for i in ids], 48, True)
    s = Settings(dropout=0.1, max_iters=5)
    task = Instructions(s, [nothing, held_out, held_out])
    model = load(folder / "base")
    optimizer = make_optimizer(model, s)
    for i, p in enumerate(model.parameters()):  # some state, as in the middle of a run
        p.grad = tl.tensor(np.full_like(p.data, 0.01 * i))
    optimizer.step()
    before = [p.data.copy() for p in model.parameters()]
    state = [x.copy() for slot in optimizer.slots for x in optimizer.state[slot]]
    assert train_step(model, optimizer, task, s, 0) is None
    assert all(np.array_equal(p.data, b) for p, b in zip(model.parameters(), before))
    kept = [x for slot in optimizer.slots for x in optimizer.state[slot]]
    assert all(np.array_equal(x, b) for x, b in zip(kept, state))


def test_a_run_in_which_nothing_counts_logs_no_loss_and_changes_nothing(folder, tmp_path):
    def masked(run, records, tokenizer, model):
        task, model, tokenizer = prepare(run, records, tokenizer, model)
        task.weights[:] = 0
        return task, model, tokenizer

    out = tmp_path / "out"
    tune(SimpleNamespace(Settings=Settings, prepare=masked), given(folder, out, epochs=1.0))
    skipped = [line for line in lines_of(out) if "skipped" in line]
    assert skipped == [{"step": i + 1, "skipped": True} for i in range(len(skipped))] and skipped
    assert "NaN" not in (out / "metrics.jsonl").read_text()
    before, after = task_of(folder)[1], load(out)
    for p, q in zip(before.parameters(), after.parameters(), strict=True):
        assert np.array_equal(p.data, q.data)


# =================================================================================================
# The command
# =================================================================================================

ARGV = (
    "--template=chatml --epochs=14 --batch_size=4 --gradient_accumulation_steps=2 --dropout=0.05 "
    "--learning_rate=3e-2 --warmup_iters=5 --eval_interval=12 --save_interval=5 --log_interval=1"
).split()


def start(folder, out, *argv, ranks=1):
    command = [sys.executable, "-m", "gpt.finetune", "instruct", "--out_dir", str(out)]
    if "--init_from=resume" not in argv:
        command += ["--init_from", str(folder / "base"), "--dataset", str(folder / "data.json")]
    return launch([*command, *argv], ranks)


@pytest.fixture(scope="module")
def whole(folder):
    """The run that was left alone."""
    stdout = finish(start(folder, folder / "whole", *ARGV, "--workers=1"))
    assert re.search(r"test loss 0\.\d+", stdout)
    assert stdout.count("\nuser: Say ") == stdout.count("\nexpected: ") == 3
    return folder / "whole"


def test_it_learns_to_answer_and_to_end(whole, capsys, monkeypatch):
    *lines, final = lines_of(whole)
    losses = [line["val_loss"] for line in lines if "val_loss" in line]
    assert losses[-1] < 0.3 < 5 < losses[0] and final["test_loss"] < 0.3
    monkeypatch.setattr(sys, "stdin", io.StringIO("Say cat 61\nSay sea 70\n"))
    argv = "--out_dir", whole, "--chat", "--temperature=0", "--max_new_tokens=20"
    assert ok(sample.main, capsys, *argv) == "red two\nred two\n"
    # As any program would find it.
    assert load(whole).config.eos_token_id == find(str(whole)).eos_token_id


def test_killed_and_resumed_it_is_the_same_bit_for_bit(folder, whole, tmp_path):
    out, argv = tmp_path / "out", [*ARGV, "--workers=1"]
    process = start(folder, out, *argv)
    wait_for(process, out, 25)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL  # it was not done
    assert f"resuming {out} at step " in finish(start(folder, out, "--init_from=resume"))
    assert_same(out, whole)


@pytest.mark.skipif(parallel.fault() is not None, reason="the extra mpi is not installed")
def test_two_workers_give_the_same_curve(folder, whole, tmp_path):
    finish(start(folder, tmp_path / "out", *ARGV, ranks=2))
    for line, expected in zip(lines_of(tmp_path / "out"), lines_of(whole), strict=True):
        assert line.keys() == expected.keys() and line.get("step") == expected.get("step")
        for name in ("train_loss", "val_loss"):
            if line["step"] <= 4:  # later, what was rounded has grown
                assert line.get(name) == pytest.approx(expected.get(name), abs=2e-4)


def test_adapters_learn_from_conversations_too(folder, tmp_path):
    out = tmp_path / "out"
    assert tune_with(given(folder, out, epochs=3.0, lora=2, learning_rate=1e-2)) == 0
    losses = [line["val_loss"] for line in lines_of(out) if "val_loss" in line]
    assert losses[-1] < losses[0]


def tune_with(settings):
    import gpt.finetune.instruct as method

    return tune(method, settings)


# =================================================================================================
# Conversations with a model
# =================================================================================================


@pytest.fixture
def talk(folder):
    chat, model = chat_with(
        Settings(template="chatml"), find(str(folder / "base")), load(folder / "base")
    )
    return lambda **how: Conversation(model, chat.tokenizer, max_new_tokens=6, seed=None, **how)


def test_a_conversation_remembers_and_forgets_whole_turns(talk):
    conversation = talk(system="sun", temperature=0)
    size, seen = 48 - 6, []
    for i in range(8):
        list(conversation.ask(f"cat {i}", seed=i))
        ids = conversation.chat.prompt_ids(conversation.messages[:-1])
        assert len(ids) <= size
        seen.append(conversation.messages)
    first, *rest = seen[-1]
    assert first == {"role": "system", "content": "sun"}
    assert rest[-2]["content"] == "cat 7" and len(rest) < 16
    assert [m["role"] for m in rest] == ["user", "assistant"] * (len(rest) // 2)
    longer = [*seen[-2], {"role": "user", "content": "cat 7"}]
    kept, ids = fit(conversation.chat, longer, size)
    assert kept == [first, *longer[1:][-len(kept) + 1 :]] and len(kept) < len(longer)
    more = [first, *longer[1:][-len(kept) - 1 :]]
    assert len(conversation.chat.prompt_ids(more)) > size  # not one turn more than needed
    with pytest.raises(ValueError, match=r"the message has \d+ tokens .* at most 42 before"):
        list(conversation.ask("cat " * 50))
    with pytest.raises(ValueError, match="has no text"):
        list(conversation.ask("  "))
    assert conversation.messages == seen[-1]


def test_answers_stop_and_are_kept_as_far_as_they_came(talk):
    conversation = talk(logit_bias=dict.fromkeys((ord("a"), ord("b")), 100))
    answer = conversation.ask("cat", seed=1)
    next(answer)
    answer.close()  # as Ctrl-C does
    said = conversation.messages[-1]
    assert said["role"] == "assistant" and said["content"] in ("a", "b")
    end = next(iter(conversation.chat.end_ids))
    silent = talk(logit_bias={end: 100})
    assert "".join(silent.ask("cat")) == "" and silent.messages == []
    assert "".join(talk(stop=["b"], temperature=0, logit_bias={98: 100}).ask("cat")) == ""
    assert len("".join(talk(temperature=0, logit_bias={97: 100}).ask("cat"))) == 6


def test_what_chat_does_not_go_with(folder, capsys):
    base = "--out_dir", folder / "base"
    said = refused(sample.main, capsys, *base, "--chat")
    assert "no chat template: name one" in said
    for more, message in (
        (["--interactive"], "give one"),
        (["--start=x"], "--start and --num_samples do not go with"),
        (["--logprobs"], "does not go with --num_beams, --logprobs or --special"),
    ):
        status, _, err = cli(sample.main, capsys, *base, "--chat", *more)
        assert status == 2 and message in err
    assert "--system is for --chat" in refused(sample.main, capsys, *base, "--system=x")
