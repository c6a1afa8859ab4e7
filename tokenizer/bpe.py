"""The byte-level BPE tokenizer: trained on a corpus, applied to any text.

simple_bpe.py explains byte-pair encoding. A tokenizer first cuts the text into pieces (words,
numbers, runs of punctuation) by a regular expression, and no merge crosses from one piece to the
next.

Follows: GPT-2 (Radford et al. 2019) for pre-tokenization; Hugging Face tokenizers in that a merge
whose bytes are already a token gets that token's id.

Different: ids. Byte b is id b, then come the merges in their order, then the special tokens. (GPT-2
orders the bytes differently, and so Hugging Face breaks ties differently. How we break them is
said at `simple_train`.)

pieces.py cuts a text into pieces, table.py looks up thousands of them at once, fast_bpe.py trains
and encodes, counting.py counts the pieces to train on, checks.py says what a vocabulary must be,
export.py writes the files of other projects, and formats.py reads them.
"""

import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from .base import END_OF_TEXT, Tokenizer, any_of
from .checks import (
    BYTES,
    check_names,
    check_special_ids,
    check_special_names,
    check_tokens,
    grow,
    rank_merges,
    token_bytes,
)
from .counting import count_pieces
from .export import export, write_huggingface, write_ranks
from .fast_bpe import fast_encode, fast_train, short_encode
from .normalizers import Step, normalize
from .pieces import BLOCK, PATTERNS, SHORT_TEXT, Pattern, blocks, next_cut, splitter
from .simple_bpe import Pair
from .table import PieceTable
from .texts import groups


class JoinRanks:
    """Ranks by tiktoken's rule: two tokens merge if their bytes together are a token.

    The id of that token is the rank.

    >>> JoinRanks({0: b"a", 1: b"b", 2: b"ab"}).get((0, 1))
    2
    """

    def __init__(self, tokens: Mapping[int, bytes]):
        self._tokens, self._ids = tokens, {token: i for i, token in tokens.items()}

    def get(self, pair: Pair, default: int | None = None) -> int | None:
        return self._ids.get(self._tokens[pair[0]] + self._tokens[pair[1]], default)


class PieceCache(dict):
    """piece -> ids, filled as pieces are met. Its size is bounded, since texts may never end."""

    MAX_PIECES = 2**18
    MAX_LENGTH = 32  # characters; longer pieces seldom occur twice

    def __init__(self, encode_piece: Callable[[str], list[int]]):
        super().__init__()
        self._encode_piece = encode_piece

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids = tuple(self._encode_piece(piece))
        if len(piece) <= self.MAX_LENGTH:
            if len(self) >= self.MAX_PIECES:
                self.clear()  # the frequent pieces come back soon
            self[piece] = ids
        return ids


SHORT = 48  # bytes; measured: `short_encode` is the faster one for pieces up to this length


