"""The supervisor's side of the fork server: who is it, what was asked of it, and when is the next one due.

Facts: a request is a datagram with the worker's end of a gate in it, and what else the worker shall have, by name; once
it is sent and our copy is closed, only the far side holds that end, so whatever goes wrong there closes the gate. A
full socket (EAGAIN) or a dead peer (EPIPE) means: not sent.
Consequence: requests wait here until a server serves; of those in flight it is known to which process they went, so
that one that was lost with its server is nobody's failure. A server that dies is replaced, with a growing delay when it
dies young; no worker notices. What the policy says is looked up when it is needed: it can change at any moment.

While no server of a generation serves, a stand-in makes its workers: a server that has nothing to load, so that it
serves some 50 ms after its start, and nothing that was preloaded can end it.

Invariant: at most `MAX_IN_FLIGHT` requests are in flight; a request is sent once or not at all.
"""

import json
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from sergeant_linux.containment.leaves import Leaf
from sergeant_linux.core.backoff import restart_delay
from sergeant_linux.core.descriptors import BIRTHS
from sergeant_linux.core.policy import Policy
from sergeant_linux.forkserver.estate import Estate
from sergeant_linux.kernel import procfs, spawn
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.log.handler import IDENTIFIER
from sergeant_linux.wire import gate as gates
from sergeant_linux.wire.marks import LIFE, POOL, ROOM, SLOT

MODULE: Final = 'sergeant_linux.forkserver.server'
MAX_IN_FLIGHT: Final = BIRTHS

STOOD: Final = 1.0
"""Seconds of service after which a server's death says nothing about its successor."""

DELAY: Final = 0.1
MAX_DELAY: Final = 10.0
MAX_DELAY_OF_STAND_IN: Final = 0.5


@dataclass(frozen=True, slots=True)
class Serving:
    """The server has imported what it was to import; `failed`: the modules that could not be, and why."""

    failed: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class LeftThreads:
    """What was preloaded has left threads running; the next server preloads nothing of the user's. `modules`: those
    whose import has left some."""

    threads: int
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServerEnded:
    """The server is gone; the next one is due in `restart_in` seconds."""

    pid: int
    how: str
    restart_in: float


@dataclass(frozen=True, slots=True)
class _Request:
    """A worker that is wanted: the ends that it shall have, and the leaf in which it shall be born."""

    life: int
    gate: socket.socket
    leaf: Leaf | None
    page: int | None
    stacks: int | None

    def fds(self) -> dict[str, int]:
        """Return the descriptors by their names, the gate first."""
        named = {
            'gate': self.gate.fileno(),
            'leaf': None if self.leaf is None else self.leaf.directory,
            'page': self.page,
            'stacks': self.stacks,
        }
        return {name: fd for name, fd in named.items() if fd is not None}

    def close(self) -> None:
        """Let go of what the other side has now, or will never have. Once."""
        self.gate.close()
        if self.leaf is not None:
            self.leaf.close_directory()
        for fd in (self.page, self.stacks):
            if fd is not None:
                os.close(fd)


