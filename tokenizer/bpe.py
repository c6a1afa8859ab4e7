"""Byte-level byte-pair encoding (BPE): trained on a corpus, applied to any text.

BPE starts with the 256 bytes as tokens, finds the pair of neighbours that occurs most often, makes
it a new token, and repeats. Encoding replays those merges, in their order, on new text. Bytes below
mean that no text is ever out of vocabulary. A text is first cut into pieces (words, numbers, runs
of punctuation) by a regular expression, and no merge crosses from one piece to the next.

Follows: Sennrich, Haddow and Birch 2016, "Neural Machine Translation of Rare Words with Subword
Units" (https://arxiv.org/abs/1508.07909), for BPE; GPT-2 (Radford et al. 2019) for bytes and
pre-tokenization; Hugging Face tokenizers in that pairs which occur only once are merged too, if it
comes to that, and in that a merge whose bytes are already a token gets that token's id.

Different: ids. Byte b is id b, then come the merges in their order, then the special tokens. (GPT-2
orders the bytes otherwise, so HF breaks ties otherwise: ours is below, at `simple_train`.)

Down the page: BPE in two short functions; the same two made fast; the tokenizer. The tests hold the
fast ones equal to the simple ones. pieces.py cuts a text into pieces, table.py looks up thousands
of them at once, counting.py counts them, checks.py says what a vocabulary must be, and formats.py
reads and writes the files of other projects.
"""

import heapq
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from .base import END_OF_TEXT, Tokenizer, groups, replace_surrogates
from .checks import (
    BYTES,
    Pair,
    check_special_ids,
    check_special_names,
    check_tokens,
    grow,
    rank_merges,
    token_bytes,
)
from .counting import count_pieces
from .pieces import BLOCK, PATTERNS, SHORT_TEXT, blocks, next_cut, splitter
from .table import PieceTable

END = -1  # in the linked lists of the fast functions: no symbol here, so no pair


# ---- BPE, simply ----


def simple_train(pieces: Iterable[bytes], size: int) -> list[Pair]:
    """The merges that grow the 256 bytes to `size` tokens, or fewer if no pair is left.

    >>> simple_train([b"low", b"lower", b"lot"], size=258)  # "lo", then "low"
    [(108, 111), (256, 119)]

    Of pairs that occur equally often, the one with the smallest (left id, right id) goes first.

    Can two merges make the same bytes, ab+c and a+bc? Not here: while no merge has crossed the
    ends of "abc", those inside it were the same wherever it occurs, since each is made everywhere
    at once. So every merge is a new token.
    """
    pieces = [list(piece) for piece in pieces]
    merges = []
    while 256 + len(merges) < size:
        counts = Counter(pair for ids in pieces for pair in pairwise(ids))
        if not counts:
            break
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        pieces = [replace_pair(ids, pair, 256 + len(merges)) for ids in pieces]
        merges.append(pair)
    return merges


def replace_pair(ids: list[int], pair: Pair, new: int) -> list[int]:
    """`ids` with every `pair` in it, from left to right, replaced by `new`.

    >>> replace_pair([1, 1, 1, 2], (1, 1), 9)
    [9, 1, 2]
    """
    result, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            result.append(new)
            i += 2
        else:
            result.append(ids[i])
            i += 1
    return result


def simple_encode(ids: list[int], ranks: Mapping[Pair, int], merged: Sequence[int]) -> list[int]:
    """`ids` of bytes, merged: always the pair with the lowest rank, the leftmost of several.

    A pair's rank is its place in the list of merges; `merged[rank]` is the id it becomes.

    >>> simple_encode(list(b"lowlo"), ranks={(108, 111): 0, (256, 119): 1}, merged=[256, 257])
    [257, 256]

    Each merge looks at the whole piece, which is O(n^2).
    """
    ids, never = list(ids), len(merged)
    while len(ids) > 1:
        found = [ranks.get(pair, never) for pair in pairwise(ids)]
        rank = min(found)
        if rank == never:
            break
        i = found.index(rank)
        ids[i : i + 2] = [merged[rank]]
    return ids


# ---- training, fast ----


