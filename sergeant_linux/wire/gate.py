"""The gate: the one socket between the supervisor and a life.

Facts: SOCK_SEQPACKET keeps message borders, is ordered, shows the peer's end as an empty read, and carries
descriptors (unix(7)). A message over the socket's buffer can't be sent at all; one that doesn't fit *now* blocks or
fails with EAGAIN.
Consequence: one message is one JSON object of at most `MAX_MESSAGE` bytes; long texts are cut by the sender, with a
mark.
Decision: before GO the socket holds the worker back (no GO, no user code); after GO the same socket carries its
reports. What comes from a worker is data (JSON), never code, and is never trusted to be well formed.
Price: a worker that wants to say more than 64 KiB in one report can't.

Invariant: nothing here ever blocks longer than the patience the caller names, on either side.
"""

import json
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
    timeout = gate.gettimeout()
    try:
        gate.settimeout(patience)
        gate.send(data, socket.MSG_NOSIGNAL)
    except OSError:
        return False
    finally:
        with suppress(OSError):  # the descriptor was closed by others, as daemonizing code does
            gate.settimeout(timeout)
    return True


def receive(gate: socket.socket, *, flags: int = 0) -> Message | None:
    """Return the next message; None at the peer's end. Raises BlockingIOError when there is none yet, and `Malformed`.

    A peer that dies with unread data shows as ECONNRESET *before* the messages it had sent; they are still there, so
    read again (unix(7); seen on Linux 6.18).
    """
    try:
        data = gate.recv(MAX_MESSAGE + 1, flags)
    except ConnectionResetError:
        data = gate.recv(MAX_MESSAGE + 1, flags)
    if not data:
        return None
    return decode(data)
