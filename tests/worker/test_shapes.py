"""The three shapes of a worker: what is run, when it is READY, and what each ending means."""

import socket
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.worker.life import Life, Start
from tests.worker.queues import Queue

Run = Callable[..., Life]


@pytest.fixture
def run(start: Start, tmp_path: Path) -> Run:
    """A function that writes a module `mine` with this code and starts the worker `mine.Mine`."""

    def run(code: str, attribute: str = 'Mine', **environ: str) -> Life:
        (tmp_path / 'mine.py').write_text(dedent(code))
        return start(attribute, 'mine', **environ)

    return run


def ending(life: Life) -> tuple[int, str | None]:
    """The return code, in the report and of the process, and the exception."""
    while (message := life.receive())['type'] != 'final':
        pass
    assert life.exit_code() == message['return_code']
    return message['return_code'], message['exception']


# -- loading ----------------------------------------------------------------------------------------------------------


def test_a_module_that_is_not_there_is_code_2(start: Start) -> None:
    life = start('Mine', 'not_there')

    assert ending(life) == (2, 'ModuleNotFoundError("No module named \'not_there\'")')


def test_a_module_that_imports_one_that_is_not_there_is_code_2_and_says_which(run: Run) -> None:
    assert ending(run('import not_there_either')) == (2, 'ModuleNotFoundError("No module named \'not_there_either\'")')


def test_an_attribute_that_is_not_there_is_code_3(run: Run) -> None:
    assert ending(run('')) == (3, 'AttributeError("module \'mine\' has no attribute \'Mine\'")')


@pytest.mark.parametrize('error', ['RuntimeError("no")', 'BaseException("no")', 'GeneratorExit("no")'])
def test_a_module_that_raises_is_code_7(run: Run, error: str) -> None:
    life = run(f'raise {error}')

    final = life.final()

    assert (final['return_code'], final['exception']) == (7, error.replace('"', "'"))
    assert 'mine.py", line 1, in <module>' in final['stacktrace']


@pytest.mark.parametrize('text', ['Mine = 4', 'class Mine: pass'])
def test_what_is_no_worker_is_code_7_and_the_error_says_what_one_is(run: Run, text: str) -> None:
    code, exception = ending(run(text))

    assert code == 7
    assert exception is not None
    assert 'mine.Mine is no worker: expected a class with init_worker() and work_loop(), ' in exception


# -- a class with run(), a callable -----------------------------------------------------------------------------------

ENDINGS = [
    ('pass', 0, None),
    ('raise ValueError(1)', 1, 'ValueError(1)'),
    ('raise BaseException(1)', 1, 'BaseException(1)'),
    ('raise SystemExit', 0, None),
    ('raise SystemExit(9)', 9, 'SystemExit(9)'),
    ('raise SystemExit(256 + 9)', 9, 'SystemExit(265)'),
    ('raise SystemExit("sorry")', 1, "SystemExit('sorry')"),
    ('raise KeyboardInterrupt', 0, None),
]


@pytest.mark.parametrize(('body', 'code', 'exception'), ENDINGS)
def test_run_returns_0_raises_1_and_exits_as_it_says(run: Run, body: str, code: int, exception: str | None) -> None:
    life = run(f'class Mine:\n    def run(self): {body}')

    assert life.ready() == {'type': 'ready', 'drain': False}
    assert ending(life) == (code, exception)


@pytest.mark.parametrize(('body', 'code', 'exception'), ENDINGS)
def test_a_function_returns_0_raises_1_and_exits_as_it_says(
    run: Run, body: str, code: int, exception: str | None
) -> None:
    life = run(f'def Mine(): {body}')

    assert life.ready() == {'type': 'ready', 'drain': False}
    assert ending(life) == (code, exception)


def test_a_text_given_to_system_exit_is_printed(run: Run, tmp_path: Path) -> None:
    run('def Mine(): raise SystemExit("sorry")').exit_code()

    assert (tmp_path / 'output').read_text() == 'sorry\n'


def test_a_constructor_that_raises_is_code_1_and_never_ready(run: Run) -> None:
    life = run('class Mine:\n    def __init__(self): raise ValueError(1)\n    def run(self): pass')

    assert life.final()['exception'] == 'ValueError(1)'
    assert life.exit_code() == 1


