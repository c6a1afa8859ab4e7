"""Texts that must match a grammar do, whatever the model would like to say."""

import builtins
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt.generate import Grammar, complete, generate, stream
from tokenizer import BPETokenizer, CharTokenizer

from .test_generation import assert_frequencies, log_softmax, logits_of, make

TEXT = 'the café of 日本, naïve: 12 and 345 yes no {"name": "a", "n": 12, "list": [true, false]} '
ASCII = "".join(map(chr, range(32, 127)))
TOKENIZERS = {
    "characters": CharTokenizer(ASCII + "\n\u0301éñ日本語😀"),
    "bytes": BPETokenizer([]),
    "bpe": BPETokenizer.train(TEXT * 9, 310, special_tokens=["<|endoftext|>"]),
}
MODELS = {
    name: [make("gpt2", tokenizer.vocab_size, 32, seed) for seed in range(3)]
    for name, tokenizer in TOKENIZERS.items()
}

atoms = st.sampled_from(
    [
        "a",
        "the ",
        "é",
        "日",
        "[0-9]",
        "[a-fé-ñ]",
        r"\d",
        "[^a-z]",
        "😀",
        ".",
        r"\.",
        "/",
        '"',
        r"\n",
    ]
)


def larger(inner):
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["?", "{2}", "{0,3}", "{1,4}"])).map(
            lambda part: f"(?:{part[0]}){part[1]}"
        ),
    )


@given(
    pattern=st.recursive(atoms, larger, max_leaves=6),
    name=st.sampled_from(sorted(TOKENIZERS)),
    seed=st.integers(0, 50),
    temperature=st.sampled_from([0, 1.0, 3.0]),
    filters=st.sampled_from([{}, {"top_k": 3}, {"top_p": 0.5}, {"repetition_penalty": 1.5}]),
)
def test_the_text_matches_the_pattern(pattern, name, seed, temperature, filters):
    tokenizer, grammar = TOKENIZERS[name], Grammar.regex(pattern)
    how = dict(temperature=temperature, seed=seed, constraint=grammar, batch_size=2) | filters
    prompts = ["the ", "", "12"]
    model = MODELS[name][seed % 3]
    for text in complete(model, tokenizer, prompts, 400, **how):
        assert re.fullmatch(pattern, text.text), (pattern, text)
        assert text.finish in ("eos", "stop")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_text_that_is_cut_short_says_so(name):
    """What ended by "eos" or "stop" matches, and what ended by "length" does not."""
    tokenizer, finishes = TOKENIZERS[name], set()
    for pattern in ("[0-9]{3,6}x", "(ab)+c?", "é{2,5}", "[a-z]+"):
        for seed in range(3):
            for n in (0, 1, 2, 5, 8):
                how = dict(temperature=1.0, seed=seed, constraint=Grammar.regex(pattern))
                model = MODELS[name][seed]
                (c,) = complete(model, tokenizer, ["a"], n, **how)
                written = tokenizer.decode(c.ids)  # c.text lacks half a character at its end
                assert (c.finish == "length") == (re.fullmatch(pattern, written) is None)
                finishes.add(c.finish)
                if c.finish == "length":
                    with pytest.raises(ValueError, match=f"{n} new tokens are too few"):
                        generate(model, tokenizer, "a", n, **how)
                else:
                    assert generate(model, tokenizer, "a", n, **how) == "a" + c.text
    assert finishes >= {"stop", "length"} and ("eos" in finishes) == (name == "bpe")


def test_an_end_token_is_drawn_only_where_the_text_may_end():
    """Also one of the caller, that stands for text elsewhere."""
    tokenizer = TOKENIZERS["bytes"]
    lengths = set()
    for seed in range(30):
        how = dict(temperature=1.5, seed=seed, stop=[ord("."), ord("b")])
        constraint = Grammar.regex(r"[ab.]{2,}")
        (c,) = complete(MODELS["bytes"][0], tokenizer, [""], 300, constraint=constraint, **how)
        assert c.finish == "eos" and re.fullmatch("a{2,}", c.text)
        lengths.add(len(c.text))
    assert len(lengths) > 1


def test_without_an_end_token_a_text_goes_on_as_long_as_it_can():
    model, tokenizer = MODELS["characters"][0], TOKENIZERS["characters"]
    for pattern, n in (("[0-9]{2,7}", 7), ("a|ab|abc", 3), ("[0-9]+", 30)):
        (c,) = complete(model, tokenizer, ["x"], 30, 1.0, constraint=Grammar.regex(pattern))
        assert len(c.text) == n and c.finish == "stop" and re.fullmatch(pattern, c.text)


