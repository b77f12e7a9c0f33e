"""What a worker runs under: whose process it is, and what it may use of the host.

Facts: only root, or who has the capability, may change a uid, raise a hard limit or lower a niceness, and after the
change of uid may no longer. A change of uid clears PR_SET_PDEATHSIG (prctl(2)), takes the capabilities away only where
it leads from root to another, and makes the process non-dumpable: its files in /proc belong to root, and nobody of its
new uid can attach to it, read its memory or take its descriptors (ptrace(2), pidfd_getfd(2)).
Consequence: what needs privileges comes first, then groups, gid and uid, then what is to be in force afterwards; the
caller asks for PDEATHSIG after that. A capability that is left is an error: with CAP_KILL or CAP_SETUID a worker could
do to the supervisor what its uid can't.
Decision: a worker of another uid stays non-dumpable, whichever way it is spawned, so that workers of one uid can't read
each other's gates; where a core file is asked for, that is given up, for it can't be had otherwise. `main` tries all of
this on in a process of its own, before there are workers: whether it can be is found out by doing it.
Price: no debugger under the worker's own uid, and /proc/self/environ is not the worker's to read. A fresh interpreter
is open to its own uid until it gets here, for its first milliseconds.

Invariant: when `apply` returns, everything asked for is in force; when it raises, the process must leave.
"""

import json
import os
import resource
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from sergeant_linux.kernel import oom_score, prctl, procfs, spawn
from sergeant_linux.wire import gate as gates

INFINITY: Final = resource.RLIM_INFINITY

TRIED: Final = 'tried'


class CantBe(Exception):
    """A condition can't be brought about; the text says which, why not, and what it would need."""


def apply(conditions: Mapping[str, Any]) -> None:
    """Bring about what `credentials.conditions` has put together. None, or nothing: leave it as it is.

    Raises `CantBe`.
    """
    if (adjustment := conditions['oom_score_adj']) is not None:
        with _asking(f'set oom_score_adj to {adjustment}', 'a /proc that can be written'):
            oom_score.adjust(adjustment)
    if (nice := conditions['nice']) is not None:
        with _asking(f'set the niceness to {nice}', 'CAP_SYS_NICE to lower it (or RLIMIT_NICE)'):
            os.setpriority(os.PRIO_PROCESS, 0, nice)
    for name, (soft, hard) in conditions['limits'].items():
        needs = 'CAP_SYS_RESOURCE to raise a hard limit' + (', fs.nr_open at least' if name == 'nofile' else '')
        with _asking(f'set the limit {name} to {_bound(soft)}:{_bound(hard)}', needs):
            resource.setrlimit(getattr(resource, f'RLIMIT_{name.upper()}'), (soft, hard))
    if (mask := conditions['umask']) is not None:
        os.umask(mask)
    if (groups := conditions['groups']) is not None:
        with _asking(f'take the supplementary groups {groups}', 'CAP_SETGID'):
            os.setgroups(groups)
    if (gid := conditions['gid']) is not None:
        with _asking(f'take the gid {gid}', 'CAP_SETGID'):
            os.setresgid(gid, gid, gid)
    if (uid := conditions['uid']) is not None:
        with _asking(f'take the uid {uid}', 'CAP_SETUID'):
            os.setresuid(uid, uid, uid)
        if uid != 0 and (kept := procfs.permitted_capabilities()):
            raise CantBe(f'the uid {uid} would keep capabilities ({kept:#x}): this needs a supervisor that is root')
    restrict_dumps(conditions)
    if conditions['no_new_privileges']:
        prctl.set_no_new_privs()
    os.environ.update(conditions['environ'])


def restrict_dumps(conditions: Mapping[str, Any]) -> None:
    """Keep others of the new uid out of this process. Again after an execve, which lets them in."""
    if conditions['uid'] is not None:
        prctl.set_dumpable(conditions['dumpable'])


@contextmanager
def _asking(what: str, needs: str) -> Iterator[None]:
    """Say what could not be done, and what it would need."""
    try:
        yield
    except (OSError, ValueError, OverflowError) as error:  # resource raises ValueError for EPERM and EINVAL
        reason = error.strerror if isinstance(error, OSError) else error
        raise CantBe(f'cannot {what} ({reason}): this needs {needs}') from None


def _bound(value: int) -> str:
    return 'infinity' if value == INFINITY else str(value)


def main(arguments: list[str]) -> None:
    """Try the conditions on: bring them about, in a fresh interpreter too if the workers will have one; say how it
    went; stay until the supervisor has had its look."""
    spawn.adopt_fds(1)
    supervisor = socket.socket(fileno=spawn.FIRST_FD)
    conditions = json.loads(arguments[0])
    refusal = None
    if arguments[1:] == [TRIED]:
        restrict_dumps(conditions)
    else:
        try:
            apply(conditions)
            if conditions['fresh_interpreter']:
                supervisor.set_inheritable(True)
                command = spawn.command_line(__name__, [arguments[0], TRIED])
                with _asking(f'run {sys.executable} as the uid {os.geteuid()}', 'the permission to execute it'):
                    os.execve(sys.executable, command, os.environ)
        except CantBe as error:
            refusal = str(error)
    gates.send(supervisor, {'type': 'tried', 'refusal': refusal}, patience=1.0)
    supervisor.recv(1)
