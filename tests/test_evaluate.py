"""python -m gpt.evaluate: figures by definition, bad input by its message, reports."""

import json
import math

import numpy as np
import pytest

import gpt
import tokenizer
from gpt.data.chat import prepare_chat
from gpt.evaluate import answers, choices, likelihood
from gpt.evaluate.__main__ import main, parse
from gpt.evaluate.answers import Asking, exact_match, normalised, sampled
from gpt.evaluate.choices import Question, multiple_choice, questions_of
from gpt.evaluate.contamination import contamination, texts_of_items
from gpt.evaluate.estimate import Sample
from gpt.evaluate.likelihood import encode_pair, loglikelihoods
from gpt.evaluate.memorisation import memorisation
from gpt.evaluate.perplexity import perplexity, windows
from gpt.evaluate.report import make_report, table
from gpt.evaluate.result import Result
from gpt.evaluate.suite import read_suite, run_suite

from .evaluate_cases import BLOCK, draw_records, draw_text, make_folder, write_jsonl


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {k: make_folder(tmp_path_factory.mktemp(k), k) for k in ("gpt2", "llama")}


@pytest.fixture(scope="module")
def gpt2(folders):
    return gpt.load(folders["gpt2"]), tokenizer.load(folders["gpt2"])


def evaluate(capsys, *argv) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(list(map(str, argv)))
    out, err = capsys.readouterr()
    return status, out, err


# ---- perplexity ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, stride", [("gpt2", 7), ("gpt2", BLOCK), ("llama", 1)])
def test_perplexity_is_that_of_transformers(folders, kind, stride):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = folders[kind]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tok = tokenizer.load(folder)
    text = draw_text(np.random.default_rng(1), 90, 90) + " é\ud83d"
    ids = [tok.eos_token_id, *tok.encode_ordinary(text)]
    assert len(ids) > 2 * BLOCK
    nats = 0.0
    for place in range(1, len(ids)):  # each token on its own, after what its window shows of it
        last = BLOCK if place <= BLOCK else BLOCK - (BLOCK - place) // stride * stride
        last = min(last, len(ids) - 1)
        context = torch.tensor([ids[max(0, last - BLOCK) : place]])
        assert place <= BLOCK or context.shape[1] >= BLOCK - stride + 1
        with torch.no_grad():
            logprobs = theirs(context).logits[0, -1].log_softmax(-1)
        nats -= logprobs[ids[place]].item()
    found = perplexity(gpt.load(folder), tok, [text], stride).figures
    tokens, n_bytes = len(ids) - 1, len(text.encode(errors="replace")) + 2  # U+FFFD has 3 bytes
    assert found["loss"][0].mean == pytest.approx(nats / tokens, rel=1e-5)
    assert found["bits_per_byte"][0].mean == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)


@pytest.mark.parametrize("n, first, stride", [(2, 1, 3), (11, 1, 3), (30, 2, 1), (31, 1, 10)])
def test_windows_predict_each_token_once(n, first, stride):
    found = list(windows(n, first, 10, stride))
    assert [i for _, begin, end in found for i in range(begin, end)] == list(range(first, n))
    for k, (start, begin, end) in enumerate(found):
        assert end - 1 - start <= 10
        assert begin - start > 10 - stride or k == 0


def test_bits_per_byte_compare_tokenizers(gpt2):
    """With the same probabilities, they do not depend on how a text is cut: here, none at all."""
    text = "the cat sat on the mat " * 40
    found = []
    for tok in (gpt2[1], tokenizer.CharTokenizer.train(text)):
        model = gpt.GPT(gpt.GPTConfig(tok.vocab_size, 16, n_layer=1, n_head=1, n_embd=4))
        for p in model.parameters():
            p.data[...] = 0
        result = perplexity(model, tok, [text])
        tokens, vocabulary = result.settings["tokens"], tok.vocab_size
        assert result.figures["loss"][0].mean == pytest.approx(math.log(vocabulary), rel=1e-5)
        bits = result.figures["bits_per_byte"][0]
        assert bits.mean == pytest.approx(tokens * math.log2(vocabulary) / len(text), rel=1e-5)
        assert bits.counts.sum() == pytest.approx(len(text))
        found.append(bits)