def test_a_worker_that_calls_ready_is_ready_then_and_only_once(run: Run) -> None:
    life = run(
        """
        from sergeant_linux.worker.ready import ready
        from tests.worker.workers import journal, wait_for_cue
        class Mine:
            calls_ready = True
            def run(self):
                journal('run')
                wait_for_cue()
                ready()
                ready()
        """
    )
    life.expect('run')
    assert not is_readable(life)

    life.cue()

    life.ready()
    life.final()


def test_a_child_of_the_worker_has_no_voice(run: Run) -> None:
    life = run(
        """
        import os
        from sergeant_linux.worker.ready import ready
        class Mine:
            calls_ready = True
            def run(self):
                pid = os.fork()
                if pid == 0:
                    ready()
                    os._exit(7)
                raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )

    assert life.final()['return_code'] == 7


def is_readable(life: Life) -> bool:
    try:
        life.gate.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return True


# -- a sergeant worker ------------------------------------------------------------------------------------------------


def sergeant(methods: str) -> str:
    return f'from tests.worker.workers import *\nclass Mine(Worker):\n    {methods}\n'


@pytest.mark.parametrize(
    ('methods', 'code', 'exception'),
    [
        ('def work(self, task): self.stop()', 5, None),
        ('def work(self, task): self.respawn()', 4, None),
        ('def work(self, task): pass', 0, None),
        ('def work(self, task): raise ValueError(1)', 0, None),
        ('def initialize(self): self.stop()', 5, None),
        ('def initialize(self): self.respawn()', 4, None),
        ('def initialize(self): raise ValueError(1)', 6, 'ValueError(1)'),
        ('def finalize(self): self.stop()', 5, None),
        ('def finalize(self): self.respawn()', 4, None),
        ('def finalize(self): raise ValueError(1)', 6, 'ValueError(1)'),
        ('def init_executor(self): pass', 6, "RuntimeError('executor_obj is not set')"),
        ('def init_worker(self): self.stop()', 5, None),
        ('def init_worker(self): self.respawn()', 4, None),
        ('def init_worker(self): raise ValueError(1)', 1, 'ValueError(1)'),
        ('def init_worker(self): raise SystemExit(9)', 9, 'SystemExit(9)'),
        ('def init_worker(self): raise KeyboardInterrupt', 0, None),
        ('def __init__(self): super().__init__(); self.stop()', 5, None),
        ('def __init__(self): super().__init__(); self.respawn()', 4, None),
        ('def work_loop(self): return {}', 1, "KeyError('respawn')"),
        ('def work_loop(self): self.stop()', 5, None),
    ],
)
def test_the_ways_of_a_sergeant_worker_to_end(
    run: Run, local_queue: Queue, methods: str, code: int, exception: str | None
) -> None:
    local_queue.push(1)
    life = run(sergeant(methods), PER_RUN='1', **local_queue.environ)

    while (message := life.receive())['type'] != 'final':
        pass

    assert (message['return_code'], message['exception']) == (code, exception)
    assert message['received_stop_signal'] is False
    assert (message['stacktrace'] is not None) == (exception is not None)
    assert life.exit_code() == code


def test_a_sergeant_worker_is_ready_when_initialize_has_returned(start: Start, local_queue: Queue) -> None:
    life = start('Worker', **local_queue.environ, WAIT_IN='initialize')
    life.expect('initialize')
    assert not is_readable(life)

    life.cue()

    assert life.ready() == {'type': 'ready', 'drain': True}


def test_a_sergeant_worker_that_fails_to_initialize_is_never_ready(run: Run, local_queue: Queue) -> None:
    life = run(sergeant('def initialize(self): raise ValueError(1)'), **local_queue.environ)

    assert life.final()['return_code'] == 6


def test_the_summary_comes_as_plain_data(run: Run, local_queue: Queue) -> None:
    local_queue.push(1)
    life = run(sergeant('def finalize(self): raise ValueError(1)'), PER_RUN='1', **local_queue.environ)
    life.ready()

    summary: dict[str, Any] = life.final()['summary']

    assert summary.keys() == {
        'start_time',
        'end_time',
        'executor_exception',
        'initialize_exception',
        'finalize_exception',
        'executor',
        'respawn',
        'stop',
    }
    assert summary['finalize_exception'] == 'ValueError(1)'
    assert summary['executor'].keys() == {'cpu_utilization', 'total_wall_time', 'total_cpu_time'}
    assert summary['start_time'][:2] == '20'
