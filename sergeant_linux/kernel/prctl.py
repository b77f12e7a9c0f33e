"""What a process may ask of the kernel for itself, by prctl(2).

Facts: Python has no prctl. python-prctl has (a C extension, built on the user's machine from an sdist, with libcap's
headers); where it can't be built, the same system call is reached through libc by ctypes, whose import costs 2 ms that
every process would pay. python-prctl drops an argument that is None, so that its `set_pdeathsig()` disarms silently; it
raises ValueError for what the kernel calls EINVAL.
Consequence: two implementations of one protocol, with the same tests. This is the only file that imports python-prctl.
Decision: python-prctl when it can be imported, else libc. The module's functions are those of the implementation in
use; both raise OSError, with the call in its text. ctypes is imported when it is used.
Price: every call is written twice.

Each call concerns the calling process, but a name the calling thread. What a fork and an execve keep differs from call
to call: see each.
"""

import errno
import os
from array import array
from collections.abc import Callable
from typing import Any, Final, Protocol

try:
    import prctl
except ImportError:
    prctl = None

MAX_NAME: Final = 15
"""Upper bound of a thread's name, in bytes (TASK_COMM_LEN less the NUL)."""


class Prctl(Protocol):
    """The calls. Each raises OSError with the errno of prctl(2) when the kernel refuses."""

    def set_pdeathsig(self, signum: int) -> None:
        """Have the kernel send `signum` to this process when its parent ends; 0 disarms.

        PR_SET_PDEATHSIG, since Linux 2.1.57. The parent is the *thread* that forked. One that ended before the call
        sends nothing: compare os.getppid() afterwards. Cleared by fork for the child, by a change of the effective uid
        or gid, and by execve of a set-user-ID program; kept over any other execve.
        """

    def get_pdeathsig(self) -> int:
        """Return the signal that `set_pdeathsig` armed, 0 when none. PR_GET_PDEATHSIG, since Linux 2.3.15."""

    def set_child_subreaper(self, on: bool) -> None:
        """Adopt the orphans among this process's descendants, or do so no longer.

        PR_SET_CHILD_SUBREAPER, since Linux 3.4. Not inherited by fork, kept over execve. What was adopted stays a
        child.
        """

    def get_child_subreaper(self) -> bool:
        """Return what `set_child_subreaper` set. PR_GET_CHILD_SUBREAPER, since Linux 3.4."""

    def set_name(self, name: str) -> None:
        """Name the calling thread, as /proc/PID/comm and `ps -o comm` show it. PR_SET_NAME, since Linux 2.6.9.

        What is over `MAX_NAME` bytes in UTF-8, or follows a NUL, is cut off. Inherited by fork, lost in execve.
        """

    def get_name(self) -> str:
        """Return the calling thread's name. PR_GET_NAME, since Linux 2.6.11. Bytes that are no UTF-8 come as U+FFFD."""

    def set_no_new_privs(self) -> None:
        """Let no execve give this process a privilege that it lacks, for good. PR_SET_NO_NEW_PRIVS, since Linux 3.5.

        Inherited by fork, kept over execve.
        """

    def get_no_new_privs(self) -> bool:
        """Return whether `set_no_new_privs` was called, here or by a forefather. PR_GET_NO_NEW_PRIVS."""

    def set_dumpable(self, on: bool) -> None:
        """Give /proc/self to this process's own user and allow core dumps, or neither.

        PR_SET_DUMPABLE, since Linux 2.3.20. Inherited by fork. A change of uid or gid turns it off (proc(5),
        suid_dumpable), execve of an ordinary program turns it on.
        """

    def get_dumpable(self) -> bool:
        """Return whether `set_dumpable` is on. PR_GET_DUMPABLE, since Linux 2.3.20."""


class PythonPrctl:
    """prctl(2) through python-prctl."""

    def set_pdeathsig(self, signum: int) -> None:
        _ask('PR_SET_PDEATHSIG', prctl.set_pdeathsig, signum)

    def get_pdeathsig(self) -> int:
        return int(_ask('PR_GET_PDEATHSIG', prctl.get_pdeathsig))

    def set_child_subreaper(self, on: bool) -> None:
        _ask('PR_SET_CHILD_SUBREAPER', prctl.set_child_subreaper, int(on))

    def get_child_subreaper(self) -> bool:
        return bool(_ask('PR_GET_CHILD_SUBREAPER', prctl.get_child_subreaper))

    def set_name(self, name: str) -> None:
        _ask('PR_SET_NAME', prctl.set_name, _cut_name(name).decode())

    def get_name(self) -> str:
        try:
            return str(prctl.get_name())
        except UnicodeDecodeError as error:  # python-prctl decodes strictly; the error has the bytes
            return error.object.decode('utf-8', 'replace')

    def set_no_new_privs(self) -> None:
        _ask('PR_SET_NO_NEW_PRIVS', prctl.set_no_new_privs, 1)

    def get_no_new_privs(self) -> bool:
        return bool(_ask('PR_GET_NO_NEW_PRIVS', prctl.get_no_new_privs))

    def set_dumpable(self, on: bool) -> None:
        _ask('PR_SET_DUMPABLE', prctl.set_dumpable, int(on))

    def get_dumpable(self) -> bool:
        return bool(_ask('PR_GET_DUMPABLE', prctl.get_dumpable))