@pytest.mark.filterwarnings("ignore:2 characters are not in")
def test_unknown_characters_are_counted():
    tok = tokenizer.CharTokenizer.train("abc")
    model = gpt.GPT(gpt.GPTConfig(tok.vocab_size, 8, n_layer=1, n_head=1, n_embd=4))
    result = perplexity(model, tok, ["abxyc"])
    assert result.notes == ["text 1 has 2 characters that the tokenizer does not know"]
    assert result.figures["bits_per_byte"][0].counts.sum() == pytest.approx(5)


def test_several_texts_are_the_items(gpt2):
    texts = ["the cat sat", "", "the dog"]
    both = perplexity(*gpt2, texts)
    assert both.figures["loss"][0].n == 2
    each = [perplexity(*gpt2, [text]).figures["loss"][0] for text in texts if text]
    assert both.figures["loss"][0].values == pytest.approx([s.values.sum() for s in each])


# ---- likelihoods ---------------------------------------------------------------------------------


def drawn_pairs(model, n=40):
    rng = np.random.default_rng(5)
    V = model.config.vocab_size
    pairs = []
    for _ in range(n):
        context, continuation = rng.integers(0, V, rng.integers(1, 70)), rng.integers(0, V, 5)
        pairs.append((context.tolist(), continuation[: rng.integers(1, 6)].tolist()))
    return [*pairs, pairs[0], (pairs[0][0], [3]), (pairs[0][0], [7])]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "dynamic"])
def test_batches_and_padding_change_no_result(folders, kind, monkeypatch):
    if kind == "dynamic":  # angles that depend on the length of the longest text
        rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0}
        rope["original_max_position_embeddings"] = 8
        sizes = dict(vocab_size=90, block_size=32, n_layer=2, n_head=2, n_embd=32)
        model = gpt.Llama(gpt.LlamaConfig(**sizes, n_kv_head=1, rope_parameters=rope)).eval()
        for p in model.parameters():
            p.data *= 4
    else:
        model = gpt.load(folders[kind])
    pairs = drawn_pairs(model)
    found, greedy = loglikelihoods(model, pairs, at_a_time=300)
    single, alone = loglikelihoods(model, pairs, at_a_time=1)
    np.testing.assert_allclose(found, single, rtol=1e-4, atol=1e-4)
    assert (greedy == alone).all()
    monkeypatch.setattr(likelihood, "pad_rows", lambda rows: gpt.data.pad_rows(rows, fill=7))
    assert (loglikelihoods(model, pairs, at_a_time=300)[0] == found).all()


def test_likelihoods_by_definition(gpt2):
    model, _ = gpt2
    pairs = drawn_pairs(model, 8)
    found, greedy = loglikelihoods(model, pairs)
    for (context, continuation), logprob, is_greedy in zip(pairs, found, greedy):
        ids = [*context, *continuation][-BLOCK - 1 :]
        logits = model(np.array([ids[:-1]]))[0].numpy()[0].astype(np.float64)
        logits = logits[-len(continuation) :]
        all_of_them = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        assert logprob == pytest.approx(
            sum(row[i] for row, i in zip(all_of_them, continuation)), rel=1e-5
        )
        assert is_greedy == (all_of_them.argmax(-1) == continuation).all()
    likeliest = int(model(np.array([pairs[0][0][-BLOCK:]]))[0].numpy()[0, -1].argmax())
    assert loglikelihoods(model, [(pairs[0][0], [likeliest])])[1].all()


def test_a_model_in_training_mode_is_measured_without_dropout_and_left_as_it_was(gpt2):
    tok = gpt2[1]
    sizes = dict(vocab_size=tok.vocab_size, block_size=16, n_layer=1, n_head=1, n_embd=8)
    model = gpt.GPT(gpt.GPTConfig(**sizes, dropout=0.5)).train()
    result = perplexity(model, tok, ["the cat sat on the mat"])
    assert model.training
    assert (
        result.figures["loss"][0].mean
        == perplexity(model.eval(), tok, ["the cat sat on the mat"]).figures["loss"][0].mean
    )


