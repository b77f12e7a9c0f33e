"""A worker that hangs is found, its stacks are told, and it is replaced: in Python, in C, stopped, and while it idles."""

import signal
from pathlib import Path
from typing import Final

import pytest

from tests.scenarios.pool import kill, pool, wait_until
from tests.worker.queues import Queue

HANGS: Final = {
    'in Python': 'while True: pass',
    'in C with the GIL': 'import ctypes; ctypes.PyDLL(None).sleep(1000)',
    'in a sleep': 'import time; time.sleep(1000)',
}

HUNG_TASK: Final = """
from tests.scenarios.workers import Tasks

class Worker(Tasks):
    def do(self, task):
        HANG
"""

HEARTS: Final = """
import os, time
import sergeant_linux

class Worker:
    def run(self):
        while not os.path.exists('cue'):
            sergeant_linux.heartbeat()
            time.sleep(0.05)
        time.sleep(1000)
"""

SILENT: Final = """
import time

class Worker:
    def run(self):
        print('here', flush=True)
        time.sleep(1000)
"""

TASKS: Final = """
from tests.scenarios.workers import Tasks as Worker
"""


@pytest.mark.parametrize('how', HANGS)
def test_a_worker_that_is_in_one_task_for_too_long_is_dumped_and_replaced(
    tmp_path: Path, redis_port: int, how: str
) -> None:
    queue = Queue.on_redis(redis_port)
    queue.push(1)
    source = HUNG_TASK.replace('HANG', HANGS[how])
    with pool(tmp_path, source, environ=queue.environ, worker_watchdog='1s', timeout_stop='500ms') as running:
        running.hear('begun 1')

        (ending,) = running.wait_for('worker-exit', result='watchdog')

        (stacks,) = running.wait_for('worker-stacks')
        assert 'worker.py' in stacks['stacks'] and 'in do' in stacks['stacks']
        assert ending['pid'] == running.find('worker-hung')[0]['pid']
        running.wait_for('worker-ready', count=2)
        running.ask('stop', now=True)
    queue.take_all()
    queue.close()


def test_a_stopped_worker_gives_no_stacks_and_is_replaced(tmp_path: Path, redis_port: int) -> None:
    queue = Queue.on_redis(redis_port)
    with pool(tmp_path, TASKS, environ=queue.environ, worker_watchdog='2s', timeout_stop='500ms') as running:
        (ready,) = running.wait_for('worker-ready')

        kill(ready['pid'], signal.SIGSTOP)

        (ending,) = running.wait_for('worker-exit', result='watchdog', within=30)
        assert (ending['pid'], ending['signal']) == (ready['pid'], 'SIGKILL')
        assert running.wait_for('worker-stacks')[0]['stacks'] is None
    queue.close()


def test_a_worker_that_gave_signs_of_life_is_missed_when_it_gives_none(tmp_path: Path) -> None:
    with pool(tmp_path, HEARTS, worker_watchdog='1s', timeout_stop='1s') as running:
        running.wait_for('worker-ready')
        wait_until(lambda: running.ask('status')['uptime_seconds'] > 2.5, 'more than two spans')
        assert not running.find('worker-exit')

        (tmp_path / 'cue').touch()

        assert running.wait_for('worker-hung')[0]['reason'].startswith('without a sign of life')


def test_a_worker_that_never_gave_signs_of_life_is_not_expected_to(tmp_path: Path) -> None:
    with pool(tmp_path, SILENT, worker_watchdog='500ms') as running:
        running.hear('here')
        wait_until(lambda: running.ask('status')['uptime_seconds'] > 2, 'four spans')

        assert not running.find('worker-hung')
        assert running.stop() == 0


@pytest.mark.slow
def test_idle_workers_are_not_taken_for_hung(tmp_path: Path, redis_port: int) -> None:
    queue = Queue.on_redis(redis_port)
    with pool(tmp_path, TASKS, environ=queue.environ, concurrent_workers=2, worker_watchdog='4s') as running:
        running.wait_for('worker-ready', count=2)
        wait_until(lambda: running.ask('status')['uptime_seconds'] > 9, 'two spans')

        assert not running.find('worker-hung')
    queue.close()
