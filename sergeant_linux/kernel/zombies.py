"""Zombies: children that have ended, until somebody takes their exit status (wait(2)).

By number, and safe so: a child that nobody has reaped keeps its pid.
"""

import os


def any_zombie() -> int | None:
    """Return the pid of a child that has ended and is not reaped, the same one until it is; None when there is none."""
    try:
        status = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return status.si_pid if status is not None else None


def reap(pid: int) -> bool:
    """Reap this child if it is a zombie; False while it is a child that has not ended."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return True
