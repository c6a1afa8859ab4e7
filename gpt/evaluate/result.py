"""What a measurement gives: figures with the items behind them, and how it was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .estimate import Sample


@dataclass
class Result:
    """The figures of one model on one set of items.

    figures   name -> the samples whose mean it is (one, except in a suite), the main figure first
    settings  how it was measured: what another measurement must share to compare with this one
    items     what was found for each item, as JSON values
    left_out  the numbers of the items, from 1, that could not be measured
    notes     what a reader should know about these figures, a sentence each
    """

    figures: dict[str, list[Sample]]
    settings: dict[str, Any] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
