"""The functions of tensorlite/numpy_ops/elementwise.py in PyTorch."""

THEIRS = {}
EXCEPTIONS = {}
DIFFERENCES = {}
