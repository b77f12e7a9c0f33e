"""What a worker finds when its first line runs: session, descriptors, signals, names, path, marks; forked or in a fresh interpreter."""

import json
import os
import resource
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.scenarios.pool import ROOT, Pool, kill, pool, wait_until

LOOK: Final = """
import ctypes, gc, json, os, random, resource, signal, sys, threading, time

AT_IMPORT = {key: value for key, value in os.environ.items() if key.startswith('SERGEANT_')}

def look():
    status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)
    pdeathsig = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(pdeathsig), 0, 0, 0)
    return {
        'pid': os.getpid(),
        'parent': os.getppid(),
        'session': os.getsid(0),
        'group': os.getpgrp(),
        'fds': {fd: os.readlink(f'/proc/self/fd/{fd}') for fd in range(200) if os.path.lexists(f'/proc/self/fd/{fd}')},
        'inheritable': [fd for fd in range(3, 100) if os.path.lexists(f'/proc/self/fd/{fd}') and os.get_inheritable(fd)],
        'blocked': status['SigBlk'],
        'ignored': status['SigIgn'],
        'caught': status['SigCgt'],
        'sigint': signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        'pdeathsig': pdeathsig.value,
        'comm': open('/proc/self/comm').read().strip(),
        'threads': int(status['Threads']),
        'path': sys.path,
        'argv': sys.argv,
        'executable': sys.executable,
        'cwd': os.getcwd(),
        'environ': dict(os.environ),
        'at_import': AT_IMPORT,
        'nofile': resource.getrlimit(resource.RLIMIT_NOFILE),
        'random': random.random(),
        'gc': gc.isenabled(),
        'frozen': gc.get_freeze_count(),
        'sergeant': 'sergeant' in sys.modules,
        'json_from': json.__file__,
        'main': sys.modules['__main__'].__dict__.get('__file__'),
    }

def Worker():
    seen = json.dumps(look())
    with open('seen.' + os.environ['SERGEANT_WORKER_LIFE'] + '.tmp', 'w') as file:
        file.write(seen)
    os.rename(file.name, file.name.removesuffix('.tmp'))
    time.sleep(1000)
"""


def seen(folder: Path, *lives: int) -> list[dict[str, Any]]:
    """Return what the workers of these lives have seen."""
    files = [folder / f'seen.{life}' for life in lives]
    wait_until(lambda: all(file.exists() for file in files), f'what the lives {lives} see')
    return [json.loads(file.read_text()) for file in files]


