"""What the tables of cases have in common."""

from hypothesis import strategies as st

from tensorlite.testing import shapes


def table():
    """An empty table of cases, and the decorator that adds a case under one or more names.

    A case is a function of hypothesis's `draw` that returns (arrays, static arguments).
    """
    cases = {}

    def case(*names):
        def register(function):
            for name in names:
                cases[name] = st.composite(function)()
            return function

        return register

    return cases, case


def shape_with(draw, **limits):
    return draw(shapes(**{"min_dims": 1, "max_side": 3} | limits))


def draw_axis(draw, ndim):
    """None, an axis from either end, or a tuple of axes."""
    axes = st.integers(-ndim, ndim - 1) if ndim else st.none()
    several = st.sets(st.integers(0, ndim - 1), min_size=1).map(tuple) if ndim else st.none()
    return draw(st.one_of(st.none(), axes, several))
