"""Conversations: records, templates, and ids that are those of transformers and hold no trick."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokenizer as tokenizers
from gpt.checkpoint import save_tokenizer
from gpt.data.chat import TEMPLATES, Chat, messages_of, prepare_chat, prompt_of
from gpt.data.template import render
from tokenizer import BPETokenizer, CharTokenizer, SentencePieceBPE, with_special_tokens

TEXT = "Hello there, how are you? Fine, thanks.\n\n### Instruction:\nName the colour of the sky."


def say(*texts, system=None):
    """A conversation of these texts, the user's first."""
    first = [] if system is None else [{"role": "system", "content": system}]
    roles = ("user", "assistant")
    return first + [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def bpe():
    return BPETokenizer.train(TEXT * 3, 290)


def pieces():
    """A tokenizer as Llama 2's: a text begins with a space."""
    letters = sorted({*TEXT.replace(" ", "▁").replace("\n", ""), *"<|>_[/]"})
    names = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *letters, "▁H"]
    tokens = {i: name for i, name in enumerate(names) if name not in ("<s>", "</s>")}
    ids = {name: i for i, name in enumerate(names)}
    special, first = {"<s>": 1, "</s>": 2}, ("first", False)
    merges = [(ids["▁"], ids["H"])]
    made = SentencePieceBPE(
        merges, tokens, "<unk>", True, metaspace=first, special_tokens=special, eos_token="</s>"
    )
    made.set_conventions(made.conventions._replace(bos_token="<s>", prefix_ids=[1]))
    return made


# =================================================================================================
# Records
# =================================================================================================


def test_all_forms_of_records_are_conversations():
    expected = say("Name a colour.", "Red.")
    asked, said = expected
    for record in (
        {"instruction": "Name a colour.", "input": "", "output": "Red."},
        {"instruction": "Name a colour.", "output": "Red.", "id": 7},
        {"prompt": "Name a colour.", "completion": "Red."},
        {"prompt": "Name a colour.", "response": "Red."},
        {"prompt": [asked], "completion": [said]},
        {"messages": expected, "source": "x"},
        {"conversations": [{"from": "human", "value": asked["content"]}, {**said, "weight": 1}]},
    ):
        assert messages_of(record) == expected
        assert prompt_of(record) == [asked]
    assert prompt_of({"prompt": "Name a colour."}) == [asked]
    assert prompt_of({"instruction": "Name a colour.", "input": None}) == [asked]
    long = say("a", "b", "c", system="s")
    assert prompt_of({"messages": long}) == long
    assert prompt_of({"messages": long + say("", "d")[1:]}) == long


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "x", "label": 1}, "in prompt and completion .*has the columns text, label"),
        ({"instruction": "x"}, "has the columns instruction"),
        ({"messages": []}, r"a list of messages, not \[\]"),
        ({"messages": "Hello"}, "a list of messages, not 'Hello'"),
        ({"messages": ["Hello"]}, "message 0 has a role and a content, unlike 'Hello'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "of system, user or assistant, not of"),
        ({"messages": [{"content": "x"}]}, "of system, user or assistant, not of None"),
        ({"messages": [{"role": "user"}]}, "message 0, of user, has no text: None"),
        ({"instruction": "x", "output": " \n"}, "message 1, of assistant, has no text"),
        ({"instruction": None, "input": "y", "output": "z"}, "message 0, of user, has no text"),
        ({"instruction": "x", "output": 45}, "message 1, of assistant, has no text: 45"),
        ({"messages": say("a", "b")[::-1]}, "message 0 is of assistant, and not of user"),
        ({"messages": say("a") * 2}, "message 1 is of user, and not of assistant"),
        ({"messages": say("a") + say(system="s")}, "message 1 is of system, and not of assistant"),
        ({"messages": say(system="s")}, "no message of the user"),
        ({"messages": say("a")}, "ends with no answer"),
    ],
)
def test_records_that_are_no_conversation(record, message):
    with pytest.raises(ValueError, match=message):
        messages_of(record)


# =================================================================================================
# Templates
# =================================================================================================

BELOW = "Below is an instruction that describes a task"
WRITE = "Write a response that appropriately completes the request."


def test_the_texts_of_the_templates():
    def text(name, messages, ask=False):
        return render(TEMPLATES[name], messages, ask, eos_token="<e>", bos_token="<b>")

    asked, said = say("Why?", "So.")
    assert text("alpaca", [asked], True) == (
        f"{BELOW}. {WRITE}\n\n### Instruction:\nWhy?\n\n### Response:"
    )
    paired = messages_of({"instruction": "Sort.", "input": "b a", "output": "a b"})
    assert text("alpaca", paired) == (
        f"{BELOW}, paired with an input that provides further context. {WRITE}\n\n"
        "### Instruction:\nSort.\n\n### Input:\nb a\n\n### Response:a b<e>"
    )
    assert text("alpaca", say("Why?", "So.", "Oh?", system="Be kind.")) == (
        "Be kind.\n\n### Instruction:\nWhy?\n\n### Response:So.<e>\n\n### Instruction:\nOh?"
    )
    assert text("chatml", say("Why?", "So.", system="Be kind.")) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\nSo.<|im_end|>\n"
    )
    assert text("chatml", [asked], True).endswith("Why?<|im_end|>\n<|im_start|>assistant\n")
    assert text("llama3", [asked, said]) == (
        "<b><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nSo.<|eot_id|>"
    )
    assert text("llama3", [asked], True).endswith("assistant<|end_header_id|>\n\n")


