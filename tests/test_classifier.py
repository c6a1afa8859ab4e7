"""Classifiers: the last token decides, padding changes nothing, and transformers reads the same."""

import numpy as np
import pytest

import gpt
import tensorlite as tl
from gpt import GPT, Classifier, GPTConfig, Llama
from gpt.data import pad_rows
from tensorlite.testing import check_grads

from .llama_cases import KINDS, change, small
from .test_llama_files import OURS

LABELS = {
    "single_label_classification": ["ham", "spam", "don't know"],
    "multi_label_classification": ["news", "sport"],
    "regression": ["stars"],
}
TEXTS = [[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5], [8], [2, 7, 1, 8, 2]]
LENGTHS = [len(text) for text in TEXTS]


def classifier(kind="gpt2", problem="single_label_classification"):
    body = gpt.models.make(OURS[kind], seed=5)
    model = Classifier(body, LABELS[problem], problem, seed=7)
    for i, p in enumerate(model.parameters()):  # larger than at first, so that errors show
        p.data += 0.3 * np.random.default_rng(i).standard_normal(p.shape, np.float32)
    return model.eval()


def logits_of(model, texts):
    with tl.no_grad():
        return model(pad_rows(texts), [len(text) for text in texts]).numpy()


# ---- what it computes ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
def test_padding_changes_nothing(kind):
    model = classifier(kind)
    alone = np.concatenate([logits_of(model, [text]) for text in TEXTS])
    np.testing.assert_allclose(logits_of(model, TEXTS), alone, atol=1e-5)
    wider = pad_rows([*TEXTS, [0] * 15], fill=11)[:-1]  # other ids, more of them
    np.testing.assert_allclose(model(wider, LENGTHS).numpy(), alone, atol=1e-5)


def test_the_last_token_decides_as_the_plain_twin_says():
    model = classifier()
    expected = [
        model.body.hidden(np.array([text])).numpy()[0, -1] @ model.score.weight.numpy()
        for text in TEXTS
    ]
    np.testing.assert_allclose(logits_of(model, TEXTS), expected, atol=1e-5)


def test_gradients_reach_the_head_and_the_body():
    model = classifier()
    for p in model.parameters():
        p.data = p.data.astype(np.float64)
    weights = [model.score.weight, model.body.ln_f.weight, model.body.wpe.weight]

    def loss(*arrays):
        for name, array in zip(("score", "body.ln_f", "body.wpe"), arrays):
            part = model
            for step in name.split("."):
                part = getattr(part, step)
            part.weight = array
        return tl.cross_entropy(model(pad_rows(TEXTS), LENGTHS), np.array([0, 1, 2, 1]))

    check_grads(loss, [w.data for w in weights])


def test_probabilities():
    logits = np.array([[0.0, 0.0, np.log(2.0)]])
    single = classifier().probabilities(logits)
    np.testing.assert_allclose(single, [[0.25, 0.25, 0.5]])
    multi = classifier(problem="multi_label_classification").probabilities(logits)
    np.testing.assert_allclose(multi, [[0.5, 0.5, 2 / 3]])
    assert classifier(problem="regression").probabilities(logits) is logits


def test_dropout_and_recomputation_are_the_bodys():
    body = GPT(GPTConfig(19, 16, 2, 2, 8, dropout=0.5))
    model = Classifier(body, ["a", "b"], seed=1)
    x = pad_rows(TEXTS)
    draws = [model(x, LENGTHS, np.random.default_rng(i)).numpy() for i in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])
    model.recompute = True
    assert body.recompute
    assert np.array_equal(model(x, LENGTHS, np.random.default_rng(0)).numpy(), draws[0])


@pytest.mark.parametrize("lengths", [[8, 3, 0, 5], [8, 3, 1, 9], [8, 3, 1], [8, 3, 1, -1]])
def test_wrong_lengths_are_refused(lengths):
    with pytest.raises(ValueError, match="from 1 to 8 for each of 4 texts"):
        classifier()(pad_rows(TEXTS), lengths)


@pytest.mark.parametrize(
    "labels, problem, match",
    [
        ([], "regression", "different names"),
        (["a", "a"], "single_label_classification", "different names"),
        (["a", 3], "single_label_classification", "different names"),
        (["a"], "single_label_classification", "nothing to choose"),
        (["a", "b"], "ranking", "the problem is one of single_label"),
    ],
)
def test_labels_that_cannot_be(labels, problem, match):
    with pytest.raises(ValueError, match=match):
        Classifier(GPT(GPTConfig(19, 16, 2, 2, 8)), labels, problem)


