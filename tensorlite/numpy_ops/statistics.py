"""Statistics of samples, differences and integrals along an axis."""

from __future__ import annotations

__all__: list[str] = []
