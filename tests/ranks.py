"""What the ranks do in test_parallel.py: `mpiexec -n N python -m tests.ranks CASE FOLDER ...`.

Every case writes what came out to FOLDER; the tests compare it there with one process alone.
"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np

import tensorlite as tl
import train
from gpt import GPTConfig, ModernConfig, models
from gpt.models import read_parts
from gpt.training import run as runs
from gpt.training.loop import train_step
from gpt.training.optimizer import make_optimizer
from gpt.training.presets import parse
from gpt.training.pretrain import Pretraining
from gpt.training.settings import Settings
from tensorlite import parallel
from tensorlite.optim import AdamW
from tensorlite.parallel import ALONE, MPITeam, Sharded
from tensorlite.parallel import sharded as sharded_module
from tensorlite.parallel import team as team_module
from tensorlite.tensor import Tensor

STEPS = 20
TRAININGS = {  # name -> the batch: none divides among 2, 3 and 4 ranks
    "uneven": dict(batch_size=7),
    "accumulated": dict(batch_size=5, gradient_accumulation_steps=3),
    "single": dict(batch_size=1),  # fewer rows than ranks
    "muon": dict(batch_size=7, optimizer="muon"),  # matrices that only one rank can update
    "ngrams": dict(batch_size=7, optimizer="muon", model="modern", parts="rotary,ngrams=2"),
}


def begin(name: str, team):
    """(model, optimizer, settings) at step 0; rank 0 alone has the right weights."""
    s = Settings(
        block_size=8, dropout=0.2, learning_rate=2e-3, max_iters=STEPS, warmup_iters=5,
        grad_clip=0.5, **TRAININGS[name]
    )  # fmt: skip
    config = GPTConfig(11, 8, 2, 2, 16, dropout=0.2)
    if s.model == "modern":
        config = ModernConfig(11, 8, 2, 2, 16, dropout=0.2, **read_parts(s.parts))
    model = models.make(config, seed=1 + team.rank)
    return model, make_optimizer(model, s, team), s


def advance(model, optimizer, s: Settings, team, steps) -> np.ndarray:
    """The losses and norms of these steps: (steps, 2)."""
    tokens = np.random.default_rng(0).integers(0, 11, 300)
    task = Pretraining(s, tokens, tokens)
    return np.array([train_step(model, optimizer, task, s, step, team) for step in steps])


def outcome(model, optimizer) -> dict[str, np.ndarray]:
    """All that was learned, by name: copies of the weights and of the optimizer's state."""
    names = {p: name for name, p in model.named_parameters()}
    state = optimizer.state_dict()
    kept = {name: array.copy() for name, array in model.state_dict().items()}
    for slot in optimizer.slots:
        kept |= {f"{slot}.{names[p]}": a.copy() for p, a in zip(optimizer.params, state[slot])}
    kept |= {f"updates.{names[p]}": n for p, n in zip(optimizer.params, state["updates"])}
    return kept | {"steps": np.array(state["steps"])}


def learn(name: str, team=ALONE) -> dict[str, np.ndarray]:
    """What comes out of a training: equal for all teams, but for rounding."""
    model, optimizer, s = begin(name, team)
    losses = advance(model, optimizer, s, team, range(STEPS))
    if team.size > 1:
        optimizer.gather()
        assert all(p.grad is None for p in model.parameters())
    kept = outcome(model, optimizer) | {"losses": losses}
    if team.size > 1:  # each rank has all of it
        bits = team.world.allgather(b"".join(kept[name].tobytes() for name in sorted(kept)))
        assert len(set(bits)) == 1, "the ranks have learned different things"
    return kept


