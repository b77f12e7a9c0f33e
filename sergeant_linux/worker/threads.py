"""Threads that are still running: raising an exception in them, and ending them before the worker leaves.

Facts: CPython can raise an exception in another thread (PyThreadState_SetAsyncExc). It lands at that thread's next
bytecode, so a thread that is blocked in C code (a lock, a read, a sleep) does not notice until it returns.
Consequence: some threads can't be ended from outside at all; they can only be waited for, with a deadline.
Decision: all are told at once and waited for together. The ancestor tells and waits one by one, 2 s for each.
Price: none known; a thread that needs another one to end first still has the whole patience.
"""

import threading
import time

PATIENCE = 2.0
"""Seconds given to all leftover threads together."""


def raise_in_thread(ident: int, exception: type[BaseException] | None) -> None:
    """Have the thread raise `exception` at its next bytecode; None takes back one that has not landed yet.

    A thread that is gone is no error. Each thread has room for one pending exception: a later one replaces it.
    """
    import ctypes  # here: most workers never need it

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), exception and ctypes.py_object(exception))


def end_threads(patience: float = PATIENCE) -> list[str]:
    """End all other threads by SystemExit; return the names of those that still live after `patience` seconds."""
    threads = [
        thread
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and not isinstance(thread, threading._DummyThread)
    ]
    for thread in threads:
        if thread.ident is not None:
            raise_in_thread(thread.ident, SystemExit)

    deadline = time.monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread.name for thread in threads if thread.is_alive()]
