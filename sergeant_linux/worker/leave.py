"""Leaving the process: what runs at its end, and what must not.

Facts: a forked process inherits its parent's atexit callbacks; run a second time they close, delete or flush what is
the parent's. A process that leaves by os._exit runs none, not even its own. Three modules of the standard library
register with atexit once, when they are first used; where the fork server has used them, the worker never would:
`logging` (flushes handlers), `multiprocessing` (flushes its queues, joins its children), `weakref.finalize` (removes
temporary directories).
Decision: at its beginning the worker forgets all inherited callbacks and sees to these three; at its end it
runs its own, flushes, and leaves by os._exit.
Price: private names of the standard library. atexit has no public way to forget (CPython's own forked children skip
atexit altogether); each name used is the one the module itself uses for this, and is the same in Python 3.11 to 3.13.
"""

import atexit
import contextlib
import os
import signal
import sys
import weakref
from typing import NoReturn


def forget_inherited() -> None:
    """Forget every atexit callback and finalizer that was registered before the fork. The first thing in a worker."""
    atexit._clear()

    for inherited in weakref.finalize._registry:  # type: ignore[attr-defined]  # private: see above
        inherited.atexit = False
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]  # private: see above

    multiprocessing_util = sys.modules.get('multiprocessing.util')
    if multiprocessing_util is not None:
        multiprocessing_util._finalizer_registry.clear()
        atexit.register(multiprocessing_util._exit_function)


def ignore_signals() -> None:
    """Ignore what asks a worker to leave: it is leaving."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGURG):
        signal.signal(signum, signal.SIG_IGN)


def leave(code: int) -> NoReturn:
    """Run this process's own atexit callbacks, flush logging and stdio, and exit with `code` (its low 8 bits)."""
    try:
        atexit._run_exitfuncs()
        logging = sys.modules.get('logging')
        if logging is not None:
            logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # None, a broken pipe, closed
                stream.flush()
    finally:
        os._exit(code & 0xFF)
