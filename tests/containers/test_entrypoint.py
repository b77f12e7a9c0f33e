"""A pool as the entrypoint of a container: process 1, with the cgroups that a runtime gives it."""

import re
from typing import Final

import pytest

from tests.containers.conftest import Start
from tests.systemd.lab import wait_until

pytestmark = pytest.mark.timeout(600)

LIMIT: Final = 64 << 20

SLEEPER: Final = """
    import time

    class Worker:
        def run(self):
            time.sleep(1000)
"""

BROODER: Final = '''
    import subprocess, time

    class Worker:
        """Leaves orphans: each comes from a shell that is gone at once."""

        def run(self):
            for _ in range(3):
                subprocess.run(['setsid', 'sh', '-c', 'sleep 0.1 &'])
            print('orphans are made', flush=True)
            time.sleep(1000)
'''

HOG: Final = '''
    import os, time

    class Worker:
        """In slot 0 the first one eats memory."""

        def run(self):
            kept = []
            if os.environ['SERGEANT_WORKER_SLOT'] == '0' and not os.path.exists('fed'):
                open('fed', 'w').close()
                while True:
                    kept.append(b'x' * (10 << 20))
            time.sleep(1000)
'''


def test_the_supervisor_is_process_1_and_podman_stop_ends_it_with_0(start: Start) -> None:
    container = start(worker=SLEEPER, flags=('--concurrent-workers=2',))
    container.wait_for('worker-ready', 2)
    assert 'sergeant_linux.supervisor' in container.exec('cat', '/proc/1/cmdline').split('\0')

    container.stop()

    # after the ten seconds podman would have killed it: 137
    assert (container.inspect('{{.State.ExitCode}}'), container.inspect('{{.State.Status}}')) == ('0', 'exited')
    assert [record['request'] for record in container.records('worker-exit')] == ['stop', 'stop']


@pytest.mark.parametrize('options', [(), ('--init',)], ids=['as process 1', 'under an init'])
def test_orphans_are_reaped_whoever_has_left_them(start: Start, options: tuple[str, ...]) -> None:
    container = start(*options, worker=BROODER, flags=('--concurrent-workers=2',))
    container.wait_for('worker-ready', 2)
    wait_until(lambda: container.logs()[0] == ['orphans are made'] * 2, 'the orphans', lambda: str(container.logs()))

    stranger = int(container.exec('sh', '-c', 'sleep 0.1 > /dev/null 2>&1 & echo $!'))

    def reaped() -> bool:
        states = container.states()
        return stranger not in states and 'Z' not in states.values()

    wait_until(reaped, 'the end of all orphans', lambda: str(container.states()))
    assert container.records('worker-exit') == []


def test_with_cgroups_that_are_read_only_memory_is_polled_and_one_line_says_how_to_do_better(start: Start) -> None:
    container = start(worker=SLEEPER, flags=('--concurrent-workers=2', f'--max-worker-memory-usage={LIMIT}'))
    container.wait_for('worker-ready', 2)

    lines = [
        record['message']
        for record in container.logs()[1]
        if 'cgroup' in record['message'] and record['level'] != 'debug'
    ]
    assert len(lines) == 1
    assert re.match('memory is bounded by polling, .*Read-only.*--security-opt unmask=/sys/fs/cgroup', lines[0])


def test_with_cgroups_that_are_writable_the_kernel_bounds_memory(start: Start) -> None:
    container = start(
        '--security-opt=unmask=/sys/fs/cgroup', worker=HOG,
        flags=('--concurrent-workers=2', f'--max-worker-memory-usage={LIMIT}', '--memory-backend=cgroup'),
    )  # fmt: skip

    [end] = container.wait_for('worker-exit')
    assert (end['slot'], end['result'], end['memory']['oom_scope']) == (0, 'oom-kill', 'worker')
    container.wait_for('worker-ready', 3)
