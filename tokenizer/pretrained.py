"""Published vocabularies by name, which are fetched once, checked and kept.

They are OpenAI's, at the addresses and with the SHA-256 that tiktoken names in
tiktoken_ext/openai_public.py (https://github.com/openai/tiktoken).
"""

import os

from .base import Tokenizer
from .bpe import BPETokenizer
from .fetch import cache_folder, fetch
from .formats import load

ADDRESS = "https://openaipublic.blob.core.windows.net/"
GPT2 = "gpt-2/encodings/main/"
# name -> {file: (where, SHA-256)}
FILES = {
    "gpt2": {
        "encoder.json": (
            GPT2 + "encoder.json",
            "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        ),
        "vocab.bpe": (
            GPT2 + "vocab.bpe",
            "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        ),
    },
    "cl100k_base": {
        "cl100k_base.tiktoken": (
            "encodings/cl100k_base.tiktoken",
            "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        ),
    },
    "o200k_base": {
        "o200k_base.tiktoken": (
            "encodings/o200k_base.tiktoken",
            "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        ),
    },
}


def pretrained(name: str) -> BPETokenizer:
    """The published vocabulary "gpt2", "cl100k_base" or "o200k_base".

    >>> pretrained("gpt2").encode("Hello world")  # doctest: +SKIP
    [15496, 995]

    Its files are kept in $TENSORLITE_CACHE, else $XDG_CACHE_HOME/tensorlite, else
    ~/.cache/tensorlite, and their SHA-256 is checked at each use.
    Raises ValueError for another name. Raises ConnectionError if the files are not there yet and
    cannot be fetched; the message says which file to put where.
    """
    if name not in FILES:
        raise ValueError(f"the published vocabularies are {', '.join(FILES)}; there is no {name!r}")
    folder = cache_folder() / "vocabularies" / name
    for file, (where, sha256) in FILES[name].items():
        fetch(ADDRESS + where, sha256, folder / file)
    return load(folder)


def find(name: str) -> Tokenizer:
    """The tokenizer saved at a path (see `load`), or else the published one of this name.

    Raises FileNotFoundError if it is neither.
    """
    if name in FILES and not os.path.exists(name):
        return pretrained(name)
    if not os.path.exists(name):
        raise FileNotFoundError(
            f"no tokenizer {name!r}: it is no file or folder here and none of the published "
            f"vocabularies, {', '.join(FILES)}"
        )
    return load(name)
