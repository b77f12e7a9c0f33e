"""The meter: a process that takes the dear measures of memory, so that the loop never waits for them.

It is asked [life, pid] and answers [life, bytes] (null: no such process any more), one after the other, and after each
measure sleeps 99 times as long as it took: at most 1 % of a core, however many workers there are.
"""

import json
import signal
import socket
import time
from typing import Final

from sergeant_linux.kernel import prctl, procfs, proctitle, spawn

IDLE: Final = 99
"""Seconds of sleep for each second of work."""


def main(arguments: list[str]) -> None:
    """Answer until the supervisor's end is closed."""
    prctl.set_pdeathsig(signal.SIGKILL)
    spawn.adopt_fds(1)
    proctitle.set_title('sergeant-linux: meter')
    prctl.set_name('sergeant-linux')
    asked = socket.socket(fileno=spawn.FIRST_FD)
    while True:
        data = asked.recv(256)
        if not data:
            return
        life, pid = json.loads(data)
        began = time.thread_time()
        measured = measure(pid, arguments[0])
        cost = time.thread_time() - began
        asked.send(json.dumps([life, measured]).encode(), socket.MSG_NOSIGNAL)
        time.sleep(IDLE * cost)


def measure(pid: int, kind: str) -> int | None:
    """Return the process's memory in bytes by this measure (pss, uss, tree); None when there is no such process."""
    if kind == 'tree':
        return tree_rss(pid)
    rollup = procfs.smaps_rollup(pid)
    if rollup is None:
        return None
    return rollup.pss if kind == 'pss' else rollup.uss


def tree_rss(root: int) -> int | None:
    """Return the sum of the RSS of a process and of all that descends from it."""
    parents = {pid: stat.ppid for pid in procfs.pids() if (stat := procfs.read_stat(pid)) is not None}
    if root not in parents:
        return None
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    total, tree = 0, [root]
    while tree:
        pid = tree.pop()
        tree += children.get(pid, [])
        try:
            with procfs.Statm(pid) as statm:
                total += statm.rss()
        except OSError:
            continue
    return total
