"""Fixtures for the tests of the control socket: see server.py."""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.control.server import Server, Wire, serve
from tests.kernel.processes import Fork, forking


@pytest.fixture
def fork() -> Iterator[Fork]:
    """A function that forks a child, which runs the function it is given."""
    with forking() as fork:
        yield fork


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path that other users can enter."""
    with tempfile.TemporaryDirectory(prefix='control-') as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture
def start(fork: Fork, folder: Path) -> Iterator[Callable[..., Server]]:
    """A function that starts the server. Its socket is open to all, so that it is the peer that is looked at."""
    wires: list[Wire] = []

    def start(group: int | None = None) -> Server:
        path = folder / 'pool.sock'
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(128)
            os.chmod(path, 0o666)
            return Server(path, fork(lambda: serve(listener, group)), wires)

    yield start
    for wire in wires:
        wire.close()


@pytest.fixture
def server(start: Callable[..., Server]) -> Server:
    """The server, and nobody else who may ask."""
    return start()
