"""What a dataset's name means: a built-in corpus, text, or token files.

The rules are nanoGPT's (`data/NAME` with a train.bin and a val.bin in it), and more than its: text
files, folders of them, the corpora of `corpora.py`, several token files, and mixtures.
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
    path, nanogpt = os.path.join(folder, dataset), os.path.join(folder, "data", dataset)
    if dataset in CORPORA or (dataset in PREPARED and not token_files(nanogpt, "train")):
        return dataset
    if os.path.exists(path):
        return path
    return nanogpt if token_files(nanogpt, "train") else path


def token_files(folder: str | Path, split: str) -> list[Path]:
    """The token files of a split ("train", "val"): train.bin, or train-00000.bin and so on."""
    folder = str(folder)
    one = os.path.join(folder, f"{split}.bin")
    if os.path.isfile(one):
        return [Path(one)]
    is_folder = os.path.isdir(folder)  # False for a name that no file can have, too
    return sorted(Path(folder).glob(f"{split}-[0-9]*.bin")) if is_folder else []


def is_mixture(dataset: str) -> bool:
    """True for a TOML file, which says what is mixed: see mixture.py."""
    path = resolve(dataset)
    return path not in CORPORA and path.endswith(".toml") and os.path.isfile(path)


def is_token_data(dataset: str) -> bool:
    """True for what `open_tokens` reads: a `.bin` file, or a folder with token files."""
    path = resolve(dataset)
    if path in CORPORA or path in PREPARED:
        return False
    return (path.endswith(".bin") and os.path.isfile(path)) or bool(token_files(path, "train"))
