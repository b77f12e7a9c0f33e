"""Where a descriptor of ours leads, by a way of our own that does not block.

Facts: a write to a full pipe, a stopped terminal or a slow socket blocks. O_NONBLOCK belongs to the open file, not to
the descriptor (open(2)): set on fd 2 it would change the stderr of every worker, whose prints would then fail.
Decision: an open file of our own, non-blocking, by proc_pid_fd(5) where that can be had; a socket per call.

Invariant: nothing is taken from the descriptor itself.
"""

import errno
import math
import os
import select
import signal
import socket
import stat
from typing import Final

STDERR: Final = 2


class Stderr:
    """Where fd 2, or another one, leads."""

    name: Final = 'stderr'

    def __init__(self, fd: int = STDERR) -> None:
        self._socket: socket.socket | None = None
        self._asks_first = False
        try:
            mode = os.fstat(fd).st_mode
        except OSError:  # closed: nobody reads what we say
            self._fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        else:
            self._open(fd, mode)
        self._is_terminal = os.isatty(self._fd)
        self.pollable = _is_pollable(self._fd)

    def _open(self, fd: int, mode: int) -> None:
        if stat.S_ISREG(mode):
            # A file is never full the way a pipe is. Opened again it would have a position of its own, and what the
            # workers print by the inherited one (`2>log`) would overwrite our lines.
            self._fd = os.dup(fd)
        elif stat.S_ISSOCK(mode):
            # A socket can't be opened by its name in /proc (ENXIO), and needn't be: MSG_DONTWAIT is per call.
            self._socket = socket.socket(fileno=os.dup(fd))
            self._fd = self._socket.fileno()
        else:
            # proc_pid_fd(5): opening /proc/self/fd/N gives a new open file of the same pipe or terminal.
            # O_NOCTTY: a session leader that opens a terminal would else be given it for its own.
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            try:
                self._fd = os.open(f'/proc/self/fd/{fd}', flags)
            except OSError:
                # It is another user's (we run under su, setpriv, gosu), a FIFO without a reader, or there is no /proc.
                self._fd = os.dup(fd)
                self._asks_first = True

    def fileno(self) -> int:
        """The descriptor to poll; -1 when closed."""
        return self._fd

    def write(self, data: bytes) -> int:
        """Write what there is room for and return how much that was. Raises BlockingIOError and other OSErrors."""
        if self._fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._asks_first:
            # The shared open file may block. A pipe that polls as writable takes PIPE_BUF bytes at once (pipe(7)),
            # unless another writer comes between: the risk that remains on this way.
            if not writable(self._fd, 0.0):
                raise BlockingIOError
            data = data[: select.PIPE_BUF]
        if not self._is_terminal:
            return os.write(self._fd, data)
        # A write from the background to a terminal with TOSTOP sends the writer SIGTTOU (termios(3)), which to the
        # supervisor means one worker less; while it is blocked the write just happens.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            return os.write(self._fd, data)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def close(self) -> None:
        """Close it; a second time does nothing. Every later write fails with EBADF."""
        if self._socket is not None:
            self._socket.close()
        elif self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def _is_pollable(fd: int) -> bool:
    """Whether epoll takes the descriptor; it refuses regular files and /dev/null with EPERM (epoll_ctl(2))."""
    with select.epoll() as probe:
        try:
            probe.register(fd, select.EPOLLOUT)
        except PermissionError:
            return False
    return True


def writable(fd: int, patience: float) -> bool:
    """Whether the descriptor has room or an error to tell, within `patience` seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(math.ceil(patience * 1000)))
