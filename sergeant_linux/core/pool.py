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

from random import Random

from sergeant_linux.core.backoff import RestartBudget
from sergeant_linux.core.commands import FIRST_GENERATION, Command, Leave
from sergeant_linux.core.counters import Counters
from sergeant_linux.core.events import (
    Event,
    GenerationFailed,
    GenerationServes,
    KillRequested,
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
from sergeant_linux.core.memoir import Going, Memoir
from sergeant_linux.core.plain import Plain
from sergeant_linux.core.policy import Policy
from sergeant_linux.core.reload import Reload
from sergeant_linux.core.restart import Restart, Restarts
from sergeant_linux.core.result import Request
from sergeant_linux.core.rollout import Rollout
from sergeant_linux.core.slot import PoolFacts, State
from sergeant_linux.core.snapshot import Snapshot, take_picture
from sergeant_linux.core.succession import Slots


class Pool:
    """The decisions for one pool of workers."""

    def __init__(self, policy: Policy, rng: Random) -> None:
        self._begin(PoolFacts(policy, rng, RestartBudget(policy.restart_budget)), Going())
        for _ in range(policy.concurrent_workers):
            self._slots.add()

    def _begin(self, facts: PoolFacts, going: Going) -> None:
        self._facts = facts
        self._going = going
        self._slots = Slots(facts)
        self._rollout = Rollout(self._slots)
        self._restarts = Restarts(self._slots)

    # The door.

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in what has happened, or what is asked for; return what is to be done, and then what is to be told.

        `now` is in seconds of the monotonic clock. A fact that comes late, about a life that is over, changes nothing.
        """
        facts, slots = self._facts, self._slots
        match event:
            case TimePassed():
                self._elapse(now)
            case TimeLost(seconds):
                slots.lose_time(seconds)
            case Unpopulated(life):
                slots.afterlives.end(life)
            case GenerationServes(generation, broken):
                self._rollout.serves(generation, broken, now)
                if broken is not None and generation == FIRST_GENERATION and not facts.ever_ready:
                    self._stop(CANT_LOAD, now)
            case GenerationFailed(generation, reason):
                self._rollout.failed(generation, reason, now)
            case PolicyChanged(policy):
                self._change_policy(policy, now)
            case PoolStartRequested():
                slots.step(slots.by_number[0].incumbent, StartRequested(), now)
            case PoolStopRequested(status):
                self._stop(status, now)
            case PoolKillRequested():
                self._kill(now)
            case ScaleRequested() | RestartRequested() | ReloadRequested() if facts.stopping:
                pass
            case ScaleRequested(by, busy):
                slots.scale(by, busy, now)
            case RestartRequested(numbers):
                self._restarts.ask(numbers, now)
            case ReloadRequested():
                self._rollout.ask(now)
            case _:
                if (seat := slots.by_life.get(event.life)) is not None:
                    slots.step(seat, event, now)
        self._converge(now)
        self._leave_if_at_rest()
        return self._slots.take_out()

    def next_deadline(self) -> float | None:
        """Return when time will have passed, in seconds of the monotonic clock; None: nothing is due."""
        dues = self._slots.timers.next(), self._slots.afterlives.due.next()
        return min((due for due in dues if due is not None), default=None)

    # Events.

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

    def _kill(self, now: float) -> None:
        """Stop without waiting for anybody."""
        self._stop(STOPPED, now)
        for seat in self._slots.all_seats():
            self._slots.step(seat, KillRequested(), now)

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
        self._rollout.see_slot(number, now)
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
        return Memoir.of(self._slots, self._rollout, self._restarts, self._going).write()

    @classmethod
    def restored(cls, state: Plain, policy: Policy, rng: Random) -> 'Pool':
        """Return a pool that knows this, and goes on as the one that has written it down would."""
        memoir, pool = Memoir.read(state, policy, rng), cls.__new__(cls)
        pool._begin(memoir.facts, memoir.going)
        memoir.take_up(pool._slots, pool._rollout, pool._restarts)
        return pool
