"""BPE over characters, as SentencePiece's models do it: Llama 2, TinyLlama, Mistral, Gemma.

Where byte-level BPE (bpe.py) cuts a text into words first and merges bytes, this merges characters
of the whole text, in which "▁" stands for a space. A character that is no token becomes its bytes,
for which there are tokens `<0x00>` to `<0xFF>` (byte fallback), or else the unknown token.

Follows: Hugging Face tokenizers, whose `tokenizer.json` holds these models as BPE with
`byte_fallback`; the models come from SentencePiece (Kudo and Richardson 2018,
https://arxiv.org/abs/1808.06226).

Different: bytes that are not UTF-8 are decoded one character at a time, as elsewhere here. (Hugging
Face replaces all bytes of a run by U+FFFD if one of them is wrong.)
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from .base import END_OF_TEXT, Tokenizer
from .bpe import SHORT, PieceCache
from .checks import check_names, check_pieces, rank_merges
from .export import export, write_sentencepiece
from .fast_bpe import fast_encode, short_encode
from .normalizers import Step
from .simple_bpe import Pair

MARK = "▁"  # U+2581, a space
BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
WORD = re.compile(f"{MARK}+[^{MARK}]*|[^{MARK}]+")  # cut before a mark that follows another sign
MARKED = re.compile(f"{MARK}[^{MARK}]*|[^{MARK}]+")  # cut before every mark
CROSSING = re.compile(f"[^{MARK}]{MARK}")
SCHEMES = ("always", "first", "never")


class Metaspace(NamedTuple):
    """How spaces become marks after the text has been cut at special and added tokens.

    scheme: whether a mark is put before a part that has none at its start: "always", "never", or
        "first", before the part at the start of the text alone.
    split: whether the parts are cut before every mark, so that no merge crosses it.
    """

    scheme: str = "always"
    split: bool = True


class SentencePieceBPE(Tokenizer):
    """BPE over characters, with "▁" for a space.

    >>> tokens = dict(enumerate(["<unk>", "▁", "a", "b", "▁a"]))
    >>> tokenizer = SentencePieceBPE([(1, 2)], tokens, "<unk>", metaspace=("always", False))
    >>> tokenizer.encode("a ba?"), tokenizer.decode([4, 1, 3])
    ([4, 1, 3, 2, 0], 'a b')

    Args:
        merges: (left id, right id) in the order of training. What a merge makes must be a token.
        tokens: id -> token, as the files write it: "▁the", "<0x0A>".
        unknown: the token for characters that are no tokens and have no bytes; None if there is
            none, which byte fallback must make up for.
        byte_fallback: whether such a character becomes its bytes, if all of them are tokens.
        fuse_unknown: whether several such characters in a row become one unknown token.
        ignore_merges: if a whole piece is a token, it is encoded to that token without merging.
        metaspace: how spaces become marks, a `Metaspace`; None if the normalizer does it.
        drops_first_space: whether `decode` leaves out a space at the start of a text.
        special_tokens, added_tokens, normalizer, normalized_tokens, eos_token: see `Tokenizer`.

    Raises ValueError if the arguments do not fit together.
    """

    def __init__(
        self,
        merges: Iterable[Pair],
        tokens: Mapping[int, str],
        unknown: str | None = None,
        byte_fallback: bool = False,
        fuse_unknown: bool = False,
        ignore_merges: bool = False,
        metaspace: tuple[str, bool] | None = None,
        drops_first_space: bool = True,
        special_tokens: Mapping[str, int] | None = None,
        eos_token: str = END_OF_TEXT,
        added_tokens: Mapping[str, int] | None = None,
        normalizer: Sequence[Step] = (),
        normalized_tokens: Collection[str] = (),
    ):
        special_tokens = {} if special_tokens is None else special_tokens
        added_tokens = {} if added_tokens is None else added_tokens
        named = check_names(special_tokens, added_tokens, {})
        self._id_of = check_pieces(tokens, named)
        if unknown is not None and unknown not in self._id_of:
            raise ValueError(f"the unknown token {unknown!r} is not a token")
        # What plain text is made of. (The unknown token and bytes may be special tokens too.)
        self._plain_ids = {t: i for t, i in self._id_of.items() if t not in special_tokens}
        self._byte_ids = [self._id_of.get(f"<0x{byte:02X}>") for byte in range(256)]
        if unknown is None and not (byte_fallback and None not in self._byte_ids):
            raise ValueError(
                "there is neither an unknown token nor byte fallback with a token for each of the "
                "256 bytes: characters that are no tokens would be dropped"
            )
        self.unknown, self.byte_fallback = unknown, byte_fallback
        self.fuse_unknown, self.ignore_merges = fuse_unknown, ignore_merges
        self.metaspace = None if metaspace is None else Metaspace(*metaspace)
        if self.metaspace and self.metaspace.scheme not in SCHEMES:
            raise ValueError(
                f"the scheme must be one of {', '.join(SCHEMES)}, not {self.metaspace.scheme!r}"
            )
        self.drops_first_space = drops_first_space
        self._ranks, self._merged = rank_merges(merges, tokens)
        made = {tokens[i] for i in self._merged}
        for name in made & special_tokens.keys():
            raise ValueError(
                f"the special token {name!r} is a token of plain text too: it would be cut out of "
                "any text, which is not supported"
            )
        # If no token goes on after a mark, merges cannot cross the places where WORD cuts, and the
        # words of a text may be encoded one by one.
        self.by_words = MARK in self._plain_ids and not any(map(CROSSING.search, made))
        self._cache = PieceCache(self._merge)
        written = {i: self._named_bytes(token) for token, i in self._id_of.items()}
        more = added_tokens, normalizer, normalized_tokens
        super().__init__(written, special_tokens, eos_token, *more)

    def _named_bytes(self, token: str) -> bytes:
        """What any token stands for in a text."""
        if self.byte_fallback and (byte := BYTE.fullmatch(token)):
            return bytes.fromhex(byte[1])
        return token.replace(MARK, " ").encode()

    # ---- text to ids ----

    def _cut_out(self, text: str, allowed: frozenset[str]) -> list[str | int]:
        parts = super()._cut_out(text, allowed)
        if self.metaspace is None:
            return parts
        return [
            part if isinstance(part, int) else self._marked(part, i == 0)
            for i, part in enumerate(parts)
        ]

    def _marked(self, part: str, first: bool) -> str:
        """A part of a text with marks for its spaces; `first`: the part that the text begins with.

        >>> tokens = {0: "<unk>", 1: "▁"}
        >>> SentencePieceBPE([], tokens, "<unk>", metaspace=("first", False))._marked("a b", True)
        '▁a▁b'
        """
        scheme = self.metaspace.scheme
        part = part.replace(" ", MARK)
        before = scheme == "always" or (scheme == "first" and first)
        return MARK + part if part and before and not part.startswith(MARK) else part

    def _plain(self, text: str) -> list[int]:
        pieces = MARKED.findall(text) if self.metaspace and self.metaspace.split else [text]
        return list(chain.from_iterable(map(self._encode_piece, filter(None, pieces))))

    def _encode_piece(self, piece: str) -> Iterable[int]:
        if self.ignore_merges and piece in self._plain_ids:
            return [self._plain_ids[piece]]
        if self.by_words:
            return chain.from_iterable(map(self._cache.__getitem__, WORD.findall(piece)))
        return self._merge(piece)

    def _merge(self, piece: str) -> list[int]:
        """The ids that the merges make of the characters of a piece."""
        ids = self._characters(piece)
        encode = short_encode if len(ids) <= SHORT else fast_encode
        return encode(ids, self._ranks, self._merged)

    def _characters(self, piece: str) -> list[int]:
        """The ids that merging begins with: of characters, of bytes, of the unknown token."""
        ids: list[int] = []
        unknown = self._id_of.get(self.unknown)
        waiting = False  # whether an unknown token is still to be written, in Hugging Face's order
        for character in piece:
            token = self._plain_ids.get(character)
            if token is None and self.byte_fallback:
                of_bytes = [self._byte_ids[byte] for byte in character.encode()]
                if None not in of_bytes:
                    ids += of_bytes
                    continue
            if waiting and not (token is None and self.fuse_unknown):
                ids.append(unknown)
            waiting = token is None
            if token is not None:
                ids.append(token)
        return [*ids, unknown] if waiting else ids

    # ---- to files ----

    @property
    def tokens(self) -> dict[int, str]:
        """id -> token as the files write it, in the order of ids."""
        return {i: token for token, i in sorted(self._id_of.items(), key=lambda item: item[1])}

    @property
    def merges(self) -> list[Pair]:
        """The merges as (left id, right id), in their order."""
        return list(self._ranks)

    def export(self, directory: str | os.PathLike, format: str) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, for `tokenizers` and `transformers`.

        These libraries then give the same ids. `format` must be "huggingface"; any other raises
        ValueError.
        """
        export(self, Path(directory), format, {"huggingface": write_sentencepiece})

    def _arguments(self) -> dict:
        """What defines the tokenizer besides its tokens and their names."""
        return {
            "unknown": self.unknown,
            "byte_fallback": self.byte_fallback,
            "fuse_unknown": self.fuse_unknown,
            "ignore_merges": self.ignore_merges,
            "metaspace": self.metaspace and list(self.metaspace),
            "drops_first_space": self.drops_first_space,
        }

    def __reduce__(self):
        # For worker processes: what defines the tokenizer is sent, and not its cache.
        names = self.special_tokens, self.eos_token, self.added_tokens
        more = *names, self.normalizer, self.normalized_tokens
        arguments = self.merges, self.tokens, *self._arguments().values(), *more
        return type(self), arguments, self.conventions._asdict()

    def describe(self) -> dict:
        tokens = self.tokens
        return {
            "type": "sentencepiece-bpe",
            "tokens": [tokens.get(i) for i in range(max(tokens) + 1)],
            "merges": self.merges,
            "special_tokens": self.special_tokens,
            **self._arguments(),
            **self.describe_names(),
        }

    @classmethod
    def from_description(cls, description: dict) -> "SentencePieceBPE":
        missing = {"tokens", "merges", "special_tokens"} - description.keys()
        if missing:
            raise ValueError(f"the file has no {', '.join(sorted(missing))}")
        special_tokens, added_tokens, normalizer, late = cls.described_names(description)
        for name in ("tokens", "merges"):
            if not isinstance(description[name], list):
                raise TypeError(f"{name} must be a list, not {type(description[name]).__name__}")
        metaspace = description.get("metaspace")
        if metaspace is not None and not _is_metaspace(metaspace):
            raise TypeError(f"metaspace must be [SCHEME, SPLIT], not {metaspace!r:.80}")
        unknown = description.get("unknown")
        if unknown is not None and not isinstance(unknown, str):
            raise TypeError(f"unknown must be a str, not {type(unknown).__name__}")
        flags = ("byte_fallback", "fuse_unknown", "ignore_merges", "drops_first_space")
        return cls(
            description["merges"],
            {i: token for i, token in enumerate(description["tokens"]) if token is not None},
            unknown,
            **{name: description.get(name) is True for name in flags},
            metaspace=metaspace,
            special_tokens=special_tokens,
            eos_token=description.get("eos_token", END_OF_TEXT),
            added_tokens=added_tokens,
            normalizer=normalizer,
            normalized_tokens=late,
        )


def _is_metaspace(value: object) -> bool:
    kinds = [type(part) for part in value] if isinstance(value, list) else []
    return kinds == [str, bool]
