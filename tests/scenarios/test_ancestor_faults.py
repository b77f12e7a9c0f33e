"""What sergeant.supervisor gets wrong, each fault with a test of its own, by the letter it has in our list of them."""

import os
import signal
import statistics
import time
from datetime import datetime
from pathlib import Path

import pytest

from sergeant_linux.kernel import procfs
from tests.scenarios.pool import Pool, Record, kill, pool, wait_until
from tests.worker.queues import Queue

IDLE = """
from tests.scenarios.workers import Tasks as Worker
"""

SLEEPER = """
import time

def Worker():
    print('here', flush=True)
    time.sleep(1000)
"""


def at(record: Record) -> float:
    """Return when a record was written, in seconds."""
    return datetime.fromisoformat(record['time']).timestamp()


def zombies_of(pid: int) -> list[procfs.Stat]:
    """Return the zombie children of a process."""
    stats = [stat for each in procfs.pids() if (stat := procfs.read_stat(each)) is not None]
    return [stat for stat in stats if stat.ppid == pid and stat.state == 'Z']


@pytest.mark.parametrize(
    ('source', 'return_code'),
    [
        (None, 2),
        ('import no_such_module', 2),
        ('Workers = 1', 3),
        ('1 / 0', 7),
        ('def Worker(:', 7),
        ('raise BaseException("no Exception")', 7),
    ],
    ids=['no module', 'no module inside of the module', 'no class', 'import error', 'syntax error', 'base exception'],
)
def test_a_workers_that_cannot_be_loaded_are_told_by_the_exit_status(
    tmp_path: Path, source: str | None, return_code: int
) -> None:
    with pool(tmp_path, source, concurrent_workers=4) as running:
        assert running.exit_status() == 1

        (ending,) = running.find('worker-exit')
        assert (ending['return_code'], ending['result']) == (return_code, 'exit-code')
        assert len(running.find('worker-spawn')) == 1


def test_b_a_killed_worker_is_replaced_at_once(tmp_path: Path) -> None:
    source = """
        import time
        print('first line at', time.monotonic(), flush=True)

        def Worker():
            time.sleep(1000)
    """
    delays = []
    with pool(tmp_path, source, restart_delay=0) as running:
        for life in range(1, 10):
            running.wait_for('worker-ready', life=life)
            killed_at = time.monotonic()
            kill(running.workers()[life])
            lines = running.hear('first line at', count=life + 1)
            delays.append(float(lines[-1].split()[-1]) - killed_at)

    assert statistics.median(delays) < 0.1, delays  # the ancestor's: 0.47


def test_c_a_killed_supervisor_leaves_no_process_behind(tmp_path: Path) -> None:
    source = """
        import subprocess, time

        def Worker():
            subprocess.Popen(['sleep', '1000'])
            subprocess.Popen(['sleep', '1000'], start_new_session=True)
            print('here', flush=True)
            time.sleep(1000)
    """
    with pool(tmp_path, source, concurrent_workers=4) as running:
        running.hear('here', count=4)
        wait_until(lambda: len(running.processes('sleep')) == 8, 'the children')

        running.send(signal.SIGKILL)

        running.wait_until_gone()


def test_d_a_worker_that_fails_with_a_huge_text_is_reported_and_replaced(tmp_path: Path) -> None:
    source = """
        class Worker:
            def run(self):
                raise ValueError('x' * 2_000_000)
    """
    with pool(tmp_path, source) as running:
        running.wait_for('worker-spawn', count=2)

        (ending,) = running.find('worker-exit', life=1)
        assert ending['return_code'] == 1
        assert ending['exception'].startswith("ValueError('xxx")
        assert ending['exception'].endswith('more characters]')
        assert 10_000 < len(ending['exception']) < 65_536
        assert ending['summary']['stacktrace'].startswith('Traceback (most recent call last)')


def test_e_workers_that_fail_at_once_are_no_restart_storm(tmp_path: Path) -> None:
    source = """
        import os

        def Worker():
            os._exit(9)
    """
    with pool(tmp_path, source, concurrent_workers=4, restart_delay=0.1, restart_max_delay=0.4) as running:
        running.wait_for('worker-spawn', where=lambda record: record['slot'] == 3, count=6)

        for slot in range(4):
            endings = running.find('worker-exit', slot=slot)
            starts = running.find('worker-spawn', slot=slot)
            for ending, start, nominal in zip(endings, starts[1:], [0.1, 0.2, 0.4, 0.4, 0.4], strict=False):
                assert ending['restart_in_seconds'] == pytest.approx(nominal, rel=0.11)
                assert at(start) - at(ending) >= ending['restart_in_seconds'] - 0.002  # the log's milliseconds


