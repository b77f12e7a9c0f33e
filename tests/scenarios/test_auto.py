"""`auto` in a real pool: worked out once, at the start, and told in one line."""

import os
from pathlib import Path
from typing import Final

import pytest

from sergeant_linux.control.client import PoolError
from tests.scenarios.pool import pool

SLEEPER: Final = """
import time

def Worker():
    time.sleep(1000)
"""


def test_a_pool_has_a_worker_for_each_processor_and_each_its_share_of_memory(tmp_path: Path) -> None:
    with pool(tmp_path, SLEEPER, concurrent_workers='auto', max_worker_memory_usage='auto', memory_backend='rss') as running:
        (told,) = running.wait_for('auto')
        number = told['concurrent_workers']
        running.wait_for('worker-ready', count=number)

        assert number <= len(os.sched_getaffinity(0))
        assert len(running.workers()) == number
        assert told['message'].startswith(f'--concurrent-workers=auto is {number} (')
        assert '--max-worker-memory-usage=auto is ' in told['message']
        picture = running.ask('status')
        assert picture['wanted'] == number
        assert picture['memory']['limit_bytes'] == told['max_worker_memory_usage'] > 0
        assert running.find('worker-ready')[0]['supervisor']['concurrent_workers'] == number


def test_a_share_is_not_worked_out_again_while_the_pool_runs(tmp_path: Path) -> None:
    with pool(tmp_path, SLEEPER, max_worker_memory_usage='auto', memory_backend='rss') as running:
        running.wait_for('worker-ready')
        before = running.ask('get')['policy']['max_worker_memory_usage']

        with pytest.raises(PoolError, match='auto is worked out when a pool starts') as caught:
            running.ask('set', key='max-worker-memory-usage', value='auto')

        assert caught.value.code == 'bad-request'
        running.ask('scale', to=2)
        assert running.ask('get')['policy']['max_worker_memory_usage'] == before != 'auto'


def test_a_share_that_is_too_little_ends_the_start_with_status_4_and_what_it_takes(tmp_path: Path) -> None:
    with pool(tmp_path, SLEEPER, max_worker_memory_usage='auto', pool_memory_max='1M') as running:
        assert running.exit_status() == 4

        (told,) = running.find('cant-run')
        assert '--max-worker-memory-usage=auto is too little for a worker: ' in told['message']
        assert told['message'].endswith('or name the limit')
        assert running.find('worker-spawn') == []


def test_limits_that_are_more_than_what_there_is_are_warned_of_and_the_pool_runs(tmp_path: Path) -> None:
    with pool(tmp_path, SLEEPER, concurrent_workers=2, max_worker_memory_usage='1T', memory_backend='rss') as running:
        running.wait_for('worker-ready', count=2)

        (told,) = running.find('limit-too-high')
        assert told['level'] == 'warning'
        assert told['message'].startswith('--max-worker-memory-usage=1T is more than ')
        assert told['remedy'] in told['message']
        assert running.stop() == 0
