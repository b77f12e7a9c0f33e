"""The contract of containments, kept by leaves, and by leaves and a search together."""

from collections.abc import Iterator

import pytest

from sergeant_linux.containment.by_cgroup import ByCgroup
from sergeant_linux.containment.by_search import BySearch
from sergeant_linux.containment.leaves import Leaves, Limits
from sergeant_linux.containment.protocol import Containment, Together
from sergeant_linux.containment.search import Stragglers
from sergeant_linux.host.delegation import Home, Title
from sergeant_linux.kernel.cgroup import Cgroup as KernelsCgroup
from tests.contract.containing import POOL, ContainmentContract
from tests.lab.conftest import Cgroup


@pytest.fixture
def by_cgroup(home: Cgroup) -> Iterator[ByCgroup]:
    owner = Home(KernelsCgroup(str(home.path), str(home.path)), Title.NAMED)
    warned: list[str] = []
    limits = Limits({}, {}, frozenset({'memory'}), {})
    found = ByCgroup(Leaves(owner, limits, name=POOL, warn=lambda message, event, **fields: warned.append(message)))
    yield found
    found.close()
    assert warned == []
    assert not home.below() - {home.path / 'supervisor'}


class TestByCgroup(ContainmentContract):
    @pytest.fixture
    def containment(self, by_cgroup: ByCgroup) -> Containment:
        return by_cgroup


class TestTogether(ContainmentContract):
    @pytest.fixture
    def containment(self, by_cgroup: ByCgroup) -> Containment:
        return Together(by_cgroup, BySearch(Stragglers(POOL, 'sgt-contract', is_ours=False), known=set))
