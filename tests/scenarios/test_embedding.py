"""The pool inside a program of somebody else's, which has threads, handlers and children of its own: it borrows, and gives back."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from sergeant_linux.supervisor import Supervisor
from tests.scenarios.pool import MARK, ROOT, Pool, kill, pool, wait_until

SLEEPER: Final = """
import os, time

def Worker():
    print('here', os.environ['SERGEANT_WORKER_LIFE'], flush=True)
    time.sleep(1000)
"""

BEFORE_AND_AFTER: Final = """
import ctypes, gc, json, os, resource, signal, sys, threading

def state():
    gc.collect()
    subreaper = ctypes.c_int()
    ctypes.CDLL(None).prctl(37, ctypes.byref(subreaper), 0, 0, 0)
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    return {
        'handlers': {signum.name: str(signal.getsignal(signum)) for signum in signal.Signals},
        'mask': sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        'wakeup': wakeup,
        'subreaper': subreaper.value,
        'limits': {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith('RLIMIT_')},
        'oom_score_adj': open('/proc/self/oom_score_adj').read(),
        'cgroup': open('/proc/self/cgroup').read(),
        'fds': {fd: os.readlink(f'/proc/self/fd/{fd}') for fd in range(200) if os.path.lexists(f'/proc/self/fd/{fd}')},
        'threads': threading.active_count(),
        'cwd': os.getcwd(),
        'umask': os.umask(os.umask(0)),
        'argv': sys.argv,
        'comm': open('/proc/self/comm').read(),
        'cmdline': open('/proc/self/cmdline').read(),
    }

def tell(**what):
    os.write(1, (json.dumps(what) + '\\n').encode())
