"""What the service manager is told of the pool, in systemd's words (sd_notify(3)); nothing where there is none.

    READY=1                     the pool is up, as --ready-when has it; a reload has ended, however
    RELOADING=1                 a reload has begun, with MONOTONIC_USEC=, by which systemd knows that it is its own
    STOPPING=1                  the pool stops
    STATUS=…                    workers, backend, the last trouble: one line for people
    EXTEND_TIMEOUT_USEC=…       a stop, or a reload, takes its time: wait so long, and longer when it is said again
    WATCHDOG=1                  a sign of life, at half of the time within which it is wanted

Facts: every message wakes systemd up, and those who watch the unit. A crash loop changes the counts all the time. To
see whether there is a quorum takes a look at every slot. A manager that doesn't read has us wait.
Decision: a change of phase is told at once; counts are looked at `PAUSE` apart at the earliest. What can't be sent is
kept and sent later, all that is news in one message. A sign of life means that the loop turns and that the pool has
its quorum; one that was held back is given as soon as there is one again. A stop is extended by little and again, so
that a supervisor that hangs in it does not have the time of the whole stop.
Price: what has changed within a pause, is told after it: one wake-up more.

Invariant: nothing here blocks or raises; an idle pool without a watchdog is not woken up.
"""

import logging
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from math import inf
from typing import Final

from sergeant_linux.control.status import Status
from sergeant_linux.core import margins
from sergeant_linux.core.pool import Pool
from sergeant_linux.core.quorum import has_quorum
from sergeant_linux.core.reload import Phase, Reload
from sergeant_linux.kernel import notify
from sergeant_linux.log.words import Journal

PAUSE: Final = 0.25
"""Seconds between two looks at the counts."""

EXTENSION: Final = 20.0
"""Seconds that are asked for at a time; they are asked for again when half of them is over."""

FIRST_RETRY: Final = 0.02
LAST_RETRY: Final = 1.0

LONGEST_STATUS: Final = 500
"""Characters."""

KEPT: Final = 32
"""Messages that wait for room, at most; news that change no phase share one."""

PHASES: Final = frozenset({'READY', 'RELOADING', 'STOPPING'})

Message = dict[str, str]


