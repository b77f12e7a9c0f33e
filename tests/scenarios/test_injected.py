"""System calls of the supervisor fail, at one step after the other: it says so, goes on or refuses, and never ends with an
error of its own.

strace(1) is attached to the supervisor alone, and has a call fail with an error that its manual page names (`-e inject=`):
always (`1+`), or every second time (`1+2`) so that what follows on a call that has worked fails as well. Then the pool
is made to do all that it does; when strace is gone it must be whole again, and stop with nothing left.
"""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from sergeant_linux.control.client import PoolError
from tests.scenarios.pool import Pool, kill, pool, wait_until

STRACE: Final = shutil.which('strace')

pytestmark = [pytest.mark.skipif(STRACE is None, reason='needs strace(1)'), pytest.mark.timeout(300)]

SLEEPER: Final = """
    import time

    def Worker():
        time.sleep(1000)
"""

FAST: Final = (
    'openat:error=EMFILE:when=1+',
    'pidfd_open:error=EMFILE:when=1+2',
    'dup,eventfd2,socketpair:error=ENFILE:when=1+',
    'vfork,clone,clone3:error=EAGAIN:when=1+',
    'pwrite64:error=ENOSPC:when=1+',
    'prlimit64:error=EPERM:when=1+',
)

SLOW: Final = (
    'openat:error=ENFILE:when=1+2',
    'openat:error=ENOMEM:when=2+3',
    'pidfd_open:error=ENOMEM:when=1+',
    'socketpair:error=EMFILE:when=1+2',
    'memfd_create:error=ENFILE:when=1+',
    'memfd_create:error=ENOMEM:when=1+2',
    'pipe2:error=EMFILE:when=1+2',
    'mmap:error=ENOMEM:when=1+3',
    'fcntl:error=EMFILE:when=1+2',
    'sendmsg:error=ENOMEM:when=1+2',
    'sendmsg:error=EAGAIN:when=1+2',
    'recvmsg:error=ENOMEM:when=1+2',
    'recvfrom:error=ENOMEM:when=1+3',
    'sendto:error=ENOBUFS:when=1+2',
    'mkdir:error=ENOSPC:when=1+',
    'accept4:error=EMFILE:when=1+2',
    'waitid:error=EINTR:when=1+2',
    'read:error=EINTR:when=1+3',
    'pread64:error=ENOMEM:when=1+',
    'getdents64:error=ENOMEM:when=1+2',
    'poll:error=ENOMEM:when=2+3',
    'rmdir:error=EBUSY:when=1+',
    'socketpair,mkdir,vfork:delay_enter=50000',
    'epoll_wait,waitid,sendmsg,recvmsg:delay_exit=5000',
)


@contextmanager
def injected(running: Pool, injection: str, log: Path) -> Iterator[None]:
    """Have calls of the supervisor, not of its children, fail or be late meanwhile."""
    calls = injection.partition(':')[0]
    command = ['strace', '-q', '-o', str(log), '-p', str(running.pid), '-e', f'trace={calls}', '-e', f'inject={injection}']
    strace = subprocess.Popen(command, stderr=subprocess.PIPE)
    status = Path(f'/proc/{running.pid}/status')
    try:
        wait_until(lambda: f'TracerPid:\t{strace.pid}\n' in status.read_text() or strace.poll() is not None, 'strace')
        if strace.poll() is not None:
            assert strace.stderr is not None
            pytest.skip(f'strace cannot attach: {strace.stderr.read().decode()}')
        yield
    finally:
        strace.send_signal(signal.SIGINT)
        strace.communicate()


def ask(running: Pool, verb: str, **arguments: Any) -> None:
    """Ask; a refusal in words is an answer. No connection, which a client sees when there is no descriptor for it, is one, too."""
    try:
        with running.client(timeout=10) as client:
            client.call(verb, **arguments)
    except PoolError as error:
        if error.code not in ('refused', 'failed'):
            raise
    except ConnectionError:
        pass


def exercise(running: Pool) -> None:
    """Have the pool spawn, measure, reload, replace its helpers, change its policy, scale."""
    kill(max(running.workers().values()))
    ask(running, 'scale', by=2)
    running.send(signal.SIGUSR1)
    ask(running, 'status')
    ask(running, 'set', key='max-worker-memory-usage', value='400M')
    ask(running, 'reload')
    for title in ('undertaker', 'fork server'):
        for pid in running.processes(f'sergeant-linux: {title}'):
            kill(pid)
    ask(running, 'dump', slot=0)
    ask(running, 'events', last=10)
    for pid in running.workers().values():
        kill(pid)
    ask(running, 'status')


def whole(running: Pool) -> bool:
    with suppress(OSError):
        status = running.ask('status')
        return bool(status['ready'] == status['wanted'])
    return False


FLAGS: Final[dict[str, Any]] = {
    'restart_delay': '20ms', 'restart_max_delay': '200ms', 'timeout_stop': '2s', 'timeout_start': '3s',
    'memory_poll_interval': '200ms', 'max_worker_memory_usage': '500M',
}


def play(folder: Path, injection: str) -> None:
    log = folder / 'strace'
    with pool(folder, SLEEPER, concurrent_workers=2, **FLAGS) as running:
        running.wait_for('worker-ready', count=2)
        with injected(running, injection, log):
            exercise(running)
            assert running.process.poll() is None, running.lines
        assert 'INJECTED' in log.read_text() or 'DELAYED' in log.read_text()

        wait_until(lambda: whole(running), 'a pool that is whole again')
        assert running.stop() == 0, running.lines
        assert not running.find('internal-error')
        assert not [line for line in running.lines if 'Traceback' in line]


@pytest.mark.parametrize('injection', FAST)
def test_a_call_that_fails_costs_no_pool(tmp_path: Path, injection: str) -> None:
    play(tmp_path, injection)


@pytest.mark.slow
@pytest.mark.parametrize('injection', SLOW)
def test_no_call_that_fails_costs_a_pool(tmp_path: Path, injection: str) -> None:
    play(tmp_path, injection)


def play_stop(folder: Path, injection: str) -> None:
    with pool(folder, SLEEPER, concurrent_workers=2, **FLAGS) as running:
        running.wait_for('worker-ready', count=2)
        with injected(running, injection, folder / 'strace'):
            assert running.stop(within=60) == 0, running.lines
        assert not [line for line in running.lines if 'Traceback' in line]
        running.wait_until_gone()


@pytest.mark.parametrize('injection', FAST[1:])  # the first takes 20 s: what can't be looked at is waited for
def test_a_pool_stops_though_a_call_fails(tmp_path: Path, injection: str) -> None:
    play_stop(tmp_path, injection)


@pytest.mark.slow
@pytest.mark.parametrize('injection', [FAST[0], *SLOW])
def test_a_pool_stops_whatever_call_fails(tmp_path: Path, injection: str) -> None:
    play_stop(tmp_path, injection)
