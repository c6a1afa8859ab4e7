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

Down the page: BPE in two short functions; cutting into pieces; the same two functions made fast;
the tokenizer. tests/test_tokenizer.py holds the fast ones equal to the simple ones.
"""

import heapq
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, pairwise
from reprlib import repr as short_repr  # a file may hold values of any size

from .base import Tokenizer, replace_surrogates

Pair = tuple[int, int]

BYTES = [bytes([b]) for b in range(256)]  # the first 256 tokens of every vocabulary
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

    Each merge looks at the whole piece, which is O(n^2), and yet fastest on a short one.
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


# ---- cutting a text into pieces ----

# As published: GPT-2's in https://github.com/openai/gpt-2 (src/encoder.py), the others in
# https://github.com/openai/tiktoken (tiktoken_ext/openai_public.py). In all of them a space belongs
# to the word behind it, which is what `\s+(?!\S)` sees to: of several spaces it leaves the last.
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d"
    r"| ?\p{L}+"
    r"| ?\p{N}+"
    r"| ?[^\s\p{L}\p{N}]+"
    r"|\s+(?!\S)"
    r"|\s+",
    # Contractions in capitals too; at most three digits; one sign may lead a word; line ends apart.
    "cl100k": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+",
    # Also cuts where a small letter meets a capital, and keeps a contraction with its word.
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+",
}


def splitter(pattern: str | None) -> Callable[[str], list[str]]:
    """A function that cuts a text into pieces, by a name in PATTERNS or a regular expression.

    >>> splitter("gpt2")("It's 10  o'clock")
    ['It', "'s", ' 10', ' ', ' o', "'", 'clock']

    The pieces joined are the text, whatever the expression is: what it does not match becomes
    pieces too. None: the whole text is one piece.
    Raises ValueError if it is not a regular expression, TypeError if it is not a str.
    """
    if pattern is None:
        return lambda text: [text] if text else []
    if not isinstance(pattern, str):
        raise TypeError(f"pattern must be a str or None, not {type(pattern).__name__}")

    import regex  # here, so that `import tokenizer` is quick; re knows no \p{L}

    try:
        compiled = regex.compile(PATTERNS.get(pattern, pattern))
    except (regex.error, RecursionError) as error:
        names = ", ".join(PATTERNS)
        raise ValueError(
            f"pattern {pattern[:80]!r} is neither one of {names} nor a regular expression: {error}"
        ) from None
    return partial(_split, compiled)


def _split(compiled, text: str) -> list[str]:
    if not compiled.groups:  # with groups, findall answers with them and not with the match
        pieces = compiled.findall(text)
        if "".join(pieces) == text:
            return pieces
    # Sorted, since a pattern may search backwards, (?r).
    pieces, end = [], 0
    for span in sorted(match.span() for match in compiled.finditer(text)):
        if end <= span[0] < span[1]:
            pieces += [text[end : span[0]], text[slice(*span)]]
            end = span[1]
    pieces.append(text[end:])
    return [piece for piece in pieces if piece]


# ---- training, fast ----


def fast_train(
    counts: Mapping[bytes, int], size: int, advance: Callable[[], object] = lambda: None
) -> list[Pair]:
    """`simple_train` of distinct pieces, `counts` saying how often each occurs.

    >>> fast_train({b"low": 5, b"lower": 2}, size=258)
    [(108, 111), (256, 119)]

    Three things make it fast. Pieces are weighted, not repeated. A merge goes only to the places
    where its pair is, and changes only the counts of the pairs around them. The most frequent pair
    comes from a heap. A corpus of n bytes in distinct pieces takes O(n log n) for all merges
    together. `advance` is called at each merge.
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


