"""One pool: the one door to the core. A fact or a request goes in, commands come out; nothing here reads a clock.

    pool.handle(Exited(life=3, ending=…), now=12.5)  ->  [EndStragglers(3), Spawn(0, 4), WorkerExited(…)]

An event is first taken in: somebody takes a step. Then everything that follows from the state is done, rule by rule,
until no rule has anything to do: what lives have ended for, slot by slot what goes on there, the reload, the start of
the others once the canary is ready, and whose turn it is to be replaced. So no rule calls another one.

A first worker is started alone; the others follow when it is ready, so a broken module costs one process. A stop gives
a worker that can drain half of `timeout_stop` for its task and the other half to put it back; one that can't drain has
all of it from SIGTERM on. The pool leaves when it is to stop and no life, and nothing of one, is left.

The whole input of a pool is the list of these values with their times, and its whole state is one of plain values
(`state`), of which another process can make the same pool (`restored`).
"""

from dataclasses import dataclass, field
from random import Random
from typing import assert_never

from sergeant_linux.core.afterlife import Afterlife
from sergeant_linux.core.backoff import RestartBudget
from sergeant_linux.core.commands import FIRST_GENERATION, Command, Leave, Scaled
from sergeant_linux.core.counters import Counters
from sergeant_linux.core.events import (
    Event,
    GenerationFailed,
    GenerationServes,
    KillRequested,
    LifeEvent,
    PolicyChanged,
    PoolKillRequested,
    PoolStartRequested,
    PoolStopRequested,
    ReloadRequested,
    RestartRequested,
    ScaleRequested,
    StartRequested,
    StopRequested,
    TimeLost,
    TimePassed,
    TimerElapsed,
    Unpopulated,
)
from sergeant_linux.core.exit import CANT_LOAD, STOPPED
from sergeant_linux.core.plain import Plain, plain, read
from sergeant_linux.core.policy import Policy
from sergeant_linux.core.reload import Reload
from sergeant_linux.core.restart import Restart, Restarts
from sergeant_linux.core.result import Request
from sergeant_linux.core.rollout import Rollout
from sergeant_linux.core.slot import PoolFacts, Slot, State
from sergeant_linux.core.snapshot import Snapshot, take_picture
from sergeant_linux.core.succession import Slots
from sergeant_linux.core.token import Token


@dataclass(slots=True)
class Going:
    """How far the pool has come itself. `opened`: the others were started; `status`: what it leaves with."""

    opened: bool = False
    status: int = STOPPED
    left: bool = False


@dataclass(slots=True)
class Written:
    """All that a pool knows, as it is written down. Timers: who waits until when, in the order of being armed."""

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


