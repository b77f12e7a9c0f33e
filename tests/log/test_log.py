"""The log writes where fd 2 leads, whole lines in order, and never waits for it."""

import contextlib
import errno
import fcntl
import json
import logging
import math
import os
import pty
import re
import select
import socket
import subprocess
import sys
import textwrap
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sergeant_linux.kernel import journal
from sergeant_linux.kernel.stderr import Stderr
from sergeant_linux.log.catalog import MESSAGES
from sergeant_linux.log.formats import JournalLineFormatter, JsonFormatter, TextFormatter, journal_entry
from sergeant_linux.log.handler import QUEUE_LIMIT, LogHandler, detach, lines, make_logger
from tests.kernel.journals import listen, place, read_all

__all__ = ['place']

LOST = re.compile(r'(\d+) log lines were lost: stderr was full')


@contextlib.contextmanager
def handler_where_stderr_is(fd: int, formatter: logging.Formatter | None = None) -> Iterator[LogHandler]:
    """A handler made while fd 2 leads where `fd` leads."""
    saved = os.dup(2)
    os.dup2(fd, 2)
    try:
        handler = LogHandler(Stderr(), lines(formatter or logging.Formatter()))
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    try:
        yield handler
    finally:
        handler.close()


class Pipe:
    """A pipe of one page whose reader reads when the test says so."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)

    def read(self, size: int = QUEUE_LIMIT) -> bytes:
        try:
            return os.read(self.reader, size)
        except BlockingIOError:
            return b''

    def close_reader(self) -> None:
        os.close(self.reader)
        self.reader = -1

    def open_reader(self) -> None:
        """Come as the next reader. pipe(7), proc_pid_fd(5): either end of a pipe can be opened by the other's name."""
        self.reader = os.open(f'/proc/self/fd/{self.writer}', os.O_RDONLY | os.O_NONBLOCK)

    def close(self) -> None:
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    with contextlib.closing(Pipe()) as pipe:
        yield pipe


def record(message: object, *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger('Supervisor').makeRecord(
        'Supervisor', logging.INFO, __file__, 1, message, args, None, extra=extra,
    )


def read_out(pipe: Pipe, handler: LogHandler) -> str:
    """Read and let the handler write, as its loop would, until nothing is left."""
    read = b''
    while True:
        some = pipe.read()
        handler.write_some()
        if not some and not handler.wants_write:
            return (read + pipe.read()).decode()
        read += some


def run_script(script: str, *args: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]  # kwargs are subprocess.run's
        [sys.executable, '-c', textwrap.dedent(script), *args], stdout=subprocess.PIPE, text=True, timeout=30, **kwargs,
    )


# Where fd 2 leads

def test_a_line_is_there_at_once_when_there_is_room(pipe: Pipe) -> None:
    with handler_where_stderr_is(pipe.writer) as handler:
        handler.handle(record('hello'))

        assert (pipe.read(), handler.wants_write, handler.pollable) == (b'hello\n', False, True)


def test_a_full_pipe_makes_nobody_wait_and_gets_the_rest_when_it_is_read(pipe: Pipe) -> None:
    lines = [f'{number} {"x" * 1000}' for number in range(100)]
    with handler_where_stderr_is(pipe.writer) as handler:
        for line in lines:
            handler.handle(record(line))
        assert handler.wants_write

        assert read_out(pipe, handler).splitlines() == lines


def test_the_descriptor_polls_as_writable_exactly_when_write_some_can_go_on(pipe: Pipe) -> None:
    with handler_where_stderr_is(pipe.writer) as handler, select.epoll() as epoll:
        for _ in range(20):
            handler.handle(record('x' * 1000))
        epoll.register(handler, select.EPOLLOUT)

        assert epoll.poll(0) == []
        pipe.read()
        assert epoll.poll(0) == [(handler.fileno(), select.EPOLLOUT)]


