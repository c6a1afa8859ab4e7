"""DPO and its relatives: their losses, their records, and runs of them."""

import json
import math
import signal
import sys

import numpy as np
import pytest

import tensorlite as tl
from gpt import GPT, GPTConfig, models
from gpt.data.chat import Chat, prepare_chat
from gpt.finetune import dpo, kto
from gpt.finetune.conversations import split_by_question
from gpt.finetune.dpo import Preferences, Settings, dpo_loss, ipo_loss, simpo_loss
from gpt.finetune.kto import kto_loss
from gpt.finetune.pair_task import of_both
from gpt.finetune.pairs import encode_answer, read_pairs
from gpt.finetune.reward import bradley_terry_loss
from gpt.finetune.tune import tune
from gpt.training import loop
from tensorlite import parallel
from tensorlite.device import RowRandom
from tokenizer import BPETokenizer

from .test_resume import assert_same, wait_for
from .test_task import finish, launch, lines_of

SIZES = dict(vocab_size=300, block_size=64, n_layer=2, n_head=2, n_embd=16)
WORDS = "red blue green big small old new cat dog bird".split()


def pair_records(n, seed=0):
    """The polite answer is the chosen one."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(n):
        a, b = rng.choice(WORDS, 2)
        asked = {"instruction": f"say {a} {b} {i % 50}", "input": ""}
        records.append({**asked, "chosen": f"{a} {b} please", "rejected": f"{a} {b} or else"})
    return records


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a tokenizer, and files of records."""
    folder = tmp_path_factory.mktemp("preferences")
    records = pair_records(80)
    text = " ".join(r["instruction"] + r["chosen"] + r["rejected"] for r in records)
    tokenizer = BPETokenizer.train(text, 299, special_tokens=["<|endoftext|>"])
    chatty = prepare_chat(tokenizer, "chatml")
    GPT(GPTConfig(**SIZES | dict(vocab_size=chatty.vocab_size))).save_pretrained(folder / "base")
    chatty.save(folder / "base")
    (folder / "pairs.json").write_text(json.dumps(records))
    return folder


@pytest.fixture(scope="module")
def chat(folder):
    import tokenizer

    return Chat(tokenizer.load(folder / "base"))


def task_of(chat, records, **settings):
    """A task whose reference is another model's, and a model."""
    s = Settings(val_fraction=0.2, batch_size=16, **settings)
    if s.loss == "kto":
        task = kto.Answers.of_records(s, records, chat, 65)
    else:
        texts, conversations = read_pairs(records, chat, 65)
        task = Preferences(s, texts, split_by_question(s, conversations))
    size = chat.tokenizer.vocab_size
    model, other = (GPT(GPTConfig(**SIZES | dict(vocab_size=size)), seed=i) for i in (1, 2))
    task.refer_to(other)
    return task, model


# =================================================================================================
# Losses
# =================================================================================================

# The formulas of TRL 1.16, in PyTorch: those of DPOTrainer, CPOTrainer (SimPO), KTOTrainer and
# RewardTrainer.


def theirs(name, F, c, r, n_c, n_r, ref_c, ref_r, z):
    """The losses (B,) that TRL computes from log-probabilities, (B,) each."""
    beta, smoothing, gamma = 0.3, 0.1, 0.7
    delta = (c - ref_c) - (r - ref_r)
    if name == "dpo":
        return -F.logsigmoid(beta * delta)
    if name == "smoothed":
        kept = -F.logsigmoid(beta * delta) * (1 - smoothing)
        return kept - F.logsigmoid(-beta * delta) * smoothing
    if name == "ipo":
        return ((c - ref_c) / n_c - (r - ref_r) / n_r - 1 / (2 * beta)) ** 2
    if name == "simpo":
        return -F.logsigmoid(beta * (c / n_c - r / n_r - gamma / beta))
    if name == "desirable":
        return 1 - F.sigmoid(beta * ((c - ref_c) - z))
    if name == "undesirable":
        return 1 - F.sigmoid(beta * (z - (r - ref_r)))
    return -F.logsigmoid(c - r)


