"""The tally: counts a sergeant worker's tasks into its page, around the ancestor's own doing.

Facts: both executors of the ancestor do each task in one call of `execute_task`, in the thread that works on it, and
tell how it went by the worker's `post_work()`: when the time limit of the task has been lifted, before its `on_…()`.
A WorkerStop, SystemExit or KeyboardInterrupt may leave `execute_task` without that. With a stop guard, a stop may come
up to the end of work() and not after it.
Consequence: `execute_task` is where a task begins and ends, `post_work()` is where its outcome is heard.
Decision: both are shadowed on the instances, so that the class's own methods run as they would: the same arguments,
results, exceptions. A task is done when its work() has returned. It has failed when that raised, timed out, or is to be
retried; a task that is put back (requeued, stopped, respawned) is neither. A sign of life is given when the worker asks
for tasks, and once that has been seen, at the end of each task. READY is one for a worker with the ancestor's loop,
which is known to ask; one with a loop of its own may never do so, and then is not expected to.
Price: some microseconds a task. An executor of the user's own is not counted.

Invariant: what happens to a task is the same with a tally and without.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from sergeant_linux.wire.scoreboard import DONE, FAILED, SIGN, STARTED, Pen
from sergeant_linux.worker.report import text_of

COUNTED = ('sergeant.executor.serial', 'SerialExecutor'), ('sergeant.executor.threaded', 'ThreadedExecutor')
"""The executors that are counted, and what is derived of them."""


class Tally:
    """Counts the tasks of one worker whose executor exists."""

    def __init__(self, worker: Any, pen: Pen) -> None:
        self._worker = worker
        self._pen = pen
        self._lock = threading.Lock()
        self._started: dict[int, float] = {}
        self._outcome: dict[int, BaseException | None] = {}
        self._gives_signs = False
        self._silent = False

    def attach(self, *, asks: bool) -> None:
        """Begin to count. `asks`: the worker is known to ask for tasks, and is ready to."""
        worker, executor = self._worker, self._worker.executor_obj
        os.register_at_fork(after_in_child=self._fall_silent)
        worker.get_next_tasks = self._asking(worker.get_next_tasks)
        if any(isinstance(executor, _class(*named)) for named in COUNTED):
            executor.execute_task = self._counting(executor.execute_task)
            worker.post_work = self._hearing(worker.post_work)
        if asks:
            self._sign()

    def _fall_silent(self) -> None:
        """A child of the worker is not the worker."""
        self._silent = True
        self._lock = threading.Lock()

    def _sign(self) -> None:
        if not self._silent:
            self._gives_signs = True
            self._pen.times[SIGN] = time.monotonic()

    def _asking(self, get_next_tasks: Callable[..., Any]) -> Callable[..., Any]:
        def asking_get_next_tasks(*args: Any, **kwargs: Any) -> Any:
            self._sign()
            return get_next_tasks(*args, **kwargs)

        return asking_get_next_tasks

    def _hearing(self, post_work: Callable[..., Any]) -> Callable[..., Any]:
        def heard_post_work(*args: Any, **kwargs: Any) -> Any:
            if 'success' in kwargs:  # as the executors call it
                self._outcome[threading.get_ident()] = None if kwargs['success'] else kwargs.get('exception')
            return post_work(*args, **kwargs)

        return heard_post_work

    def _counting(self, execute_task: Callable[..., Any]) -> Callable[..., Any]:
        def counted_execute_task(*args: Any, **kwargs: Any) -> Any:
            thread = threading.get_ident()
            escaped: BaseException | None = None
            try:
                self._begin(thread)
                return execute_task(*args, **kwargs)
            except BaseException as exception:
                escaped = exception
                raise
            finally:
                self._end(thread, escaped)
                escaped = None  # or it would hold this frame, which holds it

        return counted_execute_task

    def _begin(self, thread: int) -> None:
        now = time.monotonic()
        with self._lock:
            if not self._started:
                self._publish(now)
            self._started[thread] = now

    def _end(self, thread: int, escaped: BaseException | None) -> None:
        """Count the task by what was heard of it, else by what came out of it."""
        failure = self._outcome.pop(thread, escaped)
        with self._lock:
            self._started.pop(thread, None)
            if self._silent:
                return
            self._publish(min(self._started.values(), default=0.0))
            if self._gives_signs:
                self._pen.times[SIGN] = time.monotonic()
            if failure is None:
                self._pen.numbers[DONE] += 1
            elif not _puts_back(failure):
                self._pen.numbers[FAILED] += 1
        if failure is not None and not _puts_back(failure):
            text = text_of(_cause(failure))  # the user's code: not under the lock
            with self._lock:
                self._pen.error(text)

    def _publish(self, started: float) -> None:
        if not self._silent:
            self._pen.times[STARTED] = started


def _puts_back(exception: BaseException) -> bool:
    return _is(exception, 'WorkerRequeue') or _is(exception, 'WorkerInterrupt')


def _cause(exception: BaseException) -> BaseException:
    """Return what a retry is about: the exception that was handled when it was asked for."""
    is_retry = _is(exception, 'WorkerRetry') or _is(exception, 'WorkerMaxRetries')
    return (exception.__context__ or exception) if is_retry else exception


def _is(exception: BaseException, name: str) -> bool:
    return isinstance(exception, _class('sergeant.worker', name))


def _class(module: str, name: str) -> Any:
    """Return a class of the ancestor's, or the tuple of none where the worker has not imported it."""
    return getattr(sys.modules.get(module), name, ())
