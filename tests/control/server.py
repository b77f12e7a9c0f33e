"""A control socket with a desk of the tests' own, in a process of its own: a real Poller, a real Control, a small loop.

It is a process so that it can be stopped, can have its own limit of descriptors, and can be asked by another user; what
a test wants to know of its inside it asks by a verb.
"""

import json
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from sergeant_linux.control.server import Control, Reply
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.kernel.poller import Handler, Poller
from sergeant_linux.wire.protocol import MAX_ANSWER
from tests.kernel.processes import DEADLINE

BIG: Final = 1024 * 1024
"""Bytes of the result of `big`: some of them are more than a socket's buffer holds."""

Message = dict[str, Any]


class Desk:
    """What can be asked here."""

    def __init__(self) -> None:
        self.heard = 0
        self.most_in_a_turn = 0
        self.turns = 0
        self.errors: list[str] = []
        self._kept: list[Reply] = []
        self._verbs: dict[str, Callable[[Mapping[str, Any], Reply], None]] = {
            'echo': lambda arguments, reply: reply.done(dict(arguments)),
            'big': lambda arguments, reply: reply.done({'text': 'x' * arguments.get('bytes', BIG)}),
            'keep': lambda _, reply: self._kept.append(reply),
            'answer-kept': self._answer_kept,
            'tell-kept': self._tell_kept,
            'kept': lambda _, reply: reply.done({'gone': [each.is_gone for each in self._kept]}),
            'count': self._count,
            'twice': self._twice,
            'raise': self._raise,
            'answer-and-raise': self._answer_and_raise,
            'unspeakable': lambda _, reply: reply.done({'text': float('nan')}),
            'unspeakable-event': lambda _, reply: self._tell({'at': float('inf')}, reply),
            'long-event': lambda _, reply: self._tell({'text': 'x' * MAX_ANSWER}, reply),
            'limit': self._limit,
            'seen': self._seen,
        }

    def __call__(self, verb: str, arguments: Mapping[str, Any], reply: Reply) -> None:
        self.heard += 1
        if verb not in self._verbs:
            reply.failed('unknown-verb', f'there is no verb {verb}')
        else:
            self._verbs[verb](arguments, reply)

    def after_a_turn(self) -> None:
        self.turns += 1
        self.most_in_a_turn = max(self.most_in_a_turn, self.heard)
        self.heard = 0

    def on_error(self, error: Exception) -> None:
        self.errors.append(f'{type(error).__name__}: {error}')

    def _answer_kept(self, arguments: Mapping[str, Any], reply: Reply) -> None:
        for each in self._kept:
            each.done({'kept': True})
        reply.done({'answered': len(self._kept)})
        self._kept.clear()

    def _tell_kept(self, arguments: Mapping[str, Any], reply: Reply) -> None:
        for _ in range(arguments['times']):
            for each in self._kept:
                each.event({'text': 'x' * arguments['bytes']})
        reply.done({'gone': [each.is_gone for each in self._kept]})

    def _count(self, arguments: Mapping[str, Any], reply: Reply) -> None:
        for number in range(arguments['to']):
            reply.event({'number': number})
        reply.done({'counted': arguments['to']})

    def _twice(self, _: object, reply: Reply) -> None:
        """Answer twice, and tell something after it."""
        reply.done({'time': 1})
        assert reply.is_gone
        reply.done({'time': 2})
        reply.failed('failed', 'three')
        reply.event({'time': 4})

    def _tell(self, event: Mapping[str, object], reply: Reply) -> None:
        reply.event(event)
        reply.done({})

    def _raise(self, _: object, reply: Reply) -> None:
        raise RuntimeError('the desk has fallen over')

    def _answer_and_raise(self, arguments: object, reply: Reply) -> None:
        reply.done({})
        self._raise(arguments, reply)

    def _limit(self, arguments: Mapping[str, Any], reply: Reply) -> None:
        """Let there be no descriptor for anybody, or for everybody again."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        soft = min(hard, 1024)
        if arguments['on']:
            soft = os.dup(0)  # the lowest free number
            os.close(soft)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        reply.done({})

    def _seen(self, _: object, reply: Reply) -> None:
        reply.done({'turns': self.turns, 'most_in_a_turn': self.most_in_a_turn, 'errors': self.errors})


def serve(listener: socket.socket, group: int | None = None) -> NoReturn:
    """Be the server, until the process is ended."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    desk = Desk()
    with Poller[Handler]() as poller:
        control = Control(poller, desk, listener, desk.on_error, group)
        while True:
            deadline = control.next_deadline()
            for handler, events in poller.wait(None if deadline is None else deadline - time.monotonic()):
                handler(events)
            try:
                control.elapse(time.monotonic())
            except RuntimeError as error:  # of the desk: a real loop ends
                desk.on_error(error)
            desk.after_a_turn()


class Wire:
    """A client that says what it likes, byte by byte if need be."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.connect(str(path))
            self.socket.settimeout(DEADLINE)  # after it: see client.py
        except BaseException:
            self.socket.close()
            raise
        self._rest = b''

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, verb: str, id: object = 1, **arguments: object) -> None:
        self.send(json.dumps({'v': 1, 'id': id, 'verb': verb, 'args': arguments}).encode() + b'\n')

    def receive(self) -> Message | None:
        """Return the next message, None at the end."""
        while b'\n' not in self._rest:
            data = self.socket.recv(1024 * 1024)
            if not data:
                assert self._rest == b'', 'the last line has no end'
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b'\n')
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def ask(self, verb: str, id: object = 1, **arguments: object) -> Message | None:
        self.request(verb, id, **arguments)
        return self.receive()

    def is_ended(self) -> bool:
        """Return whether the other end has hung up; waits for it."""
        try:
            return self.receive() is None
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()


def ends_well(process: PidRef, patience: float = DEADLINE) -> bool:
    """Wait for the end of a child, and return whether nothing was wrong with it."""
    assert process.exited(patience), 'it has not ended'
    ended = process.reap()
    return ended is not None and ended.exit_code == 0


class Server:
    """The server's process, and the connections to it."""

    def __init__(self, path: Path, process: PidRef, wires: list[Wire]) -> None:
        self.path = path
        self.process = process
        self._wires = wires

    def wire(self) -> Wire:
        self._wires.append(Wire(self.path))
        return self._wires[-1]

    def descriptors(self) -> int:
        """Return how many the server has."""
        return len(os.listdir(f'/proc/{self.process.pid}/fd'))

    def result(self, verb: str, **arguments: object) -> Message:
        """Return the result that a connection of its own gets."""
        wire = Wire(self.path)
        try:
            answer = wire.ask(verb, **arguments)
        finally:
            wire.close()
        assert answer is not None and answer['ok'], answer
        result: Message = answer['result']
        return result

    def result_when(self, verb: str, condition: Callable[[Message], bool]) -> Message:
        """Return the first result that meets the condition."""
        deadline = time.monotonic() + DEADLINE
        while not condition(result := self.result(verb)):
            assert time.monotonic() < deadline, result
        return result
