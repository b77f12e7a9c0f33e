"""The stop guard: a stop reaches a worker only where no task can get lost."""

import time
from contextlib import suppress

import pytest

from tests.worker.life import Start
from tests.worker.queues import Queue

both_stops = pytest.mark.parametrize('stop', ['SIGTERM', 'DRAIN'])


@both_stops
def test_tasks_that_were_fetched_while_a_stop_came_go_back_and_are_never_begun(
    start: Start, queue: Queue, stop: str
) -> None:
    queue.push(1, 2, 3)
    life = start('Worker', **queue.environ, PER_TRANSACTION='2', WAIT_IN='fetched')
    life.expect('fetched')

    life.stop(stop)
    life.cue()

    assert life.exit_code() == 5
    assert life.rest() == ['finalized 3']
    assert sorted(queue.take_all()) == [1, 2, 3]


@both_stops
def test_a_stop_that_comes_after_a_task_is_done_waits_for_the_task_s_end_and_does_not_repeat_it(
    start: Start, queue: Queue, stop: str
) -> None:
    for place in ('post_work', 'on_success'):
        queue.push(1, 2)
        life = start('Worker', **queue.environ, PER_TRANSACTION='2', WAIT_IN=place)
        life.expect('begun 1')
        life.expect('done 1')
        life.expect(place)

        life.stop(stop)
        life.cue()

        assert life.exit_code() == 5
        assert life.rest() == ['finalized 1']
        assert queue.take_all() == [2]


def test_a_task_that_sigterm_interrupts_goes_back_to_be_begun_again(start: Start, queue: Queue) -> None:
    for place in ('pre_work', 'work'):
        queue.push(1, 2, 3)
        life = start('Worker', **queue.environ, PER_TRANSACTION='2', WAIT_IN=place)
        while life.heard() != place:
            pass

        life.terminate()

        assert life.exit_code() == 5
        assert life.rest() == ['finalized 3']
        assert sorted(queue.take_all()) == [1, 2, 3]


def test_drain_lets_the_task_finish_and_begins_no_other(start: Start, queue: Queue) -> None:
    queue.push(1, 2, 3)
    life = start('Worker', **queue.environ, PER_TRANSACTION='2', WAIT_IN='work')
    life.expect('begun 1')
    life.expect('work')

    life.drain()
    life.cue()

    assert life.exit_code() == 5
    assert life.rest() == ['done 1', 'finalized 2']
    assert sorted(queue.take_all()) == [2, 3]


def test_sigterm_after_drain_interrupts_the_task_that_drain_has_spared(start: Start, local_queue: Queue) -> None:
    local_queue.push(1, 2)
    life = start('Worker', **local_queue.environ, WAIT_IN='work')
    life.expect('begun 1')
    life.expect('work')

    life.drain()
    life.terminate()

    assert life.exit_code() == 5
    assert life.rest() == ['finalized 2']


@both_stops
def test_an_idle_worker_leaves_at_once(start: Start, queue: Queue, stop: str) -> None:
    life = start('Worker', **queue.environ, WAIT_IN='initialize')
    life.expect('initialize')
    life.cue()
    assert life.ready() == {'type': 'ready', 'drain': True}

    began = time.monotonic()
    life.stop(stop)
    life.expect('finalized 0')

    assert time.monotonic() - began < 0.9, 'it has slept through its second'
    assert life.final()['received_stop_signal'] is True
    assert life.exit_code() == 5


@both_stops
def test_further_signals_are_absorbed_while_the_worker_cleans_up(start: Start, queue: Queue, stop: str) -> None:
    queue.push(1, 2)
    life = start('Worker', **queue.environ, PER_TRANSACTION='2', WAIT_IN='fetched push_tasks finalize')
    life.expect('fetched')
    life.stop(stop)
    life.cue()

    for place in ('push_tasks', 'finalize'):
        life.expect(place)
        life.terminate()
        life.drain()
        life.terminate()
        life.cue()

    assert life.exit_code() == 5
    assert life.rest() == ['finalized 2']
    assert sorted(queue.take_all()) == [1, 2]


