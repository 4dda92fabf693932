"""Of all tests of stores: what they opened is closed."""

import sys

import pytest


@pytest.fixture(autouse=True)
def closed():
    yield
    if "redis_helpers" in sys.modules:  # not every test needs Redis
        sys.modules["redis_helpers"].close_opened()
