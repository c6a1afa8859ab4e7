"""Muon: equal to PyTorch's, exact about what it takes, and a part of a run like AdamW."""

import dataclasses
import random
import shutil
import signal
import time

import numpy as np
import pytest

import tensorlite as tl
import train
from gpt import GPT, GPTConfig
from gpt.training.loop import train_step
from gpt.training.optimizer import learning_rate, make_optimizer, set_learning_rates
from gpt.training.pretrain import Pretraining
from gpt.training.settings import Settings
from tensorlite import parallel
from tensorlite.optim import (
    POLAR_EXPRESS,
    QUINTIC,
    AdamW,
    Muon,
    MuonAdamW,
    muon_cost,
    wsd_schedule,
)
from tensorlite.optim.muon import orthogonalise
from tensorlite.parallel.division import cut_into_buckets, divide, members
from tensorlite.parallel.sharded import BUCKET

from . import strict
from .test_resume import SLOW, assert_same, start, wait_for
from .test_train import TINY, corpus, ok, refused, short_end, text

__all__ = ["short_end", "text"]  # fixtures

SHAPES = [(8, 8), (6, 20), (20, 6), (1, 5), (5, 1)]


def leaves(shapes, seed=0) -> list[tl.Tensor]:
    rng = np.random.default_rng(seed)
    return [tl.tensor(rng.standard_normal(s), np.float32, requires_grad=True) for s in shapes]


def give_gradients(params, seed) -> None:
    for p, g in zip(params, leaves([p.shape for p in params], seed)):
        p.grad = g.detach()


