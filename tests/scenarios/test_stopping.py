"""How a pool stops, and what must not stop it: signals, grace, patience, a log that nobody reads."""

import fcntl
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from sergeant_linux.engine.runner import TOGETHER
from tests.scenarios.pool import ROOT, Pool, kill, pool, wait_until
from tests.worker.queues import Queue

SLEEPER: Final = """
import time

def Worker():
    print('here', flush=True)
    time.sleep(1000)
"""

IDLE: Final = """
from tests.scenarios.workers import Tasks as Worker
"""

STUBBORN: Final = """
import os, signal, subprocess, time

def Worker():
    signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'told' + bytes([10])))
    subprocess.Popen(['sleep', '1000'])
    subprocess.Popen(['sleep', '1000'], start_new_session=True)
    print('here', flush=True)
    while True:
        signal.pause()
"""

QUICK_TASKS: Final = """
import time
from tests.scenarios.workers import Tasks

class Worker(Tasks):
    def do(self, task):
        time.sleep(0.02)
"""


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT])
def test_a_stop_waits_for_the_task_in_hand_and_begins_no_task_twice(tmp_path: Path, queue: Queue, signum: int) -> None:
    queue.push(*range(200))
    with pool(tmp_path, QUICK_TASKS, concurrent_workers=3, environ=queue.environ) as running:
        running.hear('done', count=20)

        assert running.stop(signum) == 0

        (stop,) = running.find('stop')
        assert stop['message'] == f'{signal.Signals(signum).name} was received, triggering a stopping process'
        assert [ending['return_code'] for ending in running.find('worker-exit')] == [5, 5, 5]
        assert [ending['result'] for ending in running.find('worker-exit')] == ['success'] * 3
        words = [line.split() for line in running.said]
        begun = Counter(int(id_) for word, id_ in words if word == 'begun')
        done = Counter(int(id_) for word, id_ in words if word == 'done')
    left = queue.take_all()
    assert begun == done
    assert set(done.values()) == {1}
    assert sorted([*done, *left]) == list(range(200))


def test_idle_workers_leave_at_once_whatever_the_patience_is(tmp_path: Path) -> None:
    with pool(tmp_path, IDLE, concurrent_workers=4, timeout_stop='1h') as running:
        running.wait_for('worker-ready', count=4)
        began = time.monotonic()

        assert running.stop() == 0

        assert time.monotonic() - began < 1.0
        assert len(running.find('worker-exit', return_code=5, request='stop')) == 4


def test_the_supervisor_leaves_the_moment_the_last_worker_is_gone(tmp_path: Path) -> None:
    source = """
        import signal, sys, time
        from tests.scenarios.workers import say

        def leave(*_):
            time.sleep(0.3)
            say('left at', time.monotonic())
            sys.exit(0)

        def Worker():
            signal.signal(signal.SIGTERM, leave)
            print('here', flush=True)
            time.sleep(1000)
    """
    with pool(tmp_path, source, concurrent_workers=2, timeout_stop='1min') as running:
        running.hear('here', count=2)
        assert running.stop() == 0
        now = time.monotonic()

        last = max(float(line.split()[-1]) for line in running.hear('left at', count=2))
        assert now - last < 0.5


def test_a_worker_that_cannot_drain_is_told_once_and_at_once(tmp_path: Path) -> None:
    source = """
        import signal, time
        from tests.scenarios.workers import say

        told = []

        def count(*_):
            told.append(time.monotonic())
            say('told at', told[-1])

        def Worker():
            signal.signal(signal.SIGTERM, count)
            say('here')
            while not told:
                time.sleep(0.01)
            while time.monotonic() < told[0] + 0.8:
                time.sleep(0.1)
    """
    with pool(tmp_path, source, timeout_stop='1s') as running:
        running.hear('here')
        began = time.monotonic()
        assert running.stop() == 0

        (told,) = [line for line in running.said if line.startswith('told')]
        assert float(told.split()[-1]) - began < 0.4, 'at once, not after half of the patience'
        (ending,) = running.find('worker-exit')
        assert (ending['return_code'], ending['result'], ending['request']) == (0, 'success', 'stop')


