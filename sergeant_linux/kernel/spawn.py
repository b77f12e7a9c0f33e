"""Start a helper process of ours: a fresh interpreter, and nothing of this one in it.

Facts: a fork of a program that has threads copies their locks but not the threads; a fork of any program copies its
descriptors, handlers, signal mask and memory. posix_spawn(3) runs no code of ours in the child and can set its mask,
its dispositions and its session; `python -c` puts the working folder in front of the module path, so that a file
json.py in it would be imported for json. Where this package is installed there may be a module with the name of one of
the standard library's (enum34, typing).
Consequence: the fork server, the undertaker and the meter are each spawned, with all signals blocked, from a `-c`
line that takes the working folder off the path before it imports anything, and finds this package by its folder
without putting that on the path. The interpreter gets the options that this one has, so that workers run as they would
by themselves; a helper of root's gets of PYTHONPATH what only root can write to (module_path.py).
Price: some 10 ms and 3 MiB a helper, where a fork would cost 1 ms and 1 MiB.
"""

import fcntl
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from sergeant_linux.kernel import module_path
from sergeant_linux.kernel.pidref import PidRef

FIRST_FD: Final = 3
"""The descriptors given to a helper are numbered from here on, in the order given."""

_BOOT: Final = (
    'import sys;'
    'sys.flags.safe_path or sys.path.pop(0);'
    'from importlib.machinery import PathFinder;'
    'from importlib.util import module_from_spec;'
    'spec=PathFinder.find_spec("sergeant_linux",[sys.argv.pop(1)]);'
    'sys.modules[spec.name]=module_from_spec(spec);'
    'spec.loader.exec_module(sys.modules[spec.name]);'
    'from importlib import import_module;'
    'import_module(sys.argv.pop(1)).main(sys.argv[1:])'
)

_FLAGS: Final = {
    'debug': 'd',
    'dont_write_bytecode': 'B',
    'no_site': 'S',
    'verbose': 'v',
    'bytes_warning': 'b',
    'optimize': 'O',
}
"""The attribute of sys.flags, and the option that says it as often as its value."""


def interpreter_options() -> list[str]:
    """Return the options of `python3` that make another interpreter what this one is (sys.flags).

    -u is none of the flags: it is seen by a stdout that buffers nothing. -i and -q are for who types.
    """
    options = [f'-{option * count}' for flag, option in _FLAGS.items() if (count := int(getattr(sys.flags, flag))) > 0]
    if sys.flags.isolated:
        options.append('-I')  # says the others
    else:
        for flag, option in (('ignore_environment', '-E'), ('no_user_site', '-s'), ('safe_path', '-P')):
            if getattr(sys.flags, flag):
                options.append(option)
    if getattr(sys.__stdout__, 'write_through', False):
        options.append('-u')
    options += [word for warning in _warnings() for word in ('-W', warning)]
    for name, value in sys._xoptions.items():
        if name == 'pycache_prefix' and sys.pycache_prefix is None:
            continue  # we do without it, as others can write there (module_path.py)
        options += ['-X', name if value is True else f'{name}={value}']
    if sys.flags.dev_mode and 'dev' not in sys._xoptions:
        options += ['-X', 'dev']
    return options


def _warnings() -> list[str]:
    """Return the arguments of -W: what comes of PYTHONWARNINGS, `-X dev` and -b will come again by itself."""
    warnings = list(sys.warnoptions)
    of_bytes = ('', 'default', 'error')[min(sys.flags.bytes_warning, 2)] + '::BytesWarning'
    if warnings[-1:] == [of_bytes]:
        warnings.pop()
    if sys.flags.dev_mode and warnings[:1] == ['default']:
        warnings.pop(0)
    named = [] if sys.flags.ignore_environment else os.environ.get('PYTHONWARNINGS', '').split(',')
    return warnings[len(named) :] if warnings[: len(named)] == named else warnings


def command_line(module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line that calls `main(arguments)` of one of our modules in a fresh interpreter like this
    one."""
    return [sys.executable, *interpreter_options(), '-c', _BOOT, module_path.ROOT, module, *arguments]


def launch(
    module: str, arguments: Sequence[str], fds: Sequence[int], environ: Mapping[str, str], *, is_workers: bool = False
) -> PidRef:
    """Start `main(arguments)` of `module` in a process of its own: a session of its own, stdin from /dev/null, all
    signals blocked.

    It has exactly stdin, stdout, stderr and `fds` (as 3, 4, …) of what Python keeps here: Python's descriptors are
    close-on-exec (PEP 446); `adopt_fds` closes the rest. is_workers: what runs there has the rights that workers have,
    and so their PYTHONPATH. Raises OSError when the process can't be made (fork's EAGAIN
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
            dict(environ) if is_workers else module_path.for_root(environ),
            file_actions=actions,
            setsid=True,
            setsigmask=signal.valid_signals(),
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )
    finally:
        for fd in lifted:
            os.close(fd)
    try:
        return PidRef.open(pid)  # now that those are closed there is a free descriptor for it
    except OSError:  # one that nobody holds is nobody's
        os.kill(pid, signal.SIGKILL)  # noqa: TID251  # a child that nobody has reaped: the number is its own
        os.waitid(os.P_PID, pid, os.WEXITED)
        raise


def adopt_fds(count: int) -> list[int]:
    """In a helper, first thing: close all but stdio and the `count` descriptors given to it; keep those from passing
    through exec."""
    fds = list(range(FIRST_FD, FIRST_FD + count))
    os.closerange(FIRST_FD + count, os.sysconf('SC_OPEN_MAX'))
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds
