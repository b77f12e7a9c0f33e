"""The control socket: who may ask is heard, one line at a time, and nobody can keep the loop waiting.

Facts: a client may say nothing for ever, say nonsense, send faster than it is answered, never read its answers, or be
gone. Any of them is one process among many; the pool has other things to do. A descriptor may be refused (EMFILE), and
what could not be accepted is reported again at once. What is written for a client may be what JSON can't say.
Consequence: every descriptor is non-blocking and every buffer has a bound. What clients have said waits in one row, in
which each has one request heard when it is its turn, and at most `REQUESTS_A_TURN` are heard in a turn of the loop,
however many clients there are. Nothing more is read of a client that is in the row, that has `MOST_REQUESTS` in work or
that doesn't read its answers; when more than `MAX_ANSWER` waits for it, it is dropped. There are at most
`MOST_CLIENTS`: a newcomer beyond them takes the place of the one that has stood still longest, that is, has nothing in
work or doesn't read what it is told; where none has, the newcomer is told `busy`.
Decision: the peer is checked when it connects, before anybody makes room for it: root, our own user, or a member of the
control group. A line that is no request gets an answer, and the connection lives on; one that doesn't end is its end.
Price: a client that follows events and stops reading for long enough misses the rest. Clients that are all at work, or
that have all come within the last second, do keep a newcomer out.

Invariant: nothing that a client does raises into the loop. What the desk raises is an error of our own: it is answered,
and ends the pool, as anywhere else. Every request that was heard gets one answer, or its client is gone.
"""

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias

from sergeant_linux.kernel.peer import peer_of
from sergeant_linux.kernel.poller import EPOLLHUP, EPOLLIN, EPOLLOUT, Handler, Poller
from sergeant_linux.wire import protocol

MOST_CLIENTS: Final = 64

MOST_REQUESTS: Final = 16
"""Requests of one client that may be in work at once."""

REQUESTS_A_TURN: Final = 16
"""Requests, of all clients together, that are heard in one turn of the loop."""

READ: Final = 65_536
"""Bytes read of one client in a turn."""

ACCEPTS_A_TURN: Final = 16

SETTLED: Final = 1.0
"""Seconds that a client must have stood still before its place is given to a newcomer."""

NO_DESCRIPTORS: Final = 1.0
"""Seconds without listening after there was no descriptor for a newcomer."""

_AT_ONCE: Final = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT


class Reply:
    """How one request is answered: any number of events, then one answer. Whoever calls needn't care whether the
    client is still there, nor whether what is said fits: where it doesn't, the answer is an error that says so."""

    def __init__(self, client: '_Client', id: protocol.Id) -> None:
        self._client = client
        self._id = id
        self._is_open = True

    @property
    def is_gone(self) -> bool:
        """Whether nobody will read what is said here: it is answered, or the client is gone."""
        return not self._is_open or self._client.is_closed

    def event(self, event: Mapping[str, object]) -> None:
        """Tell something before the answer."""
        self._say(protocol.news(self._id, event), is_last=False)

    def done(self, result: object) -> None:
        """Answer that it was done."""
        self._say(protocol.answer(self._id, result), is_last=True)

    def failed(self, code: str, text: str) -> None:
        """Answer that it was not, and why, in one line."""
        self._say(protocol.error(self._id, code, text), is_last=True)

    def _say(self, message: protocol.Message, *, is_last: bool) -> None:
        if self.is_gone:
            return
        try:
            line = protocol.encode(message)
        except Exception as error:  # TypeError, ValueError, RecursionError; or what the str() of something raises
            self._is_open = False  # first: the report may be an event that is told here
            self._client.report(error)
            text = 'what is to be said cannot be written as JSON; the log has more'
            line, is_last = protocol.encode(protocol.error(self._id, protocol.INTERNAL, text)), True
        if len(line) > protocol.MAX_ANSWER:
            text = f'what is to be said has {len(line)} bytes, more than {protocol.MAX_ANSWER}'
            line, is_last = protocol.encode(protocol.error(self._id, protocol.TOO_LONG, text)), True
        if is_last:
            self._is_open = False
            self._client.answered(line)
        else:
            self._client.send(line)


