"""Files of published families' tokenizers: what is refused, by name, and what is kept."""

import json
import random
import warnings
from functools import cache

import pytest

import tokenizer
from tokenizer.huggingface_files import read_huggingface

hf = pytest.importorskip("tokenizers", reason="Hugging Face's tokenizers are compared with")

from .test_families import FAMILIES, check_same, family  # noqa: E402


@cache
def llama2_file() -> str:
    return FAMILIES["llama2"]().to_str()


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(normalizer=None), r"pre_tokenizer \[\] cannot be read"),
        (dict(normalizer={"type": "StripAccents"}), "changes the text first .*'StripAccents'"),
        (dict(pre_tokenizer={"type": "Whitespace"}), r"pre_tokenizer \['Whitespace'\] cannot"),
        (
            dict(pre_tokenizer={"type": "Metaspace", "replacement": "_", "split": True}),
            "Metaspace with the replacement '_' and the prepend_scheme 'always' cannot",
        ),
        (
            dict(pre_tokenizer={"type": "Metaspace", "prepend_scheme": "often"}),
            "prepend_scheme 'often' cannot",
        ),
        (dict(decoder=None), r"decoder \[\] cannot be read; only \['Replace', 'ByteFallback'"),
        (dict(decoder={"type": "Metaspace"}), "decoder .*'Metaspace'.* cannot be read"),
        (dict(model__unk_token="<no>"), "the unknown token '<no>' is not a token"),
        (dict(model__unk_token=3), "unknown token 3 is not a token|must be a str"),
        (
            dict(model__unk_token=None, model__byte_fallback=False),
            "cannot be read|would be dropped",
        ),
        (dict(model__dropout=0.1), "dropout 0.1 cannot be read"),
        (dict(model__vocab={"a": "1"}), "the id of 'a' is '1'"),
        (dict(model__vocab={"a": 1, "b": 1}), "id 1 is given to 'a' and 'b'"),
        (dict(model__vocab={"a": -1}), "must be from 0|not a token"),
        (dict(model__merges=[["qq", "x"]]), "merge 0 has 'qq', which is not a token"),
        (dict(model__merges=[["a", "<s>"]]), "merge 0 makes 'a<s>', which is not a token"),
        (
            dict(added_tokens=[{"id": 3, "content": "<s>", "special": True}]),
            "'<s>' has ids 1, 3",
        ),
        (
            dict(added_tokens=[{"id": 1, "content": "<s>", "special": True, "lstrip": True}]),
            "added token '<s>' has lstrip, .* take the white space before it",
        ),
    ],
)
def test_other_steps_are_refused_by_name(changes, message, tmp_path):
    description = json.loads(llama2_file())
    for path, value in changes.items():
        *parents, name = path.split("__")
        place = description[parents[0]] if parents else description
        place[name] = value
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(description))
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message) as error:
        warnings.simplefilter("ignore")
        tokenizer.load(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_token_of_plain_text_is_no_special_token(tmp_path):
    description = json.loads(llama2_file())
    made = "".join(description["model"]["merges"][0])
    token = {"id": description["model"]["vocab"][made], "content": made, "special": True}
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
    description["added_tokens"].append(token | flags)
    with pytest.raises(ValueError, match="is a token of plain text too: it would be cut out"):
        read_huggingface(description)
    description["added_tokens"][-1]["special"] = False  # then that is what happens
    ours, theirs = read_huggingface(description), hf.Tokenizer.from_str(json.dumps(description))
    check_same(theirs, ours, f"x{made} {made}{made} low")


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(metaspace=["often", True]), "the scheme must be one of"),
        (dict(metaspace=[1]), "metaspace must be"),
        (dict(tokens={"a": 1}), "tokens must be a list, not dict"),
        (dict(tokens=[]), "there are no tokens|not a token"),
        (dict(tokens=["a", "a"]), "'a' is token 0 and token 1"),
        (dict(tokens=["a", 3]), "token 1 must be a str"),
        (dict(merges=[[0]]), "merge 0 must be a pair of ids"),
        (dict(unknown=3), "unknown must be a str"),
        (dict(normalizer=[["replace", "", "x"]]), "a step of a normalizer must be one of"),
        (dict(normalizer="NFC"), "a normalizer is a list"),
        (dict(added_tokens=[1]), "added_tokens must be a dict"),
        (dict(prefix_ids=[10**6]), "prefix_ids has id 1000000, which is not in the vocabulary"),
        (dict(suffix_ids="x"), "suffix_ids must be a list of ids"),
        (dict(chat_template=1), "chat_template must be a str"),
        (dict(special_tokens={"<s>": 5}), "id 5 is given to"),
    ],
)
def test_our_own_file_is_checked(changes, message, tmp_path):
    _, ours = family("llama2")
    ours.save(tmp_path)
    path = tmp_path / "tensorlite-tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        tokenizer.load(path)


@pytest.mark.parametrize("name", ["llama2", "mistral", "qwen3", "deepseek"])
def test_changed_files_raise_nothing_but_value_error(name, tmp_path):
    _, ours = family(name)
    ours.save(tmp_path / "ours")
    ours.export(tmp_path / "hf", "huggingface")
    rng = random.Random(0)
    for path in (tmp_path / "ours" / "tensorlite-tokenizer.json", tmp_path / "hf/tokenizer.json"):
        good = path.read_text()
        ends = [good[:3000], good[-3000:]]
        for _ in range(30):
            i, j = sorted(rng.randrange(3000) for _ in range(2))
            at = rng.randrange(2)
            word = rng.choice(["null", "-1", "[]", "{}", '"x"', "1e9", "", good[i:j]])
            cut = ends[at][:i] + word + ends[at][i + rng.randrange(8) :]
            path.write_text(cut + good[3000:] if at == 0 else good[:-3000] + cut)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    tokenizer.load(path).encode("low e\u0301 <think>", "all")
                except ValueError:
                    pass
