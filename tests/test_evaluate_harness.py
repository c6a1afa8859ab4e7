"""Figures are those of EleutherAI's lm-evaluation-harness: the same file, prompts and weights."""

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
lm_eval = pytest.importorskip("lm_eval", reason="the harness is what these tests compare with")
pytest.importorskip("transformers")

import tokenizer  # noqa: E402
from gpt import load  # noqa: E402
from gpt.data import read_records  # noqa: E402
from gpt.evaluate.choices import multiple_choice, questions_of  # noqa: E402
from gpt.evaluate.harness import HarnessLM, generation  # noqa: E402

from .evaluate_cases import draw_records, draw_text, make_folder, write_jsonl  # noqa: E402

TASKS = Path(lm_eval.__file__).parent / "tasks"
YAML = {
    "hellaswag": "hellaswag/hellaswag.yaml",
    "arc": "arc/arc_easy.yaml",
    "mmlu": "mmlu/default/mmlu_high_school_biology.yaml",
}


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def pair(request, tmp_path_factory):
    """A folder of a model, and lm-eval's own class for it."""
    from lm_eval.models.huggingface import HFLM

    folder = make_folder(tmp_path_factory.mktemp(request.param), request.param)
    return folder, HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)


def harness_task(form: str, path: Path, folder: Path):
    """lm-eval's task of this form, as its own file describes it, on local data."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(TASKS / YAML[form])
    data = dict(dataset_path="json", dataset_name=None, cache_dir=str(folder / "cache"))
    config |= dict(dataset_path="json", dataset_name=None, num_fewshot=0, fewshot_split=None)
    config["dataset_kwargs"] = dict(data_files={"test": str(path)}, cache_dir=data["cache_dir"])
    config |= dict(test_split="test", validation_split=None, training_split=None)
    return ConfigurableTask(config={k: v for k, v in config.items() if k not in ("tag", "include")})


def by_harness(lm, task) -> dict:
    results = lm_eval.evaluate(
        lm=lm, task_dict={"local": task}, log_samples=True, bootstrap_iters=0, verbosity="ERROR"
    )
    found = sorted(results["samples"]["local"], key=lambda sample: sample["doc_id"])
    logprobs = [[float(answer[0][0]) for answer in sample["resps"]] for sample in found]
    greedy = [[answer[0][1] for answer in sample["resps"]] for sample in found]
    return {"figures": results["results"]["local"], "logprobs": logprobs, "greedy": greedy}


@pytest.mark.parametrize("form", YAML)
def test_multiple_choice_is_the_harnesss(form, pair, tmp_path):
    folder, theirs = pair
    path = write_jsonl(tmp_path / "questions.jsonl", draw_records(form, 20))
    task = harness_task(form, path, tmp_path)
    expected = by_harness(theirs, task)

    name, questions = questions_of(read_records(path))
    assert name == form
    ours = multiple_choice(load(folder), tokenizer.load(folder), questions, at_a_time=200)
    assert not ours.left_out
    assert any("does not fit" in note for note in ours.notes)
    for item, logprobs in zip(ours.items, expected["logprobs"], strict=True):
        np.testing.assert_allclose(item["logprobs"], logprobs, rtol=1e-4, atol=1e-3)
    assert ours.figures["acc"][0].mean == pytest.approx(expected["figures"]["acc,none"])
    error = expected["figures"].get("acc_stderr,none")
    assert error == "N/A" or ours.figures["acc"][0].stderr == pytest.approx(error)
    if form != "mmlu":
        accuracy = expected["figures"]["acc_norm,none"]
        assert ours.figures["acc_norm"][0].mean == pytest.approx(accuracy)

    adapted = by_harness(HarnessLM.open(folder, at_a_time=100), task)
    assert adapted["greedy"] == expected["greedy"]
    np.testing.assert_allclose(
        np.concatenate(adapted["logprobs"]),
        np.concatenate(expected["logprobs"]),
        rtol=1e-4,
        atol=1e-3,
    )
    keep = ("acc,none", "acc_norm,none")
    shown = [{k: r["figures"].get(k) for k in keep} for r in (adapted, expected)]
    assert shown[0] == shown[1]


def instances(kind: str, arguments: list[tuple]) -> list:
    from lm_eval.api.instance import Instance

    return [
        Instance(request_type=kind, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)
    ]


def test_the_adapter_answers_as_the_harnesss_own_class(pair):
    folder, theirs = pair
    ours, rng = HarnessLM.open(folder), np.random.default_rng(3)
    texts = [draw_text(rng, 1, 90) for _ in range(12)] + ["x"]
    asked = instances("loglikelihood_rolling", [(text,) for text in texts])
    np.testing.assert_allclose(
        ours.loglikelihood_rolling(asked), theirs.loglikelihood_rolling(asked), rtol=1e-4
    )
    pairs = [("", " cat"), ("the cat ", "sat"), ("the", " dog"), ("the  ", " mat on")]
    asked = instances("loglikelihood", pairs)
    for mine, its in zip(ours.loglikelihood(asked), theirs.loglikelihood(asked), strict=True):
        assert mine == (pytest.approx(its[0], rel=1e-4), its[1])


def test_the_adapter_generates_as_the_harnesss_own_class(pair):
    folder, theirs = pair
    ours, rng = HarnessLM.open(folder), np.random.default_rng(4)
    how = {"until": ["."], "max_gen_toks": 10}
    asked = instances("generate_until", [(draw_text(rng, 1, 60), how) for _ in range(12)])
    expected = theirs.generate_until(asked)
    assert len(set(expected)) > 2 and "\ufffd" not in "".join(expected)
    assert ours.generate_until(asked) == expected


def test_settings_of_generation():
    assert generation({})["max_new_tokens"] == 256
    assert generation({"until": "x", "max_tokens": 3})["stop"] == ["x"]
    assert generation({"do_sample": True, "temperature": 0.5})["temperature"] == 0.5
    with pytest.raises(ValueError, match="num_beams"):
        generation({"num_beams": 4})
