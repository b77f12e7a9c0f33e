"""A process, by a reference that no other process can ever take over.

Facts: a pid is a number that the kernel gives to the next process once this one is reaped. A pidfd names one process
for good (pidfd_open(2), since Linux 5.3): it is readable once the process is a zombie, whole thread group included, and
for good; a signal sent through it reaches that process or nobody; waiting through it takes that exit status or none.
Consequence: a pid never travels alone. It is shown to people, and used to look into /proc while the process is
unreaped.
Decision: `PidRef` is the pair. Signals go by pidfd_send_signal(2), since Linux 5.1; waits by waitid(P_PIDFD), since
Linux 5.4.
Price: a descriptor a process. It is close-on-exec, but a fork copies it: a child closes what it inherited.

Invariant: a `PidRef` is closed by its owner, once; there is no `__del__`, so that a leak shows.
"""

import errno
import os
import select
import signal
from contextlib import suppress
from typing import Final, NamedTuple, Self

PATIENCE: Final = 1.0
"""Seconds that a process which was killed may take to be gone."""


class Ended(NamedTuple):
    """How a process ended. Exactly one of `exit_code` and `signal` is None."""

    exit_code: int | None
    """0-255, when it left by itself."""
    signal: int | None
    """The number of the signal that killed it."""
    core_dumped: bool

    @property
    def return_code(self) -> int:
        """The exit code, or the signal's number made negative, as subprocess has it."""
        if self.signal is not None:
            return -self.signal
        assert self.exit_code is not None
        return self.exit_code


class PidRef:
    """A process. `pid` is its number; `fd` is its pidfd, -1 once closed."""

    __slots__ = ('fd', 'pid')

    def __init__(self, pid: int, fd: int) -> None:
        """Adopt a pidfd of the process `pid`; this object makes it close-on-exec, and closes it.

        One that came by SCM_RIGHTS isn't: socket.recv_fds ignores its flags, MSG_CMSG_CLOEXEC too (Python 3.11-3.13).
        """
        os.set_inheritable(fd, False)
        self.pid = pid
        self.fd = fd

    @classmethod
    def open(cls, pid: int) -> Self:
        """Take a reference to the process that has this pid *now*.

        Safe for a child of the caller that nobody has reaped, a zombie included. Raises ProcessLookupError when there
        is no such process, other OSErrors as pidfd_open(2).

        A number can be in use without a process: by a thread, or by the session or group that its process has left.
        Then the kernel says EINVAL, newer ones (seen: 6.18) ENOENT or ESRCH.
        """
        try:
            return cls(pid, os.pidfd_open(pid))
        except OSError as error:
            if pid > 0 and error.errno in (errno.EINVAL, errno.ENOENT):
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
            raise

    def fileno(self) -> int:
        """Return the pidfd, for epoll: readable once the process has ended, and from then on."""
        return self.fd

    def signal(self, signum: int) -> bool:
        """Send a signal; False when the process is reaped already. A zombie takes every signal and does nothing.

        Raises PermissionError when the caller may not.
        """
        try:
            signal.pidfd_send_signal(self.fd, signum)
        except ProcessLookupError:
            return False
        return True

    def exited(self, patience: float = 0.0) -> bool:
        """Return whether the process has ended, waiting at most `patience` seconds for it.

        Reaps nothing; true for a reaped process too. A process ends with its last thread: its leader can be long gone,
        and state Z in /proc, before that.
        """
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        try:
            return bool(poll.poll(max(patience, 0.0) * 1000))
        except OSError:  # ENOMEM, poll(2): not known to have
            return False

    def has_stopped(self) -> bool:
        """Return whether the process, a child of the caller, was stopped by a signal and not continued since. Once for
        each stop.

        A stop makes no pidfd readable; the parent gets SIGCHLD for it, unless its handler has SA_NOCLDSTOP, which
        Python's have not (sigaction(2)).
        """
        try:
            return os.waitid(os.P_PIDFD, self.fd, os.WSTOPPED | os.WNOHANG) is not None
        except ChildProcessError:
            return False

    def reap(self) -> Ended | None:
        """Take the exit status and let the pid go; None while the process runs.

        Raises ChildProcessError when it isn't a child of the caller, or somebody has reaped it. What shall be known
        from /proc is read before.
        """
        status = os.waitid(os.P_PIDFD, self.fd, os.WEXITED | os.WNOHANG)
        if status is None:
            return None
        if status.si_code == os.CLD_EXITED:
            return Ended(exit_code=status.si_status, signal=None, core_dumped=False)
        return Ended(exit_code=None, signal=status.si_status, core_dumped=status.si_code == os.CLD_DUMPED)

    def end(self, patience: float = PATIENCE) -> Ended | None:
        """Kill the process, wait for its end at most `patience` seconds, reap it and close this reference.

        Return how it ended; None when it takes longer (it is in state D) or somebody else reaps it. Does nothing once
        closed.
        """
        if self.fd < 0:
            return None
        ended = None
        with suppress(PermissionError):  # it has become a program of another uid
            self.signal(signal.SIGKILL)
        if self.exited(patience):
            with suppress(ChildProcessError):
                ended = self.reap()
        self.close()
        return ended

    def close(self) -> None:
        """Close the pidfd; again does no harm. Unregister it from every epoll before."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f'PidRef(pid={self.pid}, fd={self.fd})'
