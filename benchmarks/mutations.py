"""Do the tests find wrong gradients? Puts bugs into the vjps of every operation, one at a time.

    python benchmarks/mutations.py [OPERATION ...]

There are two kinds of bugs. The first changes what a vjp returns: negated, set to zero, or scaled
by 1.01. The second changes the source of a vjp: one term of a sum or difference is dropped, or one
`+=` or `-=` is left out. Tests of tests/test_ops.py run on each mutant: the comparison with central
differences, the comparison of fused and composed definitions, and the tests of ties, of several
blocks, and of large scores and logits. A mutant survives if these tests do not find its bug.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import inspect
import sys
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings

sys.path.insert(0, str(Path(__file__).parents[1]))

import tensorlite as tl
from tensorlite.testing.suite import check_first_order, check_same
from tests.cases import function_of
from tests.op_cases import CASES
from tests.test_checker import BUGS, inputs_with_a_gradient, with_bug
from tests.test_ops import (
    test_logits_of_every_size,
    test_many_rows_go_in_several_blocks,
    test_scores_of_every_size,
    test_ties_share_the_gradient,
)


def found(op, body) -> bool:
    """Whether the tests notice that the operation's body was replaced by `body`."""

    @settings(
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        deadline=None,
        max_examples=100,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(CASES[op.name])
    def walk(arguments):
        check_first_order(function_of(op.name), arguments)
        if op.composed is not None:  # finds a change of value and gradient that are consistent
            check_same(op, op.composed, arguments)

    original, op.body = op.body, body
    try:
        with np.errstate(all="ignore"):
            walk()
            test_ties_share_the_gradient()
            test_many_rows_go_in_several_blocks()
            test_scores_of_every_size(300.0)
            test_logits_of_every_size(1e5)
    except Exception:
        return True
    finally:
        op.body = original
    return False


# =================================================================================================
# Mutants of the source
# =================================================================================================


class Sums(ast.NodeVisitor):
    """Finds where a term is added or subtracted in vjps (nested functions and lambdas)."""

    def __init__(self):
        self.depth, self.places = 0, []

    def visit(self, node):
        inside = isinstance(node, (ast.FunctionDef, ast.Lambda))
        self.depth += inside
        if self.depth >= 2 and isinstance(getattr(node, "op", None), (ast.Add, ast.Sub)):
            self.places += [(node, "left"), (node, "right")]
            if isinstance(node, ast.AugAssign):
                self.places.pop()
        super().generic_visit(node)
        self.depth -= inside


def source_mutants(op):
    """Yield (description, body) for every term that can be dropped from an operation's vjps."""
    path = inspect.getsourcefile(inspect.unwrap(op.body))
    tree = ast.parse(Path(path).read_text())
    names = [f.name for f in tree.body if isinstance(f, ast.FunctionDef)]
    function = names.index(op.body.__name__)
    functions = [i for i, f in enumerate(tree.body) if isinstance(f, ast.FunctionDef)]
    place = functions[function]
    n = len(places_of(tree.body[place]))
    for k in range(n):
        mutant = copy.deepcopy(tree)
        node, side = places_of(mutant.body[place])[k]
        line = ast.unparse(node)
        if isinstance(node, ast.AugAssign):
            node.value = ast.Constant(0)
        else:
            kept = node.right if side == "left" else node.left
            negative = side == "left" and isinstance(node.op, ast.Sub)
            node.left = ast.Constant(0)
            node.op, node.right = (ast.Sub() if negative else ast.Add()), kept
        yield f"{line}: {side} dropped", load(mutant, op)


def places_of(function):
    sums = Sums()
    sums.visit(function)
    return sums.places


def load(tree, op):
    """The body of an operation from a mutated copy of its module; restores the registry."""
    registry = dict(tl.OPS)
    package = op.body.__module__.rpartition(".")[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "mutant.py")
        path.write_text(ast.unparse(ast.fix_missing_locations(tree)))
        spec = importlib.util.spec_from_file_location(f"{package}.mutant", path)
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            return tl.OPS[op.name].body
        finally:
            tl.OPS.clear()
            tl.OPS.update(registry)


def main(names: list[str]) -> None:
    total, survivors = 0, []
    for name, i in inputs_with_a_gradient():
        if names and name not in names:
            continue
        op = tl.OPS[name]
        for bug, change in BUGS.items():
            total += 1
            if not found(op, with_bug(op.body, i, change)):
                survivors.append(f"{name}, input {i}: {bug}")
    for name in sorted(names or tl.OPS):
        for description, body in source_mutants(tl.OPS[name]):
            total += 1
            if not found(tl.OPS[name], body):
                survivors.append(f"{name}: {description}")
    print(f"{total - len(survivors)} of {total} bugs found, {len(survivors)} survive")
    for survivor in survivors:
        print("  ", survivor)


if __name__ == "__main__":
    main(sys.argv[1:])