def fast_train(
    counts: Mapping[bytes, int],
    size: int,
    advance: Callable[[], object] = lambda: None,
    min_frequency: int = 1,
) -> list[Pair]:
    """`simple_train` of distinct pieces, `counts` saying how often each occurs.

    >>> fast_train({b"low": 5, b"lower": 2}, size=258)
    [(108, 111), (256, 119)]

    Three things make it fast. Pieces are weighted, not repeated. A merge goes only to the places
    where its pair is, and changes only the counts of the pairs around them. The most frequent pair
    comes from a heap. A corpus of n bytes in distinct pieces takes O(n log n) for all merges
    together. `advance` is called at each merge. Pairs that occur less than `min_frequency` times
    are left alone.
    """
    # All pieces end to end, with END before, between and behind them, as a doubly linked list: a
    # merge turns the left symbol into the new token and takes out the right one, marking it END.
    ids, weights = [END], [0]
    for piece, count in counts.items():
        if len(piece) > 1:
            ids += [*piece, END]
            weights += [count] * (len(piece) + 1)
    index = list(range(len(ids)))  # slices share its integers, which are the greater part
    following, preceding = index[1:] + [END], [END] + index[:-1]

    pair_counts: dict[Pair, int] = defaultdict(int)
    places: dict[Pair, list[int]] = defaultdict(list)  # of the left symbol; some are out of date
    for i, pair in zip(index, pairwise(ids), strict=False):
        if END not in pair:
            pair_counts[pair] += weights[i]
            places[pair].append(i)

    # Every pair has an entry at least as high as its count: one is added when the count grows, and
    # an entry found too high, since the count fell, goes back lower. Equal counts: smallest pair.
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)

    merges: list[Pair] = []
    while heap and 256 + len(merges) < size:
        entry, pair = heapq.heappop(heap)
        count = pair_counts.get(pair, 0)
        if count != -entry:
            if 0 < count < -entry:
                heapq.heappush(heap, (-count, pair))
            continue
        if count < min_frequency:
            break
        (left, right), new = pair, 256 + len(merges)
        merges.append(pair)
        advance()

        grown = set()
        for i in sorted(places.pop(pair)):  # from left to right: of "aaa", the first two
            j = following[i]
            if ids[i] != left or ids[j] != right:
                continue  # merged otherwise since the place was noted
            h, k, weight = preceding[i], following[j], weights[i]
            if ids[h] != END:
                pair_counts[ids[h], left] -= weight
                pair_counts[ids[h], new] += weight
                places[ids[h], new].append(h)
                grown.add((ids[h], new))
            if ids[k] != END:
                pair_counts[right, ids[k]] -= weight
                pair_counts[new, ids[k]] += weight
                places[new, ids[k]].append(i)
                grown.add((new, ids[k]))
            ids[i], ids[j] = new, END
            following[i], preceding[k] = k, i
        del pair_counts[pair]
        for changed in grown:
            if pair_counts[changed] > 0:  # not merged away again at the next place
                heapq.heappush(heap, (-pair_counts[changed], changed))
    return merges


# ---- encoding, fast ----


def short_encode(ids: list[int], ranks: Mapping[Pair, int], merged: Sequence[int]) -> list[int]:
    """`simple_encode` that looks up only the two pairs that a merge makes: fastest on a word."""
    ids, get, never = list(ids), ranks.get, len(merged)
    found = [get(pair, never) for pair in pairwise(ids)]
    while found and (rank := min(found)) != never:
        i = found.index(rank)
        ids[i] = merged[rank]
        del ids[i + 1], found[i]
        if i:
            found[i - 1] = get((ids[i - 1], ids[i]), never)
        if i < len(found):
            found[i] = get((ids[i], ids[i + 1]), never)
    return ids


def fast_encode(ids: list[int], ranks: Mapping[Pair, int], merged: Sequence[int]) -> list[int]:
    """`simple_encode` in O(n log n), for long pieces: a megabyte without a space.

    The pairs that have a rank wait in a heap, lowest rank first and then leftmost, and the symbols
    are a doubly linked list.
    """
    n = len(ids)
    ids = [*ids, END]
    following, preceding = list(range(1, n + 1)), list(range(-1, n))
    # One integer, rank * n + place, sorts as (rank, place) does, and faster.
    found = map(ranks.get, pairwise(ids[:n]))
    heap = [rank * n + i for i, rank in enumerate(found) if rank is not None]
    heapq.heapify(heap)
    while heap:
        rank, i = divmod(heapq.heappop(heap), n)
        j = following[i]
        if ids[i] == END or ids[j] == END or ranks.get((ids[i], ids[j])) != rank:
            continue  # a merge beside it was quicker, and this pair is no more
        k = following[j]
        ids[i], ids[j] = merged[rank], END
        following[i], preceding[k] = k, i
        for left, right in ((preceding[i], i), (i, k)):
            if left >= 0 and right < n:
                new_rank = ranks.get((ids[left], ids[right]))
                if new_rank is not None:
                    heapq.heappush(heap, new_rank * n + left)
    return [token for token in ids if token != END]