Desk: TypeAlias = Callable[[str, Mapping[str, Any], Reply], None]
"""Takes a verb, its arguments and how to answer; at once or later."""


class _Client:
    """One connection."""

    def __init__(self, control: 'Control', connection: socket.socket) -> None:
        self._control = control
        self._connection = connection
        self._lines = protocol.Lines(protocol.MAX_REQUEST)
        self._waiting: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._in_work = 0
        self._has_said_all = False
        self._leaves = False
        self._watched = EPOLLIN
        self._moved_at = time.monotonic()
        self.is_closed = False

    def fileno(self) -> int:
        return self._connection.fileno()

    @property
    def still_since(self) -> float | None:
        """Since when it has asked for nothing, or has read nothing of what it has asked for; None: it is served."""
        return None if self._in_work and not self._waiting else self._moved_at

    # In.

    def on_event(self, events: int) -> None:
        """Something can be read, or written, or the other end is closed."""
        if events & EPOLLOUT:
            self._write()
        if events & ~EPOLLOUT and not self.is_closed and not self._has_said_all:
            self._read()
        if events & EPOLLHUP and self._has_said_all:
            self.close()  # nobody is there to read an answer
        self._control.queue(self)
        self.watch()

    def _read(self) -> None:
        try:
            data = self._connection.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if data:
            self._lines.feed(data)
        else:
            self._has_said_all = True  # it may still read

    def hear(self) -> bool:
        """Take one request, where there is one that may be taken now; return whether there was."""
        if self.is_closed or self._leaves or self._waiting or self._in_work >= MOST_REQUESTS:
            return False
        try:
            line = self._lines.next()
        except protocol.TooLong as error:
            self._leaves = True
            self.send(protocol.encode(protocol.error(None, protocol.TOO_LONG, str(error))))
            return False
        if line is None:
            return False
        try:
            id, verb, arguments = protocol.request(line)
        except protocol.BadRequest as error:
            self.send(protocol.encode(protocol.error(error.id, error.code, str(error))))
            return True
        self._in_work += 1
        self._moved_at = time.monotonic()
        reply = Reply(self, id)
        try:
            self._control.desk(verb, arguments, reply)
        except Exception:
            reply.failed(protocol.INTERNAL, f'{verb:.100}: an error of our own, which ends the pool; the log has more')
            raise
        return True

    # Out.

    def report(self, error: Exception) -> None:
        """Tell the loop of an error that is ours, not the client's."""
        self._control.on_error(error)

    def answered(self, line: bytes) -> None:
        """Send the answer to a request that was in work."""
        self._in_work -= 1
        self._control.queue(self)
        self.send(line)

    def send(self, line: bytes) -> None:
        """Send a line, or keep it until there is room."""
        if self.is_closed:
            return
        if self._waiting and self._waiting_bytes + len(line) > protocol.MAX_ANSWER:
            self.close()
            return
        self._waiting.append(memoryview(line))
        self._waiting_bytes += len(line)
        self._write()
        self.watch()

    def _write(self) -> None:
        try:
            while self._waiting:
                line = self._waiting[0]
                written = self._connection.send(line, _AT_ONCE)
                self._waiting_bytes -= written
                if self._in_work:
                    self._moved_at = time.monotonic()
                if written < len(line):
                    self._waiting[0] = line[written:]
                else:
                    self._waiting.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def watch(self) -> None:
        """Have epoll tell what is of interest now; close what has nothing more to say or to hear."""
        if self.is_closed:
            return
        is_queued = self._control.is_queued(self)
        if not self._waiting and (self._leaves or (self._has_said_all and not self._in_work and not is_queued)):
            self.close()
            return
        is_full = is_queued or self._waiting or self._in_work >= MOST_REQUESTS
        reads = not (self._has_said_all or self._leaves or is_full)
        wanted = (EPOLLIN if reads else 0) | (EPOLLOUT if self._waiting else 0)
        if wanted != self._watched:
            self._watched = wanted
            self._control.poller.modify(self, wanted)

    def close(self) -> None:
        """Let go of it."""
        if not self.is_closed:
            self.is_closed = True
            self._control.forget(self)
            self._connection.close()
            self._waiting.clear()


