"""Many workers: the training of one process, whoever shares it and however one of them ends."""

import contextlib
import functools
import gc
import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

import tensorlite as tl
import train
from gpt import GPT, GPTConfig, checkpoint
from gpt.training.loop import train_step
from gpt.training.optimizer import make_optimizer
from gpt.training.pretrain import Pretraining
from gpt.training.settings import Settings
from gpt.training.workers import choose_workers
from tensorlite import parallel
from tensorlite.parallel import ALONE, Team, launch

from . import ranks
from .test_train import ENVIRONMENT, ROOT, TINY, command, ok, on_hangup, short_end, text

__all__ = ["short_end", "text"]  # fixtures

LIMIT = {"MPIEXEC_TIMEOUT": "60"}  # seconds; MPICH's mpiexec then ends itself and all ranks


@pytest.fixture(scope="module")
def mpi():
    pytest.importorskip("mpi4py")
    if parallel.mpiexec() is None:
        pytest.skip("there is no mpiexec")


@pytest.fixture
def two_cores(mpi):
    if parallel.physical_cores() < 2:
        pytest.skip("there is one core")


def mpirun(n: int, *argv) -> subprocess.CompletedProcess:
    """Python with these arguments, as n ranks."""
    return subprocess.run(
        [parallel.mpiexec(), "-n", str(n), sys.executable, *(str(a) for a in argv)],
        cwd=ROOT,
        env=ENVIRONMENT | LIMIT,
        capture_output=True,
        text=True,
        timeout=70,
    )


def run_case(n: int, case: str, folder: Path) -> None:
    done = mpirun(n, "-m", "tests.ranks", case, folder)
    assert done.returncode == 0, done.stderr


# ---- what is learned -----------------------------------------------------------------------------

LAYOUTS = {  # ranks -> how they are placed, and how many of them share memory then
    2: {"here": 2},
    3: {"here": 3, "2+1": 1},
    4: {"here": 4, "2+2": 2, "1+1+1+1": 1, "no room": 1},
}
PLACED = [(n, layout) for n in LAYOUTS for layout in LAYOUTS[n]]


@pytest.fixture(scope="module")
def trained(mpi, tmp_path_factory):
    """Number of ranks -> the folder with what they have learned; "2 again" is one of the keys."""
    folders = {key: tmp_path_factory.mktemp("ranks") for key in (2, "2 again", 3, 4)}
    for key, folder in folders.items():
        run_case(2 if key == "2 again" else key, "trainings", folder)
    return folders


@pytest.fixture(scope="module")
def alone():
    return {name: ranks.learn(name) for name in ranks.TRAININGS}


def test_the_training_is_the_same_for_any_number_of_ranks(trained, alone):
    compared = set()
    for n, layout in PLACED:
        for path in trained[n].glob(f"{layout}.*.npz"):
            name = path.stem.split(".")[1]
            learned, expected = np.load(path), alone[name]
            assert set(learned) == set(expected)
            for key in expected:
                atol = 1e-6 if key[:2] in ("m.", "v.") else 1e-5
                where = f"{n} ranks, {layout}, {name}: {key}"
                np.testing.assert_allclose(
                    learned[key], expected[key], rtol=0, atol=atol, err_msg=where
                )
            compared.add((n, layout, name))
    assert len(compared) == 5 + 8 + 12  # as ranks.layouts says
    for name in alone:  # and there is something to learn
        assert abs(alone[name]["losses"][0, 0] - alone[name]["losses"][-1, 0]) > 1e-3


def test_the_same_ranks_give_the_same_bits(trained):
    for name in ranks.TRAININGS:
        first, again = (np.load(trained[key] / f"here.{name}.npz") for key in (2, "2 again"))
        for key in first:
            np.testing.assert_array_equal(first[key], again[key], err_msg=f"{name}: {key}")


