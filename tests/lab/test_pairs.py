"""Every act in a pool whose lives have leaves; see tests/scenarios/pairs.py for what must hold."""

from pathlib import Path

import pytest

from tests.lab.conftest import Cgroup
from tests.lab.housing import WITHIN, housed
from tests.scenarios.pairs import ACTS, WORKER, check, churns, do, ending_well, settle

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize('phase', ['running', 'reloading', 'churning'])
def test_each_act_leaves_a_pool_with_leaves_whole(home: Cgroup, tmp_path: Path, phase: str) -> None:
    churns(tmp_path, on=True)
    with housed(home, tmp_path, WORKER, light=True, concurrent_workers=2, restart_delay='0') as running:
        running.wait_for('worker-exit', within=WITHIN)
        wanted = 2
        with ending_well(running, WITHIN):
            if phase != 'churning':
                churns(tmp_path, on=False)
            for act in ACTS:
                if phase == 'reloading':
                    running.ask('reload', wait=False)
                wanted = max(1, wanted + act.wanted * do(act, running))
                check(running)
            if phase == 'churning':
                churns(tmp_path, on=False)
            settle(running, wanted, WITHIN)
