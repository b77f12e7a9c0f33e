"""A rolling reload of a real pool: new code takes over worker by worker, and broken code changes nothing."""

import signal
from pathlib import Path
from typing import Any, Final

import pytest

from sergeant_linux.control.client import PoolError
from tests.scenarios.pool import Pool, kill, pool, wait_until

GOOD: Final = """
import time

class Worker:
    calls_ready = True

    def __init__(self):
        print('made by VERSION', flush=True)

    def run(self):
        import sergeant_linux
        sergeant_linux.ready()
        time.sleep(1000)
"""

BROKEN: Final = {
    'a syntax error': ('class Worker(:\n', 'SyntaxError'),
    'an import error': ('import no_such_module\n', 'no_such_module'),
    'a class that is gone': ('class Another:\n    pass\n', 'Worker'),
    'a constructor that raises': (GOOD.replace("print('made by VERSION', flush=True)", 'raise ValueError("no luck")'), 'no luck'),
    'a start that raises': (GOOD.replace('sergeant_linux.ready()', 'raise ValueError("no luck")'), 'no luck'),
    'a start that never ends': (GOOD.replace('sergeant_linux.ready()', 'time.sleep(1000)'), 'timeout'),
    'a start that leaves': (GOOD.replace('sergeant_linux.ready()', 'raise SystemExit(0)'), 'success'),
}

PRELOADS: Final[dict[str, dict[str, Any]]] = {
    'nothing': {},
    'the module': {'preload': True},
    'the module by name': {'preload_module': ['worker']},
}


def write(folder: Path, source: str) -> None:
    """Put a module there, under a time of its own: Python tells a changed file by its time and size."""
    path = folder / 'worker.py'
    path.write_text(source)
    for stale in folder.glob('__pycache__/*'):
        stale.unlink()


def good(version: int) -> str:
    return GOOD.replace('VERSION', str(version))


def ready(running: Pool, count: int) -> None:
    wait_until(lambda: running.ask('status')['ready'] == count, f'{count} workers')


def pids(running: Pool) -> list[int]:
    return [each['pid'] for each in running.ask('status')['slots']]


@pytest.mark.parametrize('preload', PRELOADS)
def test_new_code_takes_over_from_worker_to_worker(tmp_path: Path, preload: str) -> None:
    with pool(tmp_path, good(1), concurrent_workers=3, **PRELOADS[preload]) as running:
        ready(running, 3)
        before = pids(running)
        write(tmp_path, good(2))

        answer = running.ask('reload')

        assert answer == {'generation': 2, 'changed': 3}
        assert not set(before) & set(pids(running))
        assert len(running.hear('made by 2', count=3)) == 3
        assert len(running.hear('made by 1')) == 3
        assert running.ask('status')['reload']['state'] == 'done'
        wait_until(lambda: len(running.processes('fork server')) == 1, 'the end of the old fork server')


def test_sighup_is_the_same(tmp_path: Path) -> None:
    with pool(tmp_path, good(1), concurrent_workers=2) as running:
        ready(running, 2)
        write(tmp_path, good(2))

        running.send(signal.SIGHUP)

        (ended,) = running.wait_for('reload-end')
        assert (ended['phase'], ended['changed']) == ('done', 2)


@pytest.mark.parametrize('preload', PRELOADS)
@pytest.mark.parametrize('fault', BROKEN)
def test_broken_code_leaves_the_old_workers_at_work_and_says_why_and_the_next_good_reload_works(
    tmp_path: Path, fault: str, preload: str
) -> None:
    source, reason = BROKEN[fault]
    flags = {'timeout_start': '2s', 'timeout_stop': '1s', 'restart_budget': '0/1min', **PRELOADS[preload]}
    with pool(tmp_path, good(1), concurrent_workers=2, **flags) as running:
        ready(running, 2)
        before = pids(running)
        write(tmp_path, source)

        with pytest.raises(PoolError) as error:
            running.ask('reload')

        assert error.value.code == 'failed'
        assert reason in str(error.value)
        status = running.ask('status')
        assert (pids(running), status['ready'], status['generation']) == (before, 2, 1)
        assert (status['reload']['state'], reason in status['reload']['reason']) == ('failed', True)

        write(tmp_path, good(2))
        assert running.ask('reload') == {'generation': 3, 'changed': 2}
        assert len(running.hear('made by 2', count=2)) == 2
        assert not set(before) & set(pids(running))
        assert running.stop() == 0


