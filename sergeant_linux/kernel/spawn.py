"""Start a helper process of ours: a fresh interpreter, and nothing of this one in it.

Facts: a fork of a program that has threads copies their locks but not the threads; a fork of any program copies its
descriptors, handlers, signal mask and memory. posix_spawn(3) runs no code of ours in the child and can set its mask,
its dispositions and its session; `python -c` puts the working folder in front of the module path, so that a file
json.py in it would be imported for json.
Consequence: the fork server, the undertaker and the meter are each spawned, with all signals blocked, from a `-c`
line that takes the working folder off the path before it imports anything.
Price: some 10 ms and 3 MiB a helper, where a fork would cost 1 ms and 1 MiB.
"""

import fcntl
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from sergeant_linux.kernel.pidref import PidRef

FIRST_FD: Final = 3
"""The descriptors given to a helper are numbered from here on, in the order given."""

_ROOT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_BOOT: Final = (
    'import sys;'
    'sys.flags.safe_path or sys.path.pop(0);'
    'sys.path.insert(0,sys.argv.pop(1));'
    'from importlib import import_module as load;'
    'load(sys.argv.pop(1)).main(sys.argv[1:])'
)


def command_line(module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line that calls `main(arguments)` of one of our modules in a fresh interpreter."""
    return [sys.executable, '-c', _BOOT, _ROOT, module, *arguments]


def launch(module: str, arguments: Sequence[str], fds: Sequence[int], environ: Mapping[str, str]) -> PidRef:
    """Start `main(arguments)` of `module` in a process of its own: a session of its own, stdin from /dev/null, all
    signals blocked.

    It has exactly stdin, stdout, stderr and `fds` (as 3, 4, …) of what Python keeps here: Python's descriptors are
    close-on-exec (PEP 446); `adopt_fds` closes the rest. Raises OSError when the process can't be made (fork's EAGAIN
    and ENOMEM, execve's errors).
    """
    lifted: list[int] = []
    try:
        for fd in fds:
            lifted.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FD + len(fds)))
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        ]
        actions += [(os.POSIX_SPAWN_DUP2, fd, FIRST_FD + index) for index, fd in enumerate(lifted)]
        pid = os.posix_spawn(
            sys.executable,
            command_line(module, arguments),
            dict(environ),
            file_actions=actions,
            setsid=True,
            setsigmask=signal.valid_signals(),
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )
    finally:
        for fd in lifted:
            os.close(fd)
    return PidRef.open(pid)  # now that those are closed there is a free descriptor for it


def adopt_fds(count: int) -> list[int]:
    """In a helper, first thing: close all but stdio and the `count` descriptors given to it; keep those from passing
    through exec."""
    fds = list(range(FIRST_FD, FIRST_FD + count))
    os.closerange(FIRST_FD + count, os.sysconf('SC_OPEN_MAX'))
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds


def leave_our_path() -> None:
    """Give the module path back as `python3 -m` in this folder would have it: the folder first, our own root not in
    front."""
    sys.path.remove(_ROOT)
    if not sys.flags.safe_path:
        try:
            sys.path.insert(0, os.getcwd())
        except FileNotFoundError:  # the folder is gone: nothing can be imported from it, all else can
            sys.path.insert(0, '')
