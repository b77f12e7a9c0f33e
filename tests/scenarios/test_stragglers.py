"""What a worker has started does not outlive it, however it ended; and nobody else's processes are touched.

Facts: children hide. They leave the session, lose the environment, are orphans of orphans, ignore every signal they can, or are
stopped. Consequence: the worker of these tests starts one of each kind, all at once, and each says its own pid; then the
worker ends in each of the ways there are, and after it all of them are gone.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from sergeant_linux.kernel import procfs
from tests.scenarios.pool import DEADLINE, Pool, kill, pool, wait_until

LAST_BREATHS: Final = 500
"""How many workers die while their child is between two programs."""

BROOD: Final = '''
    import os, subprocess, sys, time

    DEAF = 'trap "" HUP INT QUIT TERM USR1 USR2; '
    STAY = 'echo $$; exec sleep 1000'

    def brood():
        """Start one of each kind, and wait until each has said its pid."""
        reader, writer = os.pipe()
        def start(script, **options):
            subprocess.Popen(['/bin/sh', '-c', script], stdout=writer, **options)
        start(STAY)                                            # a plain child
        start(STAY, env={})                                    # in our session, without our environment
        start(STAY, start_new_session=True)                    # with our environment, in a session of its own
        start(STAY, process_group=0, env={})
        start(DEAF + STAY, start_new_session=True)             # deaf
        start(DEAF + STAY, env={})
        start(f"( sh -c '{STAY}' & ) & wait")                  # an orphan: its parent has left
        start(f"setsid setsid /bin/sh -c '{DEAF + STAY}' &")   # a daemon
        start('sleep 1000 & echo $!; ' + STAY)                 # a child that has a child
        start('echo $$; kill -STOP $$; sleep 1000', start_new_session=True)  # a stopped one
        start(f"setsid env -i /bin/sh -c '{STAY}' &")          # a daemon with another environment
        start('exec env -i setsid sh -c "echo $$; exec sleep 1000"')
        pid = os.fork()                                        # a fork without exec shows the worker's own name and marks
        if pid == 0:
            os.setsid()
            os.write(writer, f'{os.getpid()}\\n'.encode())
            while True:
                time.sleep(1000)
        said = b''
        while said.count(b'\\n') < 14:
            said += os.read(reader, 4096)
        print('brood', *said.split(), flush=True)
'''

BROODER: Final = (
    BROOD
    + '''
    def wait_for_cue():
        with open('cue') as cue:
            return cue.read()

    class Worker:
        """The first life has a brood, says so, and ends as it is told; each later one only waits."""

        def run(self):
            if os.environ['SERGEANT_WORKER_LIFE'] == '1':
                brood()
                ending = wait_for_cue()
                exec(ending)
            else:
                while True:
                    time.sleep(1000)
'''
)


def is_there(pid: int) -> bool:
    """Whether a process lives; a zombie doesn't."""
    stat = procfs.read_stat(pid)
    return stat is not None and stat.state not in 'ZX'


def has_gone(pids: list[int]) -> None:
    """Wait until none of these processes lives; at the end kill those that still do."""
    try:
        wait_until(lambda: not any(map(is_there, pids)), f'the end of {pids}')
    finally:
        for pid in pids:
            kill(pid)


@pytest.fixture
def brooder(tmp_path: Path) -> Iterator[Pool]:
    os.mkfifo(tmp_path / 'cue')
    with pool(tmp_path, BROODER, restart_delay=0, timeout_stop='4s') as running:
        yield running


def brood_of(running: Pool) -> list[int]:
    """Return the pids of the brood when it is complete."""
    (line,) = running.hear('brood')
    pids = [int(word.removeprefix("b'").removesuffix("'")) for word in line.split()[1:]]
    assert len(set(pids)) == 14, line
    assert all(map(is_there, pids)), line
    return pids


