"""The core opens and starts nothing (import-linter holds that), so its many small tests need no guard that looks over all of /proc."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def leak_guard() -> Iterator[str]:
    """Stand in for the guard of tests/conftest.py, which takes longer than most tests here."""
    yield 'the core leaves nothing behind'