@pytest.mark.parametrize("pair", [([], [1]), ([1], []), ([1], [1] * (BLOCK + 1))])
def test_pairs_that_cannot_be_measured(gpt2, pair):
    with pytest.raises(ValueError, match=f"at most {BLOCK}"):
        loglikelihoods(gpt2[0], [pair])


def test_a_model_that_gives_no_numbers(folders):
    model = gpt.load(folders["gpt2"])
    model.ln_f.weight.data[0] = np.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        loglikelihoods(model, [([1], [2])])


def test_spaces_before_an_answer_belong_to_it(gpt2):
    model, tok = gpt2
    assert encode_pair(model, tok, "the cat  ", "sat") == (
        tok.encode("the cat"),
        tok.encode("the cat  sat")[len(tok.encode("the cat")) :],
    )
    assert encode_pair(model, tok, "", "cat")[0] == [tok.eos_token_id]


# ---- multiple choice -----------------------------------------------------------------------------


def test_the_forms_are_recognised():
    for form in ("hellaswag", "arc", "mmlu", "plain"):
        assert questions_of(draw_records(form, 2))[0] == form
    record = dict(question="What?", choices=["this", "that"], answer="that")
    assert questions_of([record])[1][0].answer == 1
    _, [question] = questions_of(draw_records("mmlu", 1))
    assert question.context.startswith("The following are multiple choice questions")
    assert "about high school biology.\n\n" in question.context
    _, [question] = questions_of([dict(ctx="A [x] dog  runs", endings=["a", "b"], label=0)])
    assert question.context == "A dog runs"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"answer": 4}, "record 2 .* right answer is 4, and not one of 4 choices"),
        ({"answer": None}, "right answer is None"),
        ({"answer": True}, "right answer is True"),
        ({"answer": "-1"}, "right answer is '-1'"),
        ({"choices": ["one"]}, "choices are 2 to 26 texts"),
        ({"choices": "abcd"}, "choices are 2 to 26 texts"),
        ({"choices": ["a", ""]}, "choices are 2 to 26 texts"),
        ({"question": 5}, "question is no text, but 5"),
        ({"choices": {"a": 1}}, "choices are 2 to 26 texts"),
    ],
)
def test_wrong_questions(change, message):
    records = draw_records("plain", 2)
    records[1] |= change
    with pytest.raises(ValueError, match=message):
        questions_of(records)


def test_wrong_keys_of_arc():
    for change in ({"answerKey": "E"}, {"answerKey": ["A"]}, {"choices": {"text": ["a", "b"]}}):
        records = draw_records("arc", 1)
        records[0] |= change
        with pytest.raises(ValueError, match="record 1 is not in the form arc"):
            questions_of(records)
    with pytest.raises(ValueError, match="hellaswag: the right answer is ''"):
        questions_of([dict(ctx="x", endings=["a", "b"], label="")])


def test_answers_longer_than_the_context(gpt2):
    records = draw_records("plain", 4)
    records[2]["choices"][1] = draw_text(np.random.default_rng(0), 200, 200)
    records[2]["choices"] += ["one", "more"]
    _, questions = questions_of(records)
    result = multiple_choice(*gpt2, questions)
    assert result.left_out == [3] and [item["item"] for item in result.items] == [1, 2, 4]
    assert result.figures["acc"][0].n == 3
    measured = [questions[0], questions[1], questions[3]]
    assert result.settings["chance"] == np.mean([1 / len(q.choices) for q in measured])
    assert f"1 questions with an answer longer than {BLOCK} tokens are left out" in result.notes
    with pytest.raises(ValueError, match="every question"):
        multiple_choice(*gpt2, questions[2:3])


def test_acc_norm_divides_by_the_characters_of_the_answer(gpt2, monkeypatch):
    logprobs = np.array([-2.0, -2.5, -1.0, -9.0])  # per character -1, -1.25; -1, -0.9
    found = (logprobs, np.zeros(4, bool))
    monkeypatch.setattr(choices, "loglikelihoods", lambda *args: found)
    asked = [Question("x", ["ab", "éé"], 0), Question("x", ["a", "b" * 10], 1)]
    result = multiple_choice(*gpt2, asked)
    assert [item["chosen"] for item in result.items] == [0, 0]
    assert [item["chosen_norm"] for item in result.items] == [0, 1]
    assert [result.figures[name][0].mean for name in ("acc", "acc_norm")] == [0.5, 1.0]
    assert result.settings["chance"] == 0.5


