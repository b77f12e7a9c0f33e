"""The page of one life: what a worker says of itself without being asked, in memory that the supervisor can read.

Facts: memory that two processes share is read and written without a system call, and without the other side's doing: a
worker that hangs in C code can still be read. A load or store of 8 aligned bytes is one instruction, so nobody sees
half a number. Who touches a mapping past its file's end dies of SIGBUS; a memfd can be sealed against that
(F_ADD_SEALS, fcntl(2), since Linux 3.17). The memory of a page belongs to the cgroup of who touches it first.
Consequence: one memfd of one page for each life, sealed before anybody has it, and touched by the supervisor. A worker
stores numbers, 8 bytes each; only the text of the last error, which is longer, has a sequence number: odd while it is
written, and another one afterwards.
Decision: what is there is the worker's word, and a worker may be broken or hostile: what makes no sense (a time that
is to come, a negative number, text that is no UTF-8) is unknown. Times are seconds of CLOCK_MONOTONIC, which all
processes of a host share; 0 is none.
Price: 4 KiB and one descriptor for each life, on both sides: Python's mmap keeps one.

Invariant: nothing that a worker does to its page can end, stop or mislead the reader into more than wrong numbers.
"""

import fcntl
import mmap
import os
import time
from typing import Any, Final, NamedTuple

SIZE: Final = mmap.PAGESIZE

DONE: Final = 0
FAILED: Final = 1
STARTED: Final = 2
SIGN: Final = 3
ERROR_SEQUENCE: Final = 4
ERROR_LENGTH: Final = 5
"""The places of the numbers, 8 bytes each; STARTED and SIGN are C doubles, the others C long longs."""

ERROR: Final = 48
MAX_ERROR: Final = 240
"""Where the text of the last error begins, and how many bytes of UTF-8 it has at most."""

TRIES: Final = 3
"""How often a text that is being written is read again."""

_NOEXEC_SEAL: Final = 0x8
"""MFD_NOEXEC_SEAL (memfd_create(2), since Linux 6.3), which a host may insist on (vm.memfd_noexec)."""


class Look(NamedTuple):
    """What a page says. None: nothing, or nothing that makes sense. `task_started`: of the oldest task in work."""

    tasks_done: int | None
    tasks_failed: int | None
    task_started: float | None
    last_sign: float | None
    last_error: str | None


class Page:
    """The supervisor's side: reads. `fd` is the worker's way to it."""

    def __init__(self) -> None:
        """Raises OSError when there is none to be had: no descriptor, no memory, no memfd on this host."""
        fd = _memfd()
        try:
            os.write(fd, bytes(SIZE))
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._map = mmap.mmap(fd, SIZE, mmap.MAP_SHARED, mmap.PROT_READ)
        except BaseException:
            os.close(fd)
            raise
        self._bytes = memoryview(self._map)
        self._numbers = self._bytes.cast('q')
        self._times = self._bytes.cast('d')
        self.fd: Final = fd

    def look(self) -> Look:
        """Return what the worker says now."""
        numbers, times = self._numbers, self._times
        started, sign, now = times[STARTED], times[SIGN], time.monotonic()
        counts = _count(numbers[DONE]), _count(numbers[FAILED])
        return Look(*counts, _past(started, now), _past(sign, now), self._error())

    def _error(self) -> str | None:
        for _ in range(TRIES):
            sequence, length = self._numbers[ERROR_SEQUENCE], self._numbers[ERROR_LENGTH]
            text = bytes(self._bytes[ERROR : ERROR + MAX_ERROR])
            if sequence % 2 == 0 and sequence == self._numbers[ERROR_SEQUENCE]:
                return _readable(text[:length]) if 0 < length <= MAX_ERROR else None
        return None

    def close(self) -> None:
        """Let go of it. The worker's end, `fd`, is whose it was given to."""
        _close(self._map, self._numbers, self._times, self._bytes)


class Pen:
    """The worker's side: writes. `numbers` and `times` are the page itself."""

    def __init__(self, fd: int) -> None:
        """Take the page that `fd` is, and close `fd`. Raises OSError and ValueError where it can't be had."""
        try:
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        self._bytes = memoryview(self._map)
        self.numbers = self._bytes.cast('q')
        self.times = self._bytes.cast('d')

    def error(self, text: str) -> None:
        """Publish the last error, cut. One thread at a time."""
        data = text[:MAX_ERROR].encode('utf-8', 'backslashreplace')[:MAX_ERROR]
        sequence = self.numbers[ERROR_SEQUENCE] | 1
        self.numbers[ERROR_SEQUENCE] = sequence
        self._bytes[ERROR : ERROR + len(data)] = data
        self.numbers[ERROR_LENGTH] = len(data)
        self.numbers[ERROR_SEQUENCE] = (sequence + 1) & (2**62 - 1)

    def close(self) -> None:
        """Let go of it. A worker doesn't: it writes to its end."""
        _close(self._map, self.numbers, self.times, self._bytes)


def _memfd() -> int:
    name, flags = 'sergeant-linux-page', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _NOEXEC_SEAL)
    except OSError:  # EINVAL: an older kernel
        return os.memfd_create(name, flags)


def _close(map_: mmap.mmap, *views: 'memoryview[Any]') -> None:
    for view in views:
        view.release()
    map_.close()


def _count(number: int) -> int | None:
    return number if number >= 0 else None


def _past(moment: float, now: float) -> float | None:
    """NaN and the infinities are in no past."""
    return moment if 0.0 < moment <= now else None


def _readable(data: bytes) -> str:
    """Return the text with nothing in it that a terminal would obey; a character that was cut through is left out."""
    text = data.decode('utf-8', 'ignore')
    return ''.join(char if char.isprintable() else char.encode('unicode_escape').decode() for char in text)