@pytest.mark.slow
def test_f_no_exit_status_is_lost_or_wrong_in_a_thousand(tmp_path: Path) -> None:
    source = """
        import os

        def Worker():
            os._exit(9)
    """
    with pool(tmp_path, source, concurrent_workers=4, restart_delay=0, log_level='info') as running:
        running.wait_for('worker-exit', count=10)
        fds = procfs.open_fds(running.pid)
        running.wait_for('worker-exit', count=1000, within=60)

        assert procfs.open_fds(running.pid) <= fds + 12  # 4 lives: each a gate (two ends before the birth) and a pidfd
        wait_until(lambda: len(zombies_of(running.pid)) < 4, 'zombies to be reaped')
        assert running.stop() == 0

        endings, births = running.find('worker-exit'), running.find('worker-spawn')
        assert len(endings) >= 1000
        asked = [ending for ending in endings if ending['request'] is not None]
        assert len(asked) <= 4
        assert {ending['return_code'] for ending in endings if ending not in asked} == {9}
        assert sorted(ending['life'] for ending in endings) == sorted(birth['life'] for birth in births)


def test_g_a_worker_that_ignores_sigterm_is_killed_in_time(tmp_path: Path) -> None:
    source = """
        import signal, time

        def Worker():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print('here', flush=True)
            while True:
                time.sleep(1000)
    """
    with pool(tmp_path, source, timeout_stop='300ms') as running:
        running.hear('here')
        assert running.stop() == 0

        (asked,) = running.find('stop')
        (killed,) = running.find('worker-kill')
        (ending,) = running.find('worker-exit')
        assert at(killed) - at(asked) == pytest.approx(0.3, abs=0.15)
        assert (ending['result'], ending['signal'], ending['return_code']) == ('timeout', 'SIGKILL', None)


def test_h_ctrl_c_lets_workers_finish_and_leaves_no_grandchild(tmp_path: Path, queue: Queue) -> None:
    source = """
        import subprocess, time
        from tests.scenarios.workers import Tasks

        class Worker(Tasks):
            def do(self, task):
                subprocess.Popen(['sleep', '1000'])
                time.sleep(0.5)
    """
    queue.push(1, 2, 3)
    with pool(tmp_path, source, concurrent_workers=2, environ=queue.environ) as running:
        running.hear('begun', count=2)

        os.killpg(running.pid, signal.SIGINT)  # as the terminal does it
        assert running.exit_status() == 0
        running.wait_until_gone()

        assert sorted(running.said) == ['begun 1', 'begun 2', 'done 1', 'done 2']
    assert queue.take_all() == [3]


def test_i_a_worker_is_told_to_stop_once(tmp_path: Path) -> None:
    source = """
        import signal, time
        from tests.scenarios.workers import say

        told = []

        def count(*_):
            told.append('told')

        def Worker():
            signal.signal(signal.SIGTERM, count)
            say('here')
            while not told:
                time.sleep(0.01)
            end = time.monotonic() + 1.2  # the ancestor tells it again each half second
            while time.monotonic() < end:
                time.sleep(0.1)
            say(*told)
    """
    with pool(tmp_path, source) as running:
        running.hear('here')
        assert running.stop() == 0

        assert running.said == ['here', 'told']


def test_j_the_memory_of_a_workers_children_counts_when_it_is_asked_to(tmp_path: Path) -> None:
    source = """
        import subprocess, sys, time

        def Worker():
            subprocess.Popen([sys.executable, '-c', 'import time; hog = b"x" * 200_000_000; time.sleep(1000)'])
            time.sleep(1000)
    """
    with pool(tmp_path, source, max_worker_memory_usage='150M', memory_measure='tree') as running:
        (ending, *_) = running.wait_for('worker-exit')

        assert ending['result'] == 'memory-max'
        assert ending['max_rss_bytes'] > 150 * 1024**2
        size = ending['max_rss_bytes']
        assert ending['message'] == f'worker({ending["pid"]}) exceeded the maximum memory limit: {size}'


