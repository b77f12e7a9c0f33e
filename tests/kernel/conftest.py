"""Fixtures for the tests of the kernel layer: see processes.py."""

import os
from collections.abc import Callable, Iterator

import pytest

from tests.kernel.processes import Event, Fork, forking


@pytest.fixture
def fork() -> Iterator[Fork]:
    """A function that forks a child, which runs the function it is given."""
    with forking() as fork:
        yield fork


@pytest.fixture
def event() -> Iterator[Callable[[], Event]]:
    """A function that makes an `Event`."""
    made: list[Event] = []

    def make() -> Event:
        made.append(Event())
        return made[-1]

    yield make
    for one in made:
        os.close(one.fd)