# ---- answers in words ----------------------------------------------------------------------------


def test_normalised_answers():
    assert normalised(" The Cat's  hat! ") == "cats hat"
    assert normalised("A") == "a" and normalised("") == ""  # an article alone is the answer


def test_a_pattern_finds_the_answer():
    asking = Asking(pattern=r"-?[0-9.]*[0-9]")
    assert asking.read("3 + 4 = 7.") == "7"
    assert asking.read("I do not know") is None


def qa(n: int) -> list[dict]:
    rng = np.random.default_rng(2)
    return [dict(question=draw_text(rng, 2, 5), answer="?") for _ in range(n)]


def test_exact_match_finds_what_the_model_writes(gpt2):
    model, tok = gpt2
    asking, records = Asking(max_new_tokens=6, stop=["\n"]), qa(6)
    for i, record in enumerate(records):
        prompt = f"Question: {record['question']}\nAnswer:"
        text = gpt.generate.generate(model, tok, prompt, 6, temperature=0, stop=["\n"])
        written = text[len(prompt) :]
        record["answer"] = ["?", written.upper()] if i % 2 else "something else"
    result = exact_match(model, tok, records, asking)
    assert [item["right"] for item in result.items] == [[bool(i % 2)] for i in range(6)]
    assert result.figures["exact_match"][0].mean == 0.5


def test_sampled_answers(gpt2):
    model, tok = gpt2
    asking, records = Asking(max_new_tokens=3, pattern="[a-z]", prompt="{question} "), qa(5)
    for record in records:
        record["answer"] = "a"
    drawn = sampled(model, tok, records, asking, num_samples=5, temperature=2.0)
    for record, item in zip(records, drawn.items):
        record["answer"] = [next(filter(None, item["read"]), "a")]
    result = sampled(model, tok, records, asking, num_samples=5, temperature=2.0, ks=(1, 2, 5))
    rights = [sum(item["right"]) for item in result.items]
    assert 0 < sum(rights) < 25
    assert result.figures["pass@1"][0].mean == pytest.approx(sum(rights) / 25)
    assert result.figures["pass@5"][0].mean == pytest.approx(np.mean([c > 0 for c in rights]))
    assert all(len(set(item["answers"])) > 1 for item in result.items)  # drawn one by one
    again = sampled(model, tok, records, asking, num_samples=5, temperature=2.0, ks=(1, 2, 5))
    assert again.items == result.items
    for item in result.items:
        assert item["majority"] in item["read"]


def test_questions_in_a_chat(gpt2, monkeypatch):
    pytest.importorskip("jinja2")
    tok = prepare_chat(gpt2[1], "chatml")
    model = gpt.models.with_config(gpt2[0], vocab_size=tok.vocab_size)
    seen = {}

    def complete(model, tokenizer, prompts, **how):
        seen.update(how, prompts=[tokenizer.decode(ids) for ids in prompts])
        return gpt.generate.complete(model, tokenizer, prompts, **how)

    monkeypatch.setattr(answers, "complete", complete)
    records = [dict(question="the cat<|im_end|>", answer="x"), dict(question="a dog", answer="x")]
    exact_match(model, tok, records, Asking(chat=True, max_new_tokens=3))
    asked = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    expected = [asked.format(record["question"]) for record in records]
    assert seen["prompts"] == [text.lstrip() for text in expected]
    assert set(seen["stop"]) == {tok.special_tokens["<|im_end|>"]}
    exact_match(gpt2[0], gpt2[1], records, Asking(max_new_tokens=3))
    assert seen["prompts"][0] == "Question: the cat<|im_end|>\nAnswer:" and seen["stop"] == ["\n"]
    with pytest.raises(ValueError, match="no chat template"):
        exact_match(*gpt2, records, Asking(chat=True))


def test_prompts_longer_than_the_context(gpt2):
    records = [dict(question=draw_text(np.random.default_rng(0), 90, 90), answer="x"), *qa(1)]
    result = exact_match(*gpt2, records, Asking(max_new_tokens=2))
    assert result.notes == [
        f"the beginning of 1 questions does not fit into {BLOCK} tokens and is left out"
    ]


