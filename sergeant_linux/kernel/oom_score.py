"""How likely the OOM killer is to choose this process: /proc/self/oom_score_adj (proc(5), since Linux 2.6.36).

Facts: the adjustment, from -1000 to 1000, is added to the thousandths of the allowed memory that a process uses; at
-1000 the process is never killed, and one that is then over its cgroup's limit spins in the kernel for ever (seen on
Linux 6.1 and 6.12). Fork and exec keep it. Raising it is always allowed. Lowering it below the lowest value that was
ever set with CAP_SYS_RESOURCE needs that capability (EACCES). The file belongs to root once a process has changed its
uid.
Consequence: who lowers his own must put it back in the children that he does not want to be spared, before they change
their uid.
"""

import os
from typing import Final

PATH: Final = '/proc/self/oom_score_adj'


def adjustment() -> int:
    """Return this process's adjustment. Raises OSError where /proc is not mounted."""
    with open(PATH, encoding='ascii') as file:
        return int(file.read())


def adjust(value: int) -> None:
    """Set this process's adjustment. Raises OSError: EACCES when it would be too low, or /proc is not ours."""
    fd = os.open(PATH, os.O_WRONLY | os.O_CLOEXEC)  # a file object costs each newborn 0.7 ms more
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)
