"""What holds a life together, whatever it is: the protocol, and the two together.

    cradle(life)        where it is to be born, None where no place is needed
    end(life, session)  its main process is gone: end what it has left
    next_deadline()     when `elapse` is due
    elapse()            the lives of which nothing is left, each told once
    close()             nothing is left of ours

Invariant: of each life that was ended `elapse` tells once, unless something of it can't be ended.
"""

from typing import Protocol

from sergeant_linux.containment.leaves import Leaf
from sergeant_linux.core.deadlines import earliest


class Containment(Protocol):
    """Holds together what belongs to each life of a pool, so that it can be ended."""

    def cradle(self, life: int) -> Leaf | None:
        """Make the place where this life is to be born; None where none is needed. Raises OSError."""

    def end(self, life: int, session: int | None, now: float) -> None:
        """End what this life has left; again: kill again.

        session: the pid of its main process; None: it had none, and nobody waits for its end.
        """

    def next_deadline(self) -> float | None:
        """Return when `elapse` is due, in seconds of the monotonic clock; None: nothing is left to be ended."""

    def elapse(self, now: float) -> list[int]:
        """See to what is due; return the lives of which nothing is left."""

    def close(self) -> None:
        """Let go of everything."""


class Together:
    """Two that end what a life has left: it is over when both say so.

    In another program, with cgroups: the leaf ends it, and the search reaps what has ended by itself, which nobody else
    there does.
    """

    def __init__(self, first: Containment, *others: Containment) -> None:
        self._first = first
        self._all = (first, *others)
        self._waits: dict[int, set[Containment]] = {}

    def cradle(self, life: int) -> Leaf | None:
        return self._first.cradle(life)

    def end(self, life: int, session: int | None, now: float) -> None:
        if session is not None:
            self._waits.setdefault(life, set(self._all))
        for each in self._all:
            each.end(life, session, now)

    def next_deadline(self) -> float | None:
        return earliest(each.next_deadline() for each in self._all)

    def elapse(self, now: float) -> list[int]:
        over = []
        for each in self._all:
            for life in each.elapse(now):
                if (waits := self._waits.get(life)) is not None:
                    waits.discard(each)
                    if not waits:
                        del self._waits[life]
                        over.append(life)
        return over

    def close(self) -> None:
        for each in self._all:
            each.close()
