"""Lives held together by leaves: each is born in one; when it is over, what is left there is ended, and it is removed.

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

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from sergeant_linux.containment.leaves import Leaf, Leaves, is_final
from sergeant_linux.core.deadlines import Deadlines
from sergeant_linux.kernel.zombies import reap

FIRST_LOOK: Final = 0.001
LONGEST_PAUSE: Final = 0.25
"""Seconds between two looks at a leaf; doubled each time."""

UNSEEN_PATIENCE: Final = 10.0
"""Seconds after which a leaf that can't be looked at, for want of a descriptor, isn't waited for: the pool could not
end."""

STEPS: Final = 512
"""How far a removal goes at a time: some milliseconds."""

EMPTY_LOOKS: Final = 100
"""A process leaves its cgroup on its way out, a moment before it can be reaped: an empty leaf is looked at so often for
what was killed in it and fell to us."""

TRIES: Final = 12
"""How often a removal may fail: for two seconds."""


@dataclass(slots=True)
class _Rest:
    """What is left in a leaf whose life is over."""

    leaf: Leaf
    pause: float = FIRST_LOOK
    unseen_since: float | None = None
    empty_looks: int = 0
    killed: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Removal:
    """An empty leaf that is being removed."""

    leaf: Leaf
    steps: Iterator[None]
    failures: int = 0


class ByCgroup:
    """The leaves of all lives, from their birth until they are removed."""

    def __init__(self, leaves: Leaves) -> None:
        self._leaves = leaves
        self._cradles: dict[int, Leaf] = {}
        self._rests: dict[int, _Rest] = {}
        self._over: list[int] = []
        self._removals: dict[int, _Removal] = {}
        self._looks: Deadlines[int] = Deadlines()

    def cradle(self, life: int) -> Leaf | None:
        self._cradles[life] = self._leaves.leaf(life)
        return self._cradles[life]

    def end(self, life: int, session: int | None, now: float) -> None:
        leaf = self._cradles.pop(life, None)
        if leaf is not None:
            leaf.close_directory()
            if leaf.is_populated() is not False:
                self._rests[life] = _Rest(leaf)
            else:
                self._over.append(life)
                self._begin_removal(life, leaf, now)
        if life in self._rests:
            self._rests[life].killed |= self._rests[life].leaf.kill()
            self._looks.arm(life, now + FIRST_LOOK)

    def next_deadline(self) -> float | None:
        return 0.0 if self._over else self._looks.next()

    def elapse(self, now: float) -> list[int]:
        over, self._over = self._over, []
        for life in self._looks.elapse(now):
            if life in self._removals:
                self._go_on(life, now)
            elif self._is_over(life, now):
                over.append(life)
        return over

    def close(self) -> None:
        """Remove what is left, leaves and folder."""
        for leaf in self._cradles.values():
            leaf.close_directory()
        self._leaves.close()

    def _is_over(self, life: int, now: float) -> bool:
        rest = self._rests[life]
        is_populated = rest.leaf.is_populated()
        rest.killed = {pid for pid in rest.killed if not reap(pid)}
        if is_populated is not None:
            rest.unseen_since = None
        elif rest.unseen_since is None:
            rest.unseen_since = now
        if is_populated or (rest.unseen_since is not None and now - rest.unseen_since < UNSEEN_PATIENCE):
            rest.killed |= rest.leaf.kill()
            rest.pause = min(LONGEST_PAUSE, 2 * rest.pause)
            self._looks.arm(life, now + rest.pause)
            return False
        if rest.killed and rest.empty_looks < EMPTY_LOOKS:
            rest.empty_looks += 1
            self._looks.arm(life, now + FIRST_LOOK)
            return False
        del self._rests[life]
        self._begin_removal(life, rest.leaf, now)
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
            self._leaves.cannot_remove(removal.leaf.cgroup.path, error)
        del self._removals[life]
