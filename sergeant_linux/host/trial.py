"""What a pool is built on, tried on children made for it: pidfds, orphans that fall to us, death with the parent,
leaves.

Facts: a version number and a successful call prove nothing: a container's filter of system calls may refuse what the
kernel has, and a sandbox may accept what it doesn't do.
Consequence: whether it works is found out by doing, with the same calls that a pool makes.
Price: a few forks, some milliseconds.

Invariant: every child waits for the end of a pipe that the caller holds, so it ends when the trial is over, whatever
has failed, also when the caller is killed; it is reaped, and what was set in the caller is put back.
"""

import errno
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from sergeant_linux.kernel import prctl
from sergeant_linux.kernel.cgroup import Cgroup
from sergeant_linux.kernel.pidref import Ended, PidRef

PATIENCE: Final = 3.0
"""Seconds to wait for what comes at once where it comes at all."""

KILL: Final = 'write cgroup.kill'
"""In the text of the OSError of `try_leaf` when it was this that failed; ENOENT: the kernel is older than 5.14."""


class Kinship(NamedTuple):
    """What became of a child whose parent, a child of ours, has ended."""

    adopted: bool
    """It fell to us: PR_SET_CHILD_SUBREAPER works."""
    killed: bool
    """It was killed at the death of its parent: PR_SET_PDEATHSIG works."""


def try_pidfd() -> None:
    """Hold a child by a pidfd, see its end, reap it: pidfd_open(2), pidfd_send_signal(2), poll(2), waitid(2).

    Since Linux 5.4. Raises OSError, the failed call in its text.
    """
    with _child() as pid:
        with _calling('pidfd_open'):
            process = PidRef.open(pid)
        with process:
            with _calling('pidfd_send_signal'):
                process.signal(signal.SIGKILL)
            _see_it_killed(process)


def try_kinship() -> Kinship:
    """Fork a child that forks one and leaves. Raises OSError where processes can't be made or held."""
    adopts = prctl.get_child_subreaper()
    prctl.set_child_subreaper(True)
    try:
        with _pipe() as life, _orphan(life) as orphan:
            ended_early = orphan.exited(PATIENCE)
            life.let_go()
            orphan.exited(PATIENCE)
            try:
                ended = orphan.reap()
            except ChildProcessError:
                return Kinship(adopted=False, killed=ended_early)
            return Kinship(adopted=True, killed=ended_early and ended == _killed())
    finally:
        prctl.set_child_subreaper(adopts)


def try_leaf(home: Cgroup, name: str) -> None:
    """Make a cgroup, put a child into it, end it by cgroup.kill, remove the cgroup.

    Raises OSError, what failed in its text; `explain` knows what it means.
    """
    leaf = home.child(name)
    with _calling('mkdir'):
        leaf.make()
    try:
        with _child() as pid, PidRef.open(pid) as process:
            with _calling('write cgroup.procs'):
                leaf.write('cgroup.procs', pid)
            with _calling(KILL):
                leaf.kill()
            _see_it_killed(process)
    finally:
        _remove(leaf)


def try_birth(leaf: Cgroup) -> None:
    """Have a child of ours go into a cgroup and end there. Raises OSError as the child has met it.

    All signals are blocked meanwhile: one that the child got would be told to the caller's wakeup fd.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with _pipe() as answer, warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)  # Python 3.12, of threads: the child takes no lock
            pid = os.fork()
            if pid == 0:
                number = 0
                try:
                    leaf.write('cgroup.procs', 0)
                except OSError as error:
                    number = error.errno or errno.EIO
                finally:
                    answer.say(b'%d' % number)
                    os._exit(0)
            answer.let_go()
            told = answer.hear()
            with suppress(ChildProcessError):  # somebody ignores SIGCHLD
                os.waitpid(pid, 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    number = int(told or 0)  # nothing: killed there, so it had come there
    if number:
        refusal = OSError(number, os.strerror(number))
        refusal.add_note(f"write '0' to {leaf.path}/cgroup.procs")
        raise refusal


def main(arguments: list[str]) -> None:
    """What a fresh interpreter is asked to do, to see that it can be had: nothing."""


class _Pipe:
    """A pipe between the caller and its children. It ends when nobody holds the side that is written: who only reads
    lets go of that side at once."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def say(self, data: bytes) -> None:
        os.write(self._writer, data)

    def hear(self) -> bytes:
        """Wait for something to be said, or the end: b''."""
        return os.read(self._reader, 100)

    def let_go(self) -> None:
        """Close this process's copy of the side that is written; again does no harm."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def close(self) -> None:
        self.let_go()
        os.close(self._reader)


@contextmanager
def _pipe() -> Iterator[_Pipe]:
    pipe = _Pipe()
    try:
        yield pipe
    finally:
        pipe.close()


@contextmanager
def _orphan(life: _Pipe) -> Iterator[PidRef]:
    """Give a process whose parent, a child of ours, has ended after it had armed PR_SET_PDEATHSIG; it waits for the end
    of `life`."""
    pid = 0
    try:
        with _pipe() as hello:

            def orphan() -> None:
                with suppress(OSError):
                    prctl.set_pdeathsig(signal.SIGKILL)
                hello.say(b'%d' % os.getpid())
                life.hear()

            def parent() -> None:
                life.let_go()
                if os.fork() == 0:
                    _be(orphan)
                hello.let_go()

            with _child(parent):
                hello.let_go()
                pid = int(hello.hear() or 0)
                if not pid:
                    raise ChildProcessError(errno.ECHILD, 'a child could not make a child')
                with _calling('pidfd_open'):
                    process = PidRef.open(pid)
        with process:
            yield process
    finally:
        life.let_go()
        if pid:
            with suppress(ChildProcessError):  # it has been reaped, or did not fall to us
                os.waitpid(pid, 0)


@contextmanager
def _child(first: Callable[[], object] = lambda: None) -> Iterator[int]:
    """Give the pid of a child that runs `first`, and waits to be let go at the end; then it is reaped."""
    ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN  # survives exec, and loses exit statuses
    if ignored:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        with _pipe() as life:

            def body() -> None:
                life.let_go()
                first()
                life.hear()

            pid = os.fork()
            if pid == 0:
                _be(body)
            try:
                yield pid
            finally:
                life.let_go()
                with suppress(ChildProcessError):  # the trial has done it
                    os.waitpid(pid, 0)
    finally:
        if ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _be(body: Callable[[], object]) -> None:
    """Be a child, which never returns."""
    try:
        body()
    finally:
        os._exit(0)


def _see_it_killed(process: PidRef) -> None:
    if not process.exited(PATIENCE):
        raise TimeoutError(errno.ETIMEDOUT, 'the end of a killed child is not told')
    with _calling('waitid'):
        ended = process.reap()
    if ended != _killed():
        raise ChildProcessError(errno.ECHILD, f'a killed child ended by {ended}')


def _killed() -> Ended:
    return Ended(exit_code=None, signal=signal.SIGKILL, core_dumped=False)


def _remove(leaf: Cgroup) -> None:
    """Remove it; the kernel may need some milliseconds to let go of who was in it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return leaf.remove()
        except FileNotFoundError:
            return None
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.002)


@contextmanager
def _calling(name: str) -> Iterator[None]:
    """Put the name of a call into the text of its failure."""
    try:
        yield
    except OSError as error:
        number = error.errno or errno.EIO
        raise OSError(number, f'{name}: {os.strerror(number)}') from None
