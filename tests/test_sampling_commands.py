"""What sample.py does beyond one text: batches, workers, drafts, log-probabilities, prompts."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import numpy as np
import pytest

import sample
import tokenizer as tokenizers
from gpt import GPT, GPTConfig, Llama, LlamaConfig, load
from gpt.generate import generate, nth_seed
from tensorlite import parallel
from tokenizer import BPETokenizer, CharTokenizer

from .test_train import ENVIRONMENT, cli, command, ok, refused

CHARS = CharTokenizer("\n abcdefgh")


def save(folder, model, tokenizer=CHARS):
    rng = np.random.default_rng(0)
    for p in model.parameters():
        p.data[...] += 0.3 * rng.standard_normal(p.shape)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = GPT(GPTConfig(CHARS.vocab_size, 32, n_layer=1, n_head=2, n_embd=16))
    return save(tmp_path_factory.mktemp("model"), model)


def expected(folder, prompt: str, n: int, i: int = 0, **settings) -> str:
    model, tokenizer = load(folder), tokenizers.load(folder)
    return generate(model, tokenizer, prompt, n, 0.8, 10, seed=nth_seed(1337, i), **settings)


def test_a_batch_of_prompts_is_answered_in_order(folder, tmp_path, capsys):
    prompts = ["a", "bcd", "", "abcdefgh" * 3, "h"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts) + "\n")
    argv = ["--out_dir", folder, "--batch", tmp_path / "prompts.txt", "--max_new_tokens=20"]
    lines = ok(sample.main, capsys, *argv, "--top_k=10", "--batch_size=2").splitlines()
    answers = [json.loads(line) for line in lines]
    assert [a["prompt"] for a in answers] == prompts
    for i, a in enumerate(answers):
        assert a["prompt"] + a["text"] == expected(folder, a["prompt"], 20, i)
        assert a["finish"] == "length" and CHARS.decode(a["ids"]) == a["text"]
    assert lines == ok(sample.main, capsys, *argv, "--top_k=10", "--batch_size=5").splitlines()
    lines = ok(sample.main, capsys, *argv, "--logprobs").splitlines()
    for a in map(json.loads, lines):
        assert len(a["logprobs"]) == len(a["ids"]) and max(a["logprobs"]) <= 0


@pytest.mark.parametrize(
    ("text", "prompts"),
    [(b"", []), (b"\n", [""]), (b"a\r\n\r\nb\r\n", ["a", "", "b"]), (b"a", ["a"])],
)
def test_the_lines_of_a_batch(text, prompts, folder, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_bytes(text)
    argv = ["--out_dir", folder, "--batch", tmp_path / "prompts.txt", "--max_new_tokens=2"]
    lines = ok(sample.main, capsys, *argv).splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == prompts


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_answers_are_json_in_any_encoding(encoding, folder, tmp_path):
    (tmp_path / "prompts.txt").write_text("é😀", "utf-8")
    line = command("sample.py", "--out_dir", folder, "--batch", tmp_path / "prompts.txt")
    environment = ENVIRONMENT | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([*line, "--max_new_tokens=2"], env=environment, capture_output=True)
    assert json.loads(done.stdout)["prompt"] == "é😀"
    assert ("é".encode() in done.stdout) == (encoding == "utf-8")


@pytest.mark.skipif(parallel.fault() is not None, reason="needs MPI")
def test_workers_share_a_batch(folder, tmp_path):
    (tmp_path / "prompts.txt").write_text("a\nbc\ndef\ngh\nab")
    argv = ["--out_dir", folder, "--batch", tmp_path / "prompts.txt", "--max_new_tokens=12"]
    outputs = []
    for workers in (1, 2):
        line = command("sample.py", *argv, "--batch_size=1", f"--workers={workers}")
        done = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr.count("\n") == 1, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] and outputs[0].count("\n") == 5


def test_a_draft_changes_nothing_but_the_time(folder, tmp_path, capsys):
    small = GPT(GPTConfig(CHARS.vocab_size, 32, n_layer=1, n_head=1, n_embd=8), seed=5)
    argv = ["--out_dir", folder, "--start=abc", "--max_new_tokens=60"]
    text = ok(sample.main, capsys, *argv)
    for draft in (save(tmp_path / "small", small), folder, "ngrams"):
        assert ok(sample.main, capsys, *argv, "--draft", draft) == text
    other = save(tmp_path / "other", GPT(GPTConfig(40, 32, 1, 1, 8)))
    err = refused(sample.main, capsys, *argv, "--draft", other)
    assert "the draft knows 40 ids, the model 11" in err
    assert "nowhere" in refused(sample.main, capsys, *argv, "--draft=nowhere")


def test_log_probabilities_are_shown_a_token_a_line(folder, capsys):
    argv = ["--out_dir", folder, "--start=a", "--max_new_tokens=5", "--temperature=0"]
    text, *lines = ok(sample.main, capsys, *argv, "--logprobs", "--stop=zz").rsplit("\n", 6)[:-1]
    assert text == generate(load(folder), CHARS, "a", 5, 0)
    logits, _ = load(folder)(np.array([CHARS.encode(text)]))
    logits = logits.numpy()[0].astype(np.float64)
    for i, line in enumerate(lines):
        logprob, token = line.split(maxsplit=1)
        z = logits[i] - np.log(np.exp(logits[i]).sum())
        assert unquoted(token) == text[i + 1]
        assert float(logprob) == pytest.approx(z[CHARS.encode(text[i + 1])[0]], abs=2e-4)


def unquoted(token: str) -> str:
    return token[1:-1].encode().decode("unicode_escape")


def test_beams_and_a_llama_with_a_token_that_begins_texts(tmp_path, capsys):
    tokenizer = BPETokenizer([], special_tokens={"<s>": 256, "<|endoftext|>": 257})
    config = LlamaConfig(258, 32, 1, 2, 16, n_kv_head=1, eos_token_id=(257, 10))
    save(tmp_path, Llama(config), tokenizer)
    argv = ["--out_dir", tmp_path, "--start=The", "--max_new_tokens=6"]
    model = load(tmp_path)
    found = ok(sample.main, capsys, *argv, "--num_beams=3")
    assert found == generate(model, tokenizer, "The", 6, num_beams=3) + "\n"


@pytest.mark.parametrize(
    "argv, words",
    [
        ("--batch=gone.txt", "gone.txt"),
        ("--num_beams=0", "--num_beams at least 1"),
        ("--num_beams=2 --logprobs", "--num_beams --logprobs"),
        ("--length_penalty=2", "--length_penalty --num_beams"),
        ("--workers=2", "--workers --batch"),
        ("--draft=ngrams --batch=x", "--draft --batch"),
        ("--batch_size=0", "--batch_size at least 1"),
        ("--batch=x --start=a", "--start --batch"),
        ("--interactive --num_samples=2", "--num_samples --interactive"),
        ("--interactive --batch=x", "--interactive --batch"),
        ("--frequency_penalty=nan", "frequency_penalty"),
        ("--out_dir=hf:nobody", "hf:nobody hf:OWNER/NAME"),
    ],
)
def test_what_cannot_go_together_is_refused(argv, words, folder, capsys):
    err = refused(sample.main, capsys, "--out_dir", folder, *argv.split())
    assert all(word in err for word in words.split()), err


def test_ctrl_c_stops_the_answer_and_not_the_program(folder):
    """On a terminal: a long answer is stopped, the next prompt is answered, Ctrl-D ends."""
    parent, child = pty.openpty()
    argv = ["--out_dir", folder, "--interactive", "--max_new_tokens=1000000"]
    process = subprocess.Popen(
        command("sample.py", *argv),
        env=ENVIRONMENT | {"TERM": "dumb"},
        stdin=child,
        stdout=child,
        stderr=subprocess.DEVNULL,
        # A shell that started the tests in the background has told them to ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(child)
    screen = Screen(parent)
    try:
        screen.wait_for("prompt> ")
        os.write(parent, b"abc\n")
        screen.wait_for("abc", more=200)
        process.send_signal(signal.SIGINT)
        screen.wait_for("prompt> ")
        os.write(parent, b"fgh\n")
        screen.wait_for("fgh", more=200)
        process.send_signal(signal.SIGINT)
        screen.wait_for("prompt> ")
        os.write(parent, b"\x04")
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(parent)


def test_an_answer_that_cannot_be_given_does_not_end_the_program(folder):
    parent, child = pty.openpty()
    argv = ["--out_dir", folder, "--interactive", "--temperature=-1"]
    line, environment = command("sample.py", *argv), ENVIRONMENT | {"TERM": "dumb"}
    process = subprocess.Popen(line, env=environment, stdin=child, stdout=child, stderr=child)
    os.close(child)
    screen = Screen(parent)
    try:
        for prompt in (b"abc\n", b"fgh\n"):
            screen.wait_for("prompt> ")
            os.write(parent, prompt)
            screen.wait_for("sample.py: error: temperature is a number, 0 or more")
        screen.wait_for("prompt> ")
        os.write(parent, b"\x04")
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(parent)


class Screen:
    """What a program shows on a terminal, of which nothing is lost between two waits."""

    def __init__(self, terminal: int):
        self.terminal, self.unread = terminal, ""

    def wait_for(self, text: str, more: int = 0) -> None:
        """Read until `text` has come, and so many characters after it."""
        end = time.monotonic() + 60
        while text not in self.unread or len(self.unread.partition(text)[2]) < more:
            left = max(0, end - time.monotonic())
            ready, _, _ = select.select([self.terminal], [], [], left)
            assert ready, (text, self.unread)
            self.unread += os.read(self.terminal, 4096).decode(errors="replace")
        self.unread = self.unread.partition(text)[2][more:]


def test_a_terminal_is_needed_for_nothing(folder, capsys, monkeypatch):
    status, out, err = cli(sample.main, capsys, "--out_dir", folder, "--max_new_tokens=0")
    assert status == 0 and out == "\n" and err == ""


def test_constrained_texts(folder, tmp_path, capsys):
    pytest.importorskip("llguidance")
    argv = ["--out_dir", folder, "--start=a", "--max_new_tokens=30"]
    text = ok(sample.main, capsys, *argv, "--regex=(bc|de)+ h")
    assert re.fullmatch(r"a(bc|de)+ h\n", text)
    assert ok(sample.main, capsys, *argv, "--choice=bad", "--choice=dab") in ("abad\n", "adab\n")
    assert ok(sample.main, capsys, *argv, "--regex=") == "a\n"
    status, _, err = cli(sample.main, capsys, *argv, "--regex=[bc]{90}")
    assert status == 2 and "30 new tokens are too few" in err
    (tmp_path / "schema.json").write_text('{"enum": ["abc", "d"]}')
    err = refused(sample.main, capsys, *argv, "--json_schema", tmp_path / "schema.json")
    assert "no token of the tokenizer can follow" in err  # which has no quotation mark
    assert "gone.json" in refused(sample.main, capsys, *argv, "--json_schema=gone.json")
    assert "--regex" in refused(sample.main, capsys, *argv, "--regex=a", "--choice=b")
    assert "constrained" in refused(sample.main, capsys, *argv, "--regex=(")