def test_a_stop_that_was_swallowed_comes_again_before_the_next_task_is_begun(start: Start, local_queue: Queue) -> None:
    local_queue.push(1, 2)
    life = start('Swallowing', **local_queue.environ, PER_TRANSACTION='2', WAIT_IN='work')
    life.expect('begun 1')
    life.expect('work')

    life.terminate()

    assert life.exit_code() == 5
    assert life.rest() == ['swallowed WorkerStop', 'finalized 1']
    assert local_queue.take_all() == [2]


def test_a_stop_that_initialize_has_swallowed_comes_again_before_the_first_task(
    start: Start, local_queue: Queue
) -> None:
    local_queue.push(1)
    life = start('SwallowingAtStart', **local_queue.environ, WAIT_IN='initialize')
    life.expect('initialize')

    life.terminate()

    assert life.exit_code() == 5
    assert life.rest() == ['swallowed WorkerStop', 'finalized 1']


def test_tasks_that_the_worker_s_code_fetches_by_itself_are_left_to_it(start: Start, local_queue: Queue) -> None:
    local_queue.push(1, 2, 3)
    life = start('Fetching', **local_queue.environ, WAIT_IN='pre_work')
    life.expect('pre_work')

    life.drain()
    life.cue()

    assert life.exit_code() == 5
    assert life.rest() == ['begun 1', 'fetched 2', 'finalized 1']


def test_drain_does_not_interrupt_on_starvation(start: Start, local_queue: Queue) -> None:
    life = start('Worker', **local_queue.environ, STARVING='1', WAIT_IN='on_starvation')
    life.expect('on_starvation')

    life.drain()
    life.cue()

    assert life.exit_code() == 5
    assert life.rest() == ['starved', 'finalized 0']


def test_tasks_go_back_before_finalize_even_when_the_worker_keeps_the_exception(
    start: Start, local_queue: Queue
) -> None:
    local_queue.push(1, 2, 3)
    life = start('Remembering', **local_queue.environ, PER_TRANSACTION='3', WAIT_IN='work')
    life.expect('begun 1')
    life.expect('work')

    life.terminate()

    assert life.exit_code() == 5
    assert life.rest() == ['finalized 3']


@both_stops
def test_a_stop_in_the_last_task_of_a_run_still_counts_as_one(start: Start, local_queue: Queue, stop: str) -> None:
    local_queue.push(1, 2)
    life = start('Worker', **local_queue.environ, PER_RUN='1', WAIT_IN='post_work')
    life.ready()
    life.expect('begun 1')
    life.expect('done 1')
    life.expect('post_work')

    life.stop(stop)
    life.cue()

    assert life.final()['received_stop_signal'] is True
    assert life.exit_code() == 5
    assert life.rest() == ['finalized 1']


def test_the_worker_s_own_wish_to_stop_is_told_apart_from_a_signal(start: Start, queue: Queue) -> None:
    for threads in ('1', '2'):
        queue.push(1)
        life = start('Stopping', **queue.environ, THREADS=threads, WAIT_IN='work')
        life.ready()
        life.expect('begun 1')
        life.expect('work')
        queue.push(2, 3)
        life.cue()
        with suppress(BrokenPipeError):  # the worker may have left without waiting again
            life.cue()

        assert life.final()['received_stop_signal'] is False
        assert life.exit_code() == 5
        left = queue.take_all()
        assert 1 not in left
        assert 3 in left


def test_a_handler_that_the_class_overrides_is_called_where_no_task_gets_lost(start: Start, queue: Queue) -> None:
    queue.push(1, 2)
    life = start('OwnHandler', **queue.environ, PER_TRANSACTION='2', WAIT_IN='fetched push_tasks')
    life.expect('fetched')
    life.terminate()
    life.cue()
    life.expect('good-bye')
    life.expect('push_tasks')

    life.terminate()  # theirs has reset SIGTERM to its default; ours is in place again
    life.cue()

    assert life.exit_code() == 5
    assert life.rest() == ['finalized 2']


