"""The functions of tensorlite/numpy_ops/shapes.py in PyTorch."""

THEIRS = {}
EXCEPTIONS = {}
DIFFERENCES = {}
