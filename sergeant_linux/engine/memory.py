"""Watch the memory of workers: one protocol, three watches.

Facts: RSS is read from a kept-open /proc/PID/statm in 1 µs and can't be another process's (the descriptor follows the
process, not the number). PSS and USS make the kernel walk all pages (21 ms for 2 GiB), a worker's whole tree takes a
look at every process of the host. With a leaf of its own the kernel bounds a worker, and memory.current tells what it
has.
Consequence: `RssWatch` reads in the loop, each life at its own pace (core/memory.py). The costly measures are taken by
a process of their own, the meter, which uses at most 1 % of a core; `MeterWatch` only sends pids and hears numbers.
Which watch it is, the measure says, whether there is a limit yet or not: one may be set later.
`CgroupWatch` looks at the mark alone, and far from it seldom: being late costs nothing, the limit is the kernel's.

Invariant: nothing to look for, no descriptor, no poll, no wake-up.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from sergeant_linux.containment.leaves import Leaf
from sergeant_linux.core.deadlines import Deadlines
from sergeant_linux.core.events import LifeEvent, MemoryExceeded, MemoryHigh
from sergeant_linux.core.memory import CALM_CEILING, Finding, Gauge
from sergeant_linux.core.policy import PolicyNow
from sergeant_linux.engine.lifeline import Lifeline
from sergeant_linux.helpers.staff import Meter
from sergeant_linux.kernel.procfs import Statm


@dataclass(frozen=True, slots=True)
class NearLimit:
    """A life is close to its limit as soon as it is ready; bytes."""

    life: int
    measured: int
    limit: int


FoundOut: TypeAlias = LifeEvent | NearLimit


class MemoryWatch:
    """What all watches have in common: a gauge for each life, and when to look at it. This one never looks."""

    def __init__(self, policy: PolicyNow) -> None:
        self._policy = policy
        self._gauges: dict[int, Gauge] = {}
        self._looks: Deadlines[int] = Deadlines()

    def born(self, lifeline: Lifeline, now: float) -> None:
        """Begin with this life, which has a process."""
        assert lifeline.process is not None
        self.watch(lifeline.number, lifeline.process.pid, lifeline.leaf, now)

    def watch(self, life: int, pid: int, leaf: Leaf | None, now: float) -> None:
        """Begin with this life."""
        gauge = self._gauge()
        if gauge.limit is None and gauge.mark is None:
            return
        with suppress(OSError):
            self._open(life, pid, leaf)
            self._gauges[life] = gauge
            self._looks.arm(life, now)

    def ready(self, life: int, now: float) -> None:
        """The worker is ready: its mark may count from now on."""
        if life in self._gauges:
            self._gauges[life].ready(now)
            self._looks.arm(life, now)

    def ended(self, life: int) -> None:
        """The life is over, and its descriptors are about to be closed."""
        self.forget(life)

    def forget(self, life: int) -> int | None:
        """The life is over: let go of it and return its highest sample in bytes, None without one."""
        gauge = self._gauges.pop(life, None)
        if gauge is None:
            return None
        self._looks.disarm(life)
        self._close(life)
        return gauge.highest

    def highest(self, life: int) -> int | None:
        """Return the highest sample of this life so far, in bytes; None without one."""
        gauge = self._gauges.get(life)
        return gauge.highest if gauge is not None else None

    def policy_changed(self) -> None:
        """Another limit or mark may be in force; lives that are watched already are told by `change`."""

    def change(self, life: int, pid: int, leaf: Leaf | None, now: float) -> None:
        """Have the limit and the mark of today count for this life, which may not have been watched before."""
        gauge, wanted = self._gauges.get(life), self._gauge()
        if gauge is None:
            self.watch(life, pid, leaf, now)
            self.ready(life, now)
        elif wanted.limit is None and wanted.mark is None:
            self.forget(life)
        else:
            gauge.limit, gauge.mark, gauge.ceiling = wanted.limit, wanted.mark, wanted.ceiling
            gauge.told, gauge.over_mark = False, 0
            self._looks.arm(life, now)

    def next_deadline(self) -> float | None:
        """Return when `elapse` is due; None when nothing is to be looked at."""
        return self._looks.next()

    def elapse(self, now: float) -> list[FoundOut]:
        """Look at every life that is due and return what was found."""
        found: list[FoundOut] = []
        for life in self._looks.elapse(now):
            try:
                measured = self._read(life, now)
            except OSError:  # no free descriptor, or it is just ending: its end will disarm this
                self._look_again_later(life, now)
            else:
                if measured is not None:
                    found += self._take_in(life, measured, now)
        return found

    def close(self) -> None:
        """Let go of everything."""
        for life in list(self._gauges):
            self.forget(life)

    def _look_again_later(self, life: int, now: float) -> None:
        self._looks.arm(life, now + self._gauges[life].ceiling)

    def _take_in(self, life: int, measured: int, now: float) -> list[FoundOut]:
        gauge = self._gauges[life]
        finding = gauge.sample(measured, now)
        self._looks.arm(life, now + gauge.next_look(measured))
        match finding:
            case Finding.OVER_LIMIT:
                return [MemoryExceeded(life, measured)]
            case Finding.OVER_MARK:
                return [MemoryHigh(life, measured)]
            case Finding.NEAR_LIMIT:
                return [NearLimit(life, measured, gauge.limit or 0)]
            case _:
                return []

    def _gauge(self) -> Gauge:
        policy = self._policy()
        return Gauge(policy.max_worker_memory_usage, policy.worker_memory_high, policy.memory_poll_interval)

    def _open(self, life: int, pid: int, leaf: Leaf | None) -> None:
        """Get hold of what tells about this life."""

    def _close(self, life: int) -> None:
        """Let go of it."""

    def _read(self, life: int, now: float) -> int | None:
        """Return the bytes it has now; None: not known now, and who hears of it later arms the next look."""
        return None


class RssWatch(MemoryWatch):
    """Reads the RSS of workers in the loop."""

    def __init__(self, policy: PolicyNow) -> None:
        super().__init__(policy)
        self._statm: dict[int, Statm] = {}

    def _open(self, life: int, pid: int, leaf: Leaf | None) -> None:
        self._statm[life] = Statm(pid)

    def _close(self, life: int) -> None:
        self._statm.pop(life).close()

    def _read(self, life: int, now: float) -> int | None:
        return self._statm[life].rss()


class CgroupWatch(MemoryWatch):
    """Reads memory.current of workers that have a mark; their limit is the kernel's affair."""

    def __init__(self, policy: PolicyNow) -> None:
        super().__init__(policy)
        self._leaf: dict[int, Leaf] = {}

    def _gauge(self) -> Gauge:
        return Gauge(None, self._policy().worker_memory_high, CALM_CEILING)

    def _open(self, life: int, pid: int, leaf: Leaf | None) -> None:
        assert leaf is not None
        self._leaf[life] = leaf

    def _close(self, life: int) -> None:
        del self._leaf[life]

    def _read(self, life: int, now: float) -> int | None:
        measured = self._leaf[life].memory_now()
        if measured is None:  # it is just ending
            self._look_again_later(life, now)
        return measured


