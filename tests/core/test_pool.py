"""What a pool decides, story by story. The world checks every invariant after every step of every story."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from random import Random
from types import FrameType
from typing import Any

import pytest

from sergeant_linux.core.afterlife import SWEEP_AGAIN_AFTER
from sergeant_linux.core.commands import (
    BudgetSpent,
    Cancel,
    Command,
    Drain,
    EndStragglers,
    Go,
    Kill,
    Leave,
    Scaled,
    Spawn,
    StragglersRemain,
    Terminate,
    WorkerExited,
    WorkerSpawned,
    WorkerSucceeds,
)
from sergeant_linux.core.events import (
    Exited,
    LifeEvent,
    MemoryExceeded,
    MemoryHigh,
    Ready,
    Spawned,
    SpawnFailed,
    Unpopulated,
)
from sergeant_linux.core.result import Outcome, Request, Result
from tests.core.fake_kernel import (
    FINISHED,
    KILLED,
    NO_MODULE,
    OVER,
    RAISED,
    STOLEN,
    WANTS_STOP,
    WAS_TOLD_TO_STOP,
    FakeKernel,
    pid_of,
)
from tests.core.world import World, only, orders, policy


def world(workers: int = 2, **knobs: Any) -> World:
    return World(policy(concurrent_workers=workers, **knobs))


def lives(commands: list[Command], kind: type[Any]) -> list[int]:
    """Return the lives that commands of one kind are for."""
    return [command.life for command in only(commands, kind)]


def exit_of(commands: list[Command]) -> WorkerExited:
    """Return the one record of an end."""
    (record,) = only(commands, WorkerExited)
    return record


# The start.


def test_the_first_worker_is_a_canary_and_the_others_start_when_it_is_ready() -> None:
    pool = world(4)

    assert orders(pool.start()) == [Spawn(0, 1)]
    assert orders(pool.happen(Spawned(1, pid=100))) == [Go(0, 1)]
    assert orders(pool.happen(Ready(1, can_drain=True))) == [Spawn(1, 2), Spawn(2, 3), Spawn(3, 4)]


def test_a_module_that_cannot_be_loaded_costs_one_process_and_stops_the_pool_with_status_1() -> None:
    pool = world(4)
    pool.start()
    pool.happen(Spawned(1, pid=100))

    ended = pool.happen(Exited(1, NO_MODULE))
    left = pool.happen(Unpopulated(1))

    assert only(ended, Spawn) == []
    assert left == [Leave(1)]


def test_a_canary_that_fails_for_another_reason_is_tried_again_alone() -> None:
    pool = world(4, restart_delay=1)
    pool.start()
    pool.happen(Spawned(1, pid=100))
    pool.happen(Exited(1, RAISED))

    assert orders(pool.wait(0.999)) == []
    assert orders(pool.wait(0.001)) == [Spawn(0, 2)]


def test_code_that_breaks_under_a_running_pool_is_a_failed_start_and_the_others_live_on() -> None:
    pool = world(2, restart_delay=1).up()
    pool.happen(Exited(2, FINISHED))
    pool.happen(Spawned(3, pid=100))

    ended = pool.happen(Exited(3, NO_MODULE))

    assert exit_of(ended).restart_in == 1.0
    assert pool.states() == ['running', 'auto-restart']


def test_a_worker_that_is_not_ready_in_time_is_told_to_go_and_started_again() -> None:
    pool = world(1, timeout_start=60, timeout_stop=8, restart_delay=1)
    pool.start()
    pool.wait(1)
    pool.happen(Spawned(1, pid=100))

    told = pool.wait(60)
    killed = pool.wait(8)
    ended = pool.happen(Exited(1, KILLED))

    assert (orders(told), orders(killed)) == ([Terminate(1)], [Kill(1)])
    assert (exit_of(ended).result, exit_of(ended).restart_in) == (Result.TIMEOUT, 1.0)
    assert pool.states() == ['auto-restart']


def test_a_spawn_of_which_nothing_comes_is_cancelled_and_made_again() -> None:
    pool = world(1, timeout_start=60, restart_delay=1)
    pool.start()

    assert orders(pool.wait(60)) == [Cancel(1)]
    assert orders(pool.wait(1)) == [Spawn(0, 2)]


# The end of a life.


@pytest.mark.parametrize('ending', [FINISHED, WAS_TOLD_TO_STOP], ids=['finished', 'stopped by a stranger'])
def test_a_worker_that_has_not_failed_is_replaced_at_once_even_when_it_never_became_ready(ending: Any) -> None:
    pool = world(1, restart_delay=5)
    pool.start()
    pool.happen(Spawned(1, pid=100))

    ended = pool.happen(Exited(1, ending))

    assert orders(ended) == [EndStragglers(1), Spawn(0, 2)]
    assert exit_of(ended).restart_in == 0.0


def test_a_worker_that_wants_to_stop_stops_the_pool_with_status_0() -> None:
    pool = world(2).up()

    ended = pool.happen(Exited(2, WANTS_STOP))
    pool.run()

    assert exit_of(ended).outcome is Outcome.WANTS_POOL_STOP
    assert lives(ended, Drain) == [1]
    assert pool.kernel.left_with == 0


def test_a_worker_that_obeys_our_signal_with_code_5_does_not_stop_the_pool() -> None:
    pool = world(2).up()
    pool.scale(-1)

    ended = pool.happen(Exited(2, WANTS_STOP))

    assert exit_of(ended).outcome is Outcome.FINISHED
    assert pool.states() == ['running']
    assert not pool.pool.stopping


def test_a_worker_that_a_stranger_stops_is_replaced_and_the_pool_lives_on() -> None:
    pool = world(2).up()

    ended = pool.happen(Exited(2, WAS_TOLD_TO_STOP))

    assert exit_of(ended).outcome is Outcome.STOPPED_BY_STRANGER
    assert lives(ended, Spawn) == [3]


def test_an_exit_that_somebody_else_has_reaped_is_unknown_and_counts_as_a_failure() -> None:
    pool = world(2, restart_delay=1, restart_reset=10).up()

    ended = exit_of(pool.happen(Exited(2, STOLEN)))

    assert (ended.result, ended.restart_in) == (Result.UNKNOWN, 1.0)


def test_the_kth_failure_in_a_row_waits_twice_as_long_until_a_life_stands() -> None:
    pool = world(1, restart_delay=1, restart_max_delay=5, restart_reset=10).up()
    waits = []

    for stands in (0, 0, 0, 0, 10, 9):
        life = pool.kernel.newest
        pool.wait(stands)
        wait = exit_of(pool.happen(Exited(life, RAISED))).restart_in
        assert wait is not None
        waits.append(wait)
        pool.wait(wait)
        pool.run()

    assert waits == [1, 2, 4, 5, 0, 1]


def test_the_restart_beyond_the_budget_is_not_made_and_the_pool_stops_with_status_3() -> None:
    pool = world(2, restart_budget='2/1min', restart_delay=0).up()
    pool.happen(Exited(1, RAISED))
    pool.happen(Exited(2, RAISED))
    pool.run()

    ended = pool.happen(Exited(3, RAISED))
    pool.run()

    assert only(ended, BudgetSpent) == [BudgetSpent(0)]
    assert exit_of(ended).restart_in is None
    assert lives(ended, Drain) == [4]
    assert pool.kernel.left_with == 3


def test_a_budget_is_for_failures_only() -> None:
    pool = world(1, restart_budget='0/1h').up()

    for _ in range(10):
        pool.happen(Exited(pool.kernel.newest, FINISHED))
        pool.run()

    assert pool.states() == ['running']


def test_a_worker_over_its_limit_is_killed_and_replaced_and_counts_once() -> None:
    pool = world(1).up()
    pool.wait(60)

    killed = pool.happen(MemoryExceeded(1, OVER))
    again = pool.happen(MemoryExceeded(1, OVER))
    ended = exit_of(pool.happen(Exited(1, KILLED)))

    assert (orders(killed), again) == ([Kill(1)], [])
    assert (ended.result, ended.measured, ended.restart_in) == (Result.MEMORY_MAX, OVER, 0.0)


def test_a_process_that_the_kernel_does_not_let_go_is_killed_again_and_not_replaced() -> None:
    pool = world(1).up()
    pool.happen(MemoryExceeded(1, OVER))

    later = pool.wait(20)

    assert lives(later, Kill) == [1, 1, 1, 1]
    assert only(later, Spawn) == []


def test_a_replacement_says_whose_place_it_takes() -> None:
    pool = world(1).up()
    pool.happen(Exited(1, FINISHED))

    (told,) = only(pool.run(), WorkerSpawned)

    assert (told.slot, told.life, told.predecessor) == (0, 2, pid_of(1))


@pytest.mark.parametrize(
    'late',
    [
        Spawned(1, pid=100),
        SpawnFailed(1, 'too late'),
        Ready(1, can_drain=True),
        Exited(1, NO_MODULE),
        MemoryExceeded(1, OVER),
        MemoryHigh(1, OVER),
        Unpopulated(1),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_fact_about_a_life_that_is_over_changes_nothing(late: LifeEvent) -> None:
    pool = world(2).up()
    pool.happen(Exited(1, FINISHED))
    pool.happen(Unpopulated(1))
    before = pool.states()

    assert pool.pool.handle(late, pool.now) == []

    pool.check()
    assert pool.states() == before


# What a life leaves behind.


def test_a_life_is_replaced_while_what_it_has_started_is_still_being_ended() -> None:
    pool = world(1).up()

    ended = pool.happen(Exited(1, FINISHED))

    assert orders(ended) == [EndStragglers(1), Spawn(0, 2)]
    assert pool.pool.snapshot(pool.now).stragglers == 1


def test_stragglers_that_remain_are_told_of_and_ended_again() -> None:
    pool = world(1).up()
    pool.happen(Exited(1, FINISHED))
    pool.happen(Spawned(2, pid=100))

    later = pool.wait(2 * SWEEP_AGAIN_AFTER)

    assert only(later, StragglersRemain) == [StragglersRemain(0, 1, 5.0), StragglersRemain(0, 1, 10.0)]
    assert lives(later, EndStragglers) == [1, 1]


def test_the_pool_does_not_leave_before_the_last_straggler_is_gone() -> None:
    pool = world(2).up()
    pool.stop()
    pool.happen(Exited(1, WAS_TOLD_TO_STOP))
    pool.happen(Exited(2, WAS_TOLD_TO_STOP))

    assert pool.happen(Unpopulated(2)) == []
    assert pool.happen(Unpopulated(1)) == [Leave(0)]


# The stop.


def test_a_stop_asks_who_can_drain_and_tells_who_cannot_and_leaves_with_the_last_one() -> None:
    pool = world(2)
    pool.start()
    pool.happen(Spawned(1, pid=100))
    pool.happen(Ready(1, can_drain=True))
    pool.happen(Spawned(2, pid=101))
    pool.happen(Ready(2, can_drain=False))

    assert orders(pool.stop()) == [Drain(1), Terminate(2)]

    pool.run()
    assert (pool.kernel.left_with, pool.now) == (0, 0.0)


def test_who_drains_has_half_of_the_stop_for_its_task_and_the_other_half_to_put_it_back() -> None:
    pool = world(1, timeout_stop=8).up()
    pool.stop()

    assert orders(pool.wait(3.999)) == []
    assert orders(pool.wait(0.001)) == [Terminate(1)]
    assert orders(pool.wait(3.999)) == []
    assert orders(pool.wait(0.001)) == [Kill(1)]


def test_who_cannot_drain_has_all_of_the_stop_and_is_told_once() -> None:
    pool = world(1, timeout_stop=8)
    pool.start()
    pool.happen(Spawned(1, pid=100))
    pool.happen(Ready(1, can_drain=False))
    told = pool.stop()

    assert orders(told) == [Terminate(1)]
    assert orders(pool.wait(7.999)) == []
    assert orders(pool.wait(0.001)) == [Kill(1)]


def test_a_stop_finds_workers_that_start_and_wait_and_are_not_born() -> None:
    pool = world(3, restart_delay=5, restart_reset=9).up()
    pool.happen(Exited(2, RAISED))
    pool.happen(Exited(3, FINISHED))
    pool.happen(Exited(1, FINISHED))
    pool.happen(Spawned(4, pid=100))
    assert pool.states() == ['start', 'auto-restart', 'start']

    assert orders(pool.stop()) == [Cancel(5), Terminate(4)]

    pool.run()
    assert pool.kernel.left_with == 0


def test_a_second_stop_changes_nothing_and_the_first_status_counts() -> None:
    pool = world(1, restart_budget='0/1s').up()
    pool.happen(Exited(1, RAISED))

    assert pool.stop() == []

    pool.run()
    assert pool.kernel.left_with == 3


@pytest.mark.parametrize('stopped_before', [False, True])
def test_a_kill_waits_for_nobody(stopped_before: bool) -> None:
    pool = world(3).up()
    pool.happen(Exited(3, FINISHED))
    if stopped_before:
        pool.stop()

    killed = pool.kill()
    pool.run_stubborn()

    assert lives(killed, Kill) == [1, 2]
    assert (pool.kernel.left_with, pool.now) == (0, 0.0)


def test_a_stop_does_not_wait_for_the_long_patience_of_a_replacement_under_way() -> None:
    pool = world(1, timeout_stop=8, timeout_drain=3600, max_worker_lifetime=60)
    pool.start()
    pool.happen(Spawned(1, pid=101))
    pool.happen(Ready(1, can_drain=False))
    pool.wait(60)
    pool.happen(Spawned(2, pid=102))
    assert Terminate(1) in pool.happen(Ready(2, can_drain=False))

    pool.stop()
    later = pool.wait(8)

    assert sorted(lives(later, Kill)) == [1, 2]


def test_timers_that_come_at_the_same_moment_do_not_find_a_seat_that_the_first_has_emptied() -> None:
    pool = world(2, restart_budget='1/1min', restart_delay=5, restart_reset=9, timeout_start=5)
    pool.start()
    pool.happen(Spawned(1, pid=100))
    pool.happen(Ready(1, can_drain=True))
    pool.happen(Exited(1, RAISED))

    elapsed = pool.wait(5)

    assert only(elapsed, BudgetSpent) == [BudgetSpent(1)]
    assert pool.states() == ['dead', 'failed']


def test_a_timer_that_is_set_anew_while_others_elapse_keeps_its_new_time() -> None:
    """A busy machine: a start has timed out and a lifetime is over, and the first of them stops the pool."""
    pool = world(2, timeout_start=4, max_worker_lifetime=5, timeout_stop=8, restart_budget='0/1s')
    pool.start()
    pool.happen(Spawned(1, pid=100))
    pool.happen(Ready(1, can_drain=True))

    elapsed = pool.oversleep(5)

    assert only(elapsed, BudgetSpent) == [BudgetSpent(1)]
    assert (lives(elapsed, Drain), lives(elapsed, Terminate)) == ([1], [])
    assert pool.deadline(pool.slots()[0].incumbent) == 4


# The succession.


@pytest.mark.parametrize('reason', [Request.MEMORY_HIGH, Request.LIFETIME])
def test_a_successor_is_ready_before_its_predecessor_is_asked_to_go(reason: Request) -> None:
    pool = world(1, max_worker_lifetime=60, timeout_drain=inf).up()

    asked = pool.wait(60) if reason is Request.LIFETIME else pool.happen(MemoryHigh(1, OVER))
    born = pool.happen(Spawned(2, pid=100))
    ready = pool.happen(Ready(2, can_drain=True))
    drained = pool.states()
    ended = pool.happen(Exited(1, WAS_TOLD_TO_STOP))

    measured = OVER if reason is Request.MEMORY_HIGH else None
    assert asked == [Spawn(0, 2), WorkerSucceeds(0, 1, pid_of(1), reason, measured)]
    assert only(born, WorkerSpawned) == [WorkerSpawned(0, 2, 100, predecessor=pid_of(1))]
    assert orders(ready) == [Drain(1)]
    assert drained == ['drain+running']
    assert (exit_of(ended).request, exit_of(ended).restart_in) == (reason, None)
    assert orders(ended) == [EndStragglers(1)]
    assert pool.states() == ['running']
    assert pool.slots()[0].incumbent.restarts == 1


def test_a_predecessor_that_drains_too_long_is_told_and_in_the_end_killed() -> None:
    pool = world(1, max_worker_lifetime=60, timeout_drain=30, timeout_stop=8).up()
    pool.wait(60)
    pool.run_stubborn()

    assert orders(pool.wait(30)) == [Terminate(1)]
    assert orders(pool.wait(8)) == [Kill(1)]


def test_one_successor_at_a_time_whatever_asks() -> None:
    pool = world(3).up()

    asked = [orders(pool.happen(MemoryHigh(life, OVER))) for life in (2, 3, 1)]
    after = []
    for old, new in ((2, 4), (3, 5), (1, 6)):
        pool.happen(Spawned(new, pid=pid_of(new)))
        pool.happen(Ready(new, can_drain=True))
        after.append(orders(pool.happen(Exited(old, WAS_TOLD_TO_STOP))))

    assert asked == [[Spawn(1, 4)], [], []]
    assert after == [[EndStragglers(2), Spawn(2, 5)], [EndStragglers(3), Spawn(0, 6)], [EndStragglers(1)]]


def test_who_ends_before_its_turn_comes_needs_no_successor_any_more() -> None:
    pool = world(3).up()
    for life in (1, 2, 3):
        pool.happen(MemoryHigh(life, OVER))
    pool.happen(Exited(2, FINISHED))
    pool.happen(Spawned(5, pid=100))
    pool.happen(Ready(5, can_drain=True))

    pool.settle()

    assert pool.turns() == []
    assert [seat.current.number for seat in pool.seats()] == [4, 5, 6]


def test_a_predecessor_that_wants_to_stop_before_it_is_asked_to_go_stops_the_pool() -> None:
    pool = world(1).up()
    pool.happen(MemoryHigh(1, OVER))

    ended = pool.happen(Exited(1, WANTS_STOP))

    assert exit_of(ended).outcome is Outcome.WANTS_POOL_STOP
    assert orders(ended) == [EndStragglers(1), Cancel(2)]


def test_a_predecessor_that_ends_by_itself_is_not_replaced_twice() -> None:
    pool = world(1).up()
    pool.happen(MemoryHigh(1, OVER))

    ended = pool.happen(Exited(1, RAISED))

    assert orders(ended) == [EndStragglers(1)]
    assert pool.states() == ['start']


def test_a_successor_that_fails_is_tried_again_while_its_predecessor_works_on() -> None:
    pool = world(1, restart_delay=1).up()
    pool.happen(MemoryHigh(1, OVER))
    pool.happen(Spawned(2, pid=100))
    pool.happen(Exited(2, RAISED))
    waiting = pool.states()

    started = pool.wait(1)

    assert waiting == ['running+auto-restart']
    assert orders(started) == [Spawn(0, 3)]


def test_a_successor_that_asks_to_be_succeeded_while_its_predecessor_drains_has_its_turn_later() -> None:
    pool = world(1, max_worker_lifetime=60, timeout_drain=inf).up()
    pool.wait(60)
    pool.run_stubborn()
    asked = pool.wait(60)
    assert pool.states() == ['drain+running']

    ended = pool.happen(Exited(1, WAS_TOLD_TO_STOP))

    assert lives(asked, WorkerSucceeds) == [2]
    assert lives(ended, Spawn) == [3]


def test_a_stop_in_the_middle_of_a_succession_ends_both() -> None:
    pool = world(1, timeout_drain=inf).up()
    pool.happen(MemoryHigh(1, OVER))
    pool.run_stubborn()
    assert pool.states() == ['drain+running']

    assert orders(pool.stop()) == [Drain(2)]
    assert lives(pool.wait(4), Terminate) == [1, 2]


# The scale.


def test_one_worker_more_is_started_at_once_with_the_lowest_free_number() -> None:
    pool = world(2).up()

    assert pool.scale(+1) == [Spawn(2, 3), Scaled(2, 3)]


def test_one_worker_more_waits_for_the_canary_as_the_others() -> None:
    pool = world(1)
    pool.start()

    assert pool.scale(+1) == [Scaled(1, 2)]
    pool.happen(Spawned(1, pid=100))
    assert lives(pool.happen(Ready(1, can_drain=True)), Spawn) == [2]


def test_one_worker_less_is_the_one_of_the_highest_slot_and_it_finishes_its_task() -> None:
    pool = world(3).up()

    assert pool.scale(-1) == [Drain(3), Scaled(3, 2)]
    assert pool.wait(3600) == []
    ended = pool.happen(Exited(3, WAS_TOLD_TO_STOP))

    assert exit_of(ended).request is Request.SCALE_DOWN
    assert pool.states() == ['running', 'running']


def test_a_pool_has_at_least_one_worker() -> None:
    pool = world(2).up()

    pool.scale(-5)
    pool.run()

    assert pool.scale(-1) == [Scaled(1, 1)]
    assert pool.states() == ['running']


def test_a_number_is_free_again_when_its_slot_is_gone_and_not_before() -> None:
    pool = world(2).up()
    pool.scale(-1)

    assert lives(pool.scale(+1), Spawn) == [3]
    assert [slot.number for slot in pool.slots()] == [0, 1, 2]
    pool.run()
    assert [slot.number for slot in pool.slots()] == [0, 2]
    assert only(pool.scale(+1), Spawn) == [Spawn(1, 4)]


def test_a_slot_that_goes_in_the_middle_of_a_succession_gives_the_token_back() -> None:
    pool = world(2).up()
    pool.happen(MemoryHigh(2, OVER))
    pool.happen(MemoryHigh(1, OVER))

    gone = pool.scale(-1)

    assert orders(gone) == [Drain(2), Cancel(3), Spawn(0, 4)]


def test_a_pool_that_stops_is_not_scaled() -> None:
    pool = world(2).up()
    pool.stop()

    assert pool.scale(+1) == []
    assert pool.scale(-1) == []


# The rest.


def test_a_pool_where_nothing_is_asked_for_waits_for_nothing() -> None:
    pool = world(4).up()

    assert pool.pool.next_deadline() is None


def test_nothing_on_the_path_of_one_event_grows_with_the_pool() -> None:
    small, large = world(2, max_worker_lifetime=60).up(), world(100, max_worker_lifetime=60).up()

    assert calls_of_a_replacement(large) == calls_of_a_replacement(small)


def calls_of_a_replacement(pool: World) -> int:
    """Return how many functions are called from the end of a worker until its replacement is ready."""
    life = pool.kernel.newest + 1
    with counted_calls() as calls:
        pool.pool.handle(Exited(1, FINISHED), 1.0)
        pool.pool.handle(Unpopulated(1), 1.0)
        pool.pool.handle(Spawned(life, pid=100), 1.0)
        pool.pool.handle(Ready(life, can_drain=True), 1.0)
        pool.pool.next_deadline()
    return sum(calls)


@contextmanager
def counted_calls() -> Iterator[list[bool]]:
    """Yield a list to which each call of a function here adds something true."""
    calls: list[bool] = []

    def count(frame: FrameType, event: str, argument: object) -> None:
        calls.append(event == 'call')

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def restarting(pool: World) -> None:
    pool.restart()


def rolling(pool: World) -> None:
    pool.reload()
    pool.loads()
    life = pool.kernel.newest
    pool.happen(Spawned(life, pid=99))
    pool.happen(Ready(life, can_drain=True))
    pool.happen(Exited(1, WAS_TOLD_TO_STOP))
    pool.happen(Unpopulated(1))


@pytest.mark.parametrize('what', [restarting, rolling, World.stop])
def test_nothing_on_the_path_of_one_event_grows_with_the_pool_whatever_goes_on_in_it(
    what: Callable[[World], object],
) -> None:
    calls = []
    for size in (5, 100):
        pool = world(size).up()
        what(pool)
        with counted_calls() as count:
            pool.pool.handle(Exited(4, FINISHED), 1.0)
            pool.pool.handle(Unpopulated(4), 1.0)
            assert (pool.pool.ready, pool.pool.wanted, pool.pool.processes) != (0, 0, 0)
        calls.append(sum(count))

    assert calls[0] == calls[1]


def test_workers_that_start_together_do_not_reach_their_lifetime_together() -> None:
    pool = World(
        policy(concurrent_workers=10, max_worker_lifetime=60, max_worker_lifetime_jitter=30), FakeKernel(), Random(1)
    ).up()

    ends = [pool.deadline(seat) for seat in pool.seats()]

    assert all(end is not None and 60 <= end <= 90 for end in ends)
    assert len(set(ends)) == 10


def test_a_picture_of_the_pool_says_where_everything_is() -> None:
    pool = world(2).up()
    pool.wait(10)
    pool.happen(Exited(2, FINISHED))
    pool.happen(MemoryHigh(1, OVER))

    picture = pool.pool.snapshot(pool.now)

    first, second = picture.slots
    assert (first.incumbent.pid, first.incumbent.uptime) == (pid_of(1), 10.0)
    assert first.successor is not None and (first.successor.pid, first.successor.uptime) == (None, None)
    assert (second.incumbent.state, second.incumbent.restarts) == ('start', 1)
    assert second.incumbent.last_result is Result.SUCCESS
    assert (picture.stopping, picture.stragglers) == (False, 1)


# What is counted.


def test_the_count_of_restarts_never_falls_not_even_when_a_slot_goes() -> None:
    pool = World(policy(concurrent_workers=2, restart_delay=0)).up()
    pool.happen(Exited(2, RAISED))
    pool.run()
    assert pool.pool.counters.restarts == 1

    pool.scale(-1)
    pool.run()

    assert pool.pool.counters.restarts == 1


def test_lives_are_counted_by_how_they_ended_and_by_who_wanted_it() -> None:
    pool = World(policy(concurrent_workers=2, restart_delay=0)).up()
    pool.happen(Exited(1, RAISED))
    pool.happen(Exited(2, FINISHED))
    pool.run()
    pool.restart()
    pool.settle()

    counters = pool.pool.counters
    assert (counters.ended['success'], counters.ended['exit-code']) == (3, 1)
    assert counters.requested == {**{str(each): 0 for each in Request}, 'restart': 2}
    assert (counters.spawned, counters.restarts) == (6, 4)


def test_a_spawn_that_failed_is_counted_as_such() -> None:
    pool = World(policy(concurrent_workers=1))
    pool.start()
    pool.happen(SpawnFailed(1, 'no room'))

    assert (pool.pool.counters.spawn_failures, pool.pool.counters.spawned) == (1, 0)


def test_the_tasks_of_lives_that_have_ended_are_counted() -> None:
    pool = World(policy(concurrent_workers=1)).up()
    pool.happen(Exited(1, replace(FINISHED, tasks_done=3, tasks_failed=1)))
    pool.run()
    pool.happen(Exited(2, FINISHED))

    assert (pool.pool.counters.tasks_done, pool.pool.counters.tasks_failed) == (3, 1)