# ---- one step ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, dict(lr=0.3, momentum=0.5, weight_decay=0.2, polynomials=QUINTIC[:3])]
)
def test_equals_pytorchs_step_by_step(options, monkeypatch):
    """PyTorch's weights are (out, in), and its Newton-Schulz is in bfloat16: here in float32."""
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon")
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda x: x.clone())
    ours = leaves(SHAPES)
    theirs = [torch.nn.Parameter(torch.tensor(p.data.T.copy())) for p in ours]
    ours_step = Muon(ours, **options)
    defaults = dict(lr=0.02, momentum=0.95, weight_decay=0.0, polynomials=QUINTIC) | options
    steps = len(defaults.pop("polynomials"))
    theirs_step = torch.optim.Muon(theirs, ns_steps=steps, **defaults)
    for step in range(6):
        give_gradients(ours, step + 1)
        for p, q in zip(theirs, ours):
            p.grad = torch.tensor(q.grad.data.T.copy())
        ours_step.step(), theirs_step.step()
        for p, q in zip(theirs, ours):
            np.testing.assert_allclose(q.data, p.detach().numpy().T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("polynomials", [QUINTIC, POLAR_EXPRESS, QUINTIC[:1]])
@pytest.mark.parametrize("shape", [(16, 16), (12, 23), (12, 40), (40, 12)])
def test_orthogonalise_is_the_polynomials_of_the_singular_values(shape, polynomials):
    m = np.random.default_rng(0).standard_normal(shape)
    u, s, vt = np.linalg.svd(m, full_matrices=False)
    s /= np.linalg.norm(s)
    for a, b, c in polynomials:
        s = a * s + b * s**3 + c * s**5
    ours = orthogonalise(m, polynomials)
    np.testing.assert_allclose(ours, u * s @ vt, rtol=0, atol=1e-12)
    assert orthogonalise(m.astype(np.float32), polynomials).dtype == np.float32
    assert not orthogonalise(np.zeros(shape), polynomials).any()


@pytest.mark.parametrize("polynomials", [QUINTIC, POLAR_EXPRESS])
@pytest.mark.parametrize("shape", [(32, 128), (128, 32)])
def test_a_long_matrix_loses_no_digits(shape, polynomials):
    """Its steps are those of its Gram matrix, which squares the ratio of the singular values."""
    u, _, vt = np.linalg.svd(np.random.default_rng(0).standard_normal(shape), full_matrices=False)
    m = u * np.geomspace(1, 1e-4, 32) @ vt
    error = orthogonalise(m.astype(np.float32), polynomials) - orthogonalise(m, polynomials)
    assert np.abs(error).max() < 1e-4


@pytest.mark.parametrize("polynomials, least", [(QUINTIC, 0.01), (POLAR_EXPRESS, 0.004)])
def test_the_polynomials_end_close_to_one(polynomials, least):
    s = np.linspace(least, 1, 100_001)
    for a, b, c in polynomials:
        s = a * s + b * s**3 + c * s**5
    low, high = (0.68, 1.14) if polynomials is QUINTIC else (0.435, 1.575)
    assert low < s.min() and s.max() < high
    if polynomials is POLAR_EXPRESS:  # the best there are come as far below 1 as above, at `least`
        np.testing.assert_allclose([s[0], s.max()], [2 - s.max(), 2 - s.min()], atol=0.02)


def test_splits_are_matrices_of_their_own():
    (whole,) = leaves([(6, 18)])
    parts = [tl.tensor(a.copy(), requires_grad=True) for a in np.split(whole.data, 3, axis=1)]
    one, three = Muon([whole], splits=3, weight_decay=0.1), Muon(parts, weight_decay=0.1)
    for step in range(3):
        give_gradients([whole], step)
        for p, g in zip(parts, np.split(whole.grad.data, 3, axis=1)):
            p.grad = tl.tensor(g)
        one.step(), three.step()
        expected = np.concatenate([p.data for p in parts], axis=1)
        np.testing.assert_allclose(whole.data, expected, rtol=0, atol=1e-6)
    assert muon_cost((6, 18), 3) == 3 * muon_cost((6, 6))


def test_together_they_update_as_each_alone():
    def step_all(make):
        params = leaves([(6, 12), (7, 3), (5,), (4, 4)])
        optimizers = make(params)
        for step in range(4):
            give_gradients(params, step)
            if step == 2:
                params[3].grad = None
            if len(optimizers) == 1:
                optimizers[0].clip_grad_norm(0.5)
            else:
                tl.optim.clip_grad_norm(params, 0.5)
            for optimizer in optimizers:
                optimizer.step()
        return params, optimizers

    def apart(p):
        return [Muon([p[0], p[3]], weight_decay=0.1), AdamW([p[1], p[2]], lr=0.1)]

    def joint(p):
        groups = [{"params": [p[1]]}, {"params": [p[0], p[3]], "muon": True, "lr": 0.02}]
        groups[1]["weight_decay"] = 0.1
        return [MuonAdamW([*groups, {"params": [p[2]]}], lr=0.1)]

    (expected, _), (params, (optimizer,)) = step_all(apart), step_all(joint)
    for p, q in zip(params, expected):
        np.testing.assert_allclose(p.data, q.data, rtol=0, atol=1e-6)
    state = optimizer.state_dict()
    assert [a.shape for a in state["m"]] == [(7, 3), (6, 12), (4, 4), (5,)]
    assert [a.shape for a in state["v"]] == [(7, 3), (0,), (0,), (5,)]
    assert list(state["updates"]) == [4, 4, 3, 4]
    again = joint(params)[0]
    again.load_state_dict(state)
    copies = [p.data.copy() for p in params]
    give_gradients(params, 9)
    optimizer.step()
    after = [p.data.copy() for p in params]
    for p, copy in zip(params, copies):
        p.data[...] = copy
    again.step()
    for p, expected in zip(params, after):
        np.testing.assert_array_equal(p.data, expected)
    with pytest.raises(ValueError, match="'v' does not fit"):
        again.load_state_dict(state | {"v": state["m"]})


def test_on_a_gpu_or_the_strict_device(monkeypatch):
    if not tl.cuda.is_available():
        strict.install(monkeypatch)

    def steps(device):
        params = [p.to(device).detach() for p in leaves([(6, 12), (12, 6), (5,)])]
        for p in params:
            p.requires_grad = True
        matrices = {"params": params[:2], "muon": True, "splits": 2}
        optimizer = MuonAdamW([matrices, {"params": params[2:]}])
        strict.waits.clear()
        for step in range(3):
            for p, g in zip(params, leaves([p.shape for p in params], step)):
                p.grad = g.detach().to(device)
            optimizer.clip_grad_norm(0.1)
            optimizer.step()
        assert strict.waits == []
        return params

    for p, q in zip(steps("cuda"), steps("cpu")):
        assert p.device == "cuda"
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=0, atol=1e-5)


