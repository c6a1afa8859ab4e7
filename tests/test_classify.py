"""Fine-tuning for labels, and gpt.classify: what is learned, saved, resumed, printed, refused."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import tensorlite as tl
import tokenizer as tokenizers
from gpt import GPT, Classifier, GPTConfig, load_classifier
from gpt.classify import main as classify
from gpt.data import split_records
from gpt.finetune import classify as method
from gpt.finetune.classify import Settings, losses, prepare
from gpt.finetune.labels import balanced, class_weights, read_labelled
from gpt.finetune.scores import scores, text_ids
from gpt.finetune.tune import tune
from gpt.training.loop import gradients
from gpt.training.optimizer import make_optimizer
from tensorlite import parallel
from tokenizer import BPETokenizer, CharTokenizer

from .test_resume import assert_same, wait_for
from .test_task import finish, launch, lines_of

HAM, SPAM = "see you at home in the evening then".split(), "you won 1000 call 0906 NOW".split()


def drawn(n=150, seed=0):
    """Records of texts whose words say what they are, a third of them spam."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(n):
        label, words = ("spam", SPAM) if i % 3 == 0 else ("ham", HAM)
        records.append({"label": label, "text": " ".join(rng.choice(words, rng.integers(4, 9)))})
    return records


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a tokenizer, and a table of records without a header line."""
    folder, records = tmp_path_factory.mktemp("classify"), drawn()
    texts = [record["text"] for record in records]
    tokenizer = BPETokenizer.train(texts, 280, special_tokens=["<|endoftext|>"])
    GPT(GPTConfig(281, 32, 2, 2, 16, bias=False)).save_pretrained(folder / "base")
    tokenizer.save(folder / "base")
    lines = [f"{record['label']}\t{record['text']}\n" for record in records]
    (folder / "sms.tsv").write_text("".join(lines))
    return folder


def given(folder, out, **more):
    return dict(
        init_from=str(folder / "base"),
        dataset=str(folder / "sms.tsv"),
        columns="label,text",
        out_dir=str(out),
        val_fraction=0.2,
        test_fraction=0.2,
        learning_rate=1e-2,
        warmup_iters=2,
        workers="1",
        **more,
    )


def start(folder, out, *argv, ranks=1):
    options = [
        f"--{name}={value}" for name, value in (given(folder, out) | dict(workers=ranks)).items()
    ]
    command = [sys.executable, "-m", "gpt.finetune", "classify", *options, *argv]
    return launch(command, ranks)


RUN = ["--epochs=4", "--dropout=0.1", "--token_dropout=0.1", "--log_interval=1"]
RUN += ["--class_weights=balanced", "--save_interval=5", "--mask_digits=True"]


@pytest.fixture(scope="module")
def whole(folder):
    """A run that was left alone, and what it printed."""
    out = folder / "out"
    return SimpleNamespace(out=out, said=finish(start(folder, out, *RUN)))


# ---- a run ---------------------------------------------------------------------------------------


def test_it_learns_and_says_how_well(whole):
    *lines, final = lines_of(whole.out)
    measured = [line for line in lines if "val_loss" in line]
    assert [line["step"] for line in measured] == [0, 12, 24, 36, 48]  # 90 by 8, four times
    assert all(line.keys() == {"step", "val_loss", "val_accuracy"} for line in measured)
    assert measured[0]["val_accuracy"] < 0.9 < 0.95 < measured[-1]["val_accuracy"]
    assert final["test_accuracy"] > 0.95 and final["test"]["texts"] == 30
    assert final["test_accuracy"] == final["test"]["accuracy"] and final["texts_cut"] == 0
    assert 0 <= final["test_accuracy_error"] < 0.1
    assert "precision" in whole.said and "30 test texts" in whole.said
    model = load_classifier(whole.out)
    assert model.labels == ("ham", "spam") and model.config.pad_token_id == 279


def test_pictures_of_a_run(whole):
    pytest.importorskip("matplotlib")
    assert {"loss.png", "confusion.png", "reliability.png"} <= {p.name for p in whole.out.iterdir()}


def test_killed_and_resumed_it_is_the_same_bit_for_bit(folder, whole, tmp_path):
    out, argv = tmp_path / "out", RUN
    for lines in (10, 40):
        process = start(folder, out, *argv)
        wait_for(process, out, lines)
        process.kill()
        process.communicate()
        argv = [*RUN, "--init_from=resume"]
    assert f"resuming {out} at step " in finish(start(folder, out, *argv))
    assert_same(out, whole.out)


@pytest.mark.skipif(parallel.fault() is not None, reason="the extra mpi is not installed")
def test_two_workers_give_the_same_curve(folder, whole, tmp_path):
    finish(start(folder, tmp_path / "out", *RUN, ranks=2))
    for line, expected in zip(lines_of(tmp_path / "out"), lines_of(whole.out), strict=True):
        assert line.keys() == expected.keys() and line["step"] == expected["step"]
        for name in ("train_loss", "val_loss", "test_accuracy"):
            assert line.get(name) == pytest.approx(expected.get(name), abs=1e-3)


@pytest.mark.parametrize(
    "how, at_most",
    [
        (dict(train="head"), 32),
        (dict(train="last:1"), 12 * 16 * 16 + 3 * 16 + 32),
        (dict(lora=2), 4000),
    ],
)
def test_less_than_all_can_train(folder, how, at_most, tmp_path, capsys):
    assert tune(method, given(folder, tmp_path / "out", max_iters=30, **how)) == 0
    said = capsys.readouterr().out
    n = int(said.partition(" ")[0].replace(",", ""))
    assert 0 < n <= at_most
    model, base = load_classifier(tmp_path / "out"), GPT.from_pretrained(folder / "base")
    kept = np.array_equal(
        model.body.h[0].attn.c_attn.weight.data, base.h[0].attn.c_attn.weight.data
    )
    assert kept == ("lora" not in how)
    assert np.array_equal(model.body.wte.weight.data, base.wte.weight.data)
    assert model.score.weight.data.any()
    assert classify([str(tmp_path / "out"), "you won 1000"]) == 0
    assert capsys.readouterr().out.split("\t")[0] in ("ham", "spam")


def test_the_head_alone_begins_and_ends_on_the_body_of_the_base(folder, tmp_path):
    tune(method, given(folder, tmp_path / "out", max_iters=1, train="head"))
    model, base = load_classifier(tmp_path / "out"), GPT.from_pretrained(folder / "base")
    ids = np.arange(12)[None]
    np.testing.assert_array_equal(model.body.hidden(ids).numpy(), base.hidden(ids).numpy())


def test_numbers(folder, tmp_path, capsys):
    records = [{"text": r["text"], "stars": 3 if r["label"] == "spam" else 1} for r in drawn()]
    (tmp_path / "stars.json").write_text(json.dumps(records))
    how = given(folder, tmp_path / "out", problem="regression", label_column="stars", epochs=10)
    tune(method, how | dict(dataset=str(tmp_path / "stars.json"), columns=None))
    final = lines_of(tmp_path / "out")[-1]
    assert final["test_root_mean_squared_error"] < 0.5 and final["test"]["r2"] > 0.7
    assert "root mean squared error" in capsys.readouterr().out
    assert classify([str(tmp_path / "out"), "you won 1000 call 0906", "see you at home"]) == 0
    high, low = map(float, capsys.readouterr().out.split())
    assert high == pytest.approx(3, abs=0.8) and low == pytest.approx(1, abs=0.8)


def test_several_labels(folder, tmp_path, capsys):
    records = []
    for record in drawn(200):
        some = [name for name in ("won", "home", "0906") if name in record["text"]]
        records.append({"text": record["text"], "label": ";".join(some)})
    lines = [json.dumps(record) for record in records]
    (tmp_path / "words.jsonl").write_text("\n".join(lines))
    how = given(folder, tmp_path / "out", problem="multi", label_separator=";", epochs=12)
    tune(method, how | dict(dataset=str(tmp_path / "words.jsonl"), columns=None))
    final = lines_of(tmp_path / "out")[-1]
    assert final["test"]["macro_f1"] > 0.8 and "confusion" not in final["test"]
    capsys.readouterr()
    texts = ["you won 0906 call 0906", "see you at home", "then in the evening"]
    assert classify([str(tmp_path / "out"), *texts]) == 0
    both, one, none = capsys.readouterr().out.splitlines()
    assert set(both.split("\t")[::2]) == {"won", "0906"} and one.split("\t")[0] == "home"
    assert none == "-"
    assert classify([str(tmp_path / "out"), "--all", "then"]) == 0
    assert set(capsys.readouterr().out.split("\t")[::2]) == {"won", "home", "0906"}


# ---- how texts are read --------------------------------------------------------------------------


def prepared(records, tokenizer=None, model=None, **how):
    """(task, classifier, tokenizer) of some records."""
    tokenizer = tokenizer or BPETokenizer.train([r["text"] for r in records], 280)
    model = model or GPT(GPTConfig(tokenizer.vocab_size, 32, 1, 2, 16))
    settings = Settings(**dict(val_fraction=0.2, test_fraction=0.2, warmup_iters=1) | how)
    return prepare(SimpleNamespace(settings=settings), records, tokenizer, model)


def test_padding_and_company_never_change_a_result():
    task, model, _ = prepared(drawn())
    model.eval()
    together = scores(model, task.ids)
    with tl.no_grad():
        alone = [model(ids[None], [len(ids)]).numpy()[0] for ids in task.ids]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert min(map(len, task.ids)) < max(map(len, task.ids))


def test_the_parts_of_a_step_add_up_to_it():
    task, model, _ = prepared(drawn(), class_weights="ham=1,spam=3", token_dropout=0.2)
    batch = task.batch(5)
    parts = [task.loss(model, batch[i : i + 3]).item() for i in range(0, 8, 3)]
    assert sum(parts) == pytest.approx(task.loss(model, batch).item(), abs=1e-6)
    rows, *_ = batch.arrays
    texts = task.training[rows]
    ids = [task.drop_tokens(task.ids[text], text, 5, model) for text in texts]
    each = [losses(model(x[None], [len(x)]), task.targets[[t]], model.problem).item()
            for x, t in zip(ids, texts)]  # fmt: skip
    weights = np.where(task.targets[texts] == 1, 3, 1)
    assert sum(parts) == pytest.approx(np.average(each, weights=weights), abs=1e-5)


def test_dropped_tokens_are_drawn_anew_for_each_step_and_text():
    task, model, _ = prepared(drawn(), token_dropout=0.5)
    ids = np.arange(100)
    draws = [task.drop_tokens(ids, *key, model) for key in ((3, 7), (3, 7), (3, 8), (4, 7))]
    assert np.array_equal(draws[0], draws[1])
    assert not any(np.array_equal(draws[0], other) for other in draws[2:])
    changed = draws[0] != ids
    assert 30 < changed.sum() < 70 and set(draws[0][changed]) == {model.config.pad_token_id}


def test_a_label_that_weighs_nothing_teaches_nothing():
    task, model, _ = prepared(drawn(), class_weights="ham=0", batch_size=90)
    s = task.settings
    optimizer = make_optimizer(model, s)
    loss, _ = gradients(model, optimizer, task, task.batch(0), s, 0)
    spam = task.training[task.targets[task.training] == 1]
    logits = tl.tensor(scores(model, [task.ids[t] for t in spam]))
    assert loss == pytest.approx(losses(logits, task.targets[spam], model.problem).mean().item())


def test_small_letters_and_digits_stay_with_the_model(folder, tmp_path, capsys):
    tune(method, given(folder, tmp_path / "out", max_iters=2, lowercase=True, mask_digits=True))
    tokenizer = tokenizers.load(tmp_path / "out")
    assert tokenizer.normalizer == ("lowercase", ("digits", "0"))
    classify([str(tmp_path / "out"), "--all", "CALL 0906", "call 1234", "call O"])
    one, same, other = capsys.readouterr().out.splitlines()[-3:]
    assert one == same != other


@pytest.mark.parametrize("side, kept", [("right", slice(None, 4)), ("left", slice(-4, None))])
def test_long_texts_are_cut_and_counted(side, kept, capsys):
    records = drawn()
    task, model, tokenizer = prepared(records, max_length=4, truncation_side=side)
    whole = [tokenizer.encode_ordinary(record["text"]) for record in records]
    n = sum(len(ids) > 4 for ids in whole)
    assert task.n_cut == n > 0 and model.config.block_size == 4
    lost = {"right": "ends", "left": "beginnings"}[side]
    assert f"{n} of 150 texts are longer than 4 tokens: their {lost}" in capsys.readouterr().out
    assert all(ids.tolist() == full[kept] for ids, full in zip(task.ids, whole))


def test_where_texts_are_cut_is_saved(folder, tmp_path):
    tune(method, given(folder, tmp_path / "out", max_iters=1, max_length=3, truncation_side="left"))
    model = load_classifier(tmp_path / "out")
    assert (model.truncation_side, model.config.block_size) == ("left", 3)


def test_a_tokenizer_without_an_end_gets_one_for_padding():
    records = drawn()
    for tokenizer in (CharTokenizer.train("".join(r["text"] for r in records)), None):
        task, model, made = prepared(records, tokenizer)
        pad = model.config.pad_token_id
        assert made.special_tokens == {"<|endoftext|>": pad} and pad == model.config.vocab_size - 1
    rows, _ = text_ids(model, made, ["", "a"])
    assert rows[0].tolist() == [pad] and len(rows[1]) == 1


def test_ids_around_a_text_are_kept_and_padding_at_its_end_is_not():
    _, model, tokenizer = prepared(drawn(), max_length=6)
    pad = model.config.pad_token_id
    tokenizer.prefix_ids, tokenizer.suffix_ids = [5], [6, pad]
    (row,), n_cut = text_ids(model, tokenizer, ["see you at home in the evening then"])
    assert (row[0], row[-1], len(row), n_cut) == (5, 6, 5, 1)


# ---- labels --------------------------------------------------------------------------------------


def test_labels_are_read_as_they_come():
    records = [
        {"text": "a", "label": True},
        {"text": "b", "label": " x "},
        {"text": "c", "label": 3},
    ]
    assert read_labelled(records, "text", "label", "single").labels == ("3", "True", "x")
    several = [{"text": "a", "label": "x; y"}, {"text": "b", "label": ["y"]}]
    several.append({"text": "c", "label": ""})
    made = read_labelled(several, "text", "label", "multi", separator=";")
    assert made.targets.tolist() == [[True, True], [False, True], [False, False]]
    numbers = read_labelled([{"text": "a", "n": "1.5"}], "text", "n", "regression")
    assert (numbers.labels, numbers.targets.tolist()) == (("n",), [[1.5]])


def test_balanced_keeps_as_many_of_each():
    targets = np.array([0, 0, 1, 2, 0, 1, 2, 2, 0])
    rows = balanced(targets, seed=1)
    assert np.bincount(targets[rows]).tolist() == [2, 2, 2] and (np.diff(rows) > 0).all()
    assert np.array_equal(rows, balanced(targets, 1))
    assert any(not np.array_equal(rows, balanced(targets, seed)) for seed in range(2, 6))
    task, *_ = prepared(drawn(), balance=True)
    assert len(task.ids) == 100 and np.bincount(task.targets).tolist() == [50, 50]


def test_class_weights_are_those_of_scikit_learn():
    compute = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight
    targets = np.array([0, 0, 0, 1, 2, 2])
    expected = compute("balanced", classes=np.arange(3), y=targets)
    np.testing.assert_allclose(class_weights("balanced", ["a", "b", "c"], targets), expected)
    assert class_weights("c=2.5", ["a", "b", "c"], targets).tolist() == [1, 1, 2.5]


def test_equal_texts_stay_on_one_side(folder):
    records = [{**record, "who": [record["text"]]} for record in drawn(60) * 3]
    task, *_ = prepared(records, group_column="who")  # lists, as JSON may have them
    sides = [{records[i]["text"] for i in part} for part in (task.training, task.test)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    rows = split_records(180, (0.6, 0.2, 0.2), 1337, [r["text"] for r in records])
    assert np.array_equal(task.test, rows[2])


def test_losses_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((5, 3)).astype(np.float32) * 20
    x, f = torch.tensor(logits), torch.nn.functional
    targets = np.array([0, 2, 1, 1, 0])
    several, numbers = rng.random((5, 3)) < 0.5, rng.random((5, 3)).astype(np.float32)
    cases = {
        "single_label_classification": (targets, f.cross_entropy(x, torch.tensor(targets))),
        "multi_label_classification": (
            several,
            f.binary_cross_entropy_with_logits(x, torch.tensor(several).float()),
        ),
        "regression": (numbers, f.mse_loss(x, torch.tensor(numbers))),
    }
    for problem, (target, expected) in cases.items():
        ours = losses(tl.tensor(logits), target, problem)
        assert ours.shape == (5,)
        assert ours.mean().item() == pytest.approx(expected.item(), rel=1e-5)


# ---- what cannot be ------------------------------------------------------------------------------

TEXT = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]


@pytest.mark.parametrize(
    "records, how, message",
    [
        (TEXT, dict(text_column="body"), "record 1 has no column 'body'; it has text, label"),
        (TEXT, dict(label_column="kind"), "no column 'kind'"),
        ([*TEXT, {"text": 3, "label": "x"}], {}, "record 3 has no text in 'text', but 3"),
        ([*TEXT, {"text": "c", "label": None}], {}, "record 3 has no label in 'label', but None"),
        ([*TEXT, {"text": "c", "label": " "}], {}, "record 3 has no label"),
        (TEXT, dict(labels="x,z"), "record 2 has the label 'y', and the labels are x, z"),
        (TEXT, dict(labels="x,y,z"), "the label 'z' has no example: the counts are .*'z': 0"),
        (
            TEXT * 30 + [{"text": "c", "label": "z"}],
            dict(seed=0),
            "the label 'z' has no example to",
        ),
        (TEXT[:1], {}, "all texts have the label 'x': there is nothing to choose"),
        (TEXT, dict(problem="regression"), "record 1 has no number in 'label', but 'x'"),
        ([{"text": "a", "label": "nan"}], dict(problem="regression"), "no number"),
        ([{"text": "a", "label": 10**400}], dict(problem="regression"), "no number"),
        ([{"text": "a", "label": "-1e39"}], dict(problem="regression"), "no number"),
        ([{"text": "a", "label": 3}], dict(problem="multi"), "record 1 has no labels"),
        ([{"text": "a", "label": ""}], dict(problem="multi"), "no text has a label"),
        (TEXT * 9, dict(val_fraction=0.0), "none of 18 texts is left to validate on"),
        (TEXT * 9, dict(max_length=64), "--max_length 64 is beyond the model's context of 32"),
        (TEXT * 9, dict(class_weights="x=1,w=2"), "not 'w=2'; the labels are x, y"),
        (TEXT * 9, dict(class_weights="x=-1"), "not 'x=-1'"),
        (TEXT * 9, dict(group_column="who"), "no column 'who'"),
    ],
)
def test_records_that_cannot_be_learned_from(records, how, message):
    with pytest.raises(ValueError, match=message):
        prepared(records, BPETokenizer([]), **how)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(problem="ranking"), "--problem is single, multi, regression"),
        (dict(truncation_side="middle"), "--truncation_side is right or left"),
        (dict(token_dropout=1.0), "--token_dropout"),
        (dict(max_length=0), "--max_length is at least 1"),
        (dict(label_separator=""), "--label_separator"),
        (dict(balance=True, problem="multi"), "--balance is for --problem single"),
        (dict(class_weights="balanced", problem="regression"), "--class_weights is for --problem"),
    ],
)
def test_settings_that_cannot_work(wrong, message):
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)


def test_small_letters_need_a_tokenizer_that_keeps_them():
    with pytest.raises(ValueError, match="changes no text before it is cut"):
        prepared(drawn(), CharTokenizer("abc"), lowercase=True)


# ---- gpt.classify --------------------------------------------------------------------------------


def test_a_text_a_line(whole, tmp_path, capsys, monkeypatch):
    texts = ["you won 1000 NOW", "see you at home", ""]
    model, out = load_classifier(whole.out), str(whole.out)
    rows, _ = text_ids(model, tokenizers.load(out), texts)
    p = model.probabilities(scores(model, rows))
    expected = [f"{model.labels[row.argmax()]}\t{row.max():.4f}" for row in p]
    assert [line.split("\t")[0] for line in expected[:2]] == ["spam", "ham"]
    (tmp_path / "texts.txt").write_bytes("\r\n".join([*texts[:2], "", ""]).encode())
    with open(tmp_path / "texts.txt") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        for argv in (texts, ["--file", str(tmp_path / "texts.txt")], []):
            assert classify([out, *argv]) == 0
            assert capsys.readouterr().out.splitlines() == expected, argv
        stdin.seek(0)
        assert classify([out, "-"]) == 0
        assert capsys.readouterr().out.splitlines() == expected
    assert classify([out, "--all", texts[0]]) == 0
    assert capsys.readouterr().out == f"spam\t{p[0, 1]:.4f}\tham\t{p[0, 0]:.4f}\n"


def test_the_mean_of_several_models(whole, folder, tmp_path, capsys):
    other, out = str(tmp_path / "other"), str(whole.out)
    tune(method, given(folder, other, max_iters=3, train="head"))
    capsys.readouterr()
    shown = []
    for argv in ([out], [other], [out, "--average", other]):
        classify([*argv, "--all", "you won 1000"])
        said = capsys.readouterr().out.split()
        shown.append(dict(zip(said[::2], map(float, said[1::2]))))
    for label in ("ham", "spam"):
        mean = (shown[0][label] + shown[1][label]) / 2
        assert shown[2][label] == pytest.approx(mean, abs=2e-4) and mean != shown[0][label]
    GPT(GPTConfig(281, 32, 1, 2, 16)).save_pretrained(tmp_path / "base")
    Classifier(GPT.from_pretrained(tmp_path / "base"), ["a", "b"]).save_pretrained(other)
    assert classify([out, "--average", other, "a"]) == 2
    assert "its labels are a, b" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, message",
    [
        (["nowhere", "a"], "nowhere"),
        (["{base}", "a"], "holds no classifier"),
        (["{out}", "a", "--file", "b"], "not both"),
        (["{out}", "--file", "nothing.txt"], "nothing.txt"),
        (["{out}", "--tokenizer", "gpt2-of-nobody", "a"], "gpt2-of-nobody"),
    ],
)
def test_faults_are_one_line(argv, message, folder, whole, capsys):
    argv = [part.format(base=folder / "base", out=whole.out) for part in argv]
    try:
        status = classify(argv)
    except SystemExit as error:
        status = error.code
    out, err = capsys.readouterr()
    assert status == 2 and out == "" and err.count("\n") == 1 and message in err


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_transformers_gives_the_same_labels(kind, whole, tmp_path, folder, capsys):
    transformers = pytest.importorskip("transformers")
    out = whole.out
    if kind == "llama":
        from gpt import Llama, LlamaConfig

        Llama(LlamaConfig(281, 32, 1, 2, 16)).save_pretrained(tmp_path / "base")
        tokenizers.load(folder / "base").save(tmp_path / "base")
        out = tmp_path / "out"
        made = given(folder, out, max_iters=10) | dict(init_from=str(tmp_path / "base"))
        tune(method, made)
        capsys.readouterr()
    texts = ["you won 1000 NOW", "see you at home"]
    classify([str(out), *texts])
    ours = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(out).eval()
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    theirs.pad_token_id = model.config.pad_token_id
    batch = theirs(texts, padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    p = model(**batch).logits.softmax(-1).detach().numpy()
    assert [model.config.id2label[i] for i in p.argmax(1)] == [label for label, _ in ours]
    np.testing.assert_allclose(p.max(1), [float(number) for _, number in ours], atol=1e-3)
