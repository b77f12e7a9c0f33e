"""The stand-in for a pool that most tests speak to."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.verbs.recorded import STATUS
from tests.verbs.stand_in import DEADLINE, Play, StandIn, stand_in


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[StandIn]:
    """A pool that tells `STATUS`, and what else a test teaches it."""
    with stand_in(tmp_path, status=STATUS) as pool:
        yield pool


@pytest.fixture
def never(pool: StandIn) -> Iterator[Play]:
    """A play that gives no answer as long as the test runs."""
    over = threading.Event()

    def play(args: object, tell: object) -> None:
        over.wait(DEADLINE)

    yield play
    over.set()
