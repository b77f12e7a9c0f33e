"""A slot, its seats, and THE transition table.

A slot outlives its processes. It has a seat for its incumbent and, during a succession, one more for the successor;
each seat runs one life after another by the same table. Three questions, three fields, never mixed: `state` is where
a seat is, `wanted` (the goal) is whether a process is wanted there, and a life's `blame` is what we did to it and
why.

What a life leaves behind (stragglers) belongs to the life, not to the seat: every life has a mark and a leaf of its
own, so the next one need not wait until they are gone. The pool waits for them before it leaves.

Invariants, each checked by a machine in the tests:
1. A seat at rest (DEAD, FAILED, AUTO_RESTART) has no process.
2. Spawn is never issued for a life that had a process before.
3. Every state but DEAD, RUNNING and FAILED has exactly one armed timer, unless its timeout is infinite.
4. A life has a pid if and only if a process of ours is unreaped.
5. Restarts inside the window never exceed the budget.
6. If the kernel obeys in the end, every seat reaches DEAD, RUNNING or FAILED without an operator.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from math import inf, isfinite
from random import Random
from typing import Final, TypeAlias

from sergeant_linux.core.backoff import RestartBudget, restart_delay
from sergeant_linux.core.commands import (
    FIRST_GENERATION,
    Arm,
    BudgetSpent,
    Cancel,
    Disarm,
    Drain,
    EndStragglers,
    Go,
    Kill,
    ReplaceSoon,
    SeatCommand,
    Spawn,
    StopPool,
    Terminate,
    WorkerExited,
    WorkerHung,
    WorkerKilled,
    WorkerReady,
    WorkerSpawned,
    WorkerSpawnFailed,
    WorkerStartTimedOut,
    WorkerSucceeds,
)
from sergeant_linux.core.counters import Counters
from sergeant_linux.core.events import (
    Exited,
    Hung,
    KillRequested,
    MemoryExceeded,
    MemoryHigh,
    Ready,
    SeatEvent,
    Spawned,
    SpawnFailed,
    StartRequested,
    StopRequested,
    SuccessionRequested,
    TimerElapsed,
)
from sergeant_linux.core.exit import BUDGET_SPENT, CANT_LOAD, STOPPED
from sergeant_linux.core.plain import ASIDE
from sergeant_linux.core.policy import Policy
from sergeant_linux.core.result import Blame, Outcome, Request, Result, outcome_of, result_of

KILL_AGAIN_AFTER: Final = 5.0
"""Seconds after which a SIGKILL is sent again to a process the kernel has not let go yet (state D)."""

SPAWN_AGAIN_AFTER: Final = 0.1
"""Seconds a spawn that failed waits at least, even where restarts have no delay: the host has no room now."""


class State(StrEnum):
    """Where a seat is, in systemd's words."""

    DEAD = 'dead'
    START = 'start'
    RUNNING = 'running'
    DRAIN = 'drain'
    STOP_SIGTERM = 'stop-sigterm'
    STOP_SIGKILL = 'stop-sigkill'
    AUTO_RESTART = 'auto-restart'
    FAILED = 'failed'


class Next(Enum):
    """What comes after the end of a life."""

    REST = 'no process is wanted here'
    STOP_POOL = 'the worker wants the pool to stop'
    GIVE_UP = 'no worker of this pool could ever be loaded'
    BUDGET = 'the restart budget is spent'
    AT_ONCE = 'start the next life now'
    LATER = 'start the next life after a delay'


@dataclass(slots=True)
class PoolFacts:
    """What the seats of one pool share. `generation`: the code from which lives are born; `on_trial`: the code that is
    being tried, by a reload."""

    policy: Policy = field(metadata=ASIDE, repr=False)
    rng: Random = field(metadata=ASIDE, repr=False)
    budget: RestartBudget
    ever_ready: bool = False
    stopping: bool = False
    lives: int = 0
    generation: int = FIRST_GENERATION
    on_trial: int | None = None
    counters: Counters = field(default_factory=Counters)

    def next_life(self) -> int:
        """Return a number no life of this pool has had."""
        self.lives += 1
        return self.lives


@dataclass(slots=True)
class Life:
    """One process in a seat; the process exists while `pid` is set."""

    number: int
    generation: int = FIRST_GENERATION
    pid: int | None = None
    born_at: float = 0.0
    ready_at: float | None = None
    can_drain: bool = False
    measured: int | None = None
    blame: Blame = field(default_factory=Blame)