def test_a_text_that_is_complete_before_it_begins():
    for name, tokenizer in TOKENIZERS.items():
        (c,) = complete(MODELS[name][0], tokenizer, ["x"], 5, constraint=Grammar.regex(""))
        assert (c.text, c.ids, c.finish) == ("", [], "stop")


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "n": {"type": "integer", "minimum": 0, "maximum": 99},
        "kind": {"enum": ["日本", "b", None, 5]},
        "list": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "n", "kind"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_json_is_valid_for_its_schema(name, temperature):
    for seed in range(3):
        for schema in (SCHEMA, json.dumps(SCHEMA)):
            text = generate(
                MODELS[name][seed],
                TOKENIZERS[name],
                "the ",
                500,
                temperature,
                seed=seed,
                constraint=Grammar.json_schema(schema),
                return_full_text=False,
            )
            value = json.loads(text)
            assert {"name", "n", "kind"} <= value.keys() <= SCHEMA["properties"].keys()
            assert isinstance(value["name"], str) and len(value["name"]) <= 6
            assert type(value["n"]) is int and 0 <= value["n"] <= 99
            assert value["kind"] in ("日本", "b", None, 5)
            listed = value.get("list", [True])
            assert 1 <= len(listed) <= 3 and all(type(x) is bool for x in listed)
            assert "\n" not in text and ('"name": ' in text)  # one form, that of json.dumps


def test_answers_are_chosen_as_often_as_the_model_finds_them_likely():
    tokenizer, answers = TOKENIZERS["characters"], ["a", "é", "7", "日"]
    model = make("gpt2", tokenizer.vocab_size, 32, scale=0.2)
    logits = logits_of(model, tokenizer.encode("the "))
    p = np.exp(log_softmax([logits[tokenizer.encode(a)[0]] for a in answers]))
    assert p.max() < 0.9
    grammar = Grammar.choices(answers)
    texts = complete(model, tokenizer, ["the "] * 400, 5, 1.0, seed=0, constraint=grammar)
    drawn = [c.text for c in texts]
    assert_frequencies([drawn.count(a) for a in answers], p)
    best = generate(model, tokenizer, "the ", 5, 0, constraint=grammar, return_full_text=False)
    assert best == answers[int(p.argmax())]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_answers_may_hold_any_characters(name):
    answers = ["yes", "no.", "(a|b)*", "a/b\\", '"\n"', "日本é", "-#&~ ^$", "yes and no"]
    if name == "characters":  # no end token: "yes" alone is never the whole of it
        answers.remove("yes")
    found = set()
    how = dict(temperature=3.0, seed=0, constraint=Grammar.choices(answers), batch_size=20)
    for model in MODELS[name]:
        found |= {c.text for c in complete(model, TOKENIZERS[name], [""] * 60, 30, **how)}
    assert found <= set(answers) and len(found) > 3


def test_all_ways_to_cut_a_text_into_tokens_are_allowed():
    tokenizer = TOKENIZERS["bpe"]
    constraint = Grammar.regex("the ").constraint(tokenizer, tokenizer.vocab_size)
    expected = {i for i, b in tokenizer.vocabulary.items() if b"the ".startswith(b)}
    assert set(np.flatnonzero(constraint.allowed)) == expected and len(expected) > 1
    for byte in b"the ":
        assert not constraint.complete and not constraint.finished and constraint.allowed[byte]
        constraint.take(byte)
    assert constraint.complete and constraint.finished and not constraint.allowed.any()


def test_special_tokens_are_no_part_of_a_constrained_text():
    tokenizer = BPETokenizer([], special_tokens={"<|a|>": 256, "<|endoftext|>": 257})
    constraint = Grammar.regex(r"<\|a\|>|<\|endoftext\|>x?").constraint(tokenizer, 258, {257})
    for byte in b"<|endoftext|>":
        assert not constraint.allowed[[256, 257]].any()
        constraint.take(byte)
    assert set(np.flatnonzero(constraint.allowed)) == {ord("x"), 257} and not constraint.finished
    constraint.take(ord("x"))
    assert set(np.flatnonzero(constraint.allowed)) == {257} and constraint.finished


def test_a_draft_changes_nothing():
    model, tokenizer = MODELS["bpe"][0], TOKENIZERS["bpe"]
    how = dict(temperature=1.0, seed=1, constraint=Grammar.json_schema(SCHEMA))
    text = generate(model, tokenizer, "the ", 300, **how)
    for draft in (model, MODELS["bpe"][1], "ngrams"):
        assert generate(model, tokenizer, "the ", 300, **how, draft=draft) == text


