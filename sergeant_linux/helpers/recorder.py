"""The recorder: a process that writes the flight record, so that the loop never waits for a disk.

Facts: a write to a file waits when the disk is busy, and nothing makes it not to (open(2): O_NONBLOCK has no effect on
regular files). A record can be read from a line on that says where it begins, and from no other.
Consequence: what it is told comes in pieces, the first of a line marked as such where the record may begin there; with
it a file is begun, and the one before is kept as FILE.1, in the place of the one before that.
Price: of a supervisor that was killed the last lines may be missing, as the undertaker ends this process, too.

Invariant: there are two files at most, whose size is who sends' affair; only their owner can read them.
"""

import os
import socket
from typing import Final

from sergeant_linux.helpers import AT_WORK
from sergeant_linux.kernel import prctl, proctitle, spawn

BEGINS: Final = b'B'
GOES_ON: Final = b'-'
"""What a piece begins with."""

LONGEST_PIECE: Final = 32_768
"""Bytes of a piece, without its mark."""


def main(arguments: list[str]) -> None:
    """Write until the supervisor's end is closed."""
    spawn.adopt_fds(1)
    proctitle.set_title('sergeant-linux: recorder')
    prctl.set_name('sergeant-linux')
    (path,) = arguments
    told = socket.socket(fileno=spawn.FIRST_FD)
    told.send(AT_WORK, socket.MSG_NOSIGNAL)
    file, complained = -1, False
    while piece := told.recv(1 + LONGEST_PIECE):
        try:
            if piece[:1] == BEGINS:
                file = begin(path, file)
            if file >= 0:
                write(file, piece[1:])
            complained = False
        except OSError as error:
            if not complained:
                complained = True
                told.send(str(error).encode()[:1000], socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def begin(path: str, before: int) -> int:
    """Return the descriptor of a new file; the one before is kept beside it. Raises OSError."""
    if before >= 0:
        os.close(before)
    if os.path.lexists(path):
        os.replace(path, f'{path}.1')
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def write(file: int, data: bytes) -> None:
    """Write all of it. Raises OSError."""
    while data:
        data = data[os.write(file, data) :]