BAD = {
    "not a matrix": (dict(params_or_groups=leaves([(3,)])), r"parameter 0 has the shape \(3,\)"),
    "momentum below 0": (dict(momentum=-0.1), "momentum is -0.1; it must be"),
    "momentum 1": (dict(momentum=1.0), "below 1"),
    "lr": (dict(lr=-1), "lr is -1"),
    "no polynomials": (dict(polynomials=()), r"polynomials is \(\); it must be a sequence"),
    "one polynomial": (dict(polynomials=QUINTIC[0]), r"it must be a sequence of \(a, b, c\)"),
    "pairs": (dict(polynomials=[(1, 2)]), r"polynomials is \[\(1, 2\)\]"),
    "not finite": (dict(polynomials=[(1, 2, np.nan)]), "its numbers must be finite"),
    "splits": (dict(splits=0), "splits is 0; it must be a count, at least 1"),
    "uneven splits": (dict(splits=3), "parameter 0 has 4 columns, which do not split into 3"),
}


@pytest.mark.parametrize("options, words", BAD.values(), ids=BAD)
def test_what_muon_refuses(options, words):
    params = options.pop("params_or_groups", leaves([(4, 4)])) if options else None
    with pytest.raises(ValueError, match=words):
        Muon(params, **options)
    with pytest.raises(ValueError, match=words):
        MuonAdamW([{"params": params, "muon": True} | options])


# ---- schedules -----------------------------------------------------------------------------------


def test_warm_up_stable_decay():
    rates = [wsd_schedule(s, 4, 10, 20, 1.0, 0.5) for s in range(25)]
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:11] == [1.0] * 7
    np.testing.assert_allclose(rates[10:21], np.linspace(1.0, 0.5, 11))
    assert rates[20:] == [0.5] * 5
    assert [wsd_schedule(s, 0, 0, 4, 1.0) for s in (0, 3, 4)] == [1.0] * 3  # without a decay
    with pytest.raises(ValueError, match="15 steps of warm-up and 10 of decay, in 20 steps"):
        wsd_schedule(0, 15, 10, 20, 1.0)


def test_both_learning_rates_follow_one_schedule():
    s = Settings(optimizer="muon", schedule="wsd", max_iters=20, warmup_iters=4, muon_lr=0.5)
    s.muon_momentum = 0.9
    optimizer = make_optimizer(GPT(GPTConfig(11, 8, 2, 2, 16)), s)
    muon = [group["muon"] for group in optimizer.groups]
    assert muon == [False, False, True, True]
    assert {group["momentum"] for group in optimizer.groups[2:]} == {0.9}
    for step in range(21):
        set_learning_rates(optimizer, s, step)
        rates = [group["lr"] for group in optimizer.groups]
        assert rates[0] == rates[1] == learning_rate(s, step)
        np.testing.assert_allclose(rates[2:], rates[0] * 0.5 / s.learning_rate)
    assert rates == [0.0] * 4  # at the end
    flat = dataclasses.replace(s, decay_lr=False)
    assert {learning_rate(flat, step) for step in range(20)} == {s.learning_rate}


# ---- in a run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_matrices_of_the_blocks_are_for_muon(family):
    from gpt.models import Llama, LlamaConfig

    shape = dict(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16)
    model = GPT(GPTConfig(**shape)) if family == "gpt2" else Llama(LlamaConfig(**shape))
    optimizer = make_optimizer(model, Settings(optimizer="muon"))
    name_of = {p: name for name, p in model.named_parameters()}
    names = {
        name_of[p]: group["splits"]
        for group in optimizer.groups
        for p in group["params"]
        if group["muon"]
    }
    assert len(optimizer.params) == len(model.parameters())
    if family == "gpt2":
        layers = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
        expected = {f"h.{i}.{n}.weight": 3 if n == layers[0] else 1 for i in (0, 1) for n in layers}
        assert names == expected
    else:
        assert len(names) == 14 and set(names.values()) == {1}
        assert all("proj" in name for name in names)


