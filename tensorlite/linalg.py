"""Linear algebra: the differentiable functions of np.linalg."""

from __future__ import annotations

__all__: list[str] = []
