"""The interface of every tokenizer: text to ids, ids to text, and a file that keeps it.

A tokenizer is a vocabulary (id -> bytes) and a way to cut text into it. The vocabulary, decoding,
special tokens and saving are the same for all and live here; a subclass adds the cutting, `_plain`.

The rules for special tokens are tiktoken's (https://github.com/openai/tiktoken): text can never
become a special token unless the caller allows it by name, so a user's words cannot end a document
or pose as the system.
"""

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from .conventions import END_OF_TEXT, Conventions
from .files import atomic_file, write_atomic
from .normalizers import Step, check_steps, normalize
from .processes import in_processes
from .texts import file_blocks, groups, replace_surrogates, text_files

FILE_NAME = "tensorlite-tokenizer.json"
FILE_FORMAT = "tensorlite-tokenizer"
FILE_VERSION = 1

GROUP = 2**20  # characters of text that are sent to a worker process at a time


def token_dtype(vocab_size: int) -> np.dtype:
    """The type of ids in arrays and `.bin` files: uint16 if all ids fit into it, else uint32."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


class Tokenizer(ABC):
    """The interface of all tokenizers.

    >>> tokenizer = BPETokenizer.train("low lower lowest", vocab_size=260)
    >>> tokenizer.encode("low")
    [257]
    >>> tokenizer.decode([257])
    'low'

    Attributes:
        vocabulary: the bytes of every id, special tokens included.
        vocab_size: the highest id + 1. Some published vocabularies have gaps below it.
        special_tokens: name -> id, {} if there are none.
        added_tokens: name -> id of tokens that are found in any text, allowed or not, before the
            text is cut; {} if there are none.
        normalizer: what is done to a text first; see normalizers.py.
        normalized_tokens: names of special and added tokens that are looked for in the text that
            the normalizer has made, and not before.
        eos_token: the name of the special token that ends a text, "<|endoftext|>" by default.
        bos_token, pad_token, unk_token, chat_template, prefix_ids, suffix_ids: what a model that
            was trained with this tokenizer expects; see conventions.py. `encode` adds none of it.
        dtype: of ids in arrays and files, uint16 or uint32.
    """

    drops_first_space = False  # whether `decode` leaves out a space at the start of a text

    def __init__(
        self,
        tokens: Mapping[int, bytes],
        special_tokens: Mapping[str, int],
        eos_token: str = END_OF_TEXT,
        added_tokens: Mapping[str, int] | None = None,
        normalizer: Sequence[Step] = (),
        normalized_tokens: Collection[str] = (),
    ):
        # A dict, because a list would take id -1 for its last token.
        self.vocabulary: dict[int, bytes] = dict(tokens)
        self.special_tokens = dict(special_tokens)
        self.added_tokens = dict(added_tokens or {})
        self.normalizer = check_steps(normalizer)
        named = {**self.added_tokens, **self.special_tokens}
        self.normalized_tokens = frozenset(normalized_tokens) & named.keys()
        self._named, self._always = named, frozenset(self.added_tokens)
        late = {name: normalize(name, self.normalizer) for name in self.normalized_tokens}
        self._late = {name: made for name, made in sorted(late.items()) if made}
        for name, token_id in named.items():
            self.vocabulary[token_id] = self._named_bytes(self._late.get(name, name))
        self.set_conventions(Conventions(eos_token=eos_token))
        self.vocab_size = max(self.vocabulary, default=-1) + 1
        self.dtype = token_dtype(self.vocab_size)

    def _named_bytes(self, name: str) -> bytes:
        """What a special or added token stands for in a text."""
        return name.encode()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.vocabulary):,} tokens>"

    # ---- what a model expects around the vocabulary ----

    @property
    def eos_token_id(self) -> int | None:
        """The id of `eos_token`, or None if this vocabulary has no such special token."""
        return self.special_tokens.get(self.eos_token)

    @property
    def bos_token_id(self) -> int | None:
        """The id of `bos_token`, or None if this vocabulary has no such special token."""
        return self.special_tokens.get(self.bos_token)

    @property
    def pad_token_id(self) -> int | None:
        """The id of `pad_token`, or None if this vocabulary has no such special token."""
        return self.special_tokens.get(self.pad_token)

    @property
    def conventions(self) -> Conventions:
        """The names, the template and the ids around a text, together."""
        return Conventions.of(self)

    def set_conventions(self, conventions: Conventions) -> None:
        """Set them all. Raises ValueError for prefix_ids or suffix_ids outside the vocabulary."""
        for name, value in conventions.checked(self.vocabulary)._asdict().items():
            setattr(self, name, value)

    # ---- text to ids ----

    @abstractmethod
    def _plain(self, text: str) -> list[int]:
        """Ids of a part of a text that is normalized and holds no token that is to be found."""

    def _plain_array(self, text: str) -> np.ndarray:
        """`_plain` as an array."""
        return np.array(self._plain(text), self.dtype)

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of `text`, all of it taken as plain text. No str raises an error.

        >>> BPETokenizer([(108, 111)]).encode_ordinary("lot")
        [256, 116]

        Only `added_tokens` are found in it, which are part of any text. Lone surrogates, which
        UTF-8 cannot hold, become U+FFFD.
        """
        parts = self._cut_out(replace_surrogates(text), frozenset())
        return list(chain.from_iterable(map(self._encode_part, parts)))

    def encode(
        self,
        text: str,
        allowed_special: Collection[str] = (),
        disallowed_special: Collection[str] = "all",
    ) -> list[int]:
        """Ids of `text`, in which the special tokens in `allowed_special` are recognized.

        >>> tokenizer = BPETokenizer.train("", 257, special_tokens=["<|endoftext|>"])
        >>> tokenizer.encode("A<|endoftext|>", allowed_special={"<|endoftext|>"})
        [65, 256]

        `allowed_special` is a set of names, or "all". Where two special tokens begin at the same
        place, the longer one is taken. Allowed names that are not special tokens of this tokenizer
        are ignored, as in tiktoken.
        Raises ValueError if a name in `disallowed_special` ("all": all special tokens that are not
        allowed) occurs anywhere in `text`. A special token that is neither allowed nor disallowed
        is taken as plain text.
        """
        parts = self._parts(text, allowed_special, disallowed_special)
        return list(chain.from_iterable(map(self._encode_part, parts)))

    def encode_to_numpy(
        self,
        text: str,
        allowed_special: Collection[str] = (),
        disallowed_special: Collection[str] = "all",
    ) -> np.ndarray:
        """`encode` into an array (tokens,) of `dtype`, which is faster for long texts.

        >>> BPETokenizer.train("", 257).encode_to_numpy("AB")
        array([65, 66], dtype=uint16)
        """
        parts = self._parts(text, allowed_special, disallowed_special)
        ids = [
            np.array([part], self.dtype) if isinstance(part, int) else self._plain_array(part)
            for part in parts
        ]
        return np.concatenate(ids) if ids else np.zeros(0, self.dtype)

    def _encode_part(self, part: str | int) -> list[int]:
        return [part] if isinstance(part, int) else self._plain(part)

    def _parts(self, text: str, allowed, disallowed) -> list[str | int]:
        """`_cut_out` for the special tokens that are allowed, once the others are refused."""
        everything = isinstance(disallowed, str) and disallowed == "all"
        allowed = self._names(allowed, "allowed_special").intersection(self.special_tokens)
        disallowed = self._names(disallowed, "disallowed_special")
        if everything and allowed:
            disallowed -= allowed
        text = replace_surrogates(text)
        if disallowed and (found := any_of(disallowed).search(text)):
            name = found.group()
            raise ValueError(
                f"the text contains the special token {name!r}, which is not allowed here; "
                f"to encode it as a special token, pass allowed_special={{{name!r}}}; "
                f"to encode it as plain text, use encode_ordinary(text)"
            )
        return self._cut_out(text, allowed)

    def _cut_out(self, text: str, allowed: frozenset[str]) -> list[str | int]:
        """`text` cut at its added tokens and at the special tokens in `allowed`.

        These become their ids. The plain texts between them are normalized, each by itself.
        """
        names = allowed | self._always
        parts = _cut_at(text, names - self.normalized_tokens, self._named)
        if not self.normalizer and not self._late:
            return parts
        late = {made: self._named[name] for name, made in self._late.items() if name in names}
        found: list[str | int] = []
        for part in parts:
            if isinstance(part, int):
                found.append(part)
            else:
                found += _cut_at(normalize(part, self.normalizer), frozenset(late), late)
        return found

    def _names(self, names: Collection[str], what: str) -> frozenset[str]:
        """`names` as a set, "all" meaning all special tokens."""
        if isinstance(names, str):
            if names != "all":  # set("<|endoftext|>") would be a set of letters
                raise ValueError(
                    f'{what} must be "all" or a set of names, not the string '
                    f"{names!r}; write {{{names!r}}}"
                )
            return frozenset(self.special_tokens)
        return frozenset(names)

    def encode_batch(
        self,
        texts: Iterable[str],
        workers: int | None = None,
        allowed_special: Collection[str] = (),
        disallowed_special: Collection[str] = "all",
    ) -> list[list[int]]:
        """`encode` of each text, in order; with `workers` > 1, by that many processes.

        >>> CharTokenizer.train("abc").encode_batch(["ab", "c"])
        [[0, 1], [2]]

        If there is less than a megabyte of text for each process, this process encodes it all,
        sooner than the others would have started.
        """
        if isinstance(texts, str):
            raise TypeError("encode_batch takes several texts, not one str; use encode(text)")
        if not isinstance(disallowed_special, str):
            disallowed_special = set(disallowed_special)
        special = self._names(allowed_special, "allowed_special"), disallowed_special
        answers = []
        for ids, ends in in_processes(self._encode_group, groups(texts, GROUP), workers, *special):
            ids = ids.tolist()
            answers += [ids[first:end] for first, end in pairwise([0, *ends.tolist()])]
        return answers

    def encode_ended(self, texts: Iterable[str]) -> np.ndarray:
        """The ids of all texts as plain text, `eos_token_id` after each: (tokens,) of `dtype`.

        >>> BPETokenizer([], special_tokens={"<|endoftext|>": 256}).encode_ended(["AB", "C"])
        array([ 65,  66, 256,  67, 256], dtype=uint16)

        Raises ValueError if there is no end-of-text token.
        """
        if self.eos_token_id is None:
            raise ValueError(f"{self!r} has no special token {self.eos_token} to end a text with")
        parts = [np.zeros(0, self.dtype)]
        for group in groups(texts, GROUP):
            ids, ends = self._encode_group(group, frozenset(), ())
            parts.append(np.insert(ids, ends, self.eos_token_id))
        return np.concatenate(parts)

    def _encode_group(self, texts: list[str], allowed, disallowed) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts (tokens,), and where those of each end (texts,)."""
        together = "\0".join(texts)
        names = allowed | self._names(disallowed, "disallowed_special")
        if names and any_of(names).search(together):
            answers = [self.encode_to_numpy(text, allowed, disallowed) for text in texts]
        else:
            answers = self._ordinary_batch(texts)
        return np.concatenate(answers), np.cumsum([len(ids) for ids in answers])

    def _ordinary_batch(self, texts: list[str]) -> list[np.ndarray]:
        """`encode_ordinary` of each as an array."""
        return [self.encode_to_numpy(text, (), ()) for text in texts]

    def encode_file(
        self,
        source: str | os.PathLike,
        target: str | os.PathLike,
        allowed_special: Collection[str] = (),
        workers: int | None = None,
        encoding: str = "utf-8",
    ) -> int:
        """Encode a text file into a `.bin` token file of `dtype`; returns the number of tokens.

        `source` may be a folder: its text files (see `text_files`) are joined by "\\n". The ids are
        those of `encode_ordinary` of the whole text, except that the special tokens in
        `allowed_special` are recognized, and that a byte order mark at the start of a file is
        dropped. `workers` > 1 encodes in that many processes. A progress bar appears if stderr is a
        terminal. `target` appears whole or not at all.

        A character tokenizer, and BPE with a published pattern, read and write a few megabytes at a
        time. Text that cannot be divided is held in memory whole: megabytes of one word (see
        `pieces.blocks`), or, with another pattern or none and for SentencePiece's BPE, the file.

        Raises ValueError if the file is not text in this encoding, or empty.
        """
        from tqdm import tqdm

        source, target = Path(source), Path(target)
        files = text_files(source, encoding) if source.is_dir() else [source]
        allowed = self._names(allowed_special, "allowed_special") & self.special_tokens.keys()
        total = 0
        bar = tqdm(
            total=sum(file.stat().st_size for file in files) or None,  # a pipe's is 0
            desc=f"encoding {source.name}",
            unit="B",
            unit_scale=True,
            disable=None,  # no bar where stderr is a file
        )
        with bar, atomic_file(target) as file:
            whole = allowed | self._always
            texts = file_blocks(files, self._cut, encoding, whole, bar.update)
            for ids in in_processes(self.encode_to_numpy, texts, workers, allowed, ()):
                file.write(ids.data)
                total += len(ids)
            if not total:
                raise ValueError(f"{source} holds no text")
        return total

    def _cut(self, text: str, place: int) -> int:
        """The first place from `place` on where `text` may be divided; its end if there is none."""
        return len(text)

    # ---- ids to text ----

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids` (a flat sequence of integers, NumPy's included), joined.

        >>> CharTokenizer.train("abé").decode_bytes([0, 2])
        b'a\\xc3\\xa9'

        Raises ValueError on an id outside the vocabulary.
        """
        if hasattr(ids, "tolist"):  # taking the elements of a NumPy array one at a time is slow
            ids = ids.tolist()
        try:
            return b"".join(map(self.vocabulary.__getitem__, ids))
        except KeyError as error:
            token_id, unused = error.args[0], self.vocab_size - len(self.vocabulary)
            gaps = f", of which {unused} are no token" if unused else ""
            if token_id in range(self.vocab_size):
                gaps += f", {token_id} among them"
            raise ValueError(
                f"id {token_id} is not in the vocabulary of {len(self.vocabulary)} tokens "
                f"(0 to {self.vocab_size - 1}{gaps})"
            ) from None
        except TypeError as error:
            raise TypeError(f"ids must be one flat sequence of integers: {error}") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 (half a character, say) become U+FFFD.

        >>> BPETokenizer.train("", 256).decode([104, 105, 255])
        'hi\\ufffd'

        A tokenizer that puts a space before every text (`drops_first_space`) leaves it out again.
        Raises ValueError on an id outside the vocabulary.
        """
        text = self.decode_bytes(ids).decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self.drops_first_space else text

    # ---- to a file ----

    @abstractmethod
    def describe(self) -> dict:
        """What the file holds besides format and version, as JSON values."""

    @classmethod
    @abstractmethod
    def from_description(cls, description: dict) -> "Tokenizer":
        """The inverse of `describe`. A wrong description raises ValueError or TypeError."""

    def describe_names(self) -> dict:
        """The part of `describe` that says what is done before a text is cut; {} for nothing."""
        names = {"added_tokens": self.added_tokens, "normalizer": list(self.normalizer)}
        names["normalized_tokens"] = sorted(self.normalized_tokens)
        return {name: value for name, value in names.items() if value}

    @staticmethod
    def described_names(description: dict):
        """special_tokens, added_tokens, normalizer and normalized_tokens of a description."""
        special, added = description["special_tokens"], description.get("added_tokens", {})
        for what, tokens in (("special_tokens", special), ("added_tokens", added)):
            if not isinstance(tokens, dict):
                kind = type(tokens).__name__
                raise TypeError(f"{what} must be a dict of name: id, not {kind}")
        late = description.get("normalized_tokens", [])
        if not isinstance(late, list) or not all(isinstance(name, str) for name in late):
            raise TypeError("normalized_tokens must be a list of names")
        return special, added, check_steps(description.get("normalizer", [])), late

    def save(self, directory: str | os.PathLike) -> None:
        """Write `directory/tensorlite-tokenizer.json`, which `tokenizer.load` reads back.

        A crash at any moment leaves the old file or the new one, never half of one.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        described = self.describe() | self.conventions.describe()
        content = {"format": FILE_FORMAT, "version": FILE_VERSION, **described}
        write_atomic(directory / FILE_NAME, json.dumps(content).encode())


def _cut_at(text: str, names: frozenset[str], ids: Mapping[str, int]) -> list[str | int]:
    """`text` cut at all `names` in it: their ids, and the texts between them."""
    if not names:
        return [text]
    # With a group in the expression, every second part is what the group matched.
    parts = any_of(names).split(text)
    return [ids[part] if i % 2 else part for i, part in enumerate(parts)]


@lru_cache(maxsize=128)
def any_of(names: frozenset[str]) -> re.Pattern:
    """A regular expression that finds any of the names; of several at one place, the longest.

    It is cached, because compiling a thousand names takes longer than searching a short text.
    """
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})")
