"""A pool for the tests: the real command in a folder of its own, its log as records, and an end whatever the test does.

Facts: a pool is many processes, and a test that fails leaves at any moment; all of them inherit the environment.
The supervisor's log goes to stderr, the workers' prints to stdout, and a pipe that nobody reads fills up.
Consequence: each pool has a mark of its own in its environment, by which all of its processes are found and, at the
end, ended; a thread reads each pipe. A test waits for what it expects, with a deadline, never for time to pass.

    with pool(tmp_path, WORKER, concurrent_workers=2, timeout_stop='2s') as running:
        running.wait_for('worker-ready', count=2)
        assert running.stop(signal.SIGTERM) == 0
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, TypeVar

from sergeant_linux.control.client import Client
from sergeant_linux.kernel import procfs
from sergeant_linux.kernel.pidref import PidRef

DEADLINE: Final = 15.0
"""How long, in seconds, a test waits for something that comes at once."""

BURIAL: Final = 3.0
"""How long, in seconds, a SIGKILLed pool is given to be gone by itself before the rest is killed."""

ROOT: Final = Path(__file__).parents[2]

MARK: Final = 'SERGEANT_TEST_POOL'

Record: TypeAlias = dict[str, Any]
"""One line of the JSON log."""

Flag: TypeAlias = str | int | float | Sequence[str]

T = TypeVar('T')


class Pool:
    """A running pool. `records` holds the log so far, `lines` all of stderr, `said` what the workers have printed."""

    def __init__(self, process: 'subprocess.Popen[bytes]', mark: str, run: str) -> None:
        self.process = process
        self.run = Path(run)
        self.pid: Final = process.pid
        self.records: list[Record] = []
        self.lines: list[str] = []
        self.said: list[str] = []
        self._mark = f'{MARK}={mark}'.encode()
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, take), daemon=True)
            for stream, take in ((process.stdout, self.said.append), (process.stderr, self._take_line))
            if stream is not None
        ]
        self._open = len(self._readers)
        for reader in self._readers:
            reader.start()

    # The log.

    def wait_for(
        self,
        event: str,
        *,
        count: int = 1,
        where: Callable[[Record], bool] = lambda record: True,
        within: float = DEADLINE,
        **fields: object,
    ) -> list[Record]:
        """Wait until the log holds `count` such records, and return all of them; it may hold them already."""

        def found() -> list[Record] | None:
            records = self.find(event, where=where, **fields)
            return records if len(records) >= count else None

        return self._wait(found, within, f'{count} × {event} {fields or ""}')

    def find(
        self, event: str, *, where: Callable[[Record], bool] = lambda record: True, **fields: object
    ) -> list[Record]:
        """Return the records of this event, with these fields, that the log holds now."""
        return [
            record
            for record in list(self.records)
            if record.get('event') == event
            and all(record.get(key) == value for key, value in fields.items())
            and where(record)
        ]

    def wait_for_line(self, part: str, *, count: int = 1, within: float = DEADLINE) -> list[str]:
        """Wait until `count` lines of stderr contain `part`, and return all that do. For the text log."""
        return self._wait_for_lines(self.lines, part, count, within)

    def hear(self, part: str = '', *, count: int = 1, within: float = DEADLINE) -> list[str]:
        """Wait until the workers have printed `count` lines that contain `part`, and return all that do."""
        return self._wait_for_lines(self.said, part, count, within)

    # The control socket.

    def client(self, timeout: float = DEADLINE) -> Client:
        """Return a connection to the pool's control socket, as soon as it listens; its paths are the test's own."""

        def connected() -> Client | None:
            for path in self.run.glob('sergeant-linux/*.sock'):
                with suppress(FileNotFoundError, ConnectionRefusedError):
                    return Client(str(path), timeout=timeout)
            return None

        return wait_until(connected, 'a control socket')

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Ask the pool for something, and return the result."""
        with self.client() as client:
            return client.call(verb, **arguments)

    # The processes.

    def send(self, signum: int) -> None:
        """Signal the supervisor."""
        self.process.send_signal(signum)

    def exit_status(self, within: float = DEADLINE) -> int:
        """Wait for the supervisor's end and for all of its log; return its exit status (-N: signal N)."""
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f'the supervisor has not ended within {within} s{self._picture()}') from None
        for reader in self._readers:
            reader.join(within)
            assert not reader.is_alive(), f'somebody still holds the output of the pool: {self.processes()}'
        return status

    def stop(self, signum: int = signal.SIGTERM, within: float = DEADLINE) -> int:
        """Signal the supervisor to stop; return its exit status."""
        self.send(signum)
        return self.exit_status(within)

    def workers(self) -> dict[int, int]:
        """Return the pid of each life that the log tells of and that has not ended, by its number."""
        ended = {record['life'] for record in self.find('worker-exit')}
        return {record['life']: record['pid'] for record in self.find('worker-spawn') if record['life'] not in ended}

    def processes(self, title: str = '') -> dict[int, str]:
        """Return pid and command line of each living process of this pool whose command line contains `title`.

        Ours are titled 'sergeant-linux: ' and then 'worker', 'fork server', 'undertaker' or 'meter'.
        """
        found = {}
        for pid in procfs.pids():
            if procfs.environ_contains(pid, self._mark):
                with suppress(OSError):
                    words = Path(f'/proc/{pid}/cmdline').read_bytes().decode(errors='replace').split('\0')
                    if title in ' '.join(words):
                        found[pid] = ' '.join(words).strip()
        return found

    def helper(self, title: str) -> int:
        """Wait until there is exactly one process with this title, and return its pid."""

        def found() -> int | None:
            pids = list(self.processes(title))
            return pids[0] if len(pids) == 1 else None

        return wait_until(found, f'one process {title!r}')

    def wait_until_gone(self, within: float = DEADLINE) -> None:
        """Wait until no process of this pool is left, the supervisor and what the workers have started included."""
        wait_until(lambda: not self.processes(), 'the end of all processes of the pool', within)

    def end(self) -> None:
        """Kill everything of this pool: the supervisor first, so that its undertaker does its work. Again does no harm."""
        self.process.kill()
        self.process.wait(DEADLINE)
        deadline = time.monotonic() + BURIAL
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.003)
        while left := self.processes():
            for pid in left:
                kill(pid)
        for reader in self._readers:
            reader.join(BURIAL)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    # Inside.

    def _read(self, stream: IO[bytes], take: Callable[[str], None]) -> None:
        for line in stream:
            with self._news:
                take(line.decode(errors='replace').rstrip('\n'))
                self._news.notify_all()
        with self._news:
            self._open -= 1
            self._news.notify_all()

    def _take_line(self, line: str) -> None:
        self.lines.append(line)
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                self.records.append(record)

    def _wait_for_lines(self, lines: list[str], part: str, count: int, within: float) -> list[str]:
        def found() -> list[str] | None:
            matching = [line for line in list(lines) if part in line]
            return matching if len(matching) >= count else None

        return self._wait(found, within, f'{count} lines with {part!r}')

    def _wait(self, look: Callable[[], T | None], within: float, what: str) -> T:
        """Wait until `look` has found something in what was read, or there is nothing more to be read."""
        with self._news:
            self._news.wait_for(lambda: look() is not None or self._open == 0, within)
            found = look()
        assert found is not None, f'waited in vain for {what}{self._picture()}'
        return found

    def _picture(self) -> str:
        return '\n  '.join(['', 'stderr:', *self.lines[-60:], 'stdout:', *self.said[-20:]])


