"""How a life ends and what is said of it: return codes, signals, the ancestor's words, the record, what comes next."""

import re
import signal
import textwrap
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.scenarios.pool import Record, kill, pool, wait_until

SLEEPER: Final = """
import time

def Worker():
    time.sleep(1000)
"""


def one_task(do: str, *more: str) -> str:
    """Return the source of a real sergeant worker that does this in the one task it has, and has this in its class."""
    methods = ''.join(textwrap.indent(textwrap.dedent(each), '    ') + '\n' for each in more)
    return (
        'import os, signal, sys, threading, time\n'
        'from tests.scenarios.workers import OneTask\n\n'
        'class Worker(OneTask):\n'
        f'    def do(self, task):\n        {do}\n\n' + methods
    )


class End(NamedTuple):
    """A way to end and what is to be said about it; in `message` W stands for worker(PID)."""

    source: str
    return_code: int | None
    message: str
    level: str
    result: str = 'exit-code'
    signal: str | None = None
    exception: str | None = None


ENDS: Final = {
    'finished: as many tasks as it was to do': End(
        one_task('pass'), 0, 'W has finished successfully', 'info', 'success'
    ),
    'raised in init_worker': End(
        one_task('pass', 'def init_worker(self): raise ValueError("no broker")'),
        1,
        "W execution has failed with the following exception: ValueError('no broker')",
        'critical',
        exception="ValueError('no broker')",
    ),
    'asked to respawn': End(one_task('self.respawn()'), 4, 'W has requested to respawn', 'info', 'success'),
    'raised in initialize': End(
        one_task('pass', 'def initialize(self): raise KeyError(7)'),
        6,
        'W internal execution has failed',
        'critical',
        exception='KeyError(7)',
    ),
    'raised in finalize': End(
        one_task('pass', 'def finalize(self): raise KeyError(8)'),
        6,
        'W internal execution has failed',
        'critical',
        exception='KeyError(8)',
    ),
    'left by itself with 9': End(
        one_task('os._exit(9)'), 9, 'W execution has been interrupted with return code: 9', 'critical'
    ),
    'left by itself with 255': End(
        one_task('os._exit(255)'), 255, 'W execution has been interrupted with return code: 255', 'critical'
    ),
    'SystemExit in a task': End(
        one_task('sys.exit(11)'),
        11,
        'W execution has been interrupted with return code: 11',
        'critical',
        exception='SystemExit(11)',
    ),
    'killed by SIGKILL': End(
        one_task('signal.raise_signal(signal.SIGKILL)'),
        None,
        'W execution has been interrupted with return code: -9',
        'critical',
        'signal',
        'SIGKILL',
    ),
    'killed by a real-time signal': End(
        one_task('signal.raise_signal(signal.SIGRTMIN + 3)'),
        None,
        f'W execution has been interrupted with return code: -{signal.SIGRTMIN + 3}',
        'critical',
        'signal',
        f'SIG{signal.SIGRTMIN + 3}',
    ),
    'killed by a fault': End(
        one_task('import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()'),
        None,
        'W execution has been interrupted with return code: -6',
        'critical',
        'signal',
        'SIGABRT',
    ),
    'run() has returned': End(
        'class Worker:\n    def run(self): pass', 0, 'W has finished successfully', 'info', 'success'
    ),
    'run() has raised': End(
        'class Worker:\n    def run(self): raise OSError(5, "gone")',
        1,
        "W execution has failed with the following exception: OSError(5, 'gone')",
        'critical',
        exception="OSError(5, 'gone')",
    ),
    'run() has left with a text': End(
        'class Worker:\n    def run(self): raise SystemExit("no more")',
        1,
        "W execution has failed with the following exception: SystemExit('no more')",
        'critical',
        exception="SystemExit('no more')",
    ),
    'a function has returned': End('def Worker(): pass', 0, 'W has finished successfully', 'info', 'success'),
}


