"""What all methods of fine-tuning share: records, batches by length, what trains, resuming."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import tensorlite as tl
import tokenizer as tokenizers
from gpt import GPT, GPTConfig, Llama, LlamaConfig, data, models
from gpt.data import IGNORE, epoch_batches, inputs_and_targets, read_records, split_records
from gpt.evaluate import sequence_logprobs, token_logprobs
from gpt.finetune.epochs import EpochTask, portions
from gpt.finetune.settings import Tuning
from gpt.finetune.tune import choose_trainable, tune
from gpt.generate import evaluating
from gpt.training.loop import gradients, train_step
from gpt.training.optimizer import make_optimizer
from gpt.training.task import Batch
from tensorlite.parallel import ALONE
from tokenizer import BPETokenizer

from .test_train import ENVIRONMENT, ROOT

SIZES = dict(vocab_size=300, block_size=32, n_layer=3, n_head=2, n_embd=16)


class Continue(EpochTask):
    """To continue the texts of a column: as small as a method can be."""

    def __init__(self, settings, texts):
        self.texts = texts  # the ids of each, (N,)
        super().__init__(settings, [len(t) - 1 for t in texts], [len(t) - 1 for t in texts])

    def loss(self, model, examples, rng=None):
        rows, *_ = examples.arrays
        texts = [self.texts[i] for i in rows]
        x, y = inputs_and_targets(texts, [np.ones(len(t), bool) for t in texts])
        return -token_logprobs(model, x, y, rng).sum() / examples.whole

    def evaluate(self, model, team=ALONE):
        lengths = self.lengths
        with evaluating(model), tl.no_grad():
            total = [self.loss(model, Batch(r, whole=1)).item() for r in portions(lengths, team)]
        return {"val_loss": team.sum(sum(total)) / lengths.sum()}

    def final(self, model, team=ALONE):
        return {"test_loss": self.evaluate(model, team)["val_loss"]}


def prepare(run, records, tokenizer, model):
    texts = [np.array(tokenizer.encode(t)) for t in data.column(records, "text")]
    return Continue(run.settings, texts), model, tokenizer


METHOD = SimpleNamespace(Settings=Tuning, prepare=prepare)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a tokenizer, and a file of records."""
    folder = tmp_path_factory.mktemp("finetune")
    words = "the cat sat on the mat and the dog ran to the cat".split()
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, rng.integers(2, 9))) for _ in range(41)]
    lines = [json.dumps({"text": text}) for text in texts]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    tokenizer = BPETokenizer.train(" ".join(texts), 270, special_tokens=["<|endoftext|>"])
    GPT(GPTConfig(**SIZES)).save_pretrained(folder / "base")
    tokenizer.save(folder / "base")
    return folder


def given(folder, out, **more):
    return dict(
        init_from=str(folder / "base"),
        dataset=str(folder / "texts.jsonl"),
        out_dir=str(out),
        log_interval=1,
        warmup_iters=2,
        workers="1",
        dropout=0.1,
        **more,
    )


def lines_of(out):
    return [json.loads(line) for line in open(out / "metrics.jsonl")]


