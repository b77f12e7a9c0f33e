"""What the supervisor sees of a worker's tasks, and of its signs of life."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

import sergeant_linux
from sergeant_linux.wire.scoreboard import Look
from tests.worker.life import DEADLINE, Life, Start
from tests.worker.queues import Queue

T = TypeVar('T')

COUNTED = 'tests.worker.counted'

serial_and_threaded = pytest.mark.parametrize('threads', ['1', '2'])


def until(life: Life, holds: Callable[[Look], bool]) -> Look:
    """Wait until what is seen of the worker is as expected, and return it."""
    deadline = time.monotonic() + DEADLINE
    while not holds(look := life.page.look()):
        assert time.monotonic() < deadline, look
        time.sleep(0.003)
    return look


@serial_and_threaded
@pytest.mark.parametrize(('way', 'counts', 'error'), [
    ('return', (1, 0), None),
    ('raise', (0, 1), "ValueError('no such order')"),
    ('raise what can not be shown', (0, 1), '<Lying whose repr() raised RuntimeError>'),
    ('retry', (0, 1), 'WorkerRetry()'),
    ('retry because of something', (0, 1), "ConnectionError('no route')"),
    ('give up', (0, 1), 'WorkerMaxRetries()'),
    ('requeue', (0, 0), None),
    ('respawn', (0, 0), None),
    ('respawn afterwards', (1, 0), None),
    ('exit', (0, 1), 'SystemExit(9)'),
])
def test_a_task_is_counted_by_how_its_work_has_ended(
    start: Start, local_queue: Queue, threads: str, way: str, counts: tuple[int, int], error: str | None
) -> None:
    local_queue.push(1)

    life = start('Ending', COUNTED, **local_queue.environ, THREADS=threads, PER_RUN='1', WAY=way)
    life.end()

    look = life.page.look()
    assert ((look.tasks_done, look.tasks_failed), look.last_error, look.task_started) == (counts, error, None)
    local_queue.take_all()


@serial_and_threaded
def test_a_task_that_is_timed_out_has_failed(start: Start, local_queue: Queue, threads: str) -> None:
    local_queue.push(1)
    way = {'WAY': 'time out', 'TIMEOUT': '0.3'}

    life = start('Ending', COUNTED, **local_queue.environ, THREADS=threads, PER_RUN='1', **way)

    assert life.exit_code() == 0
    assert life.page.look()[:2] == (0, 1)
    assert life.page.look().last_error == 'WorkerTimedout()'


@serial_and_threaded
def test_tasks_are_counted_for_a_class_with_an_iteration_of_its_own(
    start: Start, local_queue: Queue, threads: str
) -> None:
    local_queue.push(1, 2, 3)

    life = start('EndingInItsOwnLoop', COUNTED, **local_queue.environ, THREADS=threads, PER_RUN='3', WAY='return')

    assert life.exit_code() == 0
    assert life.page.look()[:3] == (3, 0, None)


@serial_and_threaded
def test_a_task_that_a_stop_has_interrupted_is_neither_done_nor_failed(
    start: Start, local_queue: Queue, threads: str
) -> None:
    local_queue.push(1)
    spinning = start('Spinning', **local_queue.environ, THREADS=threads)
    spinning.expect('begun 1')
    assert spinning.page.look().task_started is not None

    spinning.terminate()

    assert spinning.exit_code() == 5
    assert spinning.page.look()._replace(last_sign=None) == Look(0, 0, None, None, None)
    assert local_queue.take_all() == [1]


def test_a_worker_says_since_when_it_is_in_its_task(start: Start, local_queue: Queue) -> None:
    life = start('Worker', **local_queue.environ, WAIT_IN='work')
    life.ready()
    assert life.page.look().task_started is None

    before = time.monotonic()
    local_queue.push(1)
    life.expect('begun 1')
    began = life.page.look().task_started

    assert began is not None and before <= began <= time.monotonic()
    life.cue()
    assert until(life, lambda look: look.task_started is None).tasks_done in (0, 1)
    until(life, lambda look: look.tasks_done == 1)


def test_a_worker_with_threads_says_since_when_it_is_in_the_oldest(start: Start, local_queue: Queue) -> None:
    # given a task in work, and one that was begun later
    local_queue.push(1)
    life = start('Ordered', COUNTED, **local_queue.environ, THREADS='2')
    life.expect('begun 1')
    between = time.monotonic()
    local_queue.push(2)
    life.expect('begun 2')
    began = life.page.look().task_started
    assert began is not None and began < between

    # when the older one is done, the younger one is the oldest
    life.cue()
    until(life, lambda look: look.tasks_done == 1)
    began = life.page.look().task_started
    assert began is not None and began > between

    life.cue()
    until(life, lambda look: look.tasks_done == 2 and look.task_started is None)


def test_an_idle_worker_gives_signs_of_life_from_its_ready_on(start: Start, local_queue: Queue) -> None:
    life = start('Worker', **local_queue.environ)
    life.ready()

    first = life.page.look().last_sign
    assert first is not None
    until(life, lambda look: look.last_sign is not None and look.last_sign > first)


@serial_and_threaded
def test_the_end_of_a_task_is_a_sign_of_life(start: Start, local_queue: Queue, threads: str) -> None:
    local_queue.push(1, 2)
    life = start('Worker', **local_queue.environ, THREADS=threads, PER_TRANSACTION='2', WAIT_IN='on_success')
    life.expect('begun 1')
    while life.heard() != 'on_success':
        pass
    before = time.monotonic()

    life.cue()

    until(life, lambda look: look.last_sign is not None and look.last_sign > before)


def test_a_worker_with_a_loop_of_its_own_is_not_expected_to_give_signs(start: Start, local_queue: Queue) -> None:
    life = start('NeverAsking', COUNTED, **local_queue.environ)
    life.expect('looping')

    assert life.page.look() == Look(0, 0, None, None, None)


def test_what_a_child_of_the_worker_does_is_not_counted(start: Start, local_queue: Queue) -> None:
    local_queue.push(1)
    life = start('AskingFromAChild', COUNTED, **local_queue.environ)
    life.expect('child is gone')

    look = life.page.look()

    assert look[:2] == (0, 0)
    assert look.task_started is not None and look.last_sign is not None and look.last_sign <= look.task_started


def test_a_class_with_run_gives_signs_of_life_when_it_says_so(start: Start) -> None:
    life = start('Beating', COUNTED)
    life.ready()
    assert life.page.look().last_sign is None

    life.cue()
    life.expect('beat')
    first = life.page.look().last_sign
    life.cue()
    life.expect('beat')
    second = life.page.look().last_sign

    assert first is not None and second is not None and first < second <= time.monotonic()


def test_a_child_of_a_worker_gives_no_signs_in_its_place(start: Start) -> None:
    life = start('BeatingInAChild', COUNTED)
    life.expect('child is gone')

    assert life.page.look().last_sign is None


def test_a_sign_of_life_outside_of_a_worker_does_nothing() -> None:
    sergeant_linux.heartbeat()
