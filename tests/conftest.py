"""The leak guard: what a test starts or opens is gone when it ends.

Facts: a leaked fd, zombie or blocked signal does no harm where it is made; it fails another test, later, elsewhere. A
process that outlives its parent has no parent that would tell of it, but it keeps the environment it was started with:
/proc/PID/environ (proc(5)). An object that is part of a reference cycle keeps its fd open until the collector runs.
Consequence: looking at our own children is not enough, and one look is not enough.
Decision: around every test its own mark in the environment; after it, everything must be as before within `PATIENCE`:
fds, children (zombies too), processes that carry the mark, signal handlers, mask and wakeup fd. What was left is killed
and named. A test that has failed already is only cleaned up after: its traceback keeps alive what its frames held.
Price: a process that was forked without exec, lost its parent and so carries no mark is not seen.

A fixture of a wider scope (a redis-server for the session) is set up before the guard looks, and may stay.
"""

import gc
import os
import signal
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

import pytest

MARK: Final = 'SERGEANT_TEST_MARK'
"""The environment variable that every process started by a test inherits."""

PATIENCE: Final = 2.0
"""How long, in seconds, a process may take to be gone after its test."""

REPORT: Final = pytest.StashKey[pytest.TestReport]()

pytest_plugins = ['pytester']


class Process(NamedTuple):
    """One process, told apart from a later one with the same pid by its start time."""

    pid: int
    start_time: int
    """In clock ticks after boot."""


def stat(pid: int) -> tuple[str, str, int, int] | None:
    """Return the command, state, parent and start time of a process; None when it is gone."""
    try:
        with open(f'/proc/{pid}/stat', 'rb') as file:
            head, _, tail = file.read().rpartition(b')')
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = tail.split()
    return head.partition(b'(')[2].decode(errors='replace'), fields[0].decode(), int(fields[1]), int(fields[19])


def everybody() -> Iterator[int]:
    """Yield the pid of every process."""
    for name in os.listdir('/proc'):
        if name.isdigit():
            yield int(name)


def children() -> set[Process]:
    """Return our children, zombies too."""
    found = set()
    for pid in everybody():
        known = stat(pid)
        if known is not None and known[2] == os.getpid():
            found.add(Process(pid, known[3]))
    return found


def marked(mark: str) -> set[Process]:
    """Return the processes that were started with `mark` in their environment."""
    entry = f'{MARK}={mark}'.encode()
    found = set()
    for pid in everybody():
        with suppress(OSError):
            with open(f'/proc/{pid}/environ', 'rb') as file:
                if entry not in file.read().split(b'\0'):
                    continue
            known = stat(pid)
            if known is not None:
                found.add(Process(pid, known[3]))
    return found


def fds() -> dict[int, str]:
    """Return what each of our fds is open on."""
    found = {}
    for name in os.listdir('/proc/self/fd'):
        with suppress(FileNotFoundError):  # the one that listed the folder
            found[int(name)] = os.readlink(f'/proc/self/fd/{name}')
    return found


def signal_state() -> dict[str, object]:
    """Return the main thread's mask, the handlers and the wakeup fd."""
    state: dict[str, object] = {f'handler of {number.name}': signal.getsignal(number) for number in signal.Signals}
    state['mask'] = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    state['wakeup fd'] = wakeup_fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup_fd)
    return state


def end(process: Process) -> None:
    """Kill a process, and reap it if it is ours."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        known = stat(process.pid)
        if known is None or known[3] != process.start_time:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    finally:
        os.close(pidfd)


def describe(process: Process) -> str:
    known = stat(process.pid)
    if known is None or known[3] != process.start_time:
        return f'process {process.pid}, gone since'
    command, state, parent, _ = known
    try:
        with open(f'/proc/{process.pid}/cmdline', 'rb') as file:
            command = ' '.join(file.read().decode(errors='replace').split('\0')).strip() or command
    except OSError:
        pass
    what = 'zombie' if state == 'Z' else f'process in state {state}'
    return f'{what} {process.pid} (child of {parent}): {command[:200]}'


def wait_until_empty(look: Callable[[], set[Process]]) -> set[Process]:
    """Return what `look` still finds when `PATIENCE` is over; at once when it finds nothing."""
    deadline = time.monotonic() + PATIENCE
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def pytest_configure() -> None:
    """Begin with the signals as a shell's foreground has them: a job in the background is started with SIGINT and SIGQUIT
    ignored, one below nohup(1) with SIGHUP, and what is ignored is so in every program that a test starts (execve(2))."""
    usual: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGQUIT: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    for signum, handler in usual.items():
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what the guard needs to know: did the test come to its end, and did it fail?"""
    report = yield
    if report.when != 'teardown':
        item.stash[REPORT] = report
    return report


@pytest.fixture(autouse=True)
def leak_guard(request: pytest.FixtureRequest) -> Iterator[str]:
    """Fail the test that leaves something behind; gives the test's mark."""
    mark = uuid.uuid4().hex
    outer = os.environ.get(MARK)
    children_before, fds_before, signals_before = children(), fds(), signal_state()
    os.environ[MARK] = mark
    try:
        yield mark
    finally:
        if outer is None:
            os.environ.pop(MARK, None)
        else:
            os.environ[MARK] = outer

    left = wait_until_empty(lambda: (children() - children_before) | marked(mark))
    leaks = [describe(process) for process in sorted(left)]
    for process in left:
        end(process)

    if not fds().items() <= fds_before.items():
        gc.collect()
    leaks += [f'fd {fd} on {target}' for fd, target in sorted(fds().items()) if fds_before.get(fd) != target]

    for name, state in signal_state().items():
        if state != signals_before[name]:
            leaks.append(f'{name} was {signals_before[name]!r}, is {state!r}')

    report = request.node.stash[REPORT]
    if leaks and report.when == 'call' and not report.failed:
        pytest.fail('the test has left behind:\n  ' + '\n  '.join(leaks), pytrace=False)
