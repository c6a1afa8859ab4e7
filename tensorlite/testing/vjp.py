"""`check_vjp`, which checks a gradient written by hand for any function of arrays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from ..arraylike import is_float
from .comparing import copies
from .conduct import complaints, malformed, wider
from .differences import LOW
from .directions import chance_of_missing, judge_along
from .judge import Findings, Tolerance, judge
from .mistakes import likely_mistake
from .probe import Probe, precision, start
from .reference import judge_by_reference
from .report import CannotTell, Report, WrongGradient
from .subject import check_listed, gradients_of, not_one

MANY = 500  # entries; more are judged along random directions
DIRECTIONS = 8


def check_vjp(value: Callable, vjp: Callable, args: Sequence, **options) -> Report:
    """Raise WrongGradient unless `vjp` gives the gradients of `value` at `args`.

    Takes what `examine_vjp` takes and returns its report. Raises also if the report has a complaint
    about the conduct of `value` or `vjp`. Warns CannotTell where differences are too inaccurate to
    say whether the gradient is right.

    >>> print(check_vjp(np.sin, lambda g, x: g * np.cos(x), [np.array([1.0, 2.0])]))
    The gradient is right, to a relative precision of 1e-05.
    All 2 entries of argument 0 are right.
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
    atol: float | None = None,
    directions: int | None = None,
    reference: Callable | None = None,
    seed: int = 0,
) -> Report:
    """What differences of `value` say about the gradients that `vjp` gives at `args`.

    `value(*args)` gives an array of floating-point numbers. `vjp(g, *args)` gives, for an array `g`
    of the value's shape and dtype, a tuple with one gradient for each argument, or the gradient
    alone if there is one argument; None stands for zeros. Arguments that are not of floating point
    are passed on, and need no gradient. Arguments are given in their own dtype, so a function that
    exists in float32, float16 or bfloat16 only is judged as it is. `g` is drawn with the seed if it
    is not given.

    There is no tolerance to guess. Differences with many step sizes give an estimate of each
    derivative and its error (differences.py, fits.py), and a gradient is wrong if it is further
    away than three times this error, plus `rtol` times its size, plus `atol`: by default 1e-14, and
    less for a function whose values are below 0.01. In narrower dtypes than float64 the rounding of
    the gradient itself is allowed for too, and in doubt an entry is wrong only if the Taylor
    remainder says so as well. Where the error of the estimate is more than a tenth of the gradient,
    the verdict is "cannot tell". Where the function has a kink, every number between the slopes on
    both sides is right.

    With more than 500 entries the derivatives along `directions` random directions, 8 by default,
    are compared instead of every entry; 0 stands for every entry. `reference` is the exact function
    of one mpmath number for each argument, if the function is elementwise: it is then compared with
    instead of differences, and errors are counted in units in the last place.

    Raises TypeError for complex arguments or values and for those that are not numbers, and where
    the value is not one array. Raises ValueError if there is nothing to check, if `g` is not finite
    or has another shape than the value, and for negative tolerances.
    """
    _check_options(rtol=rtol, atol=atol, directions=directions)
    check_listed(args)
    args = [np.asarray(x) for x in args]
    points = {i: x for i, x in enumerate(args) if _is_checked(x, f"argument {i}")}
    if not points:
        raise ValueError("no argument is of floating point, such as 2.0: there is no gradient")
    y = value(*copies(args))
    if not hasattr(y, "dtype") and not isinstance(y, (int, float, complex)):
        raise not_one("array", y)
    y = np.asarray(y)
    if not _is_checked(y, "the value"):
        raise TypeError(f"the value is of dtype {y.dtype}, so it has no gradient; return floats")
    g = _start(g, y, seed)
    given = gradients_of(vjp(g.copy(), *copies(args)))
    if wrong := list(malformed(given, args)):
        return Report("wrong", notes=wrong)
    conduct = complaints(value, vjp, args, g)
    if y.size and not np.isfinite(y.astype(np.float64)).any():
        return Report("cannot tell", complaints=conduct, notes=_not_finite(y))
    got = {i: np.zeros(x.shape, x.dtype) if given[i] is None else np.asarray(given[i])
           for i, x in points.items()}  # fmt: skip
    rounding = max(precision(x.dtype) for x in [y, *points.values(), *got.values()])
    scale = min(1.0, 100 * np.max(np.abs(y), initial=0.0, where=np.isfinite(y))) or 1.0
    tolerance = Tolerance(rtol, 1e-14 * float(scale) if atol is None else atol, rounding)
    floor = float(scale) if rounding < LOW and atol != 0 else 0.0
    probe = _probe(value, args, points, y, g, floor)
    if not np.allclose(probe.call({}), probe.y, rtol=64 * rounding, atol=0, equal_nan=True):
        words = "The function gives other values when it is called again with the same arguments."
        return Report("cannot tell", complaints=conduct or [words])

    gradients = {i: x.astype(np.float64) for i, x in got.items() if x.shape == args[i].shape}
    misshapen = [i for i in got if i not in gradients]
    size = sum(x.size for x in points.values())
    k = directions if directions is not None else DIRECTIONS if size > MANY else 0
    notes = wider(args, y, got) + [
        f"The gradient for argument {i} has the shape {got[i].shape}, its argument {args[i].shape}."
        for i in misshapen
    ]
    if reference is not None and not misshapen:
        found, more = judge_by_reference(reference, args, y, g, got, tolerance)
        notes += more
    elif k:
        found = judge_along(probe, gradients, tolerance, k, seed)
        notes += _directions_in_words(found, k)
    else:  # a gradient of another shape is wrong; what is expected is wanted all the same
        nothing = {i: np.full(args[i].shape, np.nan) for i in misshapen}
        found = judge(probe, gradients | nothing, tolerance)
        found.wrong = [entry for entry in found.wrong if entry.argument not in misshapen]
    mistake = None
    if (found.wrong or misshapen) and found.expected:
        here = range(len(args))
        mistake = likely_mistake(
            [None if x is None or i not in points else np.asarray(x).astype(np.float64)
             for i, x in enumerate(given)],
            [found.expected.get(i) for i in here],
            [found.error.get(i) for i in here],
            g=g, args=args, value=y,
        )  # fmt: skip
    verdict = "wrong" if found.wrong or misshapen else "cannot tell" if found.unknown else "right"
    if verdict != "right":
        notes += _not_finite(y)
    return Report(
        verdict, found.wrong or found.unknown, conduct, mistake, notes + _in_words(found),
        found.counts, found.precision,
    )  # fmt: skip


