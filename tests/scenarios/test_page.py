"""Each life has a page and a pipe for its stacks, and nobody else has them."""

import os
import struct
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sergeant_linux.engine.stacks import Dump
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.wire.scoreboard import SIGN
from sergeant_linux.worker.dump import SIGNAL
from tests.scenarios.pool import pool, wait_until
from tests.worker.test_dump import collect

both_ways = pytest.mark.parametrize('spawn', ['fork', 'exec'])

PAGE = '/memfd:sergeant-linux-page (deleted)'

WORKER = """
    import os, subprocess, sys, time
    import sergeant_linux

    LOOK = '''
    import os
    for name in os.listdir('/proc/self/fd'):
        try:
            print('child has', os.readlink('/proc/self/fd/' + name))
        except OSError:
            pass
    '''

    class Worker:
        def run(self):
            sergeant_linux.heartbeat()
            look = '\\n'.join(line.strip('\\n')[4:] for line in LOOK.splitlines())
            started = subprocess.run([sys.executable, '-c', look], close_fds=False, stdout=subprocess.PIPE, text=True)
            print(started.stdout + 'looked', flush=True)
            while True:
                time.sleep(1000)
"""


def descriptors(pid: int) -> dict[int, str]:
    """Return what each descriptor of a process is open on."""
    found = {}
    for name in os.listdir(f'/proc/{pid}/fd'):
        with suppress(OSError):
            found[int(name)] = os.readlink(f'/proc/{pid}/fd/{name}')
    return found


def pipe_of(worker: int) -> str:
    """Return the pipe that the worker has beside its stdio."""
    (found,) = {target for fd, target in descriptors(worker).items() if fd > 2 and target.startswith('pipe:')}
    return found


def open_again(pid: int, target: str) -> int:
    """Open what a process has open on `target`, for reading."""
    fd = next(fd for fd, each in descriptors(pid).items() if each == target)
    return os.open(f'/proc/{pid}/fd/{fd}', os.O_RDONLY | os.O_NONBLOCK)


@both_ways
def test_a_worker_s_page_and_stacks_reach_the_supervisor(tmp_path: Path, spawn: str) -> None:
    with pool(tmp_path, WORKER, spawn=spawn) as running:
        running.hear('looked')
        (worker,) = running.workers().values()

        page = open_again(running.pid, PAGE)
        (sign,) = struct.unpack('d', os.pread(page, 8, 8 * SIGN))
        os.close(page)
        assert 0 < sign <= time.monotonic()

        stacks = open_again(running.pid, pipe_of(worker))
        with PidRef.open(worker) as process:
            answer = collect(Dump(stacks, lambda: process.signal(SIGNAL), time.monotonic()))
        os.close(stacks)
        assert answer is not None and 'in run\n' in answer
        assert running.stop() == 0


@both_ways
def test_neither_what_the_worker_starts_nor_the_fork_server_has_them(tmp_path: Path, spawn: str) -> None:
    with pool(tmp_path, WORKER, concurrent_workers=2, spawn=spawn) as running:
        running.hear('looked', count=2)
        ours = {PAGE} | {pipe_of(worker) for worker in running.workers().values()}

        assert len(ours) == 3
        assert not ours & {line.removeprefix('child has ') for line in running.said}
        assert not ours & set(descriptors(running.helper('fork server')).values())
        for worker in running.workers().values():  # and no worker has another one's
            assert list(descriptors(worker).values()).count(PAGE) == 1
        assert running.stop() == 0


def test_the_supervisor_keeps_two_descriptors_of_them_for_each_life_and_none_of_the_dead(tmp_path: Path) -> None:
    with pool(tmp_path, WORKER, concurrent_workers=2, restart_delay=0) as running:
        running.hear('looked', count=2)
        workers = running.workers()
        before = sorted(descriptors(running.pid).values())
        gone = pipe_of(workers[1])
        with PidRef.open(workers[1]) as process:
            process.signal(9)
        running.hear('looked', count=3)

        def settled() -> bool:
            return len(descriptors(running.pid)) == len(before)

        wait_until(settled, 'the descriptors of the dead to be closed')
        now = list(descriptors(running.pid).values())
        assert now.count(PAGE) == 2
        assert gone not in now
        assert sum(now.count(pipe_of(worker)) for worker in running.workers().values()) == 2
        assert running.stop() == 0
