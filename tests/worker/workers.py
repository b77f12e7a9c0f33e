"""Workers for the tests: real sergeant workers that say where they are and wait to be told to go on.

Configured by the environment: CONNECTOR (JSON), THREADS, PER_TRANSACTION, PER_RUN, STARVING, TIMEOUT, TELL_LOG, and
WAIT_IN: the methods that say so and wait.
"""

import json
import logging
import os
import signal
from collections.abc import Iterable
from typing import Any

from sergeant import config, objects, worker

from tests.worker.queues import NAME


def journal(line: str) -> None:
    """Tell the test, in one line."""
    os.write(int(os.environ['JOURNAL']), f'{line}\n'.encode())


def wait_for_cue() -> None:
    """Wait until the test lets go."""
    os.read(int(os.environ['CUE']), 1)


def pause(where: str) -> None:
    """If the test wants it: say that we are here, and wait."""
    if where in os.environ.get('WAIT_IN', '').split():
        journal(where)
        wait_for_cue()


class Journal(logging.Handler):
    """Writes the worker's log into the journal."""

    def emit(self, record: logging.LogRecord) -> None:
        journal(record.getMessage())


class Worker(worker.Worker):
    """Says `begun ID`, `done ID` for each task; serial or threaded."""

    def generate_config(self) -> config.WorkerConfig:
        connector = json.loads(os.environ['CONNECTOR'])
        return config.WorkerConfig(
            name=NAME,
            connector=config.Connector(type=connector['type'], params=connector['params']),
            number_of_threads=int(os.environ.get('THREADS', '1')),
            tasks_per_transaction=int(os.environ.get('PER_TRANSACTION', '1')),
            max_tasks_per_run=int(os.environ.get('PER_RUN', '0')),
            timeouts=config.Timeouts(timeout=float(os.environ.get('TIMEOUT', '0'))),
            starvation=config.Starvation(time_with_no_tasks=1) if 'STARVING' in os.environ else None,
            logging=config.Logging(level=logging.INFO, handlers=[Journal()] if 'TELL_LOG' in os.environ else []),
        )

    def initialize(self) -> None:
        pause('initialize')

    def get_next_tasks(self, number_of_tasks: int, task_name: str | None = None) -> list[objects.Task]:
        tasks = super().get_next_tasks(number_of_tasks, task_name)
        if tasks:
            pause('fetched')
        return tasks

    def pre_work(self, task: objects.Task) -> None:
        pause('pre_work')

    def work(self, task: objects.Task) -> None:
        journal(f'begun {task.kwargs["id"]}')
        pause('work')
        journal(f'done {task.kwargs["id"]}')

    def post_work(self, task: objects.Task, success: bool, exception: BaseException | None) -> None:
        pause('post_work')

    def on_success(self, task: objects.Task, returned_value: Any) -> None:
        pause('on_success')

    def on_starvation(self, time_with_no_tasks: int) -> None:
        pause('on_starvation')
        journal('starved')

    def push_tasks(self, kwargs_list: Iterable[dict[str, Any]], *args: Any, **kwargs: Any) -> bool:
        pause('push_tasks')
        return super().push_tasks(kwargs_list, *args, **kwargs)

    def on_timeout(self, task: objects.Task) -> None:
        journal(f'timed out {task.kwargs["id"]}')

    def finalize(self) -> None:
        pause('finalize')
        journal(f'finalized {self.number_of_enqueued_tasks()}')


class Instant(Worker):
    """Works in no time, and writes each task's id into the file RESULTS."""

    def init_worker(self) -> None:
        super().init_worker()
        self.results = os.open(os.environ['RESULTS'], os.O_WRONLY | os.O_APPEND)

    def work(self, task: objects.Task) -> None:
        os.write(self.results, f'{task.kwargs["id"]}\n'.encode())


class Swallowing(Worker):
    """Takes every exception for its own."""

    def work(self, task: objects.Task) -> None:
        try:
            super().work(task)
        except BaseException as exception:
            journal(f'swallowed {type(exception).__name__}')


class SwallowingAtStart(Worker):
    def initialize(self) -> None:
        try:
            super().initialize()
        except BaseException as exception:
            journal(f'swallowed {type(exception).__name__}')


class Fetching(Worker):
    """Its work is to fetch a task by itself."""

    def work(self, task: objects.Task) -> None:
        journal(f'begun {task.kwargs["id"]}')
        for own in self.get_next_tasks(1):
            journal(f'fetched {own.kwargs["id"]}')


class Remembering(Worker):
    """Keeps the exception, its traceback, and so the executor's frames."""

    def post_work(self, task: objects.Task, success: bool, exception: BaseException | None) -> None:
        self.remembered = exception


class Stopping(Worker):
    """Asks to stop by itself, in its first task."""

    def work(self, task: objects.Task) -> None:
        super().work(task)
        self.stop()


class OwnHandler(Worker):
    """Says good-bye before it stops as the ancestor does."""

    def stop_signal_handler(self, signal_num: int, frame: Any) -> None:
        journal('good-bye')
        super().stop_signal_handler(signal_num, frame)


class Declining(Worker):
    """Registers a handler of its own that only takes notice."""

    def initialize(self) -> None:
        signal.signal(signal.SIGTERM, lambda signum, frame: journal('noticed'))


class Ignoring(Worker):
    def initialize(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Forking(Worker):
    """Its work is a child that waits to be ended by SIGTERM, as multiprocessing.Process.terminate() does."""

    def work(self, task: objects.Task) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                journal('child')
                signal.pause()
                journal('not stopped')
            except BaseException as exception:
                journal(f'child: {type(exception).__name__}')
            finally:
                os._exit(0)
        wait_for_cue()
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        journal('waited')


class Spinning(Worker):
    """Works in Python code for ever, in any thread."""

    def work(self, task: objects.Task) -> None:
        journal(f'begun {task.kwargs["id"]}')
        while True:
            pass


class OwnLoop(Worker):
    def work_loop(self) -> dict[str, Any]:
        journal('looping')
        return super().work_loop()


class OwnIteration(Worker):
    def iterate_tasks(self) -> Iterable[objects.Task]:
        yield from super().iterate_tasks()


class Constructed(Worker):
    def __init__(self) -> None:
        super().__init__()
        pause('__init__')


class Initialised(Worker):
    def init_worker(self) -> None:
        super().init_worker()
        pause('init_worker')
