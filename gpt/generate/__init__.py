"""Text from a model.

`generate` gives a text whole, `stream` piece by piece as it is drawn, `complete` those of many
prompts; `generate_ids` does the same for ids. Read sampling.py (one token), context.py and cache.py
(what the model reads), ids.py (the loop), text.py; then beam.py, speculative.py,
constrain.py, chat.py. On a GPU, gpu.py, gpu_step.py and gpu_forward.py write most tokens.
"""

from .chat import Conversation
from .constrain import Grammar
from .ids import Writer, check_ids, evaluating, generate_ids, nth_seed, write
from .sampling import Sampling, penalise
from .speculative import NGRAMS
from .text import Completion, TextWriter, complete, generate, stream