def test_a_method_learns_and_says_what_it_measured(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert tune(METHOD, given(folder, out, epochs=2, learning_rate=3e-3)) == 0
    *lines, final = lines_of(out)
    measured = [line["val_loss"] for line in lines if "val_loss" in line]
    assert [line["step"] for line in lines if "val_loss" in line] == [0, 6, 12]  # 41 by 8, twice
    assert measured[2] < measured[1] < measured[0]
    assert final["event"] == "final" and final["test_loss"] == pytest.approx(measured[2], abs=1e-6)
    said = capsys.readouterr().out
    assert "41 examples of" in said and f"test loss {final['test_loss']:.4f}" in said
    loaded = models.load(out)
    assert loaded.config.vocab_size == 300 and (out / "tensorlite-tokenizer.json").exists()
    # It is finished, until more epochs are asked for.
    resume = dict(init_from="resume", out_dir=str(out))
    assert tune(METHOD, resume) == 0 and "is finished" in capsys.readouterr().out
    assert tune(METHOD, resume | dict(epochs=3.0)) == 0
    assert [line["step"] for line in lines_of(out) if "val_loss" in line] == [0, 6, 12, 18]


def test_a_resumed_run_is_the_uninterrupted_one(folder, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    tune(METHOD, given(folder, whole, epochs=2, save_interval=1))
    import gpt.training.loop as loop

    real, calls = loop.train_step, []

    def stop(*args):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stop)
        with pytest.raises(KeyboardInterrupt):
            tune(METHOD, given(folder, out, epochs=2, save_interval=1))
    tune(METHOD, dict(init_from="resume", out_dir=str(out)))
    for a, b in zip(models.load(whole).parameters(), models.load(out).parameters()):
        assert np.array_equal(a.data, b.data)
    with pytest.raises(ValueError, match="--seed 1337, which cannot be 3 now"):
        tune(METHOD, dict(init_from="resume", out_dir=str(out), seed=3))


def test_a_run_that_began_with_other_weights_is_not_resumed(folder, tmp_path):
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(folder / "base", base)
    tune(METHOD, given(folder, out, max_iters=2) | dict(init_from=str(base)))
    model = models.load(base)
    model.parameters()[-1].data += 0.01
    model.save_pretrained(base)
    with pytest.raises(ValueError, match="base is not the one that the run in .* began with"):
        tune(METHOD, dict(init_from="resume", out_dir=str(out), max_iters=4))


def test_adapters_learn_the_tokens_of_a_template_where_the_model_has_ids_to_spare(folder, tmp_path):
    from gpt.finetune import instruct

    pytest.importorskip("jinja2")
    records = [
        {"prompt": f"the {a} {b}", "completion": a} for a in "cat dog".split() for b in "abcd"
    ]
    (tmp_path / "talk.json").write_text(json.dumps(records))
    more = dict(dataset=str(tmp_path / "talk.json"), template="chatml", lora=2, max_iters=2)
    more |= dict(val_fraction=0.3, pack=False)
    tune(instruct, given(folder, tmp_path / "out") | more)
    n = tokenizers.load(folder / "base").vocab_size
    assert n < 298 == SIZES["vocab_size"] - 2
    base, tuned = models.load(folder / "base"), models.load(tmp_path / "out")
    changed = (base.wte.weight.data != tuned.wte.weight.data).any(axis=1)
    assert changed[n : n + 2].all() and not changed[:n].any()


@pytest.mark.parametrize("make", [GPTConfig, LlamaConfig])
def test_only_what_is_chosen_trains(make):
    model = models.make(make(**SIZES))
    before = {name: value.copy() for name, value in model.state_dict().items()}
    s = Tuning(train="last:1", batch_size=4, max_iters=5)
    model = choose_trainable(model, s)
    task = Continue(s, [np.arange(3 + i) for i in range(6)])
    train_step(model, make_optimizer(model, s), task, s, 0)
    changed = {n for n, value in model.state_dict().items() if (value != before[n]).any()}
    trained = {n for n in before if n.startswith(("h.2.", "ln_f.", "layers.2.", "norm."))}
    unused = {n for n in trained if "c_attn.bias" in n}  # the keys' biases have no gradient
    assert trained - unused <= changed <= trained
    with pytest.raises(ValueError, match="the model has 3 blocks"):
        choose_trainable(model, Tuning(train="last:4"))
    with pytest.raises(ValueError, match="head is its token embedding"):
        choose_trainable(model, Tuning(train="head"))


def test_a_step_in_which_nothing_counts_changes_nothing(folder, tmp_path):
    model, s = GPT(GPTConfig(**SIZES)), Tuning(batch_size=2, max_iters=5)
    task = Continue(s, [np.arange(5), np.arange(1), np.arange(7), np.arange(1)])
    optimizer = make_optimizer(model, s)
    assert train_step(model, optimizer, task, s, 0) is not None
    task.weights[:] = 0
    before = [p.data.copy() for p in model.parameters()]
    state = [x.copy() for slot in optimizer.slots for x in optimizer.state[slot]]
    assert train_step(model, optimizer, task, s, 1) is None
    assert all(np.array_equal(p.data, b) for p, b in zip(model.parameters(), before))
    kept = [x for slot in optimizer.slots for x in optimizer.state[slot]]
    assert all(np.array_equal(x, b) for x, b in zip(kept, state))


def test_examples_of_weight_0_are_left_out():
    model, s = GPT(GPTConfig(**SIZES)), Tuning(batch_size=4, max_iters=5)
    texts = [np.arange(5), np.arange(9), np.arange(7), np.arange(1)]
    task = Continue(s, texts)
    optimizer = make_optimizer(model, s)
    batch = task.batch(0)
    assert batch.whole == 4 + 8 + 6 and 0 in batch.weights
    loss, _ = gradients(model, optimizer, task, batch, s, 0)
    x, y = inputs_and_targets(texts, [np.ones(len(t)) for t in texts])
    assert loss == pytest.approx(-sequence_logprobs(model, x, y).sum().item() / 18, abs=1e-5)


@pytest.mark.parametrize("make", [GPTConfig, LlamaConfig])
def test_logprobs_are_those_of_all_logits(make):
    model = models.make(make(**SIZES))
    rng = np.random.default_rng(1)
    ids = [rng.integers(0, 300, n) for n in (5, 1, 12)]
    x, y = inputs_and_targets(ids, [np.arange(len(i)) > 2 for i in ids])
    logits = model(x)[0].data.astype(np.float64)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = np.take_along_axis(logits, np.maximum(y, 0)[..., None], -1)[..., 0] * (y != IGNORE)
    np.testing.assert_allclose(token_logprobs(model, x, y).data, expected, atol=1e-5)
    nothing = token_logprobs(model, x, np.full_like(y, IGNORE))
    assert nothing.shape == y.shape and not nothing.data.any()


def test_batches_by_length_hold_every_row_once_and_little_padding():
    lengths = np.random.default_rng(0).integers(1, 200, 1003)
    batches = epoch_batches(lengths, 8, seed=1, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(1003))
    padded = sum(len(b) * lengths[b].max() for b in batches)
    assert padded < 1.05 * lengths.sum()
    again, other = (epoch_batches(lengths, 8, 1, epoch) for epoch in (0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again))
    assert not all(np.array_equal(a, b) for a, b in zip(batches, other))


@pytest.mark.parametrize("size", [1, 3])
def test_portions_hold_every_row_once(size):
    lengths = np.random.default_rng(0).integers(1, 300, 200)
    ranks = [portions(lengths, SimpleNamespace(rank=r, size=size)) for r in range(size)]
    rows = np.concatenate([part for rank in ranks for part in rank])
    assert sorted(rows.tolist()) == list(range(200))
    assert max(len(p) * lengths[p].max() for rank in ranks for p in rank) <= 2048


def test_more_ids_begin_at_the_mean_of_the_others():
    for make in (GPTConfig, LlamaConfig):
        model = models.make(make(**SIZES))
        grown = models.with_config(model, vocab_size=303, block_size=16, dropout=0.2)
        weight = grown.head.weight.data
        assert weight.shape == (303, 16) and grown.config.dropout == 0.2
        np.testing.assert_allclose(weight[300:], np.tile(weight[:300].mean(0), (3, 1)), atol=1e-6)
        ids = np.arange(16)[None]
        np.testing.assert_array_equal(grown.eval()(ids)[0].data[..., :300], model(ids)[0].data)


# =================================================================================================
# Records
# =================================================================================================


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_tables_and_json_give_the_same_records(tmp_path):
    expected = [{"label": "a", "text": 'say "no"\u2028, now'}, {"label": "b", "text": "x,y"}]
    files = {
        "t.tsv": 'label\ttext\na\tsay "no"\u2028, now\nb\tx,y\n',
        "t.csv": 'label,text\r\na,"say ""no""\u2028, now"\r\nb,"x,y"\r\n',
        "t.json": json.dumps(expected),
        "t.jsonl": "\n".join(map(json.dumps, expected)) + "\n\n",
    }
    for name, text in files.items():
        assert read_records(written(tmp_path, name, text)) == expected, name
    bare = written(tmp_path, "bare.tsv", files["t.tsv"].partition("\n")[2])
    assert read_records(bare, ["label", "text"]) == expected
    quoted = written(tmp_path, "lines.csv", 'a,b\n"two\nlines",1\n')
    assert read_records(quoted) == [{"a": "two\nlines", "b": "1"}]


def test_a_table_in_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"n": [1, 2], "text": ["a", "b"]}), tmp_path / "t.parquet")
    assert read_records(tmp_path / "t.parquet") == [{"n": 1, "text": "a"}, {"n": 2, "text": "b"}]
    with pytest.raises(ValueError, match="is no Parquet file"):
        read_records(written(tmp_path, "bad.parquet", "no"))


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("t.jsonl", '{"a": 1}\n\n{"a": \n', r"line 3 of .*t\.jsonl is not JSON"),
        ("t.jsonl", '{"a": 1}\n[1]\n', r"line 2 of .* is not an object with named columns"),
        ("t.json", '{"a": 1}', "holds no list of records"),
        ("t.json", "[1]", "record 1 of .* is not an object"),
        ("t.json", "[" * 100_000, "is not JSON"),
        ("t.json", "[]", "holds no records"),
        ("t.txt", " \n", "holds no records"),
        ("t.tsv", "a\tb\n1\t2\n1\n", r"line 3 of .* has 1 columns, not 2 \(a, b\)"),
        ("t.csv", 'a,b\n1,"2\n', r"line \d of .*t\.csv"),
        ("t.csv", "a,a\n1,2\n", "two columns have the same name"),
        ("t.doc", "a", r"records are read from \.tsv"),
    ],
)
def test_wrong_records_are_named(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_records(written(tmp_path, name, text))


def test_a_missing_column_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="record 2 has no column 'text'; it has label, body"):
        data.column([{"text": 1}, {"label": 1, "body": 2}], "text")


