"""Asking a worker for its stacks, and collecting them, without ever waiting.

Facts: what answers is worker/dump.py, in a signal handler, piece by piece, and doesn't say when it has done; a worker
that is stopped (SIGSTOP), or sleeps in the kernel uninterruptibly, answers when it runs again, or never. A worker that
has closed its descriptors (as daemonizing code does) may have anything under the number of its pipe by now; then
nobody has the pipe's other end any more, and it shows POLLHUP (poll(2)). What a worker writes into a pipe is its own
affair: it may write for ever, and anything.
Consequence: what is unread of older days is thrown away first; a pipe without a writer is not asked for; the answer is
over when the thread that was interrupted is in it, its last line has ended, and nothing has come for `QUIET` seconds;
or when `PATIENCE` is over, or `MOST` bytes have come.
Decision: the text is plain ASCII as faulthandler writes it; all else is written as an escape.
Price: an answer comes `QUIET` seconds late.

Invariant: nothing here blocks; one `Dump` at a time reads a pipe.
"""

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from sergeant_linux.engine.lifeline import Lifeline
from sergeant_linux.kernel.poller import Handler, Poller

PATIENCE: Final = 1.0
"""Seconds that a worker has for its answer."""

QUIET: Final = 0.05

MOST: Final = 65_536
"""Bytes: what a pipe holds, pipe(7)."""


def pipe() -> tuple[int, int]:
    """Return a fresh pipe: the supervisor's end and the worker's end; neither blocks. Raises OSError."""
    return os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)


class Dump:
    """One question. The loop watches it, calls `on_readable`, and looks again at `deadline`, when it is over."""

    def __init__(self, pipe: int, ask: Callable[[], object], now: float) -> None:
        """Ask. `pipe`: the supervisor's end. `ask` sends the worker SIGWINCH (worker/dump.py), if it is there."""
        self._pipe = pipe
        self._heard = b''
        self._drop_stale()
        self._last = self.deadline = now
        if self._has_writer():
            ask()
            self._last = self.deadline = now + PATIENCE

    def fileno(self) -> int:
        """Return the descriptor to watch until it is over; it stays the caller's, open."""
        return self._pipe

    def on_readable(self, now: float) -> None:
        """Take in what has come; this may bring the deadline nearer, to `now` when there will be no more."""
        try:
            more = os.read(self._pipe, MOST - len(self._heard))
        except BlockingIOError:
            return
        except OSError:
            more = b''
        self._heard += more
        if not more or len(self._heard) >= MOST:
            self.deadline = now
        elif more.endswith(b'\n') and b'Current thread' in self._heard:
            self.deadline = min(self._last, now + QUIET)
        else:
            self.deadline = self._last

    def over(self, now: float) -> bool:
        """Whether the answer is all there, or will not come."""
        return now >= self.deadline

    @property
    def result(self) -> str | None:
        """What was answered; None: nothing."""
        return _plain(self._heard) if self._heard else None

    def _drop_stale(self) -> None:
        """Two reads empty a pipe of any ordinary size; a worker that fills it faster gets what it deserves."""
        try:
            for _ in range(2):
                os.read(self._pipe, MOST)
        except OSError:
            pass

    def _has_writer(self) -> bool:
        poll = select.poll()
        poll.register(self._pipe, 0)
        try:
            return not poll.poll(0)
        except OSError:  # ENOMEM, poll(2): nobody knows
            return False


Done = Callable[[str | None], None]
"""Gets the stacks; None: the worker has given none."""


class Stacks:
    """All questions that are open, in one loop. Who asks about a worker that is being asked hears the same answer."""

    def __init__(self, poller: Poller[Handler]) -> None:
        self._poller = poller
        self._open: dict[int, tuple[Dump, list[Done]]] = {}

    def ask(self, life: int, pipe: int | None, ask: Callable[[], object], done: Done, now: float) -> None:
        """Ask the worker of this life. `pipe`: the supervisor's end, None when it has none; the rest as for `Dump`."""
        if life in self._open:
            self._open[life][1].append(done)
            return
        if pipe is None:
            done(None)
            return
        dump = Dump(pipe, ask, now)
        self._open[life] = dump, [done]
        with suppress(OSError):  # fs.epoll.max_user_watches: what has come is read at the deadline
            self._poller.register(dump, lambda _: dump.on_readable(time.monotonic()))

    def next_deadline(self) -> float | None:
        """Return when `elapse` is due; None when nobody is being asked."""
        return min((dump.deadline for dump, _ in self._open.values()), default=None)

    def elapse(self, now: float) -> None:
        """Hand out the answers that are all there."""
        for life in [life for life, (dump, _) in self._open.items() if dump.over(now)]:
            self.ended(life)

    def born(self, lifeline: Lifeline, now: float) -> None:
        """Nobody asks yet."""

    def ready(self, life: int, now: float) -> None:
        """Who wants to may ask."""

    def ended(self, life: int) -> None:
        """The worker is gone, or has answered: hand out what there is. Before its pipe is closed."""
        if life in self._open:
            dump, waiting = self._open.pop(life)
            self._poller.unregister(dump)
            dump.on_readable(time.monotonic())
            for done in waiting:
                done(dump.result)

    def close(self) -> None:
        """Hand out what there is, to all who wait."""
        for life in list(self._open):
            self.ended(life)


def _plain(data: bytes) -> str:
    """Return the text with nothing in it that a terminal would obey."""
    text = data.decode('ascii', 'backslashreplace')
    return ''.join(char if char == '\n' or char.isprintable() else f'\\x{ord(char):02x}' for char in text)
