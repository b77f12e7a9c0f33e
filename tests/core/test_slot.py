"""The transition table, row by row: in this state, when this happens, this is to be done and that is the next state."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

import pytest

from sergeant_linux.core import slot as slots
from sergeant_linux.core.backoff import RestartBudget
from sergeant_linux.core.commands import (
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
from sergeant_linux.core.policy import Policy
from sergeant_linux.core.result import Blame, Ending, Outcome, Request, Result
from sergeant_linux.core.slot import (
    KILL_AGAIN_AFTER,
    SPAWN_AGAIN_AFTER,
    TABLE,
    Life,
    Next,
    PoolFacts,
    Row,
    Seat,
    State,
)
from tests.core.fake_kernel import FINISHED, KILLED, NO_MODULE, RAISED, STOLEN, WANTS_STOP, WAS_TOLD_TO_STOP
from tests.core.world import Middle, policy

NOW: Final = 1000.0
BORN_AT: Final = 900.0
READY_AT: Final = 901.0
SLOT, LIFE, PID, NEXT_LIFE = 3, 17, 4711, 18
OVER: Final = 2**30

HAS_LIFE: Final = frozenset({State.START, State.RUNNING, State.DRAIN, State.STOP_SIGTERM, State.STOP_SIGKILL})

POLICY: Final = policy(
    timeout_start=60,
    timeout_stop=8,
    timeout_drain=30,
    restart_delay=1,
    restart_max_delay=30,
    restart_reset=1,
    max_worker_lifetime=3600,
    max_worker_lifetime_jitter=60,
)

STOP: Final = StopRequested(Request.STOP, patience=4, grace=4)
PATIENT: Final = StopRequested(Request.LIFETIME, patience=inf, grace=8)


def seat(
    state: State,
    *,
    born: bool = True,
    ready: bool | None = None,
    can_drain: bool = False,
    wanted: bool = True,
    blame: Blame | None = None,
    knobs: Policy = POLICY,
    ever_ready: bool = True,
    stopping: bool = False,
    failures: int = 0,
    grace: float = 0.0,
    until: float = inf,
    predecessor: int | None = None,
) -> Seat:
    """Return a seat in this state. Its life, if it has one, was born 100 s ago and, past START, ready 99 s ago."""
    facts = PoolFacts(knobs, Middle(), RestartBudget(knobs.restart_budget), ever_ready, stopping, lives=LIFE)
    life = None
    if state in HAS_LIFE:
        was_ready = state is not State.START if ready is None else ready
        life = Life(
            LIFE,
            pid=PID if born else None,
            born_at=BORN_AT if born else 0.0,
            ready_at=READY_AT if was_ready else None,
            can_drain=can_drain,
            blame=blame if blame is not None else Blame(),
        )
    return Seat(SLOT, facts, state, wanted, life, failures, grace, until, predecessor)


def exited(
    ending: Ending,
    result: Result,
    outcome: Outcome,
    *,
    request: Request | None = None,
    measured: int | None = None,
    restart_in: float | None = None,
    was_ready: bool = True,
) -> WorkerExited:
    uptime = NOW - BORN_AT
    return WorkerExited(SLOT, LIFE, PID, result, outcome, request, ending, uptime, measured, restart_in, was_ready)


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table at work. `row`: the name of its guard."""

    given: Seat
    event: SeatEvent
    row: str
    commands: list[SeatCommand]
    state: State
    then: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f'{self.given.state}, {type(self.event).__name__}: {self.row}'


KILL: Final[list[SeatCommand]] = [Kill(LIFE), Arm(NOW + KILL_AGAIN_AFTER)]
TELL_AND_KILL: Final[list[SeatCommand]] = [WorkerKilled(SLOT, LIFE, PID), *KILL]
START_AGAIN: Final[list[SeatCommand]] = [Spawn(SLOT, NEXT_LIFE), Arm(NOW + 60)]
BURIED: Final[list[SeatCommand]] = [Disarm(), EndStragglers(LIFE)]