def test_the_open_file_that_workers_inherit_stays_as_it_is(pipe: Pipe) -> None:
    before = fcntl.fcntl(pipe.writer, fcntl.F_GETFL)
    with handler_where_stderr_is(pipe.writer) as handler:
        assert fcntl.fcntl(pipe.writer, fcntl.F_GETFL) == before
        assert not os.get_inheritable(handler.fileno())


def test_a_line_longer_than_the_queue_is_written_whole(pipe: Pipe) -> None:
    line = 'x' * (2 * QUEUE_LIMIT)
    with handler_where_stderr_is(pipe.writer) as handler:
        handler.handle(record(line))

        assert read_out(pipe, handler) == f'{line}\n'


def test_lines_that_find_no_room_are_counted_and_the_count_is_logged_where_they_are_missing(pipe: Pipe) -> None:
    lines = [f'{number} {"x" * 10_000}' for number in range(200)]
    with handler_where_stderr_is(pipe.writer) as handler:
        for line in lines:
            handler.handle(record(line))
        read = read_out(pipe, handler).splitlines()
        handler.handle(record('and on it goes'))
        read += read_out(pipe, handler).splitlines()

    *kept, loss, after = read
    assert kept == lines[: len(kept)]
    assert QUEUE_LIMIT - 10_004 < len('\n'.join(kept)) < QUEUE_LIMIT + 4096  # the queue, and what the pipe took
    assert loss == f'{200 - len(kept)} log lines were lost: stderr was full'
    assert after == 'and on it goes'


def test_the_queue_has_all_its_room_again_when_it_was_written(pipe: Pipe) -> None:
    line = 'x' * (QUEUE_LIMIT // 2 - 5000)
    with handler_where_stderr_is(pipe.writer) as handler:
        for _ in range(3):
            handler.handle(record(line))
            handler.handle(record(line))
            assert read_out(pipe, handler).splitlines() == [line, line]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(
    st.integers(1, 300_000).map(lambda size: ('log', size)),
    st.integers(1, 500_000).map(lambda size: ('read', size)),
), max_size=60))
def test_whatever_is_logged_and_read_in_any_order_lines_are_whole_in_order_and_lost_ones_counted_once(
    steps: list[tuple[str, int]],
) -> None:
    read, logged = b'', 0
    with contextlib.closing(Pipe()) as pipe, handler_where_stderr_is(pipe.writer) as handler:
        for act, size in steps:
            if act == 'log':
                handler.handle(record(f'{logged} {"x" * size}'))
                logged += 1
            else:
                while size > 0 and (some := pipe.read(size)):
                    read, size = read + some, size - len(some)
                    handler.write_some()
        lines = (read.decode() + read_out(pipe, handler)).splitlines()

    told = 0
    for line in lines:
        if loss := LOST.fullmatch(line):
            told += int(loss[1])
        else:
            assert re.fullmatch(f'{told} x+', line)
            told += 1
    assert told == logged


def test_a_pipe_without_a_reader_makes_lines_lost_and_nothing_else(pipe: Pipe) -> None:
    with handler_where_stderr_is(pipe.writer) as handler:
        pipe.close_reader()
        for _ in range(3):
            handler.handle(record('x'))

        assert not handler.wants_write


def test_a_pipe_that_had_no_reader_from_the_start_is_no_error(pipe: Pipe) -> None:
    pipe.close_reader()
    with handler_where_stderr_is(pipe.writer) as handler:
        handler.handle(record('x'))
        assert not handler.wants_write


def test_lines_lost_for_want_of_a_reader_are_counted_for_the_next_one(pipe: Pipe) -> None:
    with handler_where_stderr_is(pipe.writer) as handler:
        pipe.close_reader()
        for _ in range(3):
            handler.handle(record('for nobody'))
        pipe.open_reader()
        handler.handle(record('for you'))

        assert read_out(pipe, handler) == '3 log lines were lost: stderr was full\nfor you\n'


