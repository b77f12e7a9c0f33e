"""The stand-in for a pool that most tests speak to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.recorded import STATUS
from tests.cli.stand_in import StandIn, stand_in


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[StandIn]:
    """A pool that tells `STATUS`, and what else a test teaches it."""
    with stand_in(tmp_path, status=STATUS) as pool:
        yield pool