class Pool:
    """The decisions for one pool of workers."""

    def __init__(self, policy: Policy, rng: Random) -> None:
        self._take_up(PoolFacts(policy, rng, RestartBudget(policy.restart_budget)))
        for _ in range(policy.concurrent_workers):
            self._slots.add()

    def _take_up(self, facts: PoolFacts) -> None:
        self._facts = facts
        self._slots = Slots(facts)
        self._rollout = Rollout(self._slots)
        self._restarts = Restarts(self._slots)
        self._going = Going()

    # The door.

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in what has happened, or what is asked for; return what is to be done, and then what is to be told.

        `now` is in seconds of the monotonic clock. A fact that comes late, about a life that is over, changes nothing.
        """
        match event:
            case TimePassed():
                self._elapse(now)
            case TimeLost(seconds):
                self._slots.lose_time(seconds)
            case Unpopulated(life):
                self._slots.afterlives.end(life)
            case GenerationServes() | GenerationFailed():
                self._hear_of_generation(event, now)
            case PoolStartRequested() | PoolStopRequested() | PoolKillRequested() | PolicyChanged():
                self._obey(event, now)
            case ScaleRequested() | RestartRequested() | ReloadRequested():
                if not self._facts.stopping:
                    self._grant(event, now)
            case _:
                self._hear_of_life(event, now)
        self._converge(now)
        self._leave_if_at_rest()
        return self._slots.take_out()

    def next_deadline(self) -> float | None:
        """Return when time will have passed, in seconds of the monotonic clock; None: nothing is due."""
        dues = self._slots.timers.next(), self._slots.afterlives.due.next()
        return min((due for due in dues if due is not None), default=None)

    # Events.

    def _hear_of_life(self, event: LifeEvent, now: float) -> None:
        seat = self._slots.by_life.get(event.life)
        if seat is not None and not isinstance(event, Unpopulated):
            self._slots.step(seat, event, now)

    def _hear_of_generation(self, event: GenerationServes | GenerationFailed, now: float) -> None:
        if isinstance(event, GenerationFailed):
            self._rollout.failed(event.generation, event.reason, now)
            return
        self._rollout.serves(event.generation, event.broken, now)
        if event.broken is not None and event.generation == FIRST_GENERATION and not self._facts.ever_ready:
            self._stop(CANT_LOAD, now)

    def _obey(
        self, event: PoolStartRequested | PoolStopRequested | PoolKillRequested | PolicyChanged, now: float
    ) -> None:
        match event:
            case PoolStartRequested():
                self._slots.step(self._slots.by_number[0].incumbent, StartRequested(), now)
            case PoolStopRequested(status):
                self._stop(status, now)
            case PoolKillRequested():
                self._stop(STOPPED, now)
                for seat in self._slots.all_seats():
                    self._slots.step(seat, KillRequested(), now)
            case PolicyChanged(policy):
                self._change_policy(policy, now)
            case _:
                assert_never(event)

    def _grant(self, event: ScaleRequested | RestartRequested | ReloadRequested, now: float) -> None:
        match event:
            case ScaleRequested(by, busy):
                self._scale(by, busy, now)
            case RestartRequested(slots):
                self._restarts.ask(slots, now)
            case ReloadRequested():
                self._rollout.ask(now)
            case _:
                assert_never(event)

    def _elapse(self, now: float) -> None:
        """Let every timer run out whose time has come. What follows from one may make the next one pointless."""
        for number in self._slots.timers.elapse(now):
            self._slots.step(self._slots.by_seat[number], TimerElapsed(), now)
            self._converge(now)
        self._slots.put_out(*self._slots.afterlives.elapse(now))

    def _stop(self, status: int, now: float) -> None:
        """Stop all workers in an orderly way and leave with `status`; the first stop's status counts."""
        if not self._facts.stopping:
            self._facts.stopping, self._going.status = True, status
            self._slots.token.turns.clear()
            self._rollout.stop()
            half = self.policy.timeout_stop / 2
            for seat in self._slots.all_seats():
                self._slots.step(seat, StopRequested(Request.STOP, half, half), now)

    def _scale(self, by: int, busy: frozenset[int], now: float) -> None:
        """Have `by` workers more, or less, never less than one. First those go that don't work: they aren't running, or
        their life isn't among the `busy`; of several, the youngest."""
        before = self._slots.staying
        after = max(1, before + by)

        def worth(slot: Slot) -> tuple[bool, bool, int]:
            life = slot.incumbent.life
            number = life.number if life is not None else self._facts.lives + 1 + slot.number
            return slot.incumbent.state is State.RUNNING, number in busy, -number

        if after < before:
            for slot in sorted(self._slots.those_that_stay(), key=worth)[: before - after]:
                if self._rollout.reload is not None:
                    self._rollout.reload.leave_out(slot.number)
                self._slots.retire(slot, now)
        for _ in range(before, after):
            slot = self._slots.add()
            if self._facts.ever_ready:
                self._slots.step(slot.incumbent, StartRequested(), now)
        self._slots.put_out(Scaled(before, after))

    def _change_policy(self, policy: Policy, now: float) -> None:
        """Go by this policy from now on. Timers that run already keep their time, but for a lifetime."""
        lifetime_differs = policy.max_worker_lifetime != self.policy.max_worker_lifetime
        self._facts.policy = policy
        for seat in self._slots.all_seats() if lifetime_differs else ():
            if seat.state is State.RUNNING:
                self._slots.arm_lifetime(seat, now)

    # What follows from the state.

    def _converge(self, now: float) -> None:
        """Apply the rules until none has anything to do."""
        slots = self._slots
        while True:
            if slots.ends:
                end = slots.ends.popleft()
                self._rollout.see_end(end, now)
                self._restarts.see_end(end, now)
            elif slots.stop_with is not None:
                self._stop(slots.stop_with, now)
                slots.stop_with = None
            elif slots.changed:
                self._see_slot(next(iter(slots.changed)), now)
            elif not (self._rollout.go_on(now) or self._open(now) or slots.grant_a_turn(now)):
                return

    def _see_slot(self, number: int, now: float) -> None:
        slots = self._slots
        del slots.changed[number]
        if number in slots.by_number:
            slots.settle(slots.by_number[number], now)
        if number in slots.by_number:
            self._rollout.see_slot(slots.by_number[number], now)
        self._restarts.see_slot(number)

    def _open(self, now: float) -> bool:
        """Start the others, once the first worker has become ready."""
        if self._going.opened or not self._facts.ever_ready:
            return False
        self._going.opened = True
        for slot in list(self._slots.by_number.values()):
            if slot.incumbent.state is State.DEAD and not slot.retiring and not self._facts.stopping:
                self._slots.step(slot.incumbent, StartRequested(), now)
        return True

    def _leave_if_at_rest(self) -> None:
        """Leave once, when a stop has left no life and nothing of one: a stop lets no seat wait for a restart."""
        slots = self._slots
        if self._facts.stopping and not (self._going.left or slots.by_life or slots.afterlives.by_life):
            self._going.left = True
            slots.put_out(Leave(self._going.status))

    # What others look at.

    @property
    def policy(self) -> Policy:
        """The policy of now."""
        return self._facts.policy

    @property
    def stopping(self) -> bool:
        """Whether the pool is on its way out."""
        return self._facts.stopping

    @property
    def ever_ready(self) -> bool:
        """Whether a worker of this pool has ever become ready."""
        return self._facts.ever_ready

    @property
    def wanted(self) -> int:
        """How many workers should be ready."""
        return self._slots.staying

    @property
    def ready(self) -> int:
        """How many slots have a worker that is ready."""
        return self._slots.ready

    @property
    def processes(self) -> int:
        """How many workers have a process."""
        return self._slots.processes

    @property
    def last_reload(self) -> Reload | None:
        """The reload that goes on, or the last one that has ended."""
        return self._rollout.reload

    @property
    def last_restart(self) -> Restart | None:
        """The restart that was asked for last."""
        return self._restarts.last

    @property
    def counters(self) -> Counters:
        """What has happened so far."""
        return self._facts.counters

    @property
    def version(self) -> int:
        """A number that grows whenever anything has changed."""
        return self._slots.version

    def snapshot(self, now: float) -> Snapshot:
        """Return a picture of the pool; it takes a look at every slot."""
        return take_picture(self._slots, now)

    # Written down.

    def state(self) -> Plain:
        """Return all that the pool knows but its policy and chance, as JSON can hold it."""
        slots, last = self._slots, self._restarts.last
        return plain(
            Written(
                self._facts, self._going,
                [slots.by_number[number] for number in sorted(slots.by_number)],
                slots.seats, slots.version, slots.token, slots.timers.written(),
                slots.afterlives.by_life, slots.afterlives.due.written(),
                self._rollout.reload, self._rollout.generations, self._restarts.going_on, last,
            )
        )

    @classmethod
    def restored(cls, state: Plain, policy: Policy, rng: Random) -> 'Pool':
        """Return a pool that knows this, and goes on as the one that has written it down would."""
        facts = read(PoolFacts, state['facts'], policy=policy, rng=rng)
        written = read(Written, {**state, 'facts': state['facts']}, policy=policy, rng=rng, facts=facts)
        pool = cls.__new__(cls)
        pool._take_up(facts)
        slots, rollout, restarts = pool._slots, pool._rollout, pool._restarts
        pool._going = written.going
        slots.seats, slots.version, slots.token = written.seats, written.version, written.token
        slots.take_up(written.slots)
        slots.afterlives.by_life = written.afterlives
        for deadlines, entries in ((slots.timers, written.timers), (slots.afterlives.due, written.sweeps)):
            for key, at in entries:
                deadlines.arm(key, at)
        rollout.reload, rollout.generations = written.reload, written.generations
        restarts.going_on, restarts.last = written.restarts, written.last_restart
        if restarts.last is not None:
            restarts.last = restarts.going_on.get(restarts.last.number, restarts.last)
        return pool


