"""Containers for the tests, of the image that lies ready in the lab's podman (vagrant/image.py)."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.containers.container import Container
from tests.systemd import lab


class Start(Protocol):
    def __call__(self, *options: str, worker: str, flags: tuple[str, ...] = ()) -> Container: ...


@pytest.fixture(autouse=True)
def machine() -> None:
    """The lab, with podman."""
    lab.require('podman', 'crun')


@pytest.fixture
def start(machine: None, tmp_path: Path) -> Iterator[Start]:
    """A function that starts a pool as the first process of a container; it is removed at the end."""
    with ExitStack() as stack:

        def start(*options: str, worker: str, flags: tuple[str, ...] = ()) -> Container:
            container = Container(tmp_path, options, worker, flags)
            stack.callback(container.remove)
            return container

        yield start
