"""What a worker started does not outlive it: find it by its marks, and end it.

Facts: what a dead worker had started falls to the nearest subreaper, the supervisor. It carries the worker's session,
unless it made one of its own, and the worker's marks in its environment, unless it was given another one. Looking for
it is a pass over /proc, 15 µs a process, and a pass isn't atomic: what forks while it runs can be missed. A pid can
be used again; a session's can't while anybody is in it.
Consequence: one pass serves all lives that wait for one; passes are spaced so that they cost a tenth of a core at
most; a life is unpopulated when a pass finds nothing of it and nothing vanished during the pass. Only descendants of
the supervisor that carry the marks of a life that is over are ended: never the host program's children, never another
life's.
Price: without cgroups, what has changed its session *and* its environment is not found, and what has taken another
uid may not be ours to end.
"""

import os
import signal
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sergeant_linux.kernel import procfs
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.kernel.procfs import Stat
from sergeant_linux.wire.marks import LIFE, POOL

SPACING: Final = 10
"""A pass that took t is followed by one no sooner than this many t later."""

FORK_SERVER: Final = 0
"""No life has this number: it stands for the end of the pool, when whatever bears its mark is left over: newborns, and
what preloaded modules have started. Negative ones stand for what is left of a fork server, by its session alone."""

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

    def __init__(self, pool: str, birth_comm: str) -> None:
        self._pool_mark = f'{POOL}={pool}'.encode()
        self._birth_comm = birth_comm
        self._searches: dict[int, Search] = {}
        self._ended: dict[int, int] = {}
        self._births = False
        self._restless = 0
        self._not_before = 0.0

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
        return 0.0 if hurry else self._not_before

    def sweep(self, known: Container[int]) -> list[int]:
        """Make one pass: end what is found, reap what has ended; return the lives of which nothing is left.

        known: the pids of processes that are none of this search's business, with all that descends from them.
        """
        try:
            looks = [(pid, procfs.read_stat(pid)) for pid in procfs.pids()]
        except OSError:  # no free descriptor (EMFILE, ENFILE): that was no pass
            return []
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
        if self._searches and procfs.environ_contains(stat.pid, self._pool_mark):
            for search in self._searches.values():
                mark = f'{LIFE}={search.life}'.encode()
                if search.life == FORK_SERVER or procfs.environ_contains(stat.pid, mark):
                    return search.life
        return None

    def _is_ours_to_reap(self, stat: Stat, stats: dict[int, Stat]) -> bool:
        """Whether a zombie child is of a life that is over or of a birth that went wrong: a zombie has no environment
        to look into."""
        return (
            stat.comm == self._birth_comm
            or self._ended.pop(stat.pid, None) == stat.start_time
            or any(stat.session == search.session for search in self._searches.values())
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


def reap(pid: int) -> None:
    """Reap this child if it is a zombie."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