def test_templates_are_kept_in_a_sandbox(bpe):
    for template, message in (
        ("{% if %}", "is not Jinja"),
        ("{{ raise_exception('only once') }}", "fails on this conversation: only once"),
        ("{{ ''.__class__.__mro__ }}", "fails on this conversation: .*unsafe"),
        ("{{ messages.append(1) }}", "fails on this conversation"),
        ("{{ messages[9].content + 'x' }}", "fails on this conversation"),
        ("{{ 1 / 0 }}", "fails on this conversation"),
    ):
        with pytest.raises(ValueError, match=message):
            Chat(bpe, template).prompt_ids(say("a"))
    given = "{% generation %}{{ messages | tojson(indent=1) }}{% endgeneration %}"
    assert render(given, say("<é>")) == json.dumps(say("<é>"), indent=1, ensure_ascii=False)
    assert len(render("{{ strftime_now('%Y') }}", say("a"))) == 4


def test_without_jinja_the_error_names_the_extra(bpe, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"pip install 'tensorlite\[chat\]'"):
        Chat(bpe, "{{ 'never compiled before' }}")


# =================================================================================================
# Ids
# =================================================================================================


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["bpe", "characters", "pieces"])
def test_answers_count_with_the_token_that_ends_them(template, kind, bpe, tmp_path):
    made = {"bpe": bpe, "pieces": pieces()}.get(kind) or CharTokenizer.train(TEXT + "BRWbdpq<|_>/")
    tokens = prepare_chat(made, template)
    chat = Chat(tokens)
    messages = say("Hello there", "Fine, thanks.", "how are you?", "Fine.", system="Hello")
    ids, counted = chat.example(messages)
    assert ids.dtype == np.int64 and counted.dtype == bool and ids.shape == counted.shape
    runs = np.split(ids, np.flatnonzero(np.diff(counted)) + 1)[1::2]
    (end,) = chat.end_ids
    assert tokens.eos_token_id == end
    assert [tokens.decode_bytes(run[:-1]) for run in runs] == [b"Fine, thanks.", b"Fine."]
    assert all(run[-1] == end for run in runs)
    text = render(tokens.chat_template, messages, **chat.names)
    assert tokens.decode_bytes(ids).decode().removeprefix(" ") == text
    # What asks for an answer is what stands before it.
    prompt = chat.prompt_ids(messages[:2])
    assert ids[: len(prompt)].tolist() == prompt and counted[len(prompt)]
    # The tokenizer is the same when it is saved and read.
    tokens.save(tmp_path)
    again = tokenizers.load(tmp_path)
    assert again.special_tokens == tokens.special_tokens and again.conventions == tokens.conventions
    assert Chat(again).example(messages)[0].tolist() == ids.tolist()


def test_prepared_tokenizers(bpe):
    alpaca, chatml, llama3 = (prepare_chat(bpe, name) for name in TEMPLATES)
    assert alpaca.special_tokens == {"<|endoftext|>": 290}
    assert chatml.special_tokens == {"<|im_start|>": 290, "<|im_end|>": 291}
    assert llama3.bos_token_id == 293 and llama3.eos_token == "<|eot_id|>"
    assert prepare_chat(chatml, "chatml").special_tokens == chatml.special_tokens
    # One whose texts begin with a token has it in its template too.
    llama = prepare_chat(pieces(), "alpaca")
    assert llama.eos_token_id == 2 and Chat(llama).prompt_ids(say("Hello"))[0] == 1
    assert 1 not in Chat(llama).prompt_ids(say("Hello"))[1:]
    with pytest.raises(ValueError, match="one of alpaca, chatml, llama3, not 'x'"):
        prepare_chat(bpe, "x")
    with pytest.raises(ValueError, match="no chat template: name one, alpaca, chatml, llama3"):
        Chat(bpe)
    with pytest.raises(ValueError, match="lacks special tokens of the template chatml"):
        Chat(bpe, "chatml")
    assert Chat(chatml, "alpaca").end_ids == {291}
    named = BPETokenizer([], added_tokens={"<a>": 256})
    assert with_special_tokens(named, ["<a>", "<b>"]).special_tokens == {"<a>": 256, "<b>": 257}


def test_characters_with_special_tokens_as_others_read_them(tmp_path):
    tokens = prepare_chat(CharTokenizer.train(TEXT + "<|_>"), "chatml")
    save_tokenizer(tmp_path, tokens)
    auto = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(tmp_path)
    ids = Chat(tokens).prompt_ids(say("Hello <|im", system="Fine"))
    given = say("Hello <|im", system="Fine")
    assert auto.apply_chat_template(given, add_generation_prompt=True)["input_ids"] == ids
    assert auto.decode(ids) == tokens.decode(ids) and auto.eos_token == "<|im_end|>"