class LibcPrctl:
    """prctl(2) through libc, by ctypes. The options' numbers are those of linux/prctl.h."""

    def __init__(self) -> None:
        import ctypes  # here and not on top: a process that has python-prctl need not pay for it

        self._get_errno: Final[Callable[[], int]] = ctypes.get_errno
        self._prctl: Final = ctypes.CDLL(None, use_errno=True).prctl
        self._prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)

    def set_pdeathsig(self, signum: int) -> None:
        self._call('PR_SET_PDEATHSIG', 1, signum)

    def get_pdeathsig(self) -> int:
        return self._call_for_int('PR_GET_PDEATHSIG', 2)

    def set_child_subreaper(self, on: bool) -> None:
        self._call('PR_SET_CHILD_SUBREAPER', 36, on)

    def get_child_subreaper(self) -> bool:
        return bool(self._call_for_int('PR_GET_CHILD_SUBREAPER', 37))

    def set_name(self, name: str) -> None:
        given = array('B', _cut_name(name) + b'\0')
        self._call('PR_SET_NAME', 15, _address(given))

    def get_name(self) -> str:
        answer = array('B', bytes(MAX_NAME + 1))
        self._call('PR_GET_NAME', 16, _address(answer))
        return answer.tobytes().partition(b'\0')[0].decode('utf-8', 'replace')

    def set_no_new_privs(self) -> None:
        self._call('PR_SET_NO_NEW_PRIVS', 38, 1)

    def get_no_new_privs(self) -> bool:
        return bool(self._call('PR_GET_NO_NEW_PRIVS', 39))

    def set_dumpable(self, on: bool) -> None:
        self._call('PR_SET_DUMPABLE', 4, on)

    def get_dumpable(self) -> bool:
        return bool(self._call('PR_GET_DUMPABLE', 3))

    def _call(self, name: str, option: int, argument: int = 0) -> int:
        result: int = self._prctl(option, argument, 0, 0, 0)
        if result < 0:
            raise _refusal(name, self._get_errno())
        return result

    def _call_for_int(self, name: str, option: int) -> int:
        """Return what an option answers through a pointer to int."""
        answer = array('i', [0])
        self._call(name, option, _address(answer))
        return answer[0]


def _ask(name: str, function: Callable[..., Any], *arguments: int | str) -> Any:
    """Call python-prctl, which says ValueError where the kernel says EINVAL."""
    try:
        return function(*arguments)
    except OSError as error:
        raise _refusal(name, error.errno or errno.EINVAL) from error
    except ValueError as error:
        raise _refusal(name, errno.EINVAL) from error


def _refusal(name: str, number: int) -> OSError:
    return OSError(number, f'prctl({name}): {os.strerror(number)}')


def _cut_name(name: str) -> bytes:
    """Return the part of a name that the kernel keeps, with no character torn."""
    kept = name.partition('\0')[0].encode('utf-8', 'replace')[:MAX_NAME]
    return kept.decode('utf-8', 'ignore').encode()


def _address(numbers: 'array[int]') -> int:
    """Return where an array lies. The caller keeps the array alive over the call."""
    return numbers.buffer_info()[0]


IMPLEMENTATION: Final = 'libc' if prctl is None else 'python-prctl'
"""Through what this process reaches prctl(2)."""

_implementation: Final[Prctl] = LibcPrctl() if prctl is None else PythonPrctl()

set_pdeathsig = _implementation.set_pdeathsig
get_pdeathsig = _implementation.get_pdeathsig
set_child_subreaper = _implementation.set_child_subreaper
get_child_subreaper = _implementation.get_child_subreaper
set_name = _implementation.set_name
get_name = _implementation.get_name
set_no_new_privs = _implementation.set_no_new_privs
get_no_new_privs = _implementation.get_no_new_privs
set_dumpable = _implementation.set_dumpable
get_dumpable = _implementation.get_dumpable
