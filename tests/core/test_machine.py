"""A pool in every order of events: all of them where it is small, any of them where it is larger.

Three ways to look for an order that breaks something. A walk takes one or two slots through everything that can
happen (walk.py). From the states that a walk finds, possible futures are played to their end. And Hypothesis plays
with larger pools and odd policies, to find what a walk's few knobs hide. What must never become false is in world.py
and is checked after every single step.
"""

from collections.abc import Callable, Iterator
from math import inf
from random import Random
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sergeant_linux.core import slot as slots
from sergeant_linux.core.commands import SeatCommand
from sergeant_linux.core.events import Exited, Hung, KillRequested, SeatEvent, SpawnFailed, StartRequested
from sergeant_linux.core.slot import Row, Seat, State
from tests.core.fake_kernel import FINISHED, NO_MODULE, RAISED, WANTS_STOP, WAS_TOLD_TO_STOP, FakeKernel
from tests.core.walk import Walk
from tests.core.world import World, policy

STOP: Final = 10.0
"""timeout_stop of a walk, in seconds."""

ON_A_GRID: Final[dict[str, Any]] = {
    'timeout_start': 5,
    'timeout_stop': STOP,
    'timeout_drain': 20,
    'restart_delay': 5,
    'restart_max_delay': 10,
    'restart_reset': 5,
}
"""Knobs of a walk: few different spans, so that there are few different states."""

FEW: Final = (FINISHED, RAISED)

