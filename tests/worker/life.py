"""One life of a worker for the tests: a real process, a real gate, and a line to talk to the worker's code.

The worker's code writes lines into its journal and waits for cues (`tests.worker.workers`), so a test knows where the
worker is without sleeping: it reads the line that says so.
"""

import os
import select
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from sergeant_linux.engine.stacks import pipe
from sergeant_linux.kernel import signals
from sergeant_linux.kernel.pidref import Ended, PidRef
from sergeant_linux.wire import gate as gates
from sergeant_linux.wire.scoreboard import Page
from sergeant_linux.worker import main

DEADLINE: Final = 10.0
"""How long, in seconds, a test waits for something that comes at once."""


class Life:
    """A worker that was forked from this process and got its GO."""

    def __init__(self, module: str, attribute: str, output: Path, environ: Mapping[str, str]) -> None:
        self._closing = ExitStack()
        self.gate, theirs = gates.pair()
        self._closing.callback(self.gate.close)
        self._journal, journal = os.pipe()
        cue, self._cue = os.pipe()
        for fd in (self._journal, self._cue):
            self._closing.callback(os.close, fd)
        self._heard = b''
        self.page = Page()
        self._closing.callback(self.page.close)
        self.stacks, stacks = pipe()
        self._closing.callback(os.close, self.stacks)

        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            try:
                self.gate.close()
                for fd in (self._journal, self._cue, self.stacks):
                    os.close(fd)
                os.environ.update(environ, JOURNAL=str(journal), CUE=str(cue))
                _be_new_born(output)
                main.run(theirs, {'type': 'go', 'module': module, 'class': attribute}, self.page.fd, stacks)
            finally:
                os._exit(99)

        self.process = PidRef.open(pid)
        self._closing.callback(self.process.close)
        self._closing.callback(self._kill)
        theirs.close()
        for fd in (journal, cue, self.page.fd, stacks):
            os.close(fd)

    def close(self) -> None:
        """Kill the worker if it still lives, and let go of everything. A second call does nothing."""
        self._closing.close()

    def _kill(self) -> None:
        if self.process.signal(signal.SIGKILL):
            self._wait(self.process.fd)
            self.process.reap()

    def receive(self) -> dict[str, Any]:
        """Return the next message of the worker."""
        self._wait(self.gate.fileno())
        message = gates.receive(self.gate)
        assert message is not None, 'the worker has closed its gate'
        return message

    def ready(self) -> dict[str, Any]:
        message = self.receive()
        assert message['type'] == 'ready', message
        return message

    def final(self) -> dict[str, Any]:
        message = self.receive()
        assert message['type'] == 'final', message
        return message

    def end(self) -> Ended:
        """Return how the process ended."""
        self._wait(self.process.fd)
        ended = self.process.reap()
        assert ended is not None
        return ended

    def exit_code(self) -> int | None:
        return self.end().exit_code

    def terminate(self) -> None:
        assert self.process.signal(signal.SIGTERM)

    def drain(self) -> None:
        assert gates.send(self.gate, {'type': 'drain'})
        assert self.process.signal(signal.SIGURG)

    def stop(self, how: str) -> None:
        self.drain() if how == 'DRAIN' else self.terminate()

    def expect(self, line: str) -> None:
        """Wait for the worker's next journal line, which must be this one."""
        heard = self.heard()
        assert heard == line, f'the worker said {heard!r}, not {line!r}'

    def heard(self) -> str | None:
        """Return the worker's next journal line; None when there will be no more."""
        while b'\n' not in self._heard:
            self._wait(self._journal)
            more = os.read(self._journal, 65536)
            if not more:
                return None
            self._heard += more
        line, _, self._heard = self._heard.partition(b'\n')
        return line.decode()

    def rest(self) -> list[str]:
        """Return all further journal lines, to the worker's end."""
        return list(iter(self.heard, None))

    def cue(self) -> None:
        """Let the worker's code go on from where it waits, or will wait next."""
        os.write(self._cue, b'.')

    def _wait(self, fd: int) -> None:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(DEADLINE * 1000), 'the worker has said nothing'


class Start(Protocol):
    def __call__(self, attribute: str, module: str = ..., **environ: str) -> Life: ...


@contextmanager
def lives(folder: Path) -> Iterator[Start]:
    """A function that starts a life; its output goes to `folder`/output. All are gone at the end."""
    with ExitStack() as closing:

        def start(attribute: str, module: str = 'tests.worker.workers', **environ: str) -> Life:
            life = Life(module, attribute, folder / 'output', environ)
            closing.callback(life.close)
            return life

        yield start


def _be_new_born(output: Path) -> None:
    """Be what a worker is at GO: signals at their defaults, a session and stdio of its own."""
    signals.reset_to_default()
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    sys.stdout = open(1, 'w', closefd=False)
    sys.stderr = open(2, 'w', closefd=False, buffering=1)
    sys.path.insert(0, str(output.parent))