def test_a_split_has_every_row_once_and_keeps_groups_together():
    parts = split_records(1494, (0.7, 0.1, 0.2), seed=3)
    assert [len(p) for p in parts] == [1046, 149, 299]
    assert sorted(np.concatenate(parts).tolist()) == list(range(1494))
    assert not np.array_equal(parts[0], split_records(1494, (0.7, 0.1, 0.2), seed=4)[0])
    groups = np.random.default_rng(0).integers(0, 300, 1494).tolist()
    parts = split_records(1494, (0.7, 0.1, 0.2), 3, groups)
    assert sorted(np.concatenate(parts).tolist()) == list(range(1494))
    sets = [{groups[i] for i in part} for part in parts]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert all(abs(len(p) / 1494 - f) < 0.02 for p, f in zip(parts, (0.7, 0.1, 0.2)))
    with pytest.raises(ValueError, match="add up to 1"):
        split_records(10, (0.5, 0.1), 1)


# =================================================================================================
# The command
# =================================================================================================


@pytest.mark.parametrize(
    "argv, status, said",
    [
        ((), 0, "python -m gpt.finetune METHOD"),
        (("teach",), 2, "METHOD is classify, instruct"),
    ],
)
def test_the_command_says_what_it_takes(argv, status, said):
    command = [sys.executable, "-m", "gpt.finetune", *argv]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == status and said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(epochs=0.0), "--epochs is above 0"),
        (dict(train="some"), "--train is all, head or last:N"),
        (dict(train="head", lora=4), "--lora chooses what trains"),
        (dict(lora_alpha=4.0), "--lora_alpha is for --lora RANK"),
        (dict(val_fraction=0.5, test_fraction=0.5), "leave nothing to train on"),
        (dict(lora=-1), "--lora is at least 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Tuning(**wrong)


def test_llama_has_the_parts_that_train():
    model = Llama(LlamaConfig(**SIZES))
    assert len(model.blocks) == 3 and model.last_norm is model.norm
