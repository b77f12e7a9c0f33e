"""A stand-in for a pool: a socket that answers with what is recorded, and the command that is asked to speak to it.

Facts: a verb is a process; what it does is seen in what it sends, what it writes to a pipe or a terminal, and how it
ends. What a pool says is data, which can be written down.
Decision: the stand-in is a thread of the test that speaks the protocol on a real socket, as a pool does, and keeps what
it was asked; the command is the real one, in a pipe or on a pseudo-terminal of a given size.
Price: whether a pool says these things is for other tests to find out.
"""

import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).parents[2]
COMMAND: Final = (sys.executable, '-c', 'from sergeant_linux.cli import main; main()')

DEADLINE: Final = 15.0
"""How long, in seconds, a test waits for something that comes at once."""

Tell = Callable[[dict[str, Any]], None]
Play = Callable[[dict[str, Any], Tell], dict[str, Any] | None]
"""What is done on a verb: its arguments, and what tells an event; the result, or None: no answer, the connection ends."""


class Refusal(Exception):
    """An error answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


class StandIn:
    """Answers on `path` until it is closed. `plays` says what, by the verb; `asked` keeps the requests."""

    def __init__(self, folder: Path, name: str, plays: dict[str, Play | dict[str, Any]]) -> None:
        self.path: Final = folder / 'sergeant-linux' / f'{name}.sock'
        self.path.parent.mkdir(exist_ok=True)
        self.plays: Final = {'ping': {'name': name, 'pid': os.getpid(), 'version': '0', 'module': 'm', 'class': 'C'}} | plays
        self.asked: Final[list[tuple[str, dict[str, Any]]]] = []
        self._news = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._socket.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        self.path.unlink(missing_ok=True)

    def wait_for(self, verb: str, count: int = 1) -> dict[str, Any]:
        """Wait until this has been asked so often; return the arguments of the last time."""

        def heard() -> list[dict[str, Any]]:
            return [args for asked, args in self.asked if asked == verb]

        with self._news:
            assert self._news.wait_for(lambda: len(heard()) >= count, DEADLINE), f'{verb} was not asked: {self.asked}'
        return heard()[-1]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile('rb') as requests, suppress(OSError):
            for line in requests:
                request = json.loads(line)
                assert request['v'] == 1
                answer = {'v': 1, 'id': request['id']}

                def say(content: dict[str, Any], answer: dict[str, Any] = answer) -> None:
                    connection.sendall(json.dumps({**answer, **content}).encode() + b'\n')

                with self._news:
                    self.asked.append((request['verb'], request['args']))
                    self._news.notify_all()
                play = self.plays[request['verb']]
                try:
                    result = play if isinstance(play, dict) else play(request['args'], lambda event: say({'event': event}))
                except Refusal as refusal:
                    say({'ok': False, 'error': {'code': refusal.code, 'message': refusal.message}})
                    continue
                if result is None:
                    return
                say({'ok': True, 'result': result})


@contextmanager
def stand_in(folder: Path, name: str = 'crawl', **plays: Play | dict[str, Any]) -> Iterator[StandIn]:
    pool = StandIn(folder, name, plays)
    try:
        yield pool
    finally:
        pool.close()


def raising(code: str, message: str) -> Play:
    def play(args: dict[str, Any], tell: Tell) -> None:
        raise Refusal(code, message)

    return play


def surroundings(**environ: str) -> dict[str, str]:
    """Return an environment without pools, locale, colour or size."""
    of_ours = re.compile('SERGEANT_LINUX_|LC_|LANG|NO_COLOR|COLUMNS|LINES|XDG_RUNTIME_DIR|RUNTIME_DIRECTORY|_ARGCOMPLETE')
    kept = {key: value for key, value in os.environ.items() if not of_ours.match(key)}
    return {**kept, 'PYTHONPATH': str(REPOSITORY), 'LANG': 'C.UTF-8', 'TERM': 'xterm', **environ}


def say(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command in pipes."""
    return subprocess.run(
        [*COMMAND, *argv], env=surroundings(**environ), capture_output=True, encoding='utf-8', timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )


class Screen:
    """The command on a pseudo-terminal: what it has written so far, and its end."""

    def __init__(self, argv: Sequence[str], width: int, height: int, environ: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        # ioctl_tty(2), struct winsize: rows, columns, and two that are unused
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', height, width, 0, 0))
        self.process: Final = subprocess.Popen(
            [*COMMAND, *argv], env=surroundings(**environ), stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )
        os.close(slave)
        self.written = ''

    def read_until(self, part: str) -> str:
        """Return what is written, as soon as `part` is in it."""
        deadline = time.monotonic() + DEADLINE
        while part not in self.written:
            assert self._read(deadline), f'{part!r} is not in {self.written!r}'
        return self.written

    def end(self) -> tuple[int, str]:
        """Wait for its end; return its exit status (-N: signal N) and what it has written."""
        deadline = time.monotonic() + DEADLINE
        while self._read(deadline):
            pass
        return self.process.wait(DEADLINE), self.written.replace('\r\n', '\n')

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._master)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f'nothing more comes after {self.written!r}'
        try:
            read = os.read(self._master, 65536)
        except OSError as error:
            assert error.errno == errno.EIO  # nobody has the other side open any more
            return False
        self.written += read.decode()
        return bool(read)


@contextmanager
def screen(*argv: str, width: int = 80, height: int = 24, **environ: str) -> Iterator[Screen]:
    shown = Screen(argv, width, height, environ)
    try:
        yield shown
    finally:
        shown.close()


def plain(text: str) -> str:
    """Return a text without its colours."""
    return re.sub(r'\033\[[0-9;]*m', '', text)
