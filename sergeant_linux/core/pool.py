"""All slots of one pool: start with a canary, succession, scale, stop in phases.

The pool gives events to seats and keeps what is between them: whose turn it is to be succeeded (the recycle token),
who is left over (stragglers, by life), the timers, and when everything is at rest. It returns what the kernel side is
to do, and reports.

A stop gives a worker that can drain half of `timeout_stop` for its task and the other half to put it back; one that
can't drain has all of it from SIGTERM on.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from sergeant_linux.core.backoff import RestartBudget
from sergeant_linux.core.commands import (
    Arm,
    Command,
    Disarm,
    EndStragglers,
    Leave,
    ReplaceSoon,
    Scaled,
    Spawn,
    StopPool,
    StragglersRemain,
)
from sergeant_linux.core.deadlines import Deadlines
from sergeant_linux.core.events import (
    KillRequested,
    LifeEvent,
    SeatEvent,
    StartRequested,
    StopRequested,
    TimerElapsed,
    Unpopulated,
)
from sergeant_linux.core.policy import Policy
from sergeant_linux.core.result import Request
from sergeant_linux.core.slot import STOPPED, PoolFacts, Seat, Slot, State
from sergeant_linux.core.snapshot import SlotView, Snapshot, view

AT_REST: Final = frozenset({State.DEAD, State.FAILED})

MAX_SURGE: Final = 1
"""How many successors may exist at once, whatever mixture of causes asks for them."""

SWEEP_AGAIN_AFTER: Final = 5.0
"""Seconds after which stragglers that are still there are killed again, and told of."""


@dataclass(slots=True, eq=False)
class Afterlife:
    """A life whose main process is gone while something it started is left (FINAL_SIGKILL)."""

    slot: int
    life: int
    since: float


class Pool:
    """The decisions for one pool of workers; every method returns commands in the order to carry them out."""

    def __init__(self, policy: Policy, rng: Random) -> None:
        self.policy = policy
        self._facts = PoolFacts(policy, rng, RestartBudget(policy.restart_budget))
        self._slots: dict[int, Slot] = {}
        self._seats: dict[int, Seat] = {}
        self._afterlives: dict[int, Afterlife] = {}
        self._deadlines: Deadlines[Seat | Afterlife] = Deadlines()
        self._turns: deque[Seat] = deque()
        self._surge: set[int] = set()
        self._status = STOPPED
        self._left = False
        for number in range(policy.concurrent_workers):
            self._add_slot(number)

    # What the world asks of the pool.

    def start(self, now: float) -> list[Command]:
        """Start the canary: the first worker; the others follow when it is ready, so a broken module costs one
        process."""
        return list(self._step(self._slots[0].incumbent, StartRequested(), now))

    def stop(self, now: float, *, status: int = STOPPED) -> list[Command]:
        """Stop all workers in an orderly way and leave with `status`; the first stop's status counts."""
        return [*self._stop(status, now), *self._leave_if_at_rest()]

    def kill(self, now: float) -> list[Command]:
        """Stop without waiting for anybody."""
        commands = list(self._stop(STOPPED, now))
        for slot in list(self._slots.values()):
            for seat in list(slot.seats()):
                commands += self._step(seat, KillRequested(), now)
        return [*commands, *self._leave_if_at_rest()]

    def scale(self, by: int, now: float) -> list[Command]:
        """Have `by` workers more (or less, the highest slots first; never less than one)."""
        staying = sorted(number for number, slot in self._slots.items() if not slot.retiring)
        before, after = len(staying), max(1, len(staying) + by)
        if self._facts.stopping:
            return []
        commands: list[Command] = [Scaled(before, after)]
        for number in staying[after:]:
            commands += self._retire(self._slots[number], now)
        for _ in range(before, after):
            slot = self._add_slot(next(number for number in range(len(self._slots) + 1) if number not in self._slots))
            if self._facts.ever_ready:
                commands += self._step(slot.incumbent, StartRequested(), now)
        return commands

    def handle(self, event: LifeEvent, now: float) -> list[Command]:
        """Take in a fact about a life; one that comes late, about a life that is over, changes nothing."""
        if isinstance(event, Unpopulated):
            afterlife = self._afterlives.pop(event.life, None)
            if afterlife is not None:
                self._deadlines.disarm(afterlife)
            return list(self._leave_if_at_rest())
        seat = self._seats.get(event.life)
        if seat is None:
            return []
        return [*self._step(seat, event, now), *self._leave_if_at_rest()]

    # Time.

    def next_deadline(self) -> float | None:
        """Return when `elapse` is to be called next, in seconds of the monotonic clock; None: nothing is due."""
        return self._deadlines.next()

    def elapse(self, now: float) -> list[Command]:
        """Let every timer run out whose time has come."""
        commands: list[Command] = []
        for key in self._deadlines.elapse(now):
            if isinstance(key, Seat):
                commands += self._step(key, TimerElapsed(), now)
            else:
                self._deadlines.arm(key, now + SWEEP_AGAIN_AFTER)
                commands += [StragglersRemain(key.slot, key.life, now - key.since), EndStragglers(key.life)]
        return [*commands, *self._leave_if_at_rest()]

    # What others look at.

    @property
    def stopping(self) -> bool:
        """Whether the pool is on its way out."""
        return self._facts.stopping

    @property
    def ever_ready(self) -> bool:
        """Whether a worker of this pool has ever become ready."""
        return self._facts.ever_ready

    def snapshot(self, now: float) -> Snapshot:
        """Return a picture of the pool."""
        return Snapshot(
            slots=tuple(
                SlotView(
                    number,
                    view(slot.incumbent, now),
                    view(slot.successor, now) if slot.successor is not None else None,
                )
                for number, slot in sorted(self._slots.items())
            ),
            stopping=self._facts.stopping,
            stragglers=len(self._afterlives),
        )

    # Inside.

    def _add_slot(self, number: int) -> Slot:
        slot = self._slots[number] = Slot(number, Seat(number, self._facts))
        return slot

    def _step(self, seat: Seat, event: SeatEvent, now: float) -> Iterator[Command]:
        """Let one seat take one step, and do what it asks of the pool."""
        was_ready = self._facts.ever_ready
        life_before = seat.life
        commands = seat.handle(event, now)
        if seat.life is not life_before and life_before is not None:
            self._seats.pop(life_before.number, None)
        for command in commands:
            match command:
                case Arm(at):
                    self._deadlines.arm(seat, at)
                case Disarm():
                    self._deadlines.disarm(seat)
                case StopPool(status):
                    yield from self._stop(status, now)
                case ReplaceSoon():
                    self._turns.append(seat)
                case Spawn(life=life):
                    self._seats[life] = seat
                    yield command
                case EndStragglers(life):
                    afterlife = self._afterlives[life] = Afterlife(seat.slot, life, now)
                    self._deadlines.arm(afterlife, now + SWEEP_AGAIN_AFTER)
                    yield command
                case _:
                    yield command
        if self._facts.ever_ready and not was_ready:
            yield from self._start_the_others(now)
        slot = self._slots.get(seat.slot)
        if slot is not None:
            yield from self._settle(slot, now)
        yield from self._grant_turns(now)

    def _start_the_others(self, now: float) -> Iterator[Command]:
        for slot in list(self._slots.values()):
            if slot.incumbent.state is State.DEAD and not slot.retiring:
                yield from self._step(slot.incumbent, StartRequested(), now)

    def _settle(self, slot: Slot, now: float) -> Iterator[Command]:
        """Let what goes on in this slot go on: ask the incumbent to go, promote the successor, free the token, close
        the slot."""
        incumbent, successor = slot.incumbent, slot.successor
        if successor is not None and incumbent.state in AT_REST:
            successor.restarts += incumbent.restarts + 1
            slot.incumbent, slot.successor = successor, None
            self._surge.discard(slot.number)
        elif successor is not None and successor.state is State.RUNNING and incumbent.state is State.RUNNING:
            request = incumbent.current.blame.request or Request.LIFETIME
            yield from self._step(incumbent, self._planned(request), now)
        if slot.retiring and slot.successor is None and slot.incumbent.state in AT_REST:
            self._slots.pop(slot.number, None)

    def _grant_turns(self, now: float) -> Iterator[Command]:
        """Start successors while the token allows it, in the order in which they were asked for."""
        while self._turns and len(self._surge) < MAX_SURGE and not self._facts.stopping:
            incumbent = self._turns.popleft()
            slot = self._slots.get(incumbent.slot)
            if slot is None or slot.retiring or slot.incumbent is not incumbent or slot.successor is not None:
                continue
            if incumbent.state is not State.RUNNING or incumbent.current.blame.request is None:
                continue
            self._surge.add(slot.number)
            incumbent.wanted = False
            slot.successor = Seat(slot.number, self._facts, predecessor=incumbent.predecessor)
            yield from self._step(slot.successor, StartRequested(), now)

    def _planned(self, request: Request) -> StopRequested:
        return StopRequested(request, self.policy.timeout_drain, self.policy.timeout_stop)

    def _retire(self, slot: Slot, now: float) -> Iterator[Command]:
        slot.retiring = True
        if slot.successor is not None:
            self._surge.discard(slot.number)
        for seat in list(slot.seats()):
            yield from self._step(seat, self._planned(Request.SCALE_DOWN), now)

    def _stop(self, status: int, now: float) -> Iterator[Command]:
        if not self._facts.stopping:
            self._facts.stopping = True
            self._status = status
            self._turns.clear()
            half = self.policy.timeout_stop / 2
            for slot in list(self._slots.values()):
                for seat in list(slot.seats()):
                    yield from self._step(seat, StopRequested(Request.STOP, half, half), now)

    def _leave_if_at_rest(self) -> Iterable[Command]:
        """Leave once, when a stop has left no life and nothing of one: a stop lets no seat wait for a restart."""
        if self._facts.stopping and not self._left and not self._seats and not self._afterlives:
            self._left = True
            yield Leave(self._status)