def _probe(value: Callable, args: list, points: dict, y, g, floor: float) -> Probe:
    def call(moved: dict):
        return value(*(moved.get(i, np.array(x)) for i, x in enumerate(args)))

    def in_float64(moved: dict) -> np.ndarray:
        return np.asarray(call(moved)).astype(np.float64)

    weight = g.astype(np.float64)
    return Probe(in_float64, points, weight, y.astype(np.float64), precision(y.dtype), call, floor)


def _check_options(**options) -> None:
    for name, x in options.items():
        if x is not None and not x >= 0:
            raise ValueError(f"{name} is at least 0, not {x}")


def _is_checked(x: np.ndarray, name: str) -> bool:
    """Whether an array has a gradient. Raises TypeError if it is not of real numbers."""
    if x.dtype.kind == "c":
        raise TypeError(
            f"{name} is of dtype {x.dtype}: gradients of real functions of real numbers are "
            "checked; give the real and the imaginary part as two arrays"
        )
    if x.dtype.kind not in "biuf" and not is_float(x.dtype):
        raise TypeError(f"{name} is of dtype {x.dtype}; arrays of numbers are checked")
    return is_float(x.dtype)


def _start(g, y: np.ndarray, seed: int) -> np.ndarray:
    """The gradient of the value: `g`, or drawn numbers."""
    g = start(y.shape, seed) if g is None else np.asarray(g)
    if g.shape != y.shape:
        raise ValueError(f"g has the shape {g.shape}; the value has {y.shape}, and g must have too")
    if not np.isfinite(g.astype(np.float64)).all():
        raise ValueError("g has entries that are infinite or NaN; give finite numbers")
    return g.astype(y.dtype)


def _not_finite(y: np.ndarray) -> list[str]:
    """A note on values that are NaN or infinite, which is why nothing can be told."""
    bad = np.argwhere(~np.isfinite(y.astype(np.float64)))
    if not len(bad):
        return []
    if y.size == 1:
        return ["The value is not finite."]
    entries = f"{len(bad)} of the {y.size} entries of the value {'is' if len(bad) == 1 else 'are'}"
    return [f"{entries} not finite, the first of them {tuple(map(int, bad[0]))}."]


def _in_words(found: Findings) -> list[str]:
    notes = []
    if found.n_kinks:
        one = found.n_kinks == 1
        notes.append(
            f"{'One entry is' if one else f'{found.n_kinks} entries are'} at a kink, where every "
            "number between the slopes on both sides is right."
        )
    if n := found.n_skipped:
        notes.append(
            f"{n} {'entry was' if n == 1 else 'entries were'} not judged, because the argument is "
            "not finite there."
        )
    if found.slope is not None:
        notes.append(
            f"The Taylor remainder at the worst entry is of order {found.slope:.2f} in the step; "
            "it would be of order 2 for the right gradient, and is of order 1 for a wrong one."
        )
    return notes


def _directions_in_words(found: Findings, k: int) -> list[str]:
    if found.wrong and found.wrong[0].argument is None:
        return ["It was found along a random direction; no single entry stands out."]
    if found.counts:  # entries that are not finite, which need no direction
        return []
    if found.wrong:
        return ["It was found along a random direction, and then by bisection."]
    words = f"It was compared along {k} random direction{'s' * (k > 1)}, not entry by entry."
    if found.unknown:
        return [words]
    chance = chance_of_missing(found.precision, k, 0.01)
    return [
        f"{words} A gradient that is wrong by a hundredth of its length would have been missed "
        f"with a probability of {chance:.0e}."
    ]
