"""Arguments for the functions of tensorlite/numpy_ops/order.py."""

from tests.cases.drawing import table

CASES, case = table()
LACKING = {}