def fast_encode(ids: list[int], ranks: Mapping[Pair, int], merged: Sequence[int]) -> list[int]:
    """`simple_encode` in O(n log n), for long pieces: a megabyte without a space.

    The pairs that have a rank wait in a heap, lowest rank first and then leftmost, and the symbols
    are a doubly linked list.
    """
    n = len(ids)
    ids = [*ids, END]
    following, preceding = list(range(1, n + 1)), list(range(-1, n))
    # One integer, rank * n + place, sorts as (rank, place) does, and faster.
    heap = [ranks[pair] * n + i for i, pair in enumerate(pairwise(ids)) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        rank, i = divmod(heapq.heappop(heap), n)
        j = following[i]
        if ranks.get((ids[i], ids[j])) != rank:
            continue  # a merge beside it was quicker, and this pair is no more
        k = following[j]
        ids[i], ids[j] = merged[rank], END
        following[i], preceding[k] = k, i
        for place in (preceding[i], i):
            if place >= 0:
                new_rank = ranks.get((ids[place], ids[following[place]]))
                if new_rank is not None:
                    heapq.heappush(heap, new_rank * n + place)
    return [token for token in ids if token != END]


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


def _encode_piece(ranks: Mapping[Pair, int], merged: Sequence[int], piece: str) -> list[int]:
    ids = list(piece.encode())
    # Measured: up to about this length, looking at every pair costs less than keeping a heap.
    return (simple_encode if len(ids) <= 8 else fast_encode)(ids, ranks, merged)


# ---- the tokenizer ----

# Forty merges of a token with itself would make a token of a terabyte.
MAX_VOCABULARY_BYTES = 2**26


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

    Raises ValueError if they do not fit together, TypeError if one is of another kind.
    """

    def __init__(
        self,
        merges: Iterable[Pair],
        pattern: str | None = "gpt2",
        special_tokens: Mapping[str, int] | None = None,
    ):
        self.pattern = pattern
        self._split = splitter(pattern)

        tokens, id_of = list(BYTES), {token: i for i, token in enumerate(BYTES)}
        total = len(BYTES)
        self._ranks: dict[Pair, int] = {}
        self._merged: list[int] = []  # rank -> id
        for rank, pair in enumerate(merges):
            left, right = _check_pair(rank, pair, len(tokens))
            if (left, right) in self._ranks:
                raise ValueError(f"merge {rank} is {pair!r}, as merge {self._ranks[left, right]}")
            total += len(tokens[left]) + len(tokens[right])
            if total > MAX_VOCABULARY_BYTES:
                raise ValueError(
                    f"merge {rank} takes the tokens beyond {MAX_VOCABULARY_BYTES:,} bytes"
                )
            token = tokens[left] + tokens[right]
            new = id_of.setdefault(token, len(tokens))
            if new == len(tokens):
                tokens.append(token)
            self._ranks[left, right] = rank
            self._merged.append(new)

        special_tokens = {} if special_tokens is None else special_tokens
        _check_special_ids(special_tokens, first=len(tokens))
        super().__init__(tokens, special_tokens)
        self._cache = _PieceCache(partial(_encode_piece, self._ranks, self._merged))

    @property
    def merges(self) -> list[Pair]:
        """The merges as (left id, right id), in their order."""
        return list(self._ranks)

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        vocab_size: int,
        pattern: str | None = "gpt2",
        special_tokens: Iterable[str] = (),
    ) -> "BPETokenizer":
        """The tokenizer of `vocab_size` ids (bytes, merges and special tokens) that fits `texts`.

        >>> tokenizer = BPETokenizer.train(["low", "lower"], 258, special_tokens=["<|endoftext|>"])
        >>> tokenizer.merges, tokenizer.special_tokens
        ([(108, 111)], {'<|endoftext|>': 257})

        `texts` is one text or any iterable of them, taken one at a time: what is kept is how often
        each distinct piece occurs. Special tokens that occur in them count as plain text.
        If the texts are too small for `vocab_size` tokens, there are fewer, and a warning says so.
        Ties: of pairs that occur equally often, the smallest (left id, right id) is merged first.
        Raises ValueError if vocab_size has no room for the bytes and special tokens.
        """
        special_tokens = _check_special_names(special_tokens)
        size = vocab_size - len(special_tokens)
        if size < 256:
            raise ValueError(
                f"vocab_size {vocab_size} is too small: 256 bytes and {len(special_tokens)} "
                f"special tokens need at least {256 + len(special_tokens)}"
            )

        split = splitter(pattern)
        pieces: Counter[str] = Counter()
        for text in [texts] if isinstance(texts, str) else texts:
            pieces.update(split(replace_surrogates(text)))
        counts = {piece.encode(): count for piece, count in pieces.items()}

        from tqdm import tqdm

        # disable=None: no bar where stderr is a file.
        with tqdm(total=size - 256, desc="training BPE", unit="token", disable=None) as bar:
            merges = fast_train(counts, size, bar.update)

        found = 256 + len(merges)
        if found < size:
            warnings.warn(
                f"the text gives only {found + len(special_tokens)} tokens, not {vocab_size}: "
                f"every piece of it is one token already",
                stacklevel=2,
            )
        return cls(merges, pattern, {name: found + i for i, name in enumerate(special_tokens)})

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of `text`, all of it plain text: never a special token, never an error on any str.

        >>> BPETokenizer([(108, 111)]).encode_ordinary("lot")
        [256, 116]
        """
        pieces = self._split(replace_surrogates(text))
        # Most pieces are in the cache, and then this loop runs in C.
        return list(chain.from_iterable(map(self._cache.__getitem__, pieces)))

    def __reduce__(self):
        # For worker processes: send what defines the tokenizer, not its cache.
        return type(self), (self.merges, self.pattern, self.special_tokens)

    def _description(self) -> dict:
        return {
            "type": "bpe",
            "pattern": self.pattern,
            "special_tokens": self.special_tokens,
            "merges": self.merges,
        }

    @classmethod
    def _from_description(cls, description: dict) -> "BPETokenizer":
        missing = {"pattern", "special_tokens", "merges"} - description.keys()
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} missing")
        merges, special_tokens = description["merges"], description["special_tokens"]
        if not isinstance(merges, list):
            raise TypeError(f"merges must be a list of pairs, not {type(merges).__name__}")
        if not isinstance(special_tokens, dict):
            kind = type(special_tokens).__name__
            raise TypeError(f"special_tokens must be a dict of name: id, not {kind}")
        return cls(merges, description["pattern"], special_tokens)