@pytest.mark.parametrize('end', ENDS.values(), ids=ENDS.keys())
def test_an_end_is_told_in_the_ancestors_words_and_the_worker_is_replaced(tmp_path: Path, end: End) -> None:
    with pool(tmp_path, end.source, restart_delay='20ms', environ={'PER_RUN': '1'}) as running:
        running.wait_for('worker-spawn', count=2)

        (record,) = running.find('worker-exit', life=1)
        message = re.sub('^W', f'worker({record["pid"]})', end.message)
        assert (record['message'], record['level']) == (message, end.level)
        assert record['return_code'] == end.return_code
        assert record['result'] == end.result
        assert record['signal'] == end.signal
        assert record['exception'] == end.exception
        assert (record['restart_in_seconds'] == 0.0) is (end.result == 'success')
        (respawn,) = running.find('worker-spawn', life=2)
        assert respawn['message'] == f'worker({record["pid"]}) was respawned as worker({respawn["pid"]})'


FATAL_ENDS: Final = {
    'no such module': End('import nothing_of_this_name', 2, 'could not load worker module: worker', 'critical'),
    'no such class': End('', 3, 'could not find worker class: worker.Worker', 'critical'),
    'import raises': End(
        'raise ZeroDivisionError("1/0")',
        7,
        "W importing the worker module has raised an exception: ZeroDivisionError('1/0')",
        'critical',
        exception="ZeroDivisionError('1/0')",
    ),
    'no worker': End(
        'Worker = 7',
        7,
        "W importing the worker module has raised an exception: TypeError('worker.Worker is no worker: expected a class "
        "with init_worker() and work_loop(), a class with run(), or a function; got 7')",
        'critical',
    ),
}


@pytest.mark.parametrize('end', FATAL_ENDS.values(), ids=FATAL_ENDS.keys())
def test_a_worker_that_cannot_be_loaded_is_told_in_the_ancestors_words_and_costs_one_process(
    tmp_path: Path, end: End
) -> None:
    with pool(tmp_path, end.source, concurrent_workers=8) as running:
        assert running.exit_status() == 1

        (record,) = running.find('worker-exit')
        message = re.sub('^W', f'worker({record["pid"]})', end.message)
        assert (record['message'], record['level']) == (message, end.level)
        assert record['return_code'] == end.return_code
        assert end.exception is None or record['exception'] == end.exception
        assert record['exception'] is not None
        assert record['restart_in_seconds'] is None
        assert len(running.find('worker-spawn')) == 1
        assert running.records[-1]['message'] == 'exiting...'


def test_the_text_log_has_the_ancestors_lines(tmp_path: Path) -> None:
    source = """
        import os, time
        from tests.scenarios.workers import OneTask

        class Worker(OneTask):
            def do(self, task):
                if os.environ['SERGEANT_WORKER_LIFE'] == '1':
                    self.respawn()
    """
    with pool(tmp_path, source, log_format='text', log_level='info') as running:
        running.wait_for_line('was respawned')
        running.hear('done')
        assert running.stop() == 0

        line = re.compile(rf'\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d Supervisor   {running.pid} INFO     (.+)')
        matches = [line.fullmatch(each) for each in running.lines]
        assert None not in matches, running.lines
        backend, *said = [match[1] for match in matches if match is not None]
        assert backend.startswith('memory is bounded')
        pids = dict.fromkeys(re.findall(r'(?:worker\(|pid: )(\d+)', '\n'.join(said)))
        first, second = pids
        assert said == [
            f'spawned a new worker at pid: {first}',
            f'worker({first}) has requested to respawn',
            f'worker({first}) was respawned as worker({second})',
            'SIGTERM was received, triggering a stopping process',
            f'worker({second}) has requested to stop',
            f'worker({second}) has stopped',
            'no more workers to supervise',
            'exiting...',
        ]