class BPETokenizer(Tokenizer):
    """Byte-level BPE: 256 bytes, then a token for each merge, then the special tokens.

    >>> tokenizer = BPETokenizer([(108, 111), (256, 119)], special_tokens={"<|endoftext|>": 258})
    >>> tokenizer.encode("low lo")
    [257, 32, 256]
    >>> tokenizer.vocab_size, tokenizer.eos_token_id
    (259, 258)

    Args:
        merges: (left id, right id) in the order of training. One whose bytes are already a token
            makes no new id.
        pattern: "gpt2", "cl100k", "qwen2", "o200k", a regular expression (as the `regex` module
            writes them), a tuple of these, or None: the whole text is one piece. See
            `pieces.splitter`.
        special_tokens: name -> id; the ids follow the last token's without a gap.
        tokens: id -> bytes, for a vocabulary from elsewhere that numbers its tokens differently. It
            holds the 256 bytes and what the merges make. If `merges` is None, any two tokens merge
            whose bytes together are a token, the lowest id first, as in tiktoken.
        ignore_merges: if a whole piece is a token, it is encoded to that token without merging, as
            in tiktoken.
        eos_token: the name of the special token that ends a text.
        added_tokens, normalizer, normalized_tokens: see `Tokenizer`. The id of an added token may
            be that of the token with the same bytes.

    Raises ValueError if the arguments do not fit together, TypeError if one has a wrong type.
    """

    def __init__(
        self,
        merges: Iterable[Pair] | None,
        pattern: Pattern = "gpt2",
        special_tokens: Mapping[str, int] | None = None,
        tokens: Mapping[int, bytes] | None = None,
        ignore_merges: bool = False,
        eos_token: str = END_OF_TEXT,
        added_tokens: Mapping[str, int] | None = None,
        normalizer: Sequence[Step] = (),
        normalized_tokens: Collection[str] = (),
    ):
        self.pattern = pattern
        self._split = splitter(pattern)
        special_tokens = {} if special_tokens is None else special_tokens
        added_tokens = {} if added_tokens is None else added_tokens
        self._numbered = tokens is None  # as ours are: 256 bytes, merges, special tokens
        if tokens is None:
            tokens, self._ranks, self._merged = grow(merges)
            named = check_names(special_tokens, added_tokens, tokens)
            check_special_ids(named, first=len(tokens))
        else:
            tokens = check_tokens(tokens, check_names(special_tokens, added_tokens, tokens))
            if merges is None:
                self._ranks, self._merged = JoinRanks(tokens), range(max(tokens) + 1)
            else:
                self._ranks, self._merged = rank_merges(merges, tokens)
        more = added_tokens, normalizer, normalized_tokens
        super().__init__(tokens, special_tokens, eos_token, *more)
        self._id_of = {token: i for i, token in tokens.items()}
        self._bytes = [self._id_of[byte] for byte in BYTES]
        self.ignore_merges = ignore_merges or merges is None
        self._cache = PieceCache(self._encode_piece)
        self._table = None
        if pattern in PATTERNS:
            self._table = PieceTable(pattern, self._cache.__getitem__, self.dtype)

    @property
    def merges(self) -> list[Pair] | None:
        """The merges as (left id, right id), in their order; None if tiktoken's rule holds instead.

        `vocabulary` holds the tokens that they make.
        """
        return None if isinstance(self._ranks, JoinRanks) else list(self._ranks)

    @classmethod
    def train(
        cls,
        texts: str | os.PathLike | Iterable[str | os.PathLike],
        vocab_size: int,
        pattern: str | None = "gpt2",
        special_tokens: Iterable[str] = (),
        min_frequency: int = 1,
        max_piece_length: int | None = None,
        workers: int | None = None,
        encoding: str = "utf-8",
    ) -> "BPETokenizer":
        """The tokenizer of `vocab_size` ids (bytes, merges and special tokens) that fits `texts`.

        >>> tokenizer = BPETokenizer.train(["low", "lower"], 258, special_tokens=["<|endoftext|>"])
        >>> tokenizer.merges, tokenizer.special_tokens
        ([(108, 111)], {'<|endoftext|>': 257})

        `texts` is one text, one Path of a file (in `encoding`) or of a folder of text files, or any
        iterable of these, which is read a part at a time: only the count of each distinct piece is
        kept. Special tokens that occur in the texts are taken as plain text. Pairs that occur fewer
        than `min_frequency` times are not merged, and pieces of more than `max_piece_length` bytes
        are left out. `workers` > 1 counts the pieces in that many processes.

        A str is always a text. If it is also the name of a file, a warning says so. If the texts
        are too small for `vocab_size` tokens, there are fewer, and a warning says so.
        Of pairs that occur equally often, the smallest (left id, right id) is merged first.
        Raises ValueError if vocab_size has no room for the bytes and special tokens, if
        min_frequency or max_piece_length is less than 1, or for a file that is not text.
        """
        special_tokens = check_special_names(special_tokens)
        size = vocab_size - len(special_tokens)
        if size < 256:
            raise ValueError(
                f"vocab_size {vocab_size} is too small: 256 bytes and {len(special_tokens)} "
                f"special tokens need at least {256 + len(special_tokens)}"
            )
        for name, least in (
            ("min_frequency", min_frequency),
            ("max_piece_length", max_piece_length),
        ):
            if least is not None and least < 1:
                raise ValueError(f"{name} must be at least 1, not {least}")
        counts = count_pieces(texts, pattern, workers, encoding)
        if max_piece_length is not None:
            counts = {p: count for p, count in counts.items() if len(p) <= max_piece_length}

        from tqdm import tqdm

        # disable=None: no bar where stderr is a file.
        with tqdm(total=size - 256, desc="training BPE", unit="token", disable=None) as bar:
            merges = fast_train(counts, size, bar.update, min_frequency)

        found = 256 + len(merges)
        if found < size:
            why = "every piece of it is one token already"
            if min_frequency > 1:
                why = f"no pair occurs {min_frequency} times any more"
            given = found + len(special_tokens)
            warnings.warn(
                f"the text gives only {given} tokens, not {vocab_size}: {why}", stacklevel=2
            )
        return cls(merges, pattern, {name: found + i for i, name in enumerate(special_tokens)})

    def _plain(self, text: str) -> list[int]:
        if self.pattern in PATTERNS and len(text) > SHORT_TEXT:
            return self._plain_array(text).tolist()
        return self._encode_plainly(text)

    def _encode_plainly(self, text: str) -> list[int]:
        # For pieces that are in the cache, as most are, this loop runs in C.
        return list(chain.from_iterable(map(self._cache.__getitem__, self._split(text))))

    def _plain_array(self, text: str) -> np.ndarray:
        ids = [np.zeros(0, self.dtype)]
        for block in blocks(text, BLOCK, self.pattern):
            found = None
            if self._table and len(block) > SHORT_TEXT:
                found = self._table.ids([block])
            ids += found or [np.array(self._encode_plainly(block), self.dtype)]
        return np.concatenate(ids)

    def _ordinary_batch(self, texts: list[str]) -> list[np.ndarray]:
        """`encode_ordinary` of each text; short ones are encoded together."""
        if self._late or self._always and any_of(self._always).search("\0".join(texts)):
            return super()._ordinary_batch(texts)
        texts = (normalize(text, self.normalizer) for text in texts)
        answers = []
        for group in groups(texts, BLOCK):
            found, full = None, [text for text in group if text]
            if self._table and len(full) > 1 and SHORT_TEXT < sum(map(len, full)) < 2 * BLOCK:
                found = self._table.ids(full)
            found = iter(found or map(self._plain_array, full))
            answers += [next(found) if text else np.zeros(0, self.dtype) for text in group]
        return answers

    def _encode_piece(self, piece: str) -> list[int]:
        data = piece.encode()
        if self.ignore_merges and data in self._id_of:
            return [self._id_of[data]]
        return self.merge(data)

    def merge(self, data: bytes) -> list[int]:
        """The ids that the merges alone make of the bytes of one piece.

        >>> BPETokenizer([(108, 111)]).merge(b"lot")
        [256, 116]
        """
        ids = [self._bytes[byte] for byte in data]
        encode = short_encode if len(ids) <= SHORT else fast_encode
        return encode(ids, self._ranks, self._merged)

    def _cut(self, text: str, place: int) -> int:
        if not self.normalizer:
            return next_cut(text, place, self.pattern)
        if self.pattern not in PATTERNS or self._late or place >= len(text):
            return len(text)
        # Before a space, where every pattern begins a piece; and no normal form changes either.
        found = re.compile("[!-~](?= )").search(text, max(place - 1, 0))
        return found.end() if found else len(text)

    def __reduce__(self):
        # For worker processes: what defines the tokenizer is sent, and not its cache.
        tokens = None if self._numbered else self.tokens
        arguments = self.merges, self.pattern, self.special_tokens, tokens, self.ignore_merges
        more = self.added_tokens, self.normalizer, self.normalized_tokens
        return type(self), (*arguments, self.eos_token, *more), self.conventions._asdict()

    @property
    def tokens(self) -> dict[int, bytes]:
        """id -> bytes, without the special tokens, in the order of ids."""
        return {i: token for token, i in self._id_of.items()}

    def export(self, directory: str | os.PathLike, format: str) -> None:
        """Write the tokenizer in files that other projects read; see export.py.

        "huggingface": `tokenizer.json` and `tokenizer_config.json`, for `tokenizers` and
        `transformers`. "tiktoken": `vocab.tiktoken`, ranks, and `tiktoken.json`, the pattern and
        the special tokens. Both give the same ids.
        Raises ValueError if the format cannot express what this tokenizer does.
        """
        writers = {"huggingface": write_huggingface, "tiktoken": write_ranks}
        export(self, Path(directory), format, writers)

    def describe(self) -> dict:
        """What `save` writes: the merges, and also the tokens if they are numbered differently."""
        description = {
            "type": "bpe",
            "pattern": self.pattern,
            "special_tokens": self.special_tokens,
            "merges": self.merges,
        }
        description |= self.describe_names()
        if self._numbered and not self.ignore_merges:
            return description
        # Bytes as characters of the same number; null for ids that are gaps or special tokens.
        tokens = self.tokens
        tokens = [tokens.get(i, b"").decode("latin-1") or None for i in range(max(tokens) + 1)]
        return description | {"tokens": tokens, "ignore_merges": self.ignore_merges}

    @classmethod
    def from_description(cls, description: dict) -> "BPETokenizer":
        missing = {"pattern", "special_tokens", "merges"} - description.keys()
        if missing:
            raise ValueError(f"the file has no {', '.join(sorted(missing))}")
        merges, pattern = description["merges"], description["pattern"]
        tokens = description.get("tokens")
        if not isinstance(merges, list) and (merges is not None or tokens is None):
            raise TypeError(f"merges must be a list of pairs, not {type(merges).__name__}")
        special_tokens, added_tokens, normalizer, late = cls.described_names(description)
        if tokens is not None:
            if not isinstance(tokens, list):
                raise TypeError(f"tokens must be a list, not {type(tokens).__name__}")
            tokens = {i: token_bytes(i, t) for i, t in enumerate(tokens) if t is not None}
        ignore_merges = description.get("ignore_merges") is True
        pattern = tuple(pattern) if isinstance(pattern, list) else pattern
        eos_token = description.get("eos_token", END_OF_TEXT)
        arguments = merges, pattern, special_tokens, tokens, ignore_merges, eos_token
        return cls(*arguments, added_tokens, normalizer, late)
