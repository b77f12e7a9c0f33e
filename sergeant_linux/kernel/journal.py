"""The journal of systemd, by its native protocol: entries of many fields, one datagram each.

Facts: what a unit writes to stdout and stderr, the journal takes as lines, each at one priority and without fields;
`JOURNAL_STREAM` names that stream by device and inode (systemd.exec(5)), and is inherited also by who has other ends
of stdout and stderr. An entry with fields goes as a datagram to a socket (systemd.io, Native Journal Protocol):
`NAME=value`, or for a value with newlines the name, a newline, its length and its bytes. A datagram has an upper
bound; what is longer goes as a sealed memfd. The journal reads by itself who has sent it. A connected datagram socket
polls as writable when its peer's queue has room, another one always does. systemd holds the journal's socket, so that
it outlives the journal's own restarts.
A stream of lines is a connection, and ends with the journal that has accepted it (`systemctl stop systemd-journald`):
who writes then gets EPIPE, for ever. Another one is had by connecting to the journal and saying how its lines are to be
taken (sd_journal_stream_fd(3)); whose lines they are the journal sees by itself.
Consequence: whether stderr is the journal is asked of the kernel, by fstat(2), and whether it has ended, by poll(2).

Invariant: nothing here blocks.
"""

import errno
import fcntl
import os
import select
import socket
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Final

STREAM: Final = 'JOURNAL_STREAM'

SOCKET: Final = '/run/systemd/journal/socket'
STREAMS: Final = '/run/systemd/journal/stdout'

STDIO: Final = (1, 2)

INFO: Final = 6
"""LOG_INFO (syslog(3))."""

_BUFFER: Final = 8 * 1024 * 1024
"""Asked for as the size of our side's buffer, in bytes; the kernel gives what it allows."""

_SEALS: Final = fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

_TOO_LONG: Final = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
_GONE: Final = frozenset({errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE})


def is_stream(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether a descriptor leads to the journal, as `JOURNAL_STREAM` says of this very one (systemd.exec(5))."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get(STREAM) == f'{status.st_dev}:{status.st_ino}'


def renew_streams(
    identifier: str, environ: MutableMapping[str, str], fds: Iterable[int] = STDIO, path: str = STREAMS
) -> bool:
    """Put a fresh stream in the place of those descriptors that were one to the journal, and have ended; also as
    `JOURNAL_STREAM`. Return whether that was done: False where there is nothing to do, or no journal listens now."""
    ended = [fd for fd in fds if is_stream(fd, environ) and _has_ended(fd)]
    if not ended:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as stream:
            stream.connect(path)
            stream.shutdown(socket.SHUT_RD)
            stream.sendall(_header(identifier))
            stream.setblocking(True)  # as those that are made by systemd
            status = os.fstat(stream.fileno())
            for fd in ended:
                os.dup2(stream.fileno(), fd)
    except OSError:
        return False
    environ[STREAM] = f'{status.st_dev}:{status.st_ino}'
    return True


def _has_ended(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, 0)  # POLLERR and POLLHUP are always told
    return bool(poll.poll(0))


def _header(identifier: str) -> bytes:
    """Identifier, unit (the journal knows better), priority, whether lines may begin with one of their own, and where
    else they are to go: nowhere."""
    name = identifier.replace('\n', ' ').encode('utf-8', 'surrogateescape')
    return b'%b\n\n%d\n1\n0\n0\n0\n' % (name, INFO)


def encode(entry: Iterable[tuple[str, str]]) -> bytes:
    """Return an entry in the native protocol. Names consist of A-Z, 0-9 and _, and begin with a letter."""
    return b''.join(_field(name.encode('ascii'), value.encode('utf-8', 'backslashreplace')) for name, value in entry)


def _field(name: bytes, value: bytes) -> bytes:
    if b'\n' not in value:
        return b'%b=%b\n' % (name, value)
    return b'%b\n%b%b\n' % (name, len(value).to_bytes(8, 'little'), value)


class JournalSocket:
    """The way to the journal."""

    name: Final = 'the journal'
    pollable: Final = True

    def __init__(self, path: str = SOCKET) -> None:
        """Raises OSError where nobody listens, or we may not speak."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor to poll; -1 when closed."""
        return self._socket.fileno()

    def write(self, data: bytes) -> int:
        """Send one entry, whole, and return its length. Raises BlockingIOError when there is no room for it now, and
        other OSErrors when it can't be sent."""
        try:
            self._send(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self._socket.connect(self._path)  # another journal listens under the name by now, or nobody does
            self._send(data)
        return len(data)

    def close(self) -> None:
        """Close it; a second time does nothing. Every later write fails with EBADF."""
        self._socket.close()

    def _send(self, data: bytes) -> None:
        try:
            self._socket.send(data, socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno not in _TOO_LONG:
                raise
            self._send_file(data)

    def _send_file(self, data: bytes) -> None:
        fd = os.memfd_create('journal-entry', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(os.dup(fd), 'wb') as file:
                file.write(data)
            fcntl.fcntl(fd, *_SEALS)
            socket.send_fds(self._socket, [b''], [fd], socket.MSG_NOSIGNAL)
        finally:
            os.close(fd)
