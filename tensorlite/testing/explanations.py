"""Explanations of a wrong gradient that use the arguments, the value and `g`.

Most gradients are sums of products of a few quantities: `g * y`, `y * sum(g * y)`, `g @ b.T`. Each
rule tries all that are short (terms.py), and fits a coefficient. It claims one only if more entries
agree with it than there are coefficients.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from .guess import Gradient, Guess
from .terms import (
    batched_products,
    factors,
    matrix_products,
    monomials,
    quantities,
    summed_to,
    terms,
)

LARGEST = 50_000  # entries of a gradient that is compared with all terms, in about a second


def transposed_product(a: Gradient) -> Guess | None:
    """g @ b where g @ b.T is right, or a product of this kind with a factor that is not known."""
    products = matrix_products(a)
    missing = a.expected - a.got
    for (name, right), (other, wrong) in itertools.permutations(products, 2):
        c = _coefficient(missing, right - wrong, a.slack)
        if c is not None and c > 0 and _near(missing, c * (right - wrong), a.slack):
            if _enough(missing, a.slack, 3):
                return Guess("transpose", f"has {other} where {name} is right")
    # With z = g, for example, and a matrix m that is not known: expected is m.T @ z, got is m @ z.
    # Then z.T @ expected and z.T @ got are each other's transpose. The same from the other side.
    if a.got.ndim < 2:
        return None
    e, got, slack = a.expected, a.got, a.slack
    for name, z in monomials(a, a.got.shape) + quantities(a, a.got.shape):
        zt = np.swapaxes(z, -1, -2)
        for way, left in (("m.T @ z", True), ("z @ m.T", False)):
            p, q, s = (zt @ y if left else y @ zt for y in (e, got, slack))
            s = abs(zt) @ slack if left else slack @ abs(zt)
            s = s + np.swapaxes(s, -1, -2)
            apart = np.abs(p - np.swapaxes(p, -1, -2)) > 10 * s
            if np.count_nonzero(apart) >= 6 and _near(p, np.swapaxes(q, -1, -2), s):
                words = f"has a factor transposed: {way} is right, with z = {name} and a matrix m"
                return Guess("transpose", words)
    return None


def reordered_g(a: Gradient) -> Guess | None:
    """g read in another order than is right, and multiplied by what is right."""
    shape = a.got.shape
    if a.g.size != a.size or not 2 <= len(shape) <= 4 or not _enough(a.expected, a.slack, 4):
        return None
    orders = {}
    for axes in itertools.permutations(range(len(shape))):
        there = a.g.reshape([shape[i] for i in axes]).transpose(np.argsort(axes))
        if not any(np.array_equal(there, other) for other in orders.values()):
            orders[axes] = there
    for (axes, right), (others, wrong) in itertools.permutations(orders.items(), 2):
        slack = a.slack * (np.abs(right) + np.abs(wrong))
        if _near(a.expected * wrong, a.got * right, slack):
            words = f"has g with its axes in the order {others}, where {axes} is right"
            return Guess("transpose", words)
    return None


def broadcast_sum(a: Gradient) -> Guess | None:
    """One slice, or the largest entry, of what should be summed over broadcast axes."""
    products = [p for p in batched_products(a) if p[1].ndim > a.got.ndim]
    for name, full in monomials(a, a.value.shape) * (a.broadcast_size > 1) + products:
        total = summed_to(full, a.got.shape)
        c = None if total is None else _coefficient(a.expected, total, a.slack)
        if c is None or not _near(a.expected, c * total, a.slack):
            continue
        for what, part in _instead_of_sum(full, a.got.shape):
            if a.fits(c * part, 2 * a.slack):
                words = f"is {what} of {name}, where the sum over broadcast axes belongs"
                return Guess("sum over a broadcast axis left out", words)
    return None


def _instead_of_sum(full, shape) -> Iterator[tuple[str, np.ndarray]]:
    """What is written where `summed_to` belongs; sums over some of the axes alone too."""
    extra = full.ndim - len(shape)
    padded = (1,) * extra + tuple(shape)
    axes = [i for i, n in enumerate(full.shape) if padded[i] == 1 and n > 1]
    for others in itertools.combinations(range(full.ndim), len(axes)):
        if list(others) != axes and full.sum(others).size == np.prod(shape):
            yield (
                f"the sum over axis {', '.join(map(str, others))}",
                full.sum(others).reshape(shape),
            )
    sums = [s for n in range(len(axes)) for s in itertools.combinations(axes, n)]
    for summed in sums:
        rest = tuple(i for i in axes if i not in summed)
        some = full.sum(summed, keepdims=True)
        also = f" (summed over axis {', '.join(map(str, summed))})" if summed else ""
        for what, index in (("the first slice", 0), ("the last slice", -1)):
            part = some
            for i in rest:
                part = part.take([index], i)
            yield what + also, part.reshape(shape)
        yield "the mean" + also, some.mean(rest, keepdims=True).reshape(shape)
        yield "the largest" + also, some.max(rest, keepdims=True).reshape(shape)


def repeated_indices(a: Gradient) -> Guess | None:
    """Written to repeated indices, where it must be added: the last one stays."""
    for ids in a.integers:
        for axis in range(a.got.ndim):
            n = a.got.shape[axis]
            if not ids.size or ids.min() < -n or ids.max() >= n:
                continue
            gathered = a.got.shape[:axis] + ids.shape + a.got.shape[axis + 1 :]
            if a.g.shape != gathered:
                continue
            added, written = np.zeros((2, *a.got.shape))
            np.add.at(added, a.along(axis, ids), a.g)
            written[a.along(axis, ids)] = a.g
            c = _coefficient(a.expected, added, a.slack)
            if c is not None and _near(a.expected, c * added, a.slack) and a.fits(c * written):
                words = "has one of the contributions to a repeated index, where their sum belongs"
                return Guess("sum over repeated indices left out", words)
    return None


def factor_left_out(a: Gradient) -> Guess | None:
    """A factor that is an array: got * factor is what was expected, or the other way around."""
    for name, q in factors(a):
        if q.size < 3 or np.ptp(q) <= 1e-3 * np.max(np.abs(q)):
            continue
        for k, times in ((1, ""), (2, "2 * "), (0.5, "1/2 * "), (-1, "-")):
            factor = k * q
            slack = a.slack * (1 + np.abs(factor))
            if not _enough(a.expected, a.slack, 3):
                return None
            if _near(a.expected, factor * a.got, slack) and _varies(a.expected, factor, a.slack):
                return Guess("factor", f"lacks the factor {times}{name}")
            if a.fits(factor * a.expected, slack) and _varies(a.expected, factor, a.slack):
                return Guess("factor", f"has the factor {times}{name}, which does not belong there")
    return None


def factor_in_each_line(a: Gradient) -> Guess | None:
    """A factor that is another number in each line along an axis."""
    for axis in range(a.got.ndim):
        n = a.got.shape[axis]
        if n < 3 or a.size < n + 3 or not _enough(a.expected, a.slack, a.size // n + 3):
            continue
        c = _projected(a.got, [a.expected], axis) / a.expected
        slack = a.slack * np.maximum(1, np.abs(c))
        if a.fits(np.where(a.expected == 0, 0, c * a.expected), slack) and np.nanmin(abs(c)) > 0:
            low, high = np.nanmin(c), np.nanmax(c)
            words = f"between {low:.4g} and {high:.4g}"
            return Guess("factor", f"has a factor {words} that is constant along axis {axis}")
    return None


def one_term(a: Gradient) -> Guess | None:
    """expected - got is a number times one term; or got is one term of the product rule alone."""
    missing = a.expected - a.got
    for name, term in terms(a):
        c = _coefficient(missing, term, a.slack)
        if c is None or not _near(missing, c * term, a.slack):
            continue
        nice = min(abs(abs(c) - k) for k in (0.5, 1, 2)) < 1e-2 or _is_one_over_size(a, c)
        if _enough(missing, a.slack, 2 if nice else 4):
            return Guess("term left out", f"lacks the term {_times(c)}{name}")
    for name, term in terms(a):
        if "/" in name and a.fits(term) and _enough(term, a.slack, 2):
            words = f"is {name} alone: the other term of the product rule is left out"
            return Guess("term left out", words)
    return None


def term_in_each_line(a: Gradient) -> Guess | None:
    """expected - got is constant along an axis, or a constant and a multiple of x or the value."""
    missing = a.expected - a.got
    bases = [(n, x) for n, x in quantities(a, a.got.shape) if np.ptp(x) > 0]
    choices = [("constant", [None])] + [(f"a multiple of {n}", [x]) for n, x in bases]
    choices += [(f"a constant plus a multiple of {n}", [None, x]) for n, x in bases]
    for words, parts in choices:
        for axis in range(a.got.ndim):
            n = a.got.shape[axis]
            lines = a.size // n if n else 0
            if n < len(parts) + 2 or not _enough(missing, a.slack, len(parts) * lines + 2):
                continue
            basis = [np.ones(a.got.shape) if p is None else p for p in parts]
            if _near(missing, _projected(missing, basis, axis), a.slack):
                words = f"lacks a term that is {words} along axis {axis}"
                return Guess("term left out", words)
    return None


def _projected(y, basis: list, axis: int) -> np.ndarray:
    """The least squares fit of the arrays in `basis` to y, in each line along an axis."""
    y = np.moveaxis(y, axis, -1)
    b = np.stack([np.moveaxis(x, axis, -1) for x in basis], -1)  # (..., n, number of arrays)
    b = b / np.maximum(np.linalg.norm(b, axis=-2, keepdims=True), 1e-300)
    if not np.isfinite(b).all():
        return np.full(np.moveaxis(y, -1, axis).shape, np.nan)
    c = np.linalg.pinv(b) @ y[..., None]
    return np.moveaxis((b @ c)[..., 0], -1, axis)


def two_terms(a: Gradient) -> Guess | None:
    """expected - got is a sum of two terms, each with a coefficient."""
    missing = a.expected - a.got
    if not _enough(missing, a.slack, 6):
        return None
    use = np.isfinite(a.slack)
    w = 1 / np.maximum(a.slack[use], 1e-300)
    w = w / w.max()
    tried = [(n, t) for n, t in itertools.islice(terms(a), 100) if np.isfinite(t[use]).all()]
    t, y = np.array([w * t[use] for _, t in tried]), w * missing[use]
    t = t / np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1e-300)
    # What pairs of unit vectors explain of y: with p = t @ y and q = t @ t.T, the projection on
    # vectors i and j has the squared length (p_i^2 + p_j^2 - 2 q_ij p_i p_j) / (1 - q_ij^2).
    p, q = t @ y, t @ t.T
    apart = 1 - q * q
    squared = p[:, None] ** 2 + p**2 - 2 * q * p[:, None] * p
    explained = np.triu(np.where(apart > 1e-6, squared / np.maximum(apart, 1e-6), 0), 1)
    explained = np.round(explained / np.vdot(y, y), 6)  # among equals, the shortest terms
    for best in np.argsort(-explained, axis=None, kind="stable")[:3]:
        i, j = np.unravel_index(best, explained.shape)
        pair = np.stack([w * tried[k][1][use] for k in (i, j)], 1)
        c = np.linalg.lstsq(pair, y, rcond=None)[0]
        if _near(missing, c[0] * tried[i][1] + c[1] * tried[j][1], a.slack):
            first, second = (f"{_times(x)}{tried[k][0]}" for x, k in zip(c, (i, j)))
            return Guess("term left out", f"lacks the terms {first} and {second}")
    return None


def small(rule):
    """The rule for gradients that are not too large to be compared with many terms."""
    return lambda a: rule(a) if a.size <= LARGEST and a.value.size <= LARGEST else None


EXPLANATIONS = tuple(
    small(rule)
    for rule in (
        transposed_product,
        reordered_g,
        broadcast_sum,
        repeated_indices,
        factor_left_out,
        factor_in_each_line,
        one_term,
        term_in_each_line,
        two_terms,
    )
)

# =================================================================================================
# Fitting
# =================================================================================================


def _coefficient(y, term, slack) -> float | None:
    """The number c for which c * term is nearest to y."""
    use = np.isfinite(slack)
    y, term = y[use], term[use]
    if not term.size or not np.isfinite(term).all() or not term.any():
        return None
    w = 1 / np.maximum(slack[use], 1e-300)
    w = w / w.max()
    term = w * term
    size = np.max(np.abs(term))
    c = np.sum(w * y * (term / size)) / np.sum((term / size) ** 2) / size
    return float(c) if np.isfinite(c) and c != 0 else None


def _near(y, guess, slack) -> bool:
    return bool(np.all(np.isinf(slack) | (np.abs(y - guess) <= slack)))


def _enough(y, slack, n: int) -> bool:
    """Whether at least n entries are clearly not 0, so that n - 1 coefficients say something."""
    return np.count_nonzero(np.abs(y) > 5 * slack) >= n


def _varies(expected, factor, slack) -> bool:
    """Whether the factor differs among the entries that are clearly not 0."""
    factor = factor[np.abs(expected) > 5 * slack]
    return factor.size >= 3 and np.ptp(factor) > 1e-2 * np.max(np.abs(factor))


def _is_one_over_size(a: Gradient, c: float) -> bool:
    sizes = {*a.got.shape, *a.value.shape, a.size, a.value.size}
    return any(n and abs(abs(c) * n - 1) < 1e-2 for n in sizes)


def _times(c: float) -> str:
    return {1.0: "", -1.0: "-"}.get(round(c, 3), f"{c:.6g} * ")