@both_stops
def test_a_worker_whose_own_handler_does_not_stop_it_goes_on(start: Start, local_queue: Queue, stop: str) -> None:
    local_queue.push(1, 2)
    life = start('Declining', **local_queue.environ, PER_RUN='2', WAIT_IN='fetched')
    life.expect('fetched')

    life.stop(stop)
    life.cue()
    life.expect('noticed')
    life.expect('begun 1')
    life.expect('done 1')
    life.expect('fetched')
    life.stop(stop)
    life.cue()

    assert life.exit_code() == 0
    assert life.rest() == ['noticed', 'begun 2', 'done 2', 'finalized 0']


def test_a_worker_that_ignores_sigterm_can_still_be_drained(start: Start, local_queue: Queue) -> None:
    local_queue.push(1, 2)
    life = start('Ignoring', **local_queue.environ, WAIT_IN='work')
    life.expect('begun 1')
    life.expect('work')

    life.terminate()
    life.drain()
    life.cue()

    assert life.exit_code() == 5
    assert life.rest() == ['done 1', 'finalized 1']


def test_a_drain_that_came_before_the_worker_was_ready_is_not_forgotten(start: Start, local_queue: Queue) -> None:
    local_queue.push(1)
    life = start('Worker', **local_queue.environ, WAIT_IN='initialize')
    life.expect('initialize')

    life.drain()
    life.cue()

    life.ready()
    assert life.final()['received_stop_signal'] is True
    assert life.exit_code() == 5
    assert life.rest() == ['finalized 1']


@pytest.mark.parametrize(
    ('attribute', 'place'), [('Constructed', '__init__'), ('Initialised', 'init_worker'), ('Worker', 'initialize')]
)
def test_sigterm_before_the_loop_stops_the_worker_at_once(
    start: Start, local_queue: Queue, attribute: str, place: str
) -> None:
    life = start(attribute, **local_queue.environ, WAIT_IN=place)
    life.expect(place)

    life.terminate()

    final = life.final()
    assert (final['return_code'], final['received_stop_signal']) == (5, True)
    assert life.exit_code() == 5
    assert life.rest() == []


@pytest.mark.parametrize('threads', ['1', '2'])
def test_a_process_that_the_worker_forks_answers_sigterm_as_the_ancestor_s_do(
    start: Start, local_queue: Queue, threads: str
) -> None:
    local_queue.push(1)
    life = start('Forking', **local_queue.environ, THREADS=threads, PER_RUN='1')
    life.expect('child')

    life.cue()

    assert life.rest() == ['child: WorkerStop', 'waited', 'finalized 0']
    assert life.exit_code() == 0


def test_a_class_with_a_loop_of_its_own_is_left_alone_and_does_not_drain(start: Start, local_queue: Queue) -> None:
    for attribute in ('OwnLoop', 'OwnIteration'):
        local_queue.push(1)
        life = start(attribute, **local_queue.environ, WAIT_IN='work')
        assert life.ready() == {'type': 'ready', 'drain': False}
        while life.heard() != 'work':
            pass

        life.terminate()

        assert life.final()['received_stop_signal'] is True
        assert life.exit_code() == 5


@pytest.mark.parametrize('threads', ['1', '2'])
def test_the_ancestor_s_timeouts_and_the_stops_do_not_get_in_each_other_s_way(
    start: Start, local_queue: Queue, threads: str
) -> None:
    local_queue.push(1, 2)
    life = start('Spinning', **local_queue.environ, THREADS=threads, TIMEOUT='0.1')
    life.expect('begun 1')
    while life.heard() != 'timed out 1':
        pass

    life.drain()
    life.terminate()

    assert life.exit_code() == 5
    *_, last = life.rest()
    assert last == f'finalized {len(local_queue)}'
