"""The control socket: who may ask is heard, one line at a time, and nobody can keep the loop waiting.

Facts: a client may say nothing for ever, say nonsense, send faster than it is answered, never read its answers, or be
gone. Any of them is one process among many; the pool has other things to do.
Consequence: every descriptor is non-blocking and every buffer has a bound. A client has one read a turn, at most
`MOST_REQUESTS` of its requests are in work, and while its answers wait for room no more of it is read; when more than
`MAX_ANSWER` waits, it is dropped. There are at most `MOST_CLIENTS`; a newcomer beyond them takes the place of the one
that has been silent longest and has nothing in work, or is told `busy`.
Decision: the peer is checked when it connects: root, our own user, or a member of the control group. A line that is no
request gets an answer, and the connection lives on; one that doesn't end is the end of it.
Price: a client that follows events and stops reading for long enough misses the rest.

Invariant: nothing a client does raises into the loop; every request gets one answer, or its client is gone.
"""

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias

from sergeant_linux import protocol
from sergeant_linux.kernel.peer import peer_of
from sergeant_linux.kernel.poller import EPOLLHUP, EPOLLIN, EPOLLOUT, Handler, Poller

MOST_CLIENTS: Final = 64

MOST_REQUESTS: Final = 16
"""Requests of one client that may be in work at once."""

LINES_A_TURN: Final = 16
"""Requests of one client that are taken in a turn, before the others have theirs."""

READ: Final = 65_536
"""Bytes read of one client in a turn."""

ACCEPTS_A_TURN: Final = 16

SETTLED: Final = 1.0
"""Seconds that a connection must have been silent before its place is given to a newcomer."""

NO_DESCRIPTORS: Final = 1.0
"""Seconds without listening after there was no descriptor for a newcomer."""


class Reply:
    """How one request is answered: any number of events, then one answer. Whoever calls needn't care whether the
    client is still there."""

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
        if not self.is_gone:
            self._client.send(protocol.news(self._id, event))

    def done(self, result: object) -> None:
        """Answer that it was done."""
        self._answer(protocol.answer(self._id, result))

    def failed(self, code: str, text: str) -> None:
        """Answer that it was not, and why, in one line."""
        self._answer(protocol.error(self._id, code, text))

    def _answer(self, message: protocol.Message) -> None:
        if self._is_open:
            self._is_open = False
            self._client.answered(message)


Desk: TypeAlias = Callable[[str, Mapping[str, Any], Reply], None]
"""Takes a verb, its arguments and how to answer; at once or later."""


