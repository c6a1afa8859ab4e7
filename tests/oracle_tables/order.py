"""The functions of tensorlite/numpy_ops/order.py in PyTorch."""

THEIRS = {}
EXCEPTIONS = {}
DIFFERENCES = {}