def layouts(world):
    """(name, team, the batches to train on) of the ways in which the ranks may be placed."""
    yield "here", parallel.join(), TRAININGS
    if world.size == 3:
        team = MPITeam(world, machine=world.Split(world.rank // 2))
        yield "2+1", team, ["uneven", "muon", "ngrams"]
    if world.size == 4:
        with changed(BUCKET=200):
            team = MPITeam(world, machine=world.Split(world.rank // 2))
            yield "2+2", team, ["uneven", "single", "muon"]
        with changed(BUCKET=1000):
            yield "1+1+1+1", MPITeam(world, machine=world.Split(world.rank)), ["uneven", "muon"]
        room = 0 if world.rank == 1 else 2**40  # one lacks it, none can use it
        with changed(shared_memory_room=lambda: room, BUCKET=200):
            yield "no room", parallel.join(), ["uneven", "single"]


@contextlib.contextmanager
def changed(**names):
    """In the block, these names of tensorlite.parallel have other values."""
    module_of = {"BUCKET": sharded_module, "shared_memory_room": team_module}
    before = {name: getattr(module_of[name], name) for name in names}
    try:
        for name, value in names.items():
            setattr(module_of[name], name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module_of[name], name, value)


# ---- cases ---------------------------------------------------------------------------------------


def trainings(folder: Path) -> None:
    """layout.training.npz: what was learned; layout.json: how the work was divided."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    for layout, team, names in layouts(world):
        for name in names:
            learned = learn(name, team)
            if team.rank == 0:
                np.savez(folder / f"{layout}.{name}.npz", **learned)
        _, optimizer, _ = begin("uneven", team)
        for slot, arrays in optimizer.own.state.items():  # no memory beside the shared one
            assert all(np.shares_memory(a, optimizer.state[slot]) for a in arrays if a.size)
        division = {
            "machine": [team.local_rank, team.local_size],
            "together": optimizer.local.size,
            "buckets": len(optimizer.buckets),
            "pieces": [[piece.start, piece.stop] for _, piece, _ in optimizer.tensors],
            "kept": sum(a.size for arrays in optimizer.own.state.values() for a in arrays),
        }
        divisions = world.gather(division)
        if team.rank == 0:
            (folder / f"{layout}.json").write_text(json.dumps(divisions))


def exchanges(folder: Path) -> None:
    """`sum` and `same` on 2 machines of 2 ranks and on one of 4: raises where they are wrong."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    two = MPITeam(world, machine=world.Split(world.rank // 2))
    for team in (parallel.join(), two):
        n, rank = team.size, team.rank
        assert team.sum(rank) == n * (n - 1) / 2 and isinstance(team.sum(1), float)
        assert team.sum(rank == 1) == 1
        assert team.sum(np.float32(0.5)) == n / 2
        for shape in [(3,), (2, 3), (1,), (0,), (2, 0)]:
            x = np.arange(np.prod(shape, dtype=int), dtype=np.float64).reshape(shape)
            total = team.sum(x + rank)
            assert total.shape == shape and total.dtype == np.float64
            np.testing.assert_array_equal(total, n * x + n * (n - 1) / 2)
        transposed = team.sum(np.arange(6.0).reshape(2, 3).T)
        if rank == 0:
            np.save(folder / "transposed.npy", transposed)
        for value in (None, True, 3, 0.1, float("inf"), "naïve", [], [1, [2]], {"a": None}):
            given = value if rank == 0 else [rank]
            assert team.same(given) == value
        for dtype in "? u1 i1 >u2 i4 i8 f2 f4 f8".split():
            for shape in [(), (5,), (2, 3), (0,), (4, 0, 2), (3, 1)]:
                x = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
                y = team.same(x if rank == 0 else None)
                assert (y.shape, y.dtype) == (shape, dtype)
                np.testing.assert_array_equal(y, x)
        x = np.arange(6).reshape(2, 3).T  # not in one piece
        np.testing.assert_array_equal(team.same(x if rank == 0 else None), x)
        # Once a machine: what one rank writes, the others of the machine see, and nobody else.
        y = team.same(np.zeros(1))
        if team.rank == 0:
            y[0] = 5
        team.wait()
        assert y[0] == (5 if rank < team.local_size else 0)
        team.wait()
    (folder / "done").touch()


def sharded(folder: Path) -> None:
    """The optimizer's interface: raises where it is wrong."""
    team = parallel.join()
    # Saved in the middle and loaded into another, it goes on to the same bits.
    whole = learn("uneven", team)
    model, optimizer, s = begin("uneven", team)
    advance(model, optimizer, s, team, range(8))
    optimizer.gather()
    weights = {name: array.copy() for name, array in model.state_dict().items()}
    state = optimizer.state_dict()
    assert state.keys() == {"steps", "updates", "m", "v"}
    assert state["steps"] == optimizer.steps == 8 and set(state["updates"]) == {8}
    state = {k: v if k == "steps" else [a.copy() for a in v] for k, v in state.items()}
    model, optimizer, s = begin("uneven", team)
    if team.local_rank == 0:
        model.load_state_dict(weights)
    optimizer.load_state_dict(state)
    assert optimizer.steps == 8
    advance(model, optimizer, s, team, range(8, STEPS))
    optimizer.gather()
    again = outcome(model, optimizer)
    for name, array in again.items():
        np.testing.assert_array_equal(array, whole[name], err_msg=name)

    bad = [state["m"][0].T, *state["m"][1:]]
    for change in ({"m": bad}, {"v": bad}, {"m": state["m"][:-1]}, {"v": []}):
        with raises(ValueError, "does not fit"):
            optimizer.load_state_dict(state | change | {"steps": 5})
    with raises(ValueError, "'v' does not fit"):
        optimizer.load_state_dict({"steps": 5, "m": state["m"]})
    team.wait()
    assert optimizer.steps == STEPS
    for name, array in outcome(model, optimizer).items():
        np.testing.assert_array_equal(array, again[name], err_msg=name)

    wide = [Tensor(np.zeros(3), True), Tensor(np.zeros(3, np.float32), True)]
    with raises(ValueError, "float32"):
        Sharded(wide, AdamW, team)

    # What a loss does not use, on any rank, stays as it is in that step, and its updates are
    # counted apart; what one rank alone uses is changed on all. A state of before, which counts no
    # updates, is that of parameters that every step has changed.
    def leaves():
        return [tl.tensor(np.arange(1.0, n), np.float32, requires_grad=True) for n in (4, 9)]

    def divided(params):
        return Sharded(params, lambda pieces: AdamW([piece for _, piece in pieces], lr=0.1), team)

    def follow(alone, together, uses):
        """One step for each entry: is the second parameter used, and by the last rank only?"""
        (a, b), plain, (c, d), ours = *alone, *together
        for used, by_last in uses:
            whole = (a * a).sum() + (b * b).sum() if used else (a * a).sum()
            whole.backward()
            loss = (c * c).sum() * (1 / team.size)
            if used and not by_last:
                loss = loss + (d * d).sum() * (1 / team.size)
            if used and by_last and team.rank == team.size - 1:
                loss = loss + (d * d).sum()
            ours.backward(loss)
            expected, norm = plain.clip_grad_norm(1.0), ours.clip_grad_norm(1.0)
            np.testing.assert_allclose(norm, expected, rtol=1e-6)
            plain.step(), ours.step()
            plain.zero_grad(), ours.zero_grad()
            np.testing.assert_allclose(c.data, a.data, rtol=1e-6)
            np.testing.assert_allclose(d.data, b.data, rtol=1e-6)

    for uses in ([(1, 0), (0, 0), (1, 0)], [(0, 0)] * 5 + [(1, 1), (1, 0), (0, 1), (1, 1)]):
        (a, b), (c, d) = leaves(), leaves()
        plain, ours = AdamW([a, b], lr=0.1), divided([c, d])
        follow(((a, b), plain), ((c, d), ours), uses)
        counts = [len(uses), sum(used for used, _ in uses)]
        assert list(ours.state_dict()["updates"]) == list(plain.state_dict()["updates"]) == counts
        ours.gather()
        kept = {
            k: v if k == "steps" else [x.copy() for x in v] for k, v in plain.state_dict().items()
        }
        for old in (False, True):
            state = {k: v for k, v in kept.items() if k != "updates" or not old}
            pair = leaves()
            for p, q in zip(pair, (a, b)):
                p.data[...] = q.data
            again, twin = divided(pair), [tl.tensor(p.data, requires_grad=True) for p in (a, b)]
            again.load_state_dict(state)
            other = AdamW(twin, lr=0.1)
            other.load_state_dict(state)
            assert list(again.updates) == ([len(uses)] * 2 if old else counts)
            follow((twin, other), (pair, again), [(1, 0), (1, 1)])

    # A loss that is kept alive: nothing changes, on no rank. Without clipping a step sums too.
    (c, d), (a, b) = leaves(), leaves()
    ours, plain = divided([c, d]), AdamW([a, b], lr=0.1)
    kept = (d * d).sum()
    ours.backward(((c * c).sum() + (d * d).sum()) * (1 / team.size))
    with raises(ValueError, "parameters cannot be changed: 'mul'"):
        ours.step()
    np.testing.assert_array_equal(np.r_[c.data, d.data], np.r_[a.data, b.data])
    assert ours.steps == 0
    team.wait()
    del kept
    ours.step()
    ((a * a).sum() + (b * b).sum()).backward()
    plain.step()
    np.testing.assert_allclose(np.r_[c.data, d.data], np.r_[a.data, b.data], rtol=1e-6)
    with raises(ValueError, "parameter 0 and parameter 2"):
        divided([c, d, c])

    model, optimizer, s = begin("uneven", team)
    advance(model, optimizer, s, team, range(3))
    before = outcome(model, optimizer)
    model.train()
    losses = model.loss
    model.loss = lambda *args: losses(*args) * (np.nan if team.rank == 1 else 1)
    with raises(FloatingPointError, "nan"):
        advance(model, optimizer, s, team, [3])
    model.loss = losses
    for name, array in outcome(model, optimizer).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    advance(model, optimizer, s, team, range(3, STEPS))  # and the next step is as it would be
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, whole[name], err_msg=name)
    team.wait()
    (folder / "done").touch()


def machines(out: Path, *argv: str) -> None:
    """train.py's run, each rank as a machine of its own."""
    from mpi4py import MPI

    team = MPITeam(MPI.COMM_WORLD, machine=MPI.COMM_WORLD.Split(parallel.join().rank))
    assert (team.size, team.local_size) == (2, 1)
    runs.plot_losses = train.generate = lambda *args, **settings: ""
    assert train.pretrain(parse(argv)[0], team) == 0


@contextlib.contextmanager
def raises(kind, words: str):
    try:
        yield
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"no {kind.__name__}")


def fails(folder: Path) -> None:
    """One rank raises while the others wait for it."""
    team = parallel.join()
    if team.rank == 1:
        raise ValueError("rank 1 alone")
    team.sum(1)
    (folder / "done").touch()


if __name__ == "__main__":
    case, folder, *more = sys.argv[1:]
    cases = {f.__name__: f for f in (trainings, exchanges, sharded, machines, fails)}
    cases[case](Path(folder), *more)
