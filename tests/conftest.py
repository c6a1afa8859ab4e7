"""Deterministic in CI; HYPOTHESIS_PROFILE=explore draws new and more examples."""

import os

import pytest
from hypothesis import HealthCheck, settings

from tensorlite import OPS

slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=25, suppress_health_check=slow
)
settings.register_profile(
    "explore", deadline=None, max_examples=500, suppress_health_check=slow, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def no_operation_is_left_behind():
    """An operation that a test declares is not one that the walk must know."""
    before = dict(OPS)
    yield
    for name in OPS.keys() - before.keys():
        del OPS[name]
