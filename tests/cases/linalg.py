"""Arguments for the functions of tensorlite/linalg.py."""

from tests.cases.drawing import table

CASES, case = table()
LACKING = {}
