"""Deadlines elapse in their order, each once, and only the last one set for a key counts."""

import pickle

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sergeant_linux.core.deadlines import Deadlines


@pytest.fixture
def deadlines() -> Deadlines[str]:
    return Deadlines()


def test_nothing_is_due_when_nothing_is_armed(deadlines: Deadlines[str]) -> None:
    assert deadlines.next() is None
    assert list(deadlines.elapse(1e9)) == []


def test_a_deadline_elapses_when_it_has_come_and_not_before(deadlines: Deadlines[str]) -> None:
    deadlines.arm('start', 10.0)

    assert list(deadlines.elapse(9.999)) == []
    assert list(deadlines.elapse(10.0)) == ['start']
    assert list(deadlines.elapse(10.0)) == []


def test_arming_again_replaces_the_deadline_whether_it_is_sooner_or_later(deadlines: Deadlines[str]) -> None:
    deadlines.arm('later', 1.0)
    deadlines.arm('later', 9.0)
    deadlines.arm('sooner', 8.0)
    deadlines.arm('sooner', 2.0)

    assert list(deadlines.elapse(5.0)) == ['sooner']
    assert deadlines.next() == 9.0


def test_a_disarmed_deadline_never_elapses_and_disarming_nothing_does_no_harm(deadlines: Deadlines[str]) -> None:
    deadlines.arm('stop', 1.0)
    deadlines.disarm('stop')
    deadlines.disarm('stop')

    assert deadlines.written() == []
    assert deadlines.next() is None
    assert list(deadlines.elapse(2.0)) == []


def test_equal_deadlines_elapse_in_the_order_in_which_they_were_armed(deadlines: Deadlines[str]) -> None:
    for key in ('one', 'two', 'three'):
        deadlines.arm(key, 1.0)

    assert list(deadlines.elapse(1.0)) == ['one', 'two', 'three']


def test_a_deadline_that_is_disarmed_while_others_elapse_does_not_elapse(deadlines: Deadlines[str]) -> None:
    """Two workers' timers come at once, and what is done about the first stops the pool: the second is void."""
    deadlines.arm('first', 1.0)
    deadlines.arm('second', 1.0)

    elapsed = []
    for key in deadlines.elapse(1.0):
        elapsed.append(key)
        deadlines.disarm('second')

    assert elapsed == ['first']


def test_a_deadline_that_is_moved_while_others_elapse_keeps_its_new_time(deadlines: Deadlines[str]) -> None:
    deadlines.arm('first', 1.0)
    deadlines.arm('second', 1.0)

    for _ in deadlines.elapse(1.0):
        deadlines.arm('second', 5.0)

    assert deadlines.next() == 5.0


def test_a_deadline_that_is_set_again_and_again_at_once_does_not_hold_the_caller_up(deadlines: Deadlines[str]) -> None:
    deadlines.arm('again', 1.0)

    for key in deadlines.elapse(1.0):
        deadlines.arm(key, 0.5)

    assert deadlines.next() == 0.5


def test_the_heap_stays_small_however_often_a_deadline_is_moved(deadlines: Deadlines[str]) -> None:
    for moved in range(10_000):
        deadlines.arm('stop', float(moved))

    assert deadlines.written() == [('stop', 9_999.0)]
    assert len(pickle.dumps(deadlines)) < 10_000


KEYS = st.sampled_from('abcde')
TIMES = st.integers(0, 20).map(float)


class AgainstANaiveModel(RuleBasedStateMachine):
    """Whatever is armed, disarmed and elapsed in whatever order: a plain dict says the same."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines: Deadlines[str] = Deadlines()
        self.model: dict[str, float] = {}

    @rule(key=KEYS, at=TIMES)
    def arm(self, key: str, at: float) -> None:
        self.deadlines.arm(key, at)
        self.model.pop(key, None)
        self.model[key] = at

    @rule(key=KEYS)
    def disarm(self, key: str) -> None:
        self.deadlines.disarm(key)
        self.model.pop(key, None)

    @rule(now=TIMES)
    def elapse(self, now: float) -> None:
        due = sorted((key for key, at in self.model.items() if at <= now), key=lambda key: self.model[key])
        assert list(self.deadlines.elapse(now)) == due
        for key in due:
            del self.model[key]

    @invariant()
    def agrees(self) -> None:
        assert self.deadlines.written() == list(self.model.items())
        assert self.deadlines.next() == min(self.model.values(), default=None)


AgainstANaiveModel.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)

TestAgainstANaiveModel = AgainstANaiveModel.TestCase
