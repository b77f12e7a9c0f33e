"""Signals as bytes in a pipe, and the state a child begins with.

Facts: epoll_wait is begun again after a Python signal handler has run (PEP 475), so a handler alone doesn't wake the
loop; the wakeup fd does, and only for signals with a Python handler. Python writes the signal's number there, a byte a
signal, in order. A pipe takes 65,536 such bytes (less where a user has many: pipe(7)), a socketpair 278; what comes
when it is full has no byte, but its Python handler runs all the same. The wakeup fd is shared with a forked child: a
signal that reaches the child before it has switched the fd off is read by the parent as its own. signalfd isn't in
Python, and would need the signals blocked, which every child would inherit.
Consequence: the loop watches the pipe. All signals are blocked around a fork, and the child resets them before it
unblocks.
Decision: `SignalInbox` for the process that listens; `block_all` and `restore` around a fork; `reset_to_default` in the
child.
The handlers note which signals have come: what comes to a full pipe is read once, however often it came.
Price: a byte doesn't say who sent the signal.
"""

import faulthandler
import fcntl
import os
import signal
import threading
from collections.abc import Collection, Iterable
from types import FrameType
from typing import Any, Final, Self

ALL: Final = frozenset(signal.valid_signals())
"""Every signal but those two that libc keeps for itself (signal(7))."""

CAN_BE_HANDLED: Final = ALL - {signal.SIGKILL, signal.SIGSTOP}
"""Every signal whose handling can be chosen."""


class SignalInbox:
    """Receives signals as numbers to be read from a descriptor, until it is closed.

    Everything is put back by `close`: handlers, wakeup fd, signal mask. Two things Python can't tell, and so can't put
    back: a handler that C code had installed (see `foreign`), and the `warn_on_full_buffer` of an earlier wakeup fd,
    which is then False.
    """

    def __init__(self, signals: Iterable[int]) -> None:
        """Listen to `signals`, which are unblocked.

        Raises RuntimeError off the main thread, OSError for a signal that can't be handled; then nothing has changed.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError('signals can be received in the main thread only: Python runs their handlers there')
        self._handlers: dict[int, Any] = {}
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._capacity = fcntl.fcntl(self._writer, fcntl.F_GETPIPE_SZ)
        self._noticed: set[int] = set()
        self._mask = block_all()
        self._former_wakeup_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            for signum in frozenset(signals):
                self._handlers[signum] = signal.signal(signum, self._notice)
        except BaseException:
            self.close()
            raise
        restore(self._mask - self._handlers.keys())

    @property
    def foreign(self) -> frozenset[int]:
        """The signals whose former handler wasn't Python's. `close` leaves them with their default action."""
        return frozenset(signum for signum, handler in self._handlers.items() if handler is None)

    def fileno(self) -> int:
        """Return the descriptor that is readable while there are signals to read; -1 once closed."""
        return self._reader

    def read(self) -> list[int]:
        """Return the numbers of the signals that have come since the last call, in order; [] when none has."""
        try:
            came = list(os.read(self._reader, self._capacity))
        except BlockingIOError:
            return []
        noticed, self._noticed = self._noticed, set()
        if len(came) == self._capacity:  # it was full
            came += sorted(noticed - set(came))
        return came

    def _notice(self, signum: int, frame: FrameType | None) -> None:
        self._noticed.add(signum)

    def close(self) -> None:
        """Put everything back; again does no harm. Signals that weren't read are dropped."""
        if self._reader < 0:
            return
        block_all()
        for signum, handler in self._handlers.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._former_wakeup_fd, warn_on_full_buffer=False)
        os.close(self._reader)
        os.close(self._writer)
        self._reader = self._writer = -1
        restore(self._mask)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def block_all() -> set[int]:
    """Block every signal in the calling thread, and return the mask as it was, for `restore`.

    A forked child inherits the mask, and so does the program that a process execs.
    """
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ALL))


def restore(mask: Collection[int]) -> None:
    """Set the calling thread's signal mask. What was pending and is unblocked is delivered before this returns."""
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def unblock_all() -> None:
    """Empty the calling thread's signal mask."""
    restore(())


def reset_to_default() -> None:
    """In a forked child whose signals are blocked: handle each as a new Python interpreter does, then unblock all.

    That is the default action, but SIGINT raises KeyboardInterrupt, and SIGPIPE and SIGXFSZ are ignored, so that a lost
    connection is a BrokenPipeError and not the end. After an execve that means the same for a Python program.
    """
    reset_handlers()
    unblock_all()


def reset_handlers() -> None:
    """The first half of `reset_to_default`, for a child that isn't ready to be interrupted yet: the mask stays."""
    signal.set_wakeup_fd(-1)
    watched = faulthandler.is_enabled()
    faulthandler.disable()  # its handlers are none of Python's; it would believe them to be still in place
    for signum in CAN_BE_HANDLED:
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if watched:
        faulthandler.enable(2)