def ours(name, c, r, n_c, n_r, ref_c, ref_r, z):
    yes = np.ones(len(n_c), bool)
    return {
        "dpo": lambda: dpo_loss(c - ref_c, r - ref_r, 0.3),
        "smoothed": lambda: dpo_loss(c - ref_c, r - ref_r, 0.3, label_smoothing=0.1),
        "ipo": lambda: ipo_loss((c - ref_c) / n_c, (r - ref_r) / n_r, 0.3),
        "simpo": lambda: simpo_loss(c / n_c, r / n_r, 0.3, 0.7),
        "desirable": lambda: kto_loss(c - ref_c, yes, z, 0.3),
        "undesirable": lambda: kto_loss(r - ref_r, ~yes, z, 0.3),
        "reward": lambda: bradley_terry_loss(c, r),
    }[name]()


LOSSES = "dpo smoothed ipo simpo desirable undesirable reward".split()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients_are_those_of_trl(name):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    c, r, ref_c, ref_r = rng.normal(-20, 8, (4, 9)).astype(np.float32)
    n_c, n_r = rng.integers(3, 30, (2, 9)).astype(np.float32)
    mine = [tl.tensor(x, requires_grad=True) for x in (c, r)]
    loss = ours(name, *mine, n_c, n_r, ref_c, ref_r, 1.5)
    assert loss.dtype == np.float32
    loss.mean().backward()
    their = [torch.tensor(x, requires_grad=True) for x in (c, r)]
    more = [torch.tensor(x) for x in (n_c, n_r, ref_c, ref_r)]
    expected = theirs(name, torch.nn.functional, *their, *more, 1.5)
    expected.mean().backward()
    np.testing.assert_allclose(loss.numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-5)
    for a, b in zip(mine, their):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_losses_of_large_margins_are_exact():
    x = tl.tensor(np.array([-1e4, -200.0, 0.0, 200.0, 1e4], np.float32), requires_grad=True)
    loss = dpo_loss(x, tl.tensor(np.zeros(5, np.float32)), 1.0)
    loss.sum().backward()
    np.testing.assert_allclose(loss.numpy(), [1e4, 200, math.log(2), 0, 0], atol=1e-6)
    np.testing.assert_allclose(x.grad, [-1, -1, -0.5, 0, 0], atol=1e-6)


def test_logprobs_of_answers_are_those_of_pytorch(chat):
    torch = pytest.importorskip("torch")
    task, model = task_of(chat, pair_records(12))
    numbers = np.arange(24)
    measured = task.measure(model, numbers)
    for i in numbers:
        ids, counted = task.texts[i]
        logits = torch.tensor(model(ids[None])[0].numpy()[0, :-1])
        logprobs = torch.log_softmax(logits, -1).gather(-1, torch.tensor(ids[1:, None]))[:, 0]
        expected = logprobs[torch.tensor(counted[1:])].sum().item()
        assert measured[i] == pytest.approx(expected, abs=1e-5 * abs(expected))
        assert chat.tokenizer.decode(ids[counted].tolist()).endswith("<|im_end|>")
        assert task.tokens[i] == counted.sum()