class ForkServer:
    """One fork server after another. The loop watches `control` and `process` and calls the methods named after what
    it saw."""

    def __init__(
        self,
        policy: Callable[[], Policy],
        estate: Estate,
        comm: str,
        environ: Mapping[str, str],
        nofile: tuple[int, int],
        conditions: Mapping[str, Any],
        rng: Random,
        *,
        stands_in: bool,
    ) -> None:
        """policy: tells what is in force now. stands_in: it loads nothing."""
        self._policy = policy
        self._estate = estate
        self._comm = comm
        self._environ = {**environ, POOL: estate.pool, LIFE: ROOM, SLOT: ROOM}
        self._nofile = nofile
        self._conditions = conditions
        self._rng = rng
        self._waiting: deque[_Request] = deque()
        self._in_flight: dict[int, tuple[int, float]] = {}
        self._serving_since: float | None = None
        self._preloads = True
        self._is_leaving = False
        self.stands_in = stands_in
        self.failures = 0
        self.last_end: str | None = None
        self.started_at = 0.0
        self.is_ending = False
        self.left_threads = False
        self.control: socket.socket | None = None
        self.process: PidRef | None = None
        self.serving = False

    def start(self, now: float) -> None:
        """Start a server. Raises OSError when no process can be made."""
        sessions = self._estate.sessions.reader()
        try:
            ours, theirs = gates.pair()
            try:
                is_workers = self._conditions['uid'] is None
                config, fds = json.dumps(self._config()), [theirs.fileno(), sessions]
                self.process = spawn.launch(MODULE, [config], fds, self._environ, is_workers=is_workers)
            except OSError:
                ours.close()
                raise
            finally:
                theirs.close()
        finally:
            os.close(sessions)
        self.control, self.serving, self.started_at = ours, False, now
        self._serving_since, self.is_ending = None, False
        self.left_threads = False

    def _config(self) -> dict[str, Any]:
        policy = self._policy()
        forks = policy.spawn == 'fork' and not self.stands_in
        mine = forks and self._preloads
        return {
            'supervisor': os.getpid(),
            'pool': self._estate.pool,
            'folders': self._estate.folders,
            'comm': self._comm,
            'identifier': policy.name or IDENTIFIER,
            'title': 'fork server (stand-in)' if self.stands_in else 'fork server',
            'nofile': self._nofile,
            'spawn': policy.spawn,
            'conditions': self._conditions,
            'preload': policy.preload_modules if mine else (),
            'convenience': ['sergeant'] * forks + [policy.worker_module_name] * (mine and policy.preload),
        }

    def request(
        self,
        life: int,
        gate: socket.socket,
        leaf: Leaf | None,
        *,
        page: int | None = None,
        stacks: int | None = None,
    ) -> None:
        """Have a worker forked for this life, in this leaf, as soon as may be.

        The worker's ends of its gate, its page and the pipe for its stacks, and the leaf's open directory, are this
        object's from now on.
        """
        self._waiting.append(_Request(life, gate, leaf, page, stacks))
        self.send_waiting()

    def cancel(self, life: int) -> None:
        """Forget a request that was not sent yet; one in flight ends on its own gate."""
        for request in list(self._waiting):
            if request.life == life:
                self._waiting.remove(request)
                request.close()

    def hand_over(self, other: 'ForkServer') -> list[int]:
        """Have the other one make those that were asked for and not sent; return their lives."""
        moved = [request.life for request in self._waiting]
        other._waiting.extend(self._waiting)
        self._waiting.clear()
        other.send_waiting()
        return moved

    def settled(self, life: int) -> bool:
        """The request of this life has ended, as a hello or as an end of file on its gate. Return whether the server
        that had it is gone.

        A process that is killed closes its descriptors before its pidfd is readable: until then its flags tell.
        """
        sent_to, _ = self._in_flight.pop(life, (0, 0.0))
        is_gone = sent_to != 0 and (
            self.process is None or self.process.pid != sent_to or self.process.exited() or procfs.is_exiting(sent_to)
        )
        self.send_waiting()
        self._leave_when_done()
        return is_gone

    def retire(self) -> None:
        """It isn't needed any more: let it make those whose request it has, and no others."""
        self.serving, self._is_leaving = False, True
        self._leave_when_done()

    def _leave_when_done(self) -> None:
        if self._is_leaving and not self._in_flight:
            self.overdue()

    def send_waiting(self) -> None:
        """Send what may be sent now."""
        while self.serving and self._waiting and len(self._in_flight) < MAX_IN_FLIGHT:
            assert self.control is not None and self.process is not None
            request = self._waiting[0]
            try:
                fds = request.fds()
                message = gates.encode({'type': 'spawn', 'life': request.life, 'fds': list(fds)})
                socket.send_fds(self.control, [message], list(fds.values()), socket.MSG_NOSIGNAL)
            except OSError:
                return
            self._waiting.popleft()
            self._in_flight[request.life] = self.process.pid, time.monotonic()
            request.close()

    def hear(self) -> Serving | LeftThreads | None:
        """The control socket is readable. None: nothing that matters (its end is seen by the process's own)."""
        assert self.control is not None
        try:
            message = gates.receive(self.control)
        except (OSError, gates.Malformed):
            return None
        if message is None or message['type'] != 'serving':
            return None
        if message['threads'] > 1:
            self._preloads, self.left_threads = False, True
            return LeftThreads(message['threads'], tuple(message['leavers']))
        if self._is_leaving:
            return None
        self.serving, self._serving_since = True, time.monotonic()
        self.send_waiting()
        return Serving(tuple((one['module'], one['exception']) for one in message['failed']))

    def hangs(self, life: int) -> bool:
        """Return whether this request, which is being given up, was with the server for so long that it must hang."""
        sent_to, sent_at = self._in_flight.get(life, (0, 0.0))
        if not self.serving or self.process is None or self.process.pid != sent_to:
            return False
        return time.monotonic() - sent_at > self._policy().timeout_start / 2

    def lose_time(self, seconds: float) -> None:
        """Nothing could run for so long: it was there that much less, and so were its requests with it."""
        self.started_at += seconds
        self._in_flight = {life: (sent_to, at + seconds) for life, (sent_to, at) in self._in_flight.items()}

    def overdue(self) -> None:
        """The server doesn't serve in time: end it; its death is seen as any other."""
        self.serving, self.is_ending = False, True
        if self.process is not None:
            self.process.signal(signal.SIGKILL)

    def bury(self, now: float) -> ServerEnded | None:
        """Reap the server if it has ended, and say when the next one is due. The loop has unregistered its
        descriptors."""
        assert self.process is not None and self.control is not None
        try:
            ended = self.process.reap()
        except ChildProcessError:
            how = 'unknown: somebody else has reaped it'
        else:
            if ended is None:
                return None
            how = f'return code {ended.return_code}'
        pid = self.process.pid
        self.close()
        stood = self._serving_since is not None and now - self._serving_since >= STOOD
        self.failures = 0 if stood else self.failures + 1
        self.last_end = how
        return ServerEnded(pid, how, self._delay())

    def _delay(self) -> float:
        """The first that dies young is replaced at once."""
        if self.failures <= 1:
            return 0.0
        most = MAX_DELAY_OF_STAND_IN if self.stands_in else MAX_DELAY
        return restart_delay(self.failures - 1, delay=DELAY, max_delay=most, rng=self._rng)

    def close(self) -> None:
        """Let go of the server's descriptors; a server that is still there leaves when it sees that."""
        self.serving = False
        for holder in (self.control, self.process):
            if holder is not None:
                holder.close()
        self.control = self.process = None

    def give_up(self) -> None:
        """Drop all requests that were not sent."""
        for request in self._waiting:
            request.close()
        self._waiting.clear()