TYPES: Final[dict[str, tuple[type, ...]]] = {
    'slot': (int,),
    'life': (int,),
    'pid': (int,),
    'result': (str,),
    'return_code': (int, type(None)),
    'signal': (str, type(None)),
    'uptime_seconds': (float,),
    'max_rss_bytes': (int, type(None)),
    'cpu_seconds': (float,),
    'restart_in_seconds': (float, type(None)),
    'exception': (str, type(None)),
}
"""The record of an end: what programs read."""


def assert_is_record_of_an_end(record: Record) -> None:
    wrong = {key: record.get(key, 'missing') for key, types in TYPES.items() if type(record.get(key, ...)) not in types}
    assert not wrong, record
    assert (record['return_code'] is None) == (record['signal'] is not None) or record['result'] == 'unknown'


def test_every_life_has_one_record_of_its_end_with_all_its_fields(tmp_path: Path) -> None:
    source = """
        import os, signal, time

        def Worker():
            match int(os.environ['SERGEANT_WORKER_LIFE']):
                case 1: return
                case 2: os._exit(200)
                case 3: signal.raise_signal(signal.SIGKILL)
                case 4: raise ValueError
                case 5: os._exit(6)
                case _: time.sleep(1000)
    """
    with pool(tmp_path, source, restart_delay=0, max_worker_memory_usage='1G') as running:
        running.wait_for('worker-ready', life=6)
        wait_until(lambda: running.find('worker-exit', life=5), 'the fifth end')
        assert running.stop() == 0

        records = running.find('worker-exit')
        assert [record['life'] for record in records] == [1, 2, 3, 4, 5, 6]
        for record in records:
            assert_is_record_of_an_end(record)
        assert [record['return_code'] for record in records] == [0, 200, None, 1, 6, None]
        assert [record['signal'] for record in records] == [None, None, 'SIGKILL', None, None, 'SIGTERM']
        assert [record['restart_in_seconds'] for record in records] == [0.0] * 5 + [None]
        assert records[-1]['max_rss_bytes'] > 1024**2
        assert records[-1]['result'] == 'success'
        assert records[-1]['uptime_seconds'] < 60


def test_cpu_time_is_that_of_the_life(tmp_path: Path) -> None:
    source = """
        import time

        def Worker():
            while time.process_time() < 0.3:
                pass
    """
    with pool(tmp_path, source) as running:
        (ending, *_) = running.wait_for('worker-exit')

        assert ending['cpu_seconds'] == pytest.approx(0.3, abs=0.1)
        assert ending['uptime_seconds'] >= 0.3


def test_a_worker_that_wants_to_stop_stops_the_pool(tmp_path: Path) -> None:
    source = """
        import os, time
        from tests.scenarios.workers import OneTask, say

        class Worker(OneTask):
            def do(self, task):
                if os.environ['SERGEANT_WORKER_SLOT'] == '1':
                    time.sleep(0.2)
                    self.stop()

            def finalize(self):
                say('finalized')
    """
    with pool(tmp_path, source, concurrent_workers=3) as running:
        assert running.exit_status() == 0

        assert len(running.find('worker-spawn')) == 3
        first, *others = running.find('worker-exit')
        assert (first['slot'], first['return_code'], first['result'], first['request']) == (1, 5, 'success', None)
        assert [(other['return_code'], other['request']) for other in others] == [(5, 'stop'), (5, 'stop')]
        assert len(running.find('worker-stopped')) == 3
        assert running.said.count('finalized') == 3
        assert [record['message'] for record in running.records[-2:]] == ['no more workers to supervise', 'exiting...']


