"""The fork servers of a pool: one for each generation of the code, of which there are two while a reload goes on.

Facts: what a process has imported it keeps; new code takes a new process. A fork server may die at any time, and no
worker minds.
Consequence: each generation has a fork server of its own, and a life is asked of the one whose code it shall run. One
that dies is replaced, but while a reload still loads it: then the reload has failed. One whose generation is over is
ended, and not replaced. Until the replacement serves, which takes as long as what it preloads, and for ever where that
ends it, workers are made by a stand-in, which loads nothing. It leaves when the fork server serves.
Price: workers that a stand-in has made share no pages with the others, and import for themselves.

Invariant: of every server that was started, its process is reaped here and its descriptors are closed here.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Final

from sergeant_linux.containment.search import FORK_SERVER, Stragglers
from sergeant_linux.core.deadlines import Deadlines
from sergeant_linux.core.events import Event, GenerationFailed, GenerationServes
from sergeant_linux.core.pool import Pool
from sergeant_linux.core.units import format_span
from sergeant_linux.engine.fork_server import ForkServer, LeftThreads, Serving
from sergeant_linux.kernel.children import Children
from sergeant_linux.kernel.poller import Handler, Poller
from sergeant_linux.log.words import Journal

GRACE: Final = 0.5
"""Seconds that a replacement has before a stand-in is started beside it."""

LONGEST_PAUSE: Final = 1.0
"""Seconds between two tries where no process can be made."""

FAILING: Final = 2
"""Servers that end young, one after the other, are a fault that is shown."""

PATIENCE: Final = 10.0
"""Seconds a server that was killed may take to be gone."""


class Due(Enum):
    """What is to be done with a server at some time."""

    START = 'start it'
    STAND_IN = 'start one that stands in for it'


@dataclass(frozen=True, slots=True)
class Errand:
    """Something that is to be done with the server of a generation."""

    generation: int
    due: Due


class Generations:
    """All fork servers of one pool. `happened` lets the pool know; `stragglers` is told when a server may have left
    something; `make_server` makes one that stands in, or not."""

    def __init__(
        self,
        pool: Pool,
        poller: Poller[Handler],
        children: Children,
        journal: Journal,
        make_server: Callable[[bool], ForkServer],
        happened: Callable[[Event], None],
        stragglers: Stragglers,
    ) -> None:
        self._pool = pool
        self._poller = poller
        self._children = children
        self._journal = journal
        self._make_server = make_server
        self._happened = happened
        self._stragglers = stragglers
        self._servers: dict[int, ForkServer] = {}
        self._stand_ins: dict[int, ForkServer] = {}
        self._missed_since: dict[int, float] = {}
        self._leaving: list[ForkServer] = []
        self._asked: dict[int, ForkServer] = {}
        self._errands: Deadlines[Errand] = Deadlines()
        self._has_begun = False

    # What the loop asks for.

    def start(self, generation: int) -> None:
        """Start the fork server of a new generation."""
        self._servers[generation] = self._make_server(False)
        self._start(generation)

    def end(self, generation: int) -> None:
        """End the fork server of a generation that is over. Its unsent requests end at their gates."""
        for due in Due:
            self._errands.disarm(Errand(generation, due))
        self._missed_since.pop(generation, None)
        for server in (self._servers.pop(generation), self._stand_ins.pop(generation, None)):
            if server is not None:
                server.give_up()
                if server.process is not None:
                    self._leaving.append(server)
                    server.overdue()

    def of(self, generation: int, life: int) -> ForkServer:
        """Return the fork server that is asked for this life."""
        server = self._servers[generation]
        self._asked[life] = server if server.serving else self._stand_ins.get(generation, server)
        return self._asked[life]

    def cancel(self, life: int) -> None:
        """Nobody wants this life any more. A server that has had the request for so long that it must hang is
        ended."""
        server = self._asked.get(life)
        if server is not None:
            if server.hangs(life):
                self._tell_overdue(server)
            server.cancel(life)

    def settled(self, life: int) -> bool:
        """The request of this life has ended, as a hello or as an end of file on its gate. Return whether the server
        that had it is gone."""
        server = self._asked.pop(life, None)
        return server is not None and server.settled(life)

    def next_deadline(self) -> float | None:
        """Return when `elapse` is due; None when nothing is."""
        dues = [self._errands.next(), *(self._overdue_at(server) for server in self._at_work())]
        return min((due for due in dues if due is not None), default=None)

    def elapse(self, now: float) -> None:
        """Do what is due."""
        for errand in self._errands.elapse(now):
            if errand.due is Due.START:
                self._start(errand.generation)
            else:
                self._start_stand_in(errand.generation)
        for server in self._at_work():
            due = self._overdue_at(server)
            if due is not None and due <= now:
                self._overdue(server)

    def picture(self) -> dict[str, Any]:
        """Return how the fork server does, as plain data: during a reload that of the code before."""
        if not self._servers:
            return {'state': None, 'pid': None, 'stand_in_pid': None, 'failures': 0, 'last_end': None}
        generation = min(self._servers)
        server, stand_in = self._servers[generation], self._stand_ins.get(generation)
        state = 'serving' if server.serving else 'failing' if server.failures >= FAILING else 'starting'
        return {
            'state': state,
            'pid': server.process.pid if server.process is not None else None,
            'stand_in_pid': stand_in.process.pid if stand_in is not None and stand_in.process is not None else None,
            'failures': server.failures,
            'last_end': server.last_end,
        }

    def lose_time(self, seconds: float) -> None:
        """Nothing could run for so long: what is due is due that much later."""
        self._errands.put_off(seconds)
        for server in self._all():
            server.lose_time(seconds)

    def close(self) -> None:
        """End all servers, and have what they have left looked for."""
        for server in self._all():
            if server.process is not None:
                self._stragglers.look_for(-server.process.pid, session=server.process.pid)
        if self._has_begun:
            self._stragglers.look_for(FORK_SERVER, session=0)
            self._stragglers.look_for_births()
        for server in self._all():
            server.give_up()
            if server.process is not None:
                self._children.leave(server.process)
                server.process.end(PATIENCE)
            server.close()
        self._servers.clear()
        self._stand_ins.clear()
        self._leaving.clear()

    # Inside.

    def _at_work(self) -> list[ForkServer]:
        return [*self._servers.values(), *self._stand_ins.values()]

    def _all(self) -> list[ForkServer]:
        return [*self._at_work(), *self._leaving]

    def _generation_of(self, server: ForkServer) -> int | None:
        of_kind = self._stand_ins if server.stands_in else self._servers
        return next((number for number, each in of_kind.items() if each is server), None)

    def _overdue_at(self, server: ForkServer) -> float | None:
        """Return when a server that doesn't serve yet must: by what the policy says now."""
        if server.serving or server.process is None or server.is_ending:
            return None
        return server.started_at + self._pool.policy.timeout_start

    def _start(self, generation: int) -> None:
        server, now = self._servers[generation], time.monotonic()
        try:
            self._launch(server, now)
        except OSError as error:
            message = f'the fork server could not be started: {error}'
            self._journal.note(logging.ERROR, message, 'fork-server-failed')
            self._errands.arm(Errand(generation, Due.START), now + LONGEST_PAUSE)
            self._happened(GenerationFailed(generation, message))

    def _launch(self, server: ForkServer, now: float) -> None:
        """Start it, and watch it: whole or not at all. Raises OSError."""
        server.start(now)
        self._has_begun = True
        assert server.control is not None and server.process is not None
        try:
            self._poller.register(server.control, partial(self._on_control, server))
            self._children.enter(server.process, partial(self._on_exit, server))
        except OSError:
            self._poller.unregister(server.control)
            server.process.end()
            server.close()
            raise

    def _start_stand_in(self, generation: int) -> None:
        """Have somebody make workers while the fork server can't."""
        stand_in = self._stand_ins.setdefault(generation, self._make_server(True))
        for life in self._servers[generation].hand_over(stand_in):
            self._asked[life] = stand_in
        try:
            self._launch(stand_in, time.monotonic())
        except OSError as error:
            message = f'nobody can stand in for the fork server: {error}'
            self._journal.note(logging.ERROR, message, 'fork-server-failed')
            self._errands.arm(Errand(generation, Due.STAND_IN), time.monotonic() + LONGEST_PAUSE)

    def _relieve_stand_in(self, generation: int) -> None:
        """The fork server serves."""
        self._errands.disarm(Errand(generation, Due.STAND_IN))
        self._missed_since.pop(generation, None)
        stand_in = self._stand_ins.pop(generation, None)
        if stand_in is not None:
            for life in stand_in.hand_over(self._servers[generation]):
                self._asked[life] = self._servers[generation]
            if stand_in.process is not None:
                self._leaving.append(stand_in)
                stand_in.retire()

    def _on_control(self, server: ForkServer, events: int) -> None:
        heard = server.hear()
        if events & ~1 and server.control is not None:
            self._poller.unregister(server.control)
        generation = self._generation_of(server)
        if generation is None or server.stands_in:
            return
        match heard:
            case Serving(failed):
                self._relieve_stand_in(generation)
                self._serves(generation, failed)
            case LeftThreads(threads, modules):
                message = (
                    f'what was preloaded has left {threads - 1} threads running ({", ".join(modules)}): '
                    'a fork would be unsafe, so every worker imports its modules itself'
                )
                fields = {'threads': threads - 1, 'modules': modules}
                self._journal.note(logging.WARNING, message, 'preload-left-threads', **fields)

    def _serves(self, generation: int, failed: tuple[tuple[str, str], ...]) -> None:
        for module, exception in failed:
            message = f'could not preload module: {module}: {exception}'
            fields = {'module': module, 'exception': exception, 'generation': generation}
            self._journal.note(logging.CRITICAL, message, 'preload-failed', **fields)
        broken = [f'could not preload module: {module}: {exception}' for module, exception in failed]
        self._happened(GenerationServes(generation, broken[0] if broken else None))

    def _on_exit(self, server: ForkServer, events: int) -> None:
        if server.process is None or server.control is None or not server.process.exited():
            return
        server.hear()
        self._poller.unregister(server.control)
        self._children.leave(server.process)
        ended = server.bury(time.monotonic())
        assert ended is not None
        self._stragglers.look_for_births()
        generation = self._generation_of(server)
        if generation is None:
            self._leaving.remove(server)
            self._stragglers.look_for(-ended.pid, session=ended.pid)  # what it had preloaded may have started something
            return
        restart_at = time.monotonic() + ended.restart_in
        if server.stands_in:
            self._errands.arm(Errand(generation, Due.STAND_IN), restart_at)
            return
        self._errands.arm(Errand(generation, Due.START), restart_at)
        if generation not in self._stand_ins:
            missed_since = self._missed_since.setdefault(generation, time.monotonic())
            self._errands.arm(Errand(generation, Due.STAND_IN), missed_since + GRACE)
        message = f'the fork server({ended.pid}) has ended with {ended.how}: '
        fields = {'pid': ended.pid, 'restart_in_seconds': ended.restart_in, 'generation': generation}
        if not server.left_threads:
            self._happened(GenerationFailed(generation, f'{message}it has not loaded the code'))
        goes_on = generation in self._servers
        message += 'replacing it; no worker is affected' if goes_on else 'it has not loaded the code'
        self._journal.note(logging.WARNING, message, 'fork-server-exit', **fields)

    def _overdue(self, server: ForkServer) -> None:
        self._tell_overdue(server)
        generation = self._generation_of(server)
        if generation is not None and not server.stands_in:
            reason = f'the code was not loaded within {format_span(self._pool.policy.timeout_start)}'
            self._happened(GenerationFailed(generation, reason))

    def _tell_overdue(self, server: ForkServer) -> None:
        message = f'the fork server does not serve within {format_span(self._pool.policy.timeout_start)}: ending it'
        self._journal.note(logging.ERROR, message, 'fork-server-overdue')
        server.overdue()
