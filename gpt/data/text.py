"""Text to train on, and its division into what is trained on and what is held out.

This is nanoGPT's `prepare.py`, with the same 90/10 split. It takes text itself (files, folders and
built-in corpora) and refuses what cannot be read before the training begins.
"""

import os
from pathlib import Path

from tokenizer import texts

from .corpora import CORPORA
from .names import resolve
from .pipeline.shards import SUFFIX
from .prepared import PREPARED
from .token_folder import NAME as TOKENS


def read_text(dataset: str, encoding: str = "utf-8") -> str:
    r"""The texts of a dataset (see `read_texts`), joined by "\n"."""
    return "\n".join(read_texts(dataset, encoding))


def read_texts(dataset: str, encoding: str = "utf-8") -> list[str]:
    """The text of a built-in corpus, of a text file, or of each file of a folder.

    Which files of a folder, and in which order: see `texts.text_files`. Text is kept as it is, line
    ends too; only a byte order mark at the start of a file is dropped.

    Raises FileNotFoundError when there is no such dataset, and ValueError when it is empty, not in
    this encoding, or a folder of documents (gpt/data/pipeline), which are compressed.
    """
    path = resolve(dataset)
    if path in CORPORA:
        return [CORPORA[path]()]
    if path in PREPARED:
        raise ValueError(
            f"{dataset} is a corpus of documents, of which only training makes token files: "
            "python train.py --dataset takes it, and text is read from files"
        )
    if not path or not os.path.exists(path):  # Path("") would be the current folder
        raise FileNotFoundError(
            f"no dataset {dataset!r}: it is no file or folder here and none of the built-in "
            f"corpora, {', '.join(CORPORA)}"
        )
    for shard in sorted(Path(path).rglob(f"*{SUFFIX}")):
        if (shard.parent / "manifest.json").is_file():
            if tokens := sorted(Path(path).rglob(TOKENS)):
                raise ValueError(
                    f"{path} holds folders of documents, and token files of them: --dataset "
                    f"{tokens[0].parent}"
                )
            raise ValueError(
                f"{shard.parent} is a folder of documents: python -m gpt.data tokenize makes token "
                "files of it, and --dataset takes the folder of these"
            )
    files = texts.text_files(path, encoding) if os.path.isdir(path) else [path]
    parts = [texts.read_text(file, encoding) for file in files]
    if not any(part.strip("\n") for part in parts):
        what = "folder" if os.path.isdir(path) else "file"
        raise ValueError(f"the {what} {path} holds no text")
    return parts


def documents(parts: list[str], separator: str) -> list[str]:
    r"""The texts that `separator` divides: files ("file") or lines ("line"), without empty ones.

    A line is returned without its line end, "\n" or "\r\n": the end-of-text token replaces it.

    >>> documents(["one\ntwo\n", "three"], "file"), documents(["one\n\ntwo\n", "three"], "line")
    (['one\ntwo\n', 'three'], ['one', 'two', 'three'])
    """
    if separator == "line":
        parts = [line.removesuffix("\r") for part in parts for line in part.split("\n")]
    return [part for part in parts if part]


def split(text: str) -> tuple[str, str]:
    """The training part, the first int(0.9 N) characters (or ids), and the validation part.

    >>> split("abcdefghijk")
    ('abcdefghi', 'jk')
    """
    n = int(0.9 * len(text))
    return text[:n], text[n:]