def test_a_worker_that_a_stranger_has_told_to_stop_is_replaced_with_a_warning(tmp_path: Path) -> None:
    source = """
        from tests.scenarios.workers import Tasks as Worker
    """
    with pool(tmp_path, source, concurrent_workers=2) as running:
        running.wait_for('worker-ready', count=2)
        pid = running.workers()[1]

        kill(pid, signal.SIGTERM)

        running.wait_for('worker-ready', life=3)
        (ending,) = running.find('worker-exit')
        assert (ending['pid'], ending['return_code'], ending['result']) == (pid, 5, 'exit-code')
        assert ending['message'] == f'worker({pid}) has requested to stop'
        assert ending['restart_in_seconds'] == 0.0
        (detail,) = running.find('worker-exit-detail')
        assert (detail['level'], detail['message']) == (
            'warning',
            f'worker({pid}) was told to stop by somebody else: replacing it',
        )
        assert running.stop() == 0


def test_a_plain_worker_that_a_stranger_ends_is_replaced(tmp_path: Path) -> None:
    with pool(tmp_path, SLEEPER, restart_delay='20ms') as running:
        running.wait_for('worker-ready')
        kill(running.workers()[1], signal.SIGTERM)

        running.wait_for('worker-ready', life=2)
        (ending,) = running.find('worker-exit')
        assert (ending['signal'], ending['result'], ending['return_code']) == ('SIGTERM', 'signal', None)


@pytest.mark.slow
def test_threads_that_cannot_be_ended_are_named(tmp_path: Path) -> None:
    source = """
        import os, threading, time
        from tests.scenarios.workers import OneTask

        class Worker(OneTask):
            def do(self, task):
                if os.environ['SERGEANT_WORKER_LIFE'] == '1':
                    threading.Thread(target=time.sleep, args=(1000,), name='sleeper').start()
                    threading.Thread(target=time.sleep, args=(1000,), name='daemon', daemon=True).start()
                    self.respawn()
    """
    with pool(tmp_path, source) as running:
        running.wait_for('worker-ready', life=2)

        (warning,) = running.find('unkillable-threads')
        (ending,) = running.find('worker-exit')
        assert warning['level'] == 'warning'
        assert warning['message'] == f"worker({ending['pid']}) had unkillable_threads: ['sleeper', 'daemon']"
        assert (ending['return_code'], ending['message']) == (4, f'worker({ending["pid"]}) has requested to respawn')
        assert ending['summary']['unkillable_threads'] == ['sleeper', 'daemon']
        assert ending['restart_in_seconds'] == 0.0


def test_the_others_are_started_when_the_first_is_ready(tmp_path: Path) -> None:
    source = """
        import os, time
        import sergeant_linux

        class Worker:
            calls_ready = True

            def run(self):
                print('started', os.environ['SERGEANT_WORKER_SLOT'], flush=True)
                while not os.path.exists('go'):
                    time.sleep(0.01)
                sergeant_linux.ready()
                time.sleep(1000)
    """
    with pool(tmp_path, source, concurrent_workers=4) as running:
        running.hear('started 0')
        running.send(signal.SIGUSR1)
        slots = running.wait_for('slot-status', count=4)
        assert [slot['state'] for slot in slots] == ['start', 'dead', 'dead', 'dead']

        (tmp_path / 'go').touch()

        running.wait_for('worker-ready', count=4)
        assert running.find('worker-ready')[0]['slot'] == 0


def test_a_canary_that_fails_is_tried_again_alone(tmp_path: Path) -> None:
    source = """
        import os

        class Worker:
            calls_ready = True

            def run(self):
                os._exit(9)
    """
    with pool(tmp_path, source, concurrent_workers=4, restart_delay='10ms') as running:
        running.wait_for('worker-exit', count=4)

        assert {birth['slot'] for birth in running.find('worker-spawn')} == {0}
        assert running.stop() == 0


def test_the_delay_grows_with_each_failure_to_its_cap(tmp_path: Path) -> None:
    source = """
        import os

        def Worker():
            os._exit(9)
    """
    with pool(tmp_path, source, restart_delay='50ms', restart_max_delay='300ms') as running:
        endings = running.wait_for('worker-exit', count=6)[:6]

        nominal = [0.05, 0.1, 0.2, 0.3, 0.3, 0.3]
        delays = [ending['restart_in_seconds'] for ending in endings]
        assert delays == [pytest.approx(each, rel=0.11) for each in nominal]
        assert max(delays) <= 0.3
        assert len(set(delays)) > 3, 'no jitter'


def test_a_life_that_has_stood_long_enough_is_replaced_at_once_and_the_delay_begins_anew(tmp_path: Path) -> None:
    source = """
        import os, time

        def Worker():
            if os.environ['SERGEANT_WORKER_LIFE'] == '3':
                time.sleep(0.4)
            os._exit(9)
    """
    with pool(tmp_path, source, restart_delay='50ms', restart_reset='300ms') as running:
        endings = running.wait_for('worker-exit', count=4)[:4]

        delays = [ending['restart_in_seconds'] for ending in endings]
        assert delays == [pytest.approx(nominal, rel=0.11) for nominal in (0.05, 0.1, 0.0, 0.05)]


def test_a_spent_budget_stops_the_pool_in_an_orderly_way_with_status_3(tmp_path: Path) -> None:
    source = """
        import os, signal, time
        from tests.scenarios.workers import OneTask, say

        class Worker(OneTask):
            def do(self, task):
                if os.environ['SERGEANT_WORKER_SLOT'] == '0':
                    os._exit(9)

            def finalize(self):
                say('finalized')
    """
    with pool(tmp_path, source, concurrent_workers=2, restart_delay='100ms', restart_budget='3/1min') as running:
        assert running.exit_status() == 3

        failures = running.find('worker-exit', return_code=9)
        assert len(failures) == 4
        assert failures[-1]['restart_in_seconds'] is None
        (spent,) = running.find('restart-budget-spent')
        assert spent['level'] == 'critical'
        (other,) = running.find('worker-exit', slot=1)
        assert (other['return_code'], other['request']) == (5, 'stop')
        assert running.said.count('finalized') == 1


def test_requested_ends_take_nothing_from_the_budget(tmp_path: Path) -> None:
    source = """
        import os, time

        def Worker():
            if int(os.environ['SERGEANT_WORKER_LIFE']) < 10:
                return
            time.sleep(1000)
    """
    with pool(tmp_path, source, restart_budget='1/1h') as running:
        running.wait_for('worker-ready', life=10)
        assert running.stop() == 0


def test_code_that_breaks_under_a_running_pool_is_a_failed_start_and_the_others_live_on(tmp_path: Path) -> None:
    with pool(tmp_path, SLEEPER, concurrent_workers=2, restart_delay='50ms', restart_reset=0) as running:
        running.wait_for('worker-ready', count=2)
        survivor = running.workers()[2]
        (tmp_path / 'worker.py').write_text('this is no Python')

        kill(running.workers()[1])

        failures = running.wait_for('worker-exit', count=3, return_code=7)
        assert [failure['slot'] for failure in failures] == [0, 0, 0]
        delays = [failure['restart_in_seconds'] for failure in failures]
        assert delays == [pytest.approx(each, rel=0.11) for each in (0.05, 0.1, 0.2)]

        (tmp_path / 'worker.py').write_text(SLEEPER)

        running.wait_for('worker-ready', count=3)
        assert running.workers()[2] == survivor
        assert running.stop() == 0


def test_a_worker_that_does_not_become_ready_in_time_is_ended_and_tried_again(tmp_path: Path) -> None:
    source = """
        import os, time
        from tests.scenarios.workers import Tasks

        class Worker(Tasks):
            def initialize(self):
                if os.environ['SERGEANT_WORKER_LIFE'] == '1':
                    time.sleep(1000)
    """
    with pool(tmp_path, source, timeout_start='1s', restart_delay='20ms') as running:
        running.wait_for('worker-ready', life=2)

        (overdue,) = running.find('worker-start-timeout')
        (ending,) = running.find('worker-exit')
        assert overdue['message'] == f'worker({ending["pid"]}) was not ready within 1s: stopping it'
        assert (ending['result'], ending['uptime_seconds']) == ('timeout', pytest.approx(1, abs=0.3))
        assert ending['restart_in_seconds'] == pytest.approx(0.02, rel=0.11)


