"""Time in which nothing could run: a worker is ended for none of it, and what has happened counts before what is due."""

import os
import signal
import time
from pathlib import Path
from typing import Final

from tests.scenarios.pool import kill, pool, wait_until

STARTS_AT_A_CUE: Final = """
import os, time

open('importing', 'w').close()
while not os.path.exists('cue'):
    time.sleep(0.01)

def Worker():
    print('here', flush=True)
    time.sleep(1000)
"""

LEAVES_AT_A_CUE: Final = """
import os, signal, sys, time

def Worker():
    signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'told' + bytes([10])))
    print('here', flush=True)
    while not os.path.exists('cue'):
        time.sleep(0.01)
    sys.exit(0)
"""

LONGER: Final = 3.0
"""Seconds of a pause, more than all the timeouts in here."""


def pause(seconds: float) -> None:
    """Let time pass: that is what is tested."""
    time.sleep(seconds)


def test_a_worker_that_was_ready_in_time_is_not_ended_after_a_stop_of_the_supervisor(tmp_path: Path) -> None:
    with pool(tmp_path, STARTS_AT_A_CUE, timeout_start='2s') as running:
        wait_until(lambda: (tmp_path / 'importing').exists(), 'a worker that starts')
        kill(running.pid, signal.SIGSTOP)
        (tmp_path / 'cue').touch()
        running.hear('here')
        pause(LONGER)

        kill(running.pid, signal.SIGCONT)

        running.wait_for('worker-ready')
        assert running.stop() == 0
        assert not running.find('worker-exit', result='timeout')


def test_a_worker_that_left_in_time_has_left_by_itself_after_a_stop_of_the_supervisor(tmp_path: Path) -> None:
    with pool(tmp_path, LEAVES_AT_A_CUE, timeout_stop='2s') as running:
        running.hear('here')
        running.send(signal.SIGTERM)
        running.hear('told')
        kill(running.pid, signal.SIGSTOP)
        (tmp_path / 'cue').touch()
        pause(LONGER)

        kill(running.pid, signal.SIGCONT)

        assert running.exit_status() == 0
        (ending,) = running.find('worker-exit')
        assert (ending['return_code'], ending['signal']) == (0, None)
        assert ending['result'] != 'timeout'


def test_when_everything_was_stopped_for_longer_than_the_start_may_take_the_worker_has_its_time(tmp_path: Path) -> None:
    with pool(tmp_path, STARTS_AT_A_CUE, timeout_start='2s') as running:
        wait_until(lambda: (tmp_path / 'importing').exists(), 'a worker that starts')
        everything = [running.pid, *running.processes()]
        for pid in everything:
            os.kill(pid, signal.SIGSTOP)
        pause(LONGER)
        os.kill(running.pid, signal.SIGCONT)

        running.wait_for('paused')
        (tmp_path / 'cue').touch()
        for pid in everything:
            kill(pid, signal.SIGCONT)

        running.wait_for('worker-ready')
        assert running.stop() == 0
        assert not running.find('worker-exit', result='timeout')