@contextmanager
def pool(
    folder: Path,
    worker: str | None = None,
    *,
    concurrent_workers: int | str = 1,
    worker_module: str = 'worker',
    worker_class: str = 'Worker',
    log_format: str = 'json',
    log_level: str = 'debug',
    environ: Mapping[str, str] | None = None,
    command: Sequence[str] = ('-m', 'sergeant_linux.supervisor'),
    python: Sequence[str] = (sys.executable,),
    uid: int | None = None,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    **flags: Flag,
) -> Iterator[Pool]:
    """Run a pool in `folder`; `worker` is the source of its worker module, None leaves what is there.

    python: the interpreter, and what starts it. uid: run the supervisor as this user, and the group of that number.
    flags: any other flag by its name (`timeout_stop=2`, `preload=True`, `preload_module=['json']`).
    """
    if worker is not None:
        (folder / f'{worker_module}.py').write_text(textwrap.dedent(worker))
    mark = uuid.uuid4().hex
    all_flags: dict[str, Flag] = {
        'concurrent_workers': concurrent_workers,
        'worker_module': worker_module,
        'worker_class': worker_class,
        'log_format': log_format,
        'log_level': log_level,
        **flags,
    }
    # the path of a socket has at most 107 bytes, and a test's own folder may have more
    run = tempfile.mkdtemp(prefix='sgt-')
    if uid is not None:
        os.chown(run, uid, uid)
    process = subprocess.Popen(
        [*python, *command, *command_line(all_flags)],
        cwd=folder,
        # PYTHONUNBUFFERED would make several writes of one print, with others' in between
        env=os.environ
        | {'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '', 'RUNTIME_DIRECTORY': run, MARK: mark}
        | dict(environ or {}),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )
    running = Pool(process, mark, run)
    try:
        yield running
    finally:
        running.end()
        shutil.rmtree(run)


def command_line(flags: Mapping[str, Flag]) -> list[str]:
    """Return the flags as they are written on the command line."""
    words = []
    for name, value in flags.items():
        flag = '--' + name.replace('_', '-')
        if isinstance(value, bool):
            words.append(flag if value else flag.replace('--', '--no-', 1))
        elif isinstance(value, str | int | float):
            words.append(f'{flag}={value}')
        else:
            words += [f'{flag}={each}' for each in value]
    return words


def wait_until(look: Callable[[], T | None], what: str, within: float = DEADLINE) -> T:
    """Wait until `look` gives something true, and return it. For what no descriptor tells."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, f'waited {within} s in vain for {what}'
        time.sleep(0.003)
    return found


def kill(pid: int, signum: int = signal.SIGKILL) -> None:
    """Signal a process, if it is there."""
    with suppress(ProcessLookupError), PidRef.open(pid) as process:
        process.signal(signum)

