"""fs.epoll.max_user_watches is met: what can't be watched isn't begun, and the pool goes on."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.lab.conftest import Cgroup
from tests.lab.housing import WITHIN, housed

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
    with housed(home, tmp_path, STAYS, light=True, restart_max_delay='1s') as running:
        running.wait_for('worker-ready', within=WITHIN)
        with running.client(WITHIN) as client:
            client.call('ping')
            limit.write_text('1')
            client.call('scale', by=1)
            running.wait_for('worker-spawn-failed', count=2, within=WITHIN)
            client.call('ping')
        limit.write_text(before)

        running.wait_for('worker-ready', count=2, within=WITHIN)
        assert running.stop(signal.SIGTERM, within=WITHIN) == 0
        assert not running.find('internal-error')
