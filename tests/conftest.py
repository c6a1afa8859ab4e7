"""Deterministic in CI; HYPOTHESIS_PROFILE=explore draws new and more examples."""

import os

from hypothesis import HealthCheck, settings

slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=25, suppress_health_check=slow
)
settings.register_profile(
    "explore", deadline=None, max_examples=500, suppress_health_check=slow, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