@pytest.fixture(params=['fork', 'exec'])
def spawn(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


def test_a_worker_is_a_session_of_its_own_and_the_supervisors_child(tmp_path: Path, spawn: str) -> None:
    with pool(tmp_path, LOOK, concurrent_workers=2, spawn=spawn) as running:
        for worker in seen(tmp_path, 1, 2):
            assert worker['session'] == worker['group'] == worker['pid']
            assert worker['parent'] == running.pid
            assert worker['pdeathsig'] == signal.SIGKILL
            assert worker['threads'] == 1
        running.wait_for('worker-spawn', count=2)
        assert [worker['pid'] for worker in seen(tmp_path, 1, 2)] == list(running.workers().values())


def test_a_worker_has_stdio_its_gate_its_page_the_pipe_for_its_stacks_and_no_other_descriptor(tmp_path: Path, spawn: str) -> None:
    with pool(tmp_path, LOOK, concurrent_workers=3, spawn=spawn, max_worker_memory_usage='1G') as running:
        outputs = [os.readlink(f'/proc/{running.pid}/fd/{fd}') for fd in (1, 2)]
        for worker in seen(tmp_path, 1, 2, 3):
            page, pipe, gate = sorted(target for fd, target in worker['fds'].items() if int(fd) > 2)
            assert page.startswith('/memfd:sergeant-linux-page')
            assert pipe.startswith('pipe:') and pipe not in outputs
            assert gate.startswith('socket:')
            assert [worker['fds'][fd] for fd in '012'] == ['/dev/null', *outputs]
            assert worker['inheritable'] == []


def test_what_the_callers_shell_left_open_does_not_reach_the_workers(tmp_path: Path, spawn: str) -> None:
    program = (
        'import os; import sergeant_linux.supervisor as supervisor;'
        'os.dup2(0, 77, inheritable=True); os.dup2(0, 9, inheritable=True); supervisor.main()'
    )
    with pool(tmp_path, LOOK, spawn=spawn, command=['-c', program]):
        (worker,) = seen(tmp_path, 1)
        assert len(worker['fds']) == 6


def test_a_workers_signals_are_as_in_a_new_python_but_sigwinch_has_its_stacks_written(tmp_path: Path, spawn: str) -> None:
    with pool(tmp_path, LOOK, spawn=spawn):
        (worker,) = seen(tmp_path, 1)
        assert int(worker['blocked'], 16) == 0
        assert signals_of(worker['ignored']) == {signal.SIGPIPE, signal.SIGXFSZ}
        assert signals_of(worker['caught']) == {signal.SIGINT, signal.SIGWINCH}
        assert worker['sigint']


def test_what_the_caller_ignores_or_blocks_does_not_reach_the_workers(tmp_path: Path, spawn: str) -> None:
    program = (
        'import signal; import sergeant_linux.supervisor as supervisor;'
        '[signal.signal(signum, signal.SIG_IGN) for signum in (1, 2, 3, 10, 12, 14, 15, 17, 20)];'  # as nohup does, and worse
        'signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals());'
        'supervisor.main()'
    )
    with pool(tmp_path, LOOK, spawn=spawn, command=['-c', program]) as running:
        (worker,) = seen(tmp_path, 1)
        assert int(worker['blocked'], 16) == 0
        assert signals_of(worker['ignored']) == {signal.SIGPIPE, signal.SIGXFSZ}
        assert running.stop() == 0


def test_what_a_preloaded_module_does_to_signals_does_not_reach_the_workers(tmp_path: Path) -> None:
    (tmp_path / 'shared.py').write_text(
        'import signal\n'
        'for signum in (1, 2, 3, 10, 12, 15): signal.signal(signum, lambda *_: print("shared"))\n'
        'signal.signal(signal.SIGUSR2, signal.SIG_IGN)\n'
        'signal.pthread_sigmask(signal.SIG_SETMASK, [signal.SIGTERM])\n'
    )
    with pool(tmp_path, LOOK, preload_module=['shared']) as running:
        (worker,) = seen(tmp_path, 1)
        assert int(worker['blocked'], 16) == 0
        assert signals_of(worker['ignored']) == {signal.SIGPIPE, signal.SIGXFSZ}
        assert signals_of(worker['caught']) == {signal.SIGINT, signal.SIGWINCH}
        assert running.stop() == 0


def signals_of(mask: str) -> set[int]:
    """Return the signals in a mask of /proc/PID/status, without libc's own (32, 33: glibc's posix_spawn leaves them ignored)."""
    return {number + 1 for number in range(64) if int(mask, 16) >> number & 1} & signal.valid_signals()


def test_each_process_says_what_it_is(tmp_path: Path, spawn: str) -> None:
    (tmp_path / 'package').mkdir()
    (tmp_path / 'package' / 'worker.py').write_text(LOOK)
    with pool(tmp_path, concurrent_workers=2, spawn=spawn, worker_module='package.worker') as running:
        workers = seen(tmp_path, 1, 2)
        titles = {pid: title for pid, title in running.processes().items() if pid != running.pid}
        slots = {record['pid']: record['slot'] for record in running.wait_for('worker-spawn', count=2)}
        helpers = {title for pid, title in titles.items() if pid not in slots}
        assert helpers == {'sergeant-linux: fork server', 'sergeant-linux: undertaker'}
        assert {pid: titles[pid] for pid in slots} == {
            pid: f'sergeant-linux: worker package.worker.Worker [{slot}]' for pid, slot in slots.items()
        }
        assert {worker['comm'] for worker in workers} == {'sergeant-linux'}


def test_modules_are_found_as_python_m_finds_them(tmp_path: Path, spawn: str) -> None:
    (tmp_path / 'extra').mkdir()
    (tmp_path / 'extra' / 'helper.py').write_text('')
    source = LOOK + '\nimport helper\n'
    path = f'{tmp_path / "extra"}:{ROOT}'
    with pool(tmp_path, source, spawn=spawn, environ={'PYTHONPATH': path}):
        (worker,) = seen(tmp_path, 1)
        assert worker['path'][:3] == [str(tmp_path), str(tmp_path / 'extra'), str(ROOT)]
        assert worker['path'].count(str(ROOT)) == 1
        assert worker['cwd'] == str(tmp_path)
        assert worker['executable'] == sys.executable


def test_a_file_of_the_folder_does_not_come_between_us_and_the_standard_library(tmp_path: Path, spawn: str) -> None:
    for name in ('socket', 'signal', 'select', 'selectors', 'traceback', 'gate', 'fcntl', 'array', 'resource', 'ctypes', 'struct', 'psutil'):
        (tmp_path / f'{name}.py').write_text('raise ImportError("this is not the one you want")')
    source = """
        import time

        def Worker():
            print('here', flush=True)
            time.sleep(1000)
    """
    with pool(tmp_path, source, spawn=spawn) as running:
        running.hear('here')
        assert running.stop() == 0


def test_a_worker_knows_its_slot_and_life_before_its_module_is_imported(tmp_path: Path, spawn: str) -> None:
    with pool(tmp_path, LOOK, concurrent_workers=2, spawn=spawn, restart_delay=0):
        first, second = seen(tmp_path, 1, 2)
        kill(second['pid'])
        (third,) = seen(tmp_path, 3)

        marks = [(worker['environ']['SERGEANT_WORKER_SLOT'], worker['environ']['SERGEANT_WORKER_LIFE']) for worker in (first, second, third)]
        assert marks == [('0', '1'), ('1', '2'), ('1', '3')]
        for worker in (first, second, third):
            assert worker['at_import'] == {key: worker['environ'][key] for key in worker['at_import']}
            assert 'SERGEANT_WORKER_LIFE' in worker['at_import']
        visible = Path(f'/proc/{third["pid"]}/environ').read_bytes().split(b'\0')
        assert b'SERGEANT_WORKER_LIFE=3' in visible
        assert b'SERGEANT_WORKER_SLOT=1' in visible


def test_our_own_variables_are_not_passed_on_and_all_others_are(tmp_path: Path, spawn: str) -> None:
    environ = {'SERGEANT_LINUX_TIMEOUT_START': '30', 'SERGEANT_LINUX_TYPO': '1', 'GREETING': 'grüß dich\n=', 'EMPTY': ''}
    with pool(tmp_path, LOOK, spawn=spawn, environ=environ) as running:
        (worker,) = seen(tmp_path, 1)
        assert not [key for key in worker['environ'] if key.startswith('SERGEANT_LINUX_')]
        assert (worker['environ']['GREETING'], worker['environ']['EMPTY']) == ('grüß dich\n=', '')
        assert worker['environ']['PATH'] == os.environ['PATH']
        (warning,) = running.wait_for_line('SERGEANT_LINUX_')
        assert 'SERGEANT_LINUX_TYPO' in warning


def test_each_worker_draws_random_numbers_of_its_own(tmp_path: Path, spawn: str) -> None:
    source = LOOK + '\nimport random; random.random()\n'
    with pool(tmp_path, source, concurrent_workers=4, spawn=spawn, preload=spawn == 'fork'):
        assert len({worker['random'] for worker in seen(tmp_path, 1, 2, 3, 4)}) == 4


def test_limits_are_those_that_the_supervisor_was_started_with(tmp_path: Path, spawn: str) -> None:
    soft, hard = 333, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    program = (
        f'import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));'
        'import sergeant_linux.supervisor; sergeant_linux.supervisor.main()'
    )
    with pool(tmp_path, LOOK, spawn=spawn, command=['-c', program]) as running:
        (worker,) = seen(tmp_path, 1)
        assert worker['nofile'] == [soft, hard]
        assert resource.prlimit(running.pid, resource.RLIMIT_NOFILE)[0] == hard


def test_a_forked_worker_has_sergeant_already_and_collects_its_own_garbage_only(tmp_path: Path) -> None:
    with pool(tmp_path, LOOK):
        (worker,) = seen(tmp_path, 1)
        assert worker['sergeant'] and worker['gc']
        assert worker['frozen'] > 1000


def test_a_fresh_interpreter_has_imported_nothing_that_the_worker_did_not_ask_for(tmp_path: Path) -> None:
    with pool(tmp_path, LOOK, spawn='exec'):
        (worker,) = seen(tmp_path, 1)
        assert not worker['sergeant'] and worker['gc']
        assert worker['frozen'] < 1000  # what a new interpreter has of its own: none in Python 3.11, some hundred in 3.12


def test_output_is_inherited_and_flushed_at_the_end(tmp_path: Path, spawn: str) -> None:
    source = """
        import atexit, os, sys, threading

        atexit.register(lambda: print('at exit in', os.environ.get('SERGEANT_WORKER_LIFE')))

        def Worker():
            if os.environ['SERGEANT_WORKER_LIFE'] == '3':
                os.close(1)  # what is said now is lost, and must not matter
            sys.stdout.write('no newline, ')
            sys.stderr.write('to stderr\\n')
    """
    with pool(tmp_path, source, spawn=spawn) as running:
        running.wait_for('worker-exit', count=4, return_code=0)

        assert running.said[:2] == ['no newline, at exit in 1', 'no newline, at exit in 2']
        assert running.lines.count('to stderr') >= 2


def test_callbacks_of_what_was_preloaded_are_not_run_by_workers(tmp_path: Path) -> None:
    (tmp_path / 'shared.py').write_text('import atexit; atexit.register(print, "inherited", flush=True)')
    source = """
        import atexit, shared

        atexit.register(print, 'mine', flush=True)

        def Worker():
            pass
    """
    with pool(tmp_path, source, preload_module=['shared']) as running:
        running.wait_for('worker-exit', count=3)
        assert running.stop() == 0

        assert running.said.count('inherited') == 0
        assert running.said.count('mine') >= 3


# Preloading.

IMPORTED: Final = """
import os, time
print('imported by', os.getpid(), flush=True)

def Worker():
    print('works in', os.getpid(), flush=True)
    time.sleep(1000)
"""


def imports(running: Pool) -> list[int]:
    assert not [line for line in running.said if not line.startswith(('imported', 'works'))], running.said
    return [int(line.split()[-1]) for line in running.said if line.startswith('imported')]


def test_with_preload_the_worker_module_is_imported_once_by_the_fork_server(tmp_path: Path) -> None:
    with pool(tmp_path, IMPORTED, concurrent_workers=3, preload=True) as running:
        running.hear('works', count=3)
        assert imports(running) == [running.helper('fork server')]


def test_without_preload_each_worker_imports_it(tmp_path: Path, spawn: str) -> None:
    with pool(tmp_path, IMPORTED, concurrent_workers=3, spawn=spawn) as running:
        running.hear('works', count=3)
        running.wait_for('worker-spawn', count=3)
        assert sorted(imports(running)) == sorted(running.workers().values())


def test_modules_to_be_preloaded_are_imported_once(tmp_path: Path) -> None:
    for name in ('shared', 'other'):
        (tmp_path / f'{name}.py').write_text(f'print("{name}", flush=True)')
    source = """
        import sys, time

        def Worker():
            assert {'shared', 'other'} < set(sys.modules)
            print('here', flush=True)
            time.sleep(1000)
    """
    with pool(tmp_path, source, concurrent_workers=2, preload_module=['shared', 'other']) as running:
        running.hear('here', count=2)
        assert running.said == ['shared', 'other', 'here', 'here']


def test_a_module_that_cannot_be_preloaded_is_told_and_ends_the_pool(tmp_path: Path) -> None:
    with pool(tmp_path, IMPORTED, preload_module=['no_such_module']) as running:
        assert running.exit_status() == 1

        (failure,) = running.find('preload-failed')
        assert failure['level'] == 'critical'
        assert failure['message'] == (
            'could not preload module: no_such_module: ModuleNotFoundError("No module named \'no_such_module\'")'
        )
        running.wait_until_gone(1)


def test_a_broken_worker_module_is_told_in_the_same_words_when_it_is_preloaded(tmp_path: Path) -> None:
    with pool(tmp_path, '1 / 0', concurrent_workers=3, preload=True) as running:
        assert running.exit_status() == 1
        (ending,) = running.find('worker-exit')
        assert ending['return_code'] == 7


def test_preloaded_code_that_leaves_threads_is_told_and_imported_in_the_worker_instead(tmp_path: Path) -> None:
    source = """
        import os, threading, time
        print('imported by', os.getpid(), flush=True)
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()

        def Worker():
            print('works with', threading.active_count(), flush=True)
            time.sleep(1000)
    """
    with pool(tmp_path, source, concurrent_workers=2, preload=True) as running:
        running.hear('works with 2', count=2)

        (warning,) = running.wait_for('preload-left-threads')
        assert warning['level'] == 'warning'
        assert '1 thread' in warning['message']
        running.wait_for('worker-spawn', count=2)
        assert {*running.workers().values()} < {*imports(running)}
        assert running.stop() == 0


def test_a_hanging_preload_does_not_hang_the_stop(tmp_path: Path) -> None:
    (tmp_path / 'shared.py').write_text('import time; print("importing", flush=True); time.sleep(1000)')
    with pool(tmp_path, IMPORTED, preload_module=['shared']) as running:
        running.hear('importing')
        began = time.monotonic()

        assert running.stop() == 0

        assert time.monotonic() - began < 2
        running.wait_until_gone(1)


# What a worker starts.

def test_a_workers_children_are_its_own_and_carry_its_marks(tmp_path: Path, spawn: str) -> None:
    source = """
        import subprocess, sys, time

        def Worker():
            subprocess.run([sys.executable, '-c', 'import os, signal; print(len(os.listdir("/proc/self/fd")), '
                            'os.environ["SERGEANT_WORKER_LIFE"], signal.pthread_sigmask(signal.SIG_BLOCK, []), '
                            'signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)'])
            print('done', flush=True)
            time.sleep(1000)
    """
    with pool(tmp_path, source, spawn=spawn) as running:
        running.hear('done')
        assert running.said[0] == '4 1 set() True'  # 0, 1, 2 and the folder that is listed


def test_multiprocessing_works_in_a_worker(tmp_path: Path, spawn: str) -> None:
    source = """
        import multiprocessing, os, sys, time

        def square(number):
            return number * number

        def Worker():
            for method in ('fork', 'spawn', 'forkserver'):
                context = multiprocessing.get_context(method)
                with context.Pool(2) as workers:
                    print(method, workers.map(square, [1, 2, 3]), flush=True)
            time.sleep(1000)
    """
    with pool(tmp_path, source, spawn=spawn) as running:
        running.hear('forkserver', within=30)
        assert running.said == [f'{method} [1, 4, 9]' for method in ('fork', 'spawn', 'forkserver')]
        assert running.stop() == 0
        running.wait_until_gone(2)


def test_the_ancestors_task_timeouts_work(tmp_path: Path, spawn: str) -> None:
    source = """
        import time
        from sergeant import config
        from tests.scenarios.workers import OneTask, say

        class Worker(OneTask):
            def generate_config(self):
                return super().generate_config().replace(timeouts=config.Timeouts(timeout=0.3, grace_period=5))

            def do(self, task):
                time.sleep(1000)

            def on_timeout(self, task):
                say('timed out', task.kwargs['id'])
    """
    with pool(tmp_path, source, spawn=spawn) as running:
        running.hear('timed out 1')
        assert running.stop() == 0
        running.wait_until_gone(1)


def test_a_worker_may_change_its_folder_and_its_environment(tmp_path: Path, spawn: str) -> None:
    source = """
        import os

        def Worker():
            print('in', os.getcwd(), flush=True)
            os.chdir('/')
            os.environ.clear()
    """
    with pool(tmp_path, source, spawn=spawn) as running:
        running.hear(f'in {tmp_path}', count=3)


def test_coredumps_and_modes_are_the_callers(tmp_path: Path, spawn: str) -> None:
    source = """
        import os, time

        def Worker():
            open('made', 'w').close()
            print('made', flush=True)
            time.sleep(1000)
    """
    program = 'import os; os.umask(0o027); import sergeant_linux.supervisor; sergeant_linux.supervisor.main()'
    with pool(tmp_path, source, spawn=spawn, command=['-c', program]) as running:
        running.hear('made')
        assert stat.S_IMODE((tmp_path / 'made').stat().st_mode) == 0o640


def test_what_is_preloaded_is_in_no_slot_and_no_life(tmp_path: Path) -> None:
    (tmp_path / 'shared.py').write_text('import os; print("LIFE", os.environ.get("SERGEANT_WORKER_LIFE"), flush=True)')
    source = """
        import time, shared
        from shared import os

        def Worker():
            print('works in', os.environ['SERGEANT_WORKER_LIFE'], flush=True)
            time.sleep(1000)
    """
    with pool(tmp_path, source, preload_module=['shared']) as running:
        running.hear('works')
        assert running.said == ['LIFE None', 'works in 1']


@pytest.mark.skipif(
    sys.version_info[:3] == (3, 13, 0), reason='`python3.13 -c "import socket"` itself fails there with a SystemError'
)
def test_a_pool_runs_in_a_folder_that_is_gone(tmp_path: Path, spawn: str) -> None:
    program = 'import os; os.rmdir(os.getcwd()); import sergeant_linux.supervisor; sergeant_linux.supervisor.main()'
    folder = tmp_path / 'gone'
    folder.mkdir()
    with pool(folder, spawn=spawn, worker_module='tests.scenarios.sleeper', command=['-P', '-c', program]) as running:
        running.wait_for('worker-ready')
        assert running.stop() == 0


def test_a_worker_that_closes_all_descriptors_lives_and_is_stopped(tmp_path: Path, spawn: str) -> None:
    source = """
        import os, time
        from tests.scenarios.workers import Tasks

        class Worker(Tasks):
            def init_worker(self):
                os.closerange(3, 100)  # as code that makes daemons does
                super().init_worker()
                print('here', flush=True)
    """
    with pool(tmp_path, source, spawn=spawn, timeout_stop='2s', timeout_start='1min') as running:
        running.hear('here')
        assert running.stop() == 0
        assert not [line for line in running.lines if 'Traceback' in line]


def test_a_worker_has_the_options_of_the_supervisors_interpreter(tmp_path: Path, spawn: str) -> None:
    source = """
        import sys, time

        def Worker():
            print(sys.flags.optimize, sys.flags.dev_mode, bool(sys.flags.dont_write_bytecode), sys.warnoptions, sys._xoptions,
                  sys.stdout.write_through, flush=True)
            time.sleep(1000)
    """
    options = ['-OO', '-B', '-u', '-W', 'error::UserWarning', '-X', 'faulthandler', '-X', 'mine=1']
    with pool(tmp_path, source, spawn=spawn, python=[sys.executable, *options]) as running:
        assert running.hear('True') == ["2 False True ['error::UserWarning'] {'faulthandler': True, 'mine': '1'} True"]