def after_exit(state: State) -> Iterator[Case]:
    """The end of a process in any state that has one, and the six ways on."""
    was_ready = state is not State.START
    yield Case(
        seat(state, wanted=False, blame=Blame(Request.SCALE_DOWN, signalled=True)),
        Exited(LIFE, WAS_TOLD_TO_STOP),
        'leads_to_rest',
        [exited(WAS_TOLD_TO_STOP, Result.SUCCESS, Outcome.FINISHED, request=Request.SCALE_DOWN, was_ready=was_ready), *BURIED],
        State.DEAD,
        {'last_result': Result.SUCCESS, 'restarts': 0},
    )
    yield Case(
        seat(state),
        Exited(LIFE, WANTS_STOP),
        'leads_to_stop_pool',
        [exited(WANTS_STOP, Result.SUCCESS, Outcome.WANTS_POOL_STOP, was_ready=was_ready), *BURIED, StopPool(0)],
        State.DEAD,
        {'wanted': False},
    )
    yield Case(
        seat(state, ready=False, ever_ready=False),
        Exited(LIFE, NO_MODULE),
        'leads_to_give_up',
        [exited(NO_MODULE, Result.EXIT_CODE, Outcome.UNLOADABLE, was_ready=False), *BURIED, StopPool(1)],
        State.FAILED,
        {'wanted': False, 'last_result': Result.EXIT_CODE},
    )
    yield Case(
        seat(state, knobs=policy(restart_budget='0/1min')),
        Exited(LIFE, RAISED),
        'leads_to_budget',
        [exited(RAISED, Result.EXIT_CODE, Outcome.FAILED, was_ready=was_ready), *BURIED, BudgetSpent(SLOT), StopPool(3)],
        State.FAILED,
        {'wanted': False},
    )
    yield Case(
        seat(state, failures=3),
        Exited(LIFE, FINISHED),
        'leads_to_at_once',
        [exited(FINISHED, Result.SUCCESS, Outcome.FINISHED, restart_in=0.0, was_ready=was_ready), *BURIED, *START_AGAIN],
        State.START,
        {'restarts': 1, 'failures': 0},
    )
    yield Case(
        seat(state, ready=False, failures=2),
        Exited(LIFE, STOLEN),
        'leads_to_later',
        [exited(STOLEN, Result.UNKNOWN, Outcome.FAILED, restart_in=4.0, was_ready=False), *BURIED, Arm(NOW + 4)],
        State.AUTO_RESTART,
        {'failures': 3, 'restarts': 0},
    )


def killed_for_memory(state: State, **given: Any) -> Case:
    return Case(
        seat(state, **given),
        MemoryExceeded(LIFE, OVER),
        'always',
        KILL,
        State.STOP_SIGKILL,
    )