class Notifier:
    """Tells one service manager of one pool."""

    def __init__(self, pool: Pool, status: Status, journal: Journal, environ: Mapping[str, str], pid: int) -> None:
        self._pool = pool
        self._status = status
        self._journal = journal
        self._socket: notify.NotifySocket | None = None
        self._is_ready = False
        self._is_stopping = False
        self._is_reloading = False
        self._reload: Reload | None = None
        self._told = ''
        self._look_again_at = -inf
        self._missed = False
        self._extend_at = inf
        self._extend_until = inf
        self._half = self._ping_at = inf
        self._owes_ping = False
        self._outbox: deque[Message] = deque(maxlen=KEPT)
        self._retry, self._retry_at = FIRST_RETRY, -inf
        self._has_failed = False
        if not environ.get(notify.SOCKET):
            return
        try:
            self._socket = notify.NotifySocket(notify.address(environ[notify.SOCKET]))
        except (notify.BadAddress, OSError) as error:
            self._complain(error)
            return
        span = notify.watchdog_span(environ, pid)
        if span is not None:
            self._half = span / 2
            self._ping_at = time.monotonic() + self._half

    def elapse(self, now: float) -> None:
        """Something may have happened, or a deadline has come: tell what is new."""
        if self._socket is None:
            return
        phases = self._change_phase(now)
        news: Message = {}
        if phases or now >= min(self._look_again_at, self._ping_at):
            self._look_again_at, self._missed = now + PAUSE, False
            all_are_ready = self._pool.ever_ready and self._pool.ready >= self._pool.wanted
            if all_are_ready and not (self._is_ready or self._pool.stopping):
                phases.append(self._become_ready())
            news = self._news(now)
        else:
            self._missed = True
        if now >= self._extend_at:
            news |= self._extend(now)
        for phase in phases[:-1]:
            self._say(phase)
        self._say({**(phases[-1] if phases else {}), **news})
        self._send(now)

    def next_deadline(self) -> float | None:
        """Return when `elapse` is to be called next, in seconds of the monotonic clock; None: nothing is due."""
        if self._socket is None:
            return None
        nearest = min(
            self._ping_at,
            self._extend_at,
            self._look_again_at if self._missed else inf,
            self._retry_at if self._outbox else inf,
        )
        return nearest if nearest < inf else None

    def close(self) -> None:
        """Send what is left, if there is room for it."""
        if self._socket is not None:
            self._send(inf)
            self._socket.close()
            self._socket = None

    # What is new.

    def _change_phase(self, now: float) -> list[Message]:
        """Return what is to be said of a stop and of reloads, each at the moment that it is seen."""
        pool, phases = self._pool, []
        if pool.stopping:
            if not self._is_stopping:
                self._is_stopping = True
                self._extend_at, self._extend_until = now, now + pool.policy.timeout_stop + margins.STOP
                phases.append({'STOPPING': '1'})
            return phases
        if not self._is_ready and pool.ever_ready and pool.policy.ready_when == 'first':
            phases.append(self._become_ready())
        reload = pool.last_reload
        if self._is_ready and reload is not None and reload is not self._reload:
            self._reload, self._is_reloading = reload, True
            self._extend_at, self._extend_until = now, inf
            phases.append({'RELOADING': '1', 'MONOTONIC_USEC': str(time.monotonic_ns() // 1000)})
        if self._is_reloading and reload is not None and not reload.goes_on:
            self._is_reloading, self._extend_at = False, inf
            phases.append({'READY': '1'})
        return phases

    def _become_ready(self) -> Message:
        """A reload that is over by now was part of the start."""
        self._is_ready = True
        reload = self._pool.last_reload
        if reload is not None and not reload.goes_on:
            self._reload = reload
        return {'READY': '1'}

    def _news(self, now: float) -> Message:
        news: Message = {}
        if (text := self._text()) != self._told:
            self._told = news['STATUS'] = text
        if now >= self._ping_at or self._owes_ping:
            if now >= self._ping_at:
                self._ping_at = now + self._half
            pool = self._pool
            self._owes_ping = not (pool.stopping or has_quorum(pool.snapshot(now), pool.policy))
            if not self._owes_ping:
                news['WATCHDOG'] = '1'
        return news

    def _extend(self, now: float) -> Message:
        """Ask for more time, as long as there is a reason to."""
        span = min(EXTENSION, self._extend_until - now)
        self._extend_at = now + EXTENSION / 2 if span == EXTENSION else inf
        return {'EXTEND_TIMEOUT_USEC': str(int(span * 1e6))} if span > 0 else {}

    def _text(self) -> str:
        """Return the one line for people."""
        pool, choice, trouble = self._pool, self._status.in_force(), self._journal.recent.last_trouble
        reload = pool.last_reload
        ready = f'{pool.ready} of {pool.wanted} workers are ready'
        if pool.stopping:
            told = [f'stopping: {pool.processes} workers are still there']
        elif reload is not None and reload.goes_on:
            how_far = f'generation {reload.generation}, {reload.phase}, {reload.changed} of {reload.of} changed'
            told = [f'reloading ({how_far}): {ready}']
        else:
            told = [ready if self._is_ready else f'starting: {ready}']
        if choice is not None:
            told.append(f'memory by {choice.memory}')
        if reload is not None and reload.phase is Phase.FAILED:
            told.append(f'the last reload has failed: {reload.reason}')
        if trouble is not None and trouble['event'] != 'reload-end':
            told.append(f'last trouble at {trouble["time"]}: {trouble["message"]}')
        line = ' '.join('; '.join(told).split())
        return line if len(line) <= LONGEST_STATUS else f'{line[: LONGEST_STATUS - 1]}…'

    # Sending.

    def _say(self, message: Message) -> None:
        if self._outbox and not message.keys() & PHASES:
            self._outbox[-1].update(message)
        elif message:
            self._outbox.append(message)

    def _send(self, now: float) -> None:
        """Send what waits, the oldest first, as long as there is room."""
        assert self._socket is not None
        while self._outbox and now >= self._retry_at:
            text = ''.join(f'{key}={value}\n' for key, value in self._outbox[0].items())
            try:
                sent = self._socket.send(text.encode(errors='replace'))
            except OSError as error:
                self._complain(error)
                self._outbox.popleft()
                continue
            if not sent:
                self._retry_at = now + self._retry
                self._retry = min(2 * self._retry, LAST_RETRY)
                return
            self._outbox.popleft()
            self._retry, self._has_failed = FIRST_RETRY, False

    def _complain(self, error: Exception) -> None:
        """Say it once, until something could be sent again."""
        if not self._has_failed:
            self._has_failed = True
            message = f'the service manager can not be told of this pool ({notify.SOCKET}): {error}'
            with suppress(Exception):
                self._journal.note(logging.WARNING, message, 'notify-failed')
