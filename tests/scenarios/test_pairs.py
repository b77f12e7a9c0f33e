"""Every act meets every phase of a pool, and every other act; see pairs.py for what must hold."""

from pathlib import Path
from typing import Any, Final

import pytest

from tests.scenarios.pairs import ACTS, SLOW, WORKER, Act, check, churns, do, ending_well, settle
from tests.scenarios.pool import DEADLINE, pool

SHAPES: Final[dict[str, dict[str, Any]]] = {
    'forked': {},
    'fresh interpreters': {'spawn': 'exec'},
    'measured by a helper': {'memory_measure': 'pss', 'max_worker_memory_usage': '2G', 'worker_memory_high': '1G'},
}

WITHIN: Final = 2 * DEADLINE

names = pytest.mark.parametrize('act', ACTS, ids=lambda act: act.name)


@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES.keys())
def test_each_act_leaves_a_running_pool_whole(tmp_path: Path, shape: dict[str, Any]) -> None:
    with pool(tmp_path, WORKER, concurrent_workers=2, restart_delay='0', **shape) as running:
        wanted = 2
        settle(running, wanted, WITHIN)
        with ending_well(running, WITHIN):
            for act in ACTS:
                wanted = max(1, wanted + act.wanted * do(act, running))
                settle(running, wanted, WITHIN)
                check(running)


def test_each_act_leaves_a_pool_whole_whose_workers_end_all_the_time(tmp_path: Path) -> None:
    churns(tmp_path, on=True)
    with pool(tmp_path, WORKER, concurrent_workers=2, restart_delay='0') as running:
        running.wait_for('worker-exit', count=3)
        wanted = 2
        with ending_well(running, WITHIN):
            for act in ACTS:
                wanted = max(1, wanted + act.wanted * do(act, running))
                check(running)
            churns(tmp_path, on=False)
            settle(running, wanted, WITHIN)


@pytest.mark.slow
@names
def test_an_act_while_the_pool_starts(tmp_path: Path, act: Act) -> None:
    with pool(tmp_path, WORKER, concurrent_workers=2, restart_delay='0', environ={'SLOW_START': str(SLOW)}) as running:
        running.wait_for('worker-spawn')
        with ending_well(running, WITHIN):
            wanted = max(1, 2 + act.wanted * do(act, running))
            settle(running, wanted, WITHIN)


@pytest.mark.slow
@names
def test_an_act_while_the_pool_reloads(tmp_path: Path, act: Act) -> None:
    with pool(tmp_path, WORKER, concurrent_workers=2, restart_delay='0', environ={'SLOW_START': str(SLOW)}) as running:
        settle(running, 2, WITHIN)
        with ending_well(running, WITHIN):
            running.ask('reload', wait=False)
            running.wait_for('worker-spawn', count=3)  # the canary
            wanted = max(1, 2 + act.wanted * do(act, running))
            settle(running, wanted, WITHIN)


@pytest.mark.slow
@names
def test_an_act_while_the_pool_stops(tmp_path: Path, act: Act) -> None:
    with pool(tmp_path, WORKER, concurrent_workers=2, restart_delay='0', environ={'SLOW_STOP': str(SLOW)}) as running:
        settle(running, 2, WITHIN)
        running.ask('stop', wait=False)
        do(act, running)
        check(running)
        assert running.exit_status(WITHIN) == 0
        running.wait_until_gone()


@pytest.mark.slow
@names
def test_an_act_and_at_once_any_other(tmp_path: Path, act: Act) -> None:
    with pool(tmp_path, WORKER, concurrent_workers=2, restart_delay='0', timeout_drain='5s') as running:
        wanted = 2
        settle(running, wanted, WITHIN)
        with ending_well(running, WITHIN):
            for other in ACTS:
                for each in (act, other):
                    wanted = max(1, wanted + each.wanted * do(each, running))
                check(running)
            settle(running, wanted, WITHIN)
