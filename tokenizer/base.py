"""What every tokenizer can do: text to ids, ids to text, and a file to keep it in.

A tokenizer is a vocabulary (id -> bytes) and a way to cut text into it. The vocabulary, decoding,
special tokens and saving are the same for all and live here; a subclass adds the cutting,
`encode_ordinary`.

The rules for special tokens are tiktoken's (https://github.com/openai/tiktoken): text can never
become a special token unless the caller allows it by name, so a user's words cannot end a document
or pose as the system. Different from tiktoken: the check cannot be switched off in `encode`;
`encode_ordinary` is the way to say "this is all plain text".
"""

import json
import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from pathlib import Path

FILE_NAME = "tensorlite-tokenizer.json"
FILE_FORMAT = "tensorlite-tokenizer"
FILE_VERSION = 1
END_OF_TEXT = "<|endoftext|>"


class Tokenizer(ABC):
    """The interface of all tokenizers.

    >>> tokenizer = BPETokenizer.train("low lower lowest", vocab_size=260)
    >>> tokenizer.encode("low")
    [257]
    >>> tokenizer.decode([257])
    'low'

    Attributes:
        vocabulary: the bytes of every id, special tokens included.
        vocab_size: how many ids there are; they run from 0 to vocab_size - 1.
        special_tokens: name -> id, {} if there are none.
    """

    def __init__(self, tokens: Iterable[bytes], special_tokens: dict[str, int]):
        # A dict, because a list would answer id -1 with its last token.
        self.vocabulary: dict[int, bytes] = dict(enumerate(tokens))
        self.special_tokens = dict(special_tokens)
        for name, token_id in self.special_tokens.items():
            self.vocabulary[token_id] = name.encode()
        self.vocab_size = len(self.vocabulary)

    @property
    def eos_token_id(self) -> int | None:
        """The id of "<|endoftext|>", or None if this vocabulary has no such special token."""
        return self.special_tokens.get(END_OF_TEXT)

    # ---- text to ids ----

    @abstractmethod
    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of `text`, all of it plain text: never a special token, never an error on any str.

        Lone surrogates, which UTF-8 cannot hold, become U+FFFD.
        """

    def encode(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:
        """Ids of `text`, where the special tokens in `allowed_special` (names, or "all") count.

        >>> tokenizer = BPETokenizer.train("", 257, special_tokens=["<|endoftext|>"])
        >>> tokenizer.encode("A<|endoftext|>", allowed_special={"<|endoftext|>"})
        [65, 256]

        Where two special tokens begin at the same place, the longer one counts. Names in
        `allowed_special` that are not special tokens here are ignored, as tiktoken does.
        Raises ValueError if a special token that is not allowed occurs anywhere in `text`.
        """
        if isinstance(allowed_special, str):
            if allowed_special != "all":  # set("<|endoftext|>") would be a set of letters
                raise ValueError(
                    f'allowed_special must be "all" or a set of names, not the string '
                    f"{allowed_special!r}; write {{{allowed_special!r}}}"
                )
            allowed_special = self.special_tokens
        allowed = self.special_tokens.keys() & set(allowed_special)
        text = replace_surrogates(text)

        for name in self.special_tokens:
            if name not in allowed and name in text:
                raise ValueError(
                    f"the text contains the special token {name!r}, which is not allowed here; "
                    f"to encode it as a special token, pass allowed_special={{{name!r}}}; "
                    f"to encode it as plain text, use encode_ordinary(text)"
                )
        if not allowed:
            return self.encode_ordinary(text)

        longest_first = sorted(allowed, key=len, reverse=True)
        ids: list[int] = []
        for i, part in enumerate(re.split(f"({'|'.join(map(re.escape, longest_first))})", text)):
            if i % 2:  # re.split with a group: every second part is what the group matched
                ids.append(self.special_tokens[part])
            else:
                ids += self.encode_ordinary(part)
        return ids

    def encode_batch(
        self,
        texts: Iterable[str],
        workers: int | None = None,
        allowed_special: Collection[str] = (),
    ) -> list[list[int]]:
        """`encode` of each text, in order; `workers` > 1 shares them among that many processes.

        >>> CharTokenizer.train("abc").encode_batch(["ab", "c"])
        [[0, 1], [2]]

        Processes pay only for many texts: each must start and be sent the vocabulary first.
        """
        if isinstance(texts, str):
            raise TypeError("encode_batch takes several texts, not one str; use encode(text)")
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, or None, not {workers}")
        if workers is None or workers == 1:
            return [self.encode(text, allowed_special) for text in texts]

        from concurrent.futures import ProcessPoolExecutor

        texts = list(texts)
        chunk = max(1, len(texts) // (8 * workers))
        with ProcessPoolExecutor(
            workers, initializer=_start_worker, initargs=(self, allowed_special)
        ) as pool:
            return list(pool.map(_encode_in_worker, texts, chunksize=chunk))

    # ---- ids to text ----

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids` (a flat sequence of integers, NumPy's included), joined.

        >>> CharTokenizer.train("abé").decode_bytes([0, 2])
        b'a\\xc3\\xa9'

        Raises ValueError on an id outside the vocabulary.
        """
        if hasattr(ids, "tolist"):  # a NumPy array's elements are slow to take one at a time
            ids = ids.tolist()
        try:
            return b"".join(map(self.vocabulary.__getitem__, ids))
        except KeyError as error:
            raise ValueError(
                f"id {error.args[0]} is not in the vocabulary of {self.vocab_size} tokens "
                f"(0 to {self.vocab_size - 1})"
            ) from None
        except TypeError as error:
            raise TypeError(f"ids must be one flat sequence of integers: {error}") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 (half a character, say) become U+FFFD.

        >>> BPETokenizer.train("", 256).decode([104, 105, 255])
        'hi\\ufffd'

        Raises ValueError on an id outside the vocabulary.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    # ---- to a file ----

    @abstractmethod
    def _description(self) -> dict:
        """What the file holds beside format and version, as JSON values."""

    @classmethod
    @abstractmethod
    def _from_description(cls, description: dict) -> "Tokenizer":
        """The inverse of `_description`; whatever is wrong in it raises ValueError or TypeError."""

    def save(self, directory: str | os.PathLike) -> None:
        """Write `directory/tensorlite-tokenizer.json`, which `tokenizer.load` reads back.

        A crash at any moment leaves the old file or the new one, never half of one.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        content = {"format": FILE_FORMAT, "version": FILE_VERSION, **self._description()}
        write_atomic(directory / FILE_NAME, json.dumps(content).encode())


def write_atomic(path: str | os.PathLike, data: bytes | memoryview) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one, never half."""
    path = Path(path)
    # In the same folder, since a rename is atomic only within one file system; and not by
    # tempfile, whose files only their owner may read.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_surrogates(text: str) -> str:
    """`text` as UTF-8 can hold it: surrogate pairs joined, lone surrogates made U+FFFD.

    >>> replace_surrogates("a\\ud800")
    'a\\ufffd'

    A str from os.listdir or json.loads may hold such halves of UTF-16 characters.
    """
    if not isinstance(text, str):
        raise TypeError(f"a text must be a str, not {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


# A worker process gets the tokenizer once, when it starts, not once per text.
_worker: tuple[Tokenizer, Collection[str]]


def _start_worker(tokenizer: Tokenizer, allowed_special: Collection[str]) -> None:
    global _worker
    _worker = tokenizer, allowed_special


def _encode_in_worker(text: str) -> list[int]:
    tokenizer, allowed_special = _worker
    return tokenizer.encode(text, allowed_special)