@pytest.mark.parametrize("loss", ["dpo", "ipo", "simpo", "kto"])
def test_the_loss_is_that_of_each_pair_alone(chat, loss):
    """In batches and parts of them, padded, it is what the plain computation gives."""
    task, model = task_of(chat, pair_records(12), loss=loss, sft_weight=0.5, desirable_weight=2.0)
    s, examples = task.settings, task.batch(0, model)
    rows = examples.arrays[0]
    plain = []
    for row in rows:
        number = task.train[row]
        logprobs = []
        for i in (2 * number, 2 * number + 1):
            ids, counted = task.texts[i]
            x = tl.log_softmax(model(ids[None])[0], axis=-1)[0]
            at = np.flatnonzero(counted[1:])
            logprobs.append(x[at, ids[1:][at]].sum())
        (c, r), (n_c, n_r) = logprobs, task.tokens[[2 * number, 2 * number + 1]].tolist()
        ref_c, ref_r = task.reference[[2 * number, 2 * number + 1]].tolist()
        wanted, sft = True, -c / n_c * s.sft_weight
        if loss == "dpo":
            plain.append(dpo_loss(c - ref_c, r - ref_r, s.beta) + sft)
        elif loss == "ipo":
            plain.append(ipo_loss((c - ref_c) / n_c, (r - ref_r) / n_r, s.beta) + sft)
        elif loss == "simpo":
            plain.append(simpo_loss(c / n_c, r / n_r, s.beta, s.gamma) + sft)
        else:
            wanted, z = bool(task.desirable[number]), float(examples.arrays[2][0])
            one = kto_loss(c - ref_c, np.array(wanted), z, s.beta)
            plain.append(2 * one + sft if wanted else one)
    tl.stack(plain).mean().backward()
    expected = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = None
    total = 0.0
    for part in (examples[:3], examples[3:]):
        loss_of_part = task.loss(model, part)
        loss_of_part.backward()
        total += loss_of_part.item()
    assert total == pytest.approx(tl.stack(plain).mean().item(), abs=1e-5)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), expected[name], atol=1e-5, err_msg=name)


def test_each_text_has_dropout_of_its_own(chat):
    task, model = task_of(chat, pair_records(12))
    model = models.with_config(model, dropout=0.5)
    examples = task.batch(0, model)

    def loss(first, last):
        rng = RowRandom(1, "dropout", 0, rows=range(first, last))
        return task.loss(model, examples[first:last], rng).item()

    whole = loss(0, len(examples))
    assert whole == loss(0, len(examples)) != task.loss(model, examples).item()
    rng = RowRandom(1, "dropout", 0, rows=[3, 5])
    assert of_both(rng).rows.tolist() == [6, 10, 7, 11] and rng.rows == [3, 5]


def test_kto_measures_how_far_the_model_is_from_the_reference(chat):
    task, model = task_of(chat, pair_records(12), loss="kto")
    z = task.batch(0, model).arrays[2]
    assert len({*z.tolist()}) == 1 and z[0] >= 0
    rows = task.batch(0, model).arrays[0]
    texts = 2 * task.train[rows] + 1
    far = task.measure(model, texts) - task.reference[texts]
    assert z[0] == pytest.approx(max(0, far.mean()), abs=1e-5)
    task.refer_to(model)
    np.testing.assert_allclose(task.batch(0, model).arrays[2], 0, atol=1e-6)
    # A mismatched text: the prompt of its answer, and then the answer to another prompt.
    own, mixed = task.texts[texts[0] - 1], task.texts[texts[0]]
    prompt = int(np.argmax(own[1]))
    assert own[0][:prompt].tolist() == mixed[0][:prompt].tolist() and not mixed[1][:prompt].any()
    assert own[0].tolist() != mixed[0].tolist() and mixed[1][prompt]


# =================================================================================================
# Records
# =================================================================================================


def test_all_forms_of_a_pair_are_the_same_pair(chat):
    asked = [{"role": "user", "content": "say red"}]
    said = {"chosen": "red please", "rejected": "red or else"}
    messages = {k: [{"role": "assistant", "content": v}] for k, v in said.items()}
    forms = [
        {"instruction": "say red", "input": "", "output": "red", **said},
        {"prompt": "say red", **said},
        {"prompt": asked, **messages},
        {"prompt": "say red", **messages},
        {k: asked + v for k, v in messages.items()},
    ]
    texts, conversations = read_pairs(forms, chat, 65)
    assert len(texts) == 10 and all(c == conversations[0] for c in conversations)
    for i in range(10):
        assert all(np.array_equal(a, b) for a, b in zip(texts[i], texts[i % 2]))
    whole = chat.tokenizer.decode(texts[1][0].tolist())
    assert "say red" in whole and "red or else" in whole


