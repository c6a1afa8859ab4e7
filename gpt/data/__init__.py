"""From a dataset's name to batches of token ids.

Text goes read_text -> split -> a tokenizer; token files go open_tokens. Either way training sees
two flat arrays of ids, (N,), and draws windows from them with draw_starts and draw_batch.

What a model is fine-tuned on goes read_records -> split_records, and its texts, of different
lengths, become batches with epoch_batches and inputs_and_targets.
"""

from .batches import check_length, draw_batch, draw_starts, full_windows
from .corpora import CORPORA
from .examples import IGNORE, epoch_batches, inputs_and_targets, pad_rows
from .names import is_token_data, resolve, validation_size
from .packing import pack, packed_inputs_and_targets
from .prepared import PREPARED, prepare
from .records import column, read_records, texts_in
from .records import split as split_records
from .text import documents, read_text, read_texts, split
from .tokens import open_tokens, write_tokens
