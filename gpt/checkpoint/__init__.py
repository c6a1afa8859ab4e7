"""What is saved of a model and of a run, so that nothing is lost and everybody can read it.

`files` writes files that appear whole or not at all, `tensors` reads weights in one file or
several, `planned` and `hub` fetch them, `layout` checks the folders of others, `gpt2`, `llama` and
`classifier` know the names and settings in them, `adapter` those of an adapter, and `run` keeps the
state of a run. None of them knows a model: they handle files, arrays and names.
"""

from .adapter import (
    ADAPTED,
    ADAPTER,
    ADAPTER_CONFIG,
    BASE,
    PREFIX,
    base_folder,
    check_adapter,
    config_folder,
    count_labels,
    count_tokens,
    is_adapter,
    read_adapter,
    write_adapter,
)
from .classifier import (
    MULTI,
    PROBLEMS,
    REGRESSION,
    SCORE,
    SINGLE,
    describe_labels,
    is_classifier,
    read_labels,
)
from .files import CONFIG, MODEL, open_tensors, read_json, write_json, write_tensors
from .gpt2 import read_config, read_gpt2, write_gpt2
from .hub import fetch_model, local_folder
from .layout import (
    OURS,
    QUANTIZATION,
    TOKEN_IDS,
    Tensors,
    check_bits,
    model_type,
    read_quantization,
)
from .llama import read_fields, read_llama, write_llama
from .modern import (
    NANOCHAT,
    is_nanochat,
    modern_names,
    note_of,
    read_modern,
    read_modern_fields,
    write_modern,
)
from .run import (
    RUN,
    TOKENIZER_CONFIG,
    begin_run,
    is_lost,
    load_gpu_state,
    load_optimizer,
    load_step,
    save_run,
    save_tokenizer,
)
from .tensors import TensorFiles
