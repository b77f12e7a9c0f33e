"""What a pool is doing, as plain data: for the verb `status`, and for every program that asks the control socket.

Facts: the core knows states, lives and goals; the kernel knows memory and processor time; a worker's page knows its
tasks. Nobody needs all three at once but who asks.
Consequence: nothing of this is kept up to date. It is put together when it is asked for, some tens of microseconds a
worker: one read of its memory, one of its processor time, one look at its page.

Invariant: what isn't known is None, and what can't be read makes no answer fail. Sizes in bytes, times in seconds.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final, Protocol

from sergeant_linux import __version__
from sergeant_linux.containment.choice import Choice
from sergeant_linux.containment.leaves import Leaf
from sergeant_linux.core.pool import Pool
from sergeant_linux.core.reload import Reload
from sergeant_linux.core.snapshot import SeatView, Snapshot
from sergeant_linux.core.units import format_size, format_span
from sergeant_linux.kernel import procfs
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.log.recent import Recent, utc
from sergeant_linux.log.words import Journal
from sergeant_linux.wire.scoreboard import Look, Page

Picture = dict[str, Any]

NOTHING: Final = Look(None, None, None, None, None)
"""What is known of a worker that says nothing of itself."""


class Living(Protocol):
    """A life that has a process, as far as it is looked at here."""

    @property
    def number(self) -> int: ...
    @property
    def process(self) -> PidRef | None: ...
    @property
    def leaf(self) -> Leaf | None: ...
    @property
    def page(self) -> Page | None: ...


class Status:
    """Draws pictures of one pool. `highest`: gives the most memory that a life was seen with, in bytes; `alive`: the
    lives that have a process."""

    def __init__(
        self,
        pool: Pool,
        highest: Callable[[int], int | None],
        alive: Mapping[int, Living],
        recent: Recent,
    ) -> None:
        self.name = ''
        self.in_force: Callable[[], Choice | None] = lambda: None
        self.fork_server: Callable[[], Picture] = dict
        self._pool = pool
        self._highest = highest
        self._alive = alive
        self._recent = recent
        self._began = time.time(), time.monotonic()

    def identity(self) -> Picture:
        """Return who this is."""
        policy = self._pool.policy
        return {
            'name': self.name,
            'pid': os.getpid(),
            'version': __version__,
            'module': policy.worker_module_name,
            'class': policy.worker_class_name,
        }

    def health(self) -> Picture:
        """Return whether the pool does its work: `ready` as long as a worker is ready and the pool isn't stopping."""
        reason = None
        if self._pool.stopping:
            reason = 'the pool is stopping'
        elif not self._pool.ready:
            reason = 'no worker is ready'
        return {'live': True, 'ready': reason is None, 'reason': reason}

    def busy(self) -> frozenset[int]:
        """Return the lives that are in a task."""
        return frozenset(
            number for number, lifeline in self._alive.items() if self._look(lifeline).task_started is not None
        )

    def task_age(self, life: int | None) -> float | None:
        """Return for how long this life has been in its task; None: it is in none, or nobody knows."""
        lifeline = self._alive.get(life) if life is not None else None
        started = self._look(lifeline).task_started if lifeline is not None else None
        return round(time.monotonic() - started, 3) if started is not None else None

    def picture(self) -> Picture:
        """Return the whole picture; its form is documented in the README."""
        now = time.monotonic()
        snapshot, policy, choice = self._pool.snapshot(now), self._pool.policy, self.in_force()
        slots = [
            {
                'slot': slot.number,
                **self._seat(slot.incumbent, now),
                'successor': self._seat(slot.successor, now) if slot.successor is not None else None,
            }
            for slot in snapshot.slots
        ]
        return {
            **self.identity(),
            'started': utc(self._began[0]),
            'uptime_seconds': round(now - self._began[1], 3),
            'state': self._state(snapshot),
            'wanted': snapshot.wanted,
            'ready': snapshot.ready,
            'generation': snapshot.generation,
            'spawned': snapshot.lives,
            'restarts': self._pool.counters.restarts,
            'counters': self._counters(slots),
            'backend': {
                'memory': choice.memory if choice is not None else None,
                'containment': choice.containment if choice is not None else None,
                'why_not': choice.why_not if choice is not None else None,
            },
            'memory': {
                'limit_bytes': policy.max_worker_memory_usage,
                'mark_bytes': policy.worker_memory_high,
                'pool_limit_bytes': policy.pool_memory_max,
            },
            'watchdog_seconds': policy.worker_watchdog,
            'fork_server': self.fork_server(),
            'reload': reload_picture(self._pool.last_reload),
            'last_trouble': self._recent.last_trouble,
            'slots': slots,
        }

    def _counters(self, slots: Iterable[Picture]) -> Picture:
        """Return what has happened so far; the tasks of lives that go on are added to those of the lives that ended."""
        counters = self._pool.counters
        seats = [seat for slot in slots for seat in (slot, slot['successor']) if seat is not None]
        return {
            **asdict(counters),
            'tasks_done': counters.tasks_done + sum(seat['tasks_done'] or 0 for seat in seats),
            'tasks_failed': counters.tasks_failed + sum(seat['tasks_failed'] or 0 for seat in seats),
        }

    def tell(self, journal: Journal) -> None:
        """Log one line a slot. psutil is imported when somebody wants to see it; without it there are fewer figures."""
        for slot in self._pool.snapshot(time.monotonic()).slots:
            seat = slot.incumbent
            told = [f'slot {slot.number}: {seat.state}']
            fields: dict[str, object] = {
                'slot': slot.number,
                'state': str(seat.state),
                'life': seat.life,
                'pid': seat.pid,
                'uptime_seconds': round(seat.uptime, 3) if seat.uptime is not None else None,
                'restarts': seat.restarts,
                'last_result': str(seat.last_result) if seat.last_result is not None else None,
                'successor_pid': slot.successor.pid if slot.successor is not None else None,
            }
            if seat.pid is not None and seat.uptime is not None:
                told += [f'pid {seat.pid}', f'life {seat.life}', f'up {format_span(round(seat.uptime, 1))}']
                with suppress(Exception):  # psutil.Error: it is gone; a broken psutil is no reason to end a pool
                    import psutil

                    process = psutil.Process(seat.pid)
                    memory, cpu = process.memory_info().rss, sum(process.cpu_times()[:2])
                    told += [f'memory {format_size(memory)}', f'cpu {format_span(round(cpu, 1))}']
                    fields |= {'rss_bytes': memory, 'cpu_seconds': cpu}
            told.append(f'restarts {seat.restarts}')
            if seat.last_result is not None:
                told.append(f'last result {seat.last_result}')
            if slot.successor is not None:
                told.append(f'successor {slot.successor.state} (pid {slot.successor.pid})')
            journal.note(logging.INFO, ', '.join(told), 'slot-status', **fields)

    def _state(self, snapshot: Snapshot) -> str:
        reload = self._pool.last_reload
        if snapshot.stopping:
            return 'stopping'
        if reload is not None and reload.goes_on:
            return 'reloading'
        return 'running' if self._pool.ever_ready else 'starting'

    def _seat(self, seat: SeatView, now: float) -> Picture:
        lifeline = self._alive.get(seat.life) if seat.life is not None else None
        look = self._look(lifeline) if lifeline is not None else NOTHING
        memory, peak = self._memory_of(lifeline)
        rate = None
        if look.tasks_done is not None and seat.uptime:
            rate = round(look.tasks_done / seat.uptime, 3)
        return {
            'state': str(seat.state),
            'goal': 'up' if seat.wanted else 'down',
            'pid': seat.pid,
            'life': seat.life,
            'generation': seat.generation,
            'uptime_seconds': round(seat.uptime, 3) if seat.uptime is not None else None,
            'memory_bytes': memory,
            'memory_peak_bytes': peak,
            'cpu_seconds': cpu_seconds(lifeline) if lifeline is not None else None,
            'tasks_done': look.tasks_done,
            'tasks_failed': look.tasks_failed,
            'tasks_per_second': rate,
            'task_age_seconds': round(now - look.task_started, 3) if look.task_started is not None else None,
            'last_error': look.last_error,
            'restarts': seat.restarts,
            'last_result': str(seat.last_result) if seat.last_result is not None else None,
            'restart_in_seconds': round(seat.restart_in, 3) if seat.restart_in is not None else None,
        }

    def _look(self, lifeline: Living) -> Look:
        return lifeline.page.look() if lifeline.page is not None else NOTHING

    def _memory_of(self, lifeline: Living | None) -> tuple[int | None, int | None]:
        """Return what a life has now, and the most it has had, as its leaf or the own samples tell."""
        if lifeline is None or lifeline.process is None:
            return None, None
        now = peak = None
        with suppress(OSError):
            if lifeline.leaf is not None and (now := lifeline.leaf.memory_now()) is not None:
                return now, lifeline.leaf.memory_peak()
            with procfs.Statm(lifeline.process.pid) as statm:
                now = statm.rss()
            peak = max(now, self._highest(lifeline.number) or 0)
        return now, peak


def cpu_seconds(lifeline: Living) -> float | None:
    """Return the processor time of all that ran in the life's leaf, or else of the worker alone."""
    used = None
    with suppress(OSError):
        used = lifeline.leaf.cpu_seconds() if lifeline.leaf is not None else None
        if used is None and lifeline.process is not None:
            stat = procfs.read_stat(lifeline.process.pid)
            used = stat.cpu_seconds if stat is not None else None
    return round(used, 3) if used is not None else None


def reload_picture(reload: Reload | None) -> Picture | None:
    """Return what is known of a reload."""
    if reload is None:
        return None
    return {
        'generation': reload.generation,
        'state': str(reload.phase),
        'changed': reload.changed,
        'of': reload.of,
        'reason': reload.reason,
    }
