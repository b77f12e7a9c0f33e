"""A worker's life, from GO to the exit status: load, run, end what still runs, report, leave.

Facts: after GO the process is clean (default signal dispositions, a session of its own) and belongs to the user's code.
It may be a fork of the fork server or a fresh interpreter.
Decision: one road for both, and one way out: whatever happens, the process ends here by os._exit.
Price: nothing that Python does at the end of a normal process happens by itself; `leave` says what is done instead.

Invariant: `run` never returns and never raises.
"""

import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import NoReturn

from sergeant_linux.wire.gate import WorkersEnd
from sergeant_linux.wire.scoreboard import Pen
from sergeant_linux.worker import dump, heartbeat, leave, ready, report, shapes, threads


def run(
    gate: socket.socket, go: Mapping[str, object], page: int | None = None, stacks: int | None = None
) -> NoReturn:
    """Run the worker that `go` names (`module`, `class`), report on `gate`, and exit with the worker's return code.

    `page` and `stacks`, where it has them: the memfd of its page, and the pipe that it writes its stacks into.
    A worker with threads that can't be ended reports them and kills itself (SIGKILL), as the ancestor's does: the
    return code is then the one in the report.
    """
    code = int(report.ReturnCode.FAILED)
    try:
        leave.forget_inherited()
        gate = WorkersEnd(gate)
        os.register_at_fork(after_in_child=gate.close)  # the worker's children have no voice
        ready.attach(gate)
        if stacks is not None:
            dump.install(stacks)
        pen = Pen(page) if page is not None else None
        if pen is not None:
            heartbeat.attach(pen)

        outcome = shapes.live(str(go['module']), str(go['class']), gate, pen)
        leave.ignore_signals()
        code = outcome.return_code

        unkillable = threads.end_threads()
        report.send_final(gate, outcome, unkillable)
        if unkillable:
            signal.raise_signal(signal.SIGKILL)
        leave.leave(code)
    except BaseException:  # an error of our own, or a signal that came on the very last step
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code & 0xFF)
