"""What a pool decides about a reload, a restart and a hung worker, story by story. The world checks every invariant."""

from typing import Any

import pytest

from sergeant_linux.core.commands import (
    Cancel,
    Drain,
    EndGeneration,
    ReloadEnded,
    RestartEnded,
    Spawn,
    StartGeneration,
    Terminate,
    WorkerExited,
)
from sergeant_linux.core.events import Exited, Hung, MemoryHigh, Ready, Spawned, SpawnFailed, Unpopulated
from sergeant_linux.core.reload import Phase
from sergeant_linux.core.result import Request, Result
from tests.core.fake_kernel import FINISHED, NO_MODULE, OVER, RAISED, WAS_TOLD_TO_STOP, FakeKernel
from tests.core.world import World, only, orders, policy


def world(workers: int = 2, **knobs: Any) -> World:
    return World(policy(concurrent_workers=workers, **knobs), FakeKernel(watches_hangs=True)).up()


def generations(pool: World) -> list[int | None]:
    """Return the generation of the code that each slot's incumbent runs."""
    return [slot.incumbent.life.generation if slot.incumbent.life else None for slot in pool.slots()]


def phase(pool: World) -> Phase:
    assert pool.pool.last_reload is not None
    return pool.pool.last_reload.phase


# A reload that works.


def test_new_code_is_loaded_before_any_worker_is_touched() -> None:
    pool = world(2)

    assert orders(pool.reload()) == [StartGeneration(2)]
    assert pool.states() == ['running', 'running']


def test_one_canary_is_ready_before_the_others_are_succeeded() -> None:
    pool = world(3)
    pool.reload()

    assert orders(pool.loads()) == [Spawn(0, 4, 2)]
    pool.happen(Spawned(4, pid=100))
    assert pool.states() == ['running+start', 'running', 'running']
    assert orders(pool.happen(Ready(4, can_drain=True))) == [Drain(1)]


def test_all_workers_change_one_after_the_other_and_then_the_old_code_goes() -> None:
    pool = world(3)
    pool.reload()
    pool.loads()

    done = pool.run()

    assert generations(pool) == [2, 2, 2]
    assert phase(pool) is Phase.DONE
    assert orders(done)[-1] == EndGeneration(1)


def test_as_many_change_at_a_time_as_the_surge_allows() -> None:
    pool = world(4, max_surge=3)
    pool.reload()
    pool.loads()
    pool.happen(Spawned(5, pid=100))

    pool.happen(Ready(5, can_drain=True))

    assert pool.states() == ['drain+running', 'running+start', 'running+start', 'running']


def test_without_a_surge_a_worker_goes_first_and_its_place_is_filled_by_the_new_code() -> None:
    pool = world(2, max_surge=0)
    pool.reload()

    assert orders(pool.loads()) == [Drain(1)]
    pool.happen(Exited(1, WAS_TOLD_TO_STOP))
    assert pool.states() == ['start', 'running']
    pool.run()

    assert generations(pool) == [2, 2]
    assert phase(pool) is Phase.DONE


def test_a_life_that_ends_meanwhile_is_followed_by_one_of_the_old_code_until_the_canary_is_ready() -> None:
    pool = world(2)
    pool.reload()
    pool.loads()

    assert orders(pool.happen(Exited(2, FINISHED)))[-1:] == [Spawn(1, 4, 1)]


def test_a_worker_that_waits_for_its_restart_is_the_canary_where_nobody_runs() -> None:
    pool = World(policy(concurrent_workers=1, restart_delay=60, restart_max_delay=60))
    pool.start()
    pool.happen(SpawnFailed(1, 'no room'))
    pool.reload()

    assert orders(pool.loads()) == [Spawn(0, 2, 2)]