@pytest.mark.parametrize("n, layout", PLACED)
def test_every_parameter_is_updated_by_one_rank(n, layout, trained):
    model, _, _ = ranks.begin("uneven", ALONE)
    total = model.num_params()
    divided = json.loads((trained[n] / f"{layout}.json").read_text())
    assert len(divided) == n
    assert all(d["together"] == LAYOUTS[n][layout] for d in divided)
    if layout == "2+2":
        assert [d["machine"] for d in divided] == [[0, 2], [1, 2], [0, 2], [1, 2]]
    if layout in ("2+2", "no room"):
        assert divided[0]["buckets"] > 5
    elements = [i for d in divided for piece in d["pieces"] for i in range(*piece)]
    assert sorted(elements) == list(range(total))
    # The optimizer's memory is divided evenly, but for one element of each bucket's two cuts.
    kept = [d["kept"] for d in divided]
    assert sum(kept) == 2 * total
    assert max(kept) - min(kept) <= 2 * 2 * divided[0]["buckets"]


# ---- the team ------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(1, 40))
def test_shares_are_even_and_cover_everything_in_order(n, size):
    parts = []
    for rank in range(size):
        team = Team()
        team.rank, team.size = rank, size
        parts.append(team.share(n))
    assert [i for part in parts for i in part] == list(range(n))
    assert {len(part) for part in parts} <= {n // size, n // size + 1}
    assert all(a.stop == b.start for a, b in itertools.pairwise(parts))  # empty ones too


def test_alone_everything_is_trivial():
    array = np.ones(3)
    assert ALONE.share(5) == range(5) and ALONE.size == ALONE.local_size == 1
    assert ALONE.sum(2.5) == 2.5 and ALONE.sum(array) is array and ALONE.same(array) is array
    assert ALONE.end(7) == 7 and ALONE.wait() is None
    began = time.monotonic()
    ALONE.give_way()
    assert time.monotonic() - began < 0.1


def test_nobody_has_started_this_process(monkeypatch):
    for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert parallel.join() is ALONE
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"tensorlite\[mpi\]"):
        parallel.join()


