"""PyTorch's own table of operations: our values and gradients of its sample inputs are PyTorch's.

tests/op_db/ says its entries with NumPy's functions of tensors and with ours. Here a few samples of
each entry are compared; `python benchmarks/op_db.py` compares all and prints what differs.
"""

import itertools

import pytest

pytest.importorskip("torch", reason="PyTorch has the table of operations")
pytest.importorskip("expecttest", reason="PyTorch's table of operations needs it")

FILES = "elementwise networks products reductions scattered shapes".split()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", FILES)
def test_values_and_gradients_are_pytorchs(file):
    from tests import op_db
    from tests.op_db import compare, names, reasons

    said = getattr(op_db, file).NAMES
    wrong, n = [], 0
    for op in compare.entries():
        name = compare.full_name(op)
        if names.how_to_say(op) is None or not said.keys() & {name, op.name}:
            continue
        known = reasons.DIFFERENCES.get(name, ("",))[0]
        some = list(itertools.islice(compare.samples(op), 40))[::9]
        for i, sample in enumerate(some):
            try:
                found = names.judge(op, sample, 3 if i < 2 else 2)
            except compare.CannotSay:
                continue
            n += 1
            if found and found.what != known:
                wrong.append(f"{name}, sample {9 * i}: {found.what}: {found.words}")
    assert not wrong, "\n".join(wrong)
    assert n > 10


def test_every_entry_is_said_or_has_a_reason():
    from tests.op_db import compare, names, reasons

    table = compare.entries()
    known = {compare.full_name(op) for op in table} | {op.name for op in table}
    missing = " ".join(reasons.MISSING.values()).split()
    assert {*names.NAMES, *missing, *names.COMPARED, *names.PREPARED} <= known
    assert {*reasons.DIFFERENCES, *reasons.ROOM} <= known
    for op in table:
        name = compare.full_name(op)
        assert names.how_to_say(op) or reasons.reason_missing(name), name


def test_a_wrong_gradient_is_found():
    import numpy as np

    import tensorlite as tl
    from tests.op_db import compare

    entry = next(op for op in compare.entries() if op.name == "exp")
    sample = next(iter(compare.samples(entry)))
    for wrong, what in (
        (lambda x: np.exp(x) * 1.001, "value"),
        (lambda x: np.exp(x) + 0.001 * (x - x.detach()), "first gradient"),
        (lambda x: np.exp(x) + 0.001 * (x - x.detach()) ** 2, "second gradient"),
        (lambda x: tl.exp(x, 1), "raises"),
    ):
        assert compare.difference(entry, sample, wrong).what == what
    assert compare.difference(entry, sample, lambda x: np.exp(x)) is None
