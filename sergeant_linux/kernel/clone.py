"""Fork into a cgroup: the child is in it from its first instruction.

Facts: clone3(2) with CLONE_INTO_CGROUP (since Linux 5.7) costs 1 ms more than a fork; a process that writes itself
into cgroup.procs waits for an RCU grace period, 7 to 15 ms, and holds a lock that every fork and exit of the host
waits for. libc has no wrapper, and doesn't know of a child made behind its back: its at-fork handlers don't run
there. Container runtimes answer clone3 with ENOSYS (their seccomp filters can't look into its arguments). Kernels 6.1
to 6.18 at least kill such a child at birth when the target has seen another number of cgroup.kill than the caller's
own cgroup.
Consequence: only for a process that at once forks properly and leaves. Python's own fork handlers are run around the
call.
Price: ctypes, and a fallback that must be there anyway.
"""

import ctypes
import errno
import os
import signal
from typing import Final

SYS_CLONE3: Final = 435
"""The same number on every architecture (since Linux 5.3)."""

CLONE_INTO_CGROUP: Final = 0x200000000

_UNSUPPORTED: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.E2BIG, errno.EPERM, errno.EOPNOTSUPP, errno.EACCES})


class Unsupported(Exception):
    """This kernel, or what filters its system calls, has no CLONE_INTO_CGROUP for us; nothing was forked."""


class _CloneArguments(ctypes.Structure):
    """struct clone_args, version 2 (88 bytes)."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            'flags',
            'pidfd',
            'child_tid',
            'parent_tid',
            'exit_signal',
            'stack',
            'stack_size',
            'tls',
            'set_tid',
            'set_tid_size',
            'cgroup',
        )
    ]


_libc: Final = ctypes.PyDLL(None, use_errno=True)  # PyDLL: the GIL is held over the call, as os.fork does
_libc.syscall.restype = ctypes.c_long


def fork_into(cgroup: int) -> int:
    """As os.fork(), the child in the cgroup whose directory `cgroup` is open. Raises `Unsupported`, and OSError as
    fork(2) does.

    The child must do no more than fork and leave: libc doesn't know of it.
    """
    arguments = _CloneArguments(flags=CLONE_INTO_CGROUP, exit_signal=signal.SIGCHLD, cgroup=cgroup)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = _libc.syscall(SYS_CLONE3, ctypes.byref(arguments), ctypes.c_size_t(ctypes.sizeof(arguments)))
    number = ctypes.get_errno()
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid > 0:
        return int(pid)
    if number in _UNSUPPORTED:
        raise Unsupported(os.strerror(number))
    raise OSError(number, os.strerror(number))
