"""The contract of memory watches, kept by those that poll; the one on cgroups keeps it in tests/lab."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sergeant_linux.core.policy import Policy
from sergeant_linux.engine.memory import FoundOut, MemoryWatch, MeterWatch, RssWatch
from sergeant_linux.helpers.helper import Household
from sergeant_linux.helpers.staff import Meter
from sergeant_linux.kernel.children import Children
from sergeant_linux.kernel.poller import Handler, Poller
from tests.contract.watching import DEADLINE, LIFE, Bench, MemoryWatchContract


class RssBench(Bench):
    def watch(self, policy: Policy) -> MemoryWatch:
        return RssWatch(lambda: policy)

    def begin(self, watch: MemoryWatch, now: float) -> None:
        watch.watch(LIFE, self.subject.pid, None, now)


class MeterBench(RssBench):
    """On the real meter."""

    def __init__(self) -> None:
        super().__init__()
        self.poller: Poller[Handler] = Poller()
        self.meter = Meter(
            Household(self.poller, Children(self.poller), lambda *_, **__: None, os.environ, lambda: 1.0)
        )
        self.found: list[FoundOut] = []

    def watch(self, policy: Policy) -> MemoryWatch:
        watch = MeterWatch(lambda: replace(policy, memory_measure='pss'), self.meter, self.found.extend)
        self.meter.elapse(time.monotonic())
        self._turn_until_at_work()
        return watch

    def _turn_until_at_work(self) -> None:
        while self.meter.process is not None and not self.meter.at_work:
            self._turn()

    def _turn(self) -> None:
        ready = list(self.poller.wait(DEADLINE / 1000))
        assert ready, 'the meter does not answer'
        for handler, events in ready:
            handler(events)

    def look(self, watch: MemoryWatch, now: float) -> list[FoundOut]:
        self.found.clear()
        super().look(watch, now)
        while watch.next_deadline() is None:
            self._turn()
        return list(self.found)

    def end(self) -> None:
        self.meter.close()
        self.poller.close()
        super().end()


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
