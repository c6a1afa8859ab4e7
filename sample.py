"""Write text with a model: one that train.py made, or one of another project.

    python sample.py                                  from the run in out/
    python sample.py --start "def " --num_samples 3
    python sample.py --start FILE:prompt.txt --temperature 0
    python sample.py --special --start "<|endoftext|>The"   the token, not its name
    python sample.py --out_dir hf:HuggingFaceTB/SmolLM-135M --start "A cache is"
    python sample.py --interactive                    prompts from the keyboard
    python sample.py --out_dir out-chat --chat        a conversation, with a model tuned on some
    python sample.py --batch prompts.txt > answers.jsonl    a prompt a line
    python sample.py --start "Is it so? " --choice yes --choice no

What it writes appears token by token; gpt/generate/ draws it.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":  # Ctrl-C while the modules below are loaded: no traceback of theirs
    at_interrupt = signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import contextlib
import dataclasses
import itertools
import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import tensorlite as tl
import tokenizer as tokenizers
from gpt import load
from gpt.checkpoint import local_folder
from gpt.commandline import Parser, print_anything
from gpt.generate import (
    NGRAMS,
    Conversation,
    Grammar,
    TextWriter,
    complete,
    generate,
    nth_seed,
    write,
)
from gpt.training.output import only_rank_0_prints
from tensorlite import parallel
from tensorlite.device import keep_freed_memory
from tensorlite.modes import PRECISIONS
from tokenizer.texts import read_text


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status. Faults of the user are one line on stderr."""
    print_anything()
    warnings.showwarning = lambda message, *_: print(f"sample.py: {message}", file=sys.stderr)
    argv = sys.argv[1:] if argv is None else argv
    team = parallel.ALONE
    try:
        options = parse(argv)
        team = parallel.join()
        if options.workers > team.size and not parallel.launched():
            if fault := parallel.fault():
                raise ValueError(f"--workers {options.workers} does not work here: {fault}")
            return parallel.start(options.workers, [__file__, *argv])
        with tl.autocast(precision(options)):
            if team.size == 1:
                return run(options, team)
            with only_rank_0_prints(team):
                return run(options, team)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone (| head): nothing to say, nobody to say it to
        return team.end(0)
    except (ValueError, OSError, RuntimeError, ImportError, ArithmeticError, MemoryError) as error:
        team.give_way()
        tell_error(error)
        return team.end(2)
    except KeyboardInterrupt:
        return team.end(130)