class _Client:
    """One connection."""

    def __init__(self, control: 'Control', connection: socket.socket) -> None:
        self._control = control
        self._connection = connection
        self._lines = protocol.Lines(protocol.MAX_REQUEST)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._in_work = 0
        self._has_said_all = False
        self._leaves = False
        self._watched = EPOLLIN
        self.heard_at = time.monotonic()
        self.is_closed = False

    def fileno(self) -> int:
        return self._connection.fileno()

    @property
    def is_idle(self) -> bool:
        return not self._in_work and not self._waiting

    # In.

    def on_event(self, events: int) -> None:
        """Something can be read, or written."""
        if events & EPOLLOUT:
            self._write()
        if events & ~EPOLLOUT and not self.is_closed and not self._has_said_all:
            self._read()
        if events & EPOLLHUP and self._has_said_all:
            self.close()  # nobody is there to read an answer
        self._go_on()

    def _read(self) -> None:
        try:
            data = self._connection.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self.heard_at = time.monotonic()
        if data:
            self._lines.feed(data)
        else:
            self._has_said_all = True  # it may still read

    def _go_on(self) -> None:
        """Take what may be taken now, and watch for what is wanted next."""
        for _ in range(LINES_A_TURN):
            if self.is_closed or self._leaves or self._in_work >= MOST_REQUESTS or self._waiting:
                break
            try:
                line = self._lines.next()
            except protocol.TooLong as error:
                self.refuse(protocol.TOO_LONG, str(error))
                break
            if line is None:
                break
            self._take(line)
        else:
            self._control.again(self)
        self._watch()

    def _take(self, line: bytes) -> None:
        try:
            id, verb, arguments = protocol.request(line)
        except protocol.BadRequest as error:
            self.send(protocol.error(error.id, error.code, str(error)))
            return
        self._in_work += 1
        reply = Reply(self, id)
        try:
            self._control.desk(verb, arguments, reply)
        except Exception as error:
            self._control.on_error(error)
            reply.failed(protocol.INTERNAL, f'{verb}: an error of our own; it is in the log')

    # Out.

    def answered(self, message: protocol.Message) -> None:
        """Send the answer to a request that was in work."""
        self._in_work -= 1
        self.send(message)
        self._control.again(self)

    def send(self, message: protocol.Message) -> None:
        """Send a message, or keep it until there is room."""
        if self.is_closed:
            return
        line = protocol.encode(message)
        if len(line) > protocol.MAX_ANSWER:
            text = f'the answer has {len(line)} bytes, more than {protocol.MAX_ANSWER}'
            line = protocol.encode(protocol.error(message['id'], protocol.TOO_LONG, text))
        if self._waiting_bytes + len(line) > protocol.MAX_ANSWER and self._waiting:
            self.close()
            return
        self._waiting.append(line)
        self._waiting_bytes += len(line)
        self._write()
        self._watch()

    def refuse(self, code: str, text: str) -> None:
        """Say why nothing more is heard, and close when that is said."""
        self._leaves = True
        self.send(protocol.error(None, code, text))
        self._watch()

    def _write(self) -> None:
        try:
            while self._waiting:
                line = self._waiting[0]
                written = self._connection.send(line, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
                self._waiting_bytes -= written
                if written < len(line):
                    self._waiting[0] = line[written:]
                else:
                    self._waiting.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def _watch(self) -> None:
        """Have epoll tell what is of interest now; close what has nothing more to say."""
        if self.is_closed:
            return
        if not self._waiting and (self._leaves or (self._has_said_all and not self._in_work)):
            self.close()
            return
        reads = not (self._has_said_all or self._leaves or self._waiting or self._in_work >= MOST_REQUESTS)
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
        """`listener` listens already and is this object's from now on; `group`: whose members may ask, too."""
        self.poller = poller
        self.desk = desk
        self.on_error = on_error
        self._listener = listener
        self._group = group
        self._clients: dict[int, _Client] = {}
        self._again: dict[int, _Client] = {}
        self._listens_again_at: float | None = None
        listener.setblocking(False)
        poller.register(listener, self._on_listener)

    def next_deadline(self) -> float | None:
        """Return when `elapse` is due: there is more to be done for a client, or the door is to be opened again."""
        return 0.0 if self._again else self._listens_again_at

    def elapse(self, now: float) -> None:
        """Give their turn to those who have more to say than was heard in the last one."""
        waiting, self._again = self._again, {}
        for client in waiting.values():
            if not client.is_closed:
                client._go_on()
        if self._listens_again_at is not None and now >= self._listens_again_at:
            self._listens_again_at = None
            self.poller.register(self._listener, self._on_listener)

    def again(self, client: _Client) -> None:
        """This client is to have another turn."""
        if not client.is_closed:
            self._again[client.fileno()] = client

    def forget(self, client: _Client) -> None:
        """This client is gone."""
        self.poller.unregister(client)
        self._clients.pop(client.fileno(), None)
        self._again.pop(client.fileno(), None)

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
            self._welcome(connection)

    def _welcome(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        has_room = len(self._clients) < MOST_CLIENTS or self._make_room()
        client = _Client(self, connection)
        self._clients[client.fileno()] = client
        self.poller.register(connection, partial(_Client.on_event, client))
        if not self._may_ask(connection):
            client.refuse(protocol.DENIED, 'only root, the user of the pool and its control group may ask')
        elif not has_room:
            client.refuse(protocol.BUSY, f'{MOST_CLIENTS} clients are being served; ask again')
            client.close()

    def _may_ask(self, connection: socket.socket) -> bool:
        try:
            peer = peer_of(connection)
        except OSError:
            return False
        return peer.uid in (0, os.geteuid()) or (self._group is not None and self._group in peer.groups)

    def _make_room(self) -> bool:
        """Let go of who has been silent longest, if it has been for some time."""
        idle = [client for client in self._clients.values() if client.is_idle]
        silent = min(idle, key=lambda client: client.heard_at, default=None)
        if silent is None or time.monotonic() - silent.heard_at < SETTLED:
            return False
        silent.close()
        return True

    def close(self) -> None:
        """Hang up. What waits for room is given up, but for what can be written at once."""
        for client in list(self._clients.values()):
            client.close()
        self.poller.unregister(self._listener)
        self._listener.close()
        self._again.clear()
