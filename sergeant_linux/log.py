"""The supervisor's log: lines to stderr that never make it wait, in the ancestor's text or as JSON.

Facts: a write to a full pipe, a stopped terminal or a slow socket blocks, and a supervisor that is blocked by its log
supervises nothing. O_NONBLOCK belongs to the open file, not to the descriptor (open(2)): set on fd 2 it would change
the stderr of every worker, whose prints would then fail.
Decision: the handler has an open file of its own where fd 2 leads, non-blocking, and a bounded queue in front of it.
What finds no room is counted, and the count is logged as soon as there is room. The loop asks `wants_write` and calls
`write_some` when the descriptor is writable; without a loop each new line tries for those before it.
Price: whoever doesn't read our stderr loses lines, never workers.

Invariants: nothing here raises, or blocks (but `close`, for as long as its caller says) · a line is written whole and
in order or not at all, and what was begun is continued first · a lost line is counted exactly once.
"""

import errno
import json
import logging
import math
import os
import select
import signal
import socket
import stat
import time
from collections import deque
from collections.abc import Mapping
from typing import Final, Literal

from sergeant_linux.recent import utc

LOGGER_NAME: Final = 'Supervisor'
"""The ancestor's; people have filters and handlers on it."""

QUEUE_LIMIT: Final = 1024 * 1024
"""Upper bound of what waits for room at stderr, in bytes. When nothing waits, a single line may be longer."""

_STDERR: Final = 2
_DEEPEST: Final = 16


class _Sink:
    """Where a descriptor leads, by a way of our own that doesn't block. Takes nothing from the descriptor itself."""

    def __init__(self, fd: int) -> None:
        self._socket: socket.socket | None = None
        self._asks_first = False
        try:
            mode = os.fstat(fd).st_mode
        except OSError:  # closed: nobody reads what we say
            self._fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        else:
            self._open(fd, mode)
        self._is_terminal = os.isatty(self._fd)
        self.pollable = _is_pollable(self._fd)

    def _open(self, fd: int, mode: int) -> None:
        if stat.S_ISREG(mode):
            # A file is never full the way a pipe is. Opened again it would have a position of its own, and what the
            # workers print by the inherited one (`2>log`) would overwrite our lines.
            self._fd = os.dup(fd)
        elif stat.S_ISSOCK(mode):
            # A socket can't be opened by its name in /proc (ENXIO), and needn't be: MSG_DONTWAIT is per call.
            self._socket = socket.socket(fileno=os.dup(fd))
            self._fd = self._socket.fileno()
        else:
            # proc_pid_fd(5): opening /proc/self/fd/N gives a new open file of the same pipe or terminal.
            # O_NOCTTY: a session leader that opens a terminal would else be given it for its own.
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            try:
                self._fd = os.open(f'/proc/self/fd/{fd}', flags)
            except OSError:
                # It is another user's (we run under su, setpriv, gosu), a FIFO without a reader, or there is no /proc.
                self._fd = os.dup(fd)
                self._asks_first = True

    def fileno(self) -> int:
        """The descriptor to poll; -1 when closed."""
        return self._fd

    def write(self, data: bytes) -> int:
        """Write what there is room for and return how much that was. Raises BlockingIOError and other OSErrors."""
        if self._fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._asks_first:
            # The shared open file may block. A pipe that polls as writable takes PIPE_BUF bytes at once (pipe(7)),
            # unless another writer comes between: the risk that remains on this way.
            if not _writable(self._fd, 0.0):
                raise BlockingIOError
            data = data[: select.PIPE_BUF]
        if not self._is_terminal:
            return os.write(self._fd, data)
        # A write from the background to a terminal with TOSTOP sends the writer SIGTTOU (termios(3)), which to the
        # supervisor means one worker less; while it is blocked the write just happens.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            return os.write(self._fd, data)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def close(self) -> None:
        """Close it; a second time does nothing. Every later write fails with EBADF."""
        if self._socket is not None:
            self._socket.close()
        elif self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def _is_pollable(fd: int) -> bool:
    """Whether epoll takes the descriptor; it refuses regular files and /dev/null with EPERM (epoll_ctl(2))."""
    with select.epoll() as probe:
        try:
            probe.register(fd, select.EPOLLOUT)
        except PermissionError:
            return False
    return True


