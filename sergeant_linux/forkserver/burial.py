"""End what a supervisor that was killed has left: its workers' children, and whatever else is of its pool.

Facts: a worker dies with the supervisor by PR_SET_PDEATHSIG, but what the worker has started doesn't: that setting
isn't inherited, and nobody is left to look for it. A pass over /proc isn't atomic.
Consequence: who outlives the supervisor, the undertaker and the fork server, each look for all that carries the pool's
marks, or lives in a session of one of its workers, until nothing is found any more. One of them at a time, the others
wait for the lock of the sessions: two that end each other would leave the work undone.
"""

import fcntl
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from sergeant_linux.kernel import cgroup_tree, procfs
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.wire import sessions
from sergeant_linux.wire.marks import POOL, pool_limit

PATIENCE: Final = 10.0
"""Seconds after which what doesn't die (state D) is given up."""

QUIET_PASSES: Final = 2
"""Nothing is left when this many passes in a row have found nothing."""


def bury(pool: str, folders: Sequence[str], sessions_fd: int) -> None:
    """End everything of the pool; `folders`: its cgroup, where it has one."""
    fcntl.flock(sessions_fd, fcntl.LOCK_EX)
    for folder in folders:
        kill_cgroup(folder)
    mark, limit, table = f'{POOL}={pool}'.encode(), pool_limit(pool), sessions.read(sessions_fd)
    deadline, pause, quiet = time.monotonic() + PATIENCE, 0.001, 0
    while quiet < QUIET_PASSES and time.monotonic() < deadline:
        quiet = quiet + 1 if end_what_is_left(mark, limit, table) == 0 else 0
        time.sleep(pause)
        pause = min(0.05, pause * 1.5)
    for folder in folders:
        remove_cgroup(folder)


def kill_cgroup(folder: str) -> None:
    """End everything in the pool's leaves by one write: nothing escapes from a cgroup (cgroup.kill, since Linux
    5.14)."""
    with suppress(OSError), open(f'{folder}/cgroup.kill', 'w', encoding='ascii') as kill:
        kill.write('1')


def remove_cgroup(folder: str) -> None:
    """Remove the pool's folder and what is in it, as soon as the kernel lets it go. What remains, the next start
    removes."""
    deadline, pause = time.monotonic() + PATIENCE, 0.001
    while os.path.isdir(folder) and time.monotonic() < deadline:
        with suppress(OSError):
            for _ in cgroup_tree.removal(folder):
                pass
        time.sleep(pause)
        pause = min(0.05, pause * 1.5)


def end_what_is_left(mark: bytes, limit: int, table: dict[int, int]) -> int:
    """Make one pass; return how many processes were ended.

    A session is its worker's unless a stranger leads it: a pid can be used again once nobody is in the session of that
    number. The worker itself may be there still: one that is on its way out has no environment any more, and takes
    long when it had much memory, so it is known by its start time.
    """
    me, ended = os.getpid(), 0
    stats = {pid: procfs.read_stat(pid) for pid in procfs.pids() if pid != me}
    alive = {pid: stat for pid, stat in stats.items() if stat is not None and stat.state not in 'ZX'}
    strangers = {pid for pid, start_time in table.items() if pid in alive and alive[pid].start_time != start_time}
    ours = table.keys() - strangers
    for stat in alive.values():
        if stat.session in ours or is_marked(stat.pid, mark, limit):
            ended += end(stat)
    return ended


def is_marked(pid: int, mark: bytes, limit: int) -> bool:
    """Whether a process carries the pool's mark, in its limits or in its environment."""
    locks = procfs.file_locks(pid)
    return (locks is not None and locks.hard == limit) or procfs.environ_contains(pid, mark)


def end(stat: procfs.Stat) -> bool:
    """Kill this very process, whatever its pid has come to mean meanwhile; False when it is gone, or not ours to
    kill."""
    with suppress(ProcessLookupError, PermissionError), PidRef.open(stat.pid) as process:
        now = procfs.read_stat(stat.pid)
        if now is not None and now.start_time == stat.start_time:
            return process.signal(signal.SIGKILL)
    return False
