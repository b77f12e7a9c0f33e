"""What a worker started does not outlive it: find it by its marks, and end it.

Facts: what a dead worker had started falls to the nearest subreaper, the supervisor. It carries the worker's session,
unless it made one of its own, the worker's marks in its environment, unless it was given another one, and the mark in
its limits, unless it has changed that by intent (wire/marks.py). Looking for it is a pass over /proc, 15 µs a process,
and a pass isn't atomic: what forks while it runs can be missed. A pid can be used again; a session's can't while
anybody is in it.
Consequence: one pass serves all lives that wait for one; passes are spaced so that they cost a tenth of a core at
most; a life is unpopulated when a pass finds nothing of it and nothing vanished during the pass. Only descendants of
the supervisor that carry a mark of a life that is over are ended: never the host program's children, never another
life's. As a command of our own, whatever is still among our descendants at the end of the pool, and is younger than
the pool, was started by one of its workers: it is ended, too.
Price: what has stripped itself of all marks outlives its worker, though as a command of ours not the pool; and what
has taken another uid may not be ours to end.

What a pool has left whose supervisor, undertaker and fork server were killed together, no one sees until the next pool
starts: then whatever carries the mark of a supervisor that is gone is ended (`end_leftovers`).
"""

import os
import signal
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sergeant_linux.forkserver import burial
from sergeant_linux.kernel import procfs
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.kernel.procfs import Stat
from sergeant_linux.kernel.zombies import reap
from sergeant_linux.wire.marks import LIFE, POOL, pool_limit, supervisor_of

SPACING: Final = 10
"""A pass that took t is followed by one no sooner than this many t later."""

FORK_SERVER: Final = 0
"""No life has this number: it stands for the end of the pool, when whatever bears its mark is left over: newborns, and
what preloaded modules have started. Negative ones stand for what is left of a fork server, by its session alone."""

PATIENCE: Final = 2.0
"""Seconds in which a start ends what a predecessor has left."""

BLIND_PATIENCE: Final = 10.0
"""Seconds after which what can't be looked for, for want of a descriptor, isn't waited for: the pool could not end."""

BLIND_PAUSE: Final = 0.1
"""Seconds between two passes that fail."""

INCONCLUSIVE_PASSES: Final = 3
"""On a machine where processes come and go all the time, this many passes in a row without a find are as good as a
quiet one."""


@dataclass(slots=True)
class Search:
    """A life that is over: `session` is the one of its worker, `empty` counts passes that found nothing but were not
    quiet."""

    life: int
    session: int
    empty: int = 0


class Stragglers:
    """The search for what dead lives have left behind."""

    def __init__(self, pool: str, birth_comm: str, *, is_ours: bool) -> None:
        """is_ours: this process is a command of ours; what falls to it can only come from the pool."""
        self._is_ours = is_ours
        self._begun = int(time.clock_gettime(time.CLOCK_BOOTTIME) * procfs.CLOCK_TICKS)
        self._pool_limit = pool_limit(pool)
        self._pool_mark = f'{POOL}={pool}'.encode()
        self._birth_comm = birth_comm
        self._searches: dict[int, Search] = {}
        self._ended: dict[int, int] = {}
        self._births = False
        self._restless = 0
        self._not_before = 0.0
        self._blind_since: float | None = None
        self._blind_until = 0.0

    def look_for(self, life: int, session: int) -> None:
        """Begin (or go on) to look for what this life has left."""
        self._searches.setdefault(life, Search(life, session)).empty = 0

    def look_for_births(self) -> None:
        """A birth went wrong: its newborn, if there was one, is to be reaped by its name."""
        self._births = True

    def due(self, *, hurry: bool) -> float | None:
        """Return when the next pass may be made, None when nobody waits for one; in a hurry they aren't spaced."""
        if not self._searches and not self._births:
            return None
        return max(self._blind_until, 0.0 if hurry else self._not_before)

    def sweep(self, known: Container[int]) -> list[int]:
        """Make one pass: end what is found, reap what has ended; return the lives of which nothing is left.

        known: the pids of processes that are none of this search's business, with all that descends from them.
        """
        births = self._births
        try:
            unpopulated = self._pass(known)
        except OSError:  # no free descriptor (EMFILE, ENFILE): that was no pass
            self._births = births
            return self._has_seen_nothing(time.monotonic())
        self._blind_since = None
        return unpopulated

    def _has_seen_nothing(self, now: float) -> list[int]:
        """Return the lives that nobody waits for any longer."""
        self._blind_since = now if self._blind_since is None else self._blind_since
        self._blind_until = now + BLIND_PAUSE
        if now - self._blind_since < BLIND_PATIENCE:
            return []
        over = list(self._searches)
        self._searches.clear()
        self._births = False
        return over

    def _pass(self, known: Container[int]) -> list[int]:
        """Raises OSError where something can't be looked at."""
        looks = [(pid, procfs.read_stat(pid)) for pid in procfs.pids()]
        stats = {pid: stat for pid, stat in looks if stat is not None}
        quiet, births = len(stats) == len(looks), self._births or FORK_SERVER in self._searches
        self._births = False
        found: set[int] = set()
        for stat in self._unknown_descendants(stats, known):
            if births and stat.comm == self._birth_comm:
                self._births = True  # also when it has ended: it may have forked what this pass doesn't see
            if stat.state in 'ZX':
                # one that has ended by itself during this pass may have forked what the pass doesn't see
                quiet = quiet and (stat.pid in self._ended or stat.comm == self._birth_comm)
                if stat.ppid == os.getpid() and self._is_ours_to_reap(stat, stats):
                    reap(stat.pid)
            elif (life := self._life_of(stat, stats)) is not None and self._end(stat):
                found.add(life)
        self._ended = {pid: start_time for pid, start_time in self._ended.items() if pid in stats}
        self._restless = self._restless + 1 if births and not quiet and not self._births else 0
        self._births = self._births or 0 < self._restless < INCONCLUSIVE_PASSES
        return list(self._conclude(found, quiet))

    def took(self, began: float, ended: float) -> None:
        """Space the next pass by what the last one took."""
        self._not_before = ended + SPACING * (ended - began)

    def _conclude(self, found: set[int], quiet: bool) -> Iterator[int]:
        for search in list(self._searches.values()):
            if search.life in found:
                search.empty = 0
                continue
            search.empty += 1
            if quiet or search.empty >= INCONCLUSIVE_PASSES:
                del self._searches[search.life]
                yield search.life

    def _unknown_descendants(self, stats: dict[int, Stat], known: Container[int]) -> Iterator[Stat]:
        """Yield our descendants that no known process stands above."""
        me = os.getpid()
        verdicts: dict[int, bool] = {me: True}

        def is_unknown_descendant(pid: int) -> bool:
            path = []
            while pid not in verdicts:
                stat = stats.get(pid)
                if stat is None or pid in known:
                    verdicts[pid] = False
                else:
                    path.append(pid)
                    verdicts[pid] = False
                    pid = stat.ppid
            for each in path:
                verdicts[each] = verdicts[pid]
            return verdicts[pid]

        for pid, stat in stats.items():
            if pid != me and is_unknown_descendant(pid):
                yield stat

    def _life_of(self, stat: Stat, stats: dict[int, Stat]) -> int | None:
        """Return the life whose marks this process carries, if that life is one we are looking for."""
        for search in self._searches.values():
            if stat.session == search.session and search.session not in stats:
                return search.life
        if not self._searches:
            return None
        limited = self._life_by_limit(stat.pid)
        if limited in self._searches:
            return limited
        if limited is not None or procfs.environ_contains(stat.pid, self._pool_mark):
            for search in self._searches.values():
                mark = f'{LIFE}={search.life}'.encode()
                if search.life == FORK_SERVER or procfs.environ_contains(stat.pid, mark):
                    return search.life
        is_young = stat.start_time > self._begun
        return FORK_SERVER if self._is_ours and is_young and FORK_SERVER in self._searches else None

    def _life_by_limit(self, pid: int) -> int | None:
        """Return the life that a process of this pool carries in its limits, zombies included; None without one."""
        locks = procfs.file_locks(pid)
        return locks.soft if locks is not None and locks.hard == self._pool_limit else None

    def _is_ours_to_reap(self, stat: Stat, stats: dict[int, Stat]) -> bool:
        """Whether a zombie child is of a life that is over or of a birth that went wrong: a zombie has no environment
        to look into."""
        return (
            stat.comm == self._birth_comm
            or self._ended.pop(stat.pid, None) == stat.start_time
            or any(stat.session == search.session for search in self._searches.values())
            or self._life_by_limit(stat.pid) in self._searches
        )

    def _end(self, stat: Stat) -> bool:
        """Kill this very process, whatever its pid has come to mean meanwhile; False when it is not ours to kill.

        A program with set-user-ID root can have taken a uid that we may not signal.
        """
        with suppress(ProcessLookupError), PidRef.open(stat.pid) as process:
            now = procfs.read_stat(stat.pid)
            if now is not None and now.start_time == stat.start_time:
                self._ended[stat.pid] = stat.start_time
                try:
                    process.signal(signal.SIGKILL)
                except PermissionError:
                    return False
        return True


