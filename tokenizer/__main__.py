"""Tokenizers from the command line.

    python -m tokenizer train corpus.txt --vocab_size 8192 --out words
    python -m tokenizer encode words corpus.txt --out corpus.bin
    python -m tokenizer decode words corpus.bin
    python -m tokenizer inspect words "Which pieces is this cut into?"

A tokenizer is given as a folder or file that `train`, train.py, GPT-2, Hugging Face or tiktoken has
written, or as the name of a published vocabulary (gpt2, cl100k_base, o200k_base), which is fetched
once.
"""

import os
import signal

if __name__ == "__main__":  # Ctrl-C while the modules below are loaded: no traceback of theirs
    at_interrupt = signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from . import BPETokenizer, CharTokenizer
from .base import END_OF_TEXT, Tokenizer
from .pieces import PATTERNS, splitter
from .pretrained import FILES, find
from .streaming import StreamDecoder
from .texts import read_text, text_files
from .widths import looks_like


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status. An error of the user is one line on stderr."""
    warnings.showwarning = lambda message, *_: print(f"tokenizer: {message}", file=sys.stderr)
    try:
        options = parser().parse_args(argv)
        if sys.stdout is None:
            raise ValueError("there is no output to write to")
        sys.stdout.reconfigure(errors="backslashreplace")  # for a terminal that knows ASCII alone
        options.run(options)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:  # the reader has gone (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print(f"tokenizer: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser("python -m tokenizer", description=__doc__, formatter_class=raw)
    commands = top.add_subparsers(required=True, metavar="train|encode|decode|inspect")

    def command(run, description: str):
        name = run.__name__
        one = commands.add_parser(name, description=description, help=description.split(". ")[0])
        one.set_defaults(run=run)
        return one.add_argument

    encoding_help = "of text files and of the input (default: utf-8)"

    add = command(
        train,
        "Train a tokenizer on text files and save it. The same files give the same tokenizer.",
    )
    add("files", nargs="+", type=Path, metavar="FILE", help="text files, or folders of them")
    add("--out", type=os.path.expanduser, required=True, metavar="DIR", help="where to save it")
    add("--vocab_size", type=int, metavar="N", help="the number of ids (default: 8192)")
    add("--char", action="store_true", help="give each character an id, instead of BPE")
    add(
        "--pattern",
        default="gpt2",
        help=f"how a text is cut into pieces: {', '.join(PATTERNS)}, none, or a regular expression "
        "(default: gpt2)",
    )
    add("--special", action="append", metavar="NAME", help=f"default: {END_OF_TEXT}; may repeat")
    add("--min_frequency", type=int, default=1, metavar="N", help="merge pairs that occur N times")
    add("--max_piece_length", type=int, metavar="N", help="leave out pieces of more than N bytes")
    add("--workers", type=int, default=1, metavar="N", help="count pieces in N processes")
    add("--encoding", default="utf-8", help=encoding_help)

    add = command(
        encode, "Text to ids: from a file into a token file (.bin), or from a text to the screen."
    )
    add("tokenizer", help=f"a folder, a file, or {', '.join(FILES)}")
    add(
        "text",
        help="a text file, or a folder of them, if --out is given; else the text or FILE:path; "
        "or - for the input",
    )
    add(
        "--out",
        type=os.path.expanduser,
        metavar="FILE",
        help="a .bin file of ids, 2 bytes each (4 beyond 65,536 ids)",
    )
    add("--special", action="store_true", help="recognize special tokens in the text")
    add("--workers", type=int, default=1, metavar="N", help="encode a file in N processes")
    add("--encoding", default="utf-8", help=encoding_help)

    add = command(decode, "Ids to text: from a token file (.bin), or from numbers.")
    add("tokenizer", help=f"a folder, a file, or {', '.join(FILES)}")
    add("ids", nargs="+", help="a .bin file, or ids, or - for ids in the input")

    add = command(
        inspect,
        "Show a text in coloured tokens with their ids. Also shows how many bytes a token has.",
    )
    add("tokenizer", help=f"a folder, a file, or {', '.join(FILES)}")
    add("text", help="the text, FILE:path to read it from there, or - for the input")
    add("--special", action="store_true", help="recognize special tokens in the text")
    add("--encoding", default="utf-8", help=encoding_help)
    add("--max_tokens", type=int, default=2000, metavar="N", help="show N tokens (default: 2000)")
    add("--color", choices=("auto", "always", "never"), default="auto")
    return top


# ---- the commands --------------------------------------------------------------------------------


def train(options: argparse.Namespace) -> None:
    files = []
    for path in options.files:
        if not path.exists():
            raise FileNotFoundError(f"there is no file or folder {path}")
        files += text_files(path, options.encoding) if path.is_dir() else [path]
    if not any(file.stat().st_size or not file.is_file() for file in files):  # a pipe's is 0
        raise ValueError(f"{', '.join(map(str, options.files))}: no text to train on")
    if options.char:
        tokenizer = CharTokenizer.train(files, options.vocab_size, options.encoding)
    else:
        tokenizer = BPETokenizer.train(
            files,
            8192 if options.vocab_size is None else options.vocab_size,
            None if options.pattern == "none" else options.pattern,
            [END_OF_TEXT] if options.special is None else options.special,
            options.min_frequency,
            options.max_piece_length,
            options.workers,
            options.encoding,
        )
    tokenizer.save(options.out)
    print(f"{tokenizer.vocab_size:,} ids, saved in {options.out}")


def encode(options: argparse.Namespace) -> None:
    tokenizer = find(options.tokenizer)
    allowed = _allowed(options, tokenizer)
    if options.out:
        source = Path("/dev/stdin" if options.text == "-" else options.text)
        n = tokenizer.encode_file(source, options.out, allowed, options.workers, options.encoding)
        size = 0 if source.is_dir() else source.stat().st_size
        each = f", {size / n:.2f} bytes each" if size else ""  # a pipe's is 0
        print(f"{n:,} tokens of {tokenizer.dtype}{each}, in {options.out}")
        return
    if os.path.exists(options.text):
        hint = f"as text; FILE:{options.text}, or --out, encodes the file"
        if os.path.isdir(options.text):
            hint = "as text; --out encodes the files of the folder"
        print(f"tokenizer: {options.text!r} is encoded {hint}", file=sys.stderr)
    print(*tokenizer.encode(_text(options.text, options.encoding), allowed, ()))


def decode(options: argparse.Namespace) -> None:
    tokenizer = find(options.tokenizer)
    decoder = StreamDecoder(tokenizer)
    for ids in _ids(options.ids, tokenizer):
        for token_id in ids:
            sys.stdout.write(decoder.push(token_id))
    sys.stdout.write(decoder.finish())
    if sys.stdout.isatty():
        print()


def inspect(options: argparse.Namespace) -> None:
    tokenizer = find(options.tokenizer)
    text = _text(options.text, options.encoding)
    if options.max_tokens < 0:
        raise ValueError(f"--max_tokens must be at least 0, not {options.max_tokens}")
    ids = tokenizer.encode(text, _allowed(options, tokenizer), ())
    color = options.color == "always"
    if options.color == "auto":
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print("".join(_shown(tokenizer, ids[: options.max_tokens], color)))
    if len(ids) > options.max_tokens:
        print(f"... and {len(ids) - options.max_tokens:,} more (--max_tokens)")
    size = len(text.encode("utf-8", "replace"))
    print(f"\n{size:,} bytes, {len(text):,} characters", end="")
    if isinstance(tokenizer, BPETokenizer):
        print(f", {len(splitter(tokenizer.pattern)(text)):,} pieces", end="")
    each = f": {size / len(ids):.2f} bytes per token" if ids else ""
    print(f", {len(ids):,} tokens ({len(set(ids)):,} distinct){each}")


COLORS = (194, 224, 189, 230, 219, 159)  # light backgrounds of the 256 colours of a terminal


def _shown(tokenizer: Tokenizer, ids: list[int], color: bool) -> Iterator[str]:
    """Each token's text, then its id; bytes that are not whole characters are shown as \\x.."""
    for i, token_id in enumerate(ids):
        token = tokenizer.decode_bytes([token_id])
        try:
            text = token.decode()
        except UnicodeDecodeError:
            text = "".join(f"\\x{byte:02x}" for byte in token)
        text = "".join(_visible(c) for c in text)
        end = "\n" if token.endswith(b"\n") else ""
        if color:
            background = COLORS[i % len(COLORS)]
            yield f"\x1b[30;48;5;{background}m{text}\x1b[0m\x1b[2m{token_id}\x1b[0m{end}"
        else:
            yield f"[{text}]{token_id} {end}"