@pytest.mark.parametrize(
    ('ending', 'result'),
    [
        pytest.param('', 'success', id='it-returns'),
        pytest.param('raise ValueError("broken")', 'exit-code', id='it-raises'),
        pytest.param('sys.exit(9)', 'exit-code', id='it-exits-with-9'),
        pytest.param('os._exit(4)', 'success', id='it-leaves-without-a-word'),
        pytest.param('os.kill(os.getpid(), 9)', 'signal', id='it-is-killed'),
        pytest.param('os.abort()', 'signal', id='it-aborts'),
        pytest.param('os.execv("/bin/false", ["false"])', 'exit-code', id='it-becomes-another-program'),
    ],
)
def test_what_a_worker_has_started_is_gone_after_its_end(
    brooder: Pool, tmp_path: Path, ending: str, result: str
) -> None:
    brood = brood_of(brooder)

    (tmp_path / 'cue').write_text(ending)

    (record,) = brooder.wait_for('worker-exit', life=1)
    assert record['result'] in (result, 'core-dump' if result == 'signal' else result)
    has_gone(brood)
    brooder.wait_for('worker-ready', life=2)
    assert not zombies_of(brooder.pid)


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_what_a_worker_has_started_is_gone_before_the_pool_has_stopped(brooder: Pool, signum: int) -> None:
    brood = brood_of(brooder)

    status = brooder.stop(signum)

    assert status == 0
    left = list(filter(is_there, brood))
    has_gone(left)
    assert left == [], 'the supervisor has left before what its worker had started'


def test_what_a_worker_has_started_is_gone_after_a_sigkill_of_the_supervisor(brooder: Pool) -> None:
    brood = brood_of(brooder)

    brooder.send(signal.SIGKILL)

    has_gone(brood)
    brooder.wait_until_gone()


def test_what_a_worker_has_started_is_gone_after_a_sigkill_of_supervisor_fork_server_and_worker(brooder: Pool) -> None:
    brood = brood_of(brooder)

    for title in ('sergeant-linux: fork server', 'sergeant-linux: worker'):
        kill(min(brooder.processes(title)))
    brooder.send(signal.SIGKILL)

    has_gone(brood)
    brooder.wait_until_gone()


SLOW_TO_DIE: Final = '''
    import os, subprocess, time

    class Worker:
        """Has so much memory that its end takes a while, in which it has no environment any more but is no zombie yet."""

        def run(self):
            taken = bytearray(400 << 20)
            for start in range(0, len(taken), 4096):
                taken[start] = 1
            child = subprocess.Popen(['/bin/sleep', '1000'], env={})
            print('child', child.pid, flush=True)
            time.sleep(1000)
'''


def test_what_a_worker_that_dies_slowly_has_started_is_gone_after_a_sigkill_of_the_supervisor(tmp_path: Path) -> None:
    with pool(tmp_path, SLOW_TO_DIE) as running:
        (line,) = running.hear('child')
        child = int(line.split()[1])

        running.send(signal.SIGKILL)

        has_gone([child])


def test_what_an_execed_worker_has_started_is_gone_after_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'cue')
    with pool(tmp_path, BROODER, spawn='exec', restart_delay=0) as running:
        brood = brood_of(running)

        (tmp_path / 'cue').write_text('sys.exit(9)')

        has_gone(brood)
        running.wait_for('worker-ready', life=2)


def test_what_a_preloaded_module_has_started_does_not_outlive_the_pool(tmp_path: Path) -> None:
    (tmp_path / 'starter.py').write_text(
        'import subprocess\nchild = subprocess.Popen(["sleep", "1000"], start_new_session=True)\n'
    )
    source = """
        import starter, time
        print('started', starter.child.pid, flush=True)
        def Worker():
            time.sleep(1000)
    """
    with pool(tmp_path, source, preload_module=['starter']) as running:
        (line,) = running.hear('started')
        started = int(line.split()[1])
        assert is_there(started)

        assert running.stop() == 0

        left = list(filter(is_there, [started]))
        has_gone(left)
        assert left == []


HOP: Final = """
import os
while True:
    if os.fork():
        os._exit(0)
    with open('hops', 'w') as hops:
        hops.write(str(os.getpid()))
"""