def test_a_draining_worker_is_told_once_after_half_of_the_patience_and_its_task_goes_back(
    tmp_path: Path, queue: Queue
) -> None:
    source = """
        import time
        from tests.scenarios.workers import Tasks, say

        class Worker(Tasks):
            def do(self, task):
                try:
                    time.sleep(1000)
                finally:
                    say('interrupted at', time.monotonic())

            def finalize(self):
                say('finalized')
    """
    queue.push(1)
    with pool(tmp_path, source, environ=queue.environ, timeout_stop='1s') as running:
        running.hear('begun')
        began = time.monotonic()
        assert running.stop() == 0

        (interrupted,) = [line for line in running.said if line.startswith('interrupted')]
        assert float(interrupted.split()[-1]) - began == pytest.approx(0.5, abs=0.2)
        assert running.said[-1] == 'finalized'
        (ending,) = running.find('worker-exit')
        assert (ending['return_code'], ending['result']) == (5, 'success')
    assert queue.take_all() == [1]


def test_at_the_end_of_the_patience_the_worker_is_killed_with_what_it_has_started(tmp_path: Path) -> None:
    with pool(tmp_path, STUBBORN, concurrent_workers=2, timeout_stop='400ms') as running:
        running.hear('here', count=2)
        began = time.monotonic()

        assert running.stop() == 0

        assert 0.4 <= time.monotonic() - began < 2
        assert running.said.count('told') == 2
        for ending in running.find('worker-exit'):
            assert (ending['result'], ending['signal'], ending['return_code']) == ('timeout', 'SIGKILL', None)
            assert ending['message'] == f'worker({ending["pid"]}) execution has been interrupted with return code: -9'
        kills = [record['message'] for record in running.find('worker-kill')]
        assert sorted(kills) == sorted(f'killing a worker: {record["pid"]}' for record in running.find('worker-exit'))
        running.wait_until_gone(0.5)


@pytest.mark.parametrize(
    ('first', 'second'),
    [
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGTERM, signal.SIGQUIT),
        (None, signal.SIGQUIT),
    ],
)
def test_a_second_signal_or_sigquit_kills_now(tmp_path: Path, first: int | None, second: int) -> None:
    with pool(tmp_path, STUBBORN, concurrent_workers=2, timeout_stop='1h') as running:
        running.hear('here', count=2)
        if first is not None:
            running.send(first)
            running.hear('told', count=2)
            time.sleep(1.5 * TOGETHER)

        assert running.stop(second, within=3) == 0

        assert [ending['signal'] for ending in running.find('worker-exit')] == ['SIGKILL', 'SIGKILL']
        running.wait_until_gone(0.5)


@pytest.mark.parametrize('second', [signal.SIGTERM, signal.SIGINT])
def test_two_stop_signals_at_once_are_one(tmp_path: Path, second: int) -> None:
    """As of timeout(1), which signals its command and then the whole group."""
    with pool(tmp_path, STUBBORN, concurrent_workers=2, timeout_stop='1h') as running:
        running.hear('here', count=2)

        running.send(signal.SIGTERM)
        running.send(second)

        running.hear('told', count=2)
        assert not running.find('kill')
        assert running.stop(signal.SIGQUIT, within=3) == 0


def test_a_burst_of_signals_at_the_start_of_the_pool_is_obeyed(tmp_path: Path) -> None:
    for delay in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4):
        with pool(tmp_path, SLEEPER, concurrent_workers=2) as running:
            time.sleep(delay)  # this is about moments, whatever they are
            running.send(signal.SIGTERM)
            running.send(signal.SIGTERM)
            assert running.exit_status(within=5) in (0, -signal.SIGTERM)  # the latter: Python itself was not up yet
            running.wait_until_gone(1)


