"""A client of a pool's control socket.

    from sergeant_linux import Client

    with Client.find('crawl') as pool:
        print(pool.call('status')['ready'])
        for news in pool.stream('reload'):
            print(news)

Facts: who asks is a person at a terminal or a probe that runs each second; both wait for the process to start. A pool
may be stopped, or busy with a thousand others: then connecting takes its time, too, and a socket that Python has made
non-blocking for the sake of a timeout is refused (EAGAIN) instead of waiting. An answer comes soon, or not at all; the
end of a reload or a stop comes when a task ends.
Anybody can listen at a socket of their own that looks like a pool's, and answer what they like.
Consequence: this imports next to nothing. The kernel is told how long to wait for a connection (SO_SNDTIMEO, unix(7)).
An answer has a deadline, a stream has none unless the caller sets one. One request at a time; what comes is matched by
its id. What listens is spoken to only where names.py says so: the kernel tells whose it is (SO_PEERCRED, of the moment
of listen(2)). An answer of another shape than the verb's is no answer (answers.py).
"""

import errno
import os
import socket
import struct
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from types import EllipsisType
from typing import Any, Final, Self

from sergeant_linux.control import answers, names
from sergeant_linux.wire import protocol

PATIENCE: Final = 5.0
"""Seconds that a pool has for an answer, unless the caller says otherwise."""

READ: Final = 65_536

_UCRED: Final = struct.Struct('iII')
"""pid, uid, gid."""