HOPPER: Final = '''
    import os, subprocess, sys, time

    class Worker:
        """The first life starts a process that is another one, with another pid, before anybody can look twice."""

        def run(self):
            if os.environ['SERGEANT_WORKER_LIFE'] == '1':
                subprocess.Popen([sys.executable, 'hop.py'])
                while not (os.path.exists('hops') and os.path.getsize('hops')):
                    time.sleep(0.001)
                os._exit(1)
            while True:
                time.sleep(1000)
'''


def test_what_forks_faster_than_anybody_can_look_is_gone_too(tmp_path: Path) -> None:
    (tmp_path / 'hop.py').write_text(HOP)
    try:
        with pool(tmp_path, HOPPER, restart_delay=0) as running:
            running.wait_for('worker-ready', life=2)

            assert running.stop() == 0

            before = (tmp_path / 'hops').stat().st_mtime_ns
            time.sleep(0.05)  # a hop takes a millisecond
            assert (tmp_path / 'hops').stat().st_mtime_ns == before, 'it still hops'
    finally:
        (tmp_path / 'hops').unlink(missing_ok=True)
        (tmp_path / 'hops').mkdir()  # should it still be there: its next hop fails


LAST_BREATH: Final = '''
    import os, time

    class Worker:
        """Leaves while its child is about to leave the session and to become another program."""

        def run(self):
            if os.path.exists('calm'):
                time.sleep(1000)
            if os.fork() == 0:
                os.setsid()
                os.execv('/bin/sleep', ['sleep', '1000'])
            os._exit(9)
'''


@pytest.mark.slow
def test_what_a_worker_starts_with_its_last_breath_is_gone_too(tmp_path: Path) -> None:
    with pool(tmp_path, LAST_BREATH, concurrent_workers=2, restart_delay=0) as running:
        running.wait_for('worker-exit', count=LAST_BREATHS, within=60)
        (tmp_path / 'calm').touch()

        wait_until(lambda: not running.processes('sleep 1000'), 'the end of all that was started')
        assert all(record['return_code'] == 9 for record in running.find('worker-exit'))
        wait_until(lambda: len(running.processes()) == 5, 'two workers, two helpers and the supervisor')


def test_others_are_left_alone(tmp_path: Path) -> None:
    theirs = [tmp_path / name for name in ('ours', 'theirs')]
    for folder in theirs:
        folder.mkdir()
        os.mkfifo(folder / 'cue')
    stranger = subprocess.Popen(['sleep', '1000'], start_new_session=True)
    try:
        with pool(theirs[0], BROODER, restart_delay=0) as ours, pool(theirs[1], BROODER, restart_delay=0) as other:
            gone, stays = brood_of(ours), brood_of(other)
            before = other.processes()

            (theirs[0] / 'cue').write_text('sys.exit(1)')
            has_gone(gone)
            ours.wait_for('worker-ready', life=2)
            ours.send(signal.SIGKILL)
            ours.wait_until_gone()

            assert other.processes().keys() == before.keys()
            assert all(map(is_there, stays))
            assert stranger.poll() is None
            other.send(signal.SIGKILL)
            has_gone(stays)
    finally:
        stranger.kill()
        stranger.wait()


NEIGHBOURS: Final = '''
    import os, subprocess, time

    class Worker:
        """Two at once, each with a child; the first life in slot 1 ends when it is told."""

        def run(self):
            child = subprocess.Popen(['sleep', '1000'], start_new_session=True)
            print('child', os.environ['SERGEANT_WORKER_SLOT'], child.pid, flush=True)
            if os.environ['SERGEANT_WORKER_LIFE'] == '2':
                open('cue').read()
            else:
                time.sleep(1000)
'''


def test_what_a_living_worker_has_started_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'cue')
    with pool(tmp_path, NEIGHBOURS, concurrent_workers=2, restart_delay=0) as running:
        children = dict(line.split()[1:] for line in running.hear('child', count=2))
        slot_0, slot_1 = int(children['0']), int(children['1'])

        (tmp_path / 'cue').write_text('')

        has_gone([slot_1])
        running.hear('child 1', count=2)
        assert is_there(slot_0)


