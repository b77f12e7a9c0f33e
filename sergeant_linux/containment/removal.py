"""The leaves of lives that are over: end what is left in them, and remove them.

Facts: most leaves are empty when their worker has been reaped, and can be removed at once. What is left in one is
killed by one write, whatever session, environment or parents it has taken; until the kernel has let it go, some
milliseconds, the leaf is populated (cgroup.events). An empty one can be removed, but for what the worker has made below
it, and what the host has done to it: read-only cgroups, a mount on one.
Consequence: a life is over when its leaf is not populated: looked at at once; else kill and look again, at growing
intervals. No notification is needed, and nothing wakes up when nothing is left. To remove a leaf that is empty is
housekeeping: so many steps at a time, so many times, and what remains is told once. Nobody waits for it, and the end of
the pool tries once more. What is killed here falls to the supervisor and is reaped by its pid: inside of another
program nobody else does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from sergeant_linux.containment.leaves import Leaf, is_final
from sergeant_linux.containment.search import reap
from sergeant_linux.core.deadlines import Deadlines

FIRST_LOOK: Final = 0.001
LONGEST_PAUSE: Final = 0.25
"""Seconds between two looks at a leaf; doubled each time."""

STEPS: Final = 512
"""How far a removal goes at a time: some milliseconds."""

TRIES: Final = 12
"""How often a removal may fail: for two seconds."""


@dataclass(slots=True)
class _Grave:
    """A leaf in which something is left."""

    leaf: Leaf
    pause: float = FIRST_LOOK
    killed: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Removal:
    """An empty leaf that is being removed."""

    leaf: Leaf
    steps: Iterator[None]
    failures: int = 0


class Graves:
    """All leaves of lives that have ended, by life; `complain` is told what can't be removed."""

    def __init__(self, complain: Callable[[str, OSError], None]) -> None:
        self._complain = complain
        self._graves: dict[int, _Grave] = {}
        self._removals: dict[int, _Removal] = {}
        self._looks: Deadlines[int] = Deadlines()

    def __len__(self) -> int:
        """Return how many have something in them."""
        return len(self._graves)

    def bury(self, life: int, leaf: Leaf, now: float) -> bool:
        """End what is left of this life; True when nothing was. Again: kill again."""
        leaf.close_directory()
        if life not in self._graves:
            if not leaf.is_populated():
                self._begin_removal(life, leaf, now)
                return True
            self._graves[life] = _Grave(leaf)
        self._graves[life].killed |= leaf.kill()
        self._looks.arm(life, now + FIRST_LOOK)
        return False

    def next_look(self) -> float | None:
        """Return when `look` is due; None when no leaf waits."""
        return self._looks.next()

    def look(self, now: float) -> list[int]:
        """See to what is due; return the lives of which nothing is left."""
        gone = []
        for life in self._looks.elapse(now):
            if life in self._removals:
                self._go_on(life, now)
            elif self._is_over(life, now):
                gone.append(life)
        return gone

    def _is_over(self, life: int, now: float) -> bool:
        grave = self._graves[life]
        for pid in grave.killed:
            reap(pid)
        if grave.leaf.is_populated():
            grave.killed |= grave.leaf.kill()
            grave.pause = min(LONGEST_PAUSE, 2 * grave.pause)
            self._looks.arm(life, now + grave.pause)
            return False
        del self._graves[life]
        self._begin_removal(life, grave.leaf, now)
        return True

    def _begin_removal(self, life: int, leaf: Leaf, now: float) -> None:
        self._removals[life] = _Removal(leaf, leaf.cgroup.removal())
        self._go_on(life, now)

    def _go_on(self, life: int, now: float) -> None:
        """Remove some of what is there, and come again if that was not all."""
        removal = self._removals[life]
        try:
            if sum(1 for _ in islice(removal.steps, STEPS)) == STEPS:
                self._looks.arm(life, now)
                return
        except OSError as error:
            removal.failures += 1
            if not is_final(error) and removal.failures < TRIES:
                removal.steps = removal.leaf.cgroup.removal()
                self._looks.arm(life, now + min(LONGEST_PAUSE, FIRST_LOOK * 2**removal.failures))
                return
            self._complain(removal.leaf.cgroup.path, error)
        del self._removals[life]
