"""What /proc tells, about real processes."""

import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from sergeant_linux.kernel import prctl, procfs
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.wire.marks import RLIMIT_LOCKS
from tests.kernel.processes import DEADLINE, Event, Fork, in_child, sleep_for_ever

MIB = 1024 * 1024
TICK = 1 / procfs.CLOCK_TICKS


@pytest.fixture
def zombie(fork: Fork) -> PidRef:
    process = fork(lambda: 0)
    assert process.exited(DEADLINE)
    return process


@pytest.fixture
def gone(fork: Fork) -> int:
    process = fork(lambda: 0)
    assert process.exited(DEADLINE)
    process.reap()
    return process.pid


def test_stat_tells_who_a_process_is() -> None:
    before = sum(os.times()[:2])
    stat = procfs.read_stat(os.getpid())
    after = sum(os.times()[:2])

    assert stat is not None
    assert stat.pid == os.getpid()
    assert stat.ppid == os.getppid()
    assert stat.pgrp == os.getpgrp()
    assert stat.session == os.getsid(0)
    assert stat.state == 'R'
    assert stat.threads == len(os.listdir('/proc/self/task'))
    assert before - TICK <= stat.cpu_seconds <= after + TICK
    started = psutil.boot_time() + stat.start_time * TICK
    assert started == pytest.approx(psutil.Process().create_time(), abs=0.01)


@pytest.mark.parametrize('name', ['worker', 'a b', ') R 1 (', 'x) S 1 2 3', '(', ')', '', '\n', 'é'])
def test_stat_is_not_confused_by_a_name(fork: Fork, event: Callable[[], Event], name: str) -> None:
    named = event()

    def take_the_name() -> None:
        prctl.set_name(name)
        named.set()
        sleep_for_ever()

    process = fork(take_the_name)
    named.wait()

    stat = procfs.read_stat(process.pid)

    assert stat is not None
    assert (stat.comm, stat.ppid) == (name, os.getpid())


def test_a_zombie_still_tells_its_cpu_time(fork: Fork) -> None:
    def burn() -> None:
        thread = threading.Thread(target=lambda: [None for _ in iter(lambda: time.thread_time() < 0.1, False)])
        thread.start()
        thread.join()

    process = fork(burn)
    assert process.exited(DEADLINE)

    stat = procfs.read_stat(process.pid)

    assert stat is not None
    assert stat.state == 'Z'
    assert 0.09 <= stat.cpu_seconds < DEADLINE


def test_a_reaped_process_is_gone(gone: int) -> None:
    assert procfs.read_stat(gone) is None
    assert procfs.threads(gone) == 0
    assert procfs.file_locks(gone) is None
    assert procfs.open_fds(gone) == 0
    assert not procfs.environ_contains(gone, b'PATH=' + os.fsencode(os.environ['PATH']))
    assert gone not in procfs.pids()
    with pytest.raises(ProcessLookupError, match=f'there is no process {gone}'):
        procfs.Statm(gone)


def test_threads_are_counted(fork: Fork, event: Callable[[], Event]) -> None:
    started, go = event(), event()

    def have_two_threads() -> None:
        threading.Thread(target=go.wait).start()
        started.set()
        sleep_for_ever()

    process = fork(have_two_threads)
    started.wait()

    assert procfs.threads(process.pid) == 2


def test_pids_names_every_process(zombie: PidRef) -> None:
    assert {os.getpid(), os.getppid(), zombie.pid} <= set(procfs.pids())


needs_children = pytest.mark.skipif(
    procfs.children(os.getpid()) is None, reason='this kernel is built without CONFIG_PROC_CHILDREN'
)


@needs_children
def test_children_are_those_of_every_thread_zombies_too_and_no_grandchildren(zombie: PidRef, fork: Fork) -> None:
    reader, writer = os.pipe()

    def have_a_child() -> None:
        with subprocess.Popen(['cat'], stdin=reader) as grandchild:
            os.write(told, b'%d' % grandchild.pid)

    hear, told = os.pipe()
    child = fork(have_a_child)
    grandchild = int(os.read(hear, 16))
    spawned: list[subprocess.Popen[bytes]] = []
    ready, done = threading.Event(), threading.Event()

    def spawn_and_stay() -> None:  # a child belongs to the thread that forked it, while that thread lives
        with subprocess.Popen(['cat'], stdin=reader) as process:
            spawned.append(process)
            ready.set()
            done.wait(DEADLINE)
            process.kill()

    thread = threading.Thread(target=spawn_and_stay)
    thread.start()
    assert ready.wait(DEADLINE)

    found = procfs.children(os.getpid())
    of_child = procfs.children(child.pid)

    done.set()
    thread.join()
    child.signal(signal.SIGKILL)
    for fd in (reader, writer, hear, told):
        os.close(fd)  # the grandchild reads the end and leaves
    assert found is not None
    assert {zombie.pid, child.pid, spawned[0].pid} <= set(found)
    assert grandchild not in found
    assert of_child == [grandchild]


@needs_children
def test_a_reaped_process_has_no_children(gone: int) -> None:
    assert procfs.children(gone) == []


@pytest.fixture
def stranger() -> Iterator[int]:
    """A program with an environment of its own."""
    environ = {'FIRST': '1', 'LIFE': '12', 'EMPTY': '', 'EQUALS': 'a=b', 'LAST': 'z'}
    command = [sys.executable, '-c', 'print(flush=True); input()']
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        yield program.pid
        program.kill()


