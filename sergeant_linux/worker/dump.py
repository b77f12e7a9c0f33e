"""Stacks on demand: where each thread of this worker is, told from C, whatever Python is doing.

Facts: a Python signal handler runs between two bytecodes of the main thread, so one that hangs in C code, or waits for
a lock, never gets there. faulthandler writes from the signal handler itself, without the GIL, at most 100 threads of
100 frames. SIGWINCH is ignored by default (signal(7)): sent too early or too late it harms nobody, and a worker, whose
stdin is /dev/null and whose session has no terminal, gets it from nobody else.
Consequence: on SIGWINCH the stacks are written into a pipe of which the supervisor has the other end. That end
of ours doesn't block: what a full pipe can't take is lost, and a worker never waits for its supervisor.
Decision: this is set up before any user code. A worker with a handler of its own for SIGWINCH has no dump then.
Price: a system call that a signal handler interrupts and that isn't restarted (poll, select, sleep: signal(7)) shows
its EINTR to code that isn't Python's own; that happens when stacks are asked for, and only then.

Invariant: what is written goes into this pipe; no child of the worker holds it or answers for its parent.
"""

import faulthandler
import os
import signal

SIGNAL = signal.SIGWINCH


def install(pipe: int) -> None:
    """Write the stacks of all threads into `pipe` on SIGWINCH."""
    ours = os.fstat(pipe)
    faulthandler.register(SIGNAL, file=pipe, all_threads=True, chain=False)

    def let_go() -> None:
        if signal.getsignal(SIGNAL) is signal.SIG_DFL:  # else it is the user's own by now
            faulthandler.unregister(SIGNAL)
        try:
            if os.path.samestat(os.fstat(pipe), ours):  # else the worker has closed it, and the number is another's
                os.close(pipe)
        except OSError:
            pass

    os.register_at_fork(after_in_child=let_go)