def _visible(character: str) -> str:
    if character == "\n":
        return "⏎"
    return character if character.isprintable() else repr(character)[1:-1]


def _allowed(options: argparse.Namespace, tokenizer: Tokenizer) -> str | tuple[()]:
    """The special tokens that are recognized in the text."""
    if options.special and not tokenizer.special_tokens:
        nothing = "--special changes nothing: this tokenizer has no special tokens"
        warnings.warn(nothing, stacklevel=1)
    return "all" if options.special else ()


def _text(argument: str, encoding: str) -> str:
    if argument == "-":
        return read_text("/dev/stdin", encoding)
    if argument.startswith("FILE:"):
        return read_text(argument[5:], encoding)
    return argument


def _ids(arguments: list[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    if len(arguments) == 1 and arguments[0].endswith(".bin"):
        size = Path(arguments[0]).stat().st_size
        if other := looks_like(arguments[0], tokenizer.dtype):
            raise ValueError(
                f"{arguments[0]} is read as {tokenizer.dtype}, as this tokenizer writes, and looks "
                f"like {other}"
            )
        if size % tokenizer.dtype.itemsize:
            raise ValueError(
                f"{arguments[0]} has {size} bytes, which is not a whole number of ids of "
                f"{tokenizer.dtype}"
            )
        if size:
            tokens = np.memmap(arguments[0], tokenizer.dtype, "r")
            yield from (tokens[i : i + 2**16].tolist() for i in range(0, len(tokens), 2**16))
        return
    words = sys.stdin.read().split() if arguments == ["-"] else arguments
    wrong = [word for word in words if not (word.isascii() and word.isdigit())]
    if wrong:
        raise ValueError(f"an id is a number, not {wrong[0]!r}; a token file's name ends in .bin")
    yield [int(word) for word in words]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, at_interrupt)
    sys.exit(main())
