"""The sessions of a pool's workers, in a memfd: the supervisor writes it, who buries a pool reads it.

Facts: a descriptor that is passed on shares its open file description, and with it the offset and the lock of flock(2);
one that is opened anew, by /proc/self/fd, has its own. A worker's session has the number of its pid, and the start time
tells it from a later one of that number. Memory for what is written may be lacking (ENOMEM, ENOSPC).
Consequence: an entry a life, written in place: whoever reads it costs no wake-up. Each reader gets a descriptor of its
own, which can't write, and the lock of it says who buries: one at a time. A life that can't be written down has no
entry: it is found by its mark alone. One that can't be struck out stays, harmless: its start time is no other's.
"""

import os
from struct import calcsize, iter_unpack, pack
from typing import Final

_ENTRY: Final = 'qq'
_SIZE: Final = calcsize(_ENTRY)


class Sessions:
    """The supervisor's side."""

    def __init__(self) -> None:
        """Raises OSError when there is no descriptor to be had."""
        self._fd = os.memfd_create('sergeant-sessions', os.MFD_CLOEXEC)
        self._free: list[int] = []
        self._used = 0

    def reader(self) -> int:
        """Return a new descriptor for a reader; the caller closes it. Raises OSError."""
        return os.open(f'/proc/self/fd/{self._fd}', os.O_RDONLY | os.O_CLOEXEC)

    def enter(self, session: int, start_time: int) -> int | None:
        """Write down the session of a worker; the answer is what `leave` takes, None: there was no room."""
        if self._free:
            index = self._free.pop()
        else:
            index, self._used = self._used, self._used + 1
        if self._write(index, session, start_time):
            return index
        self._free.append(index)
        return None

    def leave(self, index: int) -> None:
        """Strike a session out: nothing is left of that life."""
        if self._write(index, 0, 0):
            self._free.append(index)

    def _write(self, index: int, session: int, start_time: int) -> bool:
        try:
            os.pwrite(self._fd, pack(_ENTRY, session, start_time), index * _SIZE)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def read(fd: int) -> dict[int, int]:
    """Return the start time of each session's worker, by session."""
    table = os.pread(fd, os.fstat(fd).st_size, 0)
    return {session: start_time for session, start_time in iter_unpack(_ENTRY, table) if session != 0}
