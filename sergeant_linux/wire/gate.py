"""The gate: the one socket between the supervisor and a life.

Facts: SOCK_SEQPACKET keeps message borders, is ordered, shows the peer's end as an empty read, and carries
descriptors (unix(7)). A message over the socket's buffer can't be sent at all; one that doesn't fit *now* blocks or
fails with EAGAIN.
Consequence: one message is one JSON object of at most `MAX_MESSAGE` bytes; long texts are cut by the sender, with a
mark.
Decision: before GO the socket holds the worker back (no GO, no user code); after GO the same socket carries its
reports. What comes from a worker is data (JSON), never code, and is never trusted to be well formed.
A worker's code may close every descriptor it finds, as daemonizing code does; then the gate's number is given to the
next that is opened, a connection to a broker or to a customer. A descriptor is known by the device and inode of what it
leads to (fstat(2)), so the worker's end looks before each use, and never uses nor closes what is another's.
Price: a worker that wants to say more than 64 KiB in one report can't. One system call more for each use.

Invariants: nothing here ever blocks longer than the patience the caller names, on either side · what a `WorkersEnd`
sends, takes and closes is the gate's.
"""

import errno
import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

MAX_MESSAGE: Final = 65536
"""Upper bound of one message, in bytes."""

CUT_MARK: Final = ' … [cut: {lost} more characters]'

Message = dict[str, Any]


class Malformed(ValueError):
    """What the peer sent is no JSON object with a `type`; the text says what was wrong with it."""


class WorkersEnd(socket.socket):
    """The worker's end, in the hands of code that may close it without asking."""

    def __init__(self, gate: socket.socket) -> None:
        """Take over the descriptor of this gate."""
        super().__init__(fileno=gate.detach())
        self._is = os.fstat(self.fileno())

    def is_ours(self) -> bool:
        """Whether the descriptor still leads to the gate."""
        try:
            return os.path.samestat(os.fstat(self.fileno()), self._is)
        except OSError:  # closed: by others, or by ourselves (-1)
            return False

    def close(self) -> None:
        """Close it, where it is ours; else let go of the number."""
        if self.is_ours():
            super().close()
        elif self.fileno() >= 0:
            self.detach()


def _is_lost(gate: socket.socket) -> bool:
    return isinstance(gate, WorkersEnd) and not gate.is_ours()


def pair() -> tuple[socket.socket, socket.socket]:
    """Return a fresh gate: the supervisor's end (non-blocking) and the worker's end (blocking)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def cut(text: str, limit: int) -> str:
    """Return `text`, or its first `limit` characters and a mark that says how many are missing."""
    if len(text) <= limit:
        return text
    return text[:limit] + CUT_MARK.format(lost=len(text) - limit)


def encode(message: Mapping[str, object]) -> bytes:
    """Return the message as it travels. Raises ValueError when it is over `MAX_MESSAGE` bytes."""
    data = json.dumps(message, ensure_ascii=False, separators=(',', ':')).encode('utf-8', 'backslashreplace')
    if len(data) > MAX_MESSAGE:
        kind = message.get('type')
        raise ValueError(f'a message of type {kind!r} has {len(data)} bytes; the gate takes {MAX_MESSAGE}')
    return data


def decode(data: bytes) -> Message:
    """Return the message in `data`. Raises `Malformed`."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f'not JSON ({error}): {data[:80]!r}') from None
    if not isinstance(message, dict) or not isinstance(message.get('type'), str):
        raise Malformed(f'not an object with a type: {data[:80]!r}')
    return message


def send(gate: socket.socket, message: Mapping[str, object], *, patience: float = 0.0) -> bool:
    """Send one message, waiting at most `patience` seconds for room; False when the peer is gone or there was no room.

    Raises ValueError for a message that is too long.
    """
    data = encode(message)
    if _is_lost(gate):
        return False
    timeout = gate.gettimeout()
    try:
        gate.settimeout(patience)
        gate.send(data, socket.MSG_NOSIGNAL)
    except OSError:
        return False
    finally:
        with suppress(OSError):
            gate.settimeout(timeout)
    return True


def receive(gate: socket.socket, *, flags: int = 0) -> Message | None:
    """Return the next message; None at the peer's end. Raises BlockingIOError when there is none yet, and `Malformed`.

    A peer that dies with unread data shows as ECONNRESET *before* the messages it had sent; they are still there, so
    read again (unix(7); seen on Linux 6.18). Raises OSError (EBADF) for a worker's end that is lost.
    """
    if _is_lost(gate):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    try:
        data = gate.recv(MAX_MESSAGE + 1, flags)
    except ConnectionResetError:
        data = gate.recv(MAX_MESSAGE + 1, flags)
    if not data:
        return None
    return decode(data)
