"""Fixtures of the tests of raw requests."""

import pytest
from _raw import driven


@pytest.fixture(params=["alone", "loop"])
def driver(request, nothing_left):
    """A Driver: of a ring that is used alone, and of that of a loop."""
    with driven(request.param) as driver:
        yield driver