def test_wrong_settings_of_answers(gpt2):
    for wrong, message in [
        (dict(prompt="Say it:"), "has {question} in it"),
        (dict(pattern="("), "no regular expression"),
    ]:
        with pytest.raises(ValueError, match=message):
            Asking(**wrong)
    with pytest.raises(ValueError, match="pass@k"):
        sampled(*gpt2, qa(1), Asking(), num_samples=2, ks=(3,))
    with pytest.raises(ValueError, match="temperature"):
        sampled(*gpt2, qa(1), Asking(), temperature=0)
    with pytest.raises(ValueError, match="pattern finds no answer in .*record 1"):
        exact_match(*gpt2, qa(1), Asking(pattern="[0-9]"))
    with pytest.raises(ValueError, match="record 1"):
        exact_match(*gpt2, [dict(question="x", answer=3)], Asking())


# ---- suite ---------------------------------------------------------------------------------------


def make_suite(folder, **changes):
    folder.mkdir()
    write_jsonl(folder / "one.jsonl", draw_records("plain", 12))
    write_jsonl(folder / "two.jsonl", draw_records("arc", 8, seed=1))
    write_jsonl(folder / "words.jsonl", qa(5))
    about = dict(task="multiple-choice", source="drawn")
    described = {
        "one": about | dict(name="One") | changes,
        "two": about | dict(name="Two", figure="acc_norm", chance=0.1),
        "words": dict(name="Words", task="exact-match", source="drawn"),
    }
    for name, value in described.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def test_a_suite_is_summed_up_above_chance(gpt2, tmp_path):
    result = run_suite(*gpt2, read_suite(make_suite(tmp_path / "suite")), Asking(max_new_tokens=2))
    assert list(result.figures) == ["core", "One", "Two", "Words"]
    one, two, words = (result.figures[name][0] for name in ("One", "Two", "Words"))
    expected = ((one.mean - 0.25) / 0.75 + (two.mean - 0.1) / 0.9 + words.mean) / 3
    found = gpt.evaluate.estimate.estimate(result.figures["core"])
    assert found.value == pytest.approx(expected)
    error = math.hypot(one.stderr / 0.75, two.stderr / 0.9, words.stderr) / 3
    assert found.stderr == pytest.approx(error)
    assert {item["task"] for item in result.items} == {"One", "Two", "Words"}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"task": "perplexity"}, "a task is multiple-choice or exact-match"),
        ({"chance": 1}, "chance is at least 0 and below 1"),
        ({"chance": "0.25"}, "chance is at least 0 and below 1"),
        ({"choices": 1}, "choices is 2 or more"),
        ({"figure": "f1"}, "a figure of multiple-choice is acc or acc_norm"),
        ({"source": ""}, "needs source"),
        ({"name": "Two"}, "the same name"),
        ({"metric": "acc"}, "has metric: known are"),
    ],
)
def test_wrong_descriptions(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_suite(make_suite(tmp_path / "suite", **changes))


# ---- contamination and memorisation --------------------------------------------------------------


def test_contamination_finds_what_was_copied():
    rng = np.random.default_rng(0)
    corpus = [f"w{i}" for i in rng.integers(0, 10**6, 3000)]
    items = [
        [" ".join(corpus[500:513])],
        [" ".join(corpus[500:512]) + " other"],  # twelve words in a row
        ["never seen " + " ".join(w.upper() + "," for w in corpus[40:60])],
        ["only", " ".join(corpus[-13:])],
        ["too short"],
        [" ".join(f"v{i}" for i in range(20))],
    ]
    text = " ".join(corpus)
    result = contamination(items, [text[:9000], text[9000:]])
    assert [item["item"] for item in result.items] == [1, 3, 4] and result.left_out == [5]
    assert result.figures["contaminated"][0].mean == 3 / 5
    assert result.items[0]["words"] == " ".join(corpus[500:513])
    assert [i["item"] for i in contamination(items, [text], n=12).items] == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="no item has 50 words"):
        contamination(items, [text], n=50)


