"""The contract of memory watches, kept by those that poll; the one on cgroups keeps it in tests/lab."""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sergeant_linux.core.policy import Policy
from sergeant_linux.engine.memory import MemoryWatch, MeterWatch, RssWatch
from tests.contract.watching import LIFE, Bench, MemoryWatchContract


class RssBench(Bench):
    def watch(self, policy: Policy) -> MemoryWatch:
        return RssWatch(policy)

    def begin(self, watch: MemoryWatch, now: float) -> None:
        watch.watch(LIFE, self.subject.pid, None, now)


class MeterBench(RssBench):
    """On the real meter."""

    def watch(self, policy: Policy) -> MemoryWatch:
        watch = MeterWatch(replace(policy, memory_measure='pss'), os.environ)
        watch.start()
        return watch


class TestRssWatch(MemoryWatchContract):
    @pytest.fixture
    def bench(self) -> Iterator[Bench]:
        bench = RssBench()
        yield bench
        bench.end()


class TestMeterWatch(MemoryWatchContract):
    @pytest.fixture
    def bench(self) -> Iterator[Bench]:
        bench = MeterBench()
        yield bench
        bench.end()
