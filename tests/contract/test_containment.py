"""The contract of containments, kept by a search of /proc, which works everywhere."""

from collections.abc import Iterator

import pytest

from sergeant_linux.containment.by_search import BySearch
from sergeant_linux.containment.protocol import Containment
from sergeant_linux.containment.search import Stragglers
from tests.contract.containing import POOL, ContainmentContract


class TestBySearch(ContainmentContract):
    @pytest.fixture
    def containment(self) -> Iterator[Containment]:
        found = BySearch(Stragglers(POOL, 'sgt-contract', is_ours=False), known=set)
        yield found
        found.close()
