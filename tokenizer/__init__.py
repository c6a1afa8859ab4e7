"""Text to integers and back: what stands between a corpus and a model.

`CharTokenizer` has one id per character, `BPETokenizer` is byte-level BPE as GPT-2's. `load` reads
back either of them, and the vocabularies of other projects; `pretrained` fetches published ones.
Read base.py, char.py, simple_bpe.py, bpe.py, in that order. Nothing here knows of tensors.

>>> import tokenizer
>>> bpe = tokenizer.BPETokenizer.train(open("corpus.txt").read(), vocab_size=1024)
>>> bpe.save("out")
>>> tokenizer.load("out").decode(bpe.encode("To be, or not to be"))
'To be, or not to be'

`python -m tokenizer` does the same from the command line.
"""

from .base import Tokenizer
from .bpe import BPETokenizer
from .char import CharTokenizer
from .formats import load
from .pretrained import find, pretrained
from .streaming import StreamDecoder

__all__ = [
    "BPETokenizer",
    "CharTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "find",
    "load",
    "pretrained",
]
