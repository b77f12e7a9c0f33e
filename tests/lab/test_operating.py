"""A pool whose memory the kernel bounds, operated while it works: its limit is changed, its code is loaded anew."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest

from sergeant_linux.control.client import PoolError
from tests.lab.conftest import Cgroup
from tests.lab.housing import LIMIT, WITHIN, housed, leaves
from tests.scenarios.pool import kill, wait_until

pytestmark = pytest.mark.timeout(600)

FULL: Final = """
    import os, time

    class Worker:
        \"\"\"Takes 45 MiB, says so, and stays.\"\"\"

        def run(self):
            kept = b'x' * (45 << 20)
            os.write(1, b'full' + bytes([10]))
            time.sleep(1000)
"""


def limits(home: Cgroup) -> set[str]:
    return {(path / 'memory.max').read_text().strip() for path in leaves(home) if path.name.startswith('life-')}


def test_a_limit_that_is_raised_counts_at_once_and_one_below_what_a_worker_has_ends_it(
    home: Cgroup, tmp_path: Path
) -> None:
    with housed(home, tmp_path, FULL) as running:
        running.hear('full', within=WITHIN)
        (ready,) = running.wait_for('worker-ready', within=WITHIN)
        assert limits(home) == {str(LIMIT)}

        running.ask('set', key='max-worker-memory-usage', value='100M')
        assert limits(home) == {str(100 << 20)}

        running.ask('set', key='max-worker-memory-usage', value='32M')
        assert running.ask('ping')['pid'] == running.pid  # whatever the kernel does for it, the pool answers
        (ending, *_) = running.wait_for('worker-exit', within=WITHIN)

        assert (ending['pid'], ending['result'], ending['memory']['oom_scope']) == (ready['pid'], 'oom-kill', 'worker')


def test_a_reload_replaces_workers_each_in_a_leaf_of_its_own(home: Cgroup, tmp_path: Path) -> None:
    with housed(home, tmp_path, FULL, concurrent_workers=2, max_worker_memory_usage='64M') as running:
        running.hear('full', count=2, within=WITHIN)

        with running.client(timeout=WITHIN) as client:
            assert client.call('reload') == {'generation': 2, 'changed': 2}

        lives = {f'life-{slot["life"]}' for slot in running.ask('status')['slots']}
        wait_until(lambda: {path.name for path in leaves(home) if path.name.startswith('life-')} == lives, 'two leaves')


@pytest.mark.skipif(os.geteuid() != 0, reason='mounts')
def test_a_limit_that_the_kernel_refuses_for_one_worker_changes_nothing_for_any(home: Cgroup, tmp_path: Path) -> None:
    with housed(home, tmp_path, FULL, concurrent_workers=3) as running:
        running.wait_for('worker-ready', count=3, within=WITHIN)
        second = str(next(path for path in leaves(home) if path.name == 'life-2') / 'memory.max')
        for words in (['--bind', second, second], ['-o', 'remount,ro,bind', second]):
            subprocess.run(['mount', *words], check=True)
        try:
            with running.client(timeout=WITHIN) as client, pytest.raises(PoolError):
                client.call('set', key='max-worker-memory-usage', value='100M')

            assert limits(home) == {str(LIMIT)}
            assert running.ask('get', key='max-worker-memory-usage')
        finally:
            subprocess.run(['umount', second], check=True)

        running.ask('set', key='max-worker-memory-usage', value='100M')
        assert limits(home) == {str(100 << 20)}


def test_a_limiter_that_is_stopped_is_replaced_and_the_limits_are_in_force(home: Cgroup, tmp_path: Path) -> None:
    with housed(home, tmp_path, FULL, concurrent_workers=2) as running:
        running.hear('full', count=2, within=WITHIN)
        has = max(int((path / 'memory.current').read_text()) for path in leaves(home) if path.name.startswith('life-'))
        tight, tighter = (int(has * part) // 4096 * 4096 for part in (1.08, 1.06))  # no room, but none is killed for it
        for _ in range(3):
            running.ask('set', key='max-worker-memory-usage', value=str(tight))
            for limiter in running.processes('sergeant-linux: limiter'):
                kill(limiter, signal.SIGSTOP)
            running.ask('set', key='max-worker-memory-usage', value=str(tighter))

        wait_until(lambda: limits(home) == {str(tighter)}, 'the limits', WITHIN)
        wait_until(lambda: not running.processes('sergeant-linux: limiter'), 'the end of the limiter', WITHIN)
