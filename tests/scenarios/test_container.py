"""A pool as the entrypoint of a container: as PID 1, and below an init.

The container is a pid namespace with a /proc of its own (unshare(1)): what is special about PID 1 is the kernel's, not an
engine's. Signals come from outside, to the container's PID 1, as `docker stop` sends them, and what `docker run` would
end with is what unshare ends with. The log has the container's pids, this side sees its own.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import pytest

from sergeant_linux.engine.runner import TOGETHER
from sergeant_linux.kernel import procfs
from tests.scenarios.pool import Pool, kill, pool, wait_until

CONTAINER: Final = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc']

INIT: Final = """
import os, signal, sys

def forward(signum, frame):
    os.kill(child, signum)

forwarded = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
signal.pthread_sigmask(signal.SIG_BLOCK, forwarded)
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, setsigmask=[])
for each in forwarded:
    signal.signal(each, forward)
signal.pthread_sigmask(signal.SIG_UNBLOCK, forwarded)
while True:
    pid, status = os.wait()
    if pid == child:
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
"""
"""What tini does, and s6, in short: it hands signals on, reaps, and ends with what its child ended with."""

WAYS: Final = {
    'as PID 1': [],
    'below an init': [sys.executable, '-c', INIT],
    'below tini': ['tini', '--'],
}

SLEEPER: Final = """
import time

def Worker():
    print('here', flush=True)
    time.sleep(1000)
"""

FINISHES: Final = """
import os, signal, sys, time

def say(word):
    os.write(1, word + bytes([10]))  # a handler may come in the middle of a print

def finish(*_):
    say(b'told')
    time.sleep(0.2)
    say(b'finished')
    sys.exit(0)

def Worker():
    signal.signal(signal.SIGTERM, finish)
    say(b'here')
    time.sleep(1000)
"""

ORPHANS: Final = 200

BROODER: Final = f"""
import os, subprocess, sys, time

LEAVES = [4, 0, 6, 4]
ORPHANS = 'i=0; while [ $i -lt {ORPHANS} ]; do setsid env -i sh -c "exit 9" & i=$((i+1)); done'

def Worker():
    life = int(os.environ['SERGEANT_WORKER_LIFE'])
    subprocess.run(['sh', '-c', ORPHANS], check=True)
    if life <= len(LEAVES):
        sys.exit(LEAVES[life - 1])
    print('stays', flush=True)
    time.sleep(1000)
"""
"""Its first lives leave while the orphans that they have made come to their end, each with a code of its own."""


@pytest.fixture(scope='module', autouse=True)
def can_be_made() -> None:
    if subprocess.run([*CONTAINER, 'true'], capture_output=True).returncode != 0:
        pytest.skip('no pid namespace can be made here')


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> list[str]:
    """What a container's command is preceded by."""
    words = WAYS[request.param]
    if words and shutil.which(words[0]) is None:
        pytest.skip(f'{words[0]} is not here')
    return words


def container(folder: Path, way: list[str], worker: str | None, **options: Any) -> AbstractContextManager[Pool]:
    return pool(folder, worker, python=[*CONTAINER, *way, sys.executable], **options)


def first(running: Pool) -> int:
    """The container's PID 1, as it is called out here."""
    return wait_until(lambda: next(iter(children(running.pid)), None), 'the PID 1 of the container')


def children(parent: int) -> list[int]:
    return [pid for pid, stat in stats().items() if stat.ppid == parent]


def stats() -> dict[int, procfs.Stat]:
    return {pid: stat for pid in procfs.pids() if (stat := procfs.read_stat(pid)) is not None}


def inside(running: Pool) -> Iterator[procfs.Stat]:
    """Yield every process of the container: all that descend from its PID 1, for no orphan leaves it."""
    known, above = stats(), {running.pid}
    while above := {pid for pid, stat in known.items() if stat.ppid in above}:
        yield from (known[pid] for pid in above)


def zombies(running: Pool) -> list[procfs.Stat]:
    return [stat for stat in inside(running) if stat.state == 'Z']


def tell(running: Pool, signum: int) -> None:
    """Signal the container, as its engine does."""
    kill(first(running), signum)


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_workers_finish_and_leaves_the_moment_they_have(
    tmp_path: Path, way: list[str], signum: signal.Signals
) -> None:
    with container(tmp_path, way, FINISHES, concurrent_workers=3, timeout_stop='1h') as running:
        running.hear('here', count=3)

        tell(running, signum)

        assert running.exit_status() == 0
        assert running.said.count('finished') == 3
        assert [ending['result'] for ending in running.find('worker-exit')] == ['success'] * 3
        assert running.find('stop', signal=signum.name)


