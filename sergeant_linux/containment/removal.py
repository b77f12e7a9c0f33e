"""The leaves of lives that are over: end what is left in them, and remove them.

Facts: most leaves are empty when their worker has been reaped, and can be removed at once. What is left in one is
killed by one write, whatever session, environment or parents it has taken; until the kernel has let it go, some
milliseconds, the leaf can't be removed (EBUSY).
Consequence: try at once; else kill and try again, at growing intervals, until it is gone. No notification is needed,
and nothing wakes up when nothing is left. What is killed here falls to the supervisor and is reaped by its pid:
inside of another program nobody else does.
"""

from dataclasses import dataclass, field
from typing import Final

from sergeant_linux.containment.leaves import Leaf
from sergeant_linux.containment.search import reap
from sergeant_linux.core.deadlines import Deadlines

FIRST_LOOK: Final = 0.001
LONGEST_PAUSE: Final = 0.25
"""Seconds between two attempts to remove a leaf; doubled each time."""


@dataclass(slots=True)
class _Grave:
    leaf: Leaf
    pause: float = FIRST_LOOK
    killed: set[int] = field(default_factory=set)


class Graves:
    """All leaves that wait for their removal, by life."""

    def __init__(self) -> None:
        self._graves: dict[int, _Grave] = {}
        self._looks: Deadlines[int] = Deadlines()

    def __len__(self) -> int:
        return len(self._graves)

    def bury(self, life: int, leaf: Leaf, now: float) -> bool:
        """End what is left of this life; True when nothing was, and the leaf is gone already. Again: kill again."""
        leaf.close_directory()
        if life not in self._graves:
            if leaf.remove_if_empty():
                return True
            self._graves[life] = _Grave(leaf)
        self._kill(self._graves[life])
        self._looks.arm(life, now + FIRST_LOOK)
        return False

    def next_look(self) -> float | None:
        """Return when `look` is due; None when no leaf waits."""
        return self._looks.next()

    def look(self, now: float) -> list[int]:
        """Try again to remove what is due; return the lives of which nothing is left."""
        gone = []
        for life in self._looks.elapse(now):
            grave = self._graves[life]
            for pid in grave.killed:
                reap(pid)
            if grave.leaf.remove_if_empty():
                del self._graves[life]
                gone.append(life)
            else:
                grave.pause = min(LONGEST_PAUSE, 2 * grave.pause)
                self._looks.arm(life, now + grave.pause)
        return gone

    def _kill(self, grave: _Grave) -> None:
        grave.killed |= grave.leaf.processes()
        grave.leaf.kill()
