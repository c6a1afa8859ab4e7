"""The functions of tensorlite/numpy_ops/products.py in PyTorch."""

THEIRS = {}
EXCEPTIONS = {}
DIFFERENCES = {}
