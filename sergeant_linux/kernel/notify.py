"""What a service manager is told, and how: one message, to the socket that it has named (sd_notify(3)).

    /run/systemd/notify     a path
    @name                   the abstract namespace (unix(7))
    vsock:CID:PORT          the host of a virtual machine (vsock(7)), since systemd 254; also vsock-stream, -seqpacket
                            and -dgram, for one type of socket

Facts: a datagram to a Unix socket waits when the queue of its reader is full, also where nobody reads on. A virtual
machine mostly has no vsock datagrams: there each message is a connection of its own, and a connection takes time.
Consequence: nothing is waited for. What can't be sent now is for the caller to send again, the same bytes.
Decision: a message is sent to the address, not over a connection that is kept: a manager that starts anew listens
under the same name.

Invariant: `send` does not block.
"""

import errno
import os
import re
import select
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple

SOCKET: Final = 'NOTIFY_SOCKET'
WATCHDOG: Final = 'WATCHDOG_USEC'
WATCHDOG_PID: Final = 'WATCHDOG_PID'

VARIABLES: Final = frozenset(
    {SOCKET, WATCHDOG, WATCHDOG_PID, 'LISTEN_PID', 'LISTEN_PIDFDID', 'LISTEN_FDS', 'LISTEN_FDNAMES'}
)
"""What a service manager says to the one process that it has started, by name: user's own variables begin alike."""

LONGEST_PATH: Final = 107
"""Bytes: sun_path of unix(7), less its end; in the abstract namespace, less its beginning."""

_VSOCK: Final = re.compile(r'vsock(|-stream|-seqpacket|-dgram):([0-9]{1,10}):([0-9]{1,10})')
_TYPES: Final = {
    '-dgram': (socket.SOCK_DGRAM,),
    '-seqpacket': (socket.SOCK_SEQPACKET,),
    '-stream': (socket.SOCK_STREAM,),
    '': (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM),
}
_ANY: Final = 2**32 - 1
"""VMADDR_CID_ANY, VMADDR_PORT_ANY."""

_LONGEST_USEC: Final = 2**64 - 1
_PRIVILEGED: Final = range(1023, 0, -1)

_NO_SUCH_TYPE: Final = frozenset(
    {errno.ENODEV, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EOPNOTSUPP}
)
_NO_ROOM: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EINTR})


class BadAddress(ValueError):
    """The address is none; the text says what was expected."""


class Address(NamedTuple):
    """Where to. `types`: the types of socket to try, in this order."""

    family: int
    types: tuple[int, ...]
    where: bytes | tuple[int, int]


def address(text: str) -> Address:
    """Return what an address means. Raises `BadAddress`."""
    name = os.fsencode(text)
    if text[:1] in ('/', '@') and 1 < len(name) <= LONGEST_PATH + text.startswith('@') and b'\0' not in name:
        where = b'\0' + name[1:] if text.startswith('@') else name
        return Address(socket.AF_UNIX, (socket.SOCK_DGRAM,), where)
    found = _VSOCK.fullmatch(text)
    if found is not None and int(found[2]) < _ANY and int(found[3]) < _ANY:
        return Address(socket.AF_VSOCK, _TYPES[found[1]], (int(found[2]), int(found[3])))
    raise BadAddress(f'expected an absolute path, @NAME or vsock:CID:PORT, not {text!r:.150}')


def watchdog_span(environ: Mapping[str, str], pid: int) -> float | None:
    """Return the seconds within which the manager wants a sign of life of the process `pid`; None: it wants none of
    this one (sd_watchdog_enabled(3))."""
    usec = environ.get(WATCHDOG, '')
    if environ.get(WATCHDOG_PID, str(pid)) != str(pid) or not (usec.isascii() and usec.isdecimal()):
        return None
    return int(usec) / 1e6 if len(usec) <= 20 and 0 < int(usec) < _LONGEST_USEC else None


class NotifySocket:
    """The way to one service manager."""

    def __init__(self, to: Address) -> None:
        """Raises OSError where there is no such socket here."""
        self._to = to
        self._connecting = False
        self._socket, self._type = self._open()

    def send(self, message: bytes) -> bool:
        """Send one message. False: there is no room for it now, it is to be sent again. Raises OSError where it can't
        be sent, and then it is not."""
        try:
            if self._type == socket.SOCK_DGRAM:
                self._socket.sendto(message, socket.MSG_NOSIGNAL, self._to.where)
                return True
            return self._send_by_connection(message)
        except OSError as error:
            if error.errno in _NO_ROOM:
                return False
            self._renew()
            raise

    def close(self) -> None:
        self._socket.close()

    def _send_by_connection(self, message: bytes) -> bool:
        if not self._connecting:
            code = self._socket.connect_ex(self._to.where)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            self._connecting = True
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        if not poll.poll(0):
            return False
        if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))
        if self._socket.send(message, socket.MSG_NOSIGNAL) != len(message):
            raise OSError(errno.EMSGSIZE, 'only a part of the message was taken')
        self._renew()
        return True

    def _renew(self) -> None:
        """Make ready for the next message, where each is a connection of its own."""
        if self._type != socket.SOCK_DGRAM:
            self._connecting = False
            self._socket.close()
            self._socket, self._type = self._open()

    def _open(self) -> tuple[socket.socket, int]:
        for number, kind in enumerate(self._to.types, 1):
            try:
                opened = socket.socket(self._to.family, kind | socket.SOCK_NONBLOCK)
            except OSError as error:
                if number == len(self._to.types) or error.errno not in _NO_SUCH_TYPE:
                    raise
            else:
                if self._to.family == socket.AF_VSOCK:
                    _bind_to_privileged_port(opened)
                return opened, kind
        raise OSError(errno.EPROTONOSUPPORT, 'no type of socket to try')


def _bind_to_privileged_port(opened: socket.socket) -> None:
    """As root: the host may believe only what comes from a port that nobody else in here can have."""
    for port in _PRIVILEGED:
        with suppress(PermissionError):
            try:
                opened.bind((_ANY, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise
        return