"""


@contextmanager
def program(folder: Path, source: str, worker: str = SLEEPER) -> Iterator[Pool]:
    """Run a program in a folder with a worker module; it has `state()` and `tell()`, and ends whatever the test does."""
    (folder / 'worker.py').write_text(textwrap.dedent(worker))
    (folder / 'program.py').write_text(BEFORE_AND_AFTER + textwrap.dedent(source))
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, 'program.py'],
        cwd=folder,
        env=os.environ | {'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '', MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    running = Pool(process, mark, str(folder))
    try:
        yield running
    finally:
        running.end()


def told(running: Pool, key: str) -> Any:
    """Wait until the program has told this, and return it."""
    (line, *_) = running.hear(f'"{key}"')
    return json.loads(line)[key]


def test_all_that_was_borrowed_is_given_back(tmp_path: Path) -> None:
    source = """
        import resource, signal, socket, subprocess, threading
        from sergeant_linux import Supervisor

        signal.signal(signal.SIGTERM, lambda *_: tell(mine='SIGTERM'))
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
        one, other = socket.socketpair()
        other.setblocking(False)
        signal.set_wakeup_fd(other.fileno(), warn_on_full_buffer=False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (500, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        event = threading.Event()
        threading.Thread(target=event.wait).start()

        before = state()
        try:
            Supervisor('worker', 'Worker', 2, log_format='json').start()
        except SystemExit as exit:
            tell(status=exit.code)
        after = state()
        tell(changed={key: [before[key], after[key]] for key in before if before[key] != after[key]})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        event.set()
        tell(end=True)
        """
    with program(tmp_path, source) as running:
        running.hear('here', count=2)
        running.send(signal.SIGTERM)

        assert told(running, 'status') == 0
        assert told(running, 'changed') == {}
        assert running.exit_status() == 0
        assert not [line for line in running.said if 'mine' in line]


def test_all_is_given_back_when_the_workers_cannot_be_loaded(tmp_path: Path) -> None:
    source = """
        from sergeant_linux import Supervisor

        before = state()
        for module, name in (('no_such_module', 'Worker'), ('worker', 'no_such_class')):
            try:
                Supervisor(module, name, 2, log_format='json').start()
            except SystemExit as exit:
                tell(status=exit.code)
            after = state()
            tell(changed={key: [before[key], after[key]] for key in before if before[key] != after[key]})
        """
    with program(tmp_path, source) as running:
        assert running.exit_status() == 0
        assert running.said == ['{"status": 1}', '{"changed": {}}'] * 2


def test_all_is_given_back_when_the_host_cannot_do_what_is_needed(tmp_path: Path) -> None:
    source = """
        import resource
        from sergeant_linux import Supervisor

        supervisor = Supervisor('worker', 'Worker', 2, log_format='json')
        for limit in range(13, 6, -1):  # the descriptors run out at one thing after another
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            before = state()
            try:
                supervisor.start()
            except SystemExit as exit:
                tell(status=exit.code)
            after = state()
            tell(changed={key: [before[key], after[key]] for key in before if before[key] != after[key]})
        """
    with program(tmp_path, source) as running:
        assert running.exit_status() == 0
        assert running.said == ['{"status": 4}', '{"changed": {}}'] * 7
        assert len(running.find('cant-run')) == 7


def test_a_pool_can_run_again_in_the_same_program(tmp_path: Path) -> None:
    source = """
        from sergeant_linux import Supervisor

        supervisor = Supervisor('worker', 'Worker', 1, log_format='json')
        for time in (1, 2, 3):
            try:
                supervisor.start()
            except SystemExit as exit:
                tell(status=exit.code)
        """
    with program(tmp_path, source) as running:
        for time in (1, 2, 3):
            running.hear('here', count=time)
            running.send(signal.SIGTERM)
            running.hear('status', count=time)
        assert running.exit_status() == 0
        assert len(running.find('worker-spawn')) == 3
        assert len(running.find('exit', status=0)) == 3


def test_the_programs_own_children_are_neither_ended_nor_reaped(tmp_path: Path) -> None:
    source = """
        import os, subprocess, sys, time
        from sergeant_linux import Supervisor

        child = subprocess.Popen(['sleep', '1000'])
        marked = subprocess.Popen(['sleep', '1000'], env={**os.environ, 'SERGEANT_WORKER_LIFE': '1', 'SERGEANT_WORKER_SLOT': '0'})
        gone = subprocess.Popen(['sh', '-c', 'exit 7'])
        # an orphan: its parent has left, and it falls to us, for we are a subreaper now
        subprocess.run(['sh', '-c', 'sleep 1000 & echo $! >orphan'])
        nested = subprocess.Popen([sys.executable, '-c', 'import subprocess; subprocess.run(["sleep", "1001"])'], start_new_session=True)
        os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
        try:
            Supervisor('worker', 'Worker', 2, log_format='json', restart_delay=0).start()
        except SystemExit:
            pass
        orphan = int(open('orphan').read())
        tell(alive=[child.poll(), marked.poll(), nested.poll()], gone=gone.wait(), orphan=os.path.exists(f'/proc/{orphan}'))
        os.kill(orphan, 9)
        os.killpg(nested.pid, 9)
        for each in (child, marked, nested):
            each.kill()
            each.wait()
        """
    with program(tmp_path, source) as running:
        running.hear('here', count=2)
        running.wait_for('worker-spawn', count=2)
        for pid in running.workers().values():
            kill(pid)
        running.hear('here', count=4)
        running.send(signal.SIGTERM)

        assert told(running, 'alive') == [None, None, None]
        assert told(running, 'gone') == 7
        assert told(running, 'orphan') is True
        assert running.exit_status() == 0


def test_children_that_the_program_starts_while_the_pool_runs_are_its_own(tmp_path: Path) -> None:
    source = """
        import os, subprocess, threading, time
        from sergeant_linux import Supervisor

        statuses = []

        def work():
            for _ in range(50):
                statuses.append(subprocess.run(['sh', '-c', '(sleep 0.01 &) ; exit 7']).returncode)
            tell(statuses=statuses)

        threading.Thread(target=work).start()
        Supervisor('worker', 'Worker', 2, log_format='json', restart_delay=0).start()
        """
    worker = """
        import time

        def Worker():
            time.sleep(0.01)
    """
    with program(tmp_path, source, worker) as running:
        assert told(running, 'statuses') == [7] * 50
        running.wait_for('worker-exit', count=20)
        assert running.stop() == 0
        assert {ending['return_code'] for ending in running.find('worker-exit', request=None)} == {0}


def test_a_program_that_reaps_our_workers_makes_their_end_unknown(tmp_path: Path) -> None:
    source = """
        import os, threading
        from sergeant_linux import Supervisor

        def reap():
            while True:
                try:
                    os.waitpid(-1, 0)
                except ChildProcessError:
                    os.sched_yield()

        threading.Thread(target=reap, daemon=True).start()
        Supervisor('worker', 'Worker', 2, log_format='json', restart_delay='10ms').start()
        """
    worker = """
        import os, time

        def Worker():
            if int(os.environ['SERGEANT_WORKER_LIFE']) > 8:
                time.sleep(1000)
            os._exit(9)
    """
    with program(tmp_path, source, worker) as running:
        endings = running.wait_for('worker-exit', count=8)
        unknown = [ending for ending in endings if ending['result'] == 'unknown']
        assert unknown, 'the program has never been quicker than we'
        for ending in unknown:
            assert (ending['return_code'], ending['signal']) == (None, None)
            assert ending['message'] == f'worker({ending["pid"]}) was reaped by somebody else: how it ended is not known'
        assert {ending['return_code'] for ending in endings if ending not in unknown} <= {9}
        assert len({ending['life'] for ending in endings}) == len(endings)
        running.wait_for('worker-spawn', life=10)
        assert running.stop() == 0
        running.wait_until_gone(1)


def test_a_program_that_ignores_sigchld_loses_no_exit_status(tmp_path: Path) -> None:
    source = """
        import signal
        from sergeant_linux import Supervisor

        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            Supervisor('worker', 'Worker', 2, log_format='json', restart_delay=0).start()
        except SystemExit:
            tell(handler=str(signal.getsignal(signal.SIGCHLD)))
        """
    worker = """
        import os

        def Worker():
            os._exit(9)
    """
    with program(tmp_path, source, worker) as running:
        running.wait_for('worker-exit', count=50)
        running.send(signal.SIGTERM)
        assert told(running, 'handler') == str(signal.SIG_IGN)
        assert {ending['return_code'] for ending in running.find('worker-exit', request=None)} == {9}


def test_start_off_the_main_thread_is_a_runtime_error_and_changes_nothing(tmp_path: Path) -> None:
    source = """
        import threading
        from sergeant_linux import Supervisor

        supervisor = Supervisor('worker', 'Worker', 1)
        before = state()

        def start():
            try:
                supervisor.start()
            except RuntimeError as error:
                tell(error=str(error))

        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        after = state()
        tell(changed={key: [before[key], after[key]] for key in before if before[key] != after[key]})
        """
    with program(tmp_path, source) as running:
        assert 'main thread' in told(running, 'error')
        assert told(running, 'changed') == {}
        assert running.exit_status() == 0
        assert not running.lines


@pytest.mark.parametrize(
    ('arguments', 'knobs', 'error', 'text'),
    [
        (('worker', 'Worker', 0), {}, ValueError, 'concurrent_workers'),
        (('worker', 'Worker', -1), {}, ValueError, 'concurrent_workers'),
        (('worker', 'Worker', True), {}, TypeError, 'concurrent_workers'),
        (('worker', 'Worker', 1.0), {}, TypeError, 'concurrent_workers'),
        (('', 'Worker', 1), {}, ValueError, 'worker_module_name'),
        (('worker', '', 1), {}, ValueError, 'worker_class_name'),
        ((b'worker', 'Worker', 1), {}, TypeError, 'worker_module_name'),
        (('worker', None, 1), {}, TypeError, 'worker_class_name'),
        (('worker', 'Worker', 1, 0), {}, ValueError, 'max_worker_memory_usage'),
        (('worker', 'Worker', 1, 'much'), {}, ValueError, 'max_worker_memory_usage'),
        (('worker', 'Worker', 1, None, 'no logger'), {}, TypeError, 'logger'),
        (('worker', 'Worker', 1), {'timeout_stop': float('nan')}, ValueError, 'timeout_stop'),
        (('worker', 'Worker', 1), {'timeout_stop': 0}, ValueError, 'timeout_stop'),
        (('worker', 'Worker', 1), {'timeout_stop': [1]}, TypeError, 'timeout_stop'),
        (('worker', 'Worker', 1), {'spawn': 'thread'}, ValueError, 'spawn'),
        (('worker', 'Worker', 1), {'preload': 1}, TypeError, 'preload'),
        (('worker', 'Worker', 1), {'restart_budget': 'few'}, ValueError, 'restart_budget'),
        (('worker', 'Worker', 1), {'no_such_knob': 1}, TypeError, 'no_such_knob'),
    ],
)
def test_wrong_values_are_errors_of_the_constructor(
    arguments: tuple[Any, ...], knobs: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Supervisor(*arguments, **knobs)


def test_the_ancestors_arguments_are_taken_by_position_and_by_name() -> None:
    by_position = Supervisor('worker', 'Worker', 4, 512)
    by_name = Supervisor(
        worker_module_name='worker', worker_class_name='Worker', concurrent_workers=4, max_worker_memory_usage=512, logger=None
    )
    assert by_position.policy == by_name.policy
    assert by_name.policy.max_worker_memory_usage == 512


def test_a_logger_of_the_programs_gets_every_record_with_the_ancestors_extra(tmp_path: Path) -> None:
    source = """
        import logging, logging.handlers, queue
        from sergeant_linux import Supervisor

        records = queue.Queue()

        class Tell(logging.Handler):
            def emit(self, record):
                tell(record=[record.levelname, record.getMessage(), record.supervisor, getattr(record, 'summary', None)])

        # as the ancestor's users do it: a handler with a thread of its own
        listener = logging.handlers.QueueListener(records, Tell())
        listener.start()
        logger = logging.Logger('mine', logging.INFO)
        logger.addHandler(logging.handlers.QueueHandler(records))
        try:
            Supervisor('worker', 'Worker', 1, 10**9, logger).start()
        finally:
            listener.stop()
        """
    worker = """
        import os
        from tests.scenarios.workers import OneTask

        class Worker(OneTask):
            def do(self, task):
                if os.environ['SERGEANT_WORKER_LIFE'] == '1':
                    raise SystemError
                self.stop()

            def finalize(self):
                if os.environ['SERGEANT_WORKER_LIFE'] == '1':
                    1 / 0
    """
    worker = worker.replace('raise SystemError', 'self.respawn()')
    with program(tmp_path, source, worker) as running:
        assert running.exit_status() == 0
        records = [json.loads(line)['record'] for line in running.said if line.startswith('{')]

    extra = {
        'worker_module_name': 'worker',
        'worker_class_name': 'Worker',
        'concurrent_workers': 1,
        'max_worker_memory_usage': 10**9,
    }
    assert [record[2] for record in records] == [extra] * len(records)
    assert 'memory is bounded' in records.pop(0)[1]
    messages = [record[1] for record in records]
    assert 'spawned a new worker' in messages[0]
    assert 'has requested to respawn' in messages[1]
    assert 'was respawned as' in messages[2]
    assert 'has requested to stop' in messages[3]
    respawned, stopped = records[1][3], records[3][3]
    assert (respawned['return_code'], respawned['respawn']) == (4, True)
    assert 'ZeroDivisionError' in respawned['finalize_exception']
    assert (stopped['return_code'], stopped['stop']) == (5, True)
    assert set(stopped) >= {
        'start_time', 'end_time', 'executor_exception', 'initialize_exception', 'finalize_exception', 'executor', 'respawn', 'stop'
    }
    assert set(stopped['executor']) == {'cpu_utilization', 'total_wall_time', 'total_cpu_time'}
    assert not running.lines, 'the default handler is not wanted beside a logger that is given'


def test_a_logger_that_raises_does_not_end_the_pool(tmp_path: Path) -> None:
    source = """
        import logging
        from sergeant_linux import Supervisor

        class Broken(logging.Handler):
            def emit(self, record):
                raise OSError('logstash is away')

        logger = logging.Logger('mine', logging.DEBUG)
        logger.addHandler(Broken())
        Supervisor('worker', 'Worker', 2, logger=logger, restart_delay=0).start()
        """
    with program(tmp_path, source) as running:
        running.hear('here', count=2)
        assert running.stop() == 0
        running.wait_until_gone(1)


def test_an_exception_that_another_handler_raises_ends_the_workers_first(tmp_path: Path) -> None:
    source = """
        import signal
        from sergeant_linux import Supervisor

        class Alarm(BaseException):
            pass

        def ring(*_):
            raise Alarm

        signal.signal(signal.SIGALRM, ring)
        before = state()
        try:
            Supervisor('worker', 'Worker', 2, log_format='json').start()
        except BaseException as error:
            tell(error=repr(error))
        after = state()
        tell(changed={key: [before[key], after[key]] for key in before if before[key] != after[key]})
        tell(children=os.path.exists('/proc/self/task') and [pid for pid in os.listdir('/proc') if pid.isdigit() and is_child(pid)])
        """
    source = textwrap.dedent(source).replace(
        'class Alarm',
        'def is_child(pid):\n'
        '    try:\n'
        "        return open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[1] == str(os.getpid())\n"
        '    except OSError:\n'
        '        return False\n\n'
        'class Alarm',
    )
    with program(tmp_path, source) as running:
        running.hear('here', count=2)
        running.send(signal.SIGALRM)

        error = told(running, 'error')
        assert told(running, 'changed') == {}
        assert told(running, 'children') == []
        assert error in ('Alarm()', 'SystemExit(70)')


def test_nothing_of_the_program_leaks_into_the_workers(tmp_path: Path) -> None:
    source = """
        import json, os, signal, socket, sys, threading
        from sergeant_linux import Supervisor

        sys.path.append('/only/in/the/program')
        os.environ['IN_THE_PROGRAM'] = 'set before the start'
        signal.signal(signal.SIGUSR2, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        listener = socket.create_server(('127.0.0.1', 0))
        os.set_inheritable(listener.fileno(), True)
        log = open('log', 'w')
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        Supervisor('worker', 'Worker', 1, log_format='json').start()
        """
    worker = """
        import json, os, signal, sys, threading, time

        def Worker():
            print(json.dumps({'seen': [
                len([fd for fd in range(200) if os.path.lexists(f'/proc/self/fd/{fd}')]),
                threading.active_count(),
                sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
                signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL,
                '/only/in/the/program' in sys.path,
                'program' in sys.modules or 'socketserver' in sys.modules,
                os.environ['IN_THE_PROGRAM'],
                sys.path[0] == os.getcwd(),
            ]}), flush=True)
            time.sleep(1000)
    """
    with program(tmp_path, source, worker) as running:
        assert told(running, 'seen') == [6, 1, [], True, False, False, 'set before the start', True]
        assert running.stop() == 0


def test_the_module_gives_the_same_names() -> None:
    import sergeant_linux

    assert sergeant_linux.Supervisor is Supervisor
    assert callable(sergeant_linux.ready)
    sergeant_linux.ready()  # outside of a worker they do nothing
    sergeant_linux.heartbeat()
    with pytest.raises(AttributeError):
        _ = sergeant_linux.no_such_name


def test_a_command_reaps_every_orphan_that_falls_to_it(tmp_path: Path) -> None:
    source = """
        import os, subprocess, time

        def Worker():
            for _ in range(20):
                subprocess.run(['sh', '-c', 'exec setsid env -i sh -c "exit 3" &'])
            print('here', flush=True)
            time.sleep(1000)
    """
    with pool(tmp_path, source) as running:
        running.hear('here')

        wait_until(lambda: not zombies_below(running.pid), 'orphans to be reaped')
        assert running.stop() == 0


def zombies_below(pid: int) -> list[str]:
    """Return the zombie children of a process."""
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            fields = (folder / 'stat').read_text().rpartition(')')[2].split()
        except OSError:
            continue
        if fields[0] == 'Z' and fields[1] == str(pid):
            found.append(folder.name)
    return found
