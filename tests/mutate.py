"""A plugin for pytest, `-p tests.mutate`: the kernels of the run have one planted error.

The environment variable KERNEL_MUTATION has it, as a list in JSON: the text that is replaced, and
the text in its place. Hypothesis does not look for the smallest example.
"""

import functools
import json
import os

from hypothesis import HealthCheck, Phase, settings

from tensorlite.kernels import launch
from tests import emulator

settings.register_profile(
    "mutation",
    derandomize=True,
    deadline=None,
    max_examples=10,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
os.environ["HYPOTHESIS_PROFILE"] = "mutation"  # which tests/conftest.py loads
emulator.most_seconds = 5

OLD, NEW = json.loads(os.environ["KERNEL_MUTATION"])
original = launch.source


@functools.cache
def source(file: str) -> str:
    return original(file).replace(OLD, NEW)


launch.source = source
