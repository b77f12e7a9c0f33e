"""Stops at random moments: what becomes of every single task. `python -m tests.worker.storm 1000` for a long one."""

from pathlib import Path

import pytest

from tests.worker.life import Start
from tests.worker.queues import Queue
from tests.worker.storm import storm

ROUNDS = 20


@pytest.mark.parametrize('how', ['SIGTERM', 'DRAIN', 'BOTH'])
@pytest.mark.parametrize('per_transaction', ['1', '10'])
@pytest.mark.parametrize('threads', ['1', '4'])
def test_no_stop_at_any_moment_loses_a_task_and_drain_repeats_none(
    start: Start, queue: Queue, tmp_path: Path, threads: str, per_transaction: str, how: str
) -> None:
    tally = storm(start, queue, tmp_path / 'results', how, ROUNDS, THREADS=threads, PER_TRANSACTION=per_transaction)

    assert tally.stops == ROUNDS
    assert tally.tasks_done > 0
    assert tally.lost == 0
    if how == 'DRAIN':
        assert tally.done_again == 0
