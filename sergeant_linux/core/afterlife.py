"""What lives have left behind: the main process is gone, and something that it has started is not.

Invariant: as long as something is left of a life, it is killed again, and told of, every `SWEEP_AGAIN_AFTER` seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from sergeant_linux.core.commands import Command, EndStragglers, StragglersRemain
from sergeant_linux.core.deadlines import Deadlines

SWEEP_AGAIN_AFTER: Final = 5.0
"""Seconds after which stragglers that are still there are killed again, and told of."""


@dataclass(slots=True)
class Afterlife:
    """One life of which something is left, and since when its process is gone."""

    slot: int
    life: int
    since: float


@dataclass(slots=True)
class Afterlives:
    """All of them, by their life."""

    by_life: dict[int, Afterlife] = field(default_factory=dict)
    due: Deadlines[int] = field(default_factory=Deadlines)

    def begin(self, slot: int, life: int, now: float) -> None:
        """The process of this life is gone; whether it has left something, will show."""
        self.by_life[life] = Afterlife(slot, life, now)
        self.due.arm(life, now + SWEEP_AGAIN_AFTER)

    def end(self, life: int) -> None:
        """Nothing is left of it."""
        self.by_life.pop(life, None)
        self.due.disarm(life)

    def elapse(self, now: float) -> Iterator[Command]:
        """Have what is left too long ended again."""
        for life in self.due.elapse(now):
            left = self.by_life[life]
            self.due.arm(life, now + SWEEP_AGAIN_AFTER)
            yield EndStragglers(life)
            yield StragglersRemain(left.slot, life, now - left.since)