def test_a_second_stop_kills_and_is_not_waited_for(tmp_path: Path, way: list[str]) -> None:
    source = FINISHES.replace('0.2', '1000')
    with container(tmp_path, way, source, concurrent_workers=2, timeout_stop='1h') as running:
        running.hear('here', count=2)
        tell(running, signal.SIGTERM)
        running.hear('told', count=2)
        time.sleep(1.5 * TOGETHER)

        tell(running, signal.SIGTERM)

        assert running.exit_status() == 0
        assert [ending['signal'] for ending in running.find('worker-exit')] == ['SIGKILL'] * 2


def test_every_orphan_is_reaped_and_no_exit_status_of_a_worker_with_it(tmp_path: Path, way: list[str]) -> None:
    with container(tmp_path, way, BROODER, restart_delay=0) as running:
        running.hear('stays')

        wait_until(lambda: not zombies(running), 'the orphans to be reaped')

        endings = running.find('worker-exit')
        assert [ending['return_code'] for ending in endings] == [4, 0, 6, 4]
        assert [ending['result'] for ending in endings] == ['success', 'success', 'exit-code', 'success']
        assert len(running.workers()) == 1
        tell(running, signal.SIGTERM)
        assert running.exit_status() == 0


def test_what_an_engine_starts_beside_the_pool_and_leaves_behind_is_reaped(tmp_path: Path, way: list[str]) -> None:
    """`docker exec` enters from outside, and what it has forked twice falls to the container."""
    with container(tmp_path, way, SLEEPER) as running:
        running.hear('here')
        enter = ['nsenter', '--pid', '--mount', '--target', str(first(running))]
        before = {stat.pid for stat in inside(running)}

        script = "for i in 1 2 3 4 5 6 7 8; do setsid sh -c 'read line; exit 5' <&3 & done"
        reader, writer = os.pipe()
        subprocess.run([*enter, 'sh', '-c', f'exec 3<&0; {script}'], stdin=reader, check=True)
        os.close(reader)
        wait_until(lambda: len({stat.pid for stat in inside(running)} - before) == 8, 'the orphans to fall to it')
        os.close(writer)

        wait_until(lambda: {stat.pid for stat in inside(running)} == before, 'them to be reaped')
        tell(running, signal.SIGTERM)
        assert running.exit_status() == 0


def test_a_daemon_of_a_worker_ends_with_the_pool(tmp_path: Path, way: list[str]) -> None:
    source = """
        import subprocess, time

        def Worker():
            subprocess.run(['sh', '-c', '( setsid sh -c "trap : TERM; while :; do sleep 1; done" & ) &'])
            print('here', flush=True)
            time.sleep(1000)
    """
    with container(tmp_path, way, source) as running:
        running.hear('here')
        wait_until(lambda: running.processes('trap : TERM'), 'the daemon')

        tell(running, signal.SIGTERM)

        assert running.exit_status() == 0
        running.wait_until_gone()
        assert running.find('stragglers-remain') == []


def test_sighup_takes_new_code(tmp_path: Path, way: list[str]) -> None:
    with container(tmp_path, way, SLEEPER, concurrent_workers=2) as running:
        running.hear('here', count=2)
        (tmp_path / 'worker.py').write_text(SLEEPER.replace("'here'", "'new'") + '# longer\n')

        tell(running, signal.SIGHUP)

        (ended,) = running.wait_for('reload-end')
        assert (ended['phase'], ended['changed']) == ('done', 2)
        running.hear('new', count=2)
        tell(running, signal.SIGTERM)
        assert running.exit_status() == 0


@pytest.mark.parametrize(('status', 'source', 'options'), [
    (0, 'def Worker():\n    raise SystemExit(5)\n', {}),
    (1, 'import no_such_module\n', {}),
    (2, SLEEPER, {'concurrent_workers': '0'}),
    (3, 'def Worker():\n    raise SystemExit(6)\n', {'restart_budget': '1/1min', 'restart_delay': 0}),
    (4, SLEEPER, {'max_worker_memory_usage': 'auto', 'pool_memory_max': '1M'}),
])
def test_the_container_ends_with_the_pools_exit_status(
    tmp_path: Path, way: list[str], status: int, source: str, options: dict[str, Any]
) -> None:
    with container(tmp_path, way, source, **options) as running:
        assert running.exit_status() == status
        running.wait_until_gone()


def test_the_end_of_a_helper_of_its_own_is_seen_among_orphans(tmp_path: Path, way: list[str]) -> None:
    """The fork server and the undertaker are children as well, and whoever reaps all of them must not take theirs."""
    with container(tmp_path, way, BROODER.replace('LEAVES = [4, 0, 6, 4]', 'LEAVES = []')) as running:
        running.hear('stays')
        for title in ('fork server', 'undertaker'):
            old = running.helper(title)
            kill(old)
            wait_until(lambda: {*running.processes(title)} - {old}, f'another {title}')  # noqa: B023  # called at once

        wait_until(lambda: not zombies(running), 'all of them to be reaped')
        tell(running, signal.SIGTERM)
        assert running.exit_status() == 0
        assert running.find('internal-error') == []