def test_ctrl_c_reaches_the_supervisor_alone(tmp_path: Path) -> None:
    source = """
        import signal, time
        from tests.scenarios.workers import say

        def Worker():
            for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP):
                signal.signal(signum, lambda signum, _: say('got', signum))
            print('here', flush=True)
            time.sleep(1000)
    """
    with pool(tmp_path, source, concurrent_workers=2) as running:
        running.hear('here', count=2)

        os.killpg(running.pid, signal.SIGHUP)
        os.killpg(running.pid, signal.SIGINT)

        assert running.exit_status() == 0
        assert running.said == ['here', 'here']
        assert not running.find('fork-server-exit') + running.find('undertaker-exit')


def test_sigusr1_logs_one_line_for_each_slot(tmp_path: Path) -> None:
    source = """
        import os, time

        def Worker():
            if os.environ['SERGEANT_WORKER_LIFE'] == '2':
                os._exit(9)
            time.sleep(1000)
    """
    with pool(tmp_path, source, concurrent_workers=3, restart_delay='20ms') as running:
        running.wait_for('worker-ready', count=4)

        running.send(signal.SIGUSR1)

        slots = running.wait_for('slot-status', count=3)
        pids = {record['slot']: record['pid'] for record in running.find('worker-spawn')}
        assert [(slot['slot'], slot['state'], slot['pid']) for slot in slots] == [
            (number, 'running', pids[number]) for number in range(3)
        ]
        assert [slot['restarts'] for slot in slots] == [0, 1, 0]
        assert [slot['last_result'] for slot in slots] == [None, 'exit-code', None]
        for slot in slots:
            assert slot['rss_bytes'] > 1024**2
            assert re.fullmatch(
                rf'slot {slot["slot"]}: running, pid {slot["pid"]}, life \d, up [\d.a-z ]+, memory [\d.]+[KMG], '
                r'cpu [\d.a-z ]+, '
                r'restarts \d(, last result exit-code)?',
                slot['message'],
            ), slot['message']


def test_a_psutil_that_cannot_be_imported_costs_figures_and_not_the_pool(tmp_path: Path) -> None:
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / 'psutil.py').write_text('raise ImportError("not for this Python")')
    with pool(tmp_path, SLEEPER, environ={'PYTHONPATH': f'{tmp_path}/broken:{ROOT}'}) as running:
        running.hear('here')
        running.send(signal.SIGUSR1)

        (slot,) = running.wait_for('slot-status')
        assert slot['state'] == 'running'
        assert 'rss_bytes' not in slot
        assert running.stop() == 0


def test_sigttin_and_sigttou_are_one_worker_more_and_one_less(tmp_path: Path) -> None:
    with pool(tmp_path, IDLE, concurrent_workers=1) as running:
        running.wait_for('worker-ready')

        running.send(signal.SIGTTIN)
        running.wait_for('worker-ready', count=2)
        running.send(signal.SIGTTIN)
        running.wait_for('worker-ready', count=3)
        assert sorted(record['slot'] for record in running.find('worker-spawn')) == [0, 1, 2]

        running.send(signal.SIGTTOU)
        (ending,) = running.wait_for('worker-exit')
        assert (ending['slot'], ending['return_code']) == (2, 5)
        assert (ending['request'], ending['result']) == ('scale-down', 'success')
        running.send(signal.SIGTTOU)
        running.wait_for('worker-exit', count=2)
        running.send(signal.SIGTTOU)
        running.wait_for('scale', before=1, after=1)

        running.send(signal.SIGUSR1)
        running.wait_for('slot-status')
        assert running.stop() == 0
        assert len(running.find('slot-status')) == 1
        assert len(running.find('worker-spawn')) == 3
        assert not running.find('worker-exit-detail'), 'a stranger is blamed'