def test_a_reload_supersedes_the_one_that_goes_on(tmp_path: Path) -> None:
    hangs, _ = BROKEN['a start that never ends']
    with pool(tmp_path, good(1), concurrent_workers=2, timeout_stop='1s') as running:
        ready(running, 2)
        write(tmp_path, hangs)
        with running.client() as first:
            news = first.stream('reload')
            wait_until(lambda: next(news)['state'] == 'canary', 'the canary')
            write(tmp_path, good(2))

            assert running.ask('reload') == {'generation': 3, 'changed': 2}

            with pytest.raises(PoolError, match='superseded'):
                list(news)
        wait_until(lambda: len(running.processes('sergeant-linux: worker')) == 2, 'the end of the first canary')


def test_what_the_old_code_had_started_when_it_was_preloaded_goes_with_it(tmp_path: Path) -> None:
    source = good(1) + "\nimport subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=False)\n"
    with pool(tmp_path, source, preload_module=['worker']) as running:
        ready(running, 1)
        assert len(running.processes('sleep')) == 1
        write(tmp_path, good(2))

        running.ask('reload')

        wait_until(lambda: not running.processes('sleep'), 'the end of what was preloaded')


def test_a_fork_server_that_is_killed_in_a_reload_is_its_end_and_no_worker_minds(tmp_path: Path) -> None:
    slow = 'import time; time.sleep(1000)\n'
    with pool(tmp_path, good(1), concurrent_workers=2, preload_module=['worker']) as running:
        ready(running, 2)
        before = pids(running)
        old = set(running.processes('fork server'))
        write(tmp_path, slow)
        with running.client() as client:
            news = client.stream('reload')
            next(news)
            (new,) = wait_until(lambda: set(running.processes('fork server')) - old, 'the new fork server')
            kill(new, signal.SIGKILL)

            with pytest.raises(PoolError, match='has not loaded the code'):
                list(news)

        assert pids(running) == before


@pytest.mark.parametrize('fault', ['a start that raises', 'a start that never ends', 'a class that is gone'])
def test_a_restart_whose_successor_never_becomes_ready_gives_up_and_the_workers_stay(
    tmp_path: Path, fault: str
) -> None:
    source, reason = BROKEN[fault]
    flags: dict[str, Any] = {'timeout_start': '2s', 'timeout_stop': '1s', 'restart_budget': '0/1min'}
    with pool(tmp_path, good(1), concurrent_workers=2, **flags) as running:
        ready(running, 2)
        before = pids(running)
        write(tmp_path, source)

        with pytest.raises(PoolError) as error:
            running.ask('restart')

        assert error.value.code == 'failed'
        assert reason in str(error.value)
        status = running.ask('status')
        assert (pids(running), status['ready']) == (before, 2)
        (ended,) = running.wait_for('restart-end')
        assert (ended['changed'], ended['of'], ended['level']) == (0, 2, 'error')

        write(tmp_path, good(2))
        assert running.ask('restart') == {'slots': [0, 1]}
        assert running.stop() == 0


def test_after_a_failed_reload_the_status_says_that_nobody_has_changed(tmp_path: Path) -> None:
    source, _ = BROKEN['a start that raises']
    with pool(tmp_path, good(1), concurrent_workers=3, restart_delay='10ms') as running:
        ready(running, 3)
        write(tmp_path, source)
        with pytest.raises(PoolError):
            running.ask('reload')
        write(tmp_path, good(1))

        kill(pids(running)[1])
        running.wait_for('worker-ready', count=4)

        reload = running.ask('status')['reload']
        (ended,) = running.wait_for('reload-end')
        assert (reload['changed'], reload['of']) == (ended['changed'], ended['of']) == (0, 3)
