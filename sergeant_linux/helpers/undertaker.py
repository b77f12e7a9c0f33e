"""The undertaker: ends what a SIGKILLed supervisor leaves.

Decision: a small process that holds a pidfd of the supervisor and sleeps; when the supervisor is gone without having
dismissed it, it buries the pool (forkserver/burial.py). It is deaf to every signal but SIGKILL and SIGSTOP, in a
session of its own, and replaced when it is killed or stopped; until it is, the fork server does the same.
Price: one process that does nothing, for all its life.
"""

import os
import select
import socket
from contextlib import suppress
from typing import Final

from sergeant_linux.forkserver import burial
from sergeant_linux.helpers import AT_WORK, DISMISSED
from sergeant_linux.kernel import prctl, proctitle, spawn
from sergeant_linux.kernel.pidref import PidRef

CONTROL_FD, SUPERVISOR_FD, SESSIONS_FD = range(spawn.FIRST_FD, spawn.FIRST_FD + 3)

PATIENCE: Final = 10.0
"""Seconds that the supervisor may take to be gone, once it has let go of us."""


def main(arguments: list[str]) -> None:
    """Wait for the supervisor's end, or for the dismissal. Arguments: the pool, and its cgroup where it has one."""
    spawn.adopt_fds(3)
    proctitle.set_title('sergeant-linux: undertaker')
    prctl.set_name('sergeant-linux')
    os.chdir('/')
    control = socket.socket(fileno=CONTROL_FD)
    with suppress(OSError):
        control.send(AT_WORK, socket.MSG_NOSIGNAL)
    poll = select.poll()
    poll.register(SUPERVISOR_FD, select.POLLIN)
    poll.register(CONTROL_FD, select.POLLIN)
    poll.poll()
    with suppress(OSError):
        if control.recv(len(DISMISSED), socket.MSG_DONTWAIT) == DISMISSED:
            return
    PidRef(0, SUPERVISOR_FD).exited(PATIENCE)
    pool, *folders = arguments
    burial.bury(pool, folders, SESSIONS_FD)
