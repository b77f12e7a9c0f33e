"""The contract of memory watches, kept by the one that reads the counters of leaves."""

from collections.abc import Iterator

import pytest

from sergeant_linux.containment.leaves import Leaf, Leaves, Limits
from sergeant_linux.core.policy import Policy
from sergeant_linux.engine.memory import CgroupWatch, MemoryWatch
from sergeant_linux.host.delegation import Home, Title
from sergeant_linux.kernel.cgroup import Cgroup as KernelsCgroup
from tests.contract.watching import LIFE, Bench, MemoryWatchContract
from tests.lab.conftest import Cgroup


class CgroupBench(Bench):
    def __init__(self, leaf: Leaf) -> None:
        super().__init__(f'{leaf.cgroup.path}/cgroup.procs')
        self._leaf = leaf

    def watch(self, policy: Policy) -> MemoryWatch:
        return CgroupWatch(lambda: policy)

    def begin(self, watch: MemoryWatch, now: float) -> None:
        watch.watch(LIFE, self.subject.pid, self._leaf, now)

    def end(self) -> None:
        super().end()
        self._leaf.close_directory()


class TestCgroupWatch(MemoryWatchContract):
    @pytest.fixture
    def bench(self, home: Cgroup) -> Iterator[Bench]:
        owner = Home(KernelsCgroup(str(home.path), str(home.path)), Title.NAMED)
        warned: list[str] = []
        limits = Limits({}, {}, frozenset({'memory'}), {})
        leaves = Leaves(owner, limits, name='watched', warn=lambda message, event, **fields: warned.append(message))
        bench = CgroupBench(leaves.leaf(LIFE))
        yield bench
        bench.end()
        leaves.close()
        assert warned == []
