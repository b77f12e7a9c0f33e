"""The kernel that the cgroup tests need, shown at work: what a pool builds on is here and does what is said of it."""

import ctypes
import fcntl
import mmap
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from sergeant_linux.kernel.pidref import Ended
from tests.kernel.processes import DEADLINE, Body, Event, Fork, in_child, readable, sleep_for_ever
from tests.lab.conftest import IN_LAB, Cgroup

MIB: Final = 1 << 20
LIMIT: Final = 64 * MIB

SYS_CLONE3: Final = 435  # clone3(2), since Linux 5.3
CLONE_INTO_CGROUP: Final = 0x200000000  # since Linux 5.7


def inside(leaf: Cgroup, body: Body) -> Body:
    """Return `body`, run in the leaf."""

    def run() -> object:
        leaf.join()
        return body()

    return run


def hog() -> None:
    """Take memory until killed."""
    taken = []
    while True:
        taken.append(mmap.mmap(-1, 10 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE))


def limit(leaf: Cgroup) -> None:
    leaf.write('memory.max', str(LIMIT))
    try:
        leaf.write('memory.swap.max', '0')
    except FileNotFoundError:
        pass  # a kernel without swap


def wait_until_empty(leaf: Cgroup) -> None:
    """Wait for `populated 0` as a supervisor does: cgroup.events is readable (EPOLLPRI) after each change."""
    with open(leaf.path / 'cgroup.events') as events, select.epoll() as epoll:
        epoll.register(events, select.EPOLLPRI)
        deadline = time.monotonic() + DEADLINE
        while 'populated 1' in os.pread(events.fileno(), 4096, 0).decode():
            assert epoll.poll(deadline - time.monotonic()), f'{leaf.path} is still populated'


def test_the_controllers_that_a_pool_uses_are_there(ground: Cgroup) -> None:
    controllers = set(ground.read('cgroup.subtree_control').split())

    assert controllers >= {'memory', 'pids'}
    assert not IN_LAB or controllers == {'cpu', 'io', 'memory', 'pids'}


def test_a_leaf_has_the_files_that_a_pool_uses(leaf: Cgroup) -> None:
    files = {path.name for path in leaf.path.iterdir()}

    assert files >= {
        'cgroup.events', 'cgroup.kill', 'cgroup.procs', 'cgroup.type',
        'memory.current', 'memory.events', 'memory.events.local', 'memory.max', 'memory.oom.group', 'memory.stat',
        'pids.current', 'pids.events', 'pids.max', 'cpu.stat',
    }  # fmt: skip
    assert not IN_LAB or files >= {'memory.peak', 'memory.swap.max', 'memory.reclaim', 'cpu.max', 'io.max'}


def test_a_hog_is_killed_by_the_kernel_at_its_limit_to_the_byte(leaf: Cgroup, fork: Fork) -> None:
    limit(leaf)

    process = fork(inside(leaf, hog))
    assert process.exited(DEADLINE)

    assert process.reap() == Ended(exit_code=None, signal=signal.SIGKILL, core_dumped=False)
    assert leaf.counters('memory.events')['oom_kill'] == 1
    assert leaf.counters('memory.events.local')['oom'] >= 1
    assert int(leaf.read('memory.peak')) == LIMIT


def test_a_sigkill_by_somebody_else_moves_no_counter(leaf: Cgroup, fork: Fork) -> None:
    limit(leaf)
    process = fork(inside(leaf, sleep_for_ever))

    process.signal(signal.SIGKILL)
    assert process.exited(DEADLINE)

    assert not any(leaf.counters('memory.events').values())


def test_an_oom_group_dies_together(leaf: Cgroup, fork: Fork) -> None:
    limit(leaf)
    leaf.write('memory.oom.group', '1')
    born = Event()

    def parent_of_a_hog() -> None:
        if os.fork() == 0:
            born.wait()
            hog()
        born.set()
        sleep_for_ever()

    parent = fork(inside(leaf, parent_of_a_hog))
    assert parent.exited(DEADLINE)
    wait_until_empty(leaf)
    os.close(born.fd)

    assert parent.reap() == Ended(exit_code=None, signal=signal.SIGKILL, core_dumped=False)
    events = leaf.counters('memory.events')
    assert events['oom_group_kill'] == 1
    assert events['oom_kill'] >= 2  # 3 for these two on Linux 6.1: who was chosen counts again in its group