def test_a_canary_whose_place_goes_is_followed_by_another_one() -> None:
    pool = world(2, max_surge=0)
    pool.happen(Exited(1, FINISHED))
    pool.run()
    pool.reload()
    assert orders(pool.loads()) == [Drain(3)]

    assert orders(pool.scale(-1))[:1] == [Drain(2)]
    pool.settle()

    assert (phase(pool), generations(pool)) == (Phase.DONE, [2])


# A reload that does not.


def test_code_that_can_not_be_loaded_changes_nothing() -> None:
    pool = world(2)
    pool.reload()

    ended = pool.cannot_load()

    assert ended == [EndGeneration(2), ReloadEnded(2, Phase.FAILED, 0, 2, 'SyntaxError()')]
    assert generations(pool) == [1, 1]


@pytest.mark.parametrize('ending', [RAISED, NO_MODULE, FINISHED])
def test_a_canary_that_never_becomes_ready_is_the_end_of_the_reload(ending: Any) -> None:
    pool = world(2, restart_budget='0/1min')
    pool.reload()
    pool.loads()
    pool.happen(Spawned(3, pid=100))

    ended = pool.happen(Exited(3, ending))
    pool.happen(Unpopulated(3))

    assert only(ended, ReloadEnded)[0].phase == Phase.FAILED
    assert pool.states() == ['running', 'running']
    assert generations(pool) == [1, 1]
    assert not pool.turns()


def test_the_reason_of_a_failed_reload_is_what_the_worker_has_said() -> None:
    pool = world(1)
    pool.reload()
    pool.loads()

    (ended,) = only(pool.happen(SpawnFailed(2, 'cannot take the uid 7')), ReloadEnded)

    assert ended.reason is not None and 'cannot take the uid 7' in ended.reason


def test_a_canary_that_hangs_in_its_start_is_told_to_go_and_fails_the_reload() -> None:
    pool = world(1, timeout_start=60)
    pool.reload()
    pool.loads()
    pool.happen(Spawned(2, pid=100))

    assert only(pool.wait(60), Terminate) == [Terminate(2)]
    pool.happen(Exited(2, WAS_TOLD_TO_STOP))

    assert phase(pool) is Phase.FAILED
    assert generations(pool) == [1]


def test_when_a_later_successor_fails_those_that_have_changed_change_back() -> None:
    pool = world(3)
    pool.reload()
    pool.loads()
    pool.happen(Spawned(4, pid=100))
    pool.happen(Ready(4, can_drain=True))
    pool.happen(Exited(1, WAS_TOLD_TO_STOP))
    pool.happen(Spawned(5, pid=101))

    pool.happen(Exited(5, RAISED))

    assert phase(pool) is Phase.FAILED
    assert pool.states() == ['running+start', 'running', 'running']
    pool.run()
    assert generations(pool) == [1, 1, 1]


def test_after_a_failed_reload_the_next_one_works() -> None:
    pool = world(2)
    pool.reload()
    pool.cannot_load()

    pool.reload()
    pool.loads()
    pool.run()

    assert generations(pool) == [3, 3]


def test_a_second_reload_supersedes_the_first_and_its_canary_is_cancelled() -> None:
    pool = world(1)
    pool.reload()
    pool.loads()

    again = pool.reload()

    assert only(again, ReloadEnded)[0].phase == Phase.SUPERSEDED
    assert orders(again) == [Cancel(2), EndGeneration(2), StartGeneration(3)]
    pool.run()
    assert generations(pool) == [3]


def test_a_stop_ends_a_reload() -> None:
    pool = world(2)
    pool.reload()
    pool.loads()

    pool.stop()
    pool.run()

    assert phase(pool) is Phase.STOPPED
    assert pool.kernel.left_with == 0


def test_a_worker_that_was_over_its_mark_is_still_to_be_replaced_when_its_canary_has_failed() -> None:
    pool = world(2)
    pool.happen(MemoryHigh(2, OVER))
    pool.happen(MemoryHigh(1, OVER))
    pool.reload()
    pool.run()

    assert not pool.turns()
    assert all(life > 2 for life in (slot.incumbent.current.number for slot in pool.slots()))


