"""The functions of tensorlite/numpy_ops/reductions.py in PyTorch."""

THEIRS = {}
EXCEPTIONS = {}
DIFFERENCES = {}
