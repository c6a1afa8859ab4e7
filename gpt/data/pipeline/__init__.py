"""From raw pages to token files: a step reads a folder of documents, and writes the next one.

    extract  ->  clean  ->  filter  ->  dedup  ->  split  ->  tokenize

`python -m gpt.data STEP` runs a step, `python -m gpt.data pipeline FILE.toml` all of them. Each is
a class that says what becomes of the documents of a shard; `steps.run` divides the shards between
processes, and goes on where a run was stopped.
"""

from .document import Document
from .shards import read_documents, shards_in, write_shards
from .steps import Step, Unit, run
from .tally import Tally
