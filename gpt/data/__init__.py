"""From a dataset's name to batches of token ids.

Text goes read_text -> split -> a tokenizer; token files go open_tokens. Either way training sees
two flat arrays of ids, (N,), and draws windows from them with draw_starts and draw_batch. Several
files are read as if they were one array (token_shards.py), and a Mixture is read by weights: see
permutation.py and apportion.py, then mixture.py.

What a model is fine-tuned on goes read_records -> split_records, and its texts, of different
lengths, become batches with epoch_batches and inputs_and_targets.
"""

from .batches import (
    check_length,
    documents_ended,
    draw_batch,
    draw_documents,
    draw_starts,
    full_starts,
    full_windows,
)
from .corpora import CORPORA
from .examples import IGNORE, epoch_batches, inputs_and_targets, pad_rows
from .mixture import Mixture, Order, read_sources, validation_size
from .names import is_mixture, is_token_data, resolve
from .packing import pack, packed_inputs_and_targets
from .prepared import PREPARED, prepare
from .records import column, read_records, texts_in
from .records import split as split_records
from .text import documents, read_text, read_texts, split
from .token_folder import check_tokenizer, read_about
from .token_shards import ShardedTokens
from .tokens import open_tokens, write_tokens