@pytest.mark.parametrize(
    ('flags', 'named'),
    [
        ({'concurrent_workers': 0}, ['--concurrent-workers', '0']),
        ({'timeout_stop': 'soon'}, ['--timeout-stop', 'soon']),
        ({'no_such_flag': '1'}, ['--no-such-flag']),
        ({'worker_class': 'a b'}, ['--worker-class', 'a b']),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(tmp_path: Path, flags: dict[str, Any], named: list[str]) -> None:
    with pool(tmp_path, SLEEPER, **flags) as running:
        assert running.exit_status() == 2

        (line,) = running.lines
        assert all(word in line for word in named)


def test_a_host_that_does_not_give_the_descriptors_is_status_4(tmp_path: Path) -> None:
    statuses = set()
    for limit in (5, 6, 8, 10):
        with pool(tmp_path, SLEEPER, command=limited_descriptors(limit)) as running:
            statuses.add(running.exit_status())
            (line,) = running.lines
            assert 'Too many open files' in line or f'the limit (RLIMIT_NOFILE) is {limit}' in line
            assert not [line for line in running.lines if 'Traceback' in line]

    assert statuses == {4}


def limited_descriptors(limit: int) -> list[str]:
    """Return a command that runs the supervisor with a limit on its descriptors."""
    program = (
        'import resource, runpy;'
        'import sergeant_linux.supervisor, sergeant_linux.cli.verbs.run;'  # what is imported needs a descriptor, too
        f'resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}));'
        'sergeant_linux.supervisor.main()'
    )
    return ['-c', program]


def test_an_error_of_our_own_ends_the_workers_and_is_status_70(tmp_path: Path) -> None:
    program = (
        'import sergeant_linux.control.status as status, sergeant_linux.supervisor as supervisor;'
        'status.Status.tell = lambda self, journal: 1 / 0;'  # there is no known error to provoke: plant one
        'supervisor.main()'
    )
    source = """
        import subprocess, time

        def Worker():
            subprocess.Popen(['sleep', '1000'], start_new_session=True)
            print('here', flush=True)
            time.sleep(1000)
    """
    with pool(tmp_path, source, concurrent_workers=3, command=['-c', program]) as running:
        running.hear('here', count=3)

        running.send(signal.SIGUSR1)

        assert running.exit_status() == 70
        running.wait_until_gone()
        (error,) = running.find('internal-error')
        assert error['level'] == 'critical'
        assert 'ZeroDivisionError' in error['traceback']
        assert running.find('exit', status=70)


def test_the_console_command_runs_the_same_pool(tmp_path: Path) -> None:
    scripts = tmp_path / 'bin'
    scripts.mkdir()
    script = scripts / 'sergeant-linux'  # its own folder is on its path, not the working folder
    script.write_text('from sergeant_linux.__main__ import main\nmain()\n')
    with pool(tmp_path, SLEEPER, command=[str(script), 'run']) as running:
        running.wait_for('worker-ready')
        assert running.stop() == 0


def test_options_can_come_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / 'worker.py').write_text(SLEEPER)
    environ = {'SERGEANT_LINUX_TIMEOUT_START': '1h', 'SERGEANT_LINUX_RESTART_DELAY': '0'}
    with pool(tmp_path, None, environ=environ) as running:
        running.wait_for('worker-ready')
        kill(running.workers()[1])
        (ending,) = running.wait_for('worker-exit')
        assert ending['restart_in_seconds'] == 0.0
        assert running.stop() == 0
