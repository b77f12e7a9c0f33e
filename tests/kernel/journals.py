"""A socket where a journal's would be: a real one, which nobody reads but the test."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest


@pytest.fixture
def place() -> Iterator[str]:
    """A path that is short enough for a socket, whatever the folder of the tests is."""
    path = f'/tmp/journal-{os.urandom(8).hex()}'
    yield path
    Path(path).unlink(missing_ok=True)


def listen(place: str) -> socket.socket:
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    journal.bind(place)
    return journal


def read_all(journal: socket.socket) -> list[str]:
    """Return what waits there."""
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(journal.recv(4096).decode())
    return found