@dataclass(slots=True, eq=False)
class Seat:
    """A place for one worker process of a slot. `generation`: the code its next life is born from, where that isn't
    the pool's; `once`: its life is not followed by another one if it never becomes ready;
    `number`: of the seat, among all seats of the pool."""

    slot: int
    facts: PoolFacts = field(metadata=ASIDE, repr=False)
    state: State = State.DEAD
    wanted: bool = False
    life: Life | None = None
    failures: int = 0
    grace: float = 0.0
    until: float = inf
    predecessor: int | None = None
    last_result: Result | None = None
    restarts: int = 0
    after_end: Next = Next.REST
    restart_in: float | None = None
    generation: int | None = None
    once: bool = False
    number: int = 0

    @property
    def current(self) -> Life:
        """The life in this seat. Only for states that have one."""
        assert self.life is not None, f'slot {self.slot} has no life in state {self.state}'
        return self.life

    def count_restart(self) -> None:
        """The worker here is followed by another one."""
        self.restarts += 1
        self.facts.counters.restarts += 1

    def handle(self, event: SeatEvent, now: float) -> list[SeatCommand]:
        """Take one step and return what is to be done; `now` is in seconds of the monotonic clock."""
        if isinstance(event, Exited | SpawnFailed):
            self._decide_what_comes_next(event, now)
        for row in TABLE[self.state, type(event)]:
            if row.when(self, event):
                commands = [command for act in row.do for command in act(self, event, now)]
                self.state = row.to or self.state
                return commands
        return []

    def _decide_what_comes_next(self, event: Exited | SpawnFailed, now: float) -> None:
        """Decide once per end, so that the record of the end can tell it."""
        policy, facts, life = self.facts.policy, self.facts, self.current
        outcome = outcome_of(event.ending, life.blame) if isinstance(event, Exited) else Outcome.FAILED
        self.restart_in = None
        if life.ready_at is None and (self.once or life.generation == facts.on_trial):
            self.after_end = Next.REST  # the restart or the reload has failed, which the pool deals with
        elif outcome is Outcome.WANTS_POOL_STOP and not facts.stopping:
            self.after_end = Next.STOP_POOL
        elif not self.wanted:
            self.after_end = Next.REST
        elif outcome is Outcome.UNLOADABLE and not facts.ever_ready:
            self.after_end = Next.GIVE_UP
        elif outcome in (Outcome.FINISHED, Outcome.STOPPED_BY_STRANGER):
            self.failures = 0
            self.after_end, self.restart_in = Next.AT_ONCE, 0.0
        elif isinstance(event, SpawnFailed) and event.lost:
            self.after_end, self.restart_in = Next.LATER, SPAWN_AGAIN_AFTER
        elif not facts.budget.spend(now):
            self.after_end = Next.BUDGET
        else:
            stood = life.ready_at is not None and now - life.ready_at >= policy.restart_reset
            self.failures = 0 if stood else self.failures + 1
            self.restart_in = (
                0.0
                if stood
                else restart_delay(
                    self.failures, delay=policy.restart_delay, max_delay=policy.restart_max_delay, rng=facts.rng
                )
            )
            if isinstance(event, SpawnFailed):
                self.restart_in = max(self.restart_in, SPAWN_AGAIN_AFTER)
            self.after_end = Next.LATER if self.restart_in > 0 else Next.AT_ONCE


@dataclass(slots=True, eq=False)
class Slot:
    """A numbered place in the pool: an incumbent and at most one successor."""

    number: int
    incumbent: Seat
    successor: Seat | None = None
    retiring: bool = False

    @property
    def newest(self) -> Seat:
        """The seat whose worker is to stay: the successor's, where there is one."""
        return self.successor if self.successor is not None else self.incumbent

    @property
    def is_ready(self) -> bool:
        """Whether it has a worker that is ready."""
        return any(seat.state is State.RUNNING for seat in self.seats())

    def seats(self) -> Iterator[Seat]:
        """Yield the incumbent and, if there is one, the successor."""
        yield self.incumbent
        if self.successor is not None:
            yield self.successor


# Guards: may this row be taken? They change nothing.

Guard: TypeAlias = Callable[[Seat, SeatEvent], bool]


def always(seat: Seat, event: SeatEvent) -> bool:
    return True


def born(seat: Seat, event: SeatEvent) -> bool:
    return seat.current.pid is not None


def can_drain(seat: Seat, event: SeatEvent) -> bool:
    return seat.current.can_drain


def leads_to(what: Next) -> Guard:
    def guard(seat: Seat, event: SeatEvent) -> bool:
        return seat.after_end is what

    guard.__name__ = f'leads_to_{what.name.lower()}'
    return guard