class Control:
    """Listens, and serves clients. The loop calls `elapse` in each turn, at the latest at `next_deadline`."""

    def __init__(
        self,
        poller: Poller[Handler],
        desk: Desk,
        listener: socket.socket,
        on_error: Callable[[Exception], None],
        group: int | None = None,
    ) -> None:
        """`listener` listens already and is this object's from now on; `on_error` is called while the error is being
        handled; `group`: whose members may ask, too."""
        self.poller = poller
        self.desk = desk
        self.on_error = on_error
        self._listener = listener
        self._group = group
        self._clients: set[_Client] = set()
        self._row: dict[_Client, None] = {}
        self._listens_again_at: float | None = None
        listener.setblocking(False)
        poller.register(listener, self._on_listener)

    def next_deadline(self) -> float | None:
        """Return when `elapse` is due: there is more to be heard, or the door is to be opened again."""
        return 0.0 if self._row else self._listens_again_at

    def elapse(self, now: float) -> None:
        """Hear those whose turn it is: who was heard goes to the end of the row, who has no more to say leaves it.

        So there is always one more turn after a request was heard, in which the desk may see to it.
        """
        for client in list(self._row)[:REQUESTS_A_TURN]:
            was_heard = client.hear()
            self._row.pop(client, None)
            if was_heard:
                self.queue(client)
            client.watch()
        if self._listens_again_at is not None and now >= self._listens_again_at:
            self._open_the_door(now)

    def queue(self, client: _Client) -> None:
        """Have it heard when it is its turn."""
        if not client.is_closed:
            self._row.setdefault(client)

    def is_queued(self, client: _Client) -> bool:
        """Return whether it may have said more than was heard."""
        return client in self._row

    def forget(self, client: _Client) -> None:
        """This client is gone."""
        self.poller.unregister(client)
        self._clients.discard(client)
        self._row.pop(client, None)

    # Newcomers.

    def _on_listener(self, events: int) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self.poller.unregister(self._listener)
                    self._listens_again_at = time.monotonic() + NO_DESCRIPTORS
                return
            connection.setblocking(False)
            self._welcome(connection)

    def _open_the_door(self, now: float) -> None:
        try:
            self.poller.register(self._listener, self._on_listener)
            self._listens_again_at = None
        except OSError:
            self._listens_again_at = now + NO_DESCRIPTORS

    def _welcome(self, connection: socket.socket) -> None:
        if not self._may_ask(connection):
            _turn_away(connection, protocol.DENIED, 'only root, the user of the pool and its control group may ask')
            return
        if len(self._clients) >= MOST_CLIENTS and not self._make_room():
            _turn_away(connection, protocol.BUSY, f'{MOST_CLIENTS} clients are being served; ask again')
            return
        client = _Client(self, connection)
        try:
            self.poller.register(client, client.on_event)
        except OSError:
            connection.close()
            return
        self._clients.add(client)

    def _may_ask(self, connection: socket.socket) -> bool:
        try:
            peer = peer_of(connection)
        except OSError:
            return False
        return peer.uid in (0, os.geteuid()) or (self._group is not None and self._group in peer.groups)

    def _make_room(self) -> bool:
        """Let go of the one that has stood still longest, if it has for some time."""
        still = [(since, client) for client in self._clients if (since := client.still_since) is not None]
        since, client = min(still, key=lambda each: each[0], default=(0.0, None))
        if client is None or time.monotonic() - since < SETTLED:
            return False
        client.close()
        return True

    def close(self) -> None:
        """Hang up. What could not be written at once is given up."""
        for client in list(self._clients):
            client.close()
        self.poller.unregister(self._listener)
        self._listener.close()


def _turn_away(connection: socket.socket, code: str, text: str) -> None:
    """Say why, and hang up."""
    with suppress(OSError):
        connection.send(protocol.encode(protocol.error(None, code, text)), _AT_ONCE)
    connection.close()
