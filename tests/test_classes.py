"""Figures of a classification: scikit-learn's where both have them, and their standard errors."""

import numpy as np
import pytest

from gpt.evaluate import ClassReport, draw_class_report, measure_classes
from gpt.evaluate.classes import RESAMPLES, K, regression, regression_rows

LABELS = ("ham", "spam", "$5")
SINGLE, MULTI, REGRESSION = (
    "single_label_classification",
    "multi_label_classification",
    "regression",
)


def drawn(n=200, labels=3, seed=0):
    """Probabilities (n, labels), and targets that follow them more or less."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(labels, 0.5), n)
    return probabilities, np.array([rng.choice(labels, p=p) for p in probabilities])


def test_single_label_figures_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    p, targets = drawn()
    made, given = measure_classes(LABELS, SINGLE, p, targets), p.argmax(axis=1)
    assert np.array_equal(made.confusion, metrics.confusion_matrix(targets, given))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(targets, given)
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        np.testing.assert_allclose(made.values[name], expected)
    assert made.values["accuracy"] == pytest.approx(metrics.accuracy_score(targets, given))
    macro = metrics.f1_score(targets, given, average="macro")
    assert made.values["macro_f1"] == pytest.approx(macro)


def test_multi_label_figures_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    p = rng.random((150, 3))
    targets = rng.random(p.shape) < p
    made = measure_classes(LABELS, MULTI, p, targets)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(targets, p > 0.5)
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        np.testing.assert_allclose(made.values[name], expected)
    assert made.values["accuracy"] == pytest.approx(metrics.accuracy_score(targets, p > 0.5))
    assert made.values["macro_f1"] == pytest.approx(f1.mean())
    assert made.confusion is None and made.reliability[:, 0].sum() == 450


def test_figures_of_numbers_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    targets = rng.standard_normal((100, 1)) * 3 + 5
    predicted = targets + rng.standard_normal((100, 1))
    made = measure_classes(("stars",), REGRESSION, predicted, targets)
    expected = {
        "root_mean_squared_error": metrics.root_mean_squared_error(targets, predicted),
        "mean_absolute_error": metrics.mean_absolute_error(targets, predicted),
        "r2": metrics.r2_score(targets, predicted),
    }
    assert made.values.keys() == made.errors.keys() == expected.keys()
    for name, value in expected.items():
        assert made.values[name] == pytest.approx(value)
        assert 0 < made.errors[name] < 0.2
    large = (targets + 1e5).astype(np.float32)  # as `Labelled` has them
    r2 = measure_classes(("stars",), REGRESSION, predicted + 1e5, large).values["r2"]
    assert r2 == pytest.approx(expected["r2"], abs=0.01)


def test_a_label_that_occurs_nowhere_counts_as_0():
    p = np.array([[0.8, 0.2, 0.0], [0.3, 0.7, 0.0]])
    made = measure_classes(LABELS, SINGLE, p, np.array([0, 1]))
    assert made.values["f1"].tolist() == [1, 1, 0] and made.values["accuracy"] == 1
    assert made.values["precision"].tolist() == made.values["recall"].tolist() == [1, 1, 0]


def test_ece_by_hand():
    # Three decisions of confidence 0.6, one of them right; one of confidence 1, right.
    p = np.array([[0.6, 0.4], [0.6, 0.4], [0.4, 0.6], [0.0, 1.0]])
    made = measure_classes(("a", "b"), SINGLE, p, np.array([0, 1, 0, 1]))
    assert made.values["ece"] == pytest.approx((3 * 0.6 - 1) / 4)
    assert made.reliability.shape == (K, 3)
    np.testing.assert_allclose(made.reliability[9], [3, 1.8, 1])
    np.testing.assert_allclose(made.reliability[14], [1, 1, 1])


def test_calibrated_probabilities_have_a_small_error_and_too_sure_ones_a_large():
    p, targets = drawn(5000)
    assert measure_classes(LABELS, SINGLE, p, targets).values["ece"] < 0.03
    sure = p**4 / (p**4).sum(axis=1, keepdims=True)
    assert measure_classes(LABELS, SINGLE, sure, targets).values["ece"] > 0.1


def test_the_error_of_accuracy_is_that_of_a_binomial():
    p, targets = drawn(400)
    made = measure_classes(LABELS, SINGLE, p, targets)
    accuracy = made.values["accuracy"]
    expected = np.sqrt(accuracy * (1 - accuracy) / 400)
    assert made.errors["accuracy"] == pytest.approx(expected, rel=4 / np.sqrt(2 * RESAMPLES))


def test_the_error_of_f1_is_its_spread_over_new_texts():
    macro = [
        measure_classes(LABELS, SINGLE, *drawn(300, seed=s)).values["macro_f1"]
        for s in range(100, 160)
    ]
    made = measure_classes(LABELS, SINGLE, *drawn(300))
    assert made.errors["macro_f1"] == pytest.approx(np.std(macro), rel=0.35)


def test_the_same_seed_gives_the_same_errors():
    p, targets = drawn(50)
    one, same, other = (
        measure_classes(LABELS, SINGLE, p, targets, seed).errors for seed in (1, 1, 2)
    )
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["f1"], other["f1"])


def test_weights_are_repetitions():
    rng = np.random.default_rng(3)
    rows = regression_rows(rng.standard_normal((4, 2)), rng.standard_normal((4, 2)))
    twice = {name: np.concatenate([array, array[1:2]]) for name, array in rows.items()}
    weighted = regression(np.array([[1.0, 2, 1, 1]]), rows)
    repeated = regression(np.ones((1, 5)), twice)
    for name, value in repeated.items():
        np.testing.assert_allclose(weighted[name], value)


def test_without_resamples_there_are_no_errors():
    p, targets = drawn(50)
    made = measure_classes(LABELS, SINGLE, p, targets, resamples=0)
    assert made.errors == {} and made.values["accuracy"] > 0


def test_no_texts_are_refused():
    with pytest.raises(ValueError, match="no text"):
        measure_classes(LABELS, SINGLE, np.zeros((0, 3)), np.zeros(0, int))


def test_the_table_and_the_dictionary():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    made = measure_classes(("ham", "spam"), SINGLE, p, np.array([0, 1, 1]))
    said = made.as_dict()
    assert said["texts"] == 3 and said["accuracy"] == pytest.approx(2 / 3)
    assert said["accuracy_error"] == pytest.approx(0.27, abs=0.03)
    assert said["recall"] == {"ham": 1.0, "spam": 0.5} and said["confusion"] == [[1, 0], [1, 1]]
    lines = made.table().splitlines()
    assert lines[0].startswith("accuracy                  0.667 +- 0.2")
    assert lines[-2].split() == ["ham", "1", "0"] and lines[-1].split() == ["spam", "1", "1"]
    assert lines[-3].split() == ["ham", "spam"]


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    p, targets = drawn()
    assert draw_class_report(measure_classes(LABELS, SINGLE, p, targets), tmp_path)
    for name in ("confusion.png", "reliability.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    regressed = measure_classes(("stars",), REGRESSION, p[:, :1], p[:, 1:2])
    assert isinstance(regressed, ClassReport) and draw_class_report(regressed, tmp_path)
