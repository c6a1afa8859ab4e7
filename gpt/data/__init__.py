"""From a dataset's name to batches of token ids.

Text goes read_text -> split -> a tokenizer; token files go open_tokens. Either way training sees
two flat arrays of ids, (N,), and draws windows from them with draw_starts and draw_batch.
"""

from .batches import check_length, draw_batch, draw_starts, full_windows
from .corpora import CORPORA
from .names import is_token_data, resolve, validation_size
from .text import documents, read_text, read_texts, split
from .tokens import open_tokens, write_tokens
