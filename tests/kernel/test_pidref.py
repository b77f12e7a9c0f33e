"""PidRef: on real processes."""

import ctypes
import os
import platform
import resource
import select
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sergeant_linux.kernel import procfs
from sergeant_linux.kernel.pidref import Ended, PidRef
from tests.kernel.processes import DEADLINE, Event, Fork, in_child, sleep_for_ever

NEXT_PID = '/proc/sys/kernel/ns_last_pid'


def end_of(process: PidRef) -> Ended | None:
    assert process.exited(DEADLINE)
    return process.reap()


@pytest.mark.parametrize('code', [0, 1, 9, 255])
def test_a_process_that_leaves_by_itself_has_an_exit_code(fork: Fork, code: int) -> None:
    process = fork(lambda: code)

    ended = end_of(process)

    assert ended == Ended(exit_code=code, signal=None, core_dumped=False)
    assert ended.return_code == code


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGKILL, signal.SIGRTMAX])
def test_a_process_that_is_killed_has_a_signal_and_a_negative_return_code(fork: Fork, signum: int) -> None:
    process = fork(sleep_for_ever)

    assert process.signal(signum)
    ended = end_of(process)

    assert ended == Ended(exit_code=None, signal=signum, core_dumped=False)
    assert ended.return_code == -signum


def abort(core_size: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (core_size, resource.RLIM_INFINITY))
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGABRT)


