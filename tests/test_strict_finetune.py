"""Fine-tuning on the strict device: it would run on a GPU, and give what the CPU gives."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gpt import GPTConfig, LlamaConfig, models
from gpt.data import inputs_and_targets, pad_rows
from gpt.evaluate import sequence_logprobs
from gpt.evaluate.likelihood import loglikelihoods
from gpt.finetune import classify, dpo, grpo, instruct, kto, reward
from gpt.finetune.answers import Answering, Prompt
from gpt.finetune.distill import Distillation, Settings
from tests.test_strict import cuda  # noqa: F401 - a fixture for every test here
from tokenizer import CharTokenizer

SIZES = dict(vocab_size=30, block_size=16, n_layer=2, n_head=2, n_embd=8)
RNG = np.random.default_rng(0)
TEXTS = [RNG.integers(0, 30, n) for n in (5, 9, 12, 2)]


def gradients(model, device, loss):
    """(the loss, the gradient of every parameter that trains), computed on a device."""
    model.to(device)
    value = loss(model)
    value.backward()
    made = [p.grad.data for p in model.parameters() if p.grad is not None]
    for p in model.parameters():
        p.grad = None
    host = [np.asarray(g) if isinstance(g, np.ndarray) else g.get() for g in made]
    return value.item(), host


def check_same(model, loss):
    (on_cpu, host), (on_gpu, device) = (gradients(model, d, loss) for d in ("cpu", "cuda"))
    assert on_gpu == pytest.approx(on_cpu, rel=1e-6, abs=1e-6) and len(host) == len(device) > 0
    for a, b in zip(host, device):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=2e-6)


@pytest.fixture(params=[GPTConfig, LlamaConfig])
def model(request):
    return models.make(request.param(**SIZES))


def test_logprobs_of_answers(model):
    x, y = inputs_and_targets(TEXTS, [np.arange(len(t)) > 2 for t in TEXTS])
    check_same(model, lambda m: -sequence_logprobs(m, x, y).sum())


def test_likelihoods(model):
    pairs = [(text[:1].tolist(), text[1:].tolist()) for text in TEXTS]
    on_cpu = loglikelihoods(model, pairs)
    on_gpu = loglikelihoods(model.to("cuda"), pairs)
    np.testing.assert_allclose(on_cpu[0], on_gpu[0], rtol=1e-5)
    assert (on_cpu[1] == on_gpu[1]).all()


def test_a_classifier(model):
    classifier = models.Classifier(model, ["a", "b", "c"], seed=1)
    x, lengths = pad_rows(TEXTS), [len(t) for t in TEXTS]
    check_same(classifier, lambda m: (m(x, lengths) ** 2).sum())


@pytest.mark.parametrize("problem", classify.PROBLEMS)
def test_the_loss_of_a_classification(model, problem):
    several = {"single": [0, 2, 1, 1], "multi": [[1, 0, 1], [0, 0, 1]] * 2}
    targets = np.array(several.get(problem, [[1.5], [0], [2], [3]]))
    targets = targets.astype({"single": int, "multi": bool, "regression": np.float32}[problem])
    labels = ["a", "b", "c"] if problem != "regression" else ["n"]
    rows = np.arange(4)
    s = classify.Settings(problem=problem, batch_size=4, max_length=16)
    given = classify.Labelled([], tuple(labels), targets)
    task = classify.Classification(s, TEXTS, given, (rows, rows, rows), 0)
    classifier = models.Classifier(model, labels, classify.PROBLEMS[problem], seed=1)
    check_same(classifier, lambda m: task.loss(m, task.batch(0)))
    on_cpu = task.evaluate(classifier.to("cpu"))
    assert task.evaluate(classifier.to("cuda")) == pytest.approx(on_cpu, abs=1e-6)


@pytest.mark.parametrize("pack", [False, True])
def test_instructions(model, pack):
    rows = instruct.Rows([(ids, np.arange(len(ids)) > 0) for ids in TEXTS], 16, pack)
    task = instruct.Instructions(instruct.Settings(), [rows] * 3)
    check_same(model, lambda m: task.loss(m, task.batch(0)))


def test_a_reward_model(model):
    parts = [np.arange(2), np.arange(2), []]
    texts = [(ids, np.arange(len(ids)) > 0) for ids in TEXTS]
    task = reward.Rewards(reward.Settings(), texts, parts)
    classifier = models.Classifier(model, ["reward"], "regression", seed=1)
    check_same(classifier, lambda m: task.loss(m, task.batch(0)))


@pytest.mark.parametrize("dora", [False, True])
def test_adapters(model, dora):
    adapted = models.Adapted(model, "nowhere")
    adapted.add_adapter("default", models.LoraConfig(2, dora=dora), new_tokens=3)
    for name, p in adapted.named_parameters():
        if "lora_B" in name:
            p.data[...] = 0.1
    x, y = inputs_and_targets(TEXTS, [np.ones(len(t)) for t in TEXTS])
    check_same(adapted, lambda m: m.loss(x, y))
    check_same(adapted, lambda m: -sequence_logprobs(m, x, y).mean())


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation(model, temperature):
    teacher = models.make(model.config, seed=5)
    task = Distillation(
        Settings(temperature=temperature),
        [(t, np.ones(len(t), bool)) for t in TEXTS],
        (np.arange(3), np.array([3]), np.arange(0)),
        teacher,
    )

    def loss(m):
        teacher.to("cuda" if not isinstance(m.head.weight.data, np.ndarray) else "cpu")
        return task.loss(m, task.batch(0))

    check_same(model, loss)


def test_rewards_for_answers(model):
    tokenizer = CharTokenizer.train("".join(map(chr, range(97, 127))))  # of 30 ids
    settings = grpo.Settings(group=4, batch_size=8, max_new_tokens=5, beta=0.1)
    prompts = [Prompt([i, 3, i], "", {}) for i in range(6)]
    answering = Answering(tokenizer, lambda prompt, answer, record: answer.count("a"), 5)
    run = SimpleNamespace(settings=settings, out=Path("nowhere"), saved=0)
    task = grpo.GRPO(run, answering, models.with_config(model), prompts[:4], prompts[4:], [])
    model.to("cuda"), task.reference.to("cuda")
    on_gpu = task.evaluate(model)
    model.to("cpu"), task.reference.to("cpu")
    assert task.evaluate(model) == pytest.approx(on_gpu, abs=1e-6)
    batch = task.batch(0, model)

    def loss(model):
        task.reference.to("cpu" if isinstance(model.parameters()[0].data, np.ndarray) else "cuda")
        return task.loss(model, batch)

    check_same(model, loss)


@pytest.mark.parametrize("loss", ["dpo", "ipo", "simpo", "kto"])
def test_preferences(model, loss):
    texts = [(ids, np.arange(len(ids)) > 0) for ids in TEXTS]  # the first two are a pair
    s, parts = dpo.Settings(loss=loss, sft_weight=0.5), [np.arange(2), np.arange(2), []]
    if loss == "kto":
        desirable = np.array([True, False])
        task = kto.Answers(s, kto.with_mismatched(texts[:2], parts[:1], 17), desirable, parts)
    else:
        task = dpo.Preferences(s, texts, parts)
    check_same(model, lambda m: task.loss(m, task.batch(0, m)))
