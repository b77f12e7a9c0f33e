"""Stacks on demand, whatever the worker is doing; and the supervisor's collecting of them."""

import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sergeant_linux.engine.stacks import MOST, PATIENCE, Dump, pipe
from sergeant_linux.worker.dump import SIGNAL
from tests.worker.life import Life, Start

COUNTED = 'tests.worker.counted'


def collect(dump: Dump) -> str | None:
    """Do what the loop does."""
    poll = select.poll()
    poll.register(dump.fileno(), select.POLLIN)
    while not dump.over(now := time.monotonic()):
        if poll.poll((dump.deadline - now) * 1000):
            dump.on_readable(time.monotonic())
    return dump.result


def stacks_of(life: Life) -> str | None:
    return collect(Dump(life.stacks, lambda: life.process.signal(SIGNAL), time.monotonic()))


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """A pipe: the supervisor's end, and the end of a worker that the test plays."""
    ours, theirs = pipe()
    yield ours, theirs
    os.close(ours)
    try:
        os.close(theirs)
    except OSError:
        pass  # the test has


def test_a_worker_that_loops_in_python_shows_the_stacks_of_all_its_threads(start: Start) -> None:
    life = start('Looping', COUNTED)
    life.expect('looping')

    for _ in range(2):  # and as often as it is asked
        stacks = stacks_of(life)

        assert stacks is not None
        assert 'in loop_for_ever\n' in stacks
        assert 'in wait_in_a_thread\n' in stacks


def test_a_worker_that_hangs_in_c_code_and_holds_the_gil_shows_its_stack(start: Start) -> None:
    life = start('HoldingTheGil', COUNTED)
    life.expect('sleeping')

    stacks = stacks_of(life)

    assert stacks is not None and 'in sleep_in_c\n' in stacks


def test_a_worker_that_is_stopped_shows_nothing_and_its_late_answer_is_not_the_next_one(start: Start) -> None:
    # given a worker that is asked while it is stopped
    life = start('Looping', COUNTED)
    life.expect('looping')
    life.process.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, life.process.pid, os.WSTOPPED)

    began = time.monotonic()
    assert stacks_of(life) is None
    assert time.monotonic() - began >= PATIENCE

    # when it goes on and has answered
    life.process.signal(signal.SIGCONT)
    poll = select.poll()
    poll.register(life.stacks, select.POLLIN)
    assert poll.poll(10_000)

    # then it is asked and answers anew
    stacks = stacks_of(life)
    assert stacks is not None and 'in loop_for_ever\n' in stacks


def test_a_worker_with_a_handler_of_its_own_has_that_and_no_dump(start: Start) -> None:
    life = start('WithItsOwnHandler', COUNTED)
    life.expect('ready')

    assert stacks_of(life) is None
    life.expect('its own')


def test_a_worker_that_has_closed_its_descriptors_is_not_asked(start: Start, tmp_path: Path) -> None:
    victim = tmp_path / 'victim'
    victim.write_bytes(b'precious')
    life = start('Daemonizing', COUNTED, VICTIM=str(victim))
    life.expect('closed')

    assert stacks_of(life) is None
    assert victim.read_bytes() == b'precious'


def test_a_child_of_the_worker_neither_answers_nor_holds_the_pipe(start: Start, tmp_path: Path) -> None:
    victim = tmp_path / 'victim'
    victim.write_bytes(b'precious')
    life = start('Outlived', COUNTED, VICTIM=str(victim))
    child = int((life.heard() or '').removeprefix('child '))
    assert life.end().exit_code == 0

    # then the child, which lives, has no end of the pipe, and lets the signal pass
    os.kill(child, SIGNAL)
    asked: list[int] = []
    assert collect(Dump(life.stacks, lambda: asked.append(1), time.monotonic())) is None
    assert asked == []
    life.cue()
    life.expect('child goes on')
    assert victim.read_bytes() == b'precious'


def test_the_answer_is_over_when_nothing_more_comes_after_its_last_line(ends: tuple[int, int]) -> None:
    ours, theirs = ends
    dump = Dump(ours, lambda: os.write(theirs, b'Thread 1\n'), 100.0)

    dump.on_readable(100.1)
    assert dump.deadline == 100.0 + PATIENCE  # the thread that was interrupted is still to come
    os.write(theirs, b'Current thread 2\n  Fi')
    dump.on_readable(100.2)
    assert dump.deadline == 100.0 + PATIENCE  # in the middle of a line
    os.write(theirs, b'le\n')
    dump.on_readable(100.3)
    assert dump.deadline == pytest.approx(100.35)
    dump.on_readable(100.31)  # nothing there
    assert dump.deadline == pytest.approx(100.35)
    os.write(theirs, b'Thread 3\n')
    dump.on_readable(100.34)

    assert not dump.over(100.38)
    assert dump.over(100.4)
    assert dump.result == 'Thread 1\nCurrent thread 2\n  File\nThread 3\n'


def test_the_answer_is_over_in_any_case_when_patience_is(ends: tuple[int, int]) -> None:
    ours, theirs = ends
    dump = Dump(ours, lambda: os.write(theirs, b'Current thread\n'), 100.0)

    dump.on_readable(100.0 + PATIENCE - 0.01)

    assert dump.deadline == 100.0 + PATIENCE


def test_a_worker_that_writes_for_ever_is_cut_off(ends: tuple[int, int]) -> None:
    ours, theirs = ends
    dump = Dump(ours, lambda: None, 100.0)

    while not dump.over(100.0):
        os.write(theirs, b'x' * 5000)
        dump.on_readable(100.0)

    assert dump.result == 'x' * MOST


def test_what_came_before_the_question_is_thrown_away(ends: tuple[int, int]) -> None:
    ours, theirs = ends
    os.write(theirs, b'stale\n')
    dump = Dump(ours, lambda: os.write(theirs, b'fresh\n'), 100.0)

    dump.on_readable(100.0)

    assert dump.result == 'fresh\n'


def test_a_worker_whose_end_is_closed_is_not_asked(ends: tuple[int, int]) -> None:
    ours, theirs = ends
    os.close(theirs)
    asked: list[int] = []

    dump = Dump(ours, lambda: asked.append(1), 100.0)

    assert (dump.over(100.0), dump.result, asked) == (True, None, [])


def test_the_end_of_the_worker_is_the_end_of_its_answer(ends: tuple[int, int]) -> None:
    ours, theirs = ends
    dump = Dump(ours, lambda: os.write(theirs, b'Current thread'), 100.0)
    os.close(theirs)

    dump.on_readable(100.1)
    dump.on_readable(100.2)

    assert dump.over(100.2)
    assert dump.result == 'Current thread'


def test_a_full_pipe_does_not_hold_the_worker(ends: tuple[int, int]) -> None:
    assert os.write(ends[1], b'x' * MOST) == MOST

    with pytest.raises(BlockingIOError):
        os.write(ends[1], b'x')


def test_nothing_in_an_answer_is_obeyed_by_a_terminal(ends: tuple[int, int]) -> None:
    ours, theirs = ends
    dump = Dump(ours, lambda: os.write(theirs, b'\x1b[2J\r\t\xff\xc3\xa9 ok\n'), 100.0)

    dump.on_readable(100.0)

    assert dump.result == '\\x1b[2J\\x0d\\x09\\xff\\xc3\\xa9 ok\n'