CASES: Final = [
    # DEAD
    Case(seat(State.DEAD, wanted=False), StartRequested(), 'always', START_AGAIN, State.START, {'wanted': True}),
    # START
    Case(
        seat(State.START, born=False),
        Spawned(LIFE, PID),
        'always',
        [WorkerSpawned(SLOT, LIFE, PID, None), Go(SLOT, LIFE), Arm(NOW + 60)],
        State.START,
        {'predecessor': PID},
    ),
    Case(
        seat(State.START, born=False, wanted=False),
        SpawnFailed(LIFE, 'no room'),
        'leads_to_rest',
        [WorkerSpawnFailed(SLOT, LIFE, 'no room', None), Disarm()],
        State.DEAD,
    ),
    Case(
        seat(State.START, born=False, failures=1),
        SpawnFailed(LIFE, 'no room'),
        'leads_to_later',
        [WorkerSpawnFailed(SLOT, LIFE, 'no room', 2.0), Disarm(), Arm(NOW + 2)],
        State.AUTO_RESTART,
        {'failures': 2},
    ),
    Case(
        seat(State.START, born=False, knobs=policy(restart_budget='0/1min')),
        SpawnFailed(LIFE, 'no room'),
        'leads_to_budget',
        [WorkerSpawnFailed(SLOT, LIFE, 'no room', None), Disarm(), BudgetSpent(SLOT), StopPool(3)],
        State.FAILED,
    ),
    Case(
        seat(State.START, ever_ready=False),
        Ready(LIFE, can_drain=True),
        'always',
        [WorkerReady(SLOT, LIFE, PID, NOW - BORN_AT), Arm(NOW + 3600 + 30)],
        State.RUNNING,
    ),
    *after_exit(State.START),
    killed_for_memory(State.START),
    Case(
        seat(State.START),
        TimerElapsed(),
        'born',
        [WorkerStartTimedOut(SLOT, LIFE, PID, 60), Terminate(LIFE), Arm(NOW + 8)],
        State.STOP_SIGTERM,
        {'wanted': True},
    ),
    Case(
        seat(State.START, born=False),
        TimerElapsed(),
        'always',
        [
            Cancel(LIFE),
            WorkerSpawnFailed(SLOT, LIFE, 'no process came of it in time', 1.0),
            Disarm(),
            Arm(NOW + 1),
        ],
        State.AUTO_RESTART,
    ),
    Case(seat(State.START), STOP, 'born', [Terminate(LIFE), Arm(NOW + 8)], State.STOP_SIGTERM, {'wanted': False}),
    Case(seat(State.START, born=False), STOP, 'always', [Cancel(LIFE), Disarm()], State.DEAD, {'wanted': False}),
    Case(seat(State.START), KillRequested(), 'born', TELL_AND_KILL, State.STOP_SIGKILL, {'wanted': False}),
    Case(
        seat(State.START, born=False),
        KillRequested(),
        'always',
        [Cancel(LIFE), Disarm()],
        State.DEAD,
        {'wanted': False},
    ),
    # RUNNING
    *after_exit(State.RUNNING),
    killed_for_memory(State.RUNNING),
    Case(
        seat(State.RUNNING),
        MemoryHigh(LIFE, OVER),
        'always',
        [WorkerSucceeds(SLOT, LIFE, PID, Request.MEMORY_HIGH, OVER), ReplaceSoon(Request.MEMORY_HIGH)],
        State.RUNNING,
        {'wanted': True},
    ),
    Case(
        seat(State.RUNNING),
        TimerElapsed(),
        'always',
        [WorkerSucceeds(SLOT, LIFE, PID, Request.LIFETIME, None), ReplaceSoon(Request.LIFETIME)],
        State.RUNNING,
        {'wanted': True},
    ),
    Case(
        seat(State.RUNNING, can_drain=True),
        STOP,
        'can_drain',
        [Drain(LIFE), Arm(NOW + 4)],
        State.DRAIN,
        {'wanted': False, 'grace': 4, 'until': NOW + 4},
    ),
    Case(seat(State.RUNNING), STOP, 'always', [Terminate(LIFE), Arm(NOW + 8)], State.STOP_SIGTERM, {'wanted': False}),
    Case(seat(State.RUNNING), KillRequested(), 'always', TELL_AND_KILL, State.STOP_SIGKILL, {'wanted': False}),
    Case(
        seat(State.RUNNING),
        SuccessionRequested(Request.RESTART),
        'always',
        [WorkerSucceeds(SLOT, LIFE, PID, Request.RESTART, None), ReplaceSoon(Request.RESTART)],
        State.RUNNING,
        {'wanted': True},
    ),
    Case(
        seat(State.RUNNING),
        Hung(LIFE, 'one task for 60s'),
        'always',
        [WorkerHung(SLOT, LIFE, PID, 'one task for 60s'), Terminate(LIFE), Arm(NOW + 8)],
        State.STOP_SIGTERM,
        {'wanted': True, 'until': NOW + 8},
    ),
    # DRAIN
    *after_exit(State.DRAIN),
    killed_for_memory(State.DRAIN, wanted=False),
    Case(
        seat(State.DRAIN, wanted=False, grace=4),
        Hung(LIFE, 'one task for 60s'),
        'always',
        [WorkerHung(SLOT, LIFE, PID, 'one task for 60s'), Terminate(LIFE), Arm(NOW + 8)],
        State.STOP_SIGTERM,
        {'until': NOW + 8},
    ),
    Case(
        seat(State.DRAIN, wanted=False, grace=8),
        TimerElapsed(),
        'always',
        [Terminate(LIFE), Arm(NOW + 8)],
        State.STOP_SIGTERM,
        {'until': NOW + 8},
    ),
    Case(
        seat(State.DRAIN, wanted=False, grace=8, until=NOW + 20),
        STOP,
        'always',
        [Arm(NOW + 4)],
        State.DRAIN,
        {'grace': 4, 'until': NOW + 4},
    ),
    Case(seat(State.DRAIN, wanted=False), KillRequested(), 'always', TELL_AND_KILL, State.STOP_SIGKILL),
    # STOP_SIGTERM
    *after_exit(State.STOP_SIGTERM),
    killed_for_memory(State.STOP_SIGTERM),
    Case(
        seat(State.STOP_SIGTERM),
        TimerElapsed(),
        'always',
        TELL_AND_KILL,
        State.STOP_SIGKILL,
    ),
    Case(
        seat(State.STOP_SIGTERM, until=NOW + 38),
        STOP,
        'always',
        [Arm(NOW + 8)],
        State.STOP_SIGTERM,
        {'wanted': False, 'until': NOW + 8},
    ),
    Case(
        seat(State.STOP_SIGTERM),
        KillRequested(),
        'always',
        TELL_AND_KILL,
        State.STOP_SIGKILL,
        {'wanted': False},
    ),
    # STOP_SIGKILL
    *after_exit(State.STOP_SIGKILL),
    Case(seat(State.STOP_SIGKILL), TimerElapsed(), 'always', KILL, State.STOP_SIGKILL, {'wanted': True}),
    Case(seat(State.STOP_SIGKILL), STOP, 'always', [], State.STOP_SIGKILL, {'wanted': False}),
    Case(seat(State.STOP_SIGKILL), KillRequested(), 'always', [], State.STOP_SIGKILL, {'wanted': False}),
    # AUTO_RESTART
    Case(seat(State.AUTO_RESTART), TimerElapsed(), 'always', START_AGAIN, State.START, {'restarts': 1}),
    Case(seat(State.AUTO_RESTART), StartRequested(), 'always', START_AGAIN, State.START, {'restarts': 1}),
    Case(seat(State.AUTO_RESTART), STOP, 'always', [Disarm()], State.DEAD, {'wanted': False}),
    Case(seat(State.AUTO_RESTART), KillRequested(), 'always', [Disarm()], State.DEAD, {'wanted': False}),
]