# ---- its folder ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("problem", LABELS)
def test_saved_and_loaded(kind, problem, tmp_path):
    model = classifier(kind, problem)
    model.save_pretrained(tmp_path, step=3)
    again = Classifier.from_pretrained(tmp_path)
    assert (again.labels, again.problem) == (model.labels, model.problem)
    assert again.config == model.config and not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, array in model.state_dict().items():
        assert np.array_equal(again.state_dict()[name], array), name


def test_a_model_without_biases_is_saved_with_zeros_in_the_body_alone(tmp_path):
    body = GPT(GPTConfig(19, 16, 2, 2, 8, bias=False))
    model = Classifier(body, ["a", "b"], seed=1).eval()
    model.save_pretrained(tmp_path)
    again = Classifier.from_pretrained(tmp_path)
    assert again.config == model.config
    assert np.array_equal(logits_of(again, TEXTS), logits_of(model, TEXTS))


def test_load_says_what_it_is(tmp_path):
    classifier().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="classifier of texts.*gpt.load_classifier"):
        gpt.load(tmp_path)
    classifier().body.save_pretrained(tmp_path / "body")
    with pytest.raises(ValueError, match="no classifier.*score.weight.*gpt.finetune classify"):
        Classifier.from_pretrained(tmp_path / "body")
    with pytest.raises(FileNotFoundError):
        Classifier.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "values, match",
    [
        ({"id2label": {"0": "ham", "1": "spam"}}, "id2label has another name for each of 0 to 2"),
        ({"id2label": {"0": "ham", "1": "ham", "2": "spam"}}, "another name"),
        ({"id2label": {"0": "ham", "1": 5, "2": "spam"}}, "another name"),
        ({"id2label": ["a", "b", "c"]}, "another name"),
        ({"num_labels": 4}, "num_labels is 4.*3 rows"),
        ({"problem_type": "ranking"}, "problem_type is one of"),
        ({"n_embd": 4}, "4 numbers for each label"),
        ({"n_layer": 3}, "tensors are missing"),
        ({"model_type": "bert"}, "bert"),
    ],
)
def test_folders_that_contradict_themselves(values, match, tmp_path):
    classifier().save_pretrained(tmp_path)
    change(tmp_path, **values)
    with pytest.raises(ValueError, match=match):
        Classifier.from_pretrained(tmp_path)


@pytest.mark.parametrize("problem", LABELS)
def test_labels_without_names_are_named_as_in_transformers(problem, tmp_path):
    classifier(problem=problem).save_pretrained(tmp_path)
    change(tmp_path, remove=("id2label", "label2id", "num_labels", "problem_type"))
    model = Classifier.from_pretrained(tmp_path)
    n = len(LABELS[problem])
    assert model.labels == tuple(f"LABEL_{i}" for i in range(n))
    assert model.problem == ("regression" if n == 1 else "single_label_classification")


# ---- against transformers ------------------------------------------------------------------------


def theirs(model, texts, pad):
    import torch

    x = torch.tensor(pad_rows(texts, pad))
    with torch.no_grad():
        return model(x, attention_mask=(x != pad).long()).logits.numpy()


@pytest.mark.parametrize("problem", LABELS)
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_ours(kind, problem, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = classifier(kind, problem)
    model.save_pretrained(tmp_path)
    change(tmp_path, pad_token_id=18)
    other, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info.values()), info
    assert type(other).__name__.endswith("ForSequenceClassification")
    assert list(other.config.id2label.values()) == LABELS[problem]
    assert other.config.problem_type == problem
    np.testing.assert_allclose(
        theirs(other.eval(), TEXTS, 18), logits_of(model, TEXTS), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_ours_reads_transformers(kind, n, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(n)
    config = transformers.AutoConfig.for_model(kind, **small(kind), num_labels=n, pad_token_id=96)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn_like(p) + (p.ndim == 1))
    model.save_pretrained(tmp_path)
    ours = Classifier.from_pretrained(tmp_path)
    assert ours.labels == tuple(f"LABEL_{i}" for i in range(n))
    assert isinstance(ours.body, Llama if kind != "gpt2" else GPT)
    np.testing.assert_allclose(
        logits_of(ours, TEXTS), theirs(model, TEXTS, 96), rtol=1e-4, atol=1e-4
    )
