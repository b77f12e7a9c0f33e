"""Time in which nothing could run, and that counts for no time-out.

Facts: a process is stopped (SIGSTOP), frozen (cgroup.freeze, the freezer of v1, `docker pause`) or paused with its
machine, and is not told so; CLOCK_MONOTONIC goes on meanwhile, but for a suspend. Afterwards it goes on where it was:
mostly in epoll_wait, whose timeout has run out. A cgroup that is frozen as a whole says `frozen 1` in cgroup.events,
which can be polled (EPOLLPRI, since Linux 5.2), by us as long as we aren't frozen with it.
Consequence: a turn of the loop that took longer than it meant to wait, by more than it has computed, has a pause in it;
when that began, nobody knows. So nothing waits longer than `SLICE` at a time while a worker starts or stops, and of
the wait with the pause at most that much is taken for pause by mistake. Of a pause of the workers alone the folder of
the pool tells.
Decision: what is lost is handed to everybody who holds a worker to a time. What is lost in both ways at once is lost
once. Price: a wake-up a second while somebody starts or stops; a folder that stays frozen keeps a stop waiting, until
it is thawed or the pool is killed (SIGKILL ends frozen processes too).

Invariant: no worker is ended for time that it did not have.
"""

import logging
import os
import select
import time
from math import inf
from typing import Final

from sergeant_linux.core.margins import LATE
from sergeant_linux.core.units import format_span
from sergeant_linux.kernel.poller import Handler, Poller
from sergeant_linux.log.words import Journal

SLICE: Final = 1.0
"""The longest wait while a worker starts or stops, in seconds."""


class Pauses:
    """Finds out what was lost."""

    def __init__(self, poller: Poller[Handler], journal: Journal) -> None:
        self._poller = poller
        self._journal = journal
        self._lost = 0.0
        self._counted = -inf
        self._woken = inf
        self._cpu = time.process_time()
        self._events: int | None = None
        self._frozen_at: float | None = None

    def watch_folder(self, path: str) -> None:
        """Watch whether this cgroup is frozen. Where that can't be watched (no descriptor, no watch to be had) nobody
        knows."""
        try:
            self._events = os.open(f'{path}/cgroup.events', os.O_RDONLY | os.O_CLOEXEC)
            self._poller.register(self._events, self._on_change, select.EPOLLPRI)
        except OSError:
            self.close()
        else:
            self._on_change(0)

    def woken(self, waited: float | None) -> None:
        """The loop has woken up; it meant to wait at most so long, None: for as long as it takes."""
        began, now = self._woken, time.monotonic()
        cpu, self._cpu, self._woken = self._cpu, time.process_time(), now
        if waited is None:
            return
        late = now - began - waited - (self._cpu - cpu)
        if late > LATE:
            self._lose(max(began, now - late - SLICE), now)
            message = f'nothing ran here for {format_span(round(late, 1))} or a little more: it counts for no timeout'
            self._journal.note(logging.WARNING, message, 'paused', seconds=round(late, 3))

    def take(self, now: float) -> float:
        """Return the seconds that were lost since the last call."""
        if self._frozen_at is not None:
            self._lose(self._frozen_at, now)
        lost, self._lost = self._lost, 0.0
        return lost

    def close(self) -> None:
        """Watch no more."""
        if self._events is not None:
            self._poller.unregister(self._events)
            os.close(self._events)
            self._events = None

    def _on_change(self, events: int) -> None:
        assert self._events is not None
        try:
            is_frozen = b'frozen 1' in os.pread(self._events, 4096, 0)
        except OSError:  # ENODEV: somebody has removed the folder
            self.close()
            is_frozen = False
        now = time.monotonic()
        if is_frozen and self._frozen_at is None:
            self._frozen_at = now
            message = 'the cgroup of the pool is frozen: no timeout counts until it is thawed'
            self._journal.note(logging.WARNING, message, 'frozen')
        elif not is_frozen and self._frozen_at is not None:
            self._lose(self._frozen_at, now)
            message = f'the cgroup of the pool was frozen for {format_span(round(now - self._frozen_at, 1))}'
            self._journal.note(logging.INFO, message, 'thawed', seconds=round(now - self._frozen_at, 3))
            self._frozen_at = None

    def _lose(self, began: float, now: float) -> None:
        """This time is lost, as far as it isn't counted already."""
        self._lost += max(0.0, now - max(began, self._counted))
        self._counted = now