def test_logprobs_are_those_without_the_constraint():
    model, tokenizer = MODELS["bytes"][0], TOKENIZERS["bytes"]
    grammar = Grammar.regex("[0-9]{4}")
    (c,) = complete(model, tokenizer, ["a"], 9, seed=0, constraint=grammar, logprobs=True)
    for i, logprob in enumerate(c.logprobs):
        expected = log_softmax(logits_of(model, [97, *c.ids[:i]]))[c.ids[i]]
        assert logprob == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "make_grammar, words",
    [
        (lambda: Grammar.regex("["), r"constrained to /\[/: unclosed character class"),
        (lambda: Grammar.regex("a\n(b"), "unclosed group"),
        (lambda: Grammar.regex("(?=a)b"), "look-ahead and look-behind, is not supported"),
        (lambda: Grammar.regex(r"(a)\1"), "backreferences are not supported"),
        (lambda: Grammar.regex("a^b"), "not supported"),
        (lambda: Grammar.regex("a\\"), "lexer error"),
        (lambda: Grammar.json_schema("{bad"), "a schema is a dict, or a JSON object as str"),
        (lambda: Grammar.json_schema("[1]"), "a schema is a dict, or a JSON object as str"),
        (lambda: Grammar.json_schema({"type": "nonsense"}), "Invalid type: nonsense"),
        (lambda: Grammar.json_schema({"not": {}}), "Unimplemented keys"),
        (
            lambda: Grammar.json_schema({"type": "integer", "minimum": 5, "maximum": 4}),
            "Unsatisfiable schema",
        ),
        (lambda: Grammar.choices([]), "choices are a list of answers"),
        (lambda: Grammar.choices([1, 2]), "choices are a list of answers"),
        (lambda: Grammar.json_schema({"$ref": "file:///etc/hosts"}), "does not fetch"),
        (lambda: Grammar.choices("yes"), "choices are a list of answers, not 'yes'"),
    ],
)
def test_grammars_that_cannot_be(make_grammar, words):
    with pytest.raises(ValueError, match=words):
        make_grammar()


@pytest.mark.parametrize(
    "text", ["a\nb", "/", "\\", "\\/", "//", "a/i", "\r\t\x00\u2028", "(?x) #-{}[]&~"]
)
def test_escaped_text_is_itself(text):
    tokenizer = TOKENIZERS["bytes"]
    patterns = {re.escape(text), "".join(f"\\u{{{ord(c):x}}}" for c in text)}
    if "\\" not in text and "(" not in text:
        patterns.add(text)
    for pattern in patterns:
        constraint = Grammar.regex(pattern).constraint(tokenizer, 256)
        for byte in text.encode():
            assert np.flatnonzero(constraint.allowed).tolist() == [byte]
            constraint.take(byte)
        assert constraint.finished


def test_texts_that_no_tokens_can_make():
    tokenizer = CharTokenizer("abc")
    model = make("gpt2", tokenizer.vocab_size)
    for pattern in (
        r"[^\s\S]",
        "[0-9]+",
        "\ufffd",
    ):  # the last is what unknown characters decode to
        with pytest.raises(ValueError, match="no token of the tokenizer can follow the beginning"):
            generate(model, tokenizer, "a", 5, constraint=Grammar.regex(pattern))
    with pytest.raises(ValueError, match="no token of the tokenizer can follow id 2"):
        generate(model, tokenizer, "a", 5, constraint=Grammar.regex("acx"))


def test_what_does_not_go_with_a_constraint():
    model, tokenizer = MODELS["bytes"][0], TOKENIZERS["bytes"]
    grammar = Grammar.regex("a+")
    with pytest.raises(ValueError, match="ends where it matches, not at `stop`"):
        next(stream(model, tokenizer, "a", 5, stop=["b"], constraint=grammar))
    with pytest.raises(ValueError, match="go with num_beams 1"):
        generate(model, tokenizer, "a", 5, num_beams=2, constraint=grammar)

    with pytest.raises(TypeError, match=r"a constraint is a Grammar .*, not '\[0-9\]'"):
        generate(model, tokenizer, "a", 5, constraint="[0-9]")


def test_a_space_at_the_start_counts():
    """Also with a tokenizer that leaves it out where a text begins."""
    tokenizer = BPETokenizer([])
    tokenizer.drops_first_space = True
    for prompt in ("", "a"):
        text = generate(
            MODELS["bytes"][0], tokenizer, prompt, 5, constraint=Grammar.regex(" [0-9]{2}")
        )
        assert re.fullmatch(prompt + " [0-9]{2}", text)


def test_without_the_library(monkeypatch):
    def no_llguidance(name, *args, importing=builtins.__import__):
        if name == "llguidance":
            raise ImportError(name)
        return importing(name, *args)

    monkeypatch.setattr(builtins, "__import__", no_llguidance)
    with pytest.raises(ImportError, match=r"pip install 'tensorlite\[constrain\]'"):
        Grammar.regex("a")


def test_an_end_token_of_minus_one_is_none():
    """As some published config.json have it: it is not the last id."""
    tokenizer = BPETokenizer([(97, 98)])
    constraint = Grammar.regex("(ab)+").constraint(tokenizer, 257, eos=[-1])
    assert np.flatnonzero(constraint.allowed).tolist() == [97, 256]
