"""The functions of tensorlite/numpy_ops/statistics.py in PyTorch."""

THEIRS = {}
EXCEPTIONS = {}
DIFFERENCES = {}