def _check_pair(rank: int, pair: object, known: int) -> Pair:
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise ValueError(f"merge {rank} must be a pair of ids, not {short_repr(pair)}")
    for token_id in pair:
        if type(token_id) is not int:  # not isinstance: True is an int
            raise ValueError(f"merge {rank} must be a pair of ids, not {short_repr(pair)}")
        if not 0 <= token_id < known:
            raise ValueError(
                f"merge {rank} is {short_repr(pair)}, but only ids 0 to {known - 1} exist yet"
            )
    return pair[0], pair[1]


def _check_special_names(names: Iterable[str]) -> list[str]:
    if isinstance(names, str):  # would be a list of letters
        raise TypeError(f"special_tokens must be a list of names, not one str; write [{names!r}]")
    names, seen = list(names), set()
    for name in names:
        if not isinstance(name, str) or not name or replace_surrogates(name) != name:
            raise ValueError(
                f"special token {short_repr(name)}: must be a str of at least one character, "
                f"no surrogates"
            )
        if name in seen:
            raise ValueError(f"special token {name!r} is given twice")
        seen.add(name)
    return names


def _check_special_ids(special_tokens: Mapping[str, int], first: int) -> None:
    _check_special_names(special_tokens)
    ids = list(special_tokens.values())
    expected = range(first, first + len(ids))
    if any(type(i) is not int for i in ids) or sorted(ids) != list(expected):
        raise ValueError(
            f"special tokens must have the {len(ids)} ids from {first} on, each once, "
            f"not {short_repr(ids)}"
        )
