"""Any process of ours can be killed at any moment, and the pool holds: nothing survives it, nobody is harmed, it is N again.

Facts: a kill has an effect only where it falls between two steps that belong together, and nobody knows all of these.
Consequence: many kills at random moments, most of them while processes are being born, because there the steps are.
What must hold is asked for after the kills, by looking at /proc and by reading the log as a whole.
Price: a minute or two.
"""

import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from sergeant_linux.kernel import procfs
from tests.scenarios.pool import DEADLINE, Pool, kill, pool, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SUPERVISOR_ROUNDS: Final = 200
HELPER_ROUNDS: Final = 50
HANDS: Final = 3
"""How many pools are tormented at once."""

STUB: Final = 'sergeant.py'
"""An empty module of this name in the working folder: the fork server imports it in no time, so that there are more births a second."""

RESTLESS: Final = '''
    import os, random, subprocess, time

    class Worker:
        """Starts a child that has left the session and one that has lost the environment, says both, and soon fails."""

        def run(self):
            for options in ({'start_new_session': True}, {'env': {}}):
                child = subprocess.Popen(['/bin/sleep', '1000'], **options)
                os.write(1, f'{child.pid}\\n'.encode())
            time.sleep(random.random() / 20)
            os._exit(9)
'''

MIXED: Final = '''
    import os, random, time

    class Worker:
        """In an even slot it stays. In an odd one it leaves soon with 9, again and again, until there is a file `calm`."""

        def run(self):
            if int(os.environ['SERGEANT_WORKER_SLOT']) % 2 == 0 or os.path.exists('calm'):
                while True:
                    time.sleep(1000)
            time.sleep(random.random() / 100)
            os._exit(9)
'''


def lives(pid: int) -> bool:
    stat = procfs.read_stat(pid)
    return stat is not None and stat.state not in 'ZX'


def test_a_supervisor_that_is_killed_at_any_moment_leaves_nothing(tmp_path: Path) -> None:
    """From its first instruction on, while helpers start, while workers are born, while they end."""
    seed = random.randrange(1 << 32)
    moments = random.Random(seed)
    delays = [moments.uniform(0, 0.6) for _ in range(SUPERVISOR_ROUNDS)]

    def kill_one(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / STUB).touch()
        spawn = 'exec' if number % 4 == 3 else 'fork'
        with pool(folder, RESTLESS, concurrent_workers=4, restart_delay=0, spawn=spawn, log_level='error') as running:
            if number % 2:
                running.hear(within=60)  # the second half of the moments: while workers are born and die
            time.sleep(delays[number])
            running.send(signal.SIGKILL)

            running.wait_until_gone()
            running.process.wait()
            unmarked = [int(line) for line in running.said if line]
            try:
                wait_until(lambda: not any(map(lives, unmarked)), f'the end of {unmarked} (round {number}, seed {seed})')
            finally:
                for pid in unmarked:
                    kill(pid)

    with ThreadPoolExecutor(HANDS) as hands:
        list(hands.map(kill_one, range(SUPERVISOR_ROUNDS)))


class Chaos:
    """Kills processes of a pool under load, and knows whom it has killed."""

    def __init__(self, running: Pool) -> None:
        self.running = running
        self.killed: set[int] = set()

    def kill(self, pid: int) -> None:
        self.killed.add(pid)
        kill(pid)

    def kill_titled(self, title: str) -> None:
        """Kill a process with this title. A newborn has the fork server's until it gets one of its own: it is as good."""
        pids = list(self.running.processes(f'sergeant-linux: {title}'))
        if pids:
            self.kill(random.choice(pids))


@contextmanager
def under_load(folder: Path, *, timeout_start: str = '60s') -> Iterator[Chaos]:
    """A pool of six, of which three stay and three die all the time. At the end it must be as it was at the beginning."""
    (folder / STUB).touch()
    with pool(
        folder, MIXED, concurrent_workers=6, restart_delay=0, timeout_start=timeout_start, timeout_stop='2s'
    ) as running:
        running.wait_for('worker-ready', where=lambda record: record['slot'] % 2 == 0, count=3)
        running.wait_for('worker-exit')
        fds_before, steady_before = procfs.open_fds(running.pid), steady(running)
        chaos = Chaos(running)
        yield chaos
        (folder / 'calm').touch()
        wait_until(lambda: is_whole(running), 'a pool that is whole again and calm')
        assert steady(running) == steady_before, 'a worker that was not killed was harmed'
        assert ended_as_they_should(running, chaos.killed)
        assert each_slot_had_one_life_at_a_time(running)
        assert procfs.open_fds(running.pid) <= fds_before + 6  # the three that were between two lives then
        assert running.stop() == 0
        running.wait_until_gone()


def steady(running: Pool) -> list[tuple[int, int]]:
    """Return life and pid of the living workers in the even slots."""
    ended = {record['life'] for record in running.find('worker-exit')}
    return [
        (record['life'], record['pid'])
        for record in running.find('worker-spawn', where=lambda record: record['slot'] % 2 == 0)
        if record['life'] not in ended
    ]


