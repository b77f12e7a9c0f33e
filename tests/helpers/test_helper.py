"""A helper that hangs has a deadline, whatever it hangs in: real processes, and the time that they take."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from sergeant_linux.helpers.helper import Helper, Household
from sergeant_linux.kernel.children import Children
from sergeant_linux.kernel.poller import Handler, Poller

DEADLINE: Final = 15.0
ROOT: Final = Path(__file__).parents[2]


class Silent(Helper):
    title = 'silent one'
    module = 'tests.helpers.silent'
    replace_after = 0.0
    patience = 0.5

    arguments: Sequence[str] = ()

    def given(self) -> tuple[Sequence[str], Sequence[int]]:
        return self.arguments, ()

    def begun(self, now: float) -> None:
        self.expect(now + self.patience)


class Slow(Silent):
    patience = 60.0
    arguments = ('at work',)


class AtWork(Silent):
    patience = 5.0
    arguments = ('at work',)


class Turns:
    """The loop, as far as a helper needs one."""

    def __init__(self, kind: type[Helper]) -> None:
        self.poller: Poller[Handler] = Poller()
        self.notes: list[str] = []
        environ = os.environ | {'PYTHONPATH': str(ROOT)}
        self.helper = kind(Household(self.poller, Children(self.poller), self._note, environ, lambda: 1.0))
        self.helper.want()

    def _note(self, level: int, message: str, event: str, /, **fields: object) -> None:
        self.notes.append(event.rpartition('-')[2])

    def until(self, look: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not look():
            assert time.monotonic() < deadline, self.notes
            due = self.helper.next_deadline()
            for handler, events in self.poller.wait(0.05 if due is None else min(0.05, due - time.monotonic())):
                handler(events)
            self.helper.elapse(time.monotonic())


@pytest.fixture
def turns(request: pytest.FixtureRequest) -> Iterator[Turns]:
    turns = Turns(request.param)
    yield turns
    turns.helper.close()
    assert len(turns.poller) == 0
    turns.poller.close()


@pytest.mark.parametrize('turns', [Silent, AtWork], indirect=True)
def test_one_that_does_not_come_to_work_or_does_not_answer_is_replaced(turns: Turns) -> None:
    turns.until(lambda: turns.helper.process is not None)
    first = turns.helper.process

    turns.until(lambda: turns.helper.process not in (None, first))

    assert turns.notes[:2] == ['overdue', 'exit']


@pytest.mark.parametrize('turns', [Slow], indirect=True)
def test_one_that_is_stopped_is_replaced_long_before_its_deadline(turns: Turns) -> None:
    turns.until(lambda: turns.helper.at_work)
    first = turns.helper.process
    assert first is not None

    first.signal(signal.SIGSTOP)
    turns.until(lambda: turns.helper.process not in (None, first))

    assert turns.notes == ['overdue', 'exit']


@pytest.mark.parametrize('turns', [Slow], indirect=True)
def test_one_that_is_recalled_is_followed_by_the_next_without_a_word(turns: Turns) -> None:
    turns.until(lambda: turns.helper.at_work)
    first = turns.helper.process

    turns.helper.recall()
    turns.until(lambda: turns.helper.process not in (None, first))

    assert turns.notes == []