WALKS: Final[dict[str, Callable[[], tuple[World, Walk]]]] = {
    'one slot, every ending, to the very end': lambda: (
        World(
            policy(concurrent_workers=1, **ON_A_GRID),
            FakeKernel(endings=(FINISHED, RAISED, NO_MODULE, WANTS_STOP, WAS_TOLD_TO_STOP), watches_memory=False),
        ),
        Walk(left=0),
    ),
    'one slot, with stragglers': lambda: (
        World(policy(concurrent_workers=1, **ON_A_GRID), FakeKernel(endings=FEW, watches_memory=False)),
        Walk(left=1, depth=8),
    ),
    'one slot, with successions by memory and lifetime': lambda: (
        World(
            policy(concurrent_workers=1, max_worker_lifetime=15, max_worker_memory_usage=1, **ON_A_GRID),
            FakeKernel(endings=FEW),
        ),
        Walk(left=0, depth=7),
    ),
    'two slots, with a budget': lambda: (
        World(
            policy(concurrent_workers=2, restart_budget='1/10', **ON_A_GRID),
            FakeKernel(endings=FEW, watches_memory=False),
        ),
        Walk(left=0, depth=7),
    ),
    'two slots that come and go, with a lifetime': lambda: (
        World(
            policy(concurrent_workers=2, max_worker_lifetime=5, **{**ON_A_GRID, 'timeout_drain': inf}),
            FakeKernel(endings=(FINISHED,), watches_memory=False),
        ),
        Walk(left=0, depth=7, scales_to=2),
    ),
    'one slot, reloaded twice': lambda: (
        World(
            policy(concurrent_workers=1, **ON_A_GRID),
            FakeKernel(endings=(RAISED,), watches_memory=False),
        ),
        Walk(left=0, depth=9, reloads=2),
    ),
    'one slot that goes before its place is filled, reloaded': lambda: (
        World(
            policy(concurrent_workers=1, max_surge=0, **ON_A_GRID),
            FakeKernel(endings=(RAISED,), watches_memory=False),
        ),
        Walk(left=0, depth=9, reloads=2, restarts=True),
    ),
    'two slots, reloaded, restarted and hanging': lambda: (
        World(
            policy(concurrent_workers=2, max_unavailable=1, **ON_A_GRID),
            FakeKernel(endings=(FINISHED,), watches_memory=False, watches_hangs=True),
        ),
        Walk(left=0, depth=6, reloads=1, restarts=True),
    ),
    'two slots that come and go in reloads, with none beside': lambda: (
        World(
            policy(concurrent_workers=2, max_surge=0, **{**ON_A_GRID, 'timeout_start': inf, 'timeout_drain': inf}),
            FakeKernel(endings=(FINISHED,), watches_memory=False),
        ).up_and_reloading(),
        Walk(left=0, depth=5, reloads=2, scales_to=2),
    ),
    'two slots in one reload': lambda: (
        World(
            policy(concurrent_workers=2, **{**ON_A_GRID, 'timeout_start': inf, 'timeout_drain': inf}),
            FakeKernel(endings=(FINISHED, NO_MODULE), watches_memory=False),
        ).up_and_reloading(),
        Walk(left=0, depth=6, reloads=2),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', WALKS)
def test_whatever_happens_the_future_ends_well(name: str) -> None:
    """Every state that can be reached has one of three futures, in turn: neighbours in the walk differ by one step."""
    world, walk = WALKS[name]()
    if world.pool.next_deadline() is None and not world.kernel.processes:
        world.start()

    for number, again in enumerate(walk.through(world)):
        with walk.trail.told():
            (settles, stops_in_time, is_killed_at_once)[number % 3](again())


def settles(world: World) -> None:
    """If the kernel obeys in the end, every seat reaches DEAD, RUNNING or FAILED without an operator."""
    world.settle()

    if world.pool.stopping:
        assert world.kernel.left_with is not None
    else:
        assert set(world.states()) == {State.RUNNING}


def stops_in_time(world: World) -> None:
    """A stop is over within timeout_stop, whatever it finds, even where nobody heeds anything but SIGKILL."""
    asked_at = world.now

    world.stop()
    world.run_stubborn()
    while world.kernel.left_with is None:
        world.wait_for_timer()
        world.run_stubborn()

    assert world.now - asked_at <= STOP


def is_killed_at_once(world: World) -> None:
    """A kill takes no time but the kernel's."""
    world.kill()
    world.run_stubborn()

    assert world.kernel.left_with is not None


Pair = tuple[State, type[SeatEvent]]

NEVER_TAKEN: Final = frozenset({
    # Every kill is preceded by a stop, which leaves no seat in one of these.
    (State.START, KillRequested, 'born'),
    (State.START, KillRequested, 'always'),
    (State.RUNNING, KillRequested, 'always'),
    (State.AUTO_RESTART, KillRequested, 'always'),
    # Every end has the same six ways on. A process that is not wanted any more has one of them...
    *((State.DRAIN, Exited, f'leads_to_{way}') for way in ('stop_pool', 'give_up', 'budget', 'at_once', 'later')),
    # ... and one that we have sent a signal ends as asked, or by our doing: that is no wish, and no fault of its code.
    *((State.STOP_SIGTERM, Exited, f'leads_to_{way}') for way in ('stop_pool', 'give_up')),
    *((State.STOP_SIGKILL, Exited, f'leads_to_{way}') for way in ('stop_pool', 'give_up')),
    # A spawn that fails says nothing of the code, and it is not tried again at once.
    *((State.START, SpawnFailed, f'leads_to_{way}') for way in ('stop_pool', 'give_up', 'at_once')),
    # Only one that was ready is watched.
    (State.START, Hung, 'ignored'),
    # One that was ready can be loaded.
    (State.RUNNING, Exited, 'leads_to_give_up'),
    # Only seats that are DEAD or wait for their restart are asked to start.
    *(
        (state, StartRequested, 'ignored')
        for state in State
        if state not in (State.DEAD, State.AUTO_RESTART)
    ),
})
"""Rows that are in the table because it is written by rule, and that no order of events leads to."""


@pytest.mark.slow
def test_the_table_has_every_pair_that_can_occur_and_every_row_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair that is missing would be a KeyError on the way; a row that is never taken is one of the known ones."""
    taken: set[tuple[State, type[SeatEvent], str]] = set()
    rows = {(*pair, name): row for pair, row_list in slots.TABLE.items() for name, row in named(row_list)}

    def noted(pair: Pair, name: str, row: Row) -> Row:
        def note(seat: Seat, event: SeatEvent, now: float) -> Iterator[SeatCommand]:
            taken.add((*pair, name))
            return iter(())

        return Row(row.when, (note, *row.do), row.to)

    monkeypatch.setattr(
        slots, 'TABLE', {pair: tuple(noted(pair, *each) for each in named(rows)) for pair, rows in slots.TABLE.items()}
    )

    for depth, knobs in (
        (8, {'concurrent_workers': 1}),
        (7, {'concurrent_workers': 1, 'restart_budget': '0/10', 'max_worker_lifetime': 5}),
        (6, {'concurrent_workers': 2, 'restart_budget': '1/10'}),
    ):
        kernel = FakeKernel(endings=(FINISHED, RAISED, NO_MODULE, WANTS_STOP), watches_hangs=True)
        world, walk = World(policy(**knobs, **ON_A_GRID), kernel), Walk(left=0, depth=depth, restarts=True)
        world.start()
        for _ in walk.through(world):
            pass

    assert rows.keys() - taken == NEVER_TAKEN


def named(rows: tuple[Row, ...]) -> list[tuple[str, Row]]:
    """Return the rows with the names of their guards; a pair without rows ignores its event."""
    return [(row.when.__name__, row) for row in rows] or [('ignored', Row(slots.always, (), None))]


SPANS: Final = st.sampled_from([0.5, 1, 3, 10])
TIMEOUTS: Final = SPANS | st.just(inf)


class AnyPool(RuleBasedStateMachine):
    """A pool of any size and policy in a world where anything can happen at any time."""

    world: World

    @initialize(
        workers=st.integers(1, 5),
        knobs=st.fixed_dictionaries(
            {
                'timeout_start': TIMEOUTS,
                'timeout_stop': TIMEOUTS,
                'timeout_drain': TIMEOUTS,
                'restart_delay': st.sampled_from([0, 0.1, 2]),
                'restart_reset': SPANS,
                'restart_budget': st.sampled_from([None, None, '0/1s', '2/3s']),
                'max_worker_lifetime': st.none() | SPANS,
                'max_worker_lifetime_jitter': st.sampled_from([0, 5]),
                'max_surge': st.sampled_from([1, 1, 0, 2]),
                'max_unavailable': st.sampled_from([0, 1, 2]),
            }
        ),
        seed=st.integers(0, 2**32),
    )
    def begin(self, workers: int, knobs: dict[str, Any], seed: int) -> None:
        self.world = World(policy(concurrent_workers=workers, **knobs), FakeKernel(watches_hangs=True), Random(seed))
        self.world.start()

    @precondition(lambda self: self.world.kernel.processes)
    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from([*self.world.kernel.processes.values()]))
        possible = [*self.world.kernel.possible_of(process)]
        if possible:
            self.world.happen(data.draw(st.sampled_from(possible)))

    @rule()
    def everybody_does_as_they_are_told(self) -> None:
        self.world.run()

    @rule(seconds=st.sampled_from([0.01, 0.5, 1, 5, 60]))
    def time_passes(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule(seconds=st.sampled_from([0, 0.5, 1, 5, 60]))
    def the_machine_is_too_busy_to_look_at_timers(self, seconds: float) -> None:
        self.world.oversleep(seconds)

    @rule(by=st.sampled_from([-2, -1, 1, 2]))
    def it_is_scaled(self, by: int) -> None:
        self.world.scale(by)

    @rule()
    def it_is_restarted(self) -> None:
        self.world.restart()

    @rule()
    def it_is_reloaded(self) -> None:
        self.world.reload()

    @precondition(lambda self: self.world.kernel.loading() is not None)
    @rule(works=st.booleans())
    def the_code_is_loaded(self, works: bool) -> None:
        if works:
            self.world.loads()
        else:
            self.world.cannot_load()

    @precondition(lambda self: self.world.now > 5)
    @rule()
    def it_is_stopped(self) -> None:
        self.world.stop()

    @precondition(lambda self: self.world.now > 60)
    @rule()
    def it_is_killed(self) -> None:
        self.world.kill()

    @invariant()
    def nobody_is_told_of_a_life_that_is_over(self) -> None:
        """A fact that comes late, about a life that is over or never was, changes nothing."""
        if hasattr(self, 'world') and self.world.kernel.left_with is None:
            over = self.world.kernel.newest + 1
            assert self.world.pool.handle(Exited(over, RAISED), self.world.now) == []

    def teardown(self) -> None:
        """If the kernel obeys in the end, every seat reaches a state where it can stay; and a stop ends."""
        if hasattr(self, 'world'):
            settles(self.world)
            self.world.stop()
            self.world.settle()
            assert self.world.kernel.left_with is not None


AnyPool.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,  # a run that fails on somebody else's machine fails on ours
    suppress_health_check=[HealthCheck.too_slow],  # the machine may be busy with other tests
)

TestAnyPool = AnyPool.TestCase