def test_texts_of_items():
    assert texts_of_items([dict(question="q", answer=["a", "b"])]) == [["q a", "q b"]]
    assert texts_of_items([dict(text="t")]) == [["t"]]
    assert texts_of_items([dict(question="q", choices=["x", "y"], answer=0)]) == [["q x", "q y"]]
    [arc] = texts_of_items([dict(question="q", choices=dict(text=["x"], label=["A"]))])
    assert arc == ["q x"]
    with pytest.raises(ValueError, match="record 1 .* found are prompt"):
        texts_of_items([dict(prompt="x")])


def test_memorisation_of_a_model_that_repeats():
    """A model that always says the next letter of the alphabet knows such a text by heart."""
    text = " ".join(["abcdefghijklmnopqrstuvwxyz"] * 30)
    tok = tokenizer.CharTokenizer.train(text)
    V = tok.vocab_size
    model = gpt.GPT(gpt.GPTConfig(V, 12, n_layer=1, n_head=1, n_embd=2 * V, tied=False)).eval()
    for p in model.parameters():
        p.data[...] = 0
    model.ln_f.weight.data[...] = 1
    model.wte.weight.data[np.arange(V), np.arange(V)] = 1  # a token in the stream ...
    order = tok.encode("abcdefghijklmnopqrstuvwxyz ")
    model.lm_head.weight.data[np.roll(order, -1), order] = 1  # ... gives the one that follows it
    result = memorisation(model, tok, [text], pieces=20)
    assert result.figures["memorised"][0].mean == 1 and result.settings["length"] == 6
    half = text[: len(text) // 2] + text[len(text) // 2 :][::-1]
    found = memorisation(model, tok, [half], pieces=40).figures
    assert 0.2 < found["memorised"][0].mean < 0.8
    assert found["repeated"][0].mean >= found["memorised"][0].mean
    with pytest.raises(ValueError, match="too short"):
        memorisation(model, tok, ["abc"])
    with pytest.raises(ValueError, match="half of the model's context, 6"):
        memorisation(model, tok, [text], length=7)


# ---- the command ---------------------------------------------------------------------------------


def test_a_report_of_two_models(folders, tmp_path, capsys):
    data = write_jsonl(tmp_path / "questions.jsonl", draw_records("plain", 20))
    models = list(folders.values())
    argv = [*models, "--task", "multiple-choice", "--dataset", data, "--json", tmp_path / "r.json"]
    status, out, err = evaluate(capsys, *argv)
    assert status == 0 and not err
    assert "acc_norm" in out and "95 % interval" in out and "is read as plain: 20 questions" in out
    report = json.loads((tmp_path / "r.json").read_text())
    first, second = report["models"]
    figure = second["figures"]["acc"]
    assert figure["low"] < figure["value"] < figure["high"] and figure["n"] == 20
    assert figure["difference"]["value"] == pytest.approx(
        figure["value"] - first["figures"]["acc"]["value"]
    )
    assert "difference" not in first["figures"]["acc"] and len(second["items"]) == 20
    before = (tmp_path / "r.json").read_bytes()
    assert evaluate(capsys, *argv)[0] == 0 and (tmp_path / "r.json").read_bytes() == before


def test_differences_are_those_of_the_same_items():
    ones = [Sample(np.array([1.0, 0.0, 1.0]))]
    results = {"a": Result({"acc": ones}), "b": Result({"acc": ones}, left_out=[4])}
    report = make_report(
        "multiple-choice", "questions.jsonl", results | {"c": Result({"acc": ones})}
    )
    compared = ["difference" in model["figures"]["acc"] for model in report["models"]]
    assert compared == [False, False, True]
    single = {name: Result({"loss": [Sample(np.ones(1), np.ones(1))]}) for name in "ab"}
    assert "1.0000" in table(make_report("perplexity", "text.txt", single))


def test_a_picture(folders, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "text.txt").write_text("the cat sat on the mat " * 20)
    picture = tmp_path / "p.png"
    argv = ["--task", "bits-per-byte", "--dataset", tmp_path / "text.txt", "--picture", picture]
    status, out, _ = evaluate(capsys, *folders.values(), *argv)
    assert status == 0 and picture.read_bytes().startswith(b"\x89PNG")
    figures = [line.split()[1] for line in out.splitlines() if line.startswith(str(tmp_path)[:4])]
    assert figures[:3] == ["bits_per_byte", "perplexity", "loss"]


def test_every_task_from_the_command_line(folders, tmp_path, capsys):
    data = write_jsonl(tmp_path / "qa.jsonl", qa(3))
    texts = write_jsonl(tmp_path / "texts.jsonl", [dict(text="the cat sat on the mat")] * 3)
    (tmp_path / "train.txt").write_text("the cat sat on the mat " * 99)
    made = make_suite(tmp_path / "suite")
    model, train = folders["gpt2"], ["--train_text", tmp_path / "train.txt"]
    for argv, figure in [
        ([model, "--task", "perplexity", "--dataset", texts, "--stride", 5], "perplexity"),
        ([model, "--task", "exact-match", "--dataset", data], "exact_match"),
        ([model, "--task", "generate", "--dataset", data, "--k", "1,2", "--stop", "x"], "pass@2"),
        ([model, "--task", "suite", "--dataset", made, "--max-new-tokens", 2], "core"),
        (["--task", "contamination", "--dataset", texts, *train, "--ngram", 3], "contaminated"),
        ([model, "--task", "memorisation", *train, "--pieces", 3, "--length", 4], "memorised"),
    ]:
        status, out, err = evaluate(capsys, *argv)
        assert status == 0 and f"  {figure}  " in out, (out, err)


@pytest.mark.parametrize(
    "content, task, message",
    [
        ('{"question": "x", "choices": ["a"]}', "multiple-choice", "found are question, choices"),
        ('{"question": "x"}\n{"question": ', "multiple-choice", "line 2 of .* is not JSON"),
        ("[1, 2]", "multiple-choice", "line 1 of .* is not an object"),
        ('{"question": "x"}', "exact-match", "no column 'answer'; it has question"),
        ('{"answer": "x"}', "generate", "no column 'question'; it has answer"),
        ('{"txt": "x"}', "perplexity", "no column 'text'; it has txt"),
        ('{"text": 1}', "perplexity", "record 1 has no text in 'text', but 1"),
        ('{"text": ""}', "perplexity", "no text to measure"),
        ("", "multiple-choice", "holds no records"),
    ],
)
def test_bad_input_is_one_line(content, task, message, folders, tmp_path, capsys):
    data = tmp_path / "data.jsonl"
    data.write_text(content)
    status, _, err = evaluate(capsys, folders["gpt2"], "--task", task, "--dataset", data)
    assert status == 2 and err.count("\n") == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(err)


def test_faults_of_the_command_line(folders, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat")
    some = ["--task", "perplexity", "--dataset", text]
    for argv, message in [
        (["nowhere", *some], "nowhere"),
        ([folders["gpt2"], "--task", "perplexity", "--dataset", "nowhere"], "no dataset 'nowhere'"),
        ([folders["gpt2"], *some, "--stride", 0], "--stride is 1 to the model's context of 48"),
        ([folders["gpt2"], *some, "--stride", BLOCK + 1], "--stride is 1 to"),
        ([folders["gpt2"], *some, "--json", tmp_path / "no" / "r.json"], "no folder"),
        ([folders["gpt2"], *some, "--picture", tmp_path / "no" / "r.png"], "no folder"),
    ]:
        status, _, err = evaluate(capsys, *argv)
        assert status == 2 and err.count("\n") == 1 and message in err, err
    for argv, message in [
        (some, "needs a DIR"),
        (["out", "out", *some], "twice"),
        (["out", "--task", "perplexity"], "needs --dataset"),
        (["out", *some, "--k", "1"], "--k says nothing about --task perplexity"),
        (["out", "--task", "suite"], "needs --dataset"),
        (["--task", "contamination", "--dataset", "x"], "needs --train_text"),
        (["out", "--task", "contamination", "--dataset", "x", "--train_text", "x"], "no DIR"),
        (["out", "--task", "nothing"], "invalid choice"),
        (["out", *some, "--batch_size", "0"], "--batch_size is at least 1"),
    ]:
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, argv)))
        err = capsys.readouterr().err
        assert stop.value.code == 2 and err.count("\n") == 1 and message in err, err


def test_the_help_names_every_task(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = capsys.readouterr().out
    for task in ("perplexity", "multiple-choice", "generate", "suite", "memorisation"):
        assert f"\n{task}" in shown
