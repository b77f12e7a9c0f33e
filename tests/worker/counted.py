"""Workers for the tests of what a worker shows of itself: tasks that end in every way, signs of life, stacks.

Configured by WAY, and as those of `tests.worker.workers`.
"""

import ctypes
import os
import signal
import socket
import threading
from collections.abc import Iterable
from typing import Any

from sergeant import objects, worker

import sergeant_linux
from tests.worker.workers import OwnHandler, Worker, journal, wait_for_cue


class Lying(Exception):
    def __repr__(self) -> str:
        raise RuntimeError


class Ending(Worker):
    """Its tasks end in the way that WAY says."""

    def work(self, task: objects.Task) -> None:
        match os.environ['WAY']:
            case 'raise':
                raise ValueError('no such order')
            case 'raise what can not be shown':
                raise Lying
            case 'retry':
                self.retry(task)
            case 'retry because of something':
                try:
                    raise ConnectionError('no route')
                except ConnectionError:
                    self.retry(task)
            case 'give up':
                raise worker.WorkerMaxRetries
            case 'requeue':
                self.requeue(task)
            case 'respawn':
                self.respawn()
            case 'exit':
                raise SystemExit(9)
            case 'time out':
                while True:
                    pass

    def on_success(self, task: objects.Task, returned_value: Any) -> None:
        if os.environ['WAY'] == 'respawn afterwards':
            self.respawn()


class EndingInItsOwnLoop(Ending):
    def iterate_tasks(self) -> Iterable[objects.Task]:
        yield from super().iterate_tasks()


class Ordered(Worker):
    """Task 1 waits for a cue; task 2 waits for the end of task 1's work, and for a cue."""

    first_is_done = threading.Event()

    def work(self, task: objects.Task) -> None:
        journal(f'begun {task.kwargs["id"]}')
        if task.kwargs['id'] == 2:
            self.first_is_done.wait()
        wait_for_cue()
        self.first_is_done.set()


class NeverAsking(Worker):
    """Has a loop of its own."""

    def work_loop(self) -> dict[str, Any]:
        journal('looping')
        wait_for_cue()
        raise SystemExit


class AskingFromAChild(OwnHandler):
    """Its task is a child that asks for tasks and does one."""

    def work(self, task: objects.Task) -> None:
        if 'CHILD' in os.environ:
            return
        pid = os.fork()
        if pid == 0:
            try:
                os.environ['CHILD'] = '1'
                assert self.executor_obj is not None
                self.executor_obj.execute_task(task)  # type: ignore[attr-defined]  # the executors have it
                self.get_next_tasks(1)
                sergeant_linux.heartbeat()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        journal('child is gone')
        wait_for_cue()


class Beating:
    """Gives a sign of life for each cue."""

    def run(self) -> None:
        while True:
            wait_for_cue()
            sergeant_linux.heartbeat()
            journal('beat')


class BeatingInAChild:
    def run(self) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                sergeant_linux.heartbeat()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        journal('child is gone')
        wait_for_cue()


class Looping:
    """Python code that never comes back, and a second thread."""

    def run(self) -> None:
        threading.Thread(target=self.wait_in_a_thread, daemon=True).start()
        self.loop_for_ever()

    def wait_in_a_thread(self) -> None:
        threading.Event().wait()

    def loop_for_ever(self) -> None:
        journal('looping')
        while True:
            pass


class HoldingTheGil:
    """C code that never comes back, and lets nobody else run Python."""

    def run(self) -> None:
        self.sleep_in_c()

    def sleep_in_c(self) -> None:
        sleep = ctypes.PyDLL(None).sleep
        journal('sleeping')
        while True:
            sleep(60)


class WithItsOwnHandler:
    def run(self) -> None:
        signal.signal(signal.SIGWINCH, lambda signum, frame: journal('its own'))
        journal('ready')
        while True:
            signal.pause()


class Daemonizing:
    """Closes every descriptor but those it talks to the test by, and opens others."""

    def run(self) -> None:
        kept = {0, 1, 2, int(os.environ['JOURNAL']), int(os.environ['CUE'])}
        for fd in range(256):
            if fd not in kept:
                try:
                    os.close(fd)
                except OSError:
                    pass
        self.files = [os.open(os.environ['VICTIM'], os.O_RDWR) for _ in range(64)]
        journal('closed')
        wait_for_cue()


class Outlived:
    """Leaves a child behind that opens VICTIM under every free number and waits for cues."""

    def run(self) -> None:
        if os.fork() == 0:
            try:
                self.files = [os.open(os.environ['VICTIM'], os.O_RDWR) for _ in range(64)]
                journal(f'child {os.getpid()}')
                wait_for_cue()
                journal('child goes on')
            finally:
                os._exit(0)


def close_all_and_connect() -> list[socket.socket]:
    """Close every descriptor but those it talks to the test by, as daemonizing code does, and connect many sockets."""
    kept = {0, 1, 2, int(os.environ['JOURNAL']), int(os.environ['CUE'])}
    for fd in set(range(256)) - kept:
        os.closerange(fd, fd + 1)
    connected = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(64)]
    for each in connected:
        each.connect(os.environ['VICTIM'])
    return connected


class Reconnecting:
    """Has sockets of its own under every number that was ours, and a child that has them, too; fails at last."""

    def run(self) -> None:
        connected = close_all_and_connect()
        pid = os.fork()
        if pid == 0:
            try:
                for each in connected:
                    os.fstat(each.fileno())
                journal('child has all')
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        journal('connected')
        wait_for_cue()
        raise ValueError('no report of mine')


class ReconnectingInATask(Worker):
    """As that; says what it has got by its sockets."""

    def work(self, task: objects.Task) -> None:
        connected = close_all_and_connect()
        journal('connected')
        wait_for_cue()
        journal(f'got {[each.recv(100).decode() for each in connected] == ["mail"] * len(connected)}')
        os._exit(7)
