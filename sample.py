"""Write text with a model that train.py made.

    python sample.py                                  from the run in out/
    python sample.py --start "def " --num_samples 3
    python sample.py --start FILE:prompt.txt --temperature 0
    python sample.py --special --start "<|endoftext|>The"   the token, not its name
    python sample.py --interactive                    prompts from the keyboard

What it writes appears token by token; gpt/generate/ draws it.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":  # Ctrl-C while the modules below are loaded: no traceback of theirs
    at_interrupt = signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import itertools
import sys
import warnings
from pathlib import Path

import tokenizer as tokenizers
from gpt import GPT
from gpt.generate import stream
from gpt.training.commandline import Parser
from gpt.training.output import print_anything
from tensorlite.device import keep_freed_memory, random
from tokenizer.texts import read_text


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status. Faults of the user are one line on stderr."""
    print_anything()
    warnings.showwarning = lambda message, *_: print(f"sample.py: {message}", file=sys.stderr)
    try:
        return run(parse(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone (| head): nothing to say, nobody to say it to
        return 0
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print(f"sample.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="sample.py",
        description="Write text with a model that train.py made.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--out_dir",
        type=os.path.expanduser,
        default="out",
        help="the folder of the run; OUT/best has its best checkpoint",
    )
    add("--start", default="", metavar="TEXT", help="the prompt, or FILE:path to read it from")
    add("--num_samples", type=int, default=1, metavar="N", help="how many texts")
    add("--max_new_tokens", type=int, default=500, metavar="N", help="the length of each")
    add("--temperature", type=float, default=0.8, help="0 always takes the likeliest token")
    add("--top_k", type=int, default=200, metavar="K", help="draw from the K likeliest (0: all)")
    add("--top_p", type=float, metavar="P", help="draw from those that reach probability P")
    add("--min_p", type=float, metavar="P", help="draw from those P times as likely as the first")
    add("--repetition_penalty", type=float, default=1.0, help="above 1: repeat less")
    add("--special", action="store_true", help="special tokens in the prompt count as such")
    add("--encoding", default="utf-8", help="of a prompt's file")
    add("--stop", action="append", default=[], metavar="TEXT", help="end there; may be repeated")
    add("--seed", type=int, default=1337, help="the same seed gives the same texts")
    add(
        "--tokenizer",
        type=os.path.expanduser,
        metavar="NAME",
        help="gpt2, or a path: for a model trained on .bin files",
    )
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--interactive", action="store_true", help="read prompts from the keyboard")
    # nanoGPT's command lines
    add("--init_from", type=os.path.expanduser, default="resume", help=argparse.SUPPRESS)
    for ignored in ("--dtype", "--compile"):
        add(ignored, nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.num_samples < 1:
        parser.error(f"--num_samples is at least 1, not {options.num_samples}")
    if options.seed < 0:
        parser.error(f"--seed is at least 0, not {options.seed}")
    return options


def run(options: argparse.Namespace) -> int:
    keep_freed_memory()
    out = Path(options.out_dir if options.init_from == "resume" else options.init_from)
    model = GPT.from_pretrained(out).to(options.device)
    try:
        tokenizer = tokenizers.find(options.tokenizer or str(out))
    except FileNotFoundError:
        if options.tokenizer is not None:
            raise
        raise FileNotFoundError(
            f"{out} has no tokenizer (its data was .bin files): name one with --tokenizer"
        ) from None
    prompt = options.start
    if prompt.startswith("FILE:"):
        prompt = read_text(
            Path(prompt[5:]).expanduser(), options.encoding
        )  # as training text is read
    if options.special and not tokenizer.special_tokens:
        nothing = "--special changes nothing: this tokenizer has no special tokens"
        warnings.warn(nothing, stacklevel=1)
    if options.interactive:
        return interact(model, tokenizer, options)
    for i in range(options.num_samples):
        if i:
            print("\n---------------")
        write(model, tokenizer, prompt, options, nth_seed(options.seed, i))
    return 0


def nth_seed(seed: int, i: int) -> int:
    """The seed of text number `i`: that of the command line for the first, derived for others.

    (seed + i would make the second text of one seed the first text of the next.)
    """
    return seed if i == 0 else int(random(seed, "sample", i).integers(2**62))


def interact(model, tokenizer, options) -> int:
    """A prompt, its continuation, the next prompt; ends with an empty line or the end of input."""
    for i in itertools.count():
        try:
            prompt = input("prompt> " if sys.stdin.isatty() else "")
        except EOFError:
            return 0
        if not prompt:
            return 0
        write(model, tokenizer, prompt, options, nth_seed(options.seed, i))


def write(model, tokenizer, prompt: str, options, seed: int) -> None:
    """Print the prompt, and the tokens that follow it as they are drawn."""
    named = [name for name in tokenizer.special_tokens if name in prompt]
    if named and not options.special:
        hint = f"{named[0]} in the prompt is plain text; --special makes it a token"
        warnings.warn(hint, stacklevel=1)
    print(prompt, end="", flush=True)
    pieces = stream(
        model,
        tokenizer,
        prompt,
        options.max_new_tokens,
        options.temperature,
        options.top_k or None,
        options.top_p,
        options.min_p,
        options.repetition_penalty,
        seed,
        options.stop,
        "all" if options.special else (),
    )
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, at_interrupt)
    sys.exit(main())
