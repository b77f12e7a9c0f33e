"""The stop guard: lets a stop reach a sergeant worker only where no task can get lost by it.

Facts. The ancestor's SIGTERM handler raises WorkerStop wherever the main thread happens to be, and resets SIGTERM to
its default. Its loop (`Worker.iterate_tasks`, a generator) pops tasks, yields them to the executor one by one, and at
its end puts back what was not worked on: all after the task it yielded last, and with `received_stop_signal` that one
too. So
- a WorkerStop between the broker's pop and the generator's `try` loses what was popped;
- one that comes after a task's work has that task begun again;
- a second SIGTERM kills the process while it puts tasks back;
- with threads, the task that was yielded last runs in another thread: it would be put back *and* finished.

Consequence. A stop has to wait for a moment where the ancestor's own clean-up is right. Seen from outside of it:

    where the main thread is                                    bar           why
    entering the loop's own get_next_tasks()                    OPEN          nothing is in hand
    in there, and until the task is in our hand                 CLOSED        what was popped is in no list yet
    there was none: the loop sleeps for a second                OPEN          nothing is in hand
    in handle_starvation(), the user's code                     SIGTERM_ONLY  DRAIN interrupts no code of the user's
    the task is in our hand, not handed on yet                  OPEN          it goes back, never begun
    serial: from the hand-over until work() has returned        SIGTERM_ONLY  it goes back, and is begun again
    serial: after work()                                        CLOSED        it is done
    threads: from the hand-over on                              CLOSED        it is begun in another thread
    after the loop: finalize() and all that follows             CLOSED        already leaving

Decision. `bar` says what may pass now, `wish` what was asked for. The handlers of SIGTERM and of SIGURG (DRAIN: the
supervisor writes to the gate, and knocks) note the wish and deliver the stop at once if it passes the bar; else it is
delivered when the bar next goes down that far. To deliver is to raise WorkerStop as the ancestor does, whose clean-up
does the rest. The wish stays, so that a stop which the user's code has swallowed is delivered again at the next such
moment. The ancestor's loop and its executors' functions run over views (view.py) of the worker and its executor, in
which the methods that count here are ours; the guard is armed when `initialize()` has returned, and until then the
ancestor's handler is in place.

Python runs signal handlers in the main thread, between two bytecodes (docs: signal, "Execution of Python signal
handlers"). So one assignment to `bar` is a border that no handler can straddle, and only `interrupt` needs a lock.

Price. Between the last bytecode of the user's work() and `bar = CLOSED` a SIGTERM still has a finished task begun again
(never lost). A class with an `iterate_tasks()` or `work_loop()` of its own has no guard: only that knows what it holds.
Tasks that the user's code fetches or pushes by itself are not guarded: they are none of the loop's.
"""

import enum
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

from sergeant_linux.wire import gate as gates
from sergeant_linux.worker.sergeant.interrupt import Interrupter
from sergeant_linux.worker.sergeant.view import View, put


class Wish(enum.IntEnum):
    """What was asked for, by its force."""

    NONE = 0
    DRAIN = 1
    SIGTERM = 2


class Bar(enum.IntEnum):
    """The least force that passes now."""

    OPEN = Wish.DRAIN
    SIGTERM_ONLY = Wish.SIGTERM
    CLOSED = 3


