"""A worker of sergeant's is left as it is: what hooks its loop is not to be found in it."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.worker.life import DEADLINE, Start
from tests.worker.queues import Queue

MODULE = 'tests.worker.particular'

serial_and_threaded = pytest.mark.parametrize('threads', ['1', '2'])


@serial_and_threaded
def test_a_worker_can_hand_its_work_to_a_pool_of_processes(start: Start, local_queue: Queue, threads: str) -> None:
    local_queue.push(21)

    life = start('Spreading', MODULE, **local_queue.environ, THREADS=threads, PER_RUN='1')

    assert life.rest() == ['doubled 42', 'finalized 0']
    assert life.exit_code() == 0
    assert life.page.look()[:2] == (1, 0)


@serial_and_threaded
def test_a_worker_can_be_copied_and_pickled(start: Start, local_queue: Queue, threads: str) -> None:
    local_queue.push(21)

    life = start('Copying', MODULE, **local_queue.environ, THREADS=threads, PER_RUN='1')

    assert life.rest() == [*['doubled 42'] * 3, 'finalized 0']
    assert life.exit_code() == 0


@serial_and_threaded
@pytest.mark.parametrize('attribute', ['Guarded', 'Computed'])
def test_a_worker_that_allows_nothing_to_be_set_is_counted_and_stopped_as_any_other(
    start: Start, local_queue: Queue, threads: str, attribute: str
) -> None:
    local_queue.push(1, 2)
    life = start(attribute, MODULE, **local_queue.environ, THREADS=threads, PER_TRANSACTION='2', WAIT_IN='on_success')
    assert life.ready() == {'type': 'ready', 'drain': True}
    while life.heard() != 'on_success':
        pass

    life.drain()
    life.cue()
    with suppress(BrokenPipeError):  # the worker may have left without waiting again
        life.cue()

    assert life.final()['received_stop_signal'] is True
    assert life.exit_code() == 5
    done = life.page.look().tasks_done or 0
    assert done > 0
    assert done + len(local_queue) == 2


@serial_and_threaded
def test_a_worker_sees_in_itself_what_it_sees_under_the_ancestor(
    start: Start, local_queue: Queue, tmp_path: Path, threads: str
) -> None:
    environ = {**local_queue.environ, 'THREADS': threads, 'PER_RUN': '1'}
    local_queue.push(1)
    run_by_the_ancestor(MODULE, 'Looking', {**environ, 'SEEN': str(tmp_path / 'theirs')})
    local_queue.push(2)

    life = start('Looking', MODULE, **environ, SEEN=str(tmp_path / 'ours'))

    assert life.exit_code() == 0
    ours, theirs = ((tmp_path / name).read_text().splitlines() for name in ('ours', 'theirs'))
    assert len(theirs) == 6
    assert ours == theirs


def run_by_the_ancestor(module: str, attribute: str, environ: dict[str, str]) -> None:
    """Run a worker to its end as sergeant's own supervisor does."""
    heard, said = os.pipe()
    command = [
        sys.executable, '-m', 'sergeant.slave', f'--child-pipe={said}', f'--worker-module={module}',
        f'--worker-class={attribute}',
    ]  # fmt: skip
    try:
        subprocess.run(command, env={**os.environ, **environ}, pass_fds=[said], check=True, timeout=DEADLINE)
    finally:
        os.close(heard)
        os.close(said)
