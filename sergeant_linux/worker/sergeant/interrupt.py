"""Interrupting tasks that run in the threads of sergeant's threaded executor.

Facts. On SIGTERM the main thread stops fetching, and the executor waits for the tasks in its threads. Those that take
longer than the supervisor's patience die by SIGKILL: lost. CPython can raise an exception in another thread; it lands
at any bytecode until it is taken back: in the task or, when that has just returned, in the machinery around it.
Consequence. It may only be sent to a thread that is inside of work(), and when the thread leaves work() the exception
must have landed or be taken back.
Decision. A thread that is inside is marked; the mark is set, looked at and removed under one lock. Who leaves removes
it and takes back what has not landed, under that lock; so nothing lands later. The exception may land in the leaving
itself, so leaving is done twice: a thread is sent one exception in its life, which can't break both.
The thread puts its interrupted task back itself, at once, whatever the other threads do. Then the exception goes its
usual way through the executor, as a WorkerStop.
Price. A thread that is blocked in C code does not notice. A task whose work() has just returned may be begun again.

Invariant: the exception never lands outside of `work`, and a task it has landed in is put back once.
"""

import sys
import threading
from typing import Any

from sergeant_linux.worker.threads import raise_in_thread


class Interrupter:
    """Has a `work()` for a worker with a threaded executor that can be interrupted from the main thread."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._inside: set[int] = set()
        self._pushing = threading.Lock()
        self.interrupted = False
        stop = sys.modules['sergeant.worker'].WorkerStop
        self._interruption: type[BaseException] = type('Interruption', (stop,), {})  # no WorkerStop of the task's own

    def interrupt_all(self) -> None:
        """Interrupt every task that runs, and every one that is begun later. To be called once, in the main thread."""
        with self._lock:
            self.interrupted = True
            for ident in self._inside:
                raise_in_thread(ident, self._interruption)

    def work(self, *args: Any, **kwargs: Any) -> Any:
        """Do the task's work; when it is interrupted, put the task back and raise a WorkerStop."""
        if threading.current_thread() is threading.main_thread():  # it may hold the lock when interrupt_all() comes
            return self._worker.work(*args, **kwargs)
        try:
            return self._interruptible(threading.get_ident(), args, kwargs)
        except self._interruption:
            task = self._worker.executor_obj.get_current_task()
            if task is not None:
                self.push_in_turn(kwargs_list=[task.kwargs], priority='HIGH')
            raise

    def push_in_turn(self, *args: Any, **kwargs: Any) -> Any:
        """Put tasks back, one thread at a time.

        A stop makes many threads put tasks back at once. The local broker has one SQLite connection for all of them,
        and Python 3.12 and newer may give two threads the same prepared statement: one task would be put back twice,
        the other lost.
        """
        with self._pushing:
            return self._worker.push_tasks(*args, **kwargs)

    def _interruptible(self, ident: int, args: Any, kwargs: Any) -> Any:
        try:
            self._enter(ident)
            return self._worker.work(*args, **kwargs)
        finally:
            try:
                self._leave(ident)
            finally:
                self._leave(ident)

    def _enter(self, ident: int) -> None:
        with self._lock:
            if self.interrupted:
                raise self._interruption
            self._inside.add(ident)

    def _leave(self, ident: int) -> None:
        with self._lock:
            self._inside.discard(ident)
            raise_in_thread(ident, None)