def test_a_worker_that_is_one_too_many_finishes_its_task(tmp_path: Path, queue: Queue) -> None:
    source = """
        import os, time
        from tests.scenarios.workers import Tasks

        class Worker(Tasks):
            def do(self, task):
                while not os.path.exists('go'):
                    time.sleep(0.01)
    """
    queue.push(1, 2)
    with pool(tmp_path, source, concurrent_workers=2, environ=queue.environ) as running:
        running.hear('begun', count=2)
        running.send(signal.SIGTTOU)
        running.wait_for('scale', before=2, after=1)
        assert not running.find('worker-exit')

        (tmp_path / 'go').touch()

        running.wait_for('worker-exit', slot=1, return_code=5, request='scale-down')
        assert running.stop() == 0
        assert Counter(running.said) == Counter(['begun 1', 'begun 2', 'done 1', 'done 2'])


@pytest.mark.parametrize('signum', [signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR2, signal.SIGURG, signal.SIGWINCH])
def test_a_signal_that_asks_for_nothing_changes_nothing(tmp_path: Path, signum: int) -> None:
    with pool(tmp_path, SLEEPER) as running:
        running.hear('here')

        running.send(signum)
        running.send(signal.SIGUSR1)

        running.wait_for('slot-status', state='running')
        assert not running.find('worker-exit')
        assert running.stop() == 0


def test_a_stopped_supervisor_goes_on_where_it_was(tmp_path: Path) -> None:
    with pool(tmp_path, SLEEPER, concurrent_workers=2, restart_delay=0) as running:
        running.hear('here', count=2)
        running.wait_for('worker-spawn', count=2)
        running.send(signal.SIGSTOP)
        for pid in running.workers().values():
            kill(pid)

        running.send(signal.SIGCONT)

        running.hear('here', count=4)
        assert running.stop() == 0


# A log that nobody reads.

FAILING: Final = """
import os, time

def Worker():
    os.write(1, b'%s\\n' % os.environ['SERGEANT_WORKER_LIFE'].encode())
    time.sleep(0.002)
    raise ValueError('x' * 5_000)
"""


