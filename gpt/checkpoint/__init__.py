"""What is saved of a model and of a run, so that nothing is lost and everybody can read it.

`files` writes files that appear whole or not at all, `tensors` reads checkpoints in one file or
several, `hub` fetches them, `gpt2` knows GPT-2's layout, and `run` keeps the state of a run. None
of them knows a model: they handle files, arrays and names.
"""

from .files import CONFIG, MODEL, open_tensors, read_json, write_json, write_tensors
from .gpt2 import TOKEN_IDS, read_config, read_gpt2, write_gpt2
from .hub import fetch_model, local_folder
from .run import (
    RUN,
    TOKENIZER_CONFIG,
    begin_run,
    is_lost,
    load_optimizer,
    load_step,
    save_run,
    save_tokenizer,
)
from .tensors import TensorFiles