def end_leftovers() -> int:
    """End what carries the mark of a pool whose supervisor is gone; return how many processes that were.

    Only what is in our pid namespace and ours to kill; never this process or one that it descends from. Marks that this
    process carries itself don't count: it was started in a life of that pool, perhaps in a container, from where the
    supervisor can't be seen.
    """
    deadline, ended = time.monotonic() + PATIENCE, set[tuple[int, int]]()
    with suppress(OSError):  # no free descriptor: the next start will see them
        around = set(_supervisors_of(os.getpid()))
        while (killed := _end_leftovers_once(around)) and time.monotonic() < deadline:
            ended |= killed
            time.sleep(0.001)
    return len(ended)


def _end_leftovers_once(around: set[int]) -> set[tuple[int, int]]:
    """Make one pass; return pid and start time of what was killed. Raises OSError."""
    looks = {pid: procfs.read_stat(pid) for pid in procfs.pids()}
    stats = {pid: stat for pid, stat in looks.items() if stat is not None and stat.state not in 'ZX'}
    left = [stats[pid] for pid in stats.keys() - _ancestry(stats) if _is_left_over(stats[pid], stats, around)]
    return {(stat.pid, stat.start_time) for stat in left if burial.end(stat)}


def _ancestry(stats: Mapping[int, Stat]) -> set[int]:
    """Return this process and all that stand above it."""
    found, pid = set(), os.getpid()
    while pid in stats and pid not in found:
        found.add(pid)
        pid = stats[pid].ppid
    return found


def _is_left_over(stat: Stat, stats: Mapping[int, Stat], around: set[int]) -> bool:
    """Whether the supervisor of a life to which this process belongs is gone: no process has its pid, or one that is
    younger than what carries the mark."""
    for supervisor in set(_supervisors_of(stat.pid)) - around:
        found = stats.get(supervisor)
        if (found is None or found.start_time > stat.start_time) and procfs.same_pid_namespace(stat.pid):
            return True
    return False


def _supervisors_of(pid: int) -> Iterator[int]:
    """Yield the pids of the supervisors that a process's marks tell of. A helper is marked, but in no life."""
    locks = procfs.file_locks(pid)
    if locks is not None and (supervisor := supervisor_of(locks.hard)) is not None:
        yield supervisor
    pool = procfs.environ_value(pid, POOL)
    if pool is not None and procfs.environ_value(pid, LIFE) is not None:
        number = pool.partition('-')[0]
        if number.isdecimal():
            yield int(number)