@pytest.fixture(scope="module")
def exchanged(mpi, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exchanges")
    run_case(4, "exchanges", folder)
    return folder


def test_what_ranks_exchange(exchanged):
    assert (exchanged / "done").exists()


def test_the_sum_of_a_transposed_array(exchanged):
    x = np.arange(6.0).reshape(2, 3).T
    np.testing.assert_array_equal(np.load(exchanged / "transposed.npy"), 4 * x)


def test_the_divided_optimizer(mpi, tmp_path):
    run_case(2, "sharded", tmp_path)
    assert (tmp_path / "done").exists()


# ---- backward(ready=) ----------------------------------------------------------------------------


def received(y, gradient=None) -> dict:
    """Leaf -> the gradient that `ready` was given, in the order of the calls."""
    found = {}

    def ready(leaf, g):
        assert leaf not in found, "a leaf is ready once"
        assert type(g) is np.ndarray and g.shape == leaf.shape and g.dtype == leaf.dtype
        found[leaf] = g.copy()

    y.backward(gradient, ready=ready)
    return found


def leaves(n: int, dtype=np.float32) -> list:
    rng = np.random.default_rng(n)
    return [tl.tensor(rng.standard_normal((3, 3)), dtype, requires_grad=True) for _ in range(n)]


steps = st.tuples(st.sampled_from("+-*@_["), st.integers(0, 99), st.integers(0, 99))


@given(st.lists(steps, min_size=1, max_size=12), st.integers(1, 4))
def test_each_leaf_is_given_once_what_would_be_its_grad(program, n):
    """On random graphs: operands are any two of the leaves and of what was computed so far."""

    def run(xs):
        values = list(xs)
        for name, i, j in program:
            a, b = values[i % len(values)], values[j % len(values)]
            if name == "[":
                values.append(a[[0, 2, 2]])  # its vjp gives a part of the gradient
            elif name == "_":
                values.append(tl.tanh(a) + b.detach())
            else:
                values.append({"+": a + b, "-": a - b, "*": a * b, "@": tl.tanh(a @ b)}[name])
        return tl.tanh(values[-1]).sum()

    xs = leaves(n)
    found = received(run(xs))
    assert all(x.grad is None for x in xs)
    run(xs).backward()
    assert found.keys() == {x for x in xs if x.grad is not None}
    for x, g in found.items():
        np.testing.assert_array_equal(g, x.grad.data)


def test_ready_for_a_leaf_in_unusual_places():
    (x,) = leaves(1)
    np.testing.assert_array_equal(received(x, np.full((3, 3), 2.0))[x], np.full((3, 3), 2))
    x.grad = tl.tensor(np.ones((3, 3)))
    np.testing.assert_array_equal(received((x + x + x).sum())[x], np.full((3, 3), 3))
    np.testing.assert_array_equal(x.grad.data, np.ones((3, 3)))  # not added, not cleared
    z = tl.tensor(3.0, requires_grad=True)
    assert received(z * z + z)[z] == 7
    assert received(z) == {z: 1}
    y = z * z
    y.backward(ready=lambda leaf, g: None)
    with pytest.raises(RuntimeError, match="freed"):
        y.backward(ready=lambda leaf, g: None)


def test_a_leaf_is_ready_before_backward_goes_on_below():
    weights, hidden, events = leaves(4), [tl.tensor(np.ones((3, 3)))], []
    number = {w: k for k, w in enumerate(weights)}
    for w in weights:
        hidden.append(tl.tanh(hidden[-1] @ w))
    nodes = [h.node for h in hidden[1:]]

    def ready(leaf, g):  # a node that was passed has been freed
        events.append((number[leaf], [node.vjps is None for node in nodes]))

    hidden[-1].backward(np.ones((3, 3)), ready=ready)
    assert events == [(k, [i >= k for i in range(4)]) for k in (3, 2, 1, 0)]


@pytest.mark.parametrize("recompute", [False, True])
def test_a_models_gradients_are_ready_block_by_block_from_the_last(recompute):
    model = GPT(GPTConfig(11, 8, 3, 2, 16))
    model.recompute = recompute
    names, x = {p: name for name, p in model.named_parameters()}, np.ones((2, 8), np.int64)
    order = [names[p] for p in received(model.loss(x, x))]
    assert sorted(order) == sorted(names.values())
    places = [re.match(r"h\.\d|\w+", name)[0] for name in order]
    expected = ["ln_f", "h.2", "h.1", "h.0"]
    assert [place for place, _ in itertools.groupby(places)][:4] == expected
    assert {*places[-2:]} == {"wte", "wpe"}  # what the loss and the first block both use


# ---- --recompute ---------------------------------------------------------------------------------


def recomputing(recompute: bool, steps: int, **sizes):
    """(losses, weights, the peak of the last step's memory) of a training by itself."""
    s = Settings(**dict(n_embd=16, n_head=2, block_size=8, batch_size=3, dropout=0.2) | sizes)
    model = GPT(GPTConfig(11, s.block_size, s.n_layer, s.n_head, s.n_embd, s.dropout))
    model.recompute = recompute
    optimizer, tokens = make_optimizer(model, s), np.random.default_rng(0).integers(0, 11, 300)
    task = Pretraining(s, tokens, tokens)
    losses = [train_step(model, optimizer, task, s, step) for step in range(steps - 1)]
    gc.collect()
    tracemalloc.start()
    try:
        losses.append(train_step(model, optimizer, task, s, steps - 1))
        return losses, model.state_dict(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_recomputing_changes_no_bit():
    batch = dict(n_layer=2, gradient_accumulation_steps=2)
    losses, weights, _ = recomputing(True, 10, **batch)
    expected, expected_weights, _ = recomputing(False, 10, **batch)
    assert losses == expected
    for name in weights:
        np.testing.assert_array_equal(weights[name], expected_weights[name], err_msg=name)


def test_recomputing_holds_less_memory():
    sizes = dict(n_layer=6, n_embd=32, block_size=64, batch_size=8)
    less, more = (recomputing(recompute, 2, **sizes)[2] for recompute in (True, False))
    assert less < more / 2


# ---- train.py ------------------------------------------------------------------------------------


def losses_of(out: Path) -> dict[int, list[float]]:
    """Step -> what metrics.jsonl says of it; no step stands there twice."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    found = [(line["step"], key, line[key]) for key in ("val_loss", "train_loss") for line in lines
             if key in line]  # fmt: skip
    assert len({(step, key) for step, key, _ in found}) == len(found)
    return {(step, key): loss for step, key, loss in found}


def assert_same_losses(a: dict, b: dict, atol: float) -> None:
    assert a.keys() == b.keys()
    np.testing.assert_allclose([a[key] for key in b], list(b.values()), rtol=0, atol=atol)


def test_train_with_workers_and_without_by_turns(two_cores, text, tmp_path, capsys):
    out, whole = tmp_path / "out", tmp_path / "whole"
    run = ["--dataset", text, *TINY, "--batch_size=5", "--dropout=0.1", "--log_interval=1"]
    run += ["--lr_decay_iters=30", "--learning_rate=3e-3"]
    ok(train.main, capsys, *run, "--workers=1", "--max_iters=30", "--out_dir", whole)
    expected = losses_of(whole)

    def two_workers(*argv) -> list[str]:
        done = subprocess.run(
            command("train.py", *argv, "--workers=2"),
            env=ENVIRONMENT | LIMIT,
            capture_output=True,
            text=True,
            timeout=70,
        )
        assert done.returncode == 0 and done.stderr == "", done.stderr
        said, _ = done.stdout.split("\na sample of what it writes:\n")
        lines = [line for line in said.splitlines() if line]
        assert len(set(lines)) == len(lines), said
        assert "2 workers, 2 on this machine" in lines
        return lines

    lines = two_workers(*run, "--max_iters=10", "--out_dir", out)
    assert sum("parameters;" in line for line in lines) == 1
    assert [line.split()[1] for line in lines if "  validation loss" in line] == ["0", "10"]
    first = {key: loss for key, loss in expected.items() if key[0] <= 10}
    assert_same_losses(losses_of(out), first, 1e-5)
    assert checkpoint.load_step(out) == checkpoint.load_step(out / "best") == 10
    resume = ["--init_from=resume", "--out_dir", out]
    ok(train.main, capsys, *resume, "--workers=1", "--max_iters=20")
    assert f"resuming {out} at step 20" in two_workers(*resume, "--max_iters=30")
    assert_same_losses(losses_of(out), expected, 1e-4)
    for folder in (out, out / "best"):
        a, b = (GPT.from_pretrained(f).state_dict() for f in (folder, whole))
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=0, atol=1e-4, err_msg=name)
    assert not list(out.rglob("*.tmp"))


def test_a_run_on_two_machines(mpi, text, tmp_path, capsys):
    """Text, evaluation, the best and the optimizer's state pass between them."""
    run = ["--dataset", text, *TINY, "--batch_size=5", "--dropout=0.1", "--log_interval=1"]
    run += ["--learning_rate=2e-3", "--eval_iters=3", "--out_dir"]
    ok(train.main, capsys, *run, tmp_path / "alone", "--workers=1")
    done = mpirun(2, "-m", "tests.ranks", "machines", tmp_path / "two", *run, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    alone, two = (losses_of(tmp_path / name) for name in ("alone", "two"))
    assert_same_losses(two, alone, 1e-5)
    for name in ("model", "best/model", "optimizer-25"):
        a, b = (load_file(tmp_path / f / f"{name}.safetensors") for f in ("alone", "two"))
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_allclose(b[key], a[key], rtol=0, atol=1e-5, err_msg=key)
    final = [
        (tmp_path / f / "metrics.jsonl").read_text().splitlines()[-1] for f in ("alone", "two")
    ]
    a, b = (json.loads(line) for line in final)
    assert b["val_loss_full"] == pytest.approx(a["val_loss_full"], abs=1e-5)
    assert b["bits_per_byte"] == pytest.approx(a["bits_per_byte"], abs=1e-5)


@pytest.mark.parametrize(
    "argv, words",
    [
        ("--dataset=nowhere", "no dataset 'nowhere'"),
        ("--workers=3", "--workers 3 mpiexec 2"),
        ("--no_such_flag=1", "--no_such_flag"),
        ("--n_layer=0", "--n_layer at least 1"),
        ("--learning_rate=1e30 --warmup_iters=0", "loss at step 1; nothing was saved"),
    ],
)
def test_a_fault_of_the_user_is_told_once(argv, words, mpi, text, tmp_path):
    given = ["--dataset", text, *TINY, "--out_dir", tmp_path / "out", *argv.split()]
    done = mpirun(2, ROOT / "train.py", *given)
    assert done.returncode == 2
    assert re.fullmatch(r"train\.py: error: \S.*\n", done.stderr), done.stderr
    assert all(word in done.stderr for word in words.split())


def test_help_is_shown_once(mpi):
    done = mpirun(2, ROOT / "train.py", "--help")
    assert done.returncode == 0 and done.stdout.count("usage:") == 1


# ---- how it ends ---------------------------------------------------------------------------------

ENDLESS = (
    "--n_layer=1 --n_head=2 --n_embd=16 --block_size=16 --batch_size=4 --max_iters=1000000 "
    "--eval_interval=1000000 --eval_iters=1 --save_interval=5 --log_interval=1 --workers=2"
).split()


@contextlib.contextmanager
def endless(text: Path, out: Path):
    """train.py with two workers that has saved a checkpoint; (the launcher, its ranks by number)"""
    process = subprocess.Popen(
        command("train.py", "--dataset", text, "--out_dir", out, *ENDLESS),
        env=ENVIRONMENT | LIMIT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=on_hangup,
    )
    pids = {}
    try:
        wait_until(lambda: (out / "model.safetensors").exists() or process.poll() is not None, 40)
        assert process.poll() is None, process.communicate()
        pids = rank_pids(out)
        assert pids.keys() == {0, 1}
        yield process, pids
    finally:
        left = [pid for pid in (process.pid, *pids.values()) if alive(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def rank_pids(out: Path) -> dict[int, int]:
    """Rank -> the process that trains in this folder as this rank of MPI."""
    pids = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            told = (folder / "cmdline").read_bytes().split(b"\0")
            rank = re.search(rb"(?:^|\0)PMI_RANK=(\d+)\0", (folder / "environ").read_bytes())
            if rank and str(out).encode() in told:
                pids[int(rank[1])] = int(folder.name)
    return pids


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def wait_until(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def goes_on(out: Path, capsys) -> None:
    """The checkpoint is whole, and one process takes it further."""
    step = checkpoint.load_step(out)
    assert step >= 5 and GPT.from_pretrained(out)
    more = [f"--max_iters={step + 3}", "--workers=1", "--skip_final_eval"]
    ok(train.main, capsys, "--out_dir", out, "--init_from=resume", *more)
    assert checkpoint.load_step(out) == step + 3
    assert [s for s, key in losses_of(out) if key == "train_loss"] == [*range(1, step + 4)]


def test_a_killed_rank_ends_all(two_cores, text, tmp_path, capsys):
    out = tmp_path / "out"
    with endless(text, out) as (process, pids):
        os.kill(pids[1], signal.SIGKILL)
        assert process.wait(10) not in (0, None)
        wait_until(lambda: not any(alive(pid) for pid in pids.values()), 10)
    goes_on(out, capsys)


def test_a_killed_launcher_ends_all(two_cores, text, tmp_path, capsys):
    out = tmp_path / "out"
    with endless(text, out) as (process, pids):
        process.kill()
        wait_until(lambda: not any(alive(pid) for pid in pids.values()), 10)
    goes_on(out, capsys)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_launcher_saves_and_stops(number, two_cores, text, tmp_path, capsys):
    out = tmp_path / "out"
    with endless(text, out) as (process, pids):
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=10)
        assert process.returncode == 0, stderr
        assert stdout.count("stopped at step") == 1 and "Traceback" not in stderr
        step = int(
            re.search(r"stopped at step ([\d,]+), saved; go on:", stdout)[1].replace(",", "")
        )
        assert step == checkpoint.load_step(out)
        assert max(step for step, key in losses_of(out) if key == "train_loss") == step
        assert not any(alive(pid) for pid in pids.values())
    goes_on(out, capsys)


def test_a_reader_that_goes_away_saves_and_stops(two_cores, text, tmp_path, capsys):
    out = tmp_path / "out"
    with endless(text, out) as (process, pids):
        process.stdout.close()  # the next line is due within seconds
        assert process.wait(50) == 0 and process.stderr.read() == ""
        step = checkpoint.load_step(out)
        assert max(step for step, key in losses_of(out) if key == "train_loss") == step
        assert not any(alive(pid) for pid in pids.values())
    goes_on(out, capsys)


def test_under_nohup_a_hangup_stops_no_worker(two_cores, text, tmp_path):
    argv = ["--dataset", text, *TINY, "--workers=2", "--max_iters=200", "--out_dir"]
    process = subprocess.Popen(
        command("train.py", *argv, tmp_path / "out"),
        env=ENVIRONMENT | LIMIT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=functools.partial(on_hangup, signal.SIG_IGN),
    )
    wait_until(lambda: (tmp_path / "out" / "model.safetensors").exists(), 40)
    process.send_signal(signal.SIGHUP)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0 and stderr == "" and "stopped" not in stdout
    assert checkpoint.load_step(tmp_path / "out") == 200


def test_a_rank_that_raises_ends_all_with_its_traceback(mpi, tmp_path):
    began = time.monotonic()
    done = mpirun(2, "-m", "tests.ranks", "fails", tmp_path)
    assert done.returncode != 0 and time.monotonic() - began < 10
    assert done.stderr.count("Traceback") == done.stderr.count("ValueError: rank 1 alone") == 1
    assert "in fails" in done.stderr and not (tmp_path / "done").exists()


# ---- how many ------------------------------------------------------------------------------------

LONG = dict(max_iters=10**9)


@pytest.mark.parametrize(
    "given, cores, n, why",
    [
        (LONG, 4, 4, "starting 4 workers on 4 cores"),
        (LONG, 1, 1, "there is one core"),
        (LONG | dict(batch_size=5), 4, 1, "a batch of 5 does not divide among 4 cores"),
        (LONG | dict(batch_size=5, gradient_accumulation_steps=2), 4, 2, "a batch of 10"),
        (LONG | dict(batch_size=12), 8, 6, "6 workers on 8 cores, for a batch of 12"),
        (LONG | dict(batch_size=1), 2, 1, "a batch of 1 does not divide"),
        (LONG | dict(eval_only=True), 4, 1, "would not pay"),
        (dict(max_iters=10), 4, 1, "would not pay"),
        (LONG | dict(workers="1"), 4, 1, "as --workers says"),
        (dict(max_iters=1, batch_size=5, workers="3"), 4, 3, "starting 3 workers"),
    ],
)
def test_how_many_workers(given, cores, n, why, tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "physical_cores", lambda: cores)
    monkeypatch.setattr(parallel, "fault", lambda: None)
    chosen, said = choose_workers(given | {"out_dir": str(tmp_path / "out")}, ALONE)
    assert chosen == n and why in said


def test_a_long_evaluation_is_shared_out_too(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "physical_cores", lambda: 4)
    monkeypatch.setattr(parallel, "fault", lambda: None)
    text = tmp_path / "long.txt"
    with open(text, "wb") as file:
        file.truncate(10**8)  # 10**7 tokens to validate, 12 * 4 * 128**2 multiplications each
    short = dict(dataset=str(text), max_iters=10, out_dir=str(tmp_path / "out"))
    assert choose_workers(short, ALONE)[0] == 4
    assert choose_workers(short | dict(skip_final_eval=True), ALONE)[0] == 1


def test_a_number_of_another_machine_does_not_stop_a_resumed_run(
    text, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--workers=1", "--out_dir", out)
    saved = json.loads((out / "run.json").read_text())
    saved["settings"]["workers"] = "16"
    (out / "run.json").write_text(json.dumps(saved))
    monkeypatch.setattr(parallel, "physical_cores", lambda: 4)
    monkeypatch.setattr(parallel, "fault", lambda: None)
    resume = LONG | dict(out_dir=str(out), init_from="resume")
    assert choose_workers(resume, ALONE)[0] == 4
    with pytest.raises(ValueError, match="--workers 16 is more than the 4 cores"):
        choose_workers(resume | dict(workers="16"), ALONE)


def test_mpiexec_with_one_rank_starts_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "launched", lambda: True)
    given = LONG | dict(out_dir=str(tmp_path / "out"))
    assert choose_workers(given, ALONE)[0] == 1
    with pytest.raises(ValueError, match="--workers 2, but mpiexec has started 1"):
        choose_workers(given | dict(workers="2"), ALONE)


def test_main_called_from_python_trains_in_its_process(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "physical_cores", lambda: 4)
    monkeypatch.setattr(parallel, "fault", lambda: None)
    out = {"out_dir": str(tmp_path / "out")}
    n, why = choose_workers(LONG | out, ALONE, is_script=False)
    assert n == 1 and "called from Python" in why
    assert choose_workers(out | dict(workers="2"), ALONE, is_script=False)[0] == 2


def test_workers_without_mpi(tmp_path, monkeypatch):
    parallel.fault.cache_clear()
    monkeypatch.setattr(parallel, "physical_cores", lambda: 4)
    monkeypatch.setattr(launch, "mpiexec", lambda: None)
    out = {"out_dir": str(tmp_path / "out")}
    n, why = choose_workers(LONG | out, ALONE)
    assert n == 1 and why.startswith("one process: ") and "tensorlite[mpi]" in why
    assert choose_workers(out | dict(workers="1"), ALONE)[0] == 1
    with pytest.raises(ValueError, match=r"--workers 2 .*tensorlite\[mpi\]"):
        choose_workers(out | dict(workers="2"), ALONE)
    with pytest.raises(ValueError, match="--workers 5 is more than the 4 cores"):
        choose_workers(out | dict(workers="5"), ALONE)
    parallel.fault.cache_clear()


def test_mpiexec_that_does_not_work_is_told(tmp_path, monkeypatch):
    pytest.importorskip("mpi4py")
    broken = tmp_path / "mpiexec"
    for script, words in (("echo no host >&2\nexit 1", "no host"), ("exit 1", "no output")):
        parallel.fault.cache_clear()
        broken.write_text(f"#!/bin/sh\n{script}\n")
        broken.chmod(0o755)
        monkeypatch.setattr(launch, "mpiexec", lambda: str(broken))
        assert words in parallel.fault()
    parallel.fault.cache_clear()


def test_a_resumed_run_keeps_its_workers(text, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    ok(train.main, capsys, "--dataset", text, *TINY, "--workers=1", "--out_dir", out)
    monkeypatch.setattr(parallel, "physical_cores", lambda: 4)
    monkeypatch.setattr(parallel, "fault", lambda: None)
    resume = LONG | dict(out_dir=str(out), init_from="resume")
    assert choose_workers(resume | dict(max_iters=25), ALONE) == (1, "")  # it is finished
    assert choose_workers(resume, ALONE) == (1, "one process, as --workers says")
    assert choose_workers(resume | dict(workers="auto"), ALONE)[0] == 4
    team = Team()
    team.size = team.local_size = 2
    assert choose_workers(resume, team)[0] == 2  # mpiexec decides
    with pytest.raises(ValueError, match="--workers 3, but mpiexec has started 2"):
        choose_workers(resume | dict(workers="3"), team)