def test_only_the_last_answer_counts(chat):
    words = ["say red", "red", "say blue", "blue please"]
    messages = [{"role": r, "content": w} for r, w in zip(["user", "assistant"] * 2, words)]
    ids, counted = encode_answer(chat, messages)
    assert chat.tokenizer.decode(ids[counted].tolist()) == "blue please<|im_end|>"


def test_what_is_left_out_is_counted(chat, capsys):
    records = pair_records(5)
    records[1]["rejected"] = records[1]["chosen"]
    records[3]["rejected"] = "cat " * 80
    texts, conversations = read_pairs(records, chat, 65)
    assert len(texts) == 6 and len(conversations) == 3
    said = capsys.readouterr().out
    assert "1 of 5 records are left out: chosen and rejected are equal" in said
    assert "1 of 5 records are left out: an answer would end beyond the 65" in said


def test_pairs_of_one_prompt_stay_together(chat):
    task, _ = task_of(chat, pair_records(30) + pair_records(30))
    prompts = [json.dumps(t[0][: np.argmax(t[1])].tolist()) for t in task.texts[::2]]
    sets = [{prompts[i] for i in part} for part in (task.train, task.val, task.test)]
    assert all(sets) and not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])


def test_accuracy_of_kto_compares_all_with_all(chat):
    task, model = task_of(chat, pair_records(12), loss="kto")
    rewards = (task.measure(model, 2 * task.train) - task.reference[2 * task.train]).round(1)
    task.reference[2 * task.train] = -1
    desirable = task.desirable[task.train]
    logprobs = tl.tensor(rewards - 1)  # rounded, so that some of them are equal
    figures = task.figures(task.train, logprobs, logprobs)
    wins = [(a > b) + (a == b) / 2 for a in rewards[desirable] for b in rewards[~desirable]]
    assert figures["accuracy"] == pytest.approx(np.mean(wins)) and 0.5 in wins


def test_kto_takes_single_answers_and_pairs(chat):
    pairs = pair_records(20)
    singles = []
    for r in pairs:
        for name, label in (("chosen", True), ("rejected", "False")):
            asked = {"prompt": r["instruction"], "completion": r[name]}
            singles.append(asked | {"desirable" if label is True else "label": label})
    a, b = (task_of(chat, records, loss="kto")[0] for records in (pairs, singles))
    assert a.desirable.tolist() == b.desirable.tolist() == [True, False] * 20
    answers = zip(a.texts[::2], b.texts[::2], strict=True)
    assert all(np.array_equal(x, y) for one, other in answers for x, y in zip(one, other))
    whole, _ = task_of(chat, pairs)  # as DPO divides them
    for part, of_pairs in zip((a.train, a.val, a.test), (whole.train, whole.val, whole.test)):
        assert (part // 2).tolist() == np.repeat(of_pairs, 2).tolist()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(rejected=None), r"record 2: message 1, of assistant, has no text"),
        (dict(chosen="  "), "record 2: .* has no text"),
        (dict(chosen=[{"role": "user", "content": "a"}]), "record 2: .* not of assistant|answer"),
        (dict(instruction=3), "record 2: message 0, of user, has no text: 3"),
    ],
)
def test_what_is_no_pair_is_refused_by_number(chat, change, message):
    records = pair_records(3)
    records[1] |= change
    with pytest.raises(ValueError, match=message):
        read_pairs(records, chat, 65)