def test_after_a_failed_reload_nobody_counts_as_changed() -> None:
    pool = world(3)
    pool.reload()
    pool.loads()
    pool.happen(Spawned(4, pid=100))
    pool.happen(Exited(4, RAISED))
    pool.happen(Unpopulated(4))
    assert told(pool) == (Phase.FAILED, 0, 3)

    pool.happen(Exited(2, FINISHED))
    pool.run()

    assert told(pool) == (Phase.FAILED, 0, 3)


def test_those_who_change_back_are_not_counted_as_changed_any_more() -> None:
    pool = world(3)
    pool.reload()
    pool.loads()
    pool.happen(Spawned(4, pid=100))
    pool.happen(Ready(4, can_drain=True))
    pool.happen(Exited(1, WAS_TOLD_TO_STOP))
    pool.happen(Spawned(5, pid=101))

    pool.happen(Exited(5, RAISED))

    assert told(pool) == (Phase.FAILED, 1, 3)
    pool.run()
    assert told(pool) == (Phase.FAILED, 0, 3)


def told(pool: World) -> tuple[Phase, int, int]:
    reload = pool.pool.last_reload
    assert reload is not None
    return reload.phase, reload.changed, reload.of


# Restart.


def why(pool: World) -> str | None:
    restart = pool.pool.last_restart
    assert restart is not None and not restart.goes_on
    return restart.reason


@pytest.mark.parametrize('ending', [RAISED, NO_MODULE, FINISHED])
def test_a_restart_gives_up_when_a_successor_never_becomes_ready_and_the_workers_stay(ending: Any) -> None:
    pool = world(3, restart_budget='0/1min')
    pool.restart()
    pool.happen(Spawned(4, pid=100))

    ended = pool.happen(Exited(4, ending))
    pool.happen(Unpopulated(4))

    assert only(ended, RestartEnded) == [RestartEnded(0, 3, why(pool))]
    assert pool.states() == ['running', 'running', 'running']
    assert [slot.incumbent.current.number for slot in pool.slots()] == [1, 2, 3]
    assert not pool.turns()
    assert pool.kernel.newest == 4


def test_a_restart_says_why_it_has_given_up() -> None:
    pool = world(1)
    pool.restart()

    pool.happen(SpawnFailed(2, 'cannot take the uid 7'))

    assert 'cannot take the uid 7' in (why(pool) or '')


def test_a_successor_that_hangs_in_its_start_is_the_end_of_the_restart() -> None:
    pool = world(2, timeout_start=60)
    pool.restart()
    pool.happen(Spawned(3, pid=100))

    pool.wait(60)
    pool.happen(Exited(3, WAS_TOLD_TO_STOP))

    assert 'timeout' in (why(pool) or '')
    assert pool.states() == ['running', 'running']


def test_other_successors_of_a_restart_that_has_given_up_are_given_up_with_it() -> None:
    pool = world(3, max_surge=2)
    pool.restart()
    pool.happen(Spawned(4, pid=100))

    ended = pool.happen(Exited(4, RAISED))

    assert only(ended, Cancel) == [Cancel(5)]
    assert pool.states() == ['running', 'running', 'running']


def test_a_restart_that_has_given_up_has_replaced_those_who_were_replaced_before() -> None:
    pool = world(2)
    pool.restart()
    for event in (Spawned(3, pid=100), Ready(3, can_drain=True), Exited(1, WAS_TOLD_TO_STOP), Spawned(4, pid=101)):
        pool.happen(event)

    ended = pool.happen(Exited(4, RAISED))

    assert only(ended, RestartEnded) == [RestartEnded(1, 2, why(pool))]
    assert [slot.incumbent.current.number for slot in pool.slots()] == [3, 2]


