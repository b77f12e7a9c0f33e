"""The undertaker: ends what a SIGKILLed supervisor leaves.

Facts: a worker dies with the supervisor by PR_SET_PDEATHSIG, but what the worker has started doesn't: that setting
isn't inherited, and nobody is left to look for it.
Consequence: a small process that holds a pidfd of the supervisor and sleeps; when the supervisor is gone without
having dismissed it, it ends everything that carries the pool's mark in its environment or lives in a session of one
of its workers, and leaves. It is deaf to every signal but SIGKILL, in a session of its own, and replaced when it
dies.
Price: one process that does nothing, for all its life.

The sessions stand in a memfd that the supervisor writes (one entry a life) and the undertaker reads once: telling it
costs no wake-up.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from struct import calcsize, iter_unpack, pack
from typing import TYPE_CHECKING, Final

from sergeant_linux.kernel import cgroup_tree, prctl, procfs, proctitle, spawn
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.wire.marks import POOL

if TYPE_CHECKING:  # the undertaker itself has no use for it
    from sergeant_linux.containment.leaves import Leaves

DISMISSED: Final = b'dismissed'
AT_WORK: Final = b'at work'

ENTRY: Final = 'qq'
"""A session, which is its worker's pid, and the worker's start time, which tells it from a later one of that pid."""
SIZE: Final = calcsize(ENTRY)

PATIENCE: Final = 10.0
"""Seconds after which the undertaker gives up on what doesn't die (state D)."""

QUIET_PASSES: Final = 2
"""A pass over /proc isn't atomic: nothing is left when this many in a row have found nothing."""

SUPERVISOR_FD, CONTROL_FD, SESSIONS_FD = range(spawn.FIRST_FD, spawn.FIRST_FD + 3)


class Undertaker:
    """The supervisor's side: start it, tell it sessions, dismiss it."""

    def __init__(self, pool: str, environ: Mapping[str, str]) -> None:
        self._pool = pool
        self._environ = environ
        self._sessions = os.memfd_create('sergeant-sessions', os.MFD_CLOEXEC)
        self._free: list[int] = []
        self._used = 0
        self.process: PidRef | None = None
        self._control: socket.socket | None = None

    def start(self, leaves: 'Leaves | None') -> None:
        """Start it; with `leaves`, it also gets the pool's cgroup to kill. Raises OSError when it can't be started."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        me = os.pidfd_open(os.getpid())
        folder = [] if leaves is None else [leaves.pool.path]
        try:
            fds = [me, theirs.fileno(), self._sessions]
            self.process = spawn.launch(__name__, [self._pool, *folder], fds, self._environ)
        except OSError:
            ours.close()
            raise
        finally:
            os.close(me)
            theirs.close()
        self._control = ours

    def wait_until_at_work(self, patience: float) -> bool:
        """Wait for it at most `patience` seconds; False when it didn't come."""
        assert self._control is not None
        self._control.settimeout(patience)
        try:
            return self._control.recv(len(AT_WORK)) == AT_WORK
        except OSError:
            return False

    def enter(self, session: int) -> int:
        """Write down the session of a worker; the answer is what `leave` takes."""
        if self._free:
            index = self._free.pop()
        else:
            index, self._used = self._used, self._used + 1
        leader = procfs.read_stat(session)
        self._write(index, session, leader.start_time if leader is not None else 0)
        return index

    def leave(self, index: int) -> None:
        """Strike a session out: nothing is left of that life."""
        self._write(index, 0, 0)
        self._free.append(index)

    def _write(self, index: int, session: int, start_time: int) -> None:
        os.pwrite(self._sessions, pack(ENTRY, session, start_time), index * SIZE)

    def forget(self) -> None:
        """It has ended, and was reaped: let go of its descriptors."""
        for holder in (self.process, self._control):
            if holder is not None:
                holder.close()
        self.process = self._control = None

    def dismiss(self) -> None:
        """Send it away and wait for its end: there is nothing left to bury."""
        if self.process is not None and self._control is not None:
            with suppress(OSError):
                self._control.send(DISMISSED, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
            if not self.process.exited(1.0):
                self.process.signal(signal.SIGKILL)
                self.process.exited(1.0)
            with suppress(ChildProcessError):
                self.process.reap()
        self.forget()

    def close(self) -> None:
        """Let go of everything."""
        self.forget()
        os.close(self._sessions)


def main(arguments: list[str]) -> None:
    """The undertaker itself."""
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
    for folder in folders:
        kill_cgroup(folder)
    bury(pool)
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


def bury(pool: str) -> None:
    """End everything of the pool."""
    mark = f'{POOL}={pool}'.encode()
    table = os.pread(SESSIONS_FD, os.fstat(SESSIONS_FD).st_size, 0)
    sessions = {number: start_time for number, start_time in iter_unpack(ENTRY, table) if number != 0}
    deadline, pause, quiet = time.monotonic() + PATIENCE, 0.001, 0
    while quiet < QUIET_PASSES and time.monotonic() < deadline:
        quiet = quiet + 1 if end_what_is_left(mark, sessions) == 0 else 0
        time.sleep(pause)
        pause = min(0.05, pause * 1.5)


def end_what_is_left(mark: bytes, sessions: dict[int, int]) -> int:
    """Make one pass; return how many processes were ended.

    A session is its worker's unless a stranger leads it: a pid can be used again once nobody is in the session of that
    number. The worker itself may be there still: one that is on its way out has no environment any more, and takes
    long when it had much memory, so it is known by its start time.
    """
    me, ended = os.getpid(), 0
    stats = {pid: procfs.read_stat(pid) for pid in procfs.pids()}
    alive = {pid: stat for pid, stat in stats.items() if stat is not None and stat.state not in 'ZX'}
    marked = {pid for pid in alive if pid != me and procfs.environ_contains(pid, mark)}
    strangers = {pid for pid, start_time in sessions.items() if pid in alive and alive[pid].start_time != start_time}
    ours = sessions.keys() - strangers
    for pid, stat in alive.items():
        if pid != me and (pid in marked or stat.session in ours):
            with suppress(ProcessLookupError, PermissionError), PidRef.open(pid) as process:
                now = procfs.read_stat(pid)
                if now is not None and now.start_time == stat.start_time:
                    process.signal(signal.SIGKILL)
                    ended += 1
    return ended
