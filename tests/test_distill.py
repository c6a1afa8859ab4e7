"""Distillation: the loss is the paper's, and a run of it is resumed and divided like any other."""

import json
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import tokenizer as tokenizers
from gpt import GPT, GPTConfig, models
from gpt.checkpoint import load_step
from gpt.data import split_records
from gpt.data.chat import prepare_chat
from gpt.finetune import distill
from gpt.finetune.distill import Distillation, Settings, divergence, windows
from gpt.finetune.tune import tune
from tensorlite import parallel, tensor
from tokenizer import BPETokenizer

from .test_resume import assert_same, wait_for
from .test_task import finish, launch, lines_of
from .test_train import corpus

SMALL = dict(vocab_size=300, block_size=32, n_layer=1, n_head=2, n_embd=16)
BIG = SMALL | dict(n_layer=2, n_embd=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A student, a teacher, a text and conversations."""
    folder = tmp_path_factory.mktemp("distill")
    text = corpus()[:6000]
    (folder / "corpus.txt").write_text(text)
    tokenizer = BPETokenizer.train(text, 300, special_tokens=["<|endoftext|>"])
    for name, sizes in (("small", SMALL), ("big", BIG)):
        GPT(GPTConfig(**sizes), seed=len(name)).save_pretrained(folder / name)
        tokenizer.save(folder / name)
    records = [{"instruction": str(i), "output": "cat " * (1 + i % 30)} for i in range(1, 60)]
    (folder / "talk.json").write_text(json.dumps(records))
    return folder


def given(folder, out, dataset="corpus.txt", **more):
    names = dict(init_from="small", teacher="big", dataset=dataset)
    shared = dict(out_dir=str(out), workers="1", log_interval=1, warmup_iters=2, max_iters=20)
    return {name: str(folder / file) for name, file in names.items()} | shared | more


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_value_and_gradient_are_those_of_the_formula_in_pytorch(temperature):
    torch = pytest.importorskip("torch")
    s = Settings(temperature=temperature, label_weight=0.3, val_fraction=0.2, dropout=0.0)
    student, teacher = GPT(GPTConfig(**SMALL), seed=1), GPT(GPTConfig(**BIG), seed=2).eval()
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 300, n) for n in (7, 12, 5, 9, 6)]
    texts = [(i, np.arange(len(i)) > 2) for i in ids]
    task = Distillation(s, texts, split_records(5, s.fractions, 1), teacher)
    batch = task.batch(0)
    F = torch.nn.functional
    ours, theirs, y = [], [], []
    for i in task.train_rows[batch.arrays[0]]:
        ours.append(torch.tensor(student(ids[i][None, :-1])[0].data[0, 2:]))
        theirs.append(torch.tensor(teacher(ids[i][None, :-1])[0].data[0, 2:]))
        y.append(torch.tensor(ids[i][3:]))
    z, t, y, T = torch.cat(ours), torch.cat(theirs), torch.cat(y), temperature
    soft = F.kl_div(F.log_softmax(z / T, 1), F.softmax(t / T, 1), reduction="batchmean")
    expected = 0.3 * F.cross_entropy(z, y) + 0.7 * T**2 * soft
    assert task.loss(student, batch).item() == pytest.approx(expected.item(), abs=1e-5)
    parts = sum(task.loss(student, batch[i : i + 1]).item() for i in range(len(batch)))
    assert parts == pytest.approx(expected.item(), abs=1e-5)
    # The gradient of the student's logits, in which the teacher's are constants.
    z = z.detach().requires_grad_()
    F.kl_div(F.log_softmax(z / T, 1), F.softmax(t / T, 1), reduction="sum").backward()
    logits = tensor(z.detach().numpy(), requires_grad=True)
    divergence(t.numpy(), logits, T).backward()
    np.testing.assert_allclose(logits.grad.numpy(), z.grad.numpy(), atol=1e-6)


def test_windows_hold_every_target_once():
    texts = [list(range(n)) for n in (1, 2, 9, 10, 0)]
    found = windows(texts, 4)
    assert [w.tolist() for w in found[1:4]] == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [0, 1, 2, 3, 4]]
    assert sum(len(w) - 1 for w in found) == 1 + 8 + 9


def test_a_student_comes_closer_to_its_teacher(folder, tmp_path, capsys):
    ends = []
    for weight in (0.0, 1.0):
        out = tmp_path / f"out{weight}"
        assert tune(distill, given(folder, out, label_weight=weight, learning_rate=5e-3)) == 0
        *lines, final = lines_of(out)
        measured = [line["val_divergence"] for line in lines if "val_divergence" in line]
        ends.append(measured[-1])
    assert ends[0] < measured[0] and ends[0] < ends[1]
    assert final.keys() >= {"test_loss", "test_divergence", "test_loss_of_teacher"}
    assert "test loss of teacher" in capsys.readouterr().out


def test_of_conversations_the_answers_count(folder, tmp_path, capsys):
    plain = tokenizers.load(folder / "small")
    with pytest.raises(ValueError, match="the teacher in .* has other tokens .300 ids. than the m"):
        tune(distill, given(folder, tmp_path / "out", "talk.json", template="chatml"))
    chat = prepare_chat(plain, "chatml")
    for name in ("small", "big"):
        model = models.with_config(models.load(folder / name), vocab_size=chat.vocab_size)
        model.save_pretrained(tmp_path / name)
        chat.save(tmp_path / name)
    names = dict(teacher=str(tmp_path / "big"), template="chatml")  # two tokens that are new
    assert tune(distill, given(folder, tmp_path / "out", "talk.json", **names, lora=2)) == 0
    assert models.load(tmp_path / "out").config.vocab_size == chat.vocab_size == 302
    said = capsys.readouterr().out
    assert "of 59 conversations are left out" in said and "test divergence" in said
    s = Settings(val_fraction=0.3, teacher=str(tmp_path / "big"))
    records = [{"instruction": a, "output": b} for a, b in (("go", "cat"), ("on", "ab"))]
    small, run = models.load(tmp_path / "small"), SimpleNamespace(settings=s)
    task, _, _ = distill.prepare(run, records, chat, small)
    answers = {chat.decode(i[c]) for i, c in zip(task.ids, task.counted)}
    assert answers == {"cat<|im_end|>", "ab<|im_end|>"}


def test_the_teacher_is_not_overwritten(folder, tmp_path):
    out = tmp_path / "out"
    assert tune(distill, given(folder, out, max_iters=1)) == 0
    for teacher in (out, out / "best"):
        more = dict(teacher=str(teacher), overwrite=True)
        with pytest.raises(ValueError, match="--overwrite would delete the model of --teacher"):
            tune(distill, given(folder, out, **more))


def test_a_record_without_a_text_is_named(folder, tmp_path):
    (tmp_path / "texts.json").write_text(json.dumps([{"text": "cat"}, {"text": None}]))
    more = dict(dataset=str(tmp_path / "texts.json"))
    with pytest.raises(ValueError, match="record 2 has no text in 'text', but None"):
        tune(distill, given(folder, tmp_path / "out") | more)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(teacher=""), "--teacher is missing"),
        (dict(teacher="other"), "has other tokens .301 ids. than the model .300 ids."),
        (dict(temperature=0.0), "--temperature is above 0"),
        (dict(label_weight=1.5), "--label_weight is from 0 to 1"),
    ],
)
def test_what_cannot_work_is_refused(folder, tmp_path, wrong, message):
    if wrong.get("teacher"):
        GPT(GPTConfig(**SMALL | dict(vocab_size=301))).save_pretrained(tmp_path / "other")
        tokenizers.load(folder / "small").save(tmp_path / "other")
        wrong = dict(teacher=str(tmp_path / "other"))
    with pytest.raises(ValueError, match=message):
        tune(distill, given(folder, tmp_path / "out", **wrong))


# =================================================================================================
# The command
# =================================================================================================


def start(argv, ranks=1):
    command = [sys.executable, "-m", "gpt.finetune", "distill", *argv]
    return launch(command, ranks)


def arguments(folder, out):
    more = dict(dropout=0.1, max_iters=40, save_interval=3, eval_interval=10, lora=2)
    return [f"--{name}={value}" for name, value in given(folder, out, **more).items()]


@pytest.fixture(scope="module")
def whole(folder):
    """The run that was left alone: adapters, from a teacher."""
    said = finish(start(arguments(folder, folder / "whole")))
    assert "parameters train" in said and "test loss" in said
    return folder / "whole"


def test_killed_and_resumed_it_is_the_same_bit_for_bit(folder, whole, tmp_path):
    out = tmp_path / "out"
    process = start(arguments(folder, out))
    wait_for(process, out, 15)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and load_step(out) < 40
    assert f"resuming {out} at step " in finish(start(["--init_from=resume", f"--out_dir={out}"]))
    assert_same(out, whole)
    assert (out / "adapter_model.safetensors").exists()


@pytest.mark.skipif(parallel.fault() is not None, reason="the extra mpi is not installed")
def test_two_workers_give_the_same_curve(folder, whole, tmp_path):
    argv = arguments(folder, tmp_path / "out")
    argv.remove("--workers=1")
    finish(start(argv, ranks=2))
    for line, expected in zip(lines_of(tmp_path / "out"), lines_of(whole), strict=True):
        assert line.keys() == expected.keys() and line["step"] == expected["step"]
        for name in ("train_loss", "val_loss", "val_divergence"):
            assert line.get(name) == pytest.approx(expected.get(name), abs=1e-5)
