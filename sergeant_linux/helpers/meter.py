"""The meter: a process that takes the costly measures of memory, so that the loop never waits for them.

It is asked [life, pid, measure] and answers [life, bytes, seconds]: null bytes mean that there is no such process any
more, or that it isn't ours to look at. After each measure it sleeps 99 times as long as that took, which are the
seconds of its answer: at most 1 % of a core, however many workers there are.
"""

import json
import signal
import socket
import time
from typing import Final

import psutil

from sergeant_linux.helpers import AT_WORK
from sergeant_linux.kernel import prctl, proctitle, spawn

IDLE: Final = 99
"""Seconds of sleep for each second of work."""

LONGEST_IDLE: Final = 60.0


def main(arguments: list[str]) -> None:
    """Answer until the supervisor's end is closed."""
    prctl.set_pdeathsig(signal.SIGKILL)
    spawn.adopt_fds(1)
    proctitle.set_title('sergeant-linux: meter')
    prctl.set_name('sergeant-linux')
    asked = socket.socket(fileno=spawn.FIRST_FD)
    asked.send(AT_WORK, socket.MSG_NOSIGNAL)
    while data := asked.recv(256):
        life, pid, kind = json.loads(data)
        began = time.thread_time()
        measured = measure(pid, kind)
        rest = min(LONGEST_IDLE, IDLE * (time.thread_time() - began))
        asked.send(json.dumps([life, measured, rest]).encode(), socket.MSG_NOSIGNAL)
        time.sleep(rest)


def measure(pid: int, kind: str) -> int | None:
    """Return the process's memory in bytes by this measure (pss, uss, tree); None when it can't be measured.

    pss and uss are counted page by page by the kernel (/proc/PID/smaps_rollup, since Linux 4.14), about 13 ms a GiB.
    """
    try:
        process = psutil.Process(pid)
        if kind == 'tree':
            return rss(process) + sum(map(rss, process.children(recursive=True)))
        return int(getattr(process.memory_full_info(), kind))
    except (psutil.Error, OSError):
        return None


def rss(process: psutil.Process) -> int:
    """Return the resident memory of a process in bytes, 0 when it is gone."""
    try:
        return int(process.memory_info().rss)
    except (psutil.Error, OSError):
        return 0
