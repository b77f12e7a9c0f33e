"""A client of a pool's control socket.

    from sergeant_linux import Client

    with Client.find('crawl') as pool:
        print(pool.call('status')['ready'])
        for news in pool.stream('reload'):
            print(news)

Facts: who asks is a person at a terminal or a probe that runs each second; both wait for the process to start.
Consequence: this imports next to nothing. One request at a time; what comes is matched by its id.
"""

import os
import socket
import time
from collections.abc import Iterator
from typing import Any, Final, Self

from sergeant_linux import names, protocol

PATIENCE: Final = 5.0
"""Seconds that a pool has for an answer, unless the caller says otherwise."""

READ: Final = 65_536


class PoolError(Exception):
    """The pool has answered that it was not done: `code` is for programs, the text for people (protocol.py)."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Client:
    """A connection to one pool. Not for several threads at once."""

    def __init__(self, path: str, *, timeout: float | None = PATIENCE) -> None:
        """Connect to the socket at `path`. `timeout`: seconds that each answer may take, None for ever.

        Raises OSError: FileNotFoundError, ConnectionRefusedError (its pool is dead), PermissionError.
        """
        self.path = path
        self.timeout = timeout
        self._lines = protocol.Lines(protocol.MAX_ANSWER + 1)
        self._count = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    @classmethod
    def find(cls, name: str | None = None, *, timeout: float | None = PATIENCE) -> Self:
        """Connect to the pool of this name, or to the only one on this host that answers.

        Raises LookupError when there is none, or when there are several.
        """
        found: list[Self] = []
        refused: list[str] = []
        for each in names.pools(os.environ):
            if name in (None, each.name):
                try:
                    found.append(cls(each.path, timeout=timeout))
                except PermissionError:
                    refused.append(each.path)
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
        hint = f' (not ours to ask: {", ".join(refused)})' if refused else ''
        raise LookupError(whose + hint)

    def call(self, verb: str, /, **arguments: Any) -> dict[str, Any]:
        """Ask, wait for the answer and return its result; events before it are passed over.

        Raises PoolError, TimeoutError, ConnectionError.
        """
        result: dict[str, Any] = {}
        for message in self._ask(verb, arguments):
            if 'event' not in message:
                result = self._result(message)
        return result

    def stream(self, verb: str, /, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Ask, and yield each event as it comes; at last, what the answer's result is, as `{'result': …}`.

        Raises PoolError, TimeoutError (when nothing has come for that long), ConnectionError.
        """
        for message in self._ask(verb, arguments):
            yield message['event'] if 'event' in message else {'result': self._result(message)}

    def _ask(self, verb: str, arguments: dict[str, Any]) -> Iterator[protocol.Message]:
        """Yield what comes for this request, the answer last."""
        self._count += 1
        asked = {'v': protocol.VERSION, 'id': self._count, 'verb': verb, 'args': arguments}
        line = protocol.encode(asked)
        try:
            self._socket.settimeout(self.timeout)
            self._socket.sendall(line)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have said why it hung up
        while True:
            message = self._receive()
            if message.get('id') == self._count or message.get('id') is None:
                yield message
                if 'event' not in message:
                    return

    def _receive(self) -> protocol.Message:
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        while (line := self._lines.next()) is None:
            if deadline is not None:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._socket.recv(READ)
            except TimeoutError:
                raise TimeoutError(f'{self.path}: no answer within {self.timeout} s') from None
            if not data:
                raise ConnectionError(f'{self.path}: the pool has hung up')
            self._lines.feed(data)
        try:
            return protocol.decode(line)
        except ValueError as error:
            raise ConnectionError(f'{self.path}: what came is no answer ({error})') from None

    def _result(self, message: protocol.Message) -> dict[str, Any]:
        if message.get('ok') is True and isinstance(message.get('result'), dict):
            result: dict[str, Any] = message['result']
            return result
        error = message.get('error')
        if not isinstance(error, dict):
            raise ConnectionError(f'{self.path}: what came is no answer')
        raise PoolError(str(error.get('code')), str(error.get('message')))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