def test_a_line_that_was_begun_is_continued_for_the_next_reader_and_what_waited_is_lost(pipe: Pipe) -> None:
    line = ''.join(f'{number:09} ' for number in range(20_000))
    with handler_where_stderr_is(pipe.writer) as handler:
        handler.handle(record(line))
        handler.handle(record('waits'))
        begun = pipe.read().decode()
        pipe.close_reader()
        handler.handle(record('finds no reader'))
        assert not handler.wants_write  # a broken pipe reports EPOLLERR for ever: the loop must not wait for it
        pipe.open_reader()
        handler.handle(record('finds the queue closed until the loss is told'))

        assert begun + read_out(pipe, handler) == f'{line}\n3 log lines were lost: stderr was full\n'


def test_the_queue_has_all_its_room_again_after_a_loss(pipe: Pipe) -> None:
    line = 'x' * (QUEUE_LIMIT // 2 - 5000)
    with handler_where_stderr_is(pipe.writer) as handler:
        handler.handle(record(line))
        handler.handle(record(line))
        pipe.close_reader()
        handler.handle(record('finds no reader'))
        pipe.open_reader()
        handler.write_some()
        read_out(pipe, handler)
        handler.handle(record(line))
        handler.handle(record(line))

        assert read_out(pipe, handler).splitlines() == [line, line]


def test_a_regular_file_keeps_what_it_holds_and_what_others_write_by_the_same_open_file(tmp_path: Path) -> None:
    log = tmp_path / 'log'
    with log.open('wb', buffering=0) as file:  # as `2>log` opens it: no O_APPEND
        file.write(b'the shell\n')
        with handler_where_stderr_is(file.fileno()) as handler:
            handler.handle(record('the supervisor'))
            file.write(b'a worker\n')
            handler.handle(record('the supervisor again'))

            assert log.read_text().splitlines() == ['the shell', 'the supervisor', 'a worker', 'the supervisor again']
            assert (handler.pollable, handler.wants_write) == (False, False)


@pytest.mark.parametrize('device', ['/dev/null', '/dev/full'])
def test_a_device_that_swallows_or_refuses_everything_is_no_error(device: str) -> None:
    with open(device, 'wb', buffering=0) as file, handler_where_stderr_is(file.fileno()) as handler:
        handler.handle(record('x'))

        assert (handler.pollable, handler.wants_write) == (False, False)


def test_a_socket_makes_nobody_wait_and_stays_blocking_for_the_workers() -> None:
    lines = [f'{number} {"x" * 10_000}' for number in range(50)]
    reader, writer = socket.socketpair()
    with reader, writer, handler_where_stderr_is(writer.fileno()) as handler:
        for line in lines:
            handler.handle(record(line))
        assert handler.wants_write
        assert handler.pollable
        assert os.get_blocking(writer.fileno())

        read = b''
        while read.count(b'\n') < len(lines):
            read += reader.recv(QUEUE_LIMIT)
            handler.write_some()
        assert read.decode().splitlines() == lines


def test_a_socket_whose_peer_is_gone_makes_lines_lost_and_nothing_else() -> None:
    reader, writer = socket.socketpair()
    with reader, writer, handler_where_stderr_is(writer.fileno()) as handler:
        reader.close()
        handler.handle(record('x'))

        assert not handler.wants_write


def test_a_terminal_makes_nobody_wait_and_its_end_makes_lines_lost_and_nothing_else() -> None:
    master, slave = pty.openpty()
    try:
        tty.setraw(slave)
        with handler_where_stderr_is(slave) as handler:
            handler.handle(record('hello'))
            assert os.read(master, 100) == b'hello\n'
            assert handler.pollable
            for _ in range(100):  # nobody reads
                handler.handle(record('x' * 1000))
            assert handler.wants_write
            os.close(master)
            master = -1
            handler.handle(record('x'))  # EIO

            assert not handler.wants_write
    finally:
        for fd in (master, slave):
            if fd >= 0:
                os.close(fd)


def test_a_terminal_that_stops_its_background_writers_does_not_signal_the_supervisor() -> None:
    # TOSTOP: a write from the background means SIGTTOU, and SIGTTOU means one worker less.
    script = """
        import fcntl, logging, os, pty, signal, sys, termios
        from sergeant_linux.log.handler import make_logger

        leader, master = pty.fork()
        if leader == 0:
            attributes = termios.tcgetattr(0)
            attributes[3] |= termios.TOSTOP
            termios.tcsetattr(0, termios.TCSANOW, attributes)
            writer = os.fork()
            if writer == 0:
                os.setpgid(0, 0)
                signal.signal(signal.SIGTTOU, lambda *_: os._exit(9))
                logger, handler = make_logger('info', 'text', 'pool', {})
                logger.info('from the background')
                os._exit(0)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]))
        shown = b''
        try:
            while some := os.read(master, 4096):
                shown += some
        except OSError:
            pass
        print(os.waitstatus_to_exitcode(os.waitpid(leader, 0)[1]), b'from the background' in shown)
    """
    assert run_script(script).stdout == '0 True\n'


def test_a_closed_stderr_is_no_error() -> None:
    script = """
        import os
        from sergeant_linux.log.handler import make_logger

        logger, handler = make_logger('info', 'text', 'pool', {})
        logger.info('for nobody')
        print(handler.wants_write, os.readlink(f'/proc/self/fd/{handler.fileno()}'))
    """
    assert run_script(script, preexec_fn=lambda: os.close(2)).stdout == 'False /dev/null\n'


@pytest.mark.skipif(os.geteuid() != 0, reason='becoming another user takes root')
def test_a_pipe_of_another_user_which_can_not_be_opened_makes_nobody_wait_either(pipe: Pipe) -> None:
    # As under su, gosu or setpriv: the pipe is root's, opening it by /proc/self/fd/2 is refused.
    script = """
        import os
        from sergeant_linux.log.handler import make_logger

        os.setresuid(65534, 65534, 65534)
        try:
            os.open('/proc/self/fd/2', os.O_WRONLY)
        except PermissionError:
            print('refused')
        logger, handler = make_logger('info', 'text', 'pool', {})
        for number in range(50):
            logger.info(f'{number} ' + 'x' * 10_000)
        print(handler.wants_write, flush=True)
        handler.close(20.0)
        logger.info('late')
    """
    process = subprocess.Popen(
        [sys.executable, '-c', textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=pipe.writer, text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == 'refused\n'
        assert process.stdout.readline() == 'True\n'
        read = b''
        while read.count(b'\n') < 50 and select.select([pipe.reader], [], [], 20.0)[0]:
            read += pipe.read()
    assert process.returncode == 0
    told = [line.partition(' INFO     ')[2] for line in read.decode().splitlines()]
    assert told == [f'{number} {"x" * 10_000}' for number in range(50)]


# The end

def test_close_waits_for_a_reader_as_long_as_it_is_told(pipe: Pipe) -> None:
    lines = [f'{number} {"x" * 1000}' for number in range(100)]
    read: list[bytes] = []
    with handler_where_stderr_is(pipe.writer) as handler:
        for line in lines:
            handler.handle(record(line))
        os.set_blocking(pipe.reader, True)

        def read_lines() -> None:
            while b''.join(read).count(b'\n') < len(lines):
                read.append(os.read(pipe.reader, 4096))

        reader = threading.Thread(target=read_lines)
        reader.start()
        handler.close(20.0)
        reader.join(20.0)

    assert b''.join(read).decode().splitlines() == lines


def test_close_waits_no_longer_than_it_is_told(pipe: Pipe) -> None:
    with handler_where_stderr_is(pipe.writer) as handler:
        for _ in range(20):
            handler.handle(record('x' * 1000))
        before = time.monotonic()
        handler.close(0.1)

        assert 0.1 <= time.monotonic() - before < 1.0


def test_after_close_everything_is_dropped_and_nothing_raised(pipe: Pipe) -> None:
    with handler_where_stderr_is(pipe.writer) as handler:
        handler.close()
        handler.handle(record('late'))
        handler.flush()
        handler.close(10.0)

        assert (pipe.read(), handler.fileno(), handler.wants_write) == (b'', -1, False)


def test_close_closes_its_own_open_file(pipe: Pipe) -> None:
    with handler_where_stderr_is(pipe.writer) as handler:
        fd = handler.fileno()
        handler.close()

        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(fd)


# What is in a line

def test_text_is_the_ancestors_format_and_keeps_the_newlines_of_a_message() -> None:
    line = TextFormatter().format(record('two\nlines'))
    assert re.fullmatch(
        rf'\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d Supervisor   {os.getpid()} INFO     two\nlines', line,
    )


def test_text_that_utf_8_has_no_bytes_for_is_escaped(pipe: Pipe) -> None:
    with handler_where_stderr_is(pipe.writer) as handler:
        handler.handle(record('caf\u00e9 \udc80'))

        assert pipe.read() == b'caf\xc3\xa9 \\udc80\n'


@pytest.mark.parametrize('formatter', [TextFormatter(), JsonFormatter()])
def test_a_record_whose_arguments_do_not_fit_its_message_is_logged_as_that(
    pipe: Pipe, formatter: logging.Formatter, capfd: pytest.CaptureFixture[str],
) -> None:
    with handler_where_stderr_is(pipe.writer, formatter) as handler:
        handler.handle(record('%d workers', 'four'))

        assert b'test_log.py:1 has no text: TypeError' in pipe.read()
        assert capfd.readouterr() == ('', '')


def json_line(*args: object, **extra: object) -> dict[str, object]:
    line = JsonFormatter().format(record(*args, **extra))
    assert len(line.splitlines()) == 1
    value = json.loads(line, parse_constant=lambda constant: pytest.fail(f'{constant} is not JSON'))
    assert isinstance(value, dict)
    return value


def test_json_is_one_object_with_the_facts_of_every_record() -> None:
    before = time.time()
    line = json_line('worker(%d)\nhas stopped', 7)

    assert list(line) == ['time', 'level', 'logger', 'process', 'message']
    assert list(line.values())[1:] == ['info', 'Supervisor', os.getpid(), 'worker(7)\nhas stopped']
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z', str(line['time']))
    assert str(line['time'])[:14] == time.strftime('%Y-%m-%dT%H:', time.gmtime(before))


def test_json_has_the_event_its_fields_at_the_top_and_the_ancestors_extras() -> None:
    fields = {'slot': 3, 'life': 17, 'pid': 4711, 'return_code': None, 'signal': 'SIGKILL', 'cpu_seconds': 0.5}
    line = json_line(
        'x', event='worker-exit', fields=fields, supervisor={'concurrent_workers': 4}, summary={'respawn': False},
    )

    assert list(line)[5:] == ['event', *fields, 'supervisor', 'summary']
    assert line['event'] == 'worker-exit'
    assert {key: line[key] for key in fields} == fields
    assert line['supervisor'] == {'concurrent_workers': 4}
    assert line['summary'] == {'respawn': False}


def test_json_has_the_traceback_of_an_exception() -> None:
    try:
        raise RuntimeError('an error of our own')
    except RuntimeError:
        logged = record('x')
        logged.exc_info = sys.exc_info()
    traceback = json.loads(JsonFormatter().format(logged))['traceback']
    assert traceback.startswith('Traceback (most recent call last):')
    assert traceback.endswith('RuntimeError: an error of our own')


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError('no')


def test_json_takes_whatever_a_record_holds() -> None:
    circle: list[object] = []
    circle.append(circle)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    fields = {
        'nan': math.nan,
        'infinity': [math.inf, -math.inf],
        'surrogate': '\udc80',
        'separators': '\u2028\u2029\x85\x0b',
        'bytes': b'x',
        'exception': ValueError('x'),
        'set': {1},
        'tuple': (1, 2),
        'keys': {1: 'one', None: 'none', (1, 2): 'pair'},
        'huge': 10**10_000,
        'unspeakable': Unspeakable(),
        'circle': circle,
        'deep': deep,
    }
    line = json_line('x', fields=fields)

    assert line['nan'] is None
    assert line['infinity'] == [None, None]
    assert line['surrogate'] == '\udc80'
    assert line['separators'] == '\u2028\u2029\x85\x0b'
    assert line['bytes'] == "b'x'"
    assert line['exception'] == "ValueError('x')"
    assert line['set'] == [1]
    assert line['tuple'] == [1, 2]
    assert line['keys'] == {'1': 'one', 'None': 'none', '(1, 2)': 'pair'}
    assert line['huge'] == '<int without a repr>'
    assert line['unspeakable'] == '<Unspeakable without a repr>'
    assert line['circle'] == ['[[...]]']


# The journal


def entry_of(logged: logging.LogRecord) -> dict[str, str]:
    """The entry, whose names must each be there once, and such as the journal takes from us."""
    fields = list(journal_entry(logged, 'crawl'))
    assert all(re.fullmatch('[A-Z][A-Z0-9_]{0,63}', name) for name, _ in fields)
    assert len(dict(fields)) == len(fields)
    return dict(fields)


def test_an_entry_has_the_message_its_priority_and_who_we_are() -> None:
    assert entry_of(record('worker(%d)\nhas stopped', 7)) == {
        'MESSAGE': 'worker(7)\nhas stopped', 'PRIORITY': '6', 'SYSLOG_IDENTIFIER': 'crawl', 'LOGGER': 'Supervisor',
    }


@pytest.mark.parametrize(('level', 'priority'), [
    (logging.DEBUG, '7'), (logging.INFO, '6'), (logging.WARNING, '4'), (logging.ERROR, '3'), (logging.CRITICAL, '2'),
    (logging.INFO + 5, '6'), (99, '2'),
])
def test_the_priority_of_an_entry_is_syslogs(level: int, priority: str) -> None:
    assert entry_of(logging.LogRecord('Supervisor', level, __file__, 1, 'told', None, None))['PRIORITY'] == priority


def test_an_entry_has_the_event_with_its_message_id_and_each_known_fact_as_a_field() -> None:
    entry = entry_of(record(
        'ended', event='worker-exit', summary={'return_code': 1, 'exception': 'é'},
        supervisor={'worker_module_name': 'crawl_worker', 'max_worker_memory_usage': None},
        fields={'slot': 3, 'result': 'oom-kill', 'signal': None, 'uptime_seconds': 12.5,
                'memory': {'peak_bytes': 7, 'oom_scope': 'worker'}, 'of weird-name': [1, None]},
    ))  # fmt: skip

    assert entry['MESSAGE_ID'] == MESSAGES['worker-exit'].id
    ours = {name.removeprefix('SERGEANT_'): value for name, value in entry.items() if name.startswith('SERGEANT_')}
    assert ours == {
        'EVENT': 'worker-exit', 'SLOT': '3', 'RESULT': 'oom-kill', 'UPTIME_SECONDS': '12.5', 'MEMORY_PEAK_BYTES': '7',
        'MEMORY_OOM_SCOPE': 'worker', 'OF_WEIRD_NAME': '[1, null]', 'WORKER_MODULE_NAME': 'crawl_worker',
        'SUMMARY': '{"return_code": 1, "exception": "\\u00e9"}',
    }


def test_an_entry_has_the_traceback_below_its_message() -> None:
    try:
        raise ValueError('no')
    except ValueError as error:
        logged = logging.LogRecord('Supervisor', logging.ERROR, __file__, 1, 'broken', None, (ValueError, error, None))

    assert entry_of(logged)['MESSAGE'] == 'broken\nValueError: no'


def test_each_line_for_the_stream_of_the_journal_has_its_priority() -> None:
    assert JournalLineFormatter().format(record('two\nlines')) == '<6>two\n<6>lines'


def test_a_full_journal_makes_nobody_wait_and_gets_the_rest_and_the_count_of_what_was_lost(place: str) -> None:
    with listen(place) as reader:
        handler = LogHandler(journal.JournalSocket(place), lambda record: record.getMessage().encode())
        with contextlib.closing(handler):
            for number in range(5000):
                handler.handle(record(f'{number} ' + 'x' * 1000))
            assert handler.wants_write
            got = []
            while handler.wants_write:
                got += read_all(reader)
                handler.write_some()
            got += read_all(reader)

    *told, last = got
    lost = re.fullmatch('([0-9]+) log lines were lost: the journal was full', last)
    assert lost is not None
    assert [int(line.split()[0]) for line in told] == list(range(5000 - int(lost[1])))


def test_lines_that_no_journal_takes_any_more_are_counted_for_the_next_one(place: str) -> None:
    with listen(place):
        handler = LogHandler(journal.JournalSocket(place), lambda record: record.getMessage().encode())
    with contextlib.closing(handler):
        os.unlink(place)
        for _ in range(3):
            handler.handle(record('lost'))
        assert not handler.wants_write

        with listen(place) as another:
            handler.handle(record('hello'))

            assert another.recv(4096) == b'3 log lines were lost: the journal was full'
            assert another.recv(4096) == b'hello'


@pytest.mark.skipif(os.path.exists(journal.SOCKET), reason='this machine has a journal')
@pytest.mark.parametrize('format', ['auto', 'journal'])
def test_where_the_journal_can_not_be_reached_the_log_is_on_stderr_and_says_so(format: str) -> None:
    script = """
        import os, sys
        from sergeant_linux.log.handler import make_logger

        if sys.argv[1] == 'auto':
            status = os.fstat(2)
            os.environ['JOURNAL_STREAM'] = f'{status.st_dev}:{status.st_ino}'
        logger, handler = make_logger('info', sys.argv[1], 'pool', os.environ)
        logger.error('hello')
    """
    done = run_script(script, format, stderr=subprocess.PIPE)

    why, hello = done.stderr.splitlines()
    assert f'the journal can not be reached ({journal.SOCKET}), the log is on stderr: ' in why
    if format == 'auto':
        assert why.startswith('<4>')
        assert hello == '<3>hello'
    else:
        assert hello.endswith(' ERROR    hello')


def test_auto_is_text_where_stderr_is_not_the_journal() -> None:
    script = """
        import os
        from sergeant_linux.log.handler import make_logger

        logger, handler = make_logger('info', 'auto', 'pool', {**os.environ, 'JOURNAL_STREAM': '1:1'})
        logger.error('hello')
    """
    assert run_script(script, stderr=subprocess.PIPE).stderr.endswith(' ERROR    hello\n')


# The logger

def test_the_logger_is_the_ancestors_and_passes_its_records_on(pipe: Pipe) -> None:
    saved = os.dup(2)
    os.dup2(pipe.writer, 2)
    try:
        logger, handler = make_logger('warning', 'json', 'pool', {})
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    try:
        assert (logger.name, logger.level, logger.propagate) == ('Supervisor', logging.WARNING, True)
        logger.info('unheard')
        logger.warning('heard')
        assert [json.loads(line)['message'] for line in pipe.read().splitlines()] == ['heard']
    finally:
        detach(logger, handler)
        logger.setLevel(logging.NOTSET)
    assert handler not in logger.handlers
    assert handler.fileno() == -1
