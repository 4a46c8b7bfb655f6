"""How the tests are run: hypothesis profiles, and what is left out where a tool or a data set is missing."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, max_examples=100, deadline=None)
settings.register_profile("dev", max_examples=30, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# a shell starts its background jobs with interrupts ignored, and so would be everything that the tests start
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("lava") and os.environ.get("SNNCOMPILE_NO_LAVA"):
        pytest.skip("SNNCOMPILE_NO_LAVA is set: there is no Python 3.10 for Lava")
    if item.get_closest_marker("data") and not os.environ.get("SNNCOMPILE_DATA"):
        pytest.skip("SNNCOMPILE_DATA names no folder of data sets")
