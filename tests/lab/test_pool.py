"""A pool whose memory the kernel bounds: each worker in a leaf of its own, on a kernel that really has the controller.

The home is a cgroup made for the test and named by --cgroup-root, so that all that a pool makes can be seen, and nothing
else is changed. The kernel of the lab is slow: counts are small where the machine's own kernel counts to a thousand.
"""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Final

import pytest

from tests.lab.conftest import Cgroup
from tests.lab.housing import TAKE, WITHIN, housed, leaves
from tests.scenarios.pool import Pool, kill, wait_until

pytestmark = pytest.mark.timeout(600)

STAYS: Final = """
    import os, time

    def Worker():
        os.write(1, b'here' + bytes([10]))
        time.sleep(1000)
"""

BROODER: Final = (
    TAKE
    + '''
    import subprocess

    DEAF = 'trap "" HUP INT QUIT TERM; echo child $$; exec sleep 1000'

    class Worker:
        """Starts a child, a daemon that forgets session, parent and environment, and does as the file `cue` says."""

        def run(self):
            subprocess.Popen(['/bin/sh', '-c', DEAF])
            subprocess.Popen(['setsid', 'setsid', '/bin/sh', '-c', f"({DEAF}) &"], env={'PATH': os.environ['PATH']})
            while not os.path.exists('cue'):
                time.sleep(0.02)
            eat()
'''
)


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


@pytest.mark.slow
def test_two_pools_in_one_home_leave_each_other_alone_whatever_is_done_to_one(home: Cgroup, tmp_path: Path) -> None:
    """Ten steps, drawn from a fixed seed: a pool is started, stopped, killed, or loses a worker; the other never does."""
    rng = Random(47)
    folders = [tmp_path / name for name in ('one', 'two')]
    for folder in folders:
        folder.mkdir()
    running: dict[int, Pool] = {}
    with ExitStack() as stack:
        for _ in range(10):
            who = rng.randrange(2)
            other = running.get(1 - who)
            kept = (folders_of(other, home), other.workers()) if other is not None else None
            if who not in running:
                pool = stack.enter_context(housed(home, folders[who], STAYS, restart_delay=0))
                pool.hear('here', within=WITHIN)
                wait_until_it_has_one_leaf(pool, home)
                running[who] = pool
            else:
                pool, deed = running[who], rng.choice(['stop', 'kill -9', 'kill -9 a worker'])
                if deed == 'kill -9 a worker':
                    spawned = len(pool.find('worker-spawn'))
                    kill(max(pool.workers().values()))
                    pool.wait_for('worker-spawn', count=spawned + 1, within=WITHIN)
                    wait_until_it_has_one_leaf(pool, home)
                else:
                    gone = folders_of(pool, home)
                    pool.send(signal.SIGTERM if deed == 'stop' else signal.SIGKILL)
                    pool.process.wait(WITHIN)
                    wait_until_gone(gone)
                    del running[who]
            if other is not None:
                assert (folders_of(other, home), other.workers()) == kept
        for pool in running.values():
            assert pool.stop(within=WITHIN) == 0


def wait_until_it_has_one_leaf(pool: Pool, home: Cgroup) -> None:
    wait_until(lambda: len(folders_of(pool, home)) == 2, 'a folder with one leaf', WITHIN)


def wait_until_gone(folders: set[Path]) -> None:
    wait_until(lambda: not any(path.exists() for path in folders), f'the removal of {sorted(map(str, folders))}', WITHIN)


def folders_of(pool: Pool, home: Cgroup) -> set[Path]:
    """Return the cgroups of this pool: its folder, named after its supervisor, and all below."""
    return {path for path in home.below() if any(part.startswith(f'sergeant-{pool.pid}-') for part in path.parts)}


@pytest.mark.slow
def test_a_hundred_lives_leave_no_leaf_and_nothing_outside_of_the_home_is_changed(
    home: Cgroup, ground: Cgroup, tmp_path: Path
) -> None:
    before = outside(ground, home)
    finishes = 'def Worker(): pass'
    with housed(home, tmp_path, finishes, light=True, restart_delay=0, concurrent_workers=2) as running:
        pids = [record['pid'] for record in running.wait_for('worker-exit', count=100, within=3 * WITHIN)]
        during = outside(ground, home)
        wait_until(lambda: len(home.below()) <= 1 + 1 + 2 * 2, 'leaves of the living and the dying only', WITHIN)
        assert running.stop(within=WITHIN) == 0
    assert during == outside(ground, home) == before
    assert not leaves(home)
    assert len(set(pids)) >= 100


def outside(ground: Cgroup, home: Cgroup) -> dict[str, dict[str, str]]:
    """Return all cgroups that can be seen but those in `home`, and of each what somebody might have changed."""
    files = ['cgroup.subtree_control', 'cgroup.procs', 'cgroup.type', 'cgroup.freeze', 'cgroup.max.descendants']
    files += ['memory.max', 'memory.high', 'memory.oom.group', 'memory.swap.max', 'pids.max', 'cpu.max', 'cpu.weight']
    top = next(path for path in (ground.path, *ground.path.parents) if not (path.parent / 'cgroup.procs').exists())
    found = {}
    for path in [top, *Cgroup(top).below()]:
        if home.path not in (path, *path.parents):
            found[str(path)] = {name: (path / name).read_text() for name in files if (path / name).exists()}
    for name in ('cgroup.procs',):  # kernel threads come and go in the root
        if not (top / 'cgroup.type').exists():
            del found[str(top)][name]
    return found


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
