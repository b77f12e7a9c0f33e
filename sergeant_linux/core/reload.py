"""A rolling reload: new code is loaded beside the old, tried on one worker, and only then given to the others.

    LOADING   a new fork server loads the code
    CANARY    one worker of the new generation is to become ready; nobody else is touched
    ROLLING   every life is born from the new code, and the workers of the old one are succeeded, each when its turn
              comes
    DONE      all workers are of the new generation, and the old fork server goes

Facts: code can fail when it is imported, when its worker is made, and when that is initialised, at once or by never
coming back. A worker that was ready has shown that its code works.
Consequence: a reload has failed as soon as a life of the new generation ends before it is ready. Then no life is born
from the new code any more, and those workers that have changed already are succeeded by the old one again. A reload
that comes meanwhile supersedes the one that goes on.
Price: a worker that is ready and breaks afterwards is no fault that a reload sees.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """How far a reload has come, or how it has ended."""

    LOADING = 'loading'
    CANARY = 'canary'
    ROLLING = 'rolling'
    DONE = 'done'
    FAILED = 'failed'
    SUPERSEDED = 'superseded'
    STOPPED = 'stopped'


TRYING: Final = frozenset({Phase.LOADING, Phase.CANARY})
"""Nothing has changed yet."""

GOING_ON: Final = TRYING | {Phase.ROLLING}


@dataclass(slots=True)
class Reload:
    """One reload. `base`: the generation to go back to; `canary`: the slot in which the new one is tried; `slots`:
    those that are to change; `have_changed`: those of them whose worker is of the new generation, now; `reason`: why it
    has not changed them all."""

    generation: int
    base: int
    slots: set[int]
    have_changed: set[int] = field(default_factory=set)
    phase: Phase = Phase.LOADING
    canary: int | None = None
    reason: str | None = None

    @property
    def changed(self) -> int:
        """How many slots have a worker of the new generation."""
        return len(self.have_changed)

    @property
    def of(self) -> int:
        """How many slots there are to change."""
        return len(self.slots)

    def runs(self, slot: int, generation: int) -> None:
        """The worker of this slot, alone in it, is of this generation."""
        if slot in self.slots and generation == self.generation:
            self.have_changed.add(slot)
        else:
            self.have_changed.discard(slot)

    def leave_out(self, slot: int) -> None:
        """This slot goes."""
        if self.goes_on:
            self.slots.discard(slot)
            self.have_changed.discard(slot)

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended yet."""
        return self.phase in GOING_ON
