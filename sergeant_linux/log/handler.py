"""The supervisor's log: records to stderr, or to the journal of systemd, that never make it wait.

Facts: a write to a full pipe, a stopped terminal or a slow socket blocks, and a supervisor that is blocked by its log
supervises nothing.
Decision: the handler has a way of its own, non-blocking, to where the log goes, and a bounded queue in front of it.
What finds no room is counted, and the count is logged as soon as there is room. The loop asks `wants_write` and calls
`write_some` when the descriptor is writable; without a loop each new record tries for those before it. Where stderr is
the journal, entries with fields go there by its own protocol; where that can't be reached, lines with their priority.
Price: whoever doesn't read our log loses records, never workers.

Invariants: nothing here raises, or blocks (but `close`, for as long as its caller says) · a record is written whole and
in order or not at all, and what was begun is continued first · a lost record is counted exactly once.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Literal, Protocol

from sergeant_linux.kernel import journal
from sergeant_linux.kernel.stderr import STDERR, Stderr, writable
from sergeant_linux.log.formats import JournalLineFormatter, JsonFormatter, TextFormatter, journal_entry, safe_repr

LOGGER_NAME: Final = 'Supervisor'
"""The ancestor's; people have filters and handlers on it."""

IDENTIFIER: Final = 'sergeant-linux'
"""The SYSLOG_IDENTIFIER of a pool without a --name."""

QUEUE_LIMIT: Final = 1024 * 1024
"""Upper bound of what waits for room, in bytes. When nothing waits, a single record may be longer."""

Encode = Callable[[logging.LogRecord], bytes]


class Sink(Protocol):
    """Where records go. `write` returns how much there was room for, or raises BlockingIOError or another OSError."""

    @property
    def name(self) -> str: ...
    @property
    def pollable(self) -> bool: ...
    def fileno(self) -> int: ...
    def write(self, data: bytes, /) -> int: ...
    def close(self) -> None: ...


class LogHandler(logging.Handler):
    """Writes records to a sink, and never waits for it.

    For the loop: poll `fileno()` for writability while `wants_write`, and only then (a broken pipe reports EPOLLERR for
    ever, whatever it was registered for); call `write_some()` when it is writable. Where `pollable` is False (regular
    files, /dev/null) epoll refuses the descriptor, and nothing ever waits.
    """

    def __init__(self, sink: Sink, encode: Encode) -> None:
        super().__init__()
        self._sink = sink
        self._encode = encode
        self._queue: deque[tuple[bytes, int]] = deque()  # what is still to be written, and how many records it tells of
        self._queued = 0  # bytes
        self._begun = False  # the first in the queue is partly written
        self._broken = False  # the last write failed, and not for want of room
        self._lost = 0

    @property
    def wants_write(self) -> bool:
        """Whether something waits for room."""
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
                writable(self._sink.fileno(), left)
                self.write_some()
            self._sink.close()
        finally:
            self.release()
        super().close()

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            return self._encode(record)
        except Exception as error:  # the caller's mistake, such as arguments that don't fit the message
            text = f'a record from {record.pathname}:{record.lineno} has no text: {safe_repr(error)}'
            return self._encode(_warning(text))

    def _push(self, line: bytes, records: int) -> None:
        self._queue.append((line, records))
        self._queued += len(line)

    def _push_loss(self) -> None:
        """Queue the line that tells how many were lost, if any; should it be lost itself, it counts for all of them."""
        if self._lost:
            record = _warning(f'{self._lost} log lines were lost: {self._sink.name} was full')
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


def lines(formatter: logging.Formatter) -> Encode:
    """Return what makes lines of records, as the formatter has them."""
    return lambda record: formatter.format(record).encode('utf-8', 'backslashreplace') + b'\n'


def make_logger(
    level: str, format: Literal['auto', 'text', 'json', 'journal'], identifier: str, environ: Mapping[str, str],
) -> tuple[logging.Logger, LogHandler]:
    """Return the ancestor's logger with a fresh handler on it: `level` is debug, info, warning, error or critical;
    `format` auto is journal where stderr is the journal, else text; `identifier` is what the journal knows us by.

    As the ancestor's, it also passes its records on to the root logger's handlers, where a host program has some.
    """
    logger = logging.getLogger(LOGGER_NAME)
    logger.setLevel(level.upper())
    is_stream = journal.is_stream(STDERR, environ)
    if format == 'journal' or (format == 'auto' and is_stream):
        handler = _to_journal(identifier, is_stream=is_stream)
    else:
        handler = LogHandler(Stderr(), lines(JsonFormatter() if format == 'json' else TextFormatter()))
    logger.addHandler(handler)
    return logger, handler


def _to_journal(identifier: str, *, is_stream: bool) -> LogHandler:
    """Return a handler that writes entries; where the journal can't be reached, one that writes lines, and says why."""
    try:
        sink = journal.JournalSocket()
    except OSError as error:
        handler = LogHandler(Stderr(), lines(JournalLineFormatter() if is_stream else TextFormatter()))
        handler.emit(_warning(f'the journal can not be reached ({journal.SOCKET}), the log is on stderr: {error}'))
        return handler
    return LogHandler(sink, lambda record: journal.encode(journal_entry(record, identifier)))


def detach(logger: logging.Logger, handler: LogHandler, *, patience: float = 0.0) -> None:
    """Take the handler off the logger and close it; `patience` in seconds, as `LogHandler.close`."""
    logger.removeHandler(handler)
    handler.close(patience)