def is_whole(running: Pool) -> bool:
    """Whether the processes of the pool are the supervisor, its two helpers, and the six workers that the log tells of: not one more or less."""
    processes = running.processes()
    workers = {pid for pid, title in processes.items() if title.startswith('sergeant-linux: worker')}
    slots = {processes[pid].split()[-1] for pid in workers}
    helpers = {title for pid, title in processes.items() if pid not in workers and pid != running.pid}
    return (
        len(processes) == 9
        and len(slots) == 6
        and helpers == {'sergeant-linux: fork server', 'sergeant-linux: undertaker'}
        and workers == set(running.workers().values())
        and not zombies(running.pid)
    )


def zombies(parent: int) -> list[int]:
    stats = map(procfs.read_stat, procfs.pids())
    return [stat.pid for stat in stats if stat is not None and stat.ppid == parent and stat.state == 'Z']


def ended_as_they_should(running: Pool, killed: set[int]) -> bool:
    """Whether every worker that has ended was one of those that leave with 9, or was killed by the test."""
    ends = running.find('worker-exit')
    return all((end['return_code'] == 9 and end['slot'] % 2) or end['pid'] in killed for end in ends)


def each_slot_had_one_life_at_a_time(running: Pool) -> bool:
    """Whether in each slot a life was spawned only when the one before had ended."""
    living: dict[int, int] = {}
    for record in list(running.records):
        if record.get('event') == 'worker-spawn':
            if record['slot'] in living:
                return False
            living[record['slot']] = record['life']
        elif record.get('event') == 'worker-exit' and living.pop(record['slot']) != record['life']:
            return False
    return True


@pytest.mark.parametrize('title', ['fork server', 'undertaker'])
def test_a_helper_that_is_killed_at_any_moment_is_replaced_and_no_worker_is_harmed(tmp_path: Path, title: str) -> None:
    """In a few pools at once: a fork server that dies young is replaced after a growing delay, so some live a while."""
    event = title.replace(' ', '-') + '-exit'

    def kill_some(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        with under_load(folder) as chaos:
            for kills in range(1, HELPER_ROUNDS // HANDS + 2):
                while len(chaos.running.find(event)) < kills:
                    chaos.kill_titled(title)
                    time.sleep(0.01)
                spawned = len(chaos.running.find('worker-spawn'))
                chaos.running.wait_for('worker-spawn', count=spawned + 4, within=2 * DEADLINE)
                time.sleep(random.uniform(0, 1.6))

    with ThreadPoolExecutor(HANDS) as hands:
        list(hands.map(kill_some, range(HANDS)))


def births_of(running: Pool) -> Iterator[procfs.Stat]:
    """Find, as often as there is one, an intermediate: a child of the fork server."""
    seen: set[int] = set()
    fork_server = running.helper('sergeant-linux: fork server')
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        new = set(procfs.pids()) - seen
        for pid in sorted(new, reverse=True):
            stat = procfs.read_stat(pid)
            if stat is not None and stat.ppid == fork_server and stat.state != 'Z':
                yield stat
        seen |= new
    raise AssertionError('too few births were seen')


def test_an_intermediate_that_is_killed_at_any_moment_harms_nobody(tmp_path: Path) -> None:
    with under_load(tmp_path) as chaos:
        births = births_of(chaos.running)
        for _ in range(HELPER_ROUNDS):
            chaos.kill(next(births).pid)


def test_a_fork_server_that_is_stopped_for_a_while_comes_back_to_its_work(tmp_path: Path) -> None:
    """What it was asked meanwhile waits."""
    with under_load(tmp_path) as chaos:
        running = chaos.running
        for _ in range(5):
            fork_server = running.helper('sergeant-linux: fork server')
            kill(fork_server, signal.SIGSTOP)
            try:
                wait_until(lambda: len(running.workers()) == 3, 'the end of all that end by themselves')
            finally:
                kill(fork_server, signal.SIGCONT)
            spawned = len(running.find('worker-spawn'))
            running.wait_for('worker-spawn', count=spawned + 4)
        assert not running.find('fork-server-exit')


def test_a_fork_server_that_hangs_is_replaced_and_what_it_was_asked_is_asked_again(tmp_path: Path) -> None:
    with under_load(tmp_path, timeout_start='3s') as chaos:
        running = chaos.running
        fork_server = running.helper('sergeant-linux: fork server')

        kill(fork_server, signal.SIGSTOP)

        running.wait_for('fork-server-exit', pid=fork_server)
        spawned = len(running.find('worker-spawn'))
        running.wait_for('worker-spawn', count=spawned + 4)


def test_everything_at_once(tmp_path: Path) -> None:
    """Fork server, undertaker and what is being born are killed together, again and again; at the end it is N."""
    with under_load(tmp_path) as chaos:
        for _ in range(6):
            chaos.kill_titled('undertaker')
            for pid in chaos.running.processes('sergeant-linux: fork server'):
                chaos.kill(pid)
            spawned = len(chaos.running.find('worker-spawn'))
            chaos.running.wait_for('worker-spawn', count=spawned + 3, within=2 * DEADLINE)


def test_a_thousand_deaths_leave_the_supervisor_as_it_was(tmp_path: Path) -> None:
    with under_load(tmp_path) as chaos:
        chaos.running.wait_for('worker-exit', count=200)
        before = resident(chaos.running.pid)
        chaos.running.wait_for('worker-exit', count=1200, within=120)
        assert resident(chaos.running.pid) - before < 1 << 20, 'it keeps something of each life'


def resident(pid: int) -> int:
    with procfs.Statm(pid) as statm:
        return statm.rss()
