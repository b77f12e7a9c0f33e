"""The limiter: lowers the memory limit of workers that run, in a process of its own.

Facts: a write to memory.max that is below what a cgroup has makes the writer give back pages, and at last kill for
them, before the write returns; that takes as long as it takes (cgroup v2 documentation, "memory.max"). An argument of a
program has at most 128 KiB (execve(2), MAX_ARG_STRLEN).
Consequence: the loop writes a limit itself only where there is room below it; the others are written here, one after
the other, and nobody waits for that. They come in a memfd, as many as there are; each that is done is answered with its
path, so that the supervisor knows what is left to be done should this process end.
"""

import json
import os
import signal
import socket
from contextlib import suppress
from typing import Final

from sergeant_linux.helpers import AT_WORK
from sergeant_linux.kernel import prctl, proctitle, spawn

CONTROL_FD, FILES_FD = range(spawn.FIRST_FD, spawn.FIRST_FD + 2)

LONGEST_PATH: Final = 4096
"""PATH_MAX: an answer is no longer."""


def main(arguments: list[str]) -> None:
    """Write each value to its file."""
    prctl.set_pdeathsig(signal.SIGKILL)
    spawn.adopt_fds(2)
    proctitle.set_title('sergeant-linux: limiter')
    prctl.set_name('sergeant-linux')
    control = socket.socket(fileno=CONTROL_FD)
    control.send(AT_WORK, socket.MSG_NOSIGNAL)
    for path, value in json.loads(os.pread(FILES_FD, os.fstat(FILES_FD).st_size, 0)).items():
        with suppress(OSError), open(path, 'w', encoding='ascii') as file:  # its worker may be gone
            file.write(value)
        control.send(path.encode('utf-8', 'surrogateescape'), socket.MSG_NOSIGNAL)
