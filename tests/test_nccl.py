"""Gradients added up by NCCL. There is one process and no card: the communicator is a stand-in."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

import tensorlite as tl
from tensorlite.optim import AdamW
from tensorlite.parallel import Replicated, has_nccl
from tests import strict, strict_memory

RANKS = 3
ID = b"\x07\xff\x00"


class Communicator:
    """As if every rank had the same gradients: a sum of all is a multiple of this one's."""

    def __init__(self, size, name, rank):
        assert (size, name, rank) == (RANKS, ID, 1)  # CuPy takes nothing but bytes

    def allReduce(self, source, target, count, dtype, operation, stream):
        assert (dtype, operation) == ("float32", "sum") and source == target
        strict_memory.memory(source, 4 * count).view(np.float32)[...] *= RANKS


@pytest.fixture(autouse=True)
def cupy(monkeypatch):
    strict.install(monkeypatch)
    import cupy

    nccl = SimpleNamespace(
        available=True,
        get_unique_id=lambda: ID,
        groupStart=lambda: None,
        groupEnd=lambda: None,
        NcclCommunicator=Communicator,
        NCCL_FLOAT32="float32",
        NCCL_SUM="sum",
    )
    monkeypatch.setattr(cupy.cuda, "nccl", nccl, raising=False)
    monkeypatch.setitem(__import__("sys").modules, "cupy.cuda", cupy.cuda)


def test_the_sum_of_all_ranks_is_clipped_and_updates():
    team = SimpleNamespace(size=RANKS, rank=1, same=lambda name: json.loads(json.dumps(ID.hex())))
    assert has_nccl()
    found = []
    for factor, make in ((1, lambda p: Replicated(p, team, lr=0.1)), (RANKS, AdamW)):
        params = [tl.tensor(np.ones(n, np.float32), device="cuda") for n in ((4, 3), (5,))]
        for p in params:
            p.requires_grad = True
        optimizer = make(params) if factor == 1 else make(params, lr=0.1)
        for _ in range(3):
            ((params[0] * params[0]).sum() * factor).backward()
            optimizer.clip_grad_norm(0.5)
            if params[1].grad is None:  # one that this rank has no gradient of
                params[1].grad = tl.tensor(np.zeros(5, np.float32), device="cuda")
            optimizer.step()
            optimizer.zero_grad()
        found.append([p.numpy() for p in params])
    for a, b in zip(*found):
        np.testing.assert_allclose(a, b, rtol=1e-6)
