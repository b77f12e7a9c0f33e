"""What makes the workers: the fork server, who stands in for it, and what preloaded code may do to it."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.pool import Pool, kill, pool, wait_until

TITLE = 'sergeant-linux: fork server'

SLEEPER = """
    import time

    def Worker():
        time.sleep(1000)
"""


def fork_server_of(running: Pool) -> dict[str, Any]:
    found: dict[str, Any] = running.ask('status')['fork_server']
    return found


def test_a_fork_server_that_hangs_is_replaced_after_a_timeout_that_was_set_shorter(tmp_path: Path) -> None:
    with pool(tmp_path, SLEEPER, timeout_start='40s') as running:
        running.wait_for('worker-ready')
        running.ask('set', key='timeout_start', value='2s')
        hung = running.helper(TITLE)
        kill(hung, signal.SIGSTOP)
        for pid in running.workers().values():
            kill(pid)
        running.wait_for('fork-server-exit', pid=hung)
        running.wait_for('worker-ready', count=2)
        assert running.stop() == 0


def test_a_fork_server_that_hangs_while_it_loads_is_ended_after_a_timeout_that_was_set_meanwhile(tmp_path: Path) -> None:
    (tmp_path / 'shared.py').write_text('import os, time\nif os.path.exists("hang"): time.sleep(1000)')
    with pool(tmp_path, SLEEPER, preload_module=['shared'], timeout_start='40s') as running:
        running.wait_for('worker-ready')
        (tmp_path / 'hang').touch()
        first = running.helper(TITLE)
        kill(first)
        running.wait_for('fork-server-exit', pid=first)
        hung = wait_until(lambda: fork_server_of(running)['pid'], 'the next one')
        running.ask('set', key='timeout_start', value='1s')
        running.wait_for('fork-server-exit', pid=hung)
        assert running.stop() == 0


def test_a_pool_is_whole_again_soon_after_its_fork_server_was_killed_again_and_again(tmp_path: Path) -> None:
    with pool(tmp_path, SLEEPER, concurrent_workers=4) as running:
        running.wait_for('worker-ready', count=4)
        killed: set[int] = set()

        def kill_another() -> bool:
            for pid in running.processes(TITLE).keys() - killed:
                killed.add(pid)
                kill(pid)
            return len(running.find('fork-server-exit')) >= 8

        wait_until(kill_another, 'the end of eight fork servers')
        for pid in running.workers().values():
            kill(pid)
        running.wait_for('worker-ready', count=8, within=2.5)
        wait_until(lambda: fork_server_of(running)['state'] == 'serving', 'a fork server')
        wait_until(lambda: not running.processes('stand-in'), 'the end of what has stood in')
        assert running.stop() == 0
        running.wait_until_gone()


def test_a_spawn_that_was_lost_with_its_fork_server_is_tried_again_without_a_growing_delay(tmp_path: Path) -> None:
    worker = """
        import os, time

        def Worker():
            while os.environ['SERGEANT_WORKER_LIFE'] != '1' or not os.path.exists('leave'):
                time.sleep(0.01)
    """
    with pool(tmp_path, worker, restart_delay='1h', restart_max_delay='1h', restart_budget='1/1h') as running:
        running.wait_for('worker-ready')
        hung = running.helper(TITLE)
        kill(hung, signal.SIGSTOP)
        (tmp_path / 'leave').touch()  # a worker that has finished is replaced at once
        running.wait_for('worker-exit')
        running.ask('status')  # by then the next one was asked for
        kill(hung)
        running.wait_for('worker-ready', count=2)
        (failed,) = running.find('worker-spawn-failed')
        assert failed['reason'] == 'its gate was closed before it said hello'
        assert running.stop() == 0


def test_a_preloaded_module_that_ends_the_fork_server_keeps_no_worker_from_its_work_and_status_tells_it(
    tmp_path: Path,
) -> None:
    (tmp_path / 'shared.py').write_text('import os; os._exit(3)')
    with pool(tmp_path, SLEEPER, concurrent_workers=2, preload_module=['shared']) as running:
        running.wait_for('worker-ready', count=2)
        wait_until(lambda: fork_server_of(running)['state'] == 'failing', 'the word')
        told = fork_server_of(running)
        assert told['failures'] >= 2
        assert told['last_end'] == 'return code 3'
        assert told['stand_in_pid'] in running.processes('stand-in')
        assert running.stop() == 0
        running.wait_until_gone()


@pytest.mark.parametrize('how', ['signal.signal(signal.SIGCHLD, signal.SIG_IGN)', 'libc.sigaction(17, act, None)'])
def test_a_preloaded_module_that_ignores_the_end_of_children_makes_no_spawn_fail(tmp_path: Path, how: str) -> None:
    act = 'import ctypes, signal\nlibc = ctypes.CDLL(None)\nact = (ctypes.c_char * 152).from_buffer_copy(b"\\0" * 136 + b"\\2\\0\\0\\0".ljust(16, b"\\0"))\n'
    (tmp_path / 'shared.py').write_text(act + how)
    with pool(tmp_path, SLEEPER, concurrent_workers=3, preload_module=['shared']) as running:
        running.wait_for('worker-ready', count=3)
        assert not running.find('worker-spawn-failed')
        assert not running.find('fork-server-exit')
        assert running.stop() == 0


def test_the_module_that_has_left_threads_is_named(tmp_path: Path) -> None:
    (tmp_path / 'innocent.py').write_text('')
    (tmp_path / 'shared.py').write_text(
        'import threading, time; threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()'
    )
    with pool(tmp_path, SLEEPER, preload_module=['innocent', 'shared', 'json']) as running:
        (warning,) = running.wait_for('preload-left-threads')
        assert warning['modules'] == ['shared']
        assert 'shared' in warning['message']
        running.wait_for('worker-ready')
        assert running.stop() == 0


NUMERIC = """
    import os, time
    import numpy

    def Worker():
        square = numpy.random.rand(300, 300)
        inverse = numpy.linalg.inv(square)  # by BLAS, with threads of its own
        is_right = numpy.allclose(square @ inverse, numpy.eye(300))
        print('imported by', imported_by, 'right', is_right, 'drew', numpy.random.rand(), flush=True)
        time.sleep(1000)

    imported_by = os.getpid()
    numpy.ones((500, 500)) @ numpy.ones((500, 500))
"""


def test_numpy_is_preloaded_its_arithmetic_works_in_the_workers_and_each_draws_numbers_of_its_own(tmp_path: Path) -> None:
    """OpenBLAS ends its threads before each fork."""
    pytest.importorskip('numpy', reason='it has wheels for the newest Python some weeks after its release')
    with pool(tmp_path, NUMERIC, concurrent_workers=3, preload=True, environ={'OPENBLAS_NUM_THREADS': '4'}) as running:
        words = [line.split() for line in running.hear('imported by', count=3)]
        assert not running.find('preload-left-threads')
        assert {each[2] for each in words} == {str(running.helper(TITLE))}
        assert {each[4] for each in words} == {'True'}
        assert len({each[6] for each in words}) == 3
        assert running.stop() == 0
