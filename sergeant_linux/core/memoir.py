"""What a pool knows, written down as plain values, and taken up again by another one.

Facts: a supervisor that replaces its own program (execve(2)) keeps its children, and nothing in its memory. What has
happened in a pool can only be played again from a state that is known.
Decision: everything that is not a consequence of something else is written down; the indexes and the counts are made
anew. Timers are written in the order in which they were armed, which decides among equals. The policy and chance are
not written down: whoever takes a state up has them.

Invariant: whatever happens next, the pool that takes a state up decides as the one that wrote it down.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from sergeant_linux.core.afterlife import Afterlife
from sergeant_linux.core.deadlines import Deadlines
from sergeant_linux.core.exit import STOPPED
from sergeant_linux.core.plain import Plain, plain, read
from sergeant_linux.core.policy import Policy
from sergeant_linux.core.reload import Reload
from sergeant_linux.core.restart import Restart, Restarts
from sergeant_linux.core.rollout import Rollout
from sergeant_linux.core.slot import PoolFacts, Slot
from sergeant_linux.core.succession import Slots
from sergeant_linux.core.token import Token


@dataclass(slots=True)
class Going:
    """How far the pool has come itself. `opened`: the others were started, after the first; `status`: what it leaves
    with; `left`: it has."""

    opened: bool = False
    status: int = STOPPED
    left: bool = False


@dataclass(slots=True)
class Memoir:
    """All that a pool knows. `timers` and `sweeps`: who waits until when, in the order of being armed."""

    facts: PoolFacts
    going: Going
    slots: list[Slot]
    seats: int
    version: int
    token: Token
    timers: list[tuple[int, float]]
    afterlives: dict[int, Afterlife]
    sweeps: list[tuple[int, float]]
    reload: Reload | None
    generations: int
    restarts: dict[int, Restart] = field(default_factory=dict)
    last_restart: Restart | None = None

    @classmethod
    def of(cls, slots: Slots, rollout: Rollout, restarts: Restarts, going: Going) -> 'Memoir':
        """Return what these know."""
        return cls(
            slots.facts, going, [slot for _, slot in sorted(slots.by_number.items())],
            slots.seats, slots.version, slots.token, slots.timers.written(),
            slots.afterlives.by_life, slots.afterlives.due.written(),
            rollout.reload, rollout.generations, restarts.going_on, restarts.last,
        )  # fmt: skip

    @classmethod
    def read(cls, written: Plain, policy: Policy, rng: Random) -> 'Memoir':
        """Return what was written down. Raises KeyError, TypeError and ValueError."""
        facts = read(PoolFacts, written['facts'], policy=policy, rng=rng)
        memoir = read(cls, written, policy=policy, rng=rng, facts=facts)
        memoir.facts = facts
        return memoir

    def write(self) -> Plain:
        """Return it as JSON can hold it."""
        return plain(self)

    def take_up(self, slots: Slots, rollout: Rollout, restarts: Restarts) -> None:
        """Let these, which know nothing, know this."""
        slots.take_up(self.slots)
        slots.seats, slots.version, slots.token = self.seats, self.version, self.token
        slots.afterlives.by_life = self.afterlives
        _arm(slots.timers, self.timers)
        _arm(slots.afterlives.due, self.sweeps)
        rollout.reload, rollout.generations = self.reload, self.generations
        restarts.going_on, restarts.last = self.restarts, self.last_restart
        if restarts.last is not None:
            restarts.last = restarts.going_on.get(restarts.last.number, restarts.last)


def _arm(deadlines: Deadlines[int], entries: Iterable[tuple[int, float]]) -> None:
    for key, at in entries:
        deadlines.arm(key, at)
