"""The three shapes of a worker, and what each way of ending means.

A worker is named by a module and an attribute of it:
- a class with `init_worker()` and `work_loop()`: a sergeant worker. Constructed, initialised, looped; the summary that
  `work_loop()` returns says how it ended. It is READY when its `initialize()` has returned, which is inside of the
  ancestor's `work_loop()`; a class that brings a `work_loop()` of its own is READY when that is entered;
- a class with `run()`: constructed and run. READY before `run()`, or with `calls_ready = True` when it says so;
- any other callable: called without arguments. READY before the call.

Facts: the ancestor's WorkerStop and WorkerRespawn are BaseExceptions, so a plain `except Exception` misses them;
outside of the loop they mean the same as inside. sergeant itself need not be installed.
Decision: sergeant is never imported here, only looked up among the modules that the worker has imported.
Price: a function that *returns* a worker, which the ancestor takes for a class, is none here: called, it has finished.
"""

import importlib
import socket
import sys
from collections.abc import Callable
from typing import Any

from sergeant_linux.wire.scoreboard import Pen
from sergeant_linux.worker import ready
from sergeant_linux.worker.report import Outcome, ReturnCode
from sergeant_linux.worker.sergeant.stop_guard import StopGuard
from sergeant_linux.worker.sergeant.tally import Tally
from sergeant_linux.worker.sergeant.view import View


def live(module_name: str, attribute_name: str, gate: socket.socket, pen: Pen | None) -> Outcome:
    """Load the worker, run it to its end and return how it ended; its tasks are counted with `pen`. Never raises."""
    try:
        return _load_and_run(module_name, attribute_name, gate, pen)
    except SystemExit as exit_:
        code = exit_code(exit_)
        return Outcome(code, exit_ if code else None)
    except KeyboardInterrupt:
        return Outcome(ReturnCode.FINISHED)
    except BaseException as exception:
        return Outcome(ReturnCode.FAILED, exception)


def _load_and_run(module_name: str, attribute_name: str, gate: socket.socket, pen: Pen | None) -> Outcome:
    try:
        module = importlib.import_module(module_name)
    except (SystemExit, KeyboardInterrupt):
        raise
    except ModuleNotFoundError as exception:
        return Outcome(ReturnCode.MODULE_NOT_FOUND, exception)
    except BaseException as exception:
        return Outcome(ReturnCode.MODULE_NOT_IMPORTABLE, exception)

    try:
        target = getattr(module, attribute_name)
    except AttributeError as exception:
        return Outcome(ReturnCode.CLASS_NOT_FOUND, exception)

    is_class = isinstance(target, type)
    if is_class and hasattr(target, 'init_worker') and hasattr(target, 'work_loop'):
        return _run_sergeant(target, gate, pen)
    if is_class and hasattr(target, 'run'):
        return _run_plain(target)
    if not is_class and callable(target):
        return _call(target)
    return Outcome(
        ReturnCode.MODULE_NOT_IMPORTABLE,
        TypeError(
            f'{module_name}.{attribute_name} is no worker: expected a class with init_worker() and work_loop(), '
            f'a class with run(), or a function; got {target!r}'
        ),
    )


def _call(target: Callable[[], object]) -> Outcome:
    ready.ready()
    target()
    return Outcome(ReturnCode.FINISHED)


def _run_plain(target: type[Any]) -> Outcome:
    worker = target()
    if not getattr(worker, 'calls_ready', False):
        ready.ready()
    worker.run()
    return Outcome(ReturnCode.FINISHED)


def _run_sergeant(target: type[Any], gate: socket.socket, pen: Pen | None) -> Outcome:
    worker: Any = None
    try:
        worker = target()
        worker.init_worker()
        if _has_the_ancestors(worker, 'work_loop'):
            summary = _ancestor().work_loop(_announcing_after_initialize(worker, gate, pen))
        else:
            _count(worker, pen, asks=False)
            ready.ready()
            summary = worker.work_loop()
    except BaseException as exception:
        if _is_a(exception, 'WorkerRespawn'):
            return Outcome(ReturnCode.ASKED_TO_RESPAWN)
        if _is_a(exception, 'WorkerStop'):
            return Outcome(ReturnCode.ASKED_TO_STOP, received_stop_signal=_received_stop_signal(worker, exception))
        raise
    return _outcome_of(summary)._replace(received_stop_signal=_received_stop_signal(worker))


def _announcing_after_initialize(worker: Any, gate: socket.socket, pen: Pen | None) -> View:
    """Return a view of the worker for the ancestor's loop, in which READY is sent, its tasks are counted, and the stop
    guard is armed, at the moment the worker's `initialize()` returns."""

    def initialize() -> None:
        worker.initialize()
        guarded = _has_the_ancestors(worker, 'iterate_tasks')
        asks = _count(worker, pen, asks=guarded)
        if guarded:
            StopGuard(worker, gate, asks).arm(view)
        ready.announce(drain=guarded)

    view = View(worker, initialize=initialize)
    return view


def _count(worker: Any, pen: Pen | None, *, asks: bool) -> Callable[[], None]:
    """Count the worker's tasks, where that can be done; return what is to be called when its loop asks for some."""
    if pen is None or getattr(worker, 'executor_obj', None) is None:
        return lambda: None
    tally = Tally(worker, pen)
    tally.attach(asks=asks)
    return tally.sign


def _outcome_of(summary: Any) -> Outcome:
    """Return what the summary of a `work_loop()` means, as sergeant.slave reads it."""
    if summary['respawn']:
        return Outcome(ReturnCode.ASKED_TO_RESPAWN, summary=summary)
    if summary['stop']:
        return Outcome(ReturnCode.ASKED_TO_STOP, summary=summary)
    exception = summary['executor_exception'] or summary['initialize_exception'] or summary['finalize_exception']
    if exception:
        return Outcome(ReturnCode.LOOP_FAILED, exception, summary)
    return Outcome(ReturnCode.FINISHED, summary=summary)


def _received_stop_signal(worker: Any, stop: BaseException | None = None) -> bool:
    """Whether the stop came from outside. An interrupted constructor left no worker to ask: the traceback tells."""
    if worker is not None:
        return bool(getattr(worker, 'received_stop_signal', False))
    handler = _ancestor().stop_signal_handler
    traceback = stop and stop.__traceback__
    while traceback:
        if traceback.tb_frame.f_code is handler.__code__:
            return True
        traceback = traceback.tb_next
    return False


def _ancestor() -> Any:
    """Return the class sergeant.worker.Worker, or None when the worker's code has not imported it."""
    return getattr(sys.modules.get('sergeant.worker'), 'Worker', None)


def _has_the_ancestors(worker: Any, method: str) -> bool:
    """Whether the worker's method is the one that sergeant.worker.Worker brings."""
    ancestor = _ancestor()
    return ancestor is not None and getattr(getattr(worker, method), '__func__', None) is getattr(ancestor, method)


def _is_a(exception: BaseException, name: str) -> bool:
    """Whether the exception is of sergeant.worker's class of that name."""
    class_ = getattr(sys.modules.get('sergeant.worker'), name, None)
    return class_ is not None and isinstance(exception, class_)


def exit_code(exit_: SystemExit) -> int:
    """Return the status with which a Python process leaves on `exit_`: None is 0, a text is printed and is 1."""
    if exit_.code is None:
        return 0
    if isinstance(exit_.code, int):
        return exit_.code & 0xFF
    print(exit_.code, file=sys.stderr)
    return 1