def test_adamw_alone_is_as_before():
    """The default gives AdamW's groups and a cosine, whatever is new beside them."""
    s = Settings(max_iters=20, warmup_iters=4)
    model = GPT(GPTConfig(11, 8, 2, 2, 16))
    optimizer = make_optimizer(model, s)
    assert type(optimizer) is AdamW and len(optimizer.groups) == 2
    assert not any("muon" in group for group in optimizer.groups)


def test_it_learns_faster_than_adamw_here(text):
    tokens = np.frombuffer(text.read_bytes(), np.uint8) % 64
    losses = {}
    for optimizer in ("adamw", "muon"):
        s = Settings(optimizer=optimizer, max_iters=40, warmup_iters=4, block_size=16)
        model = GPT(GPTConfig(64, 16, 2, 2, 32))
        steps = make_optimizer(model, s)
        task = Pretraining(s, tokens, tokens)
        losses[optimizer] = [train_step(model, steps, task, s, i)[0] for i in range(40)][-1]
    assert losses["muon"] < losses["adamw"] - 0.04


WITH_MUON = ["--optimizer=muon", "--schedule=wsd", "--min_lr=1e-4"]


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments(workers, tmp_path):
    if workers > 1:
        pytest.importorskip("mpi4py")
        if parallel.mpiexec() is None or parallel.physical_cores() < workers:
            pytest.skip("there are no two workers")
    (tmp_path / "corpus.txt").write_text(corpus(), encoding="utf-8")
    argv = ["--dataset=corpus.txt", *SLOW, *WITH_MUON, f"--workers={workers}", "--max_iters=40"]
    argv += ["--model=modern", "--parts=rotary,qk_norm,ngrams=2"]  # whose table Adagrad updates
    whole, out, rng = tmp_path / "whole", tmp_path / "out", random.Random(1)
    process = start(whole, *argv)
    _, err = process.communicate()
    assert process.returncode == 0 and err == ""
    for lines in (10, 27)[: 3 - workers]:
        process = start(out, *argv)
        wait_for(process, out, lines + rng.randrange(8))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL  # it was not done
        argv = ["--init_from=resume"]
        wait_until_free(out)
    process = start(out, *argv)
    stdout, err = process.communicate()
    assert process.returncode == 0 and err == ""
    assert f"resuming {out} at step" in stdout
    assert_same(out, whole)


def wait_until_free(out) -> None:
    """Until no worker that outlived its launcher holds the folder."""
    from gpt.training.folder import only_process

    for _ in range(500):
        try:
            with only_process(out):
                return
        except ValueError:
            time.sleep(0.02)
    raise AssertionError(f"{out} is still held")


REFUSED = {
    "optimizer": (["--optimizer=sgd"], "--optimizer is adamw or muon, not 'sgd'"),
    "schedule": (["--schedule=line"], "--schedule is cosine or wsd, not 'line'"),
    "fraction": (["--schedule=wsd", "--decay_fraction=1.5"], "--decay_fraction is 0 to 1, not 1.5"),
    "learning rate": (["--optimizer=muon", "--muon_lr=0"], "--muon_lr is above 0, not 0.0"),
    "momentum": (["--muon_momentum=-0.5"], "--muon_momentum is at least 0 and below 1, not -0.5"),
    "longer than the run": (
        ["--schedule=wsd", "--max_iters=20", "--warmup_iters=9"],
        "9 steps of warm-up (--warmup_iters) and 12 of decay (--decay_fraction 0.6) are more than "
        "the 20 steps of the run: give less of one",
    ),
    "ends after the run": (
        ["--schedule=wsd", "--max_iters=20", "--lr_decay_iters=30"],
        "ends the decay after the run, which has 20 steps: give --lr_decay_iters 20",
    ),
}


@pytest.mark.parametrize("argv, words", REFUSED.values(), ids=REFUSED)
def test_what_a_run_refuses(argv, words, text, tmp_path, capsys):
    run = ["--dataset", text, *TINY, "--out_dir", tmp_path / "out"]
    assert words in refused(train.main, capsys, *run, *argv)