def test_a_searching_supervisor_comes_to_rest(tmp_path: Path) -> None:
    """No look at /proc is made when nobody waits for one."""
    os.mkfifo(tmp_path / 'cue')
    with pool(tmp_path, BROODER, restart_delay=0) as running:
        brood = brood_of(running)
        (tmp_path / 'cue').write_text('')
        has_gone(brood)
        running.wait_for('worker-ready', life=2)

        def is_at_rest() -> bool:
            before = switches(running.pid)
            time.sleep(0.3)
            return switches(running.pid) == before

        wait_until(is_at_rest, 'a supervisor at rest', DEADLINE)


def zombies_of(parent: int) -> list[int]:
    """Return the zombies among a process's children once those that are about to be reaped have been."""
    deadline = time.monotonic() + 2
    while found := [
        pid for pid in procfs.pids() if (s := procfs.read_stat(pid)) is not None and s.ppid == parent and s.state == 'Z'
    ]:
        if time.monotonic() > deadline:
            return found
        time.sleep(0.01)
    return []


def switches(pid: int) -> str:
    """Return the count of a process's own context switches: each is a wait."""
    status = Path(f'/proc/{pid}/status').read_text()
    return next(line for line in status.splitlines() if line.startswith('voluntary_ctxt_switches'))


BARE: Final = '''
    import os, subprocess, time

    def strip():
        import resource
        resource.setrlimit(10, (0, 0))

    class Worker:
        """Starts a process that bears no mark at all and is nobody's child."""

        def run(self):
            script = 'sleep 1000 & echo bare $!'
            subprocess.Popen(['/usr/bin/setsid', '/bin/sh', '-c', script], env={}, preexec_fn=strip).wait()
            time.sleep(1000)
'''


def test_what_bears_no_mark_any_more_does_not_outlive_the_pool_of_a_command(tmp_path: Path) -> None:
    with pool(tmp_path, BARE, memory_backend='rss') as running:
        (line,) = running.hear('bare')
        bare = int(line.split()[1])

        assert running.stop() == 0

        left = list(filter(is_there, [bare]))
        has_gone(left)
        assert left == []


def test_a_child_that_the_command_had_before_it_was_one_is_left_alone(tmp_path: Path) -> None:
    python = ['/bin/sh', '-c', 'sleep 1000 & echo before $!; exec "$@"', 'sh', sys.executable]
    with pool(tmp_path, IDLE, python=python, memory_backend='rss') as running:
        (line,) = running.hear('before')
        before = int(line.split()[1])
        running.wait_for('worker-ready')
        running.send(signal.SIGTERM)
        assert running.process.wait(DEADLINE) == 0

        assert is_there(before)
        kill(before)


IDLE: Final = """
    import time

    def Worker():
        time.sleep(1000)
"""


def kill_all_who_bury(running: Pool) -> None:
    """Kill supervisor, undertaker and fork server, none of which has the time to act for another."""
    those = [running.pid, *(running.helper(f'sergeant-linux: {title}') for title in ('undertaker', 'fork server'))]
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for pid in those:
            kill(pid, signum)
    running.process.wait(DEADLINE)


def test_what_a_predecessor_has_left_is_ended_at_the_start(tmp_path: Path) -> None:
    (tmp_path / 'one').mkdir()
    (tmp_path / 'two').mkdir()
    os.mkfifo(tmp_path / 'one' / 'cue')
    with pool(tmp_path / 'one', BROODER, memory_backend='rss') as predecessor:
        brood = brood_of(predecessor)
        kill_all_who_bury(predecessor)
        assert any(map(is_there, brood))

        with pool(tmp_path / 'two', IDLE, memory_backend='rss') as running:
            (record,) = running.wait_for('leftovers')

            has_gone(brood)
            assert record['level'] == 'warning' and record['processes'] >= 14
            running.wait_for('worker-ready')


def test_what_a_living_neighbour_has_started_is_left_alone_at_the_start(brooder: Pool, tmp_path: Path) -> None:
    brood = brood_of(brooder)
    (tmp_path / 'two').mkdir()
    with pool(tmp_path / 'two', IDLE, memory_backend='rss') as running:
        running.wait_for('worker-ready')

        assert not running.find('leftovers')
        assert all(map(is_there, brood))
