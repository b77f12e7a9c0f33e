"""Somebody switches a controller off below a running pool: what is in force is read, and what was promised is restored."""

from pathlib import Path
from typing import Final

import pytest

from tests.lab.conftest import Cgroup
from tests.lab.housing import LIMIT, WITHIN, housed
from tests.scenarios.pool import Pool, kill, wait_until

pytestmark = pytest.mark.timeout(600)

STAYS: Final = 'import time\ndef Worker(): time.sleep(1000)\n'


def switch_off(home: Cgroup) -> Path:
    """Switch the memory controller off, as who owns the home can, and return the pool's folder."""
    (folder,) = home.path.glob('sergeant-*')
    for cgroup in (Cgroup(folder), home):
        cgroup.write('cgroup.subtree_control', '-memory')
    return folder


def memory(running: Pool) -> tuple[str, str | None]:
    backend = running.ask('status')['backend']
    return backend['memory'], backend['why_not']


def test_a_memory_controller_that_was_switched_off_is_told_and_switched_on_again_for_the_next_worker(
    home: Cgroup, tmp_path: Path
) -> None:
    with housed(home, tmp_path, STAYS, concurrent_workers=2) as running:
        running.wait_for('worker-ready', count=2, within=WITHIN)
        assert memory(running) == ('cgroup', None)
        folder = switch_off(home)

        backend, why_not = memory(running)
        assert (backend, f'switched off in {folder}' in (why_not or '')) == ('off', True)

        kill(running.workers()[1])
        running.wait_for('worker-ready', count=3, within=WITHIN)
        assert memory(running) == ('cgroup', None)
        (told,) = running.find('controllers-restored')
        assert (told['level'], 'memory' in told['message']) == ('warning', True)
        for life in (2, 3):
            assert (folder / f'life-{life}' / 'memory.max').read_text() == f'{LIMIT}\n'
            assert (folder / f'life-{life}' / 'memory.oom.group').read_text() == '1\n'
        assert running.stop(within=WITHIN) == 0


def test_a_worker_whose_limit_cannot_be_restored_is_not_started(home: Cgroup, ground: Cgroup, tmp_path: Path) -> None:
    with housed(home, tmp_path, STAYS, restart_delay='50ms', restart_max_delay='50ms') as running:
        running.wait_for('worker-ready', within=WITHIN)
        switch_off(home)
        others = [Cgroup(path) for path in ground.path.iterdir() if path.is_dir() and path != home.path]
        assert not any('memory' in other.read('cgroup.subtree_control').split() for other in others)
        ground.write('cgroup.subtree_control', '-memory')
        try:
            kill(running.workers()[1])
            (failed, *_) = running.wait_for('worker-spawn-failed', within=WITHIN)
            assert f'{home.path}/cgroup.subtree_control' in failed['message'] and '+memory' in failed['message']
        finally:
            ground.write('cgroup.subtree_control', '+memory')
        running.wait_for('worker-ready', count=2, within=WITHIN)
        wait_until(lambda: memory(running) == ('cgroup', None), 'the limit of the kernel')
        assert running.stop(within=WITHIN) == 0