@pytest.mark.skipif(
    Path('/proc/sys/kernel/core_pattern').read_text() != 'core\n',
    reason="on this host a core goes to a program or another folder, and whether it is dumped is that one's choice",
)
def test_a_core_dump_is_told(fork: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with_core = fork(lambda: abort(resource.RLIM_INFINITY))
    without_core = fork(lambda: abort(0))

    assert end_of(with_core) == Ended(exit_code=None, signal=signal.SIGABRT, core_dumped=True)
    assert end_of(without_core) == Ended(exit_code=None, signal=signal.SIGABRT, core_dumped=False)


def test_a_running_process_has_not_exited_and_is_not_reaped(fork: Fork) -> None:
    process = fork(sleep_for_ever)

    assert not process.exited()
    assert not process.exited(patience=0.001)
    assert not process.exited(patience=-1.0)
    assert process.reap() is None
    assert process.signal(0)


def test_looking_at_a_zombie_does_not_reap_it(fork: Fork) -> None:
    process = fork(lambda: 7)

    assert process.exited(DEADLINE)
    assert process.exited()

    assert process.reap() == Ended(exit_code=7, signal=None, core_dumped=False)


def test_a_zombie_takes_a_signal_and_keeps_its_exit_code(fork: Fork) -> None:
    process = fork(lambda: 7)
    assert process.exited(DEADLINE)

    assert process.signal(signal.SIGKILL)

    assert process.reap() == Ended(exit_code=7, signal=None, core_dumped=False)


def test_a_reaped_process_takes_no_signal_and_cannot_be_reaped_again(fork: Fork) -> None:
    process = fork(lambda: 7)
    end_of(process)

    assert process.exited()
    assert not process.signal(signal.SIGKILL)
    with pytest.raises(ChildProcessError):
        process.reap()


def test_a_process_that_somebody_else_has_reaped_is_no_child_any_more(fork: Fork) -> None:
    process = fork(lambda: 7)

    assert os.waitpid(process.pid, 0) == (process.pid, 7 << 8)

    with pytest.raises(ChildProcessError):
        process.reap()


def test_a_process_that_is_no_child_can_be_watched_and_not_reaped() -> None:
    with PidRef.open(os.getppid()) as parent:
        assert not parent.exited()
        with pytest.raises(ChildProcessError):
            parent.reap()


def test_a_pid_without_a_process_cannot_be_opened(fork: Fork) -> None:
    process = fork(lambda: 0)
    end_of(process)

    with pytest.raises(ProcessLookupError):
        PidRef.open(process.pid)


def test_a_thread_is_no_process(event: Callable[[], Event]) -> None:
    number: list[int] = []
    known, done = event(), event()

    def wait() -> None:
        number.append(threading.get_native_id())
        known.set()
        done.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    known.wait()
    try:
        with pytest.raises(ProcessLookupError):
            PidRef.open(number[0])
    finally:
        done.set()
        thread.join()


def test_a_session_whose_leader_is_gone_is_no_process(fork: Fork, event: Callable[[], Event]) -> None:
    """Its number stays in use; Linux 6.1 has an error of its own for that."""
    stays = event()

    def lead() -> None:
        os.setsid()
        if os.fork() == 0:
            stays.wait()
            os._exit(0)

    leader = fork(lead)
    end_of(leader)
    try:
        with pytest.raises(ProcessLookupError):
            PidRef.open(leader.pid)
    finally:
        stays.set()


def test_a_zombie_can_be_opened(fork: Fork) -> None:
    process = fork(lambda: 3)
    assert process.exited(DEADLINE)

    with PidRef.open(process.pid) as again:
        assert again.reap() == Ended(exit_code=3, signal=None, core_dumped=False)


@pytest.mark.skipif(not os.access(NEXT_PID, os.W_OK) or os.geteuid() != 0, reason='only root chooses the next pid')
def test_the_next_process_with_the_same_pid_is_out_of_reach(fork: Fork) -> None:
    def fork_twice() -> tuple[PidRef, PidRef]:
        former = fork(lambda: 0)
        end_of(former)
        Path(NEXT_PID).write_text(str(former.pid - 1))
        return former, fork(sleep_for_ever)

    attempts = (fork_twice() for _ in range(100))  # others fork too, and may take the number
    former, latter = next((former, latter) for former, latter in attempts if former.pid == latter.pid)

    assert not former.signal(signal.SIGKILL)
    with pytest.raises(ChildProcessError):
        former.reap()
    assert not latter.exited()


def test_a_process_that_may_not_be_signalled_raises() -> None:
    def signal_the_parent_as_nobody() -> str:
        with PidRef.open(os.getppid()) as parent:
            if os.geteuid() == 0:
                os.setuid(65534)
                target = parent
            else:
                target = PidRef.open(1)
            with pytest.raises(PermissionError):
                target.signal(0)
        return 'refused'

    assert in_child(signal_the_parent_as_nobody) == 'refused'


@pytest.mark.skipif(platform.machine() not in ('x86_64', 'aarch64'), reason='exit(2) has another number here')
def test_a_process_has_not_exited_while_a_thread_of_it_goes_on(fork: Fork, event: Callable[[], Event]) -> None:
    last_word = event()

    def lose_the_leader() -> None:
        def outlive() -> None:
            last_word.wait()
            os._exit(5)

        threading.Thread(target=outlive).start()
        exit_thread = {'x86_64': 60, 'aarch64': 93}[platform.machine()]
        ctypes.CDLL(None).syscall(exit_thread, 0)

    process = fork(lose_the_leader)
    while (stat := procfs.read_stat(process.pid)) is not None and stat.state != 'Z':
        os.sched_yield()

    assert not process.exited()
    assert process.reap() is None

    last_word.set()
    assert end_of(process) == Ended(exit_code=5, signal=None, core_dumped=False)


def test_epoll_sees_the_end_once_and_for_all(fork: Fork, event: Callable[[], Event]) -> None:
    go = event()

    def leave_when_told() -> None:
        go.wait()

    process = fork(leave_when_told)
    with select.epoll() as epoll:
        epoll.register(process, select.EPOLLIN)
        assert epoll.poll(0) == []

        go.set()

        assert epoll.poll(DEADLINE) == [(process.fd, select.EPOLLIN)]
        assert process.reap() is not None
        [(fd, events)] = epoll.poll(0)
        assert fd == process.fd
        assert events & select.EPOLLIN
        epoll.unregister(process)


def test_a_reference_is_closed_once_and_closing_it_again_does_no_harm() -> None:
    fd = os.pidfd_open(os.getpid())
    process = PidRef(os.getpid(), fd)
    assert process.fileno() == fd

    process.close()
    assert process.fileno() == -1
    successor = os.pidfd_open(os.getpid())
    try:
        process.close()

        assert successor == fd
        os.fstat(successor)
    finally:
        os.close(successor)


def test_a_reference_is_not_passed_on_to_another_program() -> None:
    with PidRef.open(os.getpid()) as process:
        assert not os.get_inheritable(process.fd)


def test_a_reference_that_came_through_a_socket_is_not_passed_on_either() -> None:
    here, there = socket.socketpair()
    with here, there, PidRef.open(os.getpid()) as process:
        socket.send_fds(there, [b'.'], [process.fd])
        _, [fd], _, _ = socket.recv_fds(here, 1, 1)

        with PidRef(os.getpid(), fd) as adopted:
            assert not os.get_inheritable(adopted.fd)


def test_a_reference_shows_what_it_refers_to() -> None:
    with PidRef.open(os.getpid()) as process:
        assert repr(process) == f'PidRef(pid={os.getpid()}, fd={process.fd})'


def test_an_open_reference_is_not_closed_behind_our_back() -> None:
    process = PidRef.open(os.getpid())
    fd = process.fd

    del process

    os.close(fd)  # it would fail if a __del__ had closed it


def test_a_stop_is_told_once_and_not_any_more_after_a_continuation(fork: Fork) -> None:
    process = fork(sleep_for_ever)
    assert not process.has_stopped()

    for _ in range(2):
        process.signal(signal.SIGSTOP)
        os.waitid(os.P_PIDFD, process.fd, os.WSTOPPED | os.WNOWAIT)
        assert process.has_stopped()
        assert not process.has_stopped()
        process.signal(signal.SIGCONT)


def test_a_process_that_is_ended_is_reaped_and_the_reference_closed(fork: Fork) -> None:
    process = fork(sleep_for_ever)

    assert process.end() == Ended(exit_code=None, signal=signal.SIGKILL, core_dumped=False)
    assert process.fd == -1
    assert process.end() is None
