"""What a dataset's name means: a built-in corpus, text, or token files.

The rules are nanoGPT's (`data/NAME` with a train.bin and a val.bin in it), and more than its: text
files, folders of them, and the corpora of `corpora.py`.
"""

import os
from pathlib import Path

from .corpora import CORPORA
from .prepared import PREPARED

ALIASES = {"shakespeare_char": "shakespeare"}  # nanoGPT's name


def resolve(dataset: str, folder: str = "") -> str:
    """What `--dataset` means: a built-in corpus, else a path, else nanoGPT's `data/NAME` folder.

    A built-in name wins over a file or folder of that name; `./NAME` means the file. Paths are
    relative to `folder`; a name that nothing is found for is returned as it is.
    """
    dataset = ALIASES.get(dataset, dataset)
    if dataset in CORPORA or dataset in PREPARED:
        return dataset
    path, nanogpt = os.path.join(folder, dataset), os.path.join(folder, "data", dataset)
    if os.path.exists(path):
        return path
    return nanogpt if os.path.isfile(os.path.join(nanogpt, "train.bin")) else dataset


def is_token_data(dataset: str) -> bool:
    """True for what `open_tokens` reads: a `.bin` file, or a folder with a `train.bin`."""
    path = resolve(dataset)
    if path in CORPORA:
        return False
    if path.endswith(".bin") and os.path.isfile(path):
        return True
    return os.path.isfile(os.path.join(path, "train.bin"))


def validation_size(dataset: str) -> int:
    """About how many tokens the validation split has at most, judged by the sizes of files.

    0 for a built-in corpus, which is small, and for a dataset that does not exist.
    """
    path = resolve(dataset)
    if os.path.isfile(val := os.path.join(path, "val.bin")):
        return os.path.getsize(val) // 2
    files = [path] if os.path.isfile(path) else filter(os.path.isfile, Path(path).rglob("*"))
    return sum(map(os.path.getsize, files)) // (20 if path.endswith(".bin") else 10)