def tell_error(error: Exception) -> None:
    print(f"sample.py: error: {' '.join(str(error).split())}", file=sys.stderr)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="sample.py",
        description="Write text with a model: one that train.py made, or one of another project.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--out_dir",
        type=os.path.expanduser,
        default="out",
        help="the folder of the run (OUT/best has its best checkpoint), or of another project's "
        "model, or hf:OWNER/NAME, which is fetched",
    )
    add("--start", default="", metavar="TEXT", help="the prompt, or FILE:path to read it from")
    add("--batch", metavar="FILE", help="a prompt a line; answers as JSON, one a line")
    add("--batch_size", type=int, default=8, metavar="N", help="prompts that are read together")
    add("--workers", type=int, default=1, metavar="N", help="processes that share a --batch")
    add("--interactive", action="store_true", help="read prompts from the keyboard")
    add("--chat", action="store_true", help="the same, and each answer is part of a conversation")
    add("--system", metavar="TEXT", help="what the conversation of --chat begins with")
    add("--num_samples", type=int, default=1, metavar="N", help="how many texts")
    add("--max_new_tokens", type=int, default=500, metavar="N", help="the length of each")
    add("--temperature", type=float, default=0.8, help="0 always takes the likeliest token")
    add("--top_k", type=int, default=200, metavar="K", help="draw from the K likeliest (0: all)")
    add("--top_p", type=float, metavar="P", help="draw from those that reach probability P")
    add("--min_p", type=float, metavar="P", help="draw from those P times as likely as the first")
    add("--repetition_penalty", type=float, default=1.0, help="above 1: repeat less")
    add("--presence_penalty", type=float, default=0.0, help="off the logit of tokens written")
    add("--frequency_penalty", type=float, default=0.0, help="the same, each time it was written")
    add("--stop", action="append", default=[], metavar="TEXT", help="end there; may be repeated")
    add("--seed", type=int, default=1337, help="the same seed gives the same texts")
    add("--num_beams", type=int, default=1, metavar="N", help="above 1: beam search, no drawing")
    add("--length_penalty", type=float, default=1.0, help="of beam search: above 0 favours long")
    add("--regex", metavar="PATTERN", help="the text matches this regular expression")
    add("--json_schema", metavar="FILE", help="the text is JSON that is valid for this schema")
    add("--choice", action="append", metavar="TEXT", help="one of these; repeat it for each")
    add("--logprobs", action="store_true", help="show the log-probability of each token")
    add(
        "--draft",
        type=os.path.expanduser,
        metavar="DIR",
        help=f"a smaller model that guesses ahead, or {NGRAMS}: the same text sooner",
    )
    add("--special", action="store_true", help="special tokens in the prompt count as such")
    add("--encoding", default="utf-8", help="of a prompt's file")
    add(
        "--tokenizer",
        type=os.path.expanduser,
        metavar="NAME",
        help="gpt2, or a path: for a model trained on .bin files",
    )
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if usable")
    add("--dtype", choices=("auto", *PRECISIONS), default="auto", help="of products on a GPU")
    # nanoGPT's command lines
    add("--init_from", type=os.path.expanduser, default="resume", help=argparse.SUPPRESS)
    add("--compile", nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    for name in ("num_samples", "batch_size", "workers", "num_beams"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is at least 1, not {getattr(options, name)}")
    if options.seed < 0:
        parser.error(f"--seed is at least 0, not {options.seed}")
    if options.workers > 1 and not options.batch:
        parser.error("--workers is for a --batch: one text is written by one process")
    sources = options.batch is not None, options.interactive, options.chat
    if sum(sources) > 1:
        parser.error(
            "--batch reads from a file, --interactive and --chat from the keyboard: give one"
        )
    if any(sources) and (options.start or options.num_samples > 1):
        parser.error("--start and --num_samples do not go with --batch, --interactive or --chat")
    if options.chat and (options.num_beams > 1 or options.logprobs or options.special):
        parser.error("--chat does not go with --num_beams, --logprobs or --special")
    if options.system is not None and not options.chat:
        parser.error("--system is for --chat")
    if options.num_beams == 1 and options.length_penalty != 1:
        parser.error("--length_penalty is for --num_beams above 1")
    if options.num_beams > 1 and (options.logprobs or options.draft or options.batch):
        parser.error("--num_beams does not go with --logprobs, --draft or --batch")
    rules = options.regex, options.json_schema, options.choice
    if sum(rule is not None for rule in rules) > 1:
        parser.error("--regex, --json_schema and --choice each say all of the text: give one")
    if options.draft and options.batch:
        parser.error("--draft is for one text at a time, not for a --batch")
    return options


def precision(options: argparse.Namespace) -> str:
    """The precision of products. Raises ValueError for one that the GPU does not have."""
    if options.device == "auto":
        options.device = "cuda" if tl.cuda.is_available() else "cpu"
    if options.device == "cpu" or not tl.cuda.is_available():  # which `to` has the words for
        return "float32"
    from tensorlite.kernels.precision import usable

    return usable(None if options.dtype == "auto" else options.dtype)


def run(options: argparse.Namespace, team: parallel.Team) -> int:
    keep_freed_memory()
    out = options.out_dir if options.init_from == "resume" else options.init_from
    model = load(local_folder(out)).to(options.device)
    tokenizer = find_tokenizer(options.tokenizer, out)
    draft = options.draft
    if draft is not None and draft != NGRAMS:
        draft = load(local_folder(draft)).to(options.device)
    if options.special and not tokenizer.special_tokens:
        nothing = "--special changes nothing: this tokenizer has no special tokens"
        warnings.warn(nothing, stacklevel=1)
    if options.batch is not None:
        return answer_all(model, tokenizer, options, team)
    if options.chat:
        how = settings(options) | {"draft": draft}
        conversation = Conversation(model, tokenizer, options.system, **how)
        return interact("you> ", options.seed, partial(reply, conversation))
    if options.interactive:

        def say(prompt: str, seed: int) -> None:
            answer(model, tokenizer, prompt, options, seed, draft)

        return interact("prompt> ", options.seed, say)
    prompt = options.start
    if prompt.startswith("FILE:"):  # as training text is read
        prompt = read_text(Path(prompt[5:]).expanduser(), options.encoding)
    for i in range(options.num_samples):
        if i:
            print("\n---------------")
        answer(model, tokenizer, prompt, options, nth_seed(options.seed, i), draft)
    return 0


def find_tokenizer(name: str | None, out: str):
    try:
        return tokenizers.find(name or str(local_folder(out)))
    except FileNotFoundError:
        if name is not None:
            raise
        raise FileNotFoundError(
            f"{out} has no tokenizer (a run on .bin files has none): name one with --tokenizer"
        ) from None


def settings(options: argparse.Namespace) -> dict:
    """What the options say about drawing, as `gpt.generate.stream` names it."""
    names = "max_new_tokens temperature top_p min_p repetition_penalty presence_penalty "
    names += "frequency_penalty stop"
    return {name: getattr(options, name) for name in names.split()} | {
        "top_k": options.top_k or None,
        "allowed_special": "all" if options.special else (),
        "constraint": constraint(options),
    }


def constraint(options: argparse.Namespace) -> Grammar | None:
    if options.regex is not None:
        return Grammar.regex(options.regex)
    if options.json_schema is not None:
        return Grammar.json_schema(read_text(Path(options.json_schema).expanduser(), "utf-8"))
    return Grammar.choices(options.choice) if options.choice else None


def answer(model, tokenizer, prompt: str, options, seed: int, draft=None) -> None:
    """Print the prompt, and the tokens that follow it as they are drawn."""
    named = [name for name in tokenizer.special_tokens if name in prompt]
    if named and not options.special:
        hint = f"{named[0]} in the prompt is plain text; --special makes it a token"
        warnings.warn(hint, stacklevel=1)
    print(prompt, end="", flush=True)
    if options.num_beams > 1:
        beams = {"num_beams": options.num_beams, "length_penalty": options.length_penalty}
        how = settings(options) | beams
        print(generate(model, tokenizer, prompt, return_full_text=False, **how))
        return
    how = settings(options) | {"seed": seed, "logprobs": options.logprobs}
    writer = TextWriter(model, tokenizer, prompt, **how)
    began = time.perf_counter()
    for _ in write(model, [writer], draft=draft):
        print(writer.news(), end="", flush=True)
    print(writer.news())
    writer.check_complete()
    for i, logprob in zip(writer.new_ids, writer.logprobs or []):
        print(f"{logprob:9.4f}  {tokenizer.decode([i])!r}")
    tell_speed(len(writer.new_ids), began)


def reply(conversation: Conversation, text: str, seed: int) -> None:
    """Print the answer to what the user says next, as it is drawn."""
    for piece in conversation.ask(text, seed):
        print(piece, end="", flush=True)
    print(flush=True)


def tell_speed(n: int, began: float) -> None:
    seconds = time.perf_counter() - began
    if n:
        print(f"{n} tokens, {n / seconds:,.1f} a second", file=sys.stderr, flush=True)


def interact(ask: str, seed: int, say: Callable[[str, int], None]) -> int:
    """A prompt, what `say` prints for it, the next; ends with an empty line or the end of input.

    Ctrl-C ends the answer that is being written, or clears the line. At a terminal, an answer that
    cannot be given does not end the program either.
    """
    with contextlib.suppress(ImportError):  # which some Pythons lack
        import readline  # noqa: F401 - it makes `input` edit lines and remember them
    for i in itertools.count():
        try:
            prompt = input(ask if sys.stdin.isatty() else "")
            if not prompt:
                return 0
            say(prompt, nth_seed(seed, i))
        except EOFError:
            return 0
        except ValueError as error:
            if not sys.stdin.isatty():
                raise
            tell_error(error)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            print()


def answer_all(model, tokenizer, options, team: parallel.Team) -> int:
    """Answer the prompts in a file, a line each; the answers are JSON, a line each, in order."""
    text = read_text(Path(options.batch).expanduser(), options.encoding)
    lines = text.replace("\r\n", "\n").removesuffix("\n")
    prompts = lines.split("\n") if text else []
    how = settings(options) | {"batch_size": options.batch_size, "logprobs": options.logprobs}
    began, n = time.perf_counter(), 0
    for done in complete(model, tokenizer, prompts, seed=options.seed, team=team, **how):
        line = dataclasses.asdict(done)
        if done.logprobs is None:
            del line["logprobs"]
        # Where the output lacks characters, they are escaped as JSON has them.
        utf8 = (sys.stdout.encoding or "").lower().startswith("utf")
        print(json.dumps(line, ensure_ascii=not utf8), flush=True)
        n += len(done.ids)
    tell_speed(n, began)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, at_interrupt)
    sys.exit(main())
