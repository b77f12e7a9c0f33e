"""What a pool relies on in a containment, whatever holds lives together: the same tests for each, on real processes.

Decision: `ContainmentContract` holds the tests, a subclass brings the containment, made for a pool of the name `POOL`.
This process is the supervisor: what the lives have started falls to it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Final

import pytest

from sergeant_linux.containment.leaves import Leaf
from sergeant_linux.containment.protocol import Containment
from sergeant_linux.kernel import prctl
from sergeant_linux.wire import marks
from tests.kernel.processes import DEADLINE
from tests.scenarios.pool import wait_until

POOL: Final = f'{os.getpid()}-0c0ffee0'

MAIN: Final = """
import os, subprocess, sys
if sys.argv[1:]:
    with open(sys.argv[1], 'w') as procs:
        procs.write('0')
child = subprocess.Popen(['setsid', 'sleep', '1000'], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.readline()
"""
"""A worker: it starts a child in a session of its own, and leaves it behind."""


class Life:
    """A life in a containment: its main process and what that has started."""

    def __init__(self, containment: Containment, number: int) -> None:
        self.number = number
        cradle = containment.cradle(number)
        place = [f'{cradle.cgroup.path}/cgroup.procs'] if isinstance(cradle, Leaf) else []
        self.main = subprocess.Popen(
            [sys.executable, '-I', '-S', '-c', MAIN, *place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, marks.POOL: POOL, marks.LIFE: str(number)},
            start_new_session=True,
        )
        assert self.main.stdout is not None
        self.child = int(self.main.stdout.readline())

    def leave(self) -> None:
        """End the main process, and reap it."""
        self.main.communicate(b'\n', timeout=DEADLINE)

    def has_left_nothing(self) -> bool:
        return not os.path.exists(f'/proc/{self.child}')


def elapse(containment: Containment) -> list[int]:
    """Have the containment see to what is due now."""
    due = containment.next_deadline()
    return containment.elapse(time.monotonic()) if due is not None and due <= time.monotonic() else []


def wait_for(containment: Containment, *lives: int) -> list[int]:
    """Let the containment work until it has told of so many lives; return them as they were told."""
    told: list[int] = []

    def told_of_all() -> bool:
        told.extend(elapse(containment))
        return len(told) >= len(lives)

    wait_until(told_of_all, f'the end of lives {lives}')
    return told


class ContainmentContract:
    """Each test is given a containment of a pool that has no life yet."""

    @pytest.fixture(autouse=True)
    def adopting(self) -> Iterator[None]:
        """What falls to the nearest subreaper falls to this process."""
        before = prctl.get_child_subreaper()
        prctl.set_child_subreaper(True)
        yield
        prctl.set_child_subreaper(before)

    @pytest.fixture
    def containment(self) -> Iterator[Containment]:
        raise NotImplementedError

    def test_where_no_life_has_ended_nothing_is_due(self, containment: Containment) -> None:
        life = Life(containment, 1)
        assert containment.next_deadline() is None
        assert containment.elapse(time.monotonic()) == []
        life.leave()
        containment.end(1, life.main.pid, time.monotonic())
        assert wait_for(containment, 1) == [1]

    def test_what_a_life_has_left_is_ended_and_reaped_and_the_life_is_told_once(self, containment: Containment) -> None:
        life = Life(containment, 1)
        life.leave()
        assert not life.has_left_nothing()
        containment.end(1, life.main.pid, time.monotonic())
        assert wait_for(containment, 1) == [1]
        assert life.has_left_nothing()
        wait_until(lambda: elapse(containment) == [] and containment.next_deadline() is None, 'rest')

    def test_other_lives_are_not_touched(self, containment: Containment) -> None:
        over, other = Life(containment, 1), Life(containment, 2)
        over.leave()
        containment.end(1, over.main.pid, time.monotonic())
        assert wait_for(containment, 1) == [1]
        assert other.main.poll() is None and not other.has_left_nothing()
        other.leave()
        containment.end(2, other.main.pid, time.monotonic())
        assert wait_for(containment, 2) == [2]

    def test_a_life_that_is_ended_again_is_told_once(self, containment: Containment) -> None:
        life = Life(containment, 1)
        life.leave()
        for _ in range(2):
            containment.end(1, life.main.pid, time.monotonic())
        assert wait_for(containment, 1) == [1]
        wait_until(lambda: containment.next_deadline() is None or elapse(containment), 'rest')
        assert containment.next_deadline() is None

    def test_many_lives_that_end_at_once_are_each_told(self, containment: Containment) -> None:
        lives = [Life(containment, number) for number in range(1, 6)]
        for life in lives:
            life.leave()
            containment.end(life.number, life.main.pid, time.monotonic())
        assert sorted(wait_for(containment, *range(1, 6))) == [1, 2, 3, 4, 5]
        assert all(life.has_left_nothing() for life in lives)
