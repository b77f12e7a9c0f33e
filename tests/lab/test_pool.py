"""A pool whose memory the kernel bounds: each worker in a leaf of its own, on a kernel that really has the controller.

The home is a cgroup made for the test and named by --cgroup-root, so that all that a pool makes can be seen, and nothing
else is changed. The kernel of the lab is slow: counts are small where the machine's own kernel counts to a thousand.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.lab.conftest import Cgroup
from tests.scenarios.pool import Pool, kill, pool, wait_until

pytestmark = pytest.mark.timeout(600)

WITHIN: Final = 120.0
LIMIT: Final = 64 << 20

HOG: Final = '''
    import os, time

    class Worker:
        """In slot 0 it eats 10 MiB each 10 ms; in the others it stays."""

        def run(self):
            kept = []
            while os.environ['SERGEANT_WORKER_SLOT'] == '0':
                kept.append(b'x' * (10 << 20))
                time.sleep(0.01)
            time.sleep(1000)
'''

FULL: Final = '''
    import os, time

    class Worker:
        """Takes most of its limit, says so, and stays."""

        def run(self):
            kept = b'x' * (45 << 20)
            os.write(1, b'full' + bytes([10]))
            time.sleep(1000)
'''

BROODER: Final = '''
    import os, subprocess, time

    DEAF = 'trap "" HUP INT QUIT TERM; echo child $$; exec sleep 1000'

    class Worker:
        """Starts a child, a daemon that forgets session, parent and environment, and does as the file `cue` says."""

        def run(self):
            subprocess.Popen(['/bin/sh', '-c', DEAF])
            subprocess.Popen(['setsid', 'setsid', '/bin/sh', '-c', f"({DEAF}) &"], env={'PATH': os.environ['PATH']})
            kept = []
            while not os.path.exists('cue'):
                time.sleep(0.02)
            while True:
                kept.append(b'x' * (10 << 20))
'''


@contextmanager
def housed(home: Cgroup, folder: Path, worker: str, **flags: Any) -> Iterator[Pool]:
    """Run a pool, all of whose processes are in `home` and whose leaves are made there."""
    inside = (
        'import os, sys; open(sys.argv.pop(1), "w").write("0"); '
        'import sergeant_linux.supervisor; sergeant_linux.supervisor.main()'
    )
    command = ['-c', inside, str(home.path / 'cgroup.procs')]
    flags = {'memory_backend': 'cgroup', 'cgroup_root': str(home.path), 'max_worker_memory_usage': LIMIT, **flags}
    with pool(folder, worker, command=command, **flags) as running:
        yield running


def leaves(home: Cgroup) -> list[Path]:
    """Return the cgroups of pools below `home`."""
    return [Path(path) for path, _, _ in os.walk(home.path) if 'sergeant-' in path]


@pytest.fixture
def home(ground: Cgroup) -> Iterator[Cgroup]:
    """A cgroup without processes or controllers, as a unit's is at first; at the end nothing may be left in it."""
    home = ground.make(f'home-{time.monotonic_ns()}')
    yield home
    left = [str(path) for path in leaves(home)]
    for path, _, _ in os.walk(home.path, topdown=False):
        Cgroup(Path(path)).remove()
    assert left == []


def test_a_worker_over_its_limit_is_killed_by_the_kernel_and_its_neighbours_are_not(
    home: Cgroup, tmp_path: Path
) -> None:
    with housed(home, tmp_path, HOG, concurrent_workers=2, restart_delay=0) as running:
        ends = running.wait_for('worker-exit', count=5, within=WITHIN)
        assert [record['slot'] for record in ends] == [0] * len(ends)
        for record in ends[:5]:
            assert (record['result'], record['signal'], record['return_code']) == ('oom-kill', 'SIGKILL', None)
            memory = record['memory']
            assert (memory['backend'], memory['oom_scope'], memory['limit_bytes']) == ('cgroup', 'worker', LIMIT)
            assert memory['peak_bytes'] <= LIMIT
            assert record['message'] == f'worker({record["pid"]}) exceeded the maximum memory limit: {memory["peak_bytes"]}'
        assert running.stop(within=WITHIN) == 0