class JoinRanks:
    """Ranks by tiktoken's rule: two tokens merge if their bytes together are one, its id the rank.

    >>> JoinRanks({0: b"a", 1: b"b", 2: b"ab"}).get((0, 1))
    2
    """

    def __init__(self, tokens: Mapping[int, bytes]):
        self._tokens, self._ids = tokens, {token: i for i, token in tokens.items()}

    def get(self, pair: Pair, default: int | None = None) -> int | None:
        return self._ids.get(self._tokens[pair[0]] + self._tokens[pair[1]], default)


class _PieceCache(dict):
    """piece -> ids, filled as pieces are met. Bounded, since the texts may never end."""

    MAX_PIECES = 2**18
    MAX_LENGTH = 32  # characters; longer pieces seldom come twice

    def __init__(self, encode_piece: Callable[[str], list[int]]):
        super().__init__()
        self._encode_piece = encode_piece

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids = tuple(self._encode_piece(piece))
        if len(piece) <= self.MAX_LENGTH:
            if len(self) >= self.MAX_PIECES:
                self.clear()  # the frequent ones are back soon
            self[piece] = ids
        return ids


# ---- the tokenizer ----

SHORT = 48  # bytes of a piece, measured: up to here `short_encode` is the faster one


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
        pattern: "gpt2", "cl100k", "o200k", a regular expression (as the `regex` module writes
            them), or None: the whole text is one piece.
        special_tokens: name -> id; the ids follow the last token's without a gap.
        tokens: id -> bytes, for a vocabulary from elsewhere that numbers its tokens otherwise. It
            holds the 256 bytes and what the merges make. If `merges` is None, any two tokens merge
            whose bytes together are a token, the lowest id first: tiktoken's rule.
        ignore_merges: a piece that is a token needs no merges to become it. tiktoken's rule too.
        eos_token: the name of the special token that ends a text.

    Raises ValueError if they do not fit together, TypeError if one is of another kind.
    """

    def __init__(
        self,
        merges: Iterable[Pair] | None,
        pattern: str | None = "gpt2",
        special_tokens: Mapping[str, int] | None = None,
        tokens: Mapping[int, bytes] | None = None,
        ignore_merges: bool = False,
        eos_token: str = END_OF_TEXT,
    ):
        self.pattern = pattern
        self._split = splitter(pattern)
        special_tokens = {} if special_tokens is None else special_tokens
        self._numbered = tokens is None  # as ours are: 256 bytes, merges, special tokens
        if tokens is None:
            tokens, self._ranks, self._merged = grow(merges)
            check_special_ids(special_tokens, first=len(tokens))
        else:
            tokens = check_tokens(tokens, special_tokens)
            if merges is None:
                self._ranks, self._merged = JoinRanks(tokens), range(max(tokens) + 1)
            else:
                self._ranks, self._merged = rank_merges(merges, tokens)
        super().__init__(tokens, special_tokens, eos_token)
        self._id_of = {token: i for i, token in tokens.items()}
        self._bytes = [self._id_of[byte] for byte in BYTES]
        self.ignore_merges = ignore_merges or merges is None
        self._cache = _PieceCache(self._encode_piece)
        self._table = None
        if pattern in PATTERNS:
            self._table = PieceTable(pattern, self._cache.__getitem__, self.dtype)

    @property
    def merges(self) -> list[Pair] | None:
        """The merges as (left id, right id), in their order; None if they are all joins there are.

        The tokens that they make are in `vocabulary`.
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
        iterable of these, taken a part at a time: what is kept is how often each distinct piece
        occurs. Special tokens that occur in them count as plain text. Pairs that occur less than
        `min_frequency` times are not merged, and pieces of more than `max_piece_length` bytes are
        left out. `workers` > 1 counts the pieces in so many processes.

        A text that is the name of a file is a text all the same, and a warning says so. If the
        texts are too small for `vocab_size` tokens, there are fewer, and a warning says so.
        Ties: of pairs that occur equally often, the smallest (left id, right id) is merged first.
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
                raise ValueError(f"{name} is at least 1, not {least}")
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

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of `text`, all of it plain text: never a special token, never an error on any str.

        >>> BPETokenizer([(108, 111)]).encode_ordinary("lot")
        [256, 116]
        """
        text = replace_surrogates(text)
        if self.pattern in PATTERNS and len(text) > SHORT_TEXT:
            return self._ordinary(text).tolist()
        return self._encode_plainly(text)

    def _encode_plainly(self, text: str) -> list[int]:
        # Most pieces are in the cache, and then this loop runs in C.
        return list(chain.from_iterable(map(self._cache.__getitem__, self._split(text))))

    def _ordinary(self, text: str) -> np.ndarray:
        ids = [np.zeros(0, self.dtype)]
        for block in blocks(replace_surrogates(text), BLOCK, self.pattern):
            found = None
            if self._table and len(block) > SHORT_TEXT:
                found = self._table.ids([block])
            ids += found or [np.array(self._encode_plainly(block), self.dtype)]
        return np.concatenate(ids)

    def _ordinary_batch(self, texts: list[str]) -> list[np.ndarray]:
        """`_ordinary` of each, short ones together."""
        answers = []
        for group in groups(texts, BLOCK):
            found, full = None, [text for text in group if text]
            if self._table and len(full) > 1 and SHORT_TEXT < sum(map(len, full)) < 2 * BLOCK:
                found = self._table.ids(full)
            found = iter(found or map(self._ordinary, full))
            answers += [next(found) if text else np.zeros(0, self.dtype) for text in group]
        return answers

    def _encode_piece(self, piece: str) -> list[int]:
        data = piece.encode()
        if self.ignore_merges and data in self._id_of:
            return [self._id_of[data]]
        return self._merge(data)

    def _merge(self, data: bytes) -> list[int]:
        ids = [self._bytes[byte] for byte in data]
        encode = short_encode if len(ids) <= SHORT else fast_encode
        return encode(ids, self._ranks, self._merged)

    def _cut(self, text: str, place: int) -> int:
        return next_cut(text, place, self.pattern)

    def __reduce__(self):
        # For worker processes: send what defines the tokenizer, not its cache.
        tokens = None if self._numbered else self.tokens
        arguments = self.merges, self.pattern, self.special_tokens, tokens, self.ignore_merges
        return type(self), (*arguments, self.eos_token)

    @property
    def tokens(self) -> dict[int, bytes]:
        """id -> bytes, without the special tokens, in the order of ids."""
        return {i: token for token, i in self._id_of.items()}

    def export(self, directory: str | os.PathLike, format: str) -> None:
        """Write the tokenizer as other projects read it; see `tokenizer.formats`.

        "huggingface": `tokenizer.json` and `tokenizer_config.json`, for `tokenizers` and
        `transformers`. "tiktoken": `vocab.tiktoken`, ranks, and `tiktoken.json`, the pattern and
        the special tokens. Both give the same ids.
        Raises ValueError if the format cannot say what this tokenizer does.
        """
        from .formats import export

        export(self, Path(directory), format)

    def _description(self) -> dict:
        description = {
            "type": "bpe",
            "pattern": self.pattern,
            "special_tokens": self.special_tokens,
            "merges": self.merges,
        }
        if self.eos_token != END_OF_TEXT:
            description["eos_token"] = self.eos_token
        if self._numbered and not self.ignore_merges:
            return description
        # Bytes as characters of the same number; null for ids that are gaps or special tokens.
        tokens = self.tokens
        tokens = [tokens.get(i, b"").decode("latin-1") or None for i in range(max(tokens) + 1)]
        return description | {"tokens": tokens, "ignore_merges": self.ignore_merges}

    @classmethod
    def _from_description(cls, description: dict) -> "BPETokenizer":
        missing = {"pattern", "special_tokens", "merges"} - description.keys()
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} missing")
        merges, special_tokens = description["merges"], description["special_tokens"]
        tokens = description.get("tokens")
        if not isinstance(merges, list) and (merges is not None or tokens is None):
            raise TypeError(f"merges must be a list of pairs, not {type(merges).__name__}")
        if not isinstance(special_tokens, dict):
            kind = type(special_tokens).__name__
            raise TypeError(f"special_tokens must be a dict of name: id, not {kind}")
        if tokens is not None:
            if not isinstance(tokens, list):
                raise TypeError(f"tokens must be a list, not {type(tokens).__name__}")
            tokens = {i: token_bytes(i, t) for i, t in enumerate(tokens) if t is not None}
        ignore_merges = description.get("ignore_merges") is True
        eos_token = description.get("eos_token", END_OF_TEXT)
        if not isinstance(eos_token, str):
            raise TypeError(f"eos_token must be a str, not {type(eos_token).__name__}")
        return cls(merges, description["pattern"], special_tokens, tokens, ignore_merges, eos_token)