def test_one_write_kills_a_tree_that_no_session_and_no_parent_holds_together(leaf: Cgroup, fork: Fork) -> None:
    away = Event()

    def scatter() -> None:
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                        signal.signal(signum, signal.SIG_IGN)
                    away.set()
                    sleep_for_ever()
                os._exit(0)

    fork(inside(leaf, scatter))
    told = 0
    while told < 3:
        assert readable(away.fd)
        told += os.eventfd_read(away.fd)
    os.close(away.fd)
    leaf.write('cgroup.kill', '1')

    wait_until_empty(leaf)


def test_a_process_over_pids_max_is_not_forked(leaf: Cgroup, fork: Fork) -> None:
    leaf.write('pids.max', '1')

    def fork_again() -> int:
        try:
            return os.fork() and 1
        except BlockingIOError:
            return 42

    process = fork(inside(leaf, fork_again))
    assert process.exited(DEADLINE)

    ended = process.reap()
    assert ended is not None and ended.exit_code == 42
    assert leaf.counters('pids.events')['max'] == 1


def test_a_process_can_be_born_in_a_leaf(leaf: Cgroup) -> None:
    def clone_into_leaf() -> str:
        libc = ctypes.CDLL(None, use_errno=True)
        folder = os.open(leaf.path, os.O_RDONLY | os.O_DIRECTORY)
        # struct clone_args: flags first, exit_signal the fifth, cgroup the eleventh of its fields
        arguments = (ctypes.c_uint64 * 11)(CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, folder)
        reader, writer = os.pipe()
        pid = libc.syscall(SYS_CLONE3, arguments, ctypes.sizeof(arguments))
        if pid == 0:
            os.write(writer, Path('/proc/self/cgroup').read_bytes())
            os._exit(0)
        assert pid > 0, os.strerror(ctypes.get_errno())
        os.waitpid(pid, 0)
        return os.read(reader, 4096).decode()

    assert in_child(clone_into_leaf).strip().endswith(leaf.path.name)


def test_a_folder_of_leaves_can_be_locked(leaf: Cgroup) -> None:
    folder, again = (os.open(leaf.path, os.O_RDONLY | os.O_DIRECTORY) for _ in range(2))
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(folder)
        os.close(again)


def test_a_cgroup_can_be_marked_as_delegated(leaf: Cgroup) -> None:
    os.setxattr(leaf.path, 'user.delegate', b'1')  # since Linux 5.7

    assert os.getxattr(leaf.path, 'user.delegate') == b'1'


@pytest.mark.parametrize('controllers', ['+cpu', '+cpu +memory'])
def test_controllers_are_not_enabled_over_a_process_unless_all_of_them_are_threaded(
    leaf: Cgroup, fork: Fork, controllers: str
) -> None:
    """The trap: `+cpu` over a process succeeds, and the cgroup is no domain for memory any more."""
    if 'cpu' not in leaf.read('cgroup.controllers').split():
        pytest.skip('the cpu controller is not delegated')
    joined = Event()

    def stay() -> None:
        joined.set()
        sleep_for_ever()

    fork(inside(leaf, stay))
    joined.wait()
    os.close(joined.fd)

    if 'memory' in controllers:
        with pytest.raises(OSError, match='busy'):
            leaf.write('cgroup.subtree_control', controllers)
        assert leaf.read('cgroup.type') == 'domain'
    else:
        leaf.write('cgroup.subtree_control', controllers)
        assert leaf.read('cgroup.type') == 'domain threaded'


def test_the_loopback_interface_is_up() -> None:
    with (
        socket.create_server(('127.0.0.1', 0)) as server,
        socket.create_connection(server.getsockname(), timeout=DEADLINE) as client,
    ):
        assert client.getpeername() == server.getsockname()


@pytest.mark.parametrize('read', [time.time, time.monotonic])
def test_clocks_go_on(read: Callable[[], float]) -> None:
    before = read()
    select.select([], [], [], 0.1)

    assert 0.1 <= read() - before < 5.0
