"""What this process may open, and has open: counted, tried, and told with its remedy.

Facts: /proc/self/fd lists what is open (proc(5)), and is read by a descriptor, too. EMFILE tells of the own limit,
ENFILE of the system's (fs.file-max); neither can be asked for beforehand, but both can be met on purpose. A limit can
be changed from outside at any time (prlimit(1)).
Decision: before a life is begun, as many descriptors as it takes and as must stay free beside it are taken at once and
given back: no count of our own can be wrong, and what a program has open in which we run counts by itself. Whether a
whole pool fits is worked out instead (core/descriptors.py).
Price: some 25 us a life.
"""

import os
import resource
from contextlib import suppress
from typing import Final

from sergeant_linux.core import descriptors
from sergeant_linux.core.policy import Policy
from sergeant_linux.host import environment

STDIO: Final = 3


def limit() -> int | None:
    """Return RLIMIT_NOFILE as it is now; None: there is none, or it is unknown (seccomp(2))."""
    with suppress(OSError):
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return soft if soft != resource.RLIM_INFINITY else None
    return None


def open_now() -> int | None:
    """Return how many descriptors this process has open; None: unknown."""
    with suppress(OSError):
        return len(os.listdir('/proc/self/fd')) - 1  # not the one that the listing itself had open
    return None


def needed(policy: Policy, before: int | None, workers: int | None = None) -> int:
    """Return what a supervisor takes at most for so many workers (None: those of its policy) and their successors.

    before: what it had open when it was started; None: unknown, then its stdio is counted.
    """
    number = policy.concurrent_workers if workers is None else workers
    return descriptors.needed(STDIO if before is None else before, number + min(policy.max_surge, number))


def too_few(policy: Policy, before: int | None, limit: int | None, workers: int | None = None) -> str | None:
    """Return what is wrong with the limit for so many workers; None: nothing."""
    wanted, number = needed(policy, before, workers), policy.concurrent_workers if workers is None else workers
    if limit is None or wanted <= limit:
        return None
    some = 'a worker' if number == 1 else f'{number} workers'
    return f'{some} may take {wanted} descriptors, the limit (RLIMIT_NOFILE) is {limit}'


def missing(number: int) -> OSError | None:
    """Return why so many descriptors are not to be had now; None: they are."""
    taken: list[int] = []
    try:
        for _ in range(number):
            taken.append(os.dup(taken[0]) if taken else os.eventfd(0))
    except OSError as error:
        return error
    finally:
        for fd in taken:
            os.close(fd)
    return None


def remedy(number: int) -> str:
    """Return the line that gives a process that is yet to be started so many."""
    return environment.limit_line('LimitNOFILE', 'ulimit nofile', '-n', number)