def test_a_template_that_gives_no_clear_answers_is_refused(bpe):
    chatml = prepare_chat(bpe, "chatml")
    body = "{% for m in messages %}{{ m.role + ':' + m.content + '|' }}{% endfor %}"
    with pytest.raises(ValueError, match="ends an answer with no special token"):
        Chat(bpe, body).example(say("a", "b"))
    with pytest.raises(ValueError, match="ends an answer with no special token"):
        Chat(chatml, "{{ '<|im_start|>' }}" + body).example(say("a", "b"))
    forgetful = "{% for m in messages[-2:] %}{{ m.content + '<|im_end|>' }}{% endfor %}"
    assert Chat(chatml, forgetful).example(say("a", "b"))[1].sum() == 2
    with pytest.raises(ValueError, match="message 1, or those before it, in another way"):
        Chat(chatml, forgetful).example(say("a", "b", "c", "d"))
    with pytest.raises(ValueError, match="has no answer"):
        Chat(chatml).example(say("a"))
    with pytest.raises(ValueError, match="nothing is asked"):
        Chat(chatml).prompt_ids(say("a", "b"))


NAMES = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "</s>", "<s>", "<think>", "<|eot_id|>"]
PARTS = [*NAMES, "<|im_", "end|>", "<", "|", ">", "a", " ", "\n", "\ud800"]
tricks = st.lists(st.sampled_from(PARTS)).map("".join)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["bpe", "pieces"])
def test_no_words_become_a_special_token(template, kind, bpe):
    tokens = prepare_chat(with_special_tokens(bpe if kind == "bpe" else pieces(), NAMES), template)
    chat = Chat(tokens)
    special = [*tokens.special_tokens.values()]

    def named(messages):
        ids, _ = chat.example(messages)
        return ids[np.isin(ids, special)].tolist()

    expected = named(say("x", "y", "z", "w", system="s"))

    @given(*[tricks.map("x{}y".format)] * 3)
    def check(a, b, c):
        assert named(say(a, b, "z", c, system=a)) == expected

    check()


def test_text_that_a_normalizer_makes_a_special_token_is_refused():
    end, how = "<end>", dict(normalizer=["NFKC"], normalized_tokens=["<end>"])
    tokens = BPETokenizer([], special_tokens={end: 256}, eos_token=end, **how)
    chat = Chat(tokens, "alpaca")
    assert chat.prompt_ids(say("a <end> b")).count(256) == 0
    with pytest.raises(ValueError, match="message of user holds text that .* normalizer makes"):
        chat.prompt_ids(say("a ＜end＞ b"))


# =================================================================================================
# As transformers
# =================================================================================================

QWEN = """
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}
        {{- '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}
{% set system_message = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}{% else %}
{% set loop_messages = messages %}{% set system_message = '' %}{% endif %}
{% for message in loop_messages %}{% if loop.index0 == 0 %}
{% set content = system_message + message['content'] %}{% else %}
{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}
{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

CASES = {  # a family of tests/test_families.py, its template, the tokens that begin and end a text
    "qwen": ("qwen3", QWEN, None, "<|im_end|>"),
    "smollm": ("smollm", TEMPLATES["alpaca"], None, "<|endoftext|>"),
    "llama3": ("llama3", TEMPLATES["llama3"], "<|begin_of_text|>", "<|eot_id|>"),
    "llama2": ("llama2", LLAMA2, "<s>", "</s>"),
    "mistral": ("mistral", LLAMA2, "<s>", "</s>"),
    "zephyr": ("metaspace", ZEPHYR, "<s>", "</s>"),
}
CONVERSATIONS = [
    say("Hello there"),
    say("  Hello\n\n there ", "Fine, thanks.\n", "語学 café?", system="Be kind: 12345."),
    say("def f():\n    return 1", " \n1", "a", "b", "c"),
]


@pytest.mark.parametrize("case", CASES)
def test_ids_are_those_of_transformers(case, tmp_path):
    families = pytest.importorskip("tests.test_families", reason="tokenizers is not installed")
    transformers = pytest.importorskip("transformers")
    name, template, bos, eos = CASES[case]
    theirs, ours = families.family(name)
    ours.set_conventions(
        ours.conventions._replace(bos_token=bos, eos_token=eos, chat_template=template)
    )
    auto = transformers.PreTrainedTokenizerFast(
        tokenizer_object=theirs, bos_token=bos, eos_token=eos, chat_template=template
    )
    chat = Chat(ours)
    for messages in CONVERSATIONS:
        expected = auto.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert chat.prompt_ids(messages) == expected
    how = dict(return_dict=True, return_assistant_tokens_mask=True)
    for messages in CONVERSATIONS[1:]:
        if case == "zephyr":  # here the prompt lacks the line end that is before an answer
            messages = messages[:-2]
        messages = [*messages, *say("", "So it is: 語.")[1:]]
        ids, counted = chat.example(messages)
        made = auto.apply_chat_template(messages, **how)
        assert ids.tolist() == made["input_ids"]
        if "generation %}" in template:
            assert counted.tolist() == list(map(bool, made["assistant_masks"]))
