"""A stand-in for a pool: a socket that answers with what is recorded, and the command that is asked to speak to it.

Facts: a verb is a process; what it does is seen in what it sends, what it writes to a pipe or a terminal, and how it
ends. What a pool says is data, which can be written down.
Decision: the stand-in is a thread of the test with the control socket of a pool, at whose desk sits a record of what a
pool has said; it keeps what it was asked. The command is the real one, in a pipe or on a pseudo-terminal of a given size.
Price: whether a pool says these things is for other tests to find out.
"""

import fcntl
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from sergeant_linux.control import names
from sergeant_linux.control.server import Control, Reply
from sergeant_linux.kernel.poller import Handler, Poller

REPOSITORY: Final = Path(__file__).parents[2]
COMMAND: Final = (sys.executable, '-c', 'from sergeant_linux.cli.main import main; main()')

DEADLINE: Final = 15.0
"""How long, in seconds, a test waits for something that comes at once."""

Tell = Callable[[Mapping[str, object]], None]
Play = Callable[[dict[str, Any], Tell], dict[str, Any] | None]
"""What is done on a verb: its arguments, and what tells an event; the result, or None: no answer, the connection ends."""


class Refusal(Exception):
    """An error answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message


class Silence(Exception):
    """No answer for now."""


class StandIn:
    """Answers on `path` until it is closed. `plays` says what, by the verb; `asked` keeps the requests."""

    def __init__(self, folder: Path, name: str, plays: Mapping[str, Play | dict[str, Any]]) -> None:
        home = folder / names.FOLDER
        home.mkdir(exist_ok=True)
        self.path: Final = home / f'{name}{names.SUFFIX}'
        self.plays: Final[dict[str, Play | dict[str, Any]]] = dict(plays)
        self.asked: Final[list[tuple[str, dict[str, Any]]]] = []
        self._news = threading.Condition()
        self._claim = names.claim(name, name, str(self.path), {})
        self._poller: Final[Poller[Handler]] = Poller()
        self._control: Control | None = Control(self._poller, self._desk, self._claim.listener, self._on_error)
        self._errors: list[Exception] = []
        self._has_left = False
        self._stop, stopped = socket.socketpair()
        self._poller.register(stopped, lambda events: None)
        self._thread = threading.Thread(target=self._serve, args=(stopped,))
        self._thread.start()

    def close(self) -> None:
        self._stop.close()
        self._thread.join()
        self._poller.close()
        if not self._has_left:
            self._claim.close()
        assert self._errors == []

    def wait_for(self, verb: str, count: int = 1) -> dict[str, Any]:
        """Wait until this has been asked so often; return the arguments of the last time."""

        def heard() -> list[dict[str, Any]]:
            return [args for asked, args in self.asked if asked == verb]

        with self._news:
            assert self._news.wait_for(lambda: len(heard()) >= count, DEADLINE), f'{verb} was not asked: {self.asked}'
        return heard()[-1]

    def _serve(self, stopped: socket.socket) -> None:
        with stopped:
            while not select.select([stopped], [], [], 0)[0]:
                due = self._control.next_deadline() if self._control is not None else None
                for handler, events in self._poller.wait(None if due is None else due - time.monotonic()):
                    handler(events)
                if self._control is not None:
                    self._control.elapse(time.monotonic())
            self._hang_up()

    def _hang_up(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def _desk(self, verb: str, args: Mapping[str, Any], reply: Reply) -> None:
        play = self.plays.get(verb)
        if play is None:  # another test's `ps` asks every pool of the host
            reply.failed('unknown-verb', f'nothing is recorded of {verb}')
            return
        self.asked.append((verb, dict(args)))  # first: who has the answer may look
        try:
            result = play if isinstance(play, dict) else play(dict(args), reply.event)
        except Refusal as refusal:
            reply.failed(refusal.code, refusal.message)
        except Silence:
            pass
        else:
            if result is None:
                self._hang_up()
            else:
                reply.done(result)
                if verb == 'stop' and args['wait']:
                    self._hang_up()
                    self._claim.close()
                    self._has_left = True
        with self._news:
            self._news.notify_all()

    def _on_error(self, error: Exception) -> None:
        self._errors.append(error)


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


def never(args: object, tell: object) -> None:
    """A play that leaves a request open."""
    raise Silence


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

    def __init__(self, argv: Sequence[str], width: int, height: int, environ: Mapping[str, str]) -> None:
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
        except OSError:  # EIO: nobody has the other side open any more
            return False
        self.written += read.decode()
        return bool(read)


@contextmanager
def screen(
    *argv: str, width: int = 80, height: int = 24, environ: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Screen]:
    shown = Screen(argv, width, height, environ)
    try:
        yield shown
    finally:
        shown.close()


def plain(text: str) -> str:
    """Return a text without its colours."""
    return re.sub(r'\033\[[0-9;]*m', '', text)
