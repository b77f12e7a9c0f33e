"""A restart that was asked for: each of these workers is replaced when its turn comes, or the whole of it is given up.

Facts: who asks for fresh workers may have changed what they need (a file, a broker, an address), so that none of the
new ones becomes ready; the old ones work as long as they are let.
Consequence: a restart has failed as soon as a life in one of its places ends before it is ready. Then no other worker
is asked to go for it, and those that wait for their successors stay, as if they had never been asked for. A place that
is empty already (there was no room for a successor) is filled like any other whose worker has failed. One that only
starts is new already; one that waits for its restart is restarted now.
Price: one bad start, by chance, is the end of a restart.

Invariant: `waiting` only shrinks.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from sergeant_linux.core.commands import RestartEnded
from sergeant_linux.core.events import StartRequested, StopRequested, SuccessionRequested
from sergeant_linux.core.result import Request
from sergeant_linux.core.slot import Seat, State
from sergeant_linux.core.succession import End, Slots


@dataclass(slots=True)
class Restart:
    """One restart. `waiting`: by slot, the life that is still to be replaced, of `of` in all; `reason`: why it was
    given up."""

    number: int
    waiting: dict[int, int]
    of: int
    reason: str | None = None

    @property
    def changed(self) -> int:
        """How many workers have been replaced, or are not to be replaced any more."""
        return self.of - len(self.waiting)

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended yet."""
        return bool(self.waiting) and self.reason is None


@dataclass(slots=True)
class Restarts:
    """Those that go on, by number, and the one that was asked for last."""

    slots: Slots
    going_on: dict[int, Restart] = field(default_factory=dict)
    last: Restart | None = None

    def ask(self, numbers: Collection[int] | None, now: float) -> None:
        """Have the workers of these slots (None: of all) replaced. Asked for again, it is the same restart."""
        chosen = [slot for slot in self.slots.those_that_stay() if numbers is None or slot.number in numbers]
        waiting = {slot.number: _last_life(slot.incumbent) for slot in chosen}
        known = next((each for each in self.going_on.values() if each.waiting == waiting), None)
        number = self.last.number + 1 if self.last is not None else 1
        self.last = known or Restart(number, waiting, len(waiting))
        if self.last.goes_on:
            self.going_on[self.last.number] = self.last
        for slot in chosen:
            if slot.incumbent.state is State.RUNNING:
                self.slots.step(slot.incumbent, SuccessionRequested(Request.RESTART), now)
            elif slot.incumbent.state is State.AUTO_RESTART:
                self.slots.step(slot.incumbent, StartRequested(), now)

    def see_slot(self, number: int) -> None:
        """See whether this slot is waited for no longer: its worker is replaced, or it goes."""
        slot = self.slots.by_number.get(number)
        for restart in list(self.going_on.values()):
            life = restart.waiting.get(number)
            if life is not None and (slot is None or slot.retiring or _runs_later_life(slot.incumbent, life)):
                del restart.waiting[number]
                if not restart.waiting:
                    del self.going_on[restart.number]
                    self.slots.put_out(RestartEnded(restart.changed, restart.of, None))

    def see_end(self, end: End, now: float) -> None:
        """A life has ended: if it never was ready, so end the restarts that it is a part of. What a reload has tried
        is not."""
        seat, slots = end.seat, self.slots
        if end.was_ready or end.on_trial or not seat.wanted or slots.facts.stopping:
            return
        failed = [
            each for each in self.going_on.values() if each.waiting.get(seat.slot, end.life.number) < end.life.number
        ]
        for restart in failed:
            del self.going_on[restart.number]
            restart.reason = f'a fresh worker in slot {seat.slot} did not become ready: {end.cause}'
            slots.put_out(RestartEnded(restart.changed, restart.of, restart.reason))
        if seat.once:
            slots.give_up_successor(slots.by_number[seat.slot], Request.RESTART, now)
        still_waiting = {number for each in self.going_on.values() for number in each.waiting}
        for number in sorted({number for each in failed for number in each.waiting} - still_waiting):
            slot = slots.by_number[number]
            successor = slot.successor
            if successor is None:
                slots.let_stay(slot.incumbent, Request.RESTART, now)
            elif successor.once and successor.state is State.START:
                slots.give_up_successor(slot, Request.RESTART, now)
                slots.step(successor, StopRequested(Request.RESTART, 0.0, slots.facts.policy.timeout_stop), now)


def _last_life(seat: Seat) -> int:
    """Return the life that a restart of this seat replaces."""
    return (seat.life.number if seat.life is not None else 0) - (seat.state is State.START)


def _runs_later_life(seat: Seat, life: int) -> bool:
    return seat.state is State.RUNNING and seat.current.number > life