@pytest.mark.parametrize(
    ('entry', 'contained'),
    [
        (b'FIRST=1', True),
        (b'LIFE=12', True),
        (b'LAST=z', True),
        (b'EMPTY=', True),
        (b'EQUALS=a=b', True),
        (b'LIFE=1', False),
        (b'LIFE=123', False),
        (b'LIFE', False),
        (b'IFE=12', False),
        (b'EQUALS=a', False),
        (b'OTHER=1', False),
    ],
)
def test_an_environment_is_searched_for_exact_entries(stranger: int, entry: bytes, contained: bool) -> None:
    assert procfs.environ_contains(stranger, entry) is contained


def test_a_zombies_environment_is_empty(zombie: PidRef) -> None:
    assert not procfs.environ_contains(zombie.pid, b'PATH=' + os.fsencode(os.environ['PATH']))


def test_what_a_process_adds_to_its_environment_later_is_not_found(fork: Fork, event: Callable[[], Event]) -> None:
    added = event()

    def add() -> None:
        os.environ['ADDED_LATER'] = '1'
        added.set()
        sleep_for_ever()

    process = fork(add)
    added.wait()

    assert not procfs.environ_contains(process.pid, b'ADDED_LATER=1')


@pytest.mark.skipif(os.geteuid() != 0, reason='only root has processes that others may not look into')
def test_what_is_not_ours_to_look_at_is_told_as_gone(stranger: int) -> None:
    def look_as_nobody() -> list[object]:
        os.setuid(65534)
        return [
            procfs.environ_contains(stranger, b'FIRST=1'),
            procfs.environ_value(stranger, 'FIRST'),
            procfs.open_fds(stranger),
            procfs.read_stat(stranger) is not None,
        ]

    assert in_child(look_as_nobody) == [False, None, 0, True]


def test_resident_memory_grows_by_what_is_touched() -> None:
    with procfs.Statm(os.getpid()) as statm:
        before = statm.rss()
        with mmap.mmap(-1, 64 * MIB) as memory:
            for offset in range(0, 64 * MIB, procfs.PAGE_SIZE):
                memory[offset] = 1
            after = statm.rss()

    assert after - before == pytest.approx(64 * MIB, abs=MIB)


def test_resident_memory_is_what_psutil_calls_rss(stranger: int) -> None:
    with procfs.Statm(stranger) as statm:
        assert statm.rss() == psutil.Process(stranger).memory_info().rss


def test_resident_memory_of_a_zombie_is_0_and_of_a_reaped_process_an_error(
    fork: Fork, event: Callable[[], Event]
) -> None:
    go = event()

    def leave_when_told() -> None:
        go.wait()

    process = fork(leave_when_told)
    with procfs.Statm(process.pid) as statm:
        assert statm.rss() > MIB
        go.set()
        assert process.exited(DEADLINE)

        assert statm.rss() == 0

        process.reap()
        with pytest.raises(ProcessLookupError):
            statm.rss()


def test_resident_memory_is_followed_over_an_exec(fork: Fork) -> None:
    reader, writer = os.pipe()
    stdin, end = os.pipe()

    def execute() -> None:
        os.dup2(stdin, 0)
        os.dup2(writer, 1)
        os.execvp('sh', ['sh', '-c', 'echo; read _'])

    process = fork(execute)
    with procfs.Statm(process.pid) as statm:
        assert os.read(reader, 1) == b'\n'

        assert 0 < statm.rss() < 8 * MIB  # a shell, and no interpreter any more
    for fd in (reader, writer, stdin, end):
        os.close(fd)


def test_the_kept_open_file_is_closed_once_and_not_passed_on() -> None:
    statm = procfs.Statm(os.getpid())
    assert not os.get_inheritable(statm.fileno())

    statm.close()
    statm.close()

    assert statm.fileno() == -1
    with pytest.raises(OSError, match='Bad file descriptor'):
        statm.rss()


def test_a_limit_is_told_of_a_running_process_and_of_a_zombie(fork: Fork, event: Callable[[], Event]) -> None:
    limited = event()

    def limit() -> None:
        resource.setrlimit(RLIMIT_LOCKS, (7, 1 << 62))
        limited.set()
        sleep_for_ever()

    process = fork(limit)
    limited.wait()
    assert procfs.file_locks(process.pid) == (7, 1 << 62)
    process.signal(signal.SIGKILL)
    assert process.exited(DEADLINE)
    assert procfs.file_locks(process.pid) == (7, 1 << 62)


def test_a_limit_without_an_end_is_told_as_python_does(stranger: int) -> None:
    assert procfs.file_locks(stranger) == resource.prlimit(stranger, RLIMIT_LOCKS)


def test_a_variable_of_the_environment_is_told_by_its_name(stranger: int) -> None:
    assert procfs.environ_value(stranger, 'FIRST') == '1'
    assert procfs.environ_value(stranger, 'FIRS') is None


def test_open_descriptors_are_counted_without_the_one_that_counts(fork: Fork, stranger: int) -> None:
    assert procfs.open_fds(os.getpid()) == sum(is_open(fd) for fd in range(1024))
    assert procfs.open_fds(stranger) == 3


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_the_environment_of_a_process_is_readable_unless_it_is_gone(fork: Fork) -> None:
    process = fork(sleep_for_ever)
    assert procfs.environ_is_readable(process.pid)

    process.signal(signal.SIGKILL)
    assert process.exited(DEADLINE)
    process.reap()
    assert not procfs.environ_is_readable(process.pid)


def test_the_permitted_capabilities_are_a_set_of_bits_none_for_another_than_root() -> None:
    def capabilities() -> list[int]:
        before = procfs.permitted_capabilities()
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        return [before, procfs.permitted_capabilities()]

    before, after = in_child(capabilities)
    assert before == int(own_capabilities(), 16)
    assert after == 0


def own_capabilities() -> str:
    with open('/proc/self/status') as file:
        return file.read().partition('CapPrm:')[2].split()[0]
