"""Hypothesis draws the same examples in every run, as many as take seconds; with FUZZ=long others, and many."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Fixtures that all examples share, and files that they write, are meant to be so.
_CHECKS = [HealthCheck.too_slow, HealthCheck.differing_executors]
settings.register_profile(
    "bounded", max_examples=100, derandomize=True, deadline=None, database=None, suppress_health_check=_CHECKS
)
settings.register_profile("long", max_examples=5000, deadline=None, database=None, suppress_health_check=_CHECKS)
settings.load_profile(os.environ.get("FUZZ", "bounded"))