def test_without_a_surge_a_restart_gives_up_too_and_the_place_that_is_empty_is_filled_as_ever() -> None:
    pool = world(2, max_surge=0)
    pool.restart()
    pool.happen(Exited(1, WAS_TOLD_TO_STOP))
    pool.happen(Spawned(3, pid=100))

    pool.happen(Exited(3, RAISED))

    assert why(pool) is not None
    assert pool.states() == ['auto-restart', 'running']
    pool.settle()
    assert pool.states() == ['running', 'running']
    assert pool.slots()[1].incumbent.current.number == 2


def test_a_worker_that_dies_while_its_successor_starts_is_followed_by_that_one_however_often_it_fails() -> None:
    pool = world(1)
    pool.restart()
    pool.happen(Spawned(2, pid=100))
    pool.happen(Exited(1, RAISED))

    pool.happen(Exited(2, RAISED))

    assert pool.states() == ['auto-restart']
    pool.settle()
    assert pool.states() == ['running']


def test_a_restart_waits_no_longer_for_a_slot_that_goes() -> None:
    pool = world(2)
    pool.restart()

    pool.scale(-1)
    pool.run()

    assert why(pool) is None


def test_a_second_restart_of_the_same_workers_is_the_same_one() -> None:
    pool = world(2)
    pool.restart()
    first = pool.pool.last_restart

    pool.restart()

    assert pool.pool.last_restart is first


def test_a_restart_replaces_each_worker_once_one_after_the_other() -> None:
    pool = world(3)

    asked = pool.restart()
    pool.run()

    assert orders(asked) == [Spawn(0, 4)]
    assert sorted(slot.incumbent.current.number for slot in pool.slots()) == [4, 5, 6]


def test_a_worker_that_waits_for_its_restart_is_restarted_at_once() -> None:
    pool = world(1, restart_delay=60, restart_max_delay=60, restart_reset=1)
    pool.happen(Exited(1, RAISED))

    assert orders(pool.restart()) == [Spawn(0, 2)]


def test_a_restart_is_over_when_the_next_worker_is_ready_and_not_before() -> None:
    pool = world(1, max_surge=0)
    pool.restart()
    pool.happen(Exited(1, WAS_TOLD_TO_STOP))
    pool.happen(Spawned(2, pid=100))

    restart = pool.pool.last_restart
    assert restart is not None and restart.goes_on
    ended = pool.happen(Ready(2, can_drain=True))
    assert only(ended, RestartEnded) == [RestartEnded(1, 1, None)]
    assert not restart.goes_on


# Scale.


def test_of_several_the_youngest_goes_that_is_in_no_task() -> None:
    pool = world(3)

    pool.scale(-1, busy=frozenset({3}))

    assert [slot.number for slot in pool.slots() if slot.retiring] == [1]


# Hung.


def test_a_hung_worker_is_told_to_go_and_replaced_with_the_result_watchdog() -> None:
    pool = world(1, timeout_stop=8, restart_reset=1)
    pool.wait(5)

    told = pool.happen(Hung(1, 'one task for 60s'))
    killed = pool.wait(8)
    ended = pool.happen(Exited(1, WAS_TOLD_TO_STOP))

    assert orders(told) == [Terminate(1)]
    assert len(orders(killed)) == 1
    (record,) = only(ended, WorkerExited)
    assert (record.result, record.request, record.restart_in) == (Result.WATCHDOG, None, 0.0)
    assert pool.states() == ['start']


def test_a_worker_that_hangs_in_its_drain_is_told_to_go() -> None:
    pool = world(1)
    pool.restart()
    pool.happen(Spawned(2, pid=100))
    pool.happen(Ready(2, can_drain=True))

    assert orders(pool.happen(Hung(1, 'one task for 60s'))) == [Terminate(1)]
    (record,) = only(pool.happen(Exited(1, WAS_TOLD_TO_STOP)), WorkerExited)
    assert (record.result, record.request) == (Result.WATCHDOG, Request.RESTART)