WITHOUT_A_CASE: Final = frozenset({
    (State.START, SpawnFailed, 'leads_to_stop_pool'),
    (State.START, SpawnFailed, 'leads_to_give_up'),
    (State.START, SpawnFailed, 'leads_to_at_once'),
})
"""No process came of it: it had no wish, its code was not loaded, and it is never tried again at once."""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[State, type[SeatEvent], str]]:
    """The rows that are taken from now on, by the names of their guards."""
    taken: list[tuple[State, type[SeatEvent], str]] = []

    def noted(pair: tuple[State, type[SeatEvent]], row: Row) -> Row:
        def note(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
            taken.append((*pair, row.when.__name__))
            return iter(())

        return Row(row.when, (note, *row.do), row.to)

    monkeypatch.setattr(slots, 'TABLE', {pair: tuple(noted(pair, row) for row in rows) for pair, rows in TABLE.items()})
    return taken


@pytest.mark.parametrize('case', CASES, ids=str)
def test_a_row_gives_these_commands_and_leads_to_that_state(
    case: Case, taken: list[tuple[State, type[SeatEvent], str]]
) -> None:
    given, state = deepcopy(case.given), case.given.state

    commands = given.handle(case.event, NOW)

    assert (commands, given.state) == (case.commands, case.state)
    assert (state, type(case.event), case.row) in taken
    assert {name: getattr(given, name) for name in case.then} == case.then
    assert (given.life is not None) == (given.state in HAS_LIFE)


def test_every_row_of_the_table_has_a_case() -> None:
    rows = {(*pair, row.when.__name__) for pair, rows in TABLE.items() for row in rows}
    shown = {(case.given.state, type(case.event), case.row) for case in CASES}

    assert rows - shown == WITHOUT_A_CASE
    assert shown <= rows


EVENTS: Final[dict[type[SeatEvent], SeatEvent]] = {
    Ready: Ready(LIFE, can_drain=True),
    MemoryExceeded: MemoryExceeded(LIFE, OVER),
    MemoryHigh: MemoryHigh(LIFE, OVER),
    Hung: Hung(LIFE, 'one task for 60s'),
    StartRequested: StartRequested(),
    StopRequested: STOP,
    KillRequested: KillRequested(),
}


@pytest.mark.parametrize(
    ('state', 'event'),
    [pytest.param(*pair, id=f'{pair[0]}, {pair[1].__name__}') for pair, rows in TABLE.items() if not rows],
)
def test_what_is_ignored_changes_nothing(state: State, event: type[SeatEvent]) -> None:
    given = seat(state, wanted=state is not State.DRAIN)
    before = deepcopy(given)

    commands = given.handle(EVENTS[event], NOW)

    assert commands == []
    assert described(given) == described(before)


def described(seat: Seat) -> tuple[object, ...]:
    names = ('slot', 'state', 'wanted', 'life', 'failures', 'grace', 'until', 'predecessor', 'last_result', 'restarts')
    return tuple(getattr(seat, name) for name in names)


# What the rows don't say by themselves.


def test_a_worker_says_whose_place_it_takes() -> None:
    given = seat(State.START, born=False, predecessor=4000)

    told = given.handle(Spawned(LIFE, PID), NOW)[0]

    assert told == WorkerSpawned(SLOT, LIFE, PID, predecessor=4000)


def test_without_a_lifetime_a_worker_that_is_ready_waits_for_nothing() -> None:
    given = seat(State.START, knobs=policy())

    assert given.handle(Ready(LIFE, can_drain=False), NOW)[1:] == [Disarm()]


def test_a_worker_is_asked_for_a_successor_once_whatever_the_reasons() -> None:
    given = seat(State.RUNNING)

    first, second = given.handle(MemoryHigh(LIFE, OVER), NOW), given.handle(TimerElapsed(), NOW)

    assert (len(first), second) == (2, [])


def test_a_failed_life_that_had_been_ready_long_enough_is_replaced_at_once() -> None:
    given = seat(State.RUNNING, failures=7)
    given.current.ready_at = NOW - 1

    commands = given.handle(Exited(LIFE, RAISED), NOW)

    assert commands[0] == exited(RAISED, Result.EXIT_CODE, Outcome.FAILED, restart_in=0.0)
    assert (given.state, given.failures) == (State.START, 0)


def test_a_failed_life_that_had_been_ready_a_moment_too_short_waits() -> None:
    given = seat(State.RUNNING, failures=1)
    given.current.ready_at = NOW - 0.999

    given.handle(Exited(LIFE, RAISED), NOW)

    assert (given.state, given.failures, given.restart_in) == (State.AUTO_RESTART, 2, 2.0)


def test_without_a_delay_a_failed_life_is_replaced_at_once_but_a_failed_spawn_is_not() -> None:
    knobs = policy(restart_delay=0)
    failed_life, failed_spawn = seat(State.START, knobs=knobs), seat(State.START, born=False, knobs=knobs)

    failed_life.handle(Exited(LIFE, RAISED), NOW)
    failed_spawn.handle(SpawnFailed(LIFE, 'no descriptors'), NOW)

    assert failed_life.state is State.START
    assert (failed_spawn.state, failed_spawn.restart_in) == (State.AUTO_RESTART, SPAWN_AGAIN_AFTER)


def test_a_worker_that_cannot_be_loaded_any_more_is_a_failure_like_others() -> None:
    given = seat(State.START, ever_ready=True)

    given.handle(Exited(LIFE, NO_MODULE), NOW)

    assert given.state is State.AUTO_RESTART


def test_a_spawn_that_never_came_and_is_out_of_budget_is_cancelled_and_given_up() -> None:
    given = seat(State.START, born=False, knobs=policy(restart_budget='0/1s'))

    commands = given.handle(TimerElapsed(), NOW)

    assert commands[0] == Cancel(LIFE)
    assert commands[-1] == StopPool(3)
    assert given.state is State.FAILED


def test_a_worker_over_its_limit_ended_by_that_whatever_its_status_says() -> None:
    given = seat(State.RUNNING)
    given.handle(MemoryExceeded(LIFE, OVER), NOW)

    told = given.handle(Exited(LIFE, KILLED), NOW)[0]

    assert isinstance(told, WorkerExited)
    assert (told.result, told.measured, told.restart_in) == (Result.MEMORY_MAX, OVER, 0.0)


def test_a_worker_that_does_not_stop_in_time_ended_by_its_timeout() -> None:
    given = seat(State.RUNNING, can_drain=True)
    given.handle(STOP, NOW)
    drain_over, stop_over = given.handle(TimerElapsed(), NOW), given.handle(TimerElapsed(), NOW)

    told = given.handle(Exited(LIFE, KILLED), NOW)[0]

    assert Terminate(LIFE) in drain_over
    assert Kill(LIFE) in stop_over
    assert isinstance(told, WorkerExited)
    assert (told.result, told.request) == (Result.TIMEOUT, Request.STOP)


def test_a_drain_that_may_last_for_ever_waits_for_nothing() -> None:
    given = seat(State.RUNNING, can_drain=True)

    assert given.handle(PATIENT, NOW) == [Drain(LIFE), Disarm()]
    assert given.handle(PATIENT, NOW) == []


def test_who_asks_a_draining_worker_with_more_patience_changes_nothing() -> None:
    given = seat(State.DRAIN, wanted=False, grace=8, until=NOW + 1)

    assert given.handle(STOP, NOW) == [Arm(NOW + 1)]


@pytest.mark.parametrize(
    'event', [PATIENT, StopRequested(Request.SCALE_DOWN, patience=30, grace=8)], ids=['endless', 'later']
)
def test_who_asks_a_terminated_worker_with_more_patience_changes_nothing(event: StopRequested) -> None:
    given = seat(State.STOP_SIGTERM, until=NOW + 8)

    assert given.handle(event, NOW) == []
    assert (given.wanted, given.until) == (False, NOW + 8)


def test_where_a_timeout_is_infinite_no_timer_is_set() -> None:
    knobs = policy(timeout_start=inf, timeout_stop=inf)

    started = seat(State.DEAD, knobs=knobs).handle(StartRequested(), NOW)
    born = seat(State.START, born=False, knobs=knobs).handle(Spawned(LIFE, PID), NOW)
    stopped = seat(State.RUNNING, knobs=knobs).handle(StopRequested(Request.STOP, inf, inf), NOW)

    assert started == [Spawn(SLOT, NEXT_LIFE), Disarm()]
    assert born[-1] == Disarm()
    assert stopped == [Terminate(LIFE), Disarm()]


@pytest.mark.parametrize('way', Next)
def test_every_way_on_has_its_row_after_every_end(way: Next) -> None:
    guard = f'leads_to_{way.name.lower()}'

    for (_, event), rows in TABLE.items():
        if event in (Exited, SpawnFailed):
            assert [row.when.__name__ for row in rows].count(guard) == 1
