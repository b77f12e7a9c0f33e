"""A pool that runs short of descriptors refuses what it can't have, says why, and goes on with what it has.

The sweep runs a pool under one limit (RLIMIT_NOFILE) after the other, and asks it for more than that gives.
"""

import os
import resource
from pathlib import Path
from typing import Any, Final

import pytest

from sergeant_linux.control.client import PoolError
from sergeant_linux.kernel import procfs
from tests.scenarios.pool import Pool, kill, pool, wait_until
from tests.scenarios.test_end_of_life import limited_descriptors

SLEEPER: Final = """
    import time

    def Worker():
        time.sleep(1000)
"""

FLAGS: Final[dict[str, Any]] = {'restart_delay': '20ms', 'restart_max_delay': '100ms', 'timeout_stop': '5s'}


def refusal(running: Pool, verb: str, **arguments: object) -> str | None:
    """Ask; return why it was refused, None: it was done."""
    try:
        running.ask(verb, **arguments)
    except PoolError as error:
        return error.message
    return None


def under(limit: int, folder: Path, workers: int) -> bool:
    """Run a pool under this limit, ask it for more than that gives, and stop it. Return whether it was refused at the start."""
    with pool(folder, SLEEPER, concurrent_workers=workers, command=limited_descriptors(limit), **FLAGS) as running:
        refused = wait_until(
            lambda: 'yes' if running.process.poll() is not None else 'no' if len(running.find('worker-ready')) >= workers else '',
            f'{workers} workers, or none, under {limit}',
        )
        if refused == 'yes':
            assert running.exit_status() == 4
            (line,) = running.lines
            assert 'Too many open files' in line or f'the limit (RLIMIT_NOFILE) is {limit}' in line
            return True

        why_not = refusal(running, 'scale', by=40)
        assert why_not is not None and 'RLIMIT_NOFILE' in why_not and '--nofile=' in why_not
        refusal(running, 'scale', by=3)
        wanted = running.ask('status')['wanted']
        assert refusal(running, 'reload') is None
        kill(max(running.workers().values()))
        running.wait_for('worker-exit', result='signal')
        wait_until(lambda: running.ask('status')['ready'] == wanted, f'{wanted} workers under {limit}')

        assert running.stop() == 0
        assert not [line for line in running.lines if 'Traceback' in line]
    return False


def test_a_pool_that_cannot_have_its_workers_is_refused_with_one_line(tmp_path: Path) -> None:
    assert [under(limit, tmp_path, 2) for limit in (12, 17, 22, 34, 58)] == [True] * 5


def test_a_pool_just_above_its_need_scales_as_far_as_it_may_reloads_and_replaces(tmp_path: Path) -> None:
    assert [under(limit, tmp_path, 2) for limit in (80, 101)] == [False] * 2


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_limit_ends_a_pool_with_an_error_of_our_own(tmp_path: Path) -> None:
    refused = [under(limit, tmp_path, 2) for limit in range(10, 121, 2)]

    assert refused == sorted(refused, reverse=True)
    assert True in refused and False in refused


def test_a_limit_that_falls_while_the_pool_runs_costs_new_workers_until_it_rises(tmp_path: Path) -> None:
    with pool(tmp_path, SLEEPER, concurrent_workers=2, **FLAGS) as running:
        running.wait_for('worker-ready', count=2)
        before = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (procfs.open_fds(running.pid) + 12, before[1]))

        assert 'RLIMIT_NOFILE' in str(refusal(running, 'scale', by=1))
        kill(running.workers()[1])
        (failed, *_) = running.wait_for('worker-spawn-failed')
        assert 'RLIMIT_NOFILE' in failed['message']
        assert refusal(running, 'reload') is not None

        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, before)
        wait_until(lambda: running.ask('status')['ready'] == 2, 'both workers')
        assert running.stop() == 0


def test_a_supervisor_that_is_at_its_limit_lives_and_stops(tmp_path: Path) -> None:
    with pool(tmp_path, SLEEPER, concurrent_workers=2, **FLAGS) as running:
        running.wait_for('worker-ready', count=2)
        highest = max(map(int, os.listdir(f'/proc/{running.pid}/fd')))
        hard = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (highest + 1, hard))

        kill(running.helper('sergeant-linux: undertaker'))
        kill(running.helper('sergeant-linux: fork server'))
        kill(running.workers()[2])
        running.wait_for('worker-exit')
        running.wait_for('worker-spawn-failed', count=2)

        assert running.stop() == 0
        assert not running.find('internal-error')


def test_many_workers_under_a_tight_limit_are_born_a_few_at_a_time(tmp_path: Path) -> None:
    with pool(tmp_path, SLEEPER, concurrent_workers=40, command=limited_descriptors(272), **FLAGS) as running:
        running.wait_for('worker-ready', count=40)
        assert not running.find('worker-spawn-failed')
        assert running.stop() == 0
