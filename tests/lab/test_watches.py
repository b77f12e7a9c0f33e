"""fs.epoll.max_user_watches is met: what can't be watched isn't begun, and the pool goes on."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.lab.conftest import Cgroup
from tests.lab.housing import WITHIN, housed
from tests.scenarios.pool import kill, wait_until

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason='writes to /proc/sys'),
]

LIMIT: Final = Path('/proc/sys/fs/epoll/max_user_watches')

STAYS: Final = 'import time\ndef Worker(): time.sleep(1000)\n'


@pytest.fixture
def limit() -> Iterator[Path]:
    before = LIMIT.read_text()
    yield LIMIT
    LIMIT.write_text(before)


def test_a_worker_that_can_not_be_watched_is_a_failed_spawn_until_it_can(
    home: Cgroup, tmp_path: Path, limit: Path
) -> None:
    before = limit.read_text()
    with housed(home, tmp_path, STAYS, light=True, restart_delay='100ms', restart_max_delay='1s') as running:
        running.wait_for('worker-ready', within=WITHIN)
        with running.client(WITHIN) as client:
            client.call('ping')
            limit.write_text('1')
            client.call('scale', by=1)
            running.wait_for('worker-spawn-failed', count=2, within=WITHIN)
            client.call('ping')
            kill(running.helper('undertaker'))
            running.wait_for('undertaker-failed', within=WITHIN)
            kill(running.helper('fork server'))
            running.wait_for('fork-server-failed', within=WITHIN)
            assert 'Current thread' in client.call('dump', slot=0)['stacks']
        limit.write_text(before)

        running.wait_for('worker-ready', count=2, within=WITHIN)
        wait_until(lambda: running.processes('undertaker'), 'an undertaker', WITHIN)
        assert running.stop(signal.SIGTERM, within=WITHIN) == 0
        assert not running.find('internal-error')


def test_a_pool_that_can_watch_nothing_says_so_and_does_not_begin(home: Cgroup, tmp_path: Path, limit: Path) -> None:
    limit.write_text('1')
    with housed(home, tmp_path, STAYS, light=True) as running:
        assert running.exit_status(within=WITHIN) == 4
        assert running.find('cant-run')
        assert not running.find('internal-error')