def test_a_closed_stderr_pipe_does_no_harm(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with pool(tmp_path, FAILING, concurrent_workers=2, restart_delay=0, stderr=writer) as running:
        os.close(writer)
        running.hear(count=5)

        os.close(reader)

        running.hear(count=len(running.said) + 20)
        assert running.stop() == 0


@pytest.mark.parametrize('closed', [(2,), (0, 1, 2)])
def test_closed_standard_streams_do_no_harm(tmp_path: Path, closed: tuple[int, ...]) -> None:
    program = (
        f'import os; [os.close(fd) for fd in {closed}];'
        'import sergeant_linux.supervisor; sergeant_linux.supervisor.main()'
    )
    source = """
        import os, time

        def Worker():
            for fd in (0, 1, 2):
                os.fstat(fd)
            streams = ' '.join(os.readlink(f'/proc/self/fd/{fd}') for fd in (0, 1, 2))
            with open('here.' + os.environ['SERGEANT_WORKER_LIFE'], 'w') as file:
                file.write(streams)
            time.sleep(1000)
    """
    with pool(tmp_path, source, concurrent_workers=2, command=['-c', program]) as running:
        wait_until(lambda: len(list(tmp_path.glob('here.*'))) == 2, 'the workers')
        assert running.stop() == 0

        streams = (tmp_path / 'here.1').read_text().split()
        assert all(streams[fd] == '/dev/null' for fd in closed)


@pytest.mark.slow
def test_a_full_stderr_blocks_nobody_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    with full_pipe() as (reader, writer):
        with pool(tmp_path, FAILING, concurrent_workers=2, restart_delay=0, stderr=writer) as running:
            running.hear(count=200, within=30)  # some 20 KB of log each
            log = os.fdopen(os.dup(reader), 'rb')
            lines: list[bytes] = []
            while not any(b'log lines were lost' in line for line in lines):
                lines.append(log.readline())

            running.send(signal.SIGTERM)
            os.close(writer)
            lines += log
            log.close()
            assert running.exit_status() == 0

    text = b''.join(lines).decode()
    lost = sum(map(int, re.findall(r'(\d+) log lines were lost: stderr was full', text)))
    assert lost > 0
    assert all(line.startswith(b'{') and line.endswith(b'}\n') for line in lines), 'a line is torn'
    lives = int(running.said[-1])
    ends = text.count('"worker-exit"')
    assert ends < lives, 'nothing was lost?'


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """A small pipe; the writer's end is closed by the test."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield reader, writer
    finally:
        os.close(reader)


def test_a_stop_with_a_full_stderr_is_not_held_up(tmp_path: Path) -> None:
    with full_pipe() as (_, writer):
        with pool(tmp_path, FAILING, concurrent_workers=2, restart_delay=0, stderr=writer) as running:
            os.close(writer)
            running.hear(count=20)
            began = time.monotonic()

            assert running.stop() == 0

            assert time.monotonic() - began < 3


def test_a_terminal_that_is_closed_does_no_harm(tmp_path: Path) -> None:
    master, slave = os.openpty()
    with pool(tmp_path, FAILING, concurrent_workers=2, restart_delay=0, stderr=slave) as running:
        os.close(slave)
        assert os.read(master, 100)

        os.close(master)

        running.hear(count=len(running.said) + 20)
        assert running.stop() == 0


def test_workers_prints_and_the_log_share_a_file_without_tearing(tmp_path: Path) -> None:
    source = """
        import sys, time

        def Worker():
            for _ in range(200):
                print('p' * 100, file=sys.stderr, flush=True)
            raise ValueError('x' * 1_000)
    """
    with (tmp_path / 'log').open('wb') as log:
        with pool(tmp_path, source, concurrent_workers=2, restart_delay=0, stderr=log.fileno()) as running:
            wait_until(lambda: (tmp_path / 'log').read_bytes().count(b'worker-exit') > 20, 'the log to grow')
            assert running.stop() == 0

    lines = (tmp_path / 'log').read_text().splitlines()
    whole = [line for line in lines if line == 'p' * 100 or (line.startswith('{') and line.endswith('}'))]
    assert len(whole) == len(lines)


def test_a_stop_in_a_storm_of_failures_leaves_nothing(tmp_path: Path) -> None:
    source = """
        import os, subprocess

        def Worker():
            subprocess.Popen(['sleep', '1000'], start_new_session=True)
            os._exit(9)
    """
    with pool(tmp_path, source, concurrent_workers=4, restart_delay=0) as running:
        running.wait_for('worker-exit', count=30)

        assert running.stop() == 0

        running.wait_until_gone(0.5)


def last_lines(running: Pool) -> list[str]:
    return [record['message'] for record in running.records[-2:]]


def test_a_stop_before_the_first_worker_is_ready_is_an_orderly_one(tmp_path: Path) -> None:
    source = """
        import time

        print('importing', flush=True)
        time.sleep(1000)
    """
    with pool(tmp_path, source, concurrent_workers=3) as running:
        running.hear('importing')

        assert running.stop() == 0

        assert len(running.find('worker-spawn')) == 1
        (ending,) = running.find('worker-exit')
        assert (ending['signal'], ending['request']) == ('SIGTERM', 'stop')
        assert last_lines(running) == ['no more workers to supervise', 'exiting...']


def test_a_stop_while_slots_wait_for_their_restart_is_immediate(tmp_path: Path) -> None:
    source = """
        import os

        def Worker():
            os._exit(9)
    """
    with pool(tmp_path, source, concurrent_workers=2, restart_delay='30s') as running:
        running.wait_for('worker-exit', count=2)
        began = time.monotonic()

        assert running.stop() == 0

        assert time.monotonic() - began < 1
        assert len(running.find('worker-exit')) == 2


def test_two_pools_side_by_side_are_no_business_of_each_other(tmp_path: Path) -> None:
    with pool(tmp_path, STUBBORN, concurrent_workers=2) as one, pool(tmp_path, STUBBORN, timeout_stop='200ms') as other:
        one.hear('here', count=2)
        other.hear('here')
        assert other.stop() == 0
        other.wait_until_gone(0.5)

        assert not one.find('worker-exit')
        assert len(one.processes('sleep')) == 4
        one.send(signal.SIGQUIT)
        assert one.exit_status() == 0
