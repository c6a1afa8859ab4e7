"""`check_vjp`, which checks a gradient written by hand for any function of arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from ..arraylike import is_float
from .differences import LOW
from .judge import Tolerance, judge
from .probe import Probe, precision
from .report import CannotTell, Report, WrongGradient


def check_vjp(value: Callable, vjp: Callable, args: Sequence, **options) -> Report:
    """Raise WrongGradient unless `vjp` gives the gradients of `value` at `args`.

    Takes what `examine_vjp` takes and returns its report. Raises also if the report has a complaint
    about the conduct of `value` or `vjp`. Warns CannotTell where differences are too inaccurate to
    say whether the gradient is right.

    >>> check_vjp(np.sin, lambda g, x: g * np.cos(x), [np.array([1.0, 2.0])]).verdict
    'right'
    """
    report = examine_vjp(value, vjp, args, **options)
    if report.verdict == "wrong" or report.complaints:
        raise WrongGradient(report)
    if report.verdict == "cannot tell":
        warnings.warn(CannotTell(str(report)), stacklevel=2)
    return report


def examine_vjp(
    value: Callable,
    vjp: Callable,
    args: Sequence,
    *,
    g=None,
    rtol: float = 1e-5,
    atol: float = 1e-14,
    directions: int | None = None,
    reference: Callable | None = None,
    seed: int = 0,
) -> Report:
    """What differences of `value` say about the gradients that `vjp` gives at `args`.

    `value(*args)` gives an array; `vjp(g, *args)` gives for `g`, an array of the value's shape, a
    tuple with one gradient for each argument, or the gradient alone if there is one argument; None
    where there is no gradient.
    """
    args, y, weight = _prepared(value, args, g, seed)
    points = {i: x for i, x in enumerate(args) if is_float(x.dtype)}
    given = vjp(weight.copy(), *(np.array(x) for x in args))
    given = given if isinstance(given, (tuple, list)) else (given,)
    got = {i: np.asarray(given[i]) for i in points if given[i] is not None}
    gradients = {i: g.astype(np.float64) for i, g in got.items()}

    rounding = max(precision(x.dtype) for x in [y, *points.values(), *got.values()])

    def moved_args(moved: dict):
        return [moved.get(i, x) for i, x in enumerate(args)]

    probe = Probe(
        lambda moved: np.asarray(value(*moved_args(moved))).astype(np.float64),
        points,
        weight.astype(np.float64),
        y.astype(np.float64),
        precision(y.dtype),
        lambda moved: value(*moved_args(moved)),
        floor=1.0 if rounding < LOW and atol else 0.0,
    )
    found = judge(probe, gradients, Tolerance(rtol, atol, rounding))
    verdict = "wrong" if found.wrong else "cannot tell" if found.unknown else "right"
    notes = []
    if found.slope is not None:
        notes.append(f"the Taylor remainder has the slope {found.slope:.3g}")
    return Report(
        verdict,
        found.wrong or found.unknown,
        notes=notes,
        counts=found.counts,
        precision=found.precision,
    )


def _prepared(value: Callable, args: Sequence, g, seed: int):
    """The arguments as arrays, the function's value, and the gradient to start from."""
    args = [np.asarray(x) for x in args]
    y = np.asarray(value(*(np.array(x) for x in args)))
    if g is None:
        rng = np.random.default_rng(seed)
        g = rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1.0, 1.0], y.shape)
    return args, y, np.asarray(g).astype(y.dtype)