class StopGuard:
    """Guards one sergeant worker whose `work_loop()` and `iterate_tasks()` are the ancestor's."""

    def __init__(self, worker: Any, gate: socket.socket, asks: Callable[[], None]) -> None:
        """`asks` is called when the loop asks for tasks."""
        self._worker = worker
        self._asks = asks
        self._gate = gate
        self._bar = Bar.CLOSED
        self._wish = Wish.NONE
        self._own_handler: Any = None  # the SIGTERM handler of a worker that does not use the ancestor's
        self._bar_while_working = Bar.CLOSED
        self._interrupter: Interrupter | None = None

    def arm(self, view: View) -> None:
        """Take over the stop signals and the loop that runs over this view of the worker; in the main thread, when
        `initialize()` has returned."""
        if self._worker.received_stop_signal:  # and swallowed by the worker's initialize()
            self._wish = Wish.SIGTERM
        self._take_over_signals()
        self._take_over_loop(view)
        self._read_gate()  # a DRAIN that came before there was a handler

    # -- the wish -----------------------------------------------------------------------------------------------------

    def _take_over_signals(self) -> None:
        found = signal.getsignal(signal.SIGTERM)
        if found not in (signal.SIG_IGN, None):  # ignored, or handled in C: the worker's own decision
            handler = found if callable(found) else self._worker.stop_signal_handler
            if not self._is_the_ancestors(handler):
                self._own_handler = handler
            signal.signal(signal.SIGTERM, self._on_sigterm)

        signal.signal(signal.SIGURG, self._on_sigurg)
        signal.siginterrupt(signal.SIGURG, False)  # siginterrupt(3): a DRAIN makes no system call of the user's fail

        def restore() -> None:  # what the worker forks is no part of its loop
            signal.signal(signal.SIGURG, signal.SIG_DFL)
            if found is not None:
                signal.signal(signal.SIGTERM, found)

        os.register_at_fork(after_in_child=restore)

    def _is_the_ancestors(self, handler: Any) -> bool:
        ancestor = sys.modules['sergeant.worker'].Worker
        return (
            handler == self._worker.stop_signal_handler
            and getattr(handler, '__func__', None) is ancestor.stop_signal_handler
            and getattr(self._worker.stop, '__func__', None) is ancestor.stop
        )

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        self._ask(Wish.SIGTERM)

    def _on_sigurg(self, signum: int, frame: FrameType | None) -> None:
        self._read_gate()

    def _read_gate(self) -> None:
        try:
            message = gates.receive(self._gate, flags=socket.MSG_DONTWAIT)
        except (OSError, gates.Malformed):  # nothing there, or nothing for us
            return
        if message is not None and message['type'] == 'drain':  # the only one a worker gets after GO
            self._ask(Wish.DRAIN)

    def _ask(self, wish: Wish) -> None:
        news = wish > self._wish
        self._wish = max(wish, self._wish)
        if news and wish is Wish.SIGTERM and self._interrupter is not None:
            self._interrupter.interrupt_all()
        if self._wish >= self._bar:
            self._deliver()

    # -- the bar ------------------------------------------------------------------------------------------------------

    def _lower(self, bar: Bar) -> None:
        """Let pass what `bar` lets pass, first of all what has waited for it."""
        self._bar = bar
        if self._wish >= bar:
            self._deliver()

    def _deliver(self) -> None:
        """Stop the worker: raises WorkerStop, unless the worker's own handler or its own `stop()` decides otherwise.

        While it cleans up the bar is closed: one stop is enough.
        """
        bar, self._bar = self._bar, Bar.CLOSED
        if self._own_handler is None:
            self._worker.logger.info(msg='stop signal has been received')
            self._worker.received_stop_signal = True
            self._worker.stop()
        else:
            try:
                self._own_handler(int(signal.SIGTERM), None)
            finally:
                signal.signal(signal.SIGTERM, self._on_sigterm)  # the ancestor's handler resets it; theirs may call it
        self._wish = Wish.NONE
        self._bar = bar

    # -- the loop -----------------------------------------------------------------------------------------------------

    def _take_over_loop(self, view: View) -> None:
        worker, executor = self._worker, self._worker.executor_obj
        if executor is None:
            return
        put(view, 'get_next_tasks', self._fetch)
        put(view, 'handle_starvation', self._starve)
        kind = f'{type(executor).__module__}.{type(executor).__qualname__}'
        if kind == 'sergeant.executor.serial.SerialExecutor':
            self._bar_while_working = Bar.SIGTERM_ONLY
            executor = _guarded(executor, View(worker, work=self._work_and_close))
        elif kind == 'sergeant.executor.threaded.ThreadedExecutor' and self._own_handler is None:
            self._interrupter = Interrupter(worker)
            put(view, 'push_tasks', self._interrupter.push_in_turn)
            executor = _guarded(executor, View(worker, work=self._interrupter.work))

        iterate_tasks = sys.modules['sergeant.worker'].Worker.iterate_tasks
        put(view, 'iterate_tasks', lambda: iterate_tasks(view))
        put(view, 'executor_obj', View(executor, execute_tasks=self._executing(executor.execute_tasks)))

    def _executing(self, execute_tasks: Any) -> Any:
        def guarded_execute_tasks(tasks: Generator[Any, None, None]) -> None:
            handed_on = self._hand_on(tasks)
            try:
                execute_tasks(tasks=handed_on)
            finally:
                self._bar = Bar.CLOSED
                handed_on.close()  # here, not when the garbage is collected: tasks go back before finalize()
                if self._interrupter is not None and self._interrupter.interrupted:
                    self._worker.received_stop_signal = True

        return guarded_execute_tasks

    def _hand_on(self, loop: Generator[Any, None, None]) -> Generator[Any, None, None]:
        """Yield the loop's tasks to the executor, each when it is sure that it shall be begun."""
        try:
            for task in loop:
                self._lower(Bar.OPEN)
                self._bar = self._bar_while_working
                yield task
                self._bar = Bar.CLOSED
            self._lower(Bar.OPEN)
        finally:
            self._bar = Bar.CLOSED
            loop.close()

    def _fetch(self, *args: Any, **kwargs: Any) -> Any:
        self._asks()
        self._lower(Bar.OPEN)
        self._bar = Bar.CLOSED
        tasks = self._worker.get_next_tasks(*args, **kwargs)
        if not tasks:
            self._lower(Bar.OPEN)
        return tasks

    def _starve(self, *args: Any, **kwargs: Any) -> None:
        self._lower(Bar.SIGTERM_ONLY)
        self._worker.handle_starvation(*args, **kwargs)
        self._lower(Bar.OPEN)

    def _work_and_close(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._worker.work(*args, **kwargs)
        finally:
            self._bar = Bar.CLOSED


def _guarded(executor: Any, worker: View) -> View:
    """Return a view of one of the ancestor's executors that does its tasks with this view of the worker."""
    view = View(executor, worker_object=worker)
    for name in ('execute_tasks', 'execute_task'):
        put(view, name, getattr(type(executor), name).__get__(view))
    return view
