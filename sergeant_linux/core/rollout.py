"""How a reload goes on: the rules of reload.py, applied to the slots.

Some follow from an event: it is asked for, the code is loaded or can't be, a life of the new code has ended. The others
follow from the state and run whenever it has changed: a canary is sent as soon as there is room for one (another one
when its place has gone), ROLLING begins when it is ready, a worker that runs other code than it should is replaced
when its turn comes, and when all have changed it is over.

Invariants:
1. As long as the new code is only tried, one life at most runs it, and nobody else is touched.
2. When a reload is over, however, one generation of the code is left.
"""

from dataclasses import dataclass

from sergeant_linux.core.commands import FIRST_GENERATION, EndGeneration, ReloadEnded, ReloadStarted, StartGeneration
from sergeant_linux.core.events import StartRequested, StopRequested, SuccessionRequested
from sergeant_linux.core.reload import TRYING, Phase, Reload
from sergeant_linux.core.result import Request
from sergeant_linux.core.slot import Seat, Slot, State
from sergeant_linux.core.succession import AT_REST, End, Slots


@dataclass(slots=True)
class Rollout:
    """The reloads of one pool. `reload`: the one that goes on, or the last one; `generations`: how many there were."""

    slots: Slots
    reload: Reload | None = None
    generations: int = FIRST_GENERATION

    @property
    def goes_on(self) -> Reload | None:
        """The reload that goes on; None: there is none."""
        return self.reload if self.reload is not None and self.reload.goes_on else None

    # Events.

    def ask(self, now: float) -> None:
        """Have the code loaded anew; what goes on is superseded."""
        facts, before = self.slots.facts, self.goes_on
        base = before.base if before is not None else facts.generation
        if before is not None:
            self._give_up(before, Phase.SUPERSEDED, 'another reload was asked for', now)
        self.generations += 1
        staying = {slot.number for slot in self.slots.those_that_stay()}
        self.reload = Reload(self.generations, base, staying)
        facts.on_trial = self.generations
        self.slots.put_out(ReloadStarted(self.generations), StartGeneration(self.generations))

    def serves(self, generation: int, broken: str | None, now: float) -> None:
        """Workers can be born from this code; `broken`: what of it could not be loaded."""
        reload = self.goes_on
        if reload is not None and reload.generation == generation and reload.phase is Phase.LOADING:
            if broken is not None:
                self._give_up(reload, Phase.FAILED, broken, now)
            else:
                reload.phase = Phase.CANARY

    def failed(self, generation: int, reason: str, now: float) -> None:
        """What loads this code doesn't come to serve, or has ended. Once the code is loaded, that is no fault of it."""
        reload = self.goes_on
        if reload is not None and reload.generation == generation and reload.phase is Phase.LOADING:
            self._give_up(reload, Phase.FAILED, reason, now)

    def see_end(self, end: End, now: float) -> None:
        """A life has ended: if it was of the new code, and never ready, so ends the reload."""
        reload, slot = self.goes_on, self.slots.by_number.get(end.seat.slot)
        if reload is None or end.was_ready or end.life.generation != reload.generation or self.slots.facts.stopping:
            return
        if slot is None or slot.retiring:  # it went because its place goes
            return
        self._give_up(reload, Phase.FAILED, f'a worker of the new code did not become ready: {end.cause}', now)
        if slot.successor is end.seat:
            self.slots.give_up_successor(slot, Request.RELOAD, now)
        elif slot.number not in self.slots.token.away and end.seat.state in AT_REST:
            self.slots.step(end.seat, StartRequested(), now)  # nobody else is there: from the old code again

    def stop(self) -> None:
        """The pool stops."""
        if (reload := self.goes_on) is not None:
            self._end(reload, Phase.STOPPED, 'the pool stops')

    # What follows from the state.

    def see_slot(self, number: int, now: float) -> None:
        """Have the worker of this slot replaced if it runs other code than it should; one that goes is left out."""
        reload, slot = self.reload, self.slots.by_number.get(number)
        if reload is not None and (slot is None or slot.retiring):
            reload.leave_out(number)
        elif reload is not None and slot is not None and reload.phase not in TRYING:
            self._see_code(reload, slot, now)

    def _see_code(self, reload: Reload, slot: Slot, now: float) -> None:
        incumbent = slot.incumbent
        if incumbent.state is not State.RUNNING or self.slots.facts.stopping:
            return
        if slot.successor is None:
            reload.runs(slot.number, incumbent.current.generation)
        if not is_of(incumbent, self.slots.facts.generation) and incumbent.current.blame.request is None:
            self.slots.step(incumbent, SuccessionRequested(Request.RELOAD), now)

    def go_on(self, now: float) -> bool:
        """Do what can be done now: send the canary; when it is ready, have the others follow; see whether all have.
        False: nothing."""
        reload = self.goes_on
        if reload is None or self.slots.facts.stopping:
            return False
        if reload.phase is Phase.CANARY:
            canary = self._canary(reload)
            if canary is None:
                return self._send_canary(reload, now)
            if canary.state is State.RUNNING and is_of(canary, reload.generation):
                staying = self.slots.those_that_stay()
                reload.phase = Phase.ROLLING
                reload.slots = {slot.number for slot in staying}
                self.slots.facts.generation = reload.generation
                self.slots.touch(staying)
                return True
        elif reload.phase is Phase.ROLLING and reload.changed == reload.of:
            self._end(reload, Phase.DONE, None)
            self.slots.put_out(EndGeneration(reload.base))
            return True
        return False

    # Inside.

    def _canary(self, reload: Reload) -> Seat | None:
        """Return the seat on which the new code is tried; None: it is on none, or its place goes and it is gone."""
        slot = self.slots.by_number.get(reload.canary) if reload.canary is not None else None
        if slot is None or (slot.retiring and not is_of(slot.newest, reload.generation)):
            reload.canary = None
            return None
        return slot.newest

    def _send_canary(self, reload: Reload, now: float) -> bool:
        """Try the new code beside a worker that runs, or in the place of one that waits for its restart."""
        slots, token, policy = self.slots, self.slots.token, self.slots.facts.policy
        alone = [slot for slot in slots.those_that_stay() if slot.successor is None]
        running = next((slot for slot in alone if slot.incumbent.state is State.RUNNING), None)
        waiting = next((slot for slot in alone if slot.incumbent.state is State.AUTO_RESTART), None)
        if running is not None and token.has_room_beside(policy):
            reload.canary = running.number
            running.incumbent.current.blame.is_ours(Request.RELOAD)
            slots.step(slots.place_successor(running, generation=reload.generation), StartRequested(), now)
        elif running is not None and token.has_room_without(policy):
            reload.canary, running.incumbent.generation = running.number, reload.generation
            slots.send_away(running, Request.RELOAD, now)
        elif waiting is not None and running is None:
            reload.canary, waiting.incumbent.generation = waiting.number, reload.generation
            slots.step(waiting.incumbent, StartRequested(), now)
        else:
            return False
        return True

    def _give_up(self, reload: Reload, phase: Phase, reason: str, now: float) -> None:
        """End a reload that has not changed all workers: nothing is born from its code any more."""
        slots = self.slots
        slots.facts.generation = reload.base
        self._end(reload, phase, reason)
        for slot in list(slots.by_number.values()):
            successor = slot.successor
            if successor is not None and is_of(successor, reload.generation) and successor.state is State.START:
                slots.give_up_successor(slot, Request.RELOAD, now)
                slots.step(successor, StopRequested(Request.RELOAD, 0.0, slots.facts.policy.timeout_stop), now)
            elif successor is None and is_of(slot.incumbent, reload.base):
                slots.let_stay(slot.incumbent, Request.RELOAD, now)
        slots.touch(list(slots.by_number.values()))
        slots.put_out(EndGeneration(reload.generation))

    def _end(self, reload: Reload, phase: Phase, reason: str | None) -> None:
        slot = self.slots.by_number.get(reload.canary) if reload.canary is not None else None
        if slot is not None:
            slot.newest.generation = None
        reload.phase, reload.reason, reload.canary = phase, reason, None
        self.slots.facts.on_trial = None
        self.slots.put_out(ReloadEnded(reload.generation, phase, reload.changed, reload.of, reason))


def is_of(seat: Seat, generation: int) -> bool:
    """Whether the life in this seat runs this code."""
    return seat.life is not None and seat.life.generation == generation
