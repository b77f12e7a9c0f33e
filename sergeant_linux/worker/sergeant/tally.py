"""The tally: counts a sergeant worker's tasks into its page, around the ancestor's own doing.

Facts: both executors of the ancestor do each task in one call of `execute_task`, in the thread that works on it, and
tell how it went in one call of their own `post_work`, which lifts the time limit of the task and calls the worker's.
A WorkerStop, SystemExit or KeyboardInterrupt may leave `execute_task` without that. With a stop guard, a stop may come
up to the end of work() and not after it.
Consequence: `execute_task` is where a task begins and ends, `post_work` is where its outcome is heard.
Decision: these two functions of the ancestor's executors, and the worker's `get_next_tasks`, are wrapped in the
ancestor's classes, in this process: nothing is set on the user's objects, or on what is pickled with them. They are
called as they would be: the same arguments, results, exceptions. Only one worker and its executor are counted. A task
is done when its work() has returned. It has failed when that raised, timed out, or is to be retried; a task that is put
back (requeued, stopped, respawned) is neither. A sign of life is given when the worker asks for tasks, and once that
has been seen, at the end of each task. READY is one for a worker with the ancestor's loop, which is known to ask; one
with a loop of its own may never do so, and then is not expected to.
Price: some microseconds a task. An executor of the user's own is not counted, but as far as it uses the ancestor's
`execute_task`; a `get_next_tasks()` of the user's own that doesn't use the ancestor's is seen by the stop guard alone.

Invariant: what happens to a task is the same with a tally and without.
"""

import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from sergeant_linux.wire.scoreboard import DONE, FAILED, SIGN, STARTED, Pen
from sergeant_linux.worker.report import text_of
from sergeant_linux.worker.sergeant.view import behind

COUNTED = ('sergeant.executor.serial', 'SerialExecutor'), ('sergeant.executor.threaded', 'ThreadedExecutor')
"""The executors that are counted, and what is derived of them."""

Function = Callable[..., Any]


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
        os.register_at_fork(after_in_child=self._fall_silent)
        _wrap(_class('sergeant.worker', 'Worker'), 'get_next_tasks', self._asking)
        for named in COUNTED:
            _wrap(_class(*named), 'execute_task', self._counting)
            _wrap(_class(*named), 'post_work', self._hearing)
        if asks:
            self.sign()

    def _fall_silent(self) -> None:
        """A child of the worker is not the worker."""
        self._silent = True
        self._lock = threading.Lock()

    def sign(self) -> None:
        """Give a sign of life."""
        if not self._silent:
            self._gives_signs = True
            self._pen.times[SIGN] = time.monotonic()

    def _is_ours(self, executor: Any) -> bool:
        return not self._silent and behind(executor) is self._worker.executor_obj

    def _asking(self, get_next_tasks: Function) -> Function:
        def asking_get_next_tasks(worker: Any, *args: Any, **kwargs: Any) -> Any:
            if worker is self._worker:
                self.sign()
            return get_next_tasks(worker, *args, **kwargs)

        return asking_get_next_tasks

    def _hearing(self, post_work: Function) -> Function:
        def heard_post_work(executor: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return post_work(executor, *args, **kwargs)
            finally:
                if 'success' in kwargs and self._is_ours(executor):  # as the executors call it
                    self._outcome[threading.get_ident()] = None if kwargs['success'] else kwargs.get('exception')

        return heard_post_work

    def _counting(self, execute_task: Function) -> Function:
        def counted_execute_task(executor: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._is_ours(executor):
                return execute_task(executor, *args, **kwargs)
            thread = threading.get_ident()
            escaped: BaseException | None = None
            try:
                self._begin(thread)
                return execute_task(executor, *args, **kwargs)
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


def _wrap(class_: Any, name: str, wrapper: Callable[[Function], Function]) -> None:
    """Have what `wrapper` makes of it take the place of a function of a class that the worker has imported."""
    if class_:
        setattr(class_, name, functools.wraps(getattr(class_, name))(wrapper(getattr(class_, name))))


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