# Actions: what is to be done on the way. Each changes the seat and yields commands.

Act: TypeAlias = Callable[[Seat, SeatEvent, float], Iterator[SeatCommand]]


def want(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    seat.wanted = True
    yield from ()


def let_go(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    seat.wanted = False
    yield from ()


def forget_timer(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    yield Disarm()


def spawn(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    generation = seat.generation if seat.generation is not None else seat.facts.generation
    seat.life, seat.generation = Life(seat.facts.next_life(), generation), None
    yield Spawn(seat.slot, seat.life.number, generation)
    yield from wait_for(seat.facts.policy.timeout_start, now)


def open_gate(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    assert isinstance(event, Spawned)
    life = seat.current
    life.pid, life.born_at = event.pid, now
    seat.facts.counters.spawned += 1
    yield WorkerSpawned(seat.slot, life.number, event.pid, seat.predecessor)
    seat.predecessor = event.pid
    yield Go(seat.slot, life.number)
    yield from wait_for(seat.facts.policy.timeout_start, now)


def become_ready(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    assert isinstance(event, Ready)
    life, policy = seat.current, seat.facts.policy
    life.ready_at, life.can_drain = now, event.can_drain
    seat.facts.ever_ready = True
    yield WorkerReady(seat.slot, life.number, life.pid or 0, now - life.born_at)
    if policy.max_worker_lifetime is None:
        yield Disarm()
    else:
        yield Arm(now + policy.max_worker_lifetime + seat.facts.rng.uniform(0, policy.max_worker_lifetime_jitter))


def ask_for_successor(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    life = seat.current
    measured = event.measured if isinstance(event, MemoryHigh) else None
    match event:
        case SuccessionRequested(request=request):
            pass
        case MemoryHigh():
            request = Request.MEMORY_HIGH
        case _:
            request = Request.LIFETIME
    if life.blame.request is None:
        life.blame.is_ours(request)
        yield WorkerSucceeds(seat.slot, life.number, life.pid or 0, request, measured)
        yield ReplaceSoon(request)


def drain(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    assert isinstance(event, StopRequested)
    seat.current.blame.is_ours(event.request)
    seat.current.blame.signalled = True
    seat.grace = event.grace
    seat.until = now + event.patience
    yield Drain(seat.current.number)
    yield from wait_for(event.patience, now)


def hurry(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    """Asked again, by somebody with less patience: the sooner end of the drain counts."""
    assert isinstance(event, StopRequested)
    if isfinite(event.patience):
        seat.grace = event.grace
        seat.until = min(seat.until, now + event.patience)
        yield Arm(seat.until)


def kill_sooner(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    """Told already, and now asked by somebody with less patience: the sooner SIGKILL counts."""
    assert isinstance(event, StopRequested)
    if now + event.patience + event.grace < seat.until:
        seat.until = now + event.patience + event.grace
        yield Arm(seat.until)


def terminate(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    if isinstance(event, StopRequested):
        seat.current.blame.is_ours(event.request)
        seat.grace = event.grace + (event.patience if isfinite(event.patience) else 0.0)
    seat.current.blame.signalled = True
    seat.until = now + seat.grace
    yield Terminate(seat.current.number)
    yield from wait_for(seat.grace, now)


def blame_start_timeout(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    life = seat.current
    life.blame.is_for(Result.TIMEOUT)
    seat.grace = seat.facts.policy.timeout_stop
    yield WorkerStartTimedOut(seat.slot, life.number, life.pid or 0, seat.facts.policy.timeout_start)


def blame_hang(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    assert isinstance(event, Hung)
    life = seat.current
    life.blame.is_for(Result.WATCHDOG)
    seat.grace = seat.facts.policy.timeout_stop
    yield WorkerHung(seat.slot, life.number, life.pid or 0, event.reason)


def blame_stop_timeout(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    seat.current.blame.is_for(Result.TIMEOUT)
    yield from ()


def blame_memory(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    assert isinstance(event, MemoryExceeded)
    seat.current.blame.is_for(Result.MEMORY_MAX)
    seat.current.measured = event.measured
    yield from ()


def tell_kill(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    yield WorkerKilled(seat.slot, seat.current.number, seat.current.pid or 0)


def kill(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    seat.current.blame.signalled = True
    yield Kill(seat.current.number)
    yield from wait_for(KILL_AGAIN_AFTER, now)


def wait_for(seconds: float, now: float) -> Iterator[SeatCommand]:
    yield Arm(now + seconds) if seconds < inf else Disarm()


def cancel(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    yield Cancel(seat.current.number)
    yield Disarm()
    seat.life = None


def fail_to_spawn(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    assert isinstance(event, SpawnFailed)
    seat.facts.counters.spawn_failures += 1
    yield WorkerSpawnFailed(seat.slot, seat.current.number, event.reason, seat.restart_in)
    yield Disarm()
    seat.life = None


def give_up_waiting(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    """No process came in time: as if the spawn had failed, which takes its own way through the table."""
    life = seat.current
    yield Cancel(life.number)
    yield from seat.handle(SpawnFailed(life.number, 'no process came of it in time'), now)


def bury(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    assert isinstance(event, Exited)
    life = seat.current
    seat.last_result = result_of(event.ending, life.blame)
    seat.facts.counters.life_has_ended(event.ending, seat.last_result, life.blame.request)
    yield WorkerExited(
        slot=seat.slot,
        life=life.number,
        pid=life.pid or 0,
        result=seat.last_result,
        outcome=outcome_of(event.ending, life.blame),
        request=life.blame.request,
        ending=event.ending,
        uptime=now - life.born_at,
        measured=life.measured,
        restart_in=seat.restart_in,
        was_ready=life.ready_at is not None,
    )
    yield Disarm()
    yield EndStragglers(life.number)
    seat.life = None


def count_restart(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    seat.count_restart()
    yield from ()


def wait_out_delay(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    assert seat.restart_in is not None
    yield Arm(now + seat.restart_in)


def stop_pool(status: int) -> Act:
    def act(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
        seat.wanted = False
        yield StopPool(status)

    act.__name__ = f'stop_pool_with_status_{status}'
    return act


def tell_budget_spent(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
    yield BudgetSpent(seat.slot)


@dataclass(frozen=True, slots=True)
class Row:
    """When `when` holds: do all of `do`, then be in `to` (None: stay). The first row that holds is taken; if none
    does, nothing happens."""

    when: Guard
    do: tuple[Act, ...]
    to: State | None


def _after(bury_it: Act) -> tuple[Row, ...]:
    return (
        Row(leads_to(Next.REST), (bury_it,), State.DEAD),
        Row(leads_to(Next.STOP_POOL), (bury_it, stop_pool(STOPPED)), State.DEAD),
        Row(leads_to(Next.GIVE_UP), (bury_it, stop_pool(CANT_LOAD)), State.FAILED),
        Row(leads_to(Next.BUDGET), (bury_it, tell_budget_spent, stop_pool(BUDGET_SPENT)), State.FAILED),
        Row(leads_to(Next.AT_ONCE), (bury_it, count_restart, spawn), State.START),
        Row(leads_to(Next.LATER), (bury_it, wait_out_delay), State.AUTO_RESTART),
    )


AFTER_EXIT: Final = _after(bury)
AFTER_FAILED_SPAWN: Final = _after(fail_to_spawn)
IGNORED: Final[tuple[Row, ...]] = ()
S: TypeAlias = State

TABLE: Final[dict[tuple[State, type[SeatEvent]], tuple[Row, ...]]] = {
    # DEAD: nothing runs, nothing is due.
    (S.DEAD, StartRequested): (Row(always, (want, spawn), S.START),),
    (S.DEAD, StopRequested): IGNORED,
    (S.DEAD, KillRequested): IGNORED,
    # START: spawned, not ready yet.
    (S.START, StartRequested): IGNORED,
    (S.START, Spawned): (Row(always, (open_gate,), None),),
    (S.START, SpawnFailed): AFTER_FAILED_SPAWN,
    (S.START, Ready): (Row(always, (become_ready,), S.RUNNING),),
    (S.START, Exited): AFTER_EXIT,
    (S.START, MemoryExceeded): (Row(always, (blame_memory, kill), S.STOP_SIGKILL),),
    (S.START, MemoryHigh): IGNORED,
    (S.START, Hung): IGNORED,
    (S.START, TimerElapsed): (
        Row(born, (blame_start_timeout, terminate), S.STOP_SIGTERM),
        Row(always, (give_up_waiting,), None),
    ),
    (S.START, StopRequested): (
        Row(born, (let_go, terminate), S.STOP_SIGTERM),
        Row(always, (let_go, cancel), S.DEAD),
    ),
    (S.START, KillRequested): (
        Row(born, (let_go, tell_kill, kill), S.STOP_SIGKILL),
        Row(always, (let_go, cancel), S.DEAD),
    ),
    # RUNNING: ready; the timer, if any, is its lifetime.
    (S.RUNNING, StartRequested): IGNORED,
    (S.RUNNING, Ready): IGNORED,
    (S.RUNNING, Exited): AFTER_EXIT,
    (S.RUNNING, MemoryExceeded): (Row(always, (blame_memory, kill), S.STOP_SIGKILL),),
    (S.RUNNING, MemoryHigh): (Row(always, (ask_for_successor,), None),),
    (S.RUNNING, SuccessionRequested): (Row(always, (ask_for_successor,), None),),
    (S.RUNNING, Hung): (Row(always, (blame_hang, terminate), S.STOP_SIGTERM),),
    (S.RUNNING, TimerElapsed): (Row(always, (ask_for_successor,), None),),
    (S.RUNNING, StopRequested): (
        Row(can_drain, (let_go, drain), S.DRAIN),
        Row(always, (let_go, terminate), S.STOP_SIGTERM),
    ),
    (S.RUNNING, KillRequested): (Row(always, (let_go, tell_kill, kill), S.STOP_SIGKILL),),
    # DRAIN: asked to leave at its next task boundary.
    (S.DRAIN, StartRequested): IGNORED,
    (S.DRAIN, Ready): IGNORED,
    (S.DRAIN, Exited): AFTER_EXIT,
    (S.DRAIN, MemoryExceeded): (Row(always, (blame_memory, kill), S.STOP_SIGKILL),),
    (S.DRAIN, MemoryHigh): IGNORED,
    (S.DRAIN, Hung): (Row(always, (blame_hang, terminate), S.STOP_SIGTERM),),
    (S.DRAIN, TimerElapsed): (Row(always, (terminate,), S.STOP_SIGTERM),),
    (S.DRAIN, StopRequested): (Row(always, (let_go, hurry), None),),
    (S.DRAIN, KillRequested): (Row(always, (tell_kill, kill), S.STOP_SIGKILL),),
    # STOP_SIGTERM: told to go.
    (S.STOP_SIGTERM, StartRequested): IGNORED,
    (S.STOP_SIGTERM, Ready): IGNORED,
    (S.STOP_SIGTERM, Exited): AFTER_EXIT,
    (S.STOP_SIGTERM, MemoryExceeded): (Row(always, (blame_memory, kill), S.STOP_SIGKILL),),
    (S.STOP_SIGTERM, MemoryHigh): IGNORED,
    (S.STOP_SIGTERM, Hung): IGNORED,
    (S.STOP_SIGTERM, TimerElapsed): (Row(always, (blame_stop_timeout, tell_kill, kill), S.STOP_SIGKILL),),
    (S.STOP_SIGTERM, StopRequested): (Row(always, (let_go, kill_sooner), None),),
    (S.STOP_SIGTERM, KillRequested): (Row(always, (let_go, tell_kill, kill), S.STOP_SIGKILL),),
    # STOP_SIGKILL: killed, waiting for the kernel.
    (S.STOP_SIGKILL, StartRequested): IGNORED,
    (S.STOP_SIGKILL, Ready): IGNORED,
    (S.STOP_SIGKILL, Exited): AFTER_EXIT,
    (S.STOP_SIGKILL, MemoryExceeded): IGNORED,
    (S.STOP_SIGKILL, MemoryHigh): IGNORED,
    (S.STOP_SIGKILL, Hung): IGNORED,
    (S.STOP_SIGKILL, TimerElapsed): (Row(always, (kill,), None),),
    (S.STOP_SIGKILL, StopRequested): (Row(always, (let_go,), None),),
    (S.STOP_SIGKILL, KillRequested): (Row(always, (let_go,), None),),
    # AUTO_RESTART: waits for its backoff.
    (S.AUTO_RESTART, StartRequested): (Row(always, (count_restart, spawn), S.START),),
    (S.AUTO_RESTART, TimerElapsed): (Row(always, (count_restart, spawn), S.START),),
    (S.AUTO_RESTART, StopRequested): (Row(always, (let_go, forget_timer), S.DEAD),),
    (S.AUTO_RESTART, KillRequested): (Row(always, (let_go, forget_timer), S.DEAD),),
    # FAILED: given up; the pool is stopping.
    (S.FAILED, StartRequested): IGNORED,
    (S.FAILED, StopRequested): IGNORED,
    (S.FAILED, KillRequested): IGNORED,
}
"""Every pair that can occur. The missing ones can't: a seat without a life gets no event of a life (the pool drops
late ones), and only a seat with an armed timer gets TimerElapsed; the tests walk all states to show it."""
