"""Libraries for what is not the point here: imported when a step needs them."""

from __future__ import annotations

import importlib
from types import ModuleType


def library(name: str, purpose: str) -> ModuleType:
    """The module `name`. Raises ImportError, with the command that installs it, if it is missing.

    >>> library("json", "an example").__name__
    'json'
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise ImportError(
            f"{purpose} needs {error.name}, which is missing: pip install 'tensorlite[data]'"
        ) from None
