"""The slots of one pool, and how a worker gives its place to another one.

A seat takes steps (slot.py). What it asks of the kernel and what it tells is collected here, its timer is armed here,
and its slot is put down as changed. Rules that follow from a state, not from an event, are not applied meanwhile: they
run afterwards, slot by slot, until nothing is changed any more (pool.py). So no rule is called from within another
one, and each sees a state that no step is in the middle of.

A succession: the successor is started beside the incumbent and becomes ready; then the incumbent is asked to go, and
when it is gone the successor is the incumbent. A successor that is not wanted any more is let go, and the incumbent
stays as if it had never been asked for. Where there is room to be away, and none for a successor, the incumbent goes
first.

Invariants:
1. A key is a number: of a slot, of a seat, of a life. A seat keeps its number when the successor becomes the incumbent.
2. Every slot that a step has touched is settled before the pool answers.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Final

from sergeant_linux.core.afterlife import Afterlives
from sergeant_linux.core.commands import (
    ORDERS,
    Arm,
    Command,
    Disarm,
    EndStragglers,
    ReplaceSoon,
    Scaled,
    Spawn,
    StopPool,
    WorkerExited,
    WorkerSpawned,
    WorkerSpawnFailed,
)
from sergeant_linux.core.deadlines import Deadlines
from sergeant_linux.core.events import SeatEvent, StartRequested, StopRequested
from sergeant_linux.core.result import Request
from sergeant_linux.core.slot import Life, PoolFacts, Seat, Slot, State
from sergeant_linux.core.token import Token

AT_REST: Final = frozenset({State.DEAD, State.FAILED})


@dataclass(frozen=True, slots=True)
class End:
    """A life has ended in this seat. `on_trial`: it was of the code that a reload tries; `cause`: what its record says
    of why."""

    seat: Seat
    life: Life
    on_trial: bool
    cause: str

    @property
    def was_ready(self) -> bool:
        """Whether it had been ready."""
        return self.life.ready_at is not None


@dataclass(slots=True)
class Slots:
    """All slots of one pool. `ready`: how many have a worker that is; `staying`: how many are not to go; `processes`:
    how many lives have one. The rest is to be done before the pool answers: slots to be settled, ends to be looked at,
    a stop that a worker has asked for."""

    facts: PoolFacts
    token: Token = field(default_factory=Token)
    timers: Deadlines[int] = field(default_factory=Deadlines)
    afterlives: Afterlives = field(default_factory=Afterlives)
    by_number: dict[int, Slot] = field(default_factory=dict)
    by_life: dict[int, Seat] = field(default_factory=dict)
    by_seat: dict[int, Seat] = field(default_factory=dict)
    seats: int = 0
    ready: int = 0
    staying: int = 0
    processes: int = 0
    version: int = 0
    changed: dict[int, None] = field(default_factory=dict)
    ends: deque[End] = field(default_factory=deque)
    stop_with: int | None = None
    _free: list[int] = field(default_factory=list)
    _out: list[Command] = field(default_factory=list)

    # Slots.

    def add(self) -> Slot:
        """Return one more slot, under the lowest number that is free."""
        number = heappop(self._free) if self._free else len(self.by_number)
        slot = self.by_number[number] = Slot(number, self._new_seat(number))
        self.staying += 1
        return slot

    def retire(self, slot: Slot, now: float) -> None:
        """This slot is to go, with whoever is in it."""
        slot.retiring = True
        self.staying -= 1
        self.token.give_back(slot.number)
        for seat in list(slot.seats()):
            self.step(seat, self.planned(Request.SCALE_DOWN), now)

    def scale(self, by: int, busy: frozenset[int], now: float) -> None:
        """Have `by` workers more, or less, never less than one. First those go that don't work: they aren't running, or
        their life isn't among the `busy`; of several, the youngest."""
        before = self.staying
        after = max(1, before + by)

        def worth(slot: Slot) -> tuple[bool, bool, int]:
            life = slot.incumbent.life
            number = life.number if life is not None else self.facts.lives + 1 + slot.number
            return slot.incumbent.state is State.RUNNING, number in busy, -number

        if after < before:
            for slot in sorted(self.those_that_stay(), key=worth)[: before - after]:
                self.retire(slot, now)
        for _ in range(before, after):
            slot = self.add()
            if self.facts.ever_ready:
                self.step(slot.incumbent, StartRequested(), now)
        self.put_out(Scaled(before, after))

    def those_that_stay(self) -> list[Slot]:
        """Return all slots that are not to go, by number."""
        return [slot for _, slot in sorted(self.by_number.items()) if not slot.retiring]

    def all_seats(self) -> Iterator[Seat]:
        """Yield every seat there is."""
        for slot in list(self.by_number.values()):
            yield from list(slot.seats())

    def touch(self, slots: list[Slot]) -> None:
        """What holds for all of them has changed: settle them."""
        self.changed.update(dict.fromkeys(slot.number for slot in slots))

    # Steps.

    def step(self, seat: Seat, event: SeatEvent, now: float) -> None:
        """Let one seat take one step."""
        slot = self.by_number[seat.slot]
        was_ready, before, cause = slot.is_ready, seat.life, 'it was given up'
        for command in seat.handle(event, now):
            match command:
                case Arm(at):
                    self.timers.arm(seat.number, at)
                case Disarm():
                    self.timers.disarm(seat.number)
                case StopPool(status):
                    self.stop_with = status if self.stop_with is None else self.stop_with
                case ReplaceSoon():
                    self.token.turns.append(seat.current.number)
                case _:
                    self.put_out(command)
                    cause = self._note(seat, command, now) or cause
        if before is not None and seat.life is not before:
            self.by_life.pop(before.number, None)
            self.ends.append(End(seat, before, before.generation == self.facts.on_trial, cause))
        self.ready += slot.is_ready - was_ready
        self.version += 1
        self.changed[slot.number] = None

    def put_out(self, *commands: Command) -> None:
        """Have this done, or told."""
        self._out += commands

    def take_out(self) -> list[Command]:
        """Return what is to be done and told: all orders first, for whoever carries them out works while we write."""
        out, self._out = self._out, []
        return sorted(out, key=lambda command: not isinstance(command, ORDERS))

    def _note(self, seat: Seat, command: Command, now: float) -> str | None:
        """Keep the books; return what a report of an end says of its cause."""
        match command:
            case Spawn(life=life):
                self.by_life[life] = seat
            case WorkerSpawned():
                self.processes += 1
            case EndStragglers(life):
                self.afterlives.begin(seat.slot, life, now)
            case WorkerSpawnFailed(reason=reason):
                return reason
            case WorkerExited(ending=ending, result=result):
                self.processes -= 1
                if ending.report is not None and ending.report.exception:
                    return ending.report.exception
                code = f' (return code {ending.return_code})' if ending.return_code is not None else ''
                return f'{result}{code}'
        return None

    def lose_time(self, seconds: float) -> None:
        """Let everything that is due be due that much later."""
        self.timers.put_off(seconds)
        self.afterlives.due.put_off(seconds)
        for seat in self.all_seats():
            seat.until += seconds

    # Successions.

    def settle(self, slot: Slot, now: float) -> None:
        """Let what goes on in this slot go on: ask the incumbent to go, promote the successor, free the token, close
        the slot."""
        incumbent, successor, stopping = slot.incumbent, slot.successor, self.facts.stopping
        if successor is not None and not successor.wanted and not slot.retiring and not stopping:
            if successor.state in AT_REST:  # it was given up: its incumbent stays
                slot.successor = None
                self._forget(successor)
                self.token.surge.discard(slot.number)
                if incumbent.life is not None:
                    self.token.turns.append(incumbent.life.number)  # should it be asked for again, or still
        elif successor is not None and incumbent.state in AT_REST:
            successor.restarts += incumbent.restarts
            successor.count_restart()
            successor.once = False
            slot.incumbent, slot.successor = successor, None
            self._forget(incumbent)
            self.token.surge.discard(slot.number)
        elif successor is not None and successor.state is State.RUNNING and incumbent.state is State.RUNNING:
            self.step(incumbent, self.planned(incumbent.current.blame.request or Request.LIFETIME), now)
        elif slot.number in self.token.away and not stopping:
            if incumbent.state is State.DEAD:
                incumbent.count_restart()
                self.step(incumbent, StartRequested(), now)
            elif incumbent.state is State.RUNNING and incumbent.wanted:
                self.token.away.discard(slot.number)
        if slot.retiring and slot.successor is None and slot.incumbent.state in AT_REST:
            del self.by_number[slot.number]
            self._forget(slot.incumbent)
            heappush(self._free, slot.number)

    def grant_a_turn(self, now: float) -> bool:
        """Replace one worker, if the token allows it; False: nobody could be."""
        facts, token = self.facts, self.token
        while token.turns and not facts.stopping:
            beside = token.has_room_beside(facts.policy)
            if not beside and not token.has_room_without(facts.policy):
                return False
            slot = self._whose_turn(token.turns.popleft())
            if slot is None:
                continue
            request = slot.incumbent.current.blame.request
            assert request is not None
            if beside:
                successor = self.place_successor(slot, once=request is Request.RESTART)
                self.step(successor, StartRequested(), now)
            else:
                self.send_away(slot, request, now)
            return True
        return False

    def _whose_turn(self, life: int) -> Slot | None:
        """Return the slot whose incumbent is this life, if that is still to be replaced."""
        incumbent = self.by_life.get(life)
        slot = self.by_number[incumbent.slot] if incumbent is not None else None
        if incumbent is None or slot is None or slot.retiring or slot.incumbent is not incumbent:
            return None
        asked = incumbent.state is State.RUNNING and incumbent.current.blame.request is not None
        return slot if asked and slot.successor is None else None

    def place_successor(self, slot: Slot, *, generation: int | None = None, once: bool = False) -> Seat:
        """Make a seat for the successor of the incumbent, which stays until that one is ready."""
        self.token.surge.add(slot.number)
        slot.incumbent.wanted = False
        slot.successor = self._new_seat(slot.number)
        slot.successor.predecessor = slot.incumbent.predecessor
        slot.successor.generation, slot.successor.once = generation, once
        return slot.successor

    def send_away(self, slot: Slot, request: Request, now: float) -> None:
        """Ask the incumbent to go; its seat is filled again when it is gone."""
        self.token.away.add(slot.number)
        self.step(slot.incumbent, self.planned(request), now)

    def give_up_successor(self, slot: Slot, request: Request, now: float) -> None:
        """The successor is not wanted any more, and is let go when it is at rest; the incumbent stays, as if it had
        never been asked for. One that was to go for another reason still is."""
        assert slot.successor is not None
        slot.successor.wanted = False
        slot.incumbent.wanted = not slot.retiring
        self.let_stay(slot.incumbent, request, now)
        self.changed[slot.number] = None

    def let_stay(self, seat: Seat, request: Request, now: float) -> None:
        """A worker that was to go for this reason is as if it had never been asked for."""
        if seat.state is State.RUNNING and seat.current.blame.request is request:
            seat.current.blame.request = None
            self.arm_lifetime(seat, now)

    def arm_lifetime(self, seat: Seat, now: float) -> None:
        """Let a worker that is ready be asked to go when its lifetime is over, by the policy of now."""
        ready_at, policy = seat.current.ready_at, self.facts.policy
        if policy.max_worker_lifetime is None or ready_at is None:
            self.timers.disarm(seat.number)
        else:
            jitter = self.facts.rng.uniform(0, policy.max_worker_lifetime_jitter)
            self.timers.arm(seat.number, max(now, ready_at + policy.max_worker_lifetime + jitter))

    def planned(self, request: Request) -> StopRequested:
        """Return how a worker is asked to go that nothing is wrong with."""
        policy = self.facts.policy
        return StopRequested(request, policy.timeout_drain, policy.timeout_stop)

    def _new_seat(self, slot: int) -> Seat:
        self.seats += 1
        seat = self.by_seat[self.seats] = Seat(slot, self.facts, number=self.seats)
        return seat

    def _forget(self, seat: Seat) -> None:
        del self.by_seat[seat.number]

    # Written down.

    def take_up(self, slots: list[Slot]) -> None:
        """Put these in the place of none: what follows from them is not written down."""
        for slot in slots:
            self.by_number[slot.number] = slot
            for seat in slot.seats():
                self.by_seat[seat.number] = seat
                if seat.life is not None:
                    self.by_life[seat.life.number] = seat
        self._free = [number for number in range(max(self.by_number, default=-1)) if number not in self.by_number]
        heapify(self._free)
        self.ready = sum(slot.is_ready for slot in slots)
        self.staying = sum(not slot.retiring for slot in slots)
        self.processes = sum(seat.life is not None and seat.life.pid is not None for seat in self.by_seat.values())