def test_a_sigkill_by_hand_near_the_limit_is_no_oom_kill(home: Cgroup, tmp_path: Path) -> None:
    with housed(home, tmp_path, FULL) as running:
        running.hear('full', within=WITHIN)
        kill(running.workers()[1])
        (record,) = running.wait_for('worker-exit', within=WITHIN)
        assert (record['result'], record['signal'], record['memory']['oom_kills']) == ('signal', 'SIGKILL', 0)
        assert running.stop(within=WITHIN) == 0


@pytest.mark.parametrize('end', ['stop', 'oom', 'kill -9 of the supervisor'])
def test_nothing_that_a_worker_has_started_outlives_it(home: Cgroup, tmp_path: Path, end: str) -> None:
    with housed(home, tmp_path, BROODER, restart_delay=20) as running:
        children = [int(line.split()[1]) for line in running.hear('child', count=2, within=WITHIN)]
        if end == 'stop':
            assert running.stop(within=WITHIN) == 0
        elif end == 'oom':
            (tmp_path / 'cue').touch()
            running.wait_for('worker-exit', result='oom-kill', within=WITHIN)
        else:
            running.send(signal.SIGKILL)
            running.wait_until_gone(WITHIN)
        wait_until(lambda: not any(os.path.exists(f'/proc/{pid}') for pid in children), 'the end of the brood', WITHIN)
        if end != 'oom':
            wait_until(lambda: not leaves(home), 'the removal of the leaves', WITHIN)
        else:
            assert running.stop(within=WITHIN) == 0


def test_the_pools_limit_is_told_from_the_workers(home: Cgroup, tmp_path: Path) -> None:
    flags = {'max_worker_memory_usage': 200 << 20, 'pool_memory_max': LIMIT}
    with housed(home, tmp_path, HOG, restart_delay=0, **flags) as running:
        (record, *_) = running.wait_for('worker-exit', within=WITHIN)
        assert (record['result'], record['memory']['oom_scope']) == ('oom-kill', 'pool')
        assert running.stop(within=WITHIN) == 0


def test_two_pools_in_one_home_leave_each_other_alone(home: Cgroup, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ('one', 'two')]
    for folder in folders:
        folder.mkdir()
    with housed(home, folders[0], FULL) as stays:
        stays.hear('full', within=WITHIN)
        kept = set(leaves(home))
        for end in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
            with housed(home, folders[1], FULL) as goes:
                goes.hear('full', within=WITHIN)
                goes.send(end)
                goes.process.wait(WITHIN)
        assert stays.find('worker-exit') == []
        wait_until(lambda: set(leaves(home)) == kept, 'the removal of the other pool', WITHIN)
        assert stays.stop(within=WITHIN) == 0


def test_nothing_outside_of_the_home_is_changed(home: Cgroup, ground: Cgroup, tmp_path: Path) -> None:
    def outside() -> dict[str, tuple[str, str]]:
        return {
            path: (Cgroup(Path(path)).read('cgroup.subtree_control'), ','.join(sorted(folders)))
            for path, folders, _ in os.walk(ground.path)
            if not path.startswith(str(home.path))
        }

    before = outside()
    with housed(home, tmp_path, 'def Worker(): pass', restart_delay=0, concurrent_workers=2) as running:
        running.wait_for('worker-exit', count=30, within=WITHIN)
        assert running.stop(within=WITHIN) == 0
    assert outside() == before
    assert not leaves(home)


def test_a_backend_that_is_not_to_be_had_is_exit_status_4_and_auto_says_why(ground: Cgroup, tmp_path: Path) -> None:
    (tmp_path / 'worker.py').write_text('def Worker(): pass')
    command = [sys.executable, '-m', 'sergeant_linux.supervisor', '--worker-module=worker', '--worker-class=Worker']
    asked = subprocess.run(
        [*command, '--concurrent-workers=1', '--memory-backend=cgroup', '--cgroup-root=/tmp'],
        cwd=tmp_path,
        env=os.environ | {'PYTHONPATH': str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert asked.returncode == 4
    assert '/tmp is no directory of a cgroup v2 mount' in asked.stderr
