"""The watchdog: who is looked at, and when, and who is hung."""

import os
import time
from collections.abc import Iterator, Sequence

import pytest

from sergeant_linux.core.margins import LATE
from sergeant_linux.core.policy import Policy
from sergeant_linux.engine.hangs import Watchdog
from sergeant_linux.wire.scoreboard import SIGN, STARTED, Page, Pen

SPAN = 60.0


def policy(span: float | None = SPAN) -> Policy:
    return Policy(concurrent_workers=1, worker_module_name='m', worker_class_name='C', worker_watchdog=span)


class Worker:
    """One that the test plays. Times are on the real clock, which pages are read by."""

    def __init__(self) -> None:
        self.page = Page()
        self.pen = Pen(self.page.fd)

    def is_in_a_task_since(self, moment: float) -> None:
        self.pen.times[STARTED] = moment

    def gives_a_sign(self, moment: float) -> None:
        self.pen.times[SIGN] = moment


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    workers = [Worker(), Worker()]
    yield workers
    for worker in workers:
        worker.page.close()
        worker.pen.close()


@pytest.fixture
def now() -> float:
    """A time so late that all of the test's are in the past of the real clock."""
    return time.monotonic() - 5 * SPAN


def watching(workers: list[Worker], now: float, spans: Sequence[float | None] = (SPAN,)) -> Watchdog:
    """Watch these; the first of `spans` is the one that is in force."""
    watchdog = Watchdog(lambda: policy(spans[0]))
    for life, worker in enumerate(workers):
        watchdog.watch(life, worker.page, now)
        watchdog.ready(life, now)
    return watchdog


def test_without_the_knob_nothing_is_ever_due(workers: list[Worker], now: float) -> None:
    watchdog = watching(workers, now, spans=[None])

    assert watchdog.next_deadline() is None
    assert watchdog.elapse(now + 10 * SPAN) == []


def test_a_worker_is_looked_at_for_the_first_time_a_span_after_it_is_ready(workers: list[Worker], now: float) -> None:
    watchdog = Watchdog(lambda: policy())
    watchdog.watch(0, workers[0].page, now)
    assert watchdog.next_deadline() is None

    watchdog.ready(0, now + 5)

    assert watchdog.next_deadline() == now + 5 + SPAN


def test_what_a_worker_did_before_it_was_ready_does_not_count(workers: list[Worker], now: float) -> None:
    workers[0].is_in_a_task_since(now - 10)
    watchdog = watching(workers[:1], now)
    watchdog.ready(0, now + 30)  # said once more

    assert watchdog.next_deadline() == now + SPAN
    assert watchdog.elapse(now + SPAN) == [(0, 'in one task for 1min, longer than 1min')]


def test_a_worker_that_hangs_in_a_task_is_found_when_the_span_is_over_and_once(
    workers: list[Worker], now: float
) -> None:
    watchdog = watching(workers, now)
    workers[0].is_in_a_task_since(now + 10)
    workers[1].gives_a_sign(now + 59)

    assert watchdog.elapse(now + SPAN) == []
    assert watchdog.next_deadline() == now + 10 + SPAN
    assert watchdog.elapse(now + 10 + SPAN) == [(0, 'in one task for 1min, longer than 1min')]
    assert watchdog.next_deadline() == now + 59 + SPAN
    assert watchdog.elapse(now + 59 + SPAN) == [(1, 'without a sign of life for 1min, longer than 1min')]
    assert watchdog.next_deadline() is None


def test_an_idle_worker_is_looked_at_about_once_in_a_span(workers: list[Worker], now: float) -> None:
    watchdog = watching(workers[:1], now)

    looks = 0
    while (at := watchdog.next_deadline()) is not None and at < now + 4 * SPAN:
        workers[0].gives_a_sign(at - 0.5)
        assert watchdog.elapse(at) == []
        looks += 1

    assert looks == 4


def test_a_life_that_is_over_is_not_looked_at(workers: list[Worker], now: float) -> None:
    watchdog = watching(workers, now)
    workers[0].is_in_a_task_since(now)

    watchdog.ended(0)
    watchdog.ended(7)

    assert watchdog.elapse(now + SPAN) == []
    assert watchdog.next_deadline() == now + 2 * SPAN  # the other one's


def test_a_life_without_a_page_is_not_looked_at(now: float) -> None:
    watchdog = Watchdog(lambda: policy())
    watchdog.watch(0, None, now)
    watchdog.ready(0, now)
    watchdog.ready(1, now)

    assert watchdog.next_deadline() is None


def test_a_late_look_proves_nothing_and_gives_a_whole_span_again(workers: list[Worker], now: float) -> None:
    # given a pool that was halted as a whole, with a worker in a task
    watchdog = watching(workers[:1], now)
    workers[0].is_in_a_task_since(now)
    late = now + SPAN + LATE + 1

    assert watchdog.elapse(late) == []

    assert watchdog.next_deadline() == late + SPAN
    assert watchdog.elapse(late + SPAN) == [(0, 'in one task for 1min, longer than 1min')]


def test_the_span_can_be_changed_and_turned_off_and_on(workers: list[Worker], now: float) -> None:
    spans: list[float | None] = [None]
    watchdog = watching(workers[:1], now, spans=spans)
    workers[0].is_in_a_task_since(now)

    spans[0] = 10.0
    watchdog.policy_changed(now + 20)
    assert watchdog.next_deadline() == now + 30
    spans[0] = None
    watchdog.policy_changed(now + 21)
    assert watchdog.next_deadline() is None
    spans[0] = 20.0
    watchdog.policy_changed(now + 22)

    assert watchdog.elapse(now + 42) == [(0, 'in one task for 42s, longer than 20s')]


def test_nothing_is_opened_for_looking(workers: list[Worker], now: float) -> None:
    before = os.listdir('/proc/self/fd')

    watching(workers, now).elapse(now + SPAN)

    assert os.listdir('/proc/self/fd') == before
