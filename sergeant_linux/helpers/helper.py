"""A process beside the loop, as the supervisor knows it: started, at work, replaced when it ends, ended at the close.

Facts: a helper may be killed, stopped or kept from its work by anybody, at any moment. Its end makes its pidfd
readable. A stop doesn't, but SIGCHLD tells of it (sigaction(2), SA_NOCLDSTOP), and waitid(2) knows which child it was.
Inside of another program SIGCHLD isn't ours: there a stop is seen when the loop is awake for something else.
Consequence: one machine for all helpers: none -> starting -> at work -> none. Each has at most one deadline at a time:
when the next one is to be started, or when this one must have said something. One that is stopped or silent for too
long is killed, and its end is dealt with as any other.

Invariant: nothing here waits, but `wait_until_at_work` at the start and `close` at the end; a process that was started
is reaped here.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from sergeant_linux.helpers import AT_WORK
from sergeant_linux.kernel import spawn
from sergeant_linux.kernel.children import Children
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.kernel.poller import Handler, Poller

PATIENCE: Final = 10.0
"""Seconds that a helper may take to be at work, or to answer."""

LONGEST_MESSAGE: Final = 4096
"""Bytes."""


class Note(Protocol):
    """Log a message under the name of an event, with fields."""

    def __call__(self, level: int, message: str, event: str, /, **fields: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Household:
    """What all helpers of a supervisor share. `retry` gives the seconds to wait when no process can be made."""

    poller: Poller[Handler]
    children: Children
    note: Note
    environ: Mapping[str, str]
    retry: Callable[[], float]


class Helper:
    """One process after another that does the same. A subclass says which module, what it is given, what it says."""

    title: ClassVar[str]
    """What it is called in the log."""
    module: ClassVar[str]
    """Whose `main` it runs."""
    replace_after: ClassVar[float] = 1.0
    """Seconds between the end of one and the start of the next."""
    patience: ClassVar[float] = PATIENCE

    def __init__(self, household: Household) -> None:
        self.process: PidRef | None = None
        self.at_work = False
        self._poller = household.poller
        self._children = household.children
        self._note = household.note
        self._environ = household.environ
        self._retry = household.retry
        self._control: socket.socket | None = None
        self._due: float | None = None
        self._deadline: float | None = None
        self._recalled = False

    # What a subclass says.

    def is_wanted(self) -> bool:
        """Whether one is to be at work."""
        return True

    def given(self) -> tuple[Sequence[str], Sequence[int]]:
        """Return its arguments, and the descriptors that it has beside its socket: they are closed here. Raises
        OSError."""
        return (), ()

    def begun(self, now: float) -> None:
        """It is at work."""

    def hear(self, data: bytes, now: float) -> None:
        """It has said something."""

    def lost(self, now: float) -> None:
        """It is gone: what it was asked and has not answered has no answer."""

    # What the loop calls.

    def start(self) -> None:
        """Start it. Raises OSError when no process can be made, or it can't be watched (fs.epoll.max_user_watches)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        fds: Sequence[int] = ()
        try:
            arguments, fds = self.given()
            self.process = spawn.launch(self.module, arguments, [theirs.fileno(), *fds], self._environ)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            for fd in fds:
                os.close(fd)
        self._control, self._due, self._recalled = ours, None, False
        try:
            self._poller.register(ours, self._on_control)
            self._children.enter(self.process, self.on_exit)
        except OSError:
            self.close()
            raise
        self.expect(time.monotonic() + self.patience)

    def wait_until_at_work(self, patience: float = PATIENCE) -> None:
        """Wait for it at most so many seconds. One that takes longer is dealt with by `elapse`."""
        assert self._control is not None
        self._control.settimeout(patience)
        with suppress(OSError):
            self._hear_one(self._control)
        self._control.setblocking(False)

    def want(self) -> None:
        """There is work: start one at the next `elapse`, if there is none and none is due."""
        if self.process is None and self._due is None:
            self._due = time.monotonic()

    def recall(self) -> None:
        """What it does isn't wanted any more: end it. When there is other work, the next one is started at once."""
        if self.process is not None and not self._recalled:
            self._recalled = True
            self._kill(self.process)

    def next_deadline(self) -> float | None:
        """Return when `elapse` is due; None: nothing is awaited."""
        return self._due if self.process is None else self._deadline

    def lose_time(self, seconds: float) -> None:
        """Nothing could run for so long: what it owes, it owes that much later."""
        if self._deadline is not None:
            self._deadline += seconds

    def elapse(self, now: float) -> None:
        """Start the next one when it is time; end one that is stopped, or silent for too long."""
        if self.process is None:
            if self._due is not None and self._due <= now:
                self._due = None
                if self.is_wanted():
                    self._try_to_start(now)
        elif self.process.has_stopped():
            self._end_it('was stopped by a signal')
        elif self._deadline is not None and self._deadline <= now:
            self._end_it('does not answer' if self.at_work else 'does not come to work')

    def on_exit(self, events: int) -> None:
        """It may have ended."""
        process = self.process
        if process is None or not process.exited():
            return
        self._on_control(0)  # evidence before burial
        with suppress(ChildProcessError):
            process.reap()
        now, recalled = time.monotonic(), self._recalled
        self._let_go()
        self.lost(now)
        if self.is_wanted():
            self._due = now if recalled else now + self.replace_after
            if not recalled:
                message = f'the {self.title}({process.pid}) has ended: replacing it; no worker is affected'
                self._note(logging.WARNING, message, f'{self.title}-exit', pid=process.pid)

    def close(self) -> None:
        """End it, and start none again."""
        if self.process is not None:
            self._children.leave(self.process)
            self.process.end()
            self._let_go()
        self._due = None

    # What a subclass calls.

    def expect(self, deadline: float | None) -> None:
        """It must have said something by then, or else it hangs; None: it owes nothing."""
        self._deadline = deadline

    def say(self, data: bytes) -> bool:
        """Tell it something; False when it isn't at work, or too busy to read."""
        if self._control is None or not self.at_work:
            return False
        try:
            self._control.send(data, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    # Inside.

    def _try_to_start(self, now: float) -> None:
        try:
            self.start()
        except OSError as error:
            message = f'the {self.title} could not be started: {error}'
            self._note(logging.ERROR, message, f'{self.title}-failed')
            self._due = now + self._retry()

    def _end_it(self, why: str) -> None:
        assert self.process is not None
        pid = self.process.pid
        self._note(logging.ERROR, f'the {self.title}({pid}) {why}: ending it', f'{self.title}-overdue', pid=pid)
        self._kill(self.process)

    def _kill(self, process: PidRef) -> None:
        process.signal(signal.SIGKILL)
        self._deadline = None  # the kernel's turn now

    def _on_control(self, events: int) -> None:
        control = self._control
        assert control is not None
        try:
            while self._hear_one(control):
                pass
        except BlockingIOError:
            return
        except OSError:
            pass
        self._poller.unregister(control)  # its pidfd tells the rest

    def _hear_one(self, control: socket.socket) -> bool:
        """Hear one message; False at the end. Raises OSError."""
        data, now = control.recv(LONGEST_MESSAGE), time.monotonic()
        if not data:
            return False
        if self._recalled:
            return True
        if not self.at_work:
            if data == AT_WORK:
                self.at_work = True
                self.expect(None)
                self.begun(now)
        else:
            self.hear(data, now)
        return True

    def _let_go(self) -> None:
        """It has ended, or is of no use any more: let go of what we have of it."""
        if self._control is not None:
            self._poller.unregister(self._control)
            self._control.close()
        if self.process is not None:
            self._children.leave(self.process)
            self.process.close()
        self._control = self.process = self._deadline = None
        self.at_work = self._recalled = False
