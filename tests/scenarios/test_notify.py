"""A pool under a service manager: a real one is told of over a socket that the test has bound."""

import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.scenarios.pool import DEADLINE, Pool, pool

Message = dict[str, str]

WORKER: Final = """
import os, time
from pathlib import Path
import sergeant_linux

class Worker:
    calls_ready = True

    def run(self):
        while Path('hang').exists():
            time.sleep(0.005)
        sergeant_linux.ready()
        time.sleep(1000)
"""

TELLS: Final = """
import os, time

TOLD = sorted(name for name in os.environ if name.startswith(('NOTIFY_', 'WATCHDOG_', 'LISTEN_', 'JOURNAL_')))
print('imported with', *TOLD, flush=True)

class Worker:
    def run(self):
        environ = open('/proc/self/environ').read()
        print('runs with', *TOLD, 'NOTIFY_SOCKET' in environ, flush=True)
        time.sleep(1000)
"""


class Manager:
    """The end of the socket that systemd has."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.said: list[Message] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(where.replace('@', '\0', 1))

    def environ(self, **more: str) -> dict[str, str]:
        return {'NOTIFY_SOCKET': self.where, **more}

    def wait_for(self, key: str, value: str = '', within: float = DEADLINE) -> Message:
        """Wait until `key` is said, with a value that contains this, and return the message; earlier ones are passed
        over."""
        deadline = time.monotonic() + within
        while True:
            left = deadline - time.monotonic()
            assert left > 0, f'{key}={value} was never said, but {self.said}'
            message = self.hear(left)
            if key in message and value in message[key]:
                return message

    def hear(self, within: float) -> Message:
        """Return the next message; an empty one when there is none in time."""
        self._socket.settimeout(within)
        try:
            text = self._socket.recv(65536).decode()
        except TimeoutError:
            return {}
        self.said.append(dict(line.split('=', 1) for line in text.removesuffix('\n').split('\n')))
        return self.said[-1]

    def rest(self) -> list[Message]:
        """Return what has been said by now and was not heard."""
        messages = []
        while message := self.hear(0.001):
            messages.append(message)
        return messages

    def close(self) -> None:
        self._socket.close()


def abstract() -> str:
    return f'@sergeant-linux-test-{os.urandom(8).hex()}'


@contextmanager
def managed(folder: Path, worker: str = WORKER, *, watchdog: float = 0, **flags: Any) -> Iterator[tuple[Manager, Pool]]:
    """Run a pool under a manager, which wants a sign of life within `watchdog` seconds."""
    manager = Manager(abstract())
    environ = manager.environ(**({'WATCHDOG_USEC': str(int(watchdog * 1e6))} if watchdog else {}))
    try:
        with pool(folder, worker, environ=environ, **flags) as running:
            yield manager, running
    finally:
        manager.close()


def phases(messages: list[Message]) -> list[str]:
    return [key for message in messages for key in message if key in ('READY', 'RELOADING', 'STOPPING')]


@pytest.fixture(params=['path', 'abstract'])
def manager(request: pytest.FixtureRequest) -> Iterator[Manager]:
    # the folder of a test has a longer path than a socket may have
    with tempfile.TemporaryDirectory(prefix='sgt-') as folder:
        manager = Manager(f'{folder}/notify' if request.param == 'path' else abstract())
        yield manager
        manager.close()


def test_a_pool_tells_of_its_whole_life(tmp_path: Path, manager: Manager) -> None:
    (tmp_path / 'hang').touch()
    with pool(tmp_path, WORKER, concurrent_workers=2, environ=manager.environ()) as running:
        manager.wait_for('STATUS', 'starting: 0 of 2 workers are ready')
        running.wait_for('worker-spawn')
        assert phases(manager.said + manager.rest()) == []
        (tmp_path / 'hang').unlink()
        manager.wait_for('READY')
        manager.wait_for('STATUS', '2 of 2 workers are ready; memory by ')

        began = time.monotonic_ns() // 1000
        running.send(signal.SIGHUP)
        reloading = manager.wait_for('RELOADING')
        assert began <= int(reloading['MONOTONIC_USEC']) <= time.monotonic_ns() // 1000
        assert manager.wait_for('READY')['STATUS'].startswith('2 of 2 workers are ready')

        running.send(signal.SIGTERM)
        stopping = manager.wait_for('STOPPING')
        assert stopping['STATUS'].startswith('stopping: ')
        assert 8_000_000 < int(stopping['EXTEND_TIMEOUT_USEC']) < 20_000_000
        assert running.exit_status() == 0
        manager.rest()
    assert phases(manager.said) == ['READY', 'RELOADING', 'READY', 'STOPPING']
    assert not any('WATCHDOG' in message for message in manager.said)


def test_a_reload_to_broken_code_ends_in_ready_and_the_status_tells_why(tmp_path: Path) -> None:
    with managed(tmp_path, preload=True) as (manager, running):
        manager.wait_for('READY')
        (tmp_path / 'worker.py').write_text('import no_such_module\n')
        running.send(signal.SIGHUP)
        manager.wait_for('RELOADING')

        ended = manager.wait_for('READY')

        assert 'the last reload has failed: ' in ended['STATUS']
        assert 'no_such_module' in ended['STATUS']


def test_a_pool_whose_workers_can_not_be_loaded_is_never_ready(tmp_path: Path) -> None:
    with managed(tmp_path, 'import no_such_module\n') as (manager, running):
        assert running.exit_status() == 1
        assert 'READY' not in phases(manager.rest())


def test_all_workers_are_waited_for_where_that_is_asked_for(tmp_path: Path) -> None:
    worker = WORKER.replace("while Path('hang').exists()", "while int(os.environ['SERGEANT_WORKER_SLOT']) and Path('hang').exists()")
    (tmp_path / 'hang').touch()
    with managed(tmp_path, worker, concurrent_workers=2, ready_when='all') as (manager, _):
        manager.wait_for('STATUS', 'starting: 1 of 2 workers are ready')
        assert phases(manager.said) == []
        (tmp_path / 'hang').unlink()
        assert manager.wait_for('READY')['STATUS'].startswith('2 of 2 workers are ready')


# The watchdog.


def test_a_supervisor_that_is_stopped_gives_no_sign_of_life(tmp_path: Path) -> None:
    with managed(tmp_path, watchdog=0.2) as (manager, running):
        manager.wait_for('READY')
        for _ in range(3):
            manager.wait_for('WATCHDOG')
        running.send(signal.SIGSTOP)
        os.waitid(os.P_PID, running.pid, os.WSTOPPED | os.WNOWAIT)
        manager.rest()

        assert manager.hear(1.0) == {}

        running.send(signal.SIGCONT)
        manager.wait_for('WATCHDOG')


def test_a_pool_without_its_quorum_gives_no_sign_of_life_until_it_has_it_again(tmp_path: Path) -> None:
    with managed(tmp_path, watchdog=0.2, timeout_start='infinity') as (manager, running):
        manager.wait_for('READY')
        manager.wait_for('WATCHDOG')
        (tmp_path / 'hang').touch()
        os.kill(running.workers()[1], signal.SIGKILL)
        running.wait_for('worker-spawn', count=2)
        manager.wait_for('STATUS', '0 of 1 workers are ready')
        manager.rest()

        assert manager.hear(1.0) == {}

        (tmp_path / 'hang').unlink()
        manager.wait_for('WATCHDOG')


def test_workers_that_fail_and_wait_for_their_restart_are_a_sign_of_life(tmp_path: Path) -> None:
    worker = WORKER.replace('time.sleep(1000)', "time.sleep(1000 if not Path('fail').exists() else 0)\n        os._exit(1)")
    flags = {'restart_delay': '1h', 'restart_max_delay': '1h', 'restart_reset': '1h'}
    (tmp_path / 'fail').touch()
    with managed(tmp_path, worker, watchdog=0.2, **flags) as (manager, running):
        running.wait_for('worker-exit')
        manager.wait_for('STATUS', '0 of 1 workers are ready')
        manager.rest()

        for _ in range(5):
            manager.wait_for('WATCHDOG')


def test_a_watchdog_of_another_process_is_none_of_ours(tmp_path: Path) -> None:
    manager = Manager(abstract())
    environ = manager.environ(WATCHDOG_USEC='100000', WATCHDOG_PID='1')
    with pool(tmp_path, WORKER, environ=environ) as running:
        manager.wait_for('READY')
        assert all('WATCHDOG' not in message for message in [*manager.rest(), manager.hear(0.5)])
        assert running.stop() == 0
    manager.close()


# What others see.


@pytest.mark.parametrize('spawn', ['fork', 'exec'])
def test_what_was_said_to_the_supervisor_is_not_said_to_workers_or_to_what_is_preloaded(
    tmp_path: Path, spawn: str,
) -> None:
    given = {
        'WATCHDOG_USEC': '30000000', 'LISTEN_PID': '1', 'LISTEN_FDS': '1', 'LISTEN_FDNAMES': 'x',
        'LISTEN_ADDRESS': 'kept', 'WATCHDOG_INTERVAL': 'kept', 'JOURNAL_STREAM': '1:1',
    }
    manager = Manager(abstract())
    preload: dict[str, Any] = {'preload': True} if spawn == 'fork' else {}
    with pool(tmp_path, TELLS, environ=manager.environ(**given), spawn=spawn, **preload) as running:
        kept = 'JOURNAL_STREAM LISTEN_ADDRESS WATCHDOG_INTERVAL'
        assert running.hear('imported with') == [f'imported with {kept}']
        assert running.hear('runs with') == [f'runs with {kept} False']
        for pid in running.processes('sergeant-linux: '):
            assert b'NOTIFY_SOCKET' not in Path(f'/proc/{pid}/environ').read_bytes()
        assert running.stop() == 0
    manager.close()


def test_a_pool_without_a_service_manager_has_no_socket_for_one(tmp_path: Path) -> None:
    with pool(tmp_path, WORKER, environ={'NOTIFY_SOCKET': '', 'WATCHDOG_USEC': '1000'}, control_socket='none') as running:
        running.wait_for('worker-ready')
        mine = {os.readlink(f'/proc/{running.pid}/fd/{fd}') for fd in os.listdir(f'/proc/{running.pid}/fd')}
        datagram = {f'socket:[{line.split()[6]}]' for line in Path('/proc/net/unix').read_text().splitlines()[1:]
                    if line.split()[4] == '0002'}
        assert not mine & datagram
        assert running.stop() == 0


def test_a_manager_that_does_not_read_harms_no_pool(tmp_path: Path) -> None:
    with managed(tmp_path, watchdog=0.002) as (_, running):
        running.wait_for('worker-ready')
        for _ in range(20):
            running.ask('scale', by=1)
            running.ask('scale', by=-1)
        assert running.ask('health')['ready']
        assert running.stop() == 0
