"""Arguments for the functions of tensorlite/numpy_ops/products.py."""

from hypothesis import strategies as st

from tensorlite.testing import arrays
from tests.cases.drawing import table

CASES, case = table()
LACKING = {}


@case("einsum")
def einsum(draw):
    """Operands with letters drawn at random: repeated in one, in several, summed, kept."""
    sizes = {c: draw(st.integers(0, 3)) for c in "abcd"}
    letters = st.lists(st.sampled_from("abcd"), max_size=3).map("".join)
    inputs = draw(st.lists(letters, min_size=1, max_size=3))
    known = sorted(set("".join(inputs)))
    output = "".join(draw(st.permutations(known)))[: draw(st.integers(0, len(known)))]
    parts = [draw(arrays(tuple(sizes[c] for c in names))) for names in inputs]
    return [parts], {"subscripts": ",".join(inputs) + "->" + output}
