"""The flight record of a real run: what went into the core, and the same decisions made again from it."""

import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sergeant_linux.control.client import PoolError
from sergeant_linux.core.flight import BEGINS, Step, replay
from tests.scenarios.pool import Pool, kill, pool, wait_until

WORKER = """
import time

class Worker:
    calls_ready = True

    def run(self):
        import sergeant_linux
        sergeant_linux.ready()
        time.sleep(1000)
"""


def lines(path: Path) -> Iterator[str]:
    with path.open(encoding='ascii') as file:
        yield from file


def same_decisions(path: Path) -> list[Step]:
    """Return the steps of the replay, each of which has decided as the run did."""
    steps = list(replay(lines(path)))
    for step in steps:
        assert step.again == step.then, step
    return steps


def ready(running: Pool, count: int) -> None:
    wait_until(lambda: running.ask('status')['ready'] == count, f'{count} workers')


def test_a_run_is_decided_again_from_its_record(tmp_path: Path) -> None:
    record = tmp_path / 'flight'
    flags: dict[str, Any] = {'restart_delay': '10ms', 'max_worker_lifetime': '1h', 'max_worker_lifetime_jitter': '1h'}
    with pool(tmp_path, WORKER, concurrent_workers=3, flight_recorder=str(record), **flags) as running:
        ready(running, 3)
        kill(running.ask('status')['slots'][1]['pid'])
        running.wait_for('worker-ready', count=4)
        running.ask('reload')
        running.ask('restart', slots=[0])
        running.ask('scale', to=2)
        running.ask('set', key='timeout-stop', value='5s')
        (tmp_path / 'worker.py').write_text('class Worker(:\n    pass\n')
        with pytest.raises(PoolError):
            running.ask('reload')
        assert running.stop() == 0

    steps = same_decisions(record)

    names = [type(step.event).__name__ for step in steps]
    for name in ('PoolStartRequested', 'Exited', 'ReloadRequested', 'RestartRequested', 'ScaleRequested', 'PolicyChanged'):
        assert name in names
    assert any({'command': 'Leave', 'status': 0} in step.again for step in steps)
    assert stat.S_IMODE(record.stat().st_mode) == 0o600


def test_without_the_option_there_is_no_recorder(tmp_path: Path) -> None:
    with pool(tmp_path, WORKER) as running:
        ready(running, 1)
        assert not running.processes('sergeant-linux: recorder')


def test_a_recorder_that_is_killed_is_replaced_and_the_record_begins_anew(tmp_path: Path) -> None:
    record = tmp_path / 'flight'
    with pool(tmp_path, WORKER, concurrent_workers=2, flight_recorder=str(record)) as running:
        ready(running, 2)
        (first,) = running.processes('sergeant-linux: recorder')
        kill(first)
        wait_until(lambda: (tmp_path / 'flight.1').exists() and record.exists(), 'the second file')
        running.ask('scale', by=1)
        ready(running, 3)
        assert running.stop() == 0

    assert same_decisions(tmp_path / 'flight.1')
    assert any(type(step.event).__name__ == 'ScaleRequested' for step in same_decisions(record))


def test_a_recorder_that_does_not_write_holds_nothing_up_and_what_it_writes_later_can_be_replayed(tmp_path: Path) -> None:
    record = tmp_path / 'flight'
    with pool(tmp_path, WORKER, concurrent_workers=2, flight_recorder=str(record)) as running:
        ready(running, 2)
        (recorder,) = running.processes('sergeant-linux: recorder')
        kill(recorder, signal.SIGSTOP)
        for count in (5, 2):
            running.ask('scale', to=count)
            ready(running, count)
        kill(recorder, signal.SIGCONT)
        assert running.stop() == 0

    for path in (record, tmp_path / 'flight.1'):
        if path.exists():
            same_decisions(path)
    assert record.read_text().startswith(BEGINS)


def test_a_record_that_can_not_be_written_is_said_once_and_the_pool_goes_on(tmp_path: Path) -> None:
    with pool(tmp_path, WORKER, flight_recorder=str(tmp_path / 'nowhere' / 'flight')) as running:
        ready(running, 1)
        (failed,) = running.wait_for('flight-record-failed')
        assert 'No such file' in failed['message']
        assert running.stop() == 0


def test_a_line_that_was_cut_off_is_passed_over() -> None:
    assert list(replay(['{"now":1.0,"event":{"event":"Time'])) == []


def test_a_record_is_lines_of_json_that_are_not_too_long_for_people(tmp_path: Path) -> None:
    record = tmp_path / 'flight'
    with pool(tmp_path, WORKER, flight_recorder=str(record)) as running:
        ready(running, 1)
        assert running.stop() == 0

    first, *others = map(json.loads, lines(record))
    assert first.keys() == {'flight', 'now', 'policy', 'state', 'chance'}
    assert all(each.keys() == {'now', 'event', 'commands'} for each in others)
    assert os.listdir(tmp_path).count('flight.1') == 0
