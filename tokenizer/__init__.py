"""Text to integers and back: what stands between a corpus and a model.

`CharTokenizer` has one id per character, `BPETokenizer` is byte-level BPE as GPT-2's. `load` reads
back either of them, and the vocabularies of other projects; `pretrained` fetches published ones.
Read base.py, char.py, simple_bpe.py, bpe.py, in that order. Nothing here knows of tensors.

| files | what they do |
|---|---|
| base.py, streaming.py | the interface of every tokenizer; ids that come one at a time |
| char.py | one id per character |
| simple_bpe.py, fast_bpe.py, bpe.py | BPE to read, the same made fast, and its tokenizer |
| sentencepiece_bpe.py | BPE over characters with "▁" for a space, as Llama 2's |
| normalizers.py, conventions.py | what is done to a text first; what models expect around one |
| pieces.py, table.py, counting.py | texts cut into pieces, the ids of pieces, their counts |
| checks.py | what a vocabulary must be |
| formats.py, export.py | tokenizers read from files, and written as files of other projects |
| gpt2_files.py, huggingface_files.py, tiktoken_files.py | how formats.py reads each project's |
| huggingface_steps.py, transformers_config.py, byte_characters.py | parts of those files |
| special_tokens.py | a tokenizer with more special tokens |
| pretrained.py, fetch.py | published vocabularies, and files fetched once |
| texts.py, widths.py | texts and folders of them; token files that hold something else |
| files.py, processes.py | files written whole or not at all; work for several processes |

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
from .sentencepiece_bpe import SentencePieceBPE
from .special_tokens import with_special_tokens
from .streaming import StreamDecoder

__all__ = [
    "BPETokenizer",
    "CharTokenizer",
    "SentencePieceBPE",
    "StreamDecoder",
    "Tokenizer",
    "find",
    "load",
    "pretrained",
    "with_special_tokens",
]
