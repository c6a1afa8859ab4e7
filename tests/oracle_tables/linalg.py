"""The functions of tensorlite/linalg.py in PyTorch."""

THEIRS = {}
EXCEPTIONS = {}
DIFFERENCES = {}
