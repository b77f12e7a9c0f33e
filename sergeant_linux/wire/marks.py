"""The marks of a worker, and of everything it starts: which pool, which slot, which life.

Facts: /proc/PID/environ shows the block that a process was exec'd with (proc(5)), so only what is written into that
block can be seen there; what a worker starts inherits it, unless it is given another one, as `env -i` does. Limits of
resources are inherited by every fork and kept over every execve, whatever else changes, and /proc/PID/limits is for
everybody to read, of a zombie, too. RLIMIT_LOCKS limits nothing since Linux 2.4.25 (getrlimit(2)), so nobody sets it.
Decision: the fork server's environment has room for the marks, and a newborn writes its own into it. The same is
written into the limit that limits nothing: the hard one says the pool, the soft one the life. So what a worker starts
is known by two marks, of which the second is lost by intent only.
Price: `ulimit -x` shows an odd number. Inside of a pool whose workers aren't root's, another pool's workers carry the
outer mark.
"""

import resource
from typing import Final

LIFE: Final = 'SERGEANT_WORKER_LIFE'
SLOT: Final = 'SERGEANT_WORKER_SLOT'
POOL: Final = 'SERGEANT_WORKER_POOL'

ROOM: Final = '0' * 20
"""What stands in the environment of the fork server where a worker will write its own marks."""

RLIMIT_LOCKS: Final = 10
"""asm-generic/resource.h; Python has no name for it."""

_FLAG: Final = 1 << 62
"""In no limit that anybody means as one, and below what Python takes."""
_PID_SHIFT: Final = 32
"""A pid has at most 22 bits (PID_MAX_LIMIT), a pool's token 32."""


def pool_limit(pool: str) -> int:
    """Return the hard limit that says the pool, whose name is PID-TOKEN, the token in hexadecimal."""
    pid, token = pool.split('-')
    return _FLAG | int(pid) << _PID_SHIFT | int(token, 16)


def supervisor_of(hard: int) -> int | None:
    """Return the pid of the supervisor that a hard limit says; None when it is no mark."""
    pid = (hard & ~_FLAG) >> _PID_SHIFT
    return pid if hard & _FLAG and hard < 1 << 63 and 0 < pid < 1 << 22 else None


def mark_this_process(pool: str, life: int) -> None:
    """Have this process, and all it starts from now on, carry the marks of a life in a limit; life 0: of the pool
    alone. Where that is refused, nothing changes."""
    try:
        resource.setrlimit(RLIMIT_LOCKS, (life, pool_limit(pool)))
    except (OSError, ValueError):  # it carries the mark of another pool, in which this one runs, and is not root
        pass
