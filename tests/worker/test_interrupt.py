"""Stops of a worker with the threaded executor."""

from tests.worker.life import Start
from tests.worker.queues import Queue


def test_drain_lets_every_running_task_finish_and_begins_no_other(start: Start, queue: Queue) -> None:
    queue.push(1, 2, 3, 4)
    life = start('Worker', **queue.environ, THREADS='2', PER_TRANSACTION='3', WAIT_IN='work')
    begun = sorted(life.heard() or '' for _ in range(4))
    assert begun == ['begun 1', 'begun 2', 'work', 'work']

    life.drain()
    life.cue()
    life.cue()

    assert life.exit_code() == 5
    *done, last = life.rest()
    assert (sorted(done), last) == (['done 1', 'done 2'], 'finalized 2')
    assert sorted(queue.take_all()) == [3, 4]


def test_sigterm_interrupts_every_running_task_and_each_goes_back_once(start: Start, queue: Queue) -> None:
    queue.push(1, 2, 3, 4)
    life = start('Spinning', **queue.environ, THREADS='2', PER_TRANSACTION='3')
    life.ready()
    assert {life.heard(), life.heard()} == {'begun 1', 'begun 2'}

    life.terminate()
    life.terminate()

    assert life.final()['received_stop_signal'] is True
    assert life.exit_code() == 5
    assert life.rest() == ['finalized 4']
    assert sorted(queue.take_all()) == [1, 2, 3, 4]


def test_sigterm_after_drain_interrupts_the_tasks_that_drain_has_spared(start: Start, queue: Queue) -> None:
    queue.push(1, 2)
    life = start('Spinning', **queue.environ, THREADS='4')
    assert {life.heard(), life.heard()} == {'begun 1', 'begun 2'}

    life.drain()
    life.terminate()

    assert life.exit_code() == 5
    assert life.rest() == ['finalized 2']


def test_a_task_that_waits_in_c_code_is_interrupted_when_it_returns(start: Start, queue: Queue) -> None:
    queue.push(1, 2)
    life = start('Worker', **queue.environ, THREADS='3', WAIT_IN='work', TELL_LOG='1')
    assert sorted(life.heard() or '' for _ in range(4)) == ['begun 1', 'begun 2', 'work', 'work']

    life.terminate()
    life.expect('stop signal has been received')
    life.cue()
    life.cue()

    assert life.exit_code() == 5
    assert life.rest() == ['task has stopped', 'task has stopped', 'finalized 2']
    assert sorted(queue.take_all()) == [1, 2]


def test_a_task_that_sigterm_finds_not_yet_begun_goes_back(start: Start, queue: Queue) -> None:
    queue.push(1)
    life = start('Worker', **queue.environ, THREADS='2', WAIT_IN='pre_work', TELL_LOG='1')
    life.expect('pre_work')

    life.terminate()
    life.expect('stop signal has been received')
    life.cue()

    assert life.exit_code() == 5
    assert life.rest() == ['task has stopped', 'finalized 1']
    assert queue.take_all() == [1]


def test_a_task_that_swallows_the_interruption_counts_as_done(start: Start, local_queue: Queue) -> None:
    local_queue.push(1)
    life = start('Swallowing', **local_queue.environ, THREADS='2', WAIT_IN='work', TELL_LOG='1')
    life.expect('begun 1')
    life.expect('work')

    life.terminate()
    life.expect('stop signal has been received')
    life.cue()

    assert life.exit_code() == 5
    assert life.rest() == ['swallowed Interruption', 'finalized 0']
