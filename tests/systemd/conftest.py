"""Fixtures for what runs under systemd."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.systemd import lab
from tests.systemd.unit import Unit


@pytest.fixture(autouse=True)
def machine() -> None:
    """The lab: systemd is process 1, and has started what there is to start."""
    lab.require('systemctl', 'systemd-run', 'journalctl')
    assert Path('/proc/1/comm').read_text() == 'systemd\n'


@pytest.fixture
def install(machine: None) -> Iterator[Callable[[str, str], Unit]]:
    """A function that installs the text of a unit under a name; all is stopped and put away at the end."""
    with ExitStack() as stack:

        def install(name: str, text: str) -> Unit:
            unit = Unit(name)
            stack.callback(unit.remove)
            unit.install(text)
            return unit

        yield install