def _writable(fd: int, patience: float) -> bool:
    """Whether the descriptor has room or an error to tell, within `patience` seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(math.ceil(patience * 1000)))


class StderrHandler(logging.Handler):
    """Writes records to stderr, where fd 2 leads when the handler is made, and never waits for it.

    For the loop: poll `fileno()` for writability while `wants_write`, and only then (a broken pipe reports EPOLLERR for
    ever, whatever it was registered for); call `write_some()` when it is writable. Where `pollable` is False (regular
    files, /dev/null) epoll refuses the descriptor, and nothing ever waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sink = _Sink(_STDERR)
        self._queue: deque[tuple[bytes, int]] = deque()  # what is still to be written, and how many records it tells of
        self._queued = 0  # bytes
        self._begun = False  # the first in the queue is partly written
        self._broken = False  # the last write failed, and not for want of room
        self._lost = 0

    @property
    def wants_write(self) -> bool:
        """Whether something waits for room at stderr."""
        return bool(self._queue) and not self._broken

    @property
    def pollable(self) -> bool:
        """Whether epoll takes the descriptor."""
        return self._sink.pollable

    def fileno(self) -> int:
        """The descriptor to poll for writability; -1 when closed."""
        return self._sink.fileno()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or queue it, or count it as lost."""
        line = self._line(record)
        if self._queue and (self._lost or self._queued + len(line) > QUEUE_LIMIT):
            self._lost += 1
        else:
            self._push_loss()
            self._push(line, 1)
        self.write_some()

    def write_some(self) -> None:
        """Write what there is room for."""
        self.acquire()
        try:
            while self._queue:
                self._write_first()
                if not self._queue:
                    self._push_loss()
        except BlockingIOError:
            pass
        except OSError:  # EPIPE: no reader · EIO: the terminal is gone · ENOSPC: the disk is full · EBADF: closed
            self._drop()
        finally:
            self.release()

    def flush(self) -> None:
        """As `write_some`; logging.shutdown calls it."""
        self.write_some()

    def close(self, patience: float = 0.0) -> None:
        """Write what can be written within `patience` seconds, then close. What comes later is dropped."""
        deadline = time.monotonic() + patience
        self.acquire()
        try:
            self.write_some()
            while self.wants_write and (left := deadline - time.monotonic()) > 0:
                _writable(self._sink.fileno(), left)
                self.write_some()
            self._sink.close()
        finally:
            self.release()
        super().close()

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            text = self.format(record)
        except Exception as error:  # the caller's mistake, such as arguments that don't fit the message
            text = self.format(_warning(f'a record from {record.pathname}:{record.lineno} has no text: {_repr(error)}'))
        return text.encode('utf-8', 'backslashreplace') + b'\n'

    def _push(self, line: bytes, records: int) -> None:
        self._queue.append((line, records))
        self._queued += len(line)

    def _push_loss(self) -> None:
        """Queue the line that tells how many were lost, if any; should it be lost itself, it counts for all of them."""
        if self._lost:
            record = _warning(f'{self._lost} log lines were lost: stderr was full')
            self._push(self._line(record), self._lost)
            self._lost = 0

    def _write_first(self) -> None:
        line, records = self._queue[0]
        written = self._sink.write(line)
        self._broken = False
        self._queued -= written
        self._begun = written < len(line)
        if self._begun:
            self._queue[0] = (line[written:], records)
        else:
            self._queue.popleft()

    def _drop(self) -> None:
        """Count all that waits as lost, but for the rest of a line that was begun."""
        self._broken = True
        begun = self._queue.popleft() if self._begun else None
        self._lost += sum(records for _, records in self._queue)
        self._queue.clear()
        self._queued = 0
        if begun is not None:
            self._push(*begun)


def _warning(message: str) -> logging.LogRecord:
    return logging.LogRecord(LOGGER_NAME, logging.WARNING, __file__, 0, message, None, None)


class TextFormatter(logging.Formatter):
    """The ancestor's lines, word for word."""

    def __init__(self) -> None:
        super().__init__(
            fmt='%(asctime)s %(name)-12s %(process)d %(levelname)-8s %(message)s',
            datefmt='%Y-%m-%d %H:%M:%S',
        )


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII; whatever a record holds, the line is valid.

    Keys: `time` (ISO 8601, UTC, milliseconds), `level`, `logger`, `process` (the supervisor's pid; `pid` is left to the
    workers), `message`; where the record has them (`extra={'event': …, 'fields': {…}}`), `event` and what is in
    `fields`, and the ancestor's extras `supervisor` and `summary`; `traceback` for an exception.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        told: dict[str, object] = {
            'time': utc(record.created),
            'level': record.levelname.lower(),
            'logger': record.name,
            'process': record.process,
            'message': record.getMessage(),
        }
        extras = record.__dict__
        if 'event' in extras:
            told['event'] = extras['event']
        if isinstance(fields := extras.get('fields'), Mapping):
            told.update(fields)
        told.update({key: extras[key] for key in ('supervisor', 'summary') if key in extras})
        if record.exc_info:
            told['traceback'] = self.formatException(record.exc_info)
        return json.dumps(_plain(told), allow_nan=False)


def _plain(value: object, outer: tuple[object, ...] = ()) -> object:
    """Return the value as JSON can have it: NaN and the infinities as null, what JSON has no word for as its repr."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and value.bit_length() <= 64:
        return value
    if len(outer) > _DEEPEST or any(value is each for each in outer):
        return _repr(value)
    inner = (*outer, value)
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else _repr(key): _plain(each, inner) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each, inner) for each in value]
    return _repr(value)


def _repr(value: object) -> str:
    """Return the value's repr, or what can be said of it where that raises."""
    try:
        return repr(value)
    except Exception:
        return f'<{type(value).__name__} without a repr>'


def make_logger(level: str, format: Literal['text', 'json']) -> tuple[logging.Logger, StderrHandler]:
    """Return the ancestor's logger with a fresh handler on it: `level` is debug, info, warning, error or critical.

    As the ancestor's, it also passes its records on to the root logger's handlers, where a host program has some.
    """
    handler = StderrHandler()
    handler.setFormatter(JsonFormatter() if format == 'json' else TextFormatter())
    logger = logging.getLogger(LOGGER_NAME)
    logger.setLevel(level.upper())
    logger.addHandler(handler)
    return logger, handler


def detach(logger: logging.Logger, handler: StderrHandler, *, patience: float = 0.0) -> None:
    """Take the handler off the logger and close it; `patience` in seconds, as `StderrHandler.close`."""
    logger.removeHandler(handler)
    handler.close(patience)