def test_other_records_are_refused(chat):
    with pytest.raises(ValueError, match="record 1: there is no column 'chosen', only a"):
        read_pairs([{"a": "x"}], chat, 65)
    turns = [[{"role": "user", "content": q}, {"role": "assistant", "content": "x"}] for q in "ab"]
    with pytest.raises(ValueError, match="record 1: chosen and rejected are answers to different"):
        read_pairs([dict(chosen=turns[0], rejected=turns[1])], chat, 65)
    for label in (None, "good", 2, [True], math.nan):
        with pytest.raises(ValueError, match="record 1: `desirable` .* is true or false"):
            kto.read_answers([dict(prompt="a", completion="b", desirable=label)], chat, 65)
    answers = [dict(prompt=str(i), completion="b", label=1) for i in range(20)]
    with pytest.raises(ValueError, match="the 12 answers to train are all alike"):
        kto.Answers.of_records(Settings(val_fraction=0.2, test_fraction=0.2), answers, chat, 65)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(loss="ppo"), "--loss is dpo, ipo, simpo or kto, not 'ppo'"),
        (dict(beta=0.0), "--beta is above 0"),
        (dict(beta=math.nan), "--beta is above 0"),
        (dict(label_smoothing=0.5), "--label_smoothing is at least 0 and below 0.5"),
        (dict(sft_weight=-1.0), "--sft_weight is at least 0"),
        (dict(desirable_weight=0.0), "--desirable_weight is above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)


# =================================================================================================
# Runs
# =================================================================================================


def given(folder, out, **more):
    return dict(
        init_from=str(folder / "base"),
        dataset=str(folder / "pairs.json"),
        out_dir=str(out),
        val_fraction=0.2,
        log_interval=1,
        warmup_iters=2,
        workers="1",
        **more,
    )


def test_dpo_begins_at_ln_2_and_learns(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert tune(dpo, given(folder, out, epochs=4, learning_rate=3e-3)) == 0
    first, second, *_, last, final = lines_of(out)
    assert first["step"] == 0 and f"{first['val_loss']:.6f}" == "0.693147"
    assert first["val_loss"] == pytest.approx(math.log(2), abs=1e-8)
    assert first["val_accuracy"] == 0.5 and first["val_margin"] == first["val_chosen_rise"] == 0
    assert second["train_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert final["test_accuracy"] > 0.9 and final["test_margin"] > 0.1
    assert last["val_loss"] < 0.6 and last["val_accuracy"] > 0.9
    rise = last["val_chosen_loss"] / first["val_chosen_loss"] - 1
    assert last["val_chosen_rise"] == pytest.approx(rise, abs=1e-6)
    assert f"test accuracy {final['test_accuracy']:.4f}" in capsys.readouterr().out


def test_adapters_begin_at_ln_2_and_learn(folder, tmp_path):
    out = tmp_path / "out"
    tune(dpo, given(folder, out, epochs=4, learning_rate=1e-2, lora=4))
    first, *_, final = lines_of(out)
    assert first["val_loss"] == pytest.approx(math.log(2), abs=1e-8)
    assert final["test_accuracy"] > 0.9 and final["test_margin"] > 0.05


@pytest.mark.parametrize("loss, beta", [("ipo", 0.3), ("simpo", 2.0), ("kto", 0.3)])
def test_its_relatives_learn(folder, tmp_path, loss, beta):
    out = tmp_path / "out"
    tune(dpo, given(folder, out, epochs=3, learning_rate=3e-3, loss=loss, beta=beta))
    first, *_, last, final = lines_of(out)
    assert last["val_loss"] < first["val_loss"] and final["test_margin"] > first["val_margin"]
    assert final["test_accuracy"] > 0.8
    if loss == "kto":
        assert first["val_loss"] == 0.5 and first["val_divergence"] == 0


def test_the_loss_of_chosen_answers_keeps_them_likely(folder, tmp_path):
    rises = []
    for weight in (0.0, 2.0):
        out = tmp_path / str(weight)
        tune(dpo, given(folder, out, epochs=3, learning_rate=3e-3, sft_weight=weight))
        rises.append(lines_of(out)[-1]["test_chosen_rise"])
    assert rises[1] < min(rises[0], 0)


def test_a_template_and_its_tokens_come_with_the_model(folder, tmp_path):
    import tokenizer

    plain = BPETokenizer.train("say red blue please", 270, special_tokens=["<|endoftext|>"])
    GPT(GPTConfig(**SIZES | dict(vocab_size=270))).save_pretrained(tmp_path / "base")
    plain.save(tmp_path / "base")
    more = given(folder, tmp_path / "out", max_iters=1) | dict(init_from=str(tmp_path / "base"))
    tune(dpo, more | dict(template="chatml"))
    assert models.load(tmp_path / "out").config.vocab_size == 272
    assert tokenizer.load(tmp_path / "out").chat_template is not None


ARGV = (
    "--val_fraction=0.2 --max_iters=60 --learning_rate=1e-3 --eval_interval=20 --save_interval=9 "
    "--log_interval=1 --warmup_iters=5 --overwrite=False --dropout=0.1"
).split()


def start(method, folder, out, *argv, ranks=1):
    command = [sys.executable, "-m", "gpt.finetune", method, "--out_dir", str(out), *argv]
    if "--init_from=resume" not in argv:
        command += [f"--init_from={folder / 'base'}", f"--dataset={folder / 'pairs.json'}"]
    return launch(command, ranks)


def check_resumed_after_a_kill(method, folder, whole, out):
    process = start(method, folder, out, *ARGV, "--workers=1")
    wait_for(process, out, 20)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL  # it was not done
    said = finish(start(method, folder, out, "--init_from=resume"))
    assert f"resuming {out} at step " in said
    assert_same(out, whole)


def check_same_curve(out, whole):
    for line, expected in zip(lines_of(out), lines_of(whole), strict=True):
        assert line.keys() == expected.keys() and line["step"] == expected["step"]
        for name in expected.keys() - {"tokens_per_second", "seconds", "event"}:
            assert line[name] == pytest.approx(expected[name], abs=2e-4), name


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """The run that was left alone."""
    out = tmp_path_factory.mktemp("whole") / "out"
    finish(start("dpo", folder, out, *ARGV, "--workers=1"))
    return out


def test_killed_and_resumed_it_is_the_same_bit_for_bit(folder, whole, tmp_path):
    check_resumed_after_a_kill("dpo", folder, whole, tmp_path / "out")


def test_kto_is_resumed_as_if_it_had_not_stopped(folder, tmp_path, monkeypatch):
    settings = dict(loss="kto", max_iters=9, save_interval=1, dropout=0.1)
    tune(dpo, given(folder, tmp_path / "whole", **settings))
    real, calls = loop.train_step, []

    def stop(*args):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stop)
        with pytest.raises(KeyboardInterrupt):
            tune(dpo, given(folder, tmp_path / "out", **settings))
    tune(dpo, dict(init_from="resume", out_dir=str(tmp_path / "out")))
    assert_same(tmp_path / "out", tmp_path / "whole")


needs_mpi = pytest.mark.skipif(
    parallel.fault() is not None, reason="the extra mpi is not installed"
)


@needs_mpi
def test_two_workers_give_the_same_curve(folder, whole, tmp_path):
    finish(start("dpo", folder, tmp_path / "out", *ARGV, ranks=2))
    assert lines_of(tmp_path / "out")[0]["val_loss"] == pytest.approx(math.log(2), abs=1e-8)
    check_same_curve(tmp_path / "out", whole)


@needs_mpi
def test_two_workers_agree_on_how_far_the_model_is(folder, tmp_path):
    one, two, more = tmp_path / "1", tmp_path / "2", dict(loss="kto", max_iters=5)
    tune(dpo, given(folder, one, **more))
    argv = "--loss=kto --max_iters=5 --val_fraction=0.2 --log_interval=1 --warmup_iters=2".split()
    finish(start("dpo", folder, two, *argv, ranks=2))
    check_same_curve(two, one)
