"""`check_vjp`, which checks a gradient written by hand for any function of arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from .differences import _slopes
from .report import CannotTell, Entry, Estimate, Report, WrongGradient


def check_vjp(value: Callable, vjp: Callable, args: Sequence, **options) -> Report:
    """Raise WrongGradient unless `vjp` gives the gradients of `value` at `args`.

    Takes what `examine_vjp` takes and returns its report. Warns CannotTell where differences are
    too inaccurate to say whether the gradient is right.
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
    y = np.asarray(value(*args))
    rng = np.random.default_rng(seed)
    if g is None:
        g = rng.uniform(0.5, 1.5, y.shape) * rng.choice([-1.0, 1.0], y.shape)
    g = np.asarray(g, y.dtype)
    given = vjp(g.copy(), *args)
    given = given if isinstance(given, (tuple, list)) else (given,)
    entries, counts = [], {}
    weight, y64 = g.astype(np.float64), y.astype(np.float64)
    eps = float(np.finfo(y.dtype).eps)
    for i, x in enumerate(args):
        if given[i] is None or np.asarray(x).dtype.kind != "f":
            continue
        wrong = 0
        for index in np.ndindex(np.shape(x)):

            def at(t, i=i, x=x, index=index):
                moved = np.array(x)
                moved[index] = t
                with np.errstate(all="ignore"):
                    return np.asarray(value(*args[:i], moved, *args[i + 1 :])).astype(np.float64)

            rounding = eps * np.abs(weight * y64)
            low, high, error = _slopes(at, float(x[index]), y64, weight, rounding, eps)
            got = float(np.asarray(given[i])[index])
            slack = atol + rtol * max(abs(got), abs(low), abs(high)) + 3 * error
            if not low - slack <= got <= high + slack:
                wrong += 1
                entries.append(Entry(i, index, got, Estimate(low, high, error)))
        counts[i] = wrong, np.size(x)
    return Report("wrong" if entries else "right", entries, counts=counts)
