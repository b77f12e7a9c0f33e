"""The loop: a descriptor is ready -> its handler is called; a deadline has come -> its part is.

One thread, one epoll. Nothing waits but the poller: until a descriptor is ready or a deadline comes, for ever if there
is none. What there is to do in a turn is bounded: signals, zombies, requests and reports.

Facts before timers: a process that was stopped, or paused with its machine, goes on in epoll_wait, and where the
timeout has run out meanwhile, Python's poll() returns without having looked (seen in CPython 3.11 to 3.13). So before a
timer may elapse, the poller is asked once more what has happened; pauses.py has what becomes of the time that was lost.

Invariants: an error of our own ends the pool in order, whoever had asked for what met it, and the exit status is 70 ·
at the end each thing is closed, whatever became of the one before.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from random import Random

from sergeant_linux.control.door import open_door
from sergeant_linux.control.notifier import Notifier
from sergeant_linux.core.deadlines import earliest
from sergeant_linux.core.exit import INTERNAL_ERROR
from sergeant_linux.core.pool import Pool
from sergeant_linux.engine import borrowed
from sergeant_linux.engine.parts import Part, close_all
from sergeant_linux.engine.pauses import SLICE, Pauses
from sergeant_linux.engine.runner import Runner
from sergeant_linux.engine.slowness import Slowness
from sergeant_linux.host import CantRun
from sergeant_linux.kernel.children import Children
from sergeant_linux.kernel.poller import EPOLLOUT, Handler, Poller
from sergeant_linux.log.handler import LogHandler
from sergeant_linux.log.words import Journal


class Loop:
    """The supervisor's process, and the one pool in it."""

    def __init__(
        self,
        pool: Pool,
        chance: Random,
        journal: Journal,
        log: LogHandler | None,
        host: borrowed.Host,
        environ: Mapping[str, str],
    ) -> None:
        self._journal = journal
        self._log = log
        self._host = host
        self._environ = environ
        self._poller: Poller[Handler] = Poller()
        self._children = Children(self._poller)
        self._pauses = Pauses(self._poller, journal)
        self._slowness = Slowness(journal)
        self.runner = Runner(pool, chance, journal, self._poller, self._children, self._pauses, host, environ)
        self._parts: list[Part] = [self.runner]
        self._meanings = self._what_signals_mean()
        self._zombies_wait = False
        self._log_is_watched = False

    def run(self) -> int:
        """Run the pool until it has stopped, and return the exit status.

        Raises `CantRun` when the host can't do what is needed, before any worker exists.
        """
        status = INTERNAL_ERROR
        try:
            self.begin()
            while self.runner.exit_status is None:
                self.turn()
            status = self.runner.exit_status
        except CantRun:
            raise
        except BaseException:
            self.runner.exit_status = INTERNAL_ERROR
            self._journal.failure('the supervisor has met an error of its own: the workers are being ended')
        finally:
            status = self.end(status)
        return status

    def begin(self) -> None:
        """Take the pool's name, and start its first worker. Raises `CantRun`."""
        runner, journal = self.runner, self._journal
        try:
            self._poller.register(self._host.inbox, self._on_signal)
            door = open_door(runner.pool.policy, self._environ, self._poller, runner.desk, journal, self._on_unsayable)
        except OSError as error:
            raise CantRun(f'cannot begin: {error}', error) from None
        self._parts.append(door)
        runner.status.name = door.name
        self._parts.append(Notifier(runner.pool, runner.status, journal, self._environ, os.getpid()))
        runner.begin()

    def turn(self) -> None:
        """Wait for what comes next, and deal with it: first with what has happened, then with what is due."""
        patience = self._patience()
        ready = self._poller.wait(patience)
        woken = time.monotonic()
        self._pauses.woken(patience)
        for handler, events in ready:
            handler(events)
        if self._patience() == 0:
            for handler, events in self._poller.wait(0):
                handler(events)
        if self._zombies_wait:
            self._zombies_wait = self._children.reap()
        now = time.monotonic()
        if (lost := self._pauses.take(now)) > 0:
            self.runner.lose_time(lost, now)
        for part in self._parts:
            part.elapse(time.monotonic())
        self._watch_log()
        self._slowness.turned(woken, time.monotonic())

    def end(self, status: int) -> int:
        """Leave nothing behind; return the exit status, which an error in here makes 70."""
        try:
            close_all(
                *(part.close for part in self._parts), self._reap_all, self._pauses.close, self._poller.close
            )
        except Exception:
            self._journal.failure('the supervisor has met an error of its own while it left')
            return INTERNAL_ERROR
        return status

    def _patience(self) -> float | None:
        if self._zombies_wait:
            return 0.0
        now, nearest = time.monotonic(), earliest(part.next_deadline() for part in self._parts)
        if nearest is not None and self.runner.somebody_has_a_time_limit():
            nearest = min(nearest, now + SLICE)
        return None if nearest is None else max(0.0, nearest - now)

    def _on_unsayable(self, error: Exception) -> None:
        self._journal.failure('an answer could not be written; the client was told so')

    def _reap_all(self) -> None:
        while self._host.is_ours and self._children.reap():
            pass

    # Signals.

    def _what_signals_mean(self) -> dict[int, Callable[[], object]]:
        runner = self.runner
        meanings: dict[int, Callable[[], object]] = {signal.SIGCHLD: self._expect_zombies}
        for signum in borrowed.STOP:
            meanings[signum] = partial(runner.stop_signal, signal.Signals(signum).name)
        for signum in borrowed.KILL:
            meanings[signum] = partial(runner.kill_now, signal.Signals(signum).name)
        for signum in borrowed.STATUS:
            meanings[signum] = partial(runner.status.tell, self._journal)
        for signum in borrowed.RELOAD:
            meanings[signum] = runner.reload
        for signum in borrowed.MORE:
            meanings[signum] = partial(runner.one_more, signal.Signals(signum).name)
        for signum in borrowed.FEWER:
            meanings[signum] = runner.one_less
        return meanings

    def _on_signal(self, events: int) -> None:
        for signum in self._host.inbox.read():
            if signum in self._meanings:
                self._meanings[signum]()

    def _expect_zombies(self) -> None:
        self._zombies_wait = True

    # The log.

    def _watch_log(self) -> None:
        """Have what found no room in the log written as soon as there is room."""
        log = self._log
        if log is None or not log.pollable or log.wants_write == self._log_is_watched:
            return
        if log.wants_write:
            try:
                self._poller.register(log, self._on_log, EPOLLOUT)
            except OSError:  # the next turn tries again
                return
        else:
            self._poller.unregister(log)
        self._log_is_watched = log.wants_write

    def _on_log(self, events: int) -> None:
        assert self._log is not None
        self._log.write_some()