def test_a_resumed_run_keeps_its_optimizer(text, tmp_path, capsys):
    out, moved = tmp_path / "out", tmp_path / "moved"
    run = ["--dataset", text, *TINY, "--max_iters=4", "--warmup_iters=1", "--out_dir", out]
    ok(train.main, capsys, *run, *WITH_MUON)
    words = "has --optimizer muon, which cannot be adamw now: leave --optimizer out, or begin"
    resume = ["--init_from=resume", "--max_iters=6"]
    assert words in refused(train.main, capsys, *resume, "--out_dir", out, "--optimizer=adamw")
    shutil.copytree(out, moved)
    settings = (moved / "run.json").read_text().replace('"optimizer": "muon"', '"beta1": 0.9')
    (moved / "run.json").write_text(settings)  # as one that an earlier version wrote
    error = refused(train.main, capsys, *resume, "--out_dir", moved)
    assert "the optimizer's 'v' does not fit the parameters" in error
    ok(train.main, capsys, *resume, "--out_dir", out, "--optimizer=muon")


def test_without_a_matrix_that_trains():
    model = GPT(GPTConfig(11, 8, 2, 2, 16))
    for p in model.blocks.parameters():
        p.requires_grad = False
    with pytest.raises(ValueError, match="none of them trains here: give --optimizer adamw"):
        make_optimizer(model, Settings(optimizer="muon"))


# ---- divided among ranks -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2**20, 100_000, 10_000])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_whole_matrices_are_divided_by_cost(ranks, size):
    """The division alone: the shapes of a small GPT-2, in buckets of much and of little."""
    model = GPT(GPTConfig(65, 256, 12, 6, 96), seed=None)
    params = model.parameters()
    ends = np.cumsum([p.size for p in params]).tolist()
    ranges = [range(end - p.size, end) for p, end in zip(params, ends)]
    matrices = {*model.blocks.parameters()}
    uncut = {i: muon_cost(p.shape) for i, p in enumerate(params) if p in matrices and p.ndim == 2}
    buckets = cut_into_buckets(ranges, uncut, size)
    assert sum(map(len, buckets)) == ends[-1] and buckets[-1].start == 0
    loads, owner = np.zeros(ranks), {}
    for bucket, after in zip(buckets, [range(ends[-1], 0), *buckets]):
        assert bucket.stop == after.start and len(bucket) >= min(size, bucket.stop)
        shares = divide(bucket, ranges, uncut, loads)
        assert sum(map(len, shares)) == len(bucket)
        for rank, share in enumerate(shares):
            for i, piece in members(share, ranges):
                owner.setdefault(i, set()).add(rank)
                assert i not in uncut or piece == ranges[i]  # nobody has a part of a matrix
    assert all(len(owner[i]) == 1 for i in uncut) and len(owner) == len(params)
    costs = [sum(cost for i, cost in uncut.items() if owner[i] == {r}) for r in range(ranks)]
    assert max(costs) < 1.2 * sum(costs) / ranks


@pytest.mark.parametrize("layers, width, ids", [(4, 128, 65), (6, 384, 65), (12, 768, 50304)])
def test_two_workers_have_about_half_of_the_work_each(layers, width, ids):
    """The models of benchmarks/muon.py, in buckets of the size that a run has."""
    block = [((width, n * width), n if n == 3 else 1) for n in (3, 1, 4)] + [
        ((4 * width, width), 1)
    ]
    shapes = [((ids, width), 1), *block * layers]
    ends = np.cumsum([n * m for (n, m), _ in shapes]).tolist()
    ranges = [range(end - n * m, end) for ((n, m), _), end in zip(shapes, ends)]
    uncut = {i: muon_cost(*matrix, steps=3) for i, matrix in enumerate(shapes) if i}
    loads = np.zeros(2)
    costs = np.zeros(2)
    for bucket in cut_into_buckets(ranges, uncut, BUCKET):
        for rank, share in enumerate(divide(bucket, ranges, uncut, loads)):
            costs[rank] += sum(uncut.get(i, 0) for i, _ in members(share, ranges))
    assert costs.sum() == sum(uncut.values()) and costs.max() < 0.55 * costs.sum()


def test_without_whole_parameters_numbers_are_divided_evenly():
    ranges = [range(0, 50), range(50, 57), range(57, 100)]
    assert cut_into_buckets(ranges, {}, 40) == [range(60, 100), range(20, 60), range(0, 20)]
    loads = np.zeros(3)
    assert divide(range(20, 60), ranges, {}, loads) == [range(20, 33), range(33, 46), range(46, 60)]
    assert not loads.any()
