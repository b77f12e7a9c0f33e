"""What the loop relies on in a memory watch, whatever it reads: the same tests for each, on a real process.

Decision: `MemoryWatchContract` holds the tests, a subclass brings the `bench` they run on. Time is what the tests say
it is: they wait for the process and the meter, and for nothing else.
"""

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from typing import Any, Final

from sergeant_linux.core.events import MemoryHigh
from sergeant_linux.core.memory import MARK_MIN_LIFE, MARK_SAMPLES
from sergeant_linux.core.policy import Policy
from sergeant_linux.engine.memory import FoundOut, MemoryWatch

DEADLINE: Final = 60_000
"""Milliseconds that the process or the meter may take to answer."""

LIFE: Final = 7
MARK: Final = 48 << 20
MORE: Final = 64 << 20
"""What the subject takes when it grows."""

SUBJECT: Final = f"""
import mmap, os, sys
if sys.argv[1:]:
    with open(sys.argv[1], 'w') as procs:
        procs.write('0')
kept = []
print('here', flush=True)
while sys.stdin.readline():
    kept.append(mmap.mmap(-1, {MORE}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE))
    print('grown', flush=True)
"""


class Bench(ABC):
    """A process to be watched, and what watches it."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, '-I', '-S', '-c', SUBJECT, *arguments]
        self.subject = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._hear('here')

    @abstractmethod
    def watch(self, policy: Policy) -> MemoryWatch:
        """Return a watch that works."""

    @abstractmethod
    def begin(self, watch: MemoryWatch, now: float) -> None:
        """Have the watch begin with the subject, as `LIFE`."""

    def look(self, watch: MemoryWatch, now: float) -> list[FoundOut]:
        """Return what a look finds out."""
        return watch.elapse(now)

    def grow(self) -> None:
        """Have the subject take `MORE`."""
        assert self.subject.stdin is not None
        self.subject.stdin.write('\n')
        self.subject.stdin.flush()
        self._hear('grown')

    def end(self) -> None:
        """End the subject, so that nothing of it can be read any more. Again does no harm."""
        self.subject.kill()
        self.subject.communicate()

    def _hear(self, word: str) -> None:
        assert self.subject.stdout is not None
        assert self.subject.stdout.readline() == f'{word}\n'


def policy(**limits: Any) -> Policy:
    return Policy(concurrent_workers=1, worker_module_name='m', worker_class_name='C', **limits)


def looks(bench: Bench, watch: MemoryWatch, number: int, now: float) -> list[FoundOut]:
    """Return what so many looks find out, each made when it is due, the first not before `now`."""
    found: list[FoundOut] = []
    for _ in range(number):
        due = watch.next_deadline()
        assert due is not None
        now = max(now, due)
        found += bench.look(watch, now)
    return found


class MemoryWatchContract:
    """The tests; `bench` is the subclass's fixture."""

    def test_without_a_limit_and_a_mark_nothing_is_looked_at(self, bench: Bench) -> None:
        watch = bench.watch(policy())
        try:
            bench.begin(watch, 0.0)
            watch.ready(LIFE, 0.0)
            assert watch.next_deadline() is None
            assert watch.forget(LIFE) is None
        finally:
            watch.close()

    def test_a_life_is_looked_at_at_once_again_when_it_is_ready_and_from_then_on(self, bench: Bench) -> None:
        watch = bench.watch(policy(worker_memory_high=MARK))
        try:
            bench.begin(watch, 1.0)
            assert watch.next_deadline() == 1.0
            assert bench.look(watch, 1.0) == []
            watch.ready(LIFE, 1.5)
            assert watch.next_deadline() == 1.5
            assert bench.look(watch, 1.5) == []
            due = watch.next_deadline()
            assert due is not None and due > 1.5
        finally:
            watch.close()

    def test_a_life_that_has_grown_over_its_mark_is_told_of_once_with_what_it_has(self, bench: Bench) -> None:
        watch = bench.watch(policy(worker_memory_high=MARK))
        try:
            bench.begin(watch, 0.0)
            watch.ready(LIFE, 0.0)
            bench.look(watch, 0.0)
            bench.grow()
            found = looks(bench, watch, 3 * MARK_SAMPLES, MARK_MIN_LIFE + 1)
            (high,) = found
            assert isinstance(high, MemoryHigh) and high.life == LIFE
            assert high.measured > MARK
        finally:
            watch.close()

    def test_a_life_below_its_mark_or_not_ready_is_not_told_of(self, bench: Bench) -> None:
        watch = bench.watch(policy(worker_memory_high=4 * MORE))
        try:
            bench.begin(watch, 0.0)
            bench.grow()
            assert looks(bench, watch, 2 * MARK_SAMPLES, MARK_MIN_LIFE + 1) == []
            watch.ready(LIFE, 1000.0)
            assert looks(bench, watch, 2 * MARK_SAMPLES, 1000.0 + MARK_MIN_LIFE) == []
        finally:
            watch.close()

    def test_what_is_forgotten_has_a_highest_sample_and_leaves_nothing(self, bench: Bench) -> None:
        watch = bench.watch(policy(worker_memory_high=MARK))
        try:
            before = os.listdir('/proc/self/fd')
            bench.begin(watch, 0.0)
            bench.grow()
            bench.look(watch, 0.0)
            highest = watch.forget(LIFE)
            assert highest is not None and highest >= MORE
            assert watch.next_deadline() is None
            assert watch.forget(LIFE) is None
            assert os.listdir('/proc/self/fd') == before
        finally:
            watch.close()

    def test_a_life_that_cannot_be_measured_is_no_error_and_is_measured_again(self, bench: Bench) -> None:
        watch = bench.watch(policy(worker_memory_high=MARK))
        try:
            bench.begin(watch, 0.0)
            bench.end()
            assert bench.look(watch, 0.0) == []
            due = watch.next_deadline()
            assert due is not None and due > 0.0
        finally:
            watch.close()