class MeterWatch(MemoryWatch):
    """Has the costly measures taken by the meter, which is there while there is a limit or a mark; `found` gets what it
    has found out."""

    def __init__(self, policy: PolicyNow, meter: Meter, found: Callable[[list[FoundOut]], None]) -> None:
        super().__init__(policy)
        self._meter = meter
        self._found = found
        self._pids: dict[int, int] = {}
        meter.answered, meter.dropped = self._answered, self._dropped
        self._need_meter()

    def policy_changed(self) -> None:
        self._need_meter()

    def _need_meter(self) -> None:
        gauge = self._gauge()
        self._meter.need(is_needed=gauge.limit is not None or gauge.mark is not None)

    def _open(self, life: int, pid: int, leaf: Leaf | None) -> None:
        self._pids[life] = pid

    def _close(self, life: int) -> None:
        del self._pids[life]

    def _read(self, life: int, now: float) -> int | None:
        """Ask for it. When the meter is away or busy, ask again later."""
        if not self._meter.ask(life, self._pids[life], self._policy().memory_measure, now):
            self._look_again_later(life, now)
        return None

    def _answered(self, life: int, measured: int | None, now: float) -> None:
        if life not in self._gauges:
            return
        if measured is None:  # it could not be read just now
            self._look_again_later(life, now)
        else:
            self._found(self._take_in(life, measured, now))

    def _dropped(self, lives: Collection[int], now: float) -> None:
        """The meter is gone: ask its successor for what this one has not answered."""
        for life in lives:
            if life in self._gauges:
                self._look_again_later(life, now)
