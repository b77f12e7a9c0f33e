"""The soft mark where the kernel holds the limit: a worker that grows past it is succeeded, and no task notices.

Real tasks of sergeant's, on its local broker: nothing here is killed, which that one does not survive.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from sergeant_linux.core.memory import MARK_MIN_LIFE, MARK_PAUSE, MARK_SAMPLES
from tests.lab.conftest import Cgroup
from tests.lab.housing import TAKE, WITHIN, housed
from tests.worker.queues import Queue, memory_folder

pytestmark = pytest.mark.timeout(600)

MARK: Final = 40 << 20

GROWS: Final = (
    TAKE
    + """
    from tests.scenarios.workers import Tasks

    kept = []

    class Worker(Tasks):
        '''Each of the tasks 1 to 12 leaves it with 4 MiB more; task 0 takes until the file `go-on` is there.'''

        def do(self, task):
            if 1 <= task.kwargs['id'] <= 12:
                kept.append(take(4 << 20))
            while task.kwargs['id'] == 0 and not os.path.exists('go-on'):
                time.sleep(0.01)
"""
)


@pytest.fixture
def queue() -> Iterator[Queue]:
    with memory_folder() as folder:
        queue = Queue.on_local(folder)
        yield queue
        queue.close()


def test_a_worker_that_grows_past_its_mark_finishes_its_task_and_its_successor_was_ready_before(
    home: Cgroup, tmp_path: Path, queue: Queue
) -> None:
    growing, later = [*range(1, 13), 0], list(range(100, 120))
    queue.push(*growing)
    with housed(
        home, tmp_path, GROWS, environ=queue.environ, max_worker_memory_usage=5 * MARK, worker_memory_high=MARK
    ) as running:
        # given a worker over its mark, in the middle of a task
        running.hear('begun 0', within=WITHIN)

        # when the mark counts
        (request,) = running.wait_for('worker-succession', within=MARK_MIN_LIFE + 10 * MARK_SAMPLES * MARK_PAUSE)
        assert (request['request'], request['life']) == ('memory-high', 1)
        assert request['memory_bytes'] > MARK

        # then its successor is ready while it is still at its task, and takes the next ones
        running.wait_for('worker-ready', life=2, within=WITHIN)
        assert running.find('worker-exit') == []
        queue.push(*later)
        running.hear('done 119', within=WITHIN)
        assert running.find('worker-exit') == []

        # and it goes when its own is done; each was begun once and done once
        (tmp_path / 'go-on').touch()
        (end,) = running.wait_for('worker-exit', within=WITHIN)
        assert (end['life'], end['request'], end['result']) == (1, 'memory-high', 'success')
        assert end['memory']['oom_kills'] == 0 and end['memory']['peak_bytes'] > MARK
        assert sorted(running.said) == sorted(f'{word} {n}' for word in ('begun', 'done') for n in [*growing, *later])
        assert len(queue) == 0
        assert len(running.find('worker-succession')) == 1
        assert running.stop(within=WITHIN) == 0