HOSTILE = """
    import glob, json, os, pickle, socket, time, array
    from sergeant_linux.wire import gate as gates

    class Code:
        def __reduce__(self):
            return os.system, ('touch was_run',)

    def flood(gate, message):
        gate.setblocking(False)
        for _ in range(20_000):
            try:
                gate.send(message)
            except BlockingIOError:
                time.sleep(0)

    def Worker():
        if os.environ['SERGEANT_WORKER_SLOT'] == '0':
            time.sleep(1000)
        (gate,) = [socket.socket(fileno=fd) for fd in range(3, 20) if os.path.exists(f'/proc/self/fd/{fd}')
                   and os.readlink(f'/proc/self/fd/{fd}').startswith('socket:')]
        for message in (
            pickle.dumps(Code()),
            pickle.dumps({'return_code': Code()}),
            b'\\0' * 60_000,
            b'\\xff\\xfe',
            b'[' * 50_000,
            b'9' * 50_000,
            b'{}',
            b'[]',
            b'null',
            b'{"type": 1}',
            b'{"type": "go", "module": "os", "class": "abort", "slot": 1, "life": 1, "pool": ""}',
            b'{"type": "hello", "pid": 1}',
            b'{"type": "ready", "drain": [[[]]]}',
            b'{"type": "spawn", "life": 1}',
            b'{"type": "refused"}',
            b'{"type": "x' + b'y' * 100_000 + b'"}',
        ):
            gate.send(message)
        socket.send_fds(gate, [b'{"type": "ready"}'], [0, 1, 2] * 10)
        print('hostile', flush=True)
        flood(gate, b'{"type": "ready", "drain": true}')
        flood(gate, pickle.dumps(Code()))
        gate.setblocking(True)
        gate.send(json.dumps({
            'type': 'final', 'return_code': 'x' * 100, 'exception': {'a': 1}, 'stacktrace': 7, 'summary': [1, 2],
            'unkillable_threads': {'x': 1}, 'received_stop_signal': 'yes',
        }).encode())
        os._exit(5)
"""


def test_k_a_report_is_data_and_no_worker_can_harm_the_supervisor_with_it(tmp_path: Path) -> None:
    with pool(tmp_path, HOSTILE, concurrent_workers=2) as running:
        running.hear('hostile')
        running.send(signal.SIGUSR1)
        running.wait_for('slot-status', count=2)  # in the middle of the flood

        ending, *_ = running.wait_for('worker-exit')
        assert not (tmp_path / 'was_run').exists()
        assert running.find('malformed-reports')
        assert ending['slot'] == 1
        fds = procfs.open_fds(running.pid)
        assert fds < 25, 'descriptors that came with a report are kept'
        assert running.exit_status() == 0  # code 5: it wants the pool to stop, as it may


def test_l_blanks_and_quotes_in_a_path_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / 'a "folder" with $HOME; and \'quotes\''
    folder.mkdir()
    with pool(folder, SLEEPER) as running:
        running.hear('here')
        running.wait_for('worker-ready')
        assert running.stop() == 0


def voluntary_switches(pids: list[int]) -> dict[int, str]:
    """Return how often each process has given up the processor of its own will, as its status says."""
    counts = {}
    for pid in pids:
        for line in Path(f'/proc/{pid}/status').read_text().splitlines():
            if line.startswith('voluntary_ctxt_switches'):
                counts[pid] = line.split()[1]
    return counts


def idlers(running: Pool) -> list[int]:
    """Return the pids of our own processes: supervisor, fork server, undertaker."""
    return [running.pid, running.helper('sergeant-linux: fork server'), running.helper('sergeant-linux: undertaker')]


@pytest.mark.parametrize('spawn', ['fork', 'exec'])
def test_m_an_idle_pool_makes_no_context_switch(tmp_path: Path, spawn: str) -> None:
    with pool(tmp_path, IDLE, concurrent_workers=4, spawn=spawn) as running:
        running.wait_for('worker-ready', count=4)
        before = wait_until(lambda: steady(running), 'the pool to be idle')

        time.sleep(1.5)  # that nothing happens can only be seen by letting time pass

        assert voluntary_switches(list(before)) == before


def steady(running: Pool) -> dict[int, str] | None:
    """Return the counts once they are the same for a moment: the births are over."""
    counts = voluntary_switches(idlers(running))
    time.sleep(0.1)
    return counts if counts == voluntary_switches(list(counts)) else None