class PoolError(Exception):
    """The pool has answered that it was not done: `code` is for programs, `message` for people (protocol.py)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (self.code, self.message)  # an exception is copied by its args, which are the message alone


class NoAnswer(ConnectionError):
    """What came is not what a pool answers."""


class OfOthers(PermissionError):
    """The socket is of a user who is neither root nor us, nor the one whose place it is in: it is not spoken to."""

    def __init__(self, path: str, uid: int) -> None:
        super().__init__(errno.EPERM, f'it is of the uid {uid}, and not spoken to', path)
        self.uid: Final = uid


class Client:
    """A connection to one pool. Not for several threads at once."""

    def __init__(self, path: str, *, timeout: float | None = PATIENCE) -> None:
        """Connect to the socket at `path`. `timeout`: seconds that an answer may take, None for ever.

        Raises OSError: FileNotFoundError, ConnectionRefusedError (its pool is dead), PermissionError (not ours to ask;
        also where its pool is of somebody else than root, ourselves or the owner of its folder), TimeoutError.
        """
        self.path = path
        self.timeout = timeout
        self._lines = protocol.Lines(protocol.MAX_ANSWER)
        self._count = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connect()
            self._check_whose(names.owners(path))
        except BaseException:
            self._socket.close()
            raise

    def _connect(self) -> None:
        if self.timeout is not None:
            microseconds = max(1, int(self.timeout * 1e6))  # 0 would be for ever
            span = struct.pack('ll', *divmod(microseconds, 1_000_000))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)
        try:
            self._socket.connect(self.path)
        except BlockingIOError:
            raise TimeoutError(f'{self.path}: no connection within {self.timeout} s') from None

    def _check_whose(self, trusted: Collection[int]) -> None:
        _, uid, _ = _UCRED.unpack(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in trusted:
            raise OfOthers(self.path, uid)

    @classmethod
    def connect_found(cls, found: names.Found, *, timeout: float | None = PATIENCE) -> Self:
        """Connect to a socket that was found by its name: not the caller, but whoever has made it says that it is that
        pool's. Raises OSError as the constructor does; one of others isn't even connected to."""
        trusted = names.trusted(found)
        owner = os.stat(found.path).st_uid
        if owner not in trusted:
            raise OfOthers(found.path, owner)
        client = cls(found.path, timeout=timeout)
        try:
            client._check_whose(trusted)
        except BaseException:
            client.close()
            raise
        return client

    @classmethod
    def find(cls, name: str | None = None, *, timeout: float | None = PATIENCE) -> Self:
        """Connect to the pool of this name, or to the only one on this host that answers; to one of another user than
        root or ourselves only in the folder that root has made for a unit of that name.

        Raises LookupError when there is none, or when there are several.
        """
        found: list[Self] = []
        hints: list[str] = []
        for each in names.pools(os.environ):
            if name in (None, each.name):
                try:
                    found.append(cls.connect_found(each, timeout=timeout))
                except OfOthers as error:
                    if name is not None:
                        hints.append(f'{each.path} is of the uid {error.uid}: --control-socket asks it')
                except PermissionError:
                    hints.append(f'{each.path} is not ours to ask')
                except TimeoutError:
                    hints.append(f'{each.path} does not answer')
                except OSError:  # a dead one's
                    continue
        if len(found) == 1:
            return found[0]
        for client in found:
            client.close()
        if found:
            several = ', '.join(client.path for client in found)
            raise LookupError(f'several pools are running, name one of them: {several}')
        whose = f'no pool named {name} is running here' if name is not None else 'no pool is running here'
        raise LookupError(whose + (f' ({"; ".join(hints)})' if hints else ''))

    def call(self, verb: str, /, *, timeout: float | EllipsisType | None = ..., **arguments: Any) -> dict[str, Any]:
        """Ask, wait for the answer and return its result; events before it are passed over. `timeout`: seconds that
        the answer may take, None for ever; that of the connection when it isn't given.

        Raises PoolError, TimeoutError, ConnectionError.
        """
        patience = self.timeout if isinstance(timeout, EllipsisType) else timeout
        deadline = None if patience is None else time.monotonic() + patience
        self._ask(verb, arguments, patience)
        while True:
            message = self._receive(deadline, patience)
            if 'event' not in message:
                return self._result(verb, message)

    def stream(self, verb: str, /, *, timeout: float | None = None, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Ask, and yield each event as it comes; at last, what the answer's result is, as `{'result': …}`.

        `timeout`: seconds of silence, None for any. The request is sent when the first item is asked for. A stream that
        is left before its end goes on at the pool until the connection is closed, but the next call doesn't see it.

        Raises PoolError, TimeoutError, ConnectionError.
        """
        self._ask(verb, arguments, self.timeout)
        while True:
            message = self._receive(None if timeout is None else time.monotonic() + timeout, timeout)
            if 'event' not in message:
                yield {'result': self._result(verb, message)}
                return
            if not answers.is_event(verb, message['event']):
                raise self._no_answer()
            yield message['event']

    def _ask(self, verb: str, arguments: dict[str, Any], timeout: float | None) -> None:
        self._count += 1
        line = protocol.encode({'v': protocol.VERSION, 'id': self._count, 'verb': verb, 'args': arguments})
        self._socket.settimeout(timeout)
        try:
            # where it has hung up, it may have said why
            with suppress(BrokenPipeError, ConnectionResetError):
                self._socket.sendall(line)
        except TimeoutError:
            raise TimeoutError(f'{self.path}: the request was not taken within {timeout} s') from None

    def _receive(self, deadline: float | None, timeout: float | None) -> protocol.Message:
        """Return what comes next for the last request."""
        while True:
            message = self._next(deadline, timeout)
            # without an id: an error of the connection as a whole
            if message.get('id') in (self._count, None):
                return message

    def _next(self, deadline: float | None, timeout: float | None) -> protocol.Message:
        try:
            while (line := self._lines.next()) is None:
                self._socket.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
                data = self._socket.recv(READ)
                if not data:
                    raise ConnectionError(f'{self.path}: the pool has hung up')
                self._lines.feed(data)
            return protocol.decode(line)
        except TimeoutError:
            raise TimeoutError(f'{self.path}: no answer within {timeout} s') from None
        except ValueError as error:  # TooLong, too
            raise NoAnswer(f'{self.path}: what came is no answer ({error})') from None

    def _result(self, verb: str, message: protocol.Message) -> dict[str, Any]:
        if message.get('ok') is True and answers.is_result(verb, message.get('result')):
            result: dict[str, Any] = message['result']
            return result
        error = message.get('error')
        if message.get('ok') is True or not isinstance(error, dict):
            raise self._no_answer()
        raise PoolError(str(error.get('code')), str(error.get('message')))

    def _no_answer(self) -> NoAnswer:
        return NoAnswer(f'{self.path}: what came is no answer')

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
