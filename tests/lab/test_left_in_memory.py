"""Files in memory that dead workers have left: they fill the pool's limit, and who is killed for it is told so."""

import os
from pathlib import Path
from typing import Any, Final

import pytest

from tests.lab.conftest import Cgroup
from tests.lab.housing import LIMIT, TAKE, WITHIN, housed

pytestmark = pytest.mark.timeout(600)

LEAVES_A_FILE: Final = (
    TAKE
    + f'''
    def Worker():
        """The first life leaves a file in memory behind; the second eats."""
        if os.path.exists(PATH):
            eat()
        with open(PATH, 'wb') as file:
            file.write(bytes({LIMIT // 2}))
        time.sleep(0.1)
'''
)


def test_what_dead_workers_have_left_in_memory_is_told_when_the_pool_has_no_more(home: Cgroup, tmp_path: Path) -> None:
    path = f'/dev/shm/{tmp_path.name}-{os.getpid()}'
    limits: dict[str, Any] = {'pool_memory_max': LIMIT, 'max_worker_memory_usage': 4 * LIMIT, 'concurrent_workers': 1}
    try:
        with housed(home, tmp_path, LEAVES_A_FILE.replace('PATH', repr(path)), **limits) as running:
            (killed, *_) = running.wait_for('worker-exit', result='oom-kill', within=WITHIN)

            left = killed['memory']['left_shmem']
            assert LIMIT // 2 <= left < LIMIT
            assert f'left files in memory (tmpfs) that take {left} bytes of it' in killed['message']
            assert running.stop(within=WITHIN) == 0
    finally:
        os.unlink(path)
