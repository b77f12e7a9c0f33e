"""The demo: four workers hash the standard library, and one of them is given a task that eats memory.

Facts: the demo's broker is an SQLite file without a journal: a worker that is SIGKILLed while it fetches may break it.
Consequence: the hog is killed while it eats, long after its fetch, and nobody else is killed.
Decision: the demo types the commands that a person would type, in a folder of its own, shows what they print, ends by
itself, and leaves with status 0 when every claim of proof.py holds.
Price: it needs sergeant.
"""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from sergeant_linux.demo import proof

try:
    from sergeant_linux.demo.hash_worker import python_files
except ModuleNotFoundError as error:
    sys.exit(f"the demo needs sergeant: pip install 'sergeant_linux[sergeant]' ({error})")

WORKERS: Final = 4
MEMORY_LIMIT: Final = 160 << 20
"""In bytes; a worker without the hog takes about 40 MiB."""

TICK: Final = 0.25
"""Seconds between two looks."""

PATIENCE: Final = 90.0
"""Seconds after which the demo gives up; it takes about five."""

LEAVE: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SUPERVISOR: Final = (
    '-m',
    'sergeant_linux.supervisor',
    '--worker-module=hash_worker',
    '--worker-class=Worker',
    f'--concurrent-workers={WORKERS}',
    f'--max-worker-memory-usage={MEMORY_LIMIT >> 20}M',
    '--log-format=json',
)


class Log:
    """A file that another process appends to, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        path.touch()

    def read(self) -> list[str]:
        """Return the lines that have been completed since the last call."""
        complete = self.path.read_text(errors='replace').rpartition('\n')[0].splitlines()
        new = complete[len(self.lines) :]
        self.lines = complete
        return new

    def records(self) -> list[proof.Record]:
        """Return what has been read as the supervisor's records."""
        return [record(line) for line in self.lines]


def record(line: str) -> proof.Record:
    """Return a line of the supervisor's log as the object it is; a line that is none, as its message."""
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {'message': line}


def typed(command: tuple[str, ...]) -> list[str]:
    """Print a command as a person would type it, and return it as it is run."""
    print('$', shlex.join(('python3', *command)), flush=True)
    return [sys.executable, *command]


def watch(folder: Path, files: list[str], supervisor: Log, workers: Log, process: subprocess.Popen[bytes]) -> None:
    """Show what happens until all is done, the supervisor is gone, or the patience is over."""
    begin = time.monotonic()
    shown = -1
    while True:
        gone = process.poll() is not None or time.monotonic() - begin > PATIENCE
        for line in supervisor.read():
            print('  supervisor:', record(line).get('message'))
        for line in workers.read():
            print('  worker:', line)
        hashed = len(proof.results(folder))
        if hashed != shown:
            print(f'{time.monotonic() - begin:5.1f} s  {hashed:5,} of {len(files):,} files hashed', flush=True)
            shown = hashed
        log = supervisor.records()
        if gone or (hashed >= len(files) and proof.killed_for_memory(log) and len(proof.born(log)) > WORKERS):
            return
        time.sleep(TICK)


def stop(process: subprocess.Popen[bytes]) -> float:
    """Tell the supervisor to stop, once, and return how many seconds it took to leave; it is gone in any case."""
    begin = time.monotonic()
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
    process.wait()
    return time.monotonic() - begin


def run(folder: Path) -> bool:
    """Run the demo in an empty folder; True when every claim holds."""
    library = Path(sysconfig.get_path('stdlib'))
    files = python_files(library)
    shutil.copy(Path(__file__).with_name('hash_worker.py'), folder)
    subprocess.run(typed(('hash_worker.py', str(library), '--hog')), cwd=folder, check=True)

    supervisor, workers = Log(folder / 'supervisor.log'), Log(folder / 'workers.log')
    with workers.path.open('ab') as stdout, supervisor.path.open('ab') as stderr:
        process = subprocess.Popen(
            typed(SUPERVISOR),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            process_group=0,  # Ctrl-C is for the demo, which then stops the supervisor, once
        )
    try:
        watch(folder, files, supervisor, workers, process)
    finally:
        seconds = stop(process)
    for line in supervisor.read():
        print('  supervisor:', record(line).get('message'))
    workers.read()

    log = supervisor.records()
    hogs = [int(line.split()[3]) for line in workers.lines if line.endswith('takes all the memory that it can get')]
    claims = [
        proof.every_file_once(files, folder),
        proof.nothing_waits(folder),
        proof.the_hog_was_killed(hogs, MEMORY_LIMIT, log),
        proof.every_life_is_accounted_for(WORKERS, log),
        proof.the_pool_has_stopped(process.returncode, seconds, log),
    ]
    print()
    for claim in claims:
        print('proven ' if claim.holds else 'NOT SO ', claim.text)
    return all(claim.holds for claim in claims)


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """Leave because of a signal; what is running is stopped on the way out, and no second signal cuts that short."""
    for each in LEAVE:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> int:
    for each in LEAVE:
        signal.signal(each, leave)
    folder = Path(tempfile.mkdtemp(prefix='sergeant-linux-demo-'))
    print(f'$ cd {folder}')
    proven = True
    try:
        proven = run(folder)
    finally:
        if proven:
            shutil.rmtree(folder)
    if not proven:
        print(f'the demo has failed; what it left lies in {folder}')
    return 0 if proven else 1


if __name__ == '__main__':
    sys.exit(main())
