"""The processes beside the loop are killed and stopped, alone and together with the supervisor: they are replaced, and nothing outlives the pool."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.pool import Pool, kill, pool, wait_until
from tests.scenarios.test_memory import FAMILY, HOG, MIB
from tests.scenarios.test_stragglers import BROODER, brood_of, has_gone


@pytest.fixture
def cue(tmp_path: Path) -> Path:
    """What a worker waits for: a pipe that somebody writes to."""
    path = tmp_path / 'cue'
    os.mkfifo(path)
    return path


@pytest.fixture
def brooder(tmp_path: Path, cue: Path) -> Iterator[Pool]:
    with pool(tmp_path, BROODER, restart_delay=0, timeout_stop='4s', memory_backend='rss') as running:
        yield running


def test_what_a_worker_has_started_is_gone_after_a_sigkill_of_supervisor_and_undertaker(brooder: Pool) -> None:
    brood = brood_of(brooder)

    kill(brooder.helper('sergeant-linux: undertaker'))
    brooder.send(signal.SIGKILL)

    has_gone(brood)
    brooder.wait_until_gone()


def test_what_a_worker_has_started_is_gone_when_the_supervisor_is_killed_while_its_undertaker_is_stopped(
    brooder: Pool,
) -> None:
    """The stopped one, too."""
    brood = brood_of(brooder)

    kill(brooder.helper('sergeant-linux: undertaker'), signal.SIGSTOP)
    brooder.send(signal.SIGKILL)

    has_gone(brood)
    brooder.wait_until_gone()


@pytest.mark.parametrize('title', ['undertaker', 'meter'])
def test_a_helper_that_is_stopped_is_replaced(tmp_path: Path, cue: Path, title: str) -> None:
    with pool(tmp_path, HOG, max_worker_memory_usage=60 * MIB, memory_measure='pss') as running:
        running.wait_for('worker-ready')
        stopped = running.helper(f'sergeant-linux: {title}')

        kill(stopped, signal.SIGSTOP)

        running.wait_for(f'{title}-overdue', pid=stopped)
        running.wait_for(f'{title}-exit', pid=stopped)
        assert running.helper(f'sergeant-linux: {title}') != stopped
        cue.write_text('')
        (end,) = running.wait_for('worker-exit')
        assert (end['life'], end['result']) == (1, 'memory-max'), 'memory is looked at again'
        assert running.stop() == 0


def test_the_measure_holds_for_a_limit_that_is_set_later(tmp_path: Path, cue: Path) -> None:
    with pool(tmp_path, FAMILY, memory_measure='tree') as running:
        running.wait_for('worker-ready')
        assert not running.processes('sergeant-linux: meter')
        running.ask('set', key='max-worker-memory-usage', value='90M')
        running.helper('sergeant-linux: meter')

        cue.write_text('')

        (end,) = running.wait_for('worker-exit')
        assert (end['life'], end['result']) == (1, 'memory-max')


def test_without_a_limit_any_more_the_meter_goes(tmp_path: Path, cue: Path) -> None:
    with pool(tmp_path, FAMILY, memory_measure='tree', max_worker_memory_usage='1G') as running:
        running.wait_for('worker-ready')
        running.helper('sergeant-linux: meter')

        running.ask('set', key='max-worker-memory-usage', value='off')

        wait_until(lambda: not running.processes('sergeant-linux: meter'), 'the end of the meter')
        running.ask('set', key='max-worker-memory-usage', value='1G')
        running.helper('sergeant-linux: meter')
        assert not running.find('meter-exit')
