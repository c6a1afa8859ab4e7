"""Sorting, and what depends on the order of elements: medians and quantiles."""

from __future__ import annotations

__all__: list[str] = []
