"""What a change does to the figures that matter: two checkouts side by side, in one run of about a minute.

    python tests/benchmarks/compare.py BEFORE [AFTER]      # folders; AFTER is this checkout unless it is given
    make benchmark-short BEFORE=v0.2.0                     # or any other commit, branch or folder

Facts: the same figure taken twice differs by more than most changes are worth, as the machine does other things, too.
Consequence: only ratios of one run count. Each round measures both, one right after the other, who is first changes; the
ratio is the median of the rounds' ratios, and how far it is to be believed is seen by their quartiles.
Decision: everything is seen from outside: a worker's first line says the time (CLOCK_MONOTONIC, which all processes
share) and its pid. Nothing of a checkout is imported here.
"""

import argparse
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).parents[2]

PATIENCE: Final = 60.0

MARK: Final = 'SERGEANT_BENCHMARK'

MANY: Final = 50
"""Workers of the larger pool."""

KILLS: Final = 8

CHURN: Final = 1.5
IDLE: Final = 2.0
"""Seconds of each look."""

SAY: Final = "import os, time; os.write(1, f'{time.monotonic()} {os.getpid()}\\n'.encode())"

PLAIN: Final = f'def Worker():\n    {SAY}\n    time.sleep(10_000)\n'

BRIEF: Final = f'def Worker():\n    {SAY}\n    os._exit(0)\n'

SERGEANT: Final = f"""{SAY}
from sergeant import config, worker

class Worker(worker.Worker):
    def generate_config(self):
        connector = config.Connector(type='local', params={{'file_path': 'tasks.sqlite3'}})
        return config.WorkerConfig(name='idle', connector=connector)

    def work_loop(self):
        signal.pause()

import signal
"""

Figures = dict[str, float]


class Pool:
    """A pool of one checkout at work."""

    def __init__(self, process: 'subprocess.Popen[bytes]', mark: str, began: float) -> None:
        self.process = process
        self.began = began
        self._mark = mark
        self._rest = b''

    def lines(self, count: int) -> list[tuple[float, int]]:
        """Wait for so many workers' first lines: times and pids."""
        found: list[tuple[float, int]] = []
        while len(found) < count:
            found += self._read(PATIENCE)
        return found

    def lines_within(self, seconds: float) -> int:
        """Count the lines of so many seconds."""
        deadline, count = time.monotonic() + seconds, 0
        while (left := deadline - time.monotonic()) > 0:
            with suppress(TimeoutError):
                count += len(self._read(left))
        return count

    def _read(self, patience: float) -> list[tuple[float, int]]:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], patience)[0]:
            raise TimeoutError(f'no line of a worker within {patience} s')
        *lines, self._rest = (self._rest + os.read(self.process.stdout.fileno(), 65_536)).split(b'\n')
        return [(float(time_), int(pid)) for time_, pid in (line.split() for line in lines)]

    def ours(self, workers: set[int]) -> list[psutil.Process]:
        """Return the supervisor and its helpers."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid not in workers and process.environ().get(MARK) == self._mark:
                    found.append(process)
        return found

    def stop(self) -> float:
        """Stop it; return the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        return time.monotonic() - began


@contextmanager
def pool(checkout: Path, worker: str, workers: int) -> Iterator[Pool]:
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix='sgt-') as folder:
        Path(folder, 'bench_worker.py').write_text(worker)
        flags = ['--worker-module=bench_worker', '--worker-class=Worker', f'--concurrent-workers={workers}']
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, '-m', 'sergeant_linux.supervisor', *flags, '--restart-delay=0'],
            cwd=folder,
            env=os.environ | {'PYTHONPATH': str(checkout), 'RUNTIME_DIRECTORY': folder, MARK: mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        running = Pool(process, mark, began)
        try:
            yield running
        finally:
            if process.poll() is None:
                running.stop()
            assert process.stdout is not None
            process.stdout.close()


def start_of_one(checkout: Path) -> Figures:
    with pool(checkout, PLAIN, 1) as running:
        ((at, _),) = running.lines(1)
        return {'start of one worker, ms': 1000 * (at - running.began)}


def respawn(checkout: Path, kind: str, worker: str) -> Figures:
    with pool(checkout, worker, 4) as running:
        pids = [pid for _, pid in running.lines(4)]
        time.sleep(0.2)
        times = []
        for _ in range(KILLS):
            killed = time.monotonic()
            os.kill(pids.pop(0), signal.SIGKILL)
            ((at, pid),) = running.lines(1)
            pids.append(pid)
            times.append(at - killed)
            time.sleep(0.03)
        return {f'respawn of {kind}, ms': 1000 * statistics.median(times)}


def many(checkout: Path) -> Figures:
    with pool(checkout, SERGEANT, MANY) as running:
        lines = running.lines(MANY)
        pids = {pid for _, pid in lines}
        figures = {f'start of {MANY}, ms': 1000 * (max(at for at, _ in lines) - running.began)}
        time.sleep(0.5)
        worker, supervisor = psutil.Process(min(pids)).memory_full_info(), psutil.Process(running.process.pid)
        figures['private memory of a worker, MB'] = worker.uss / 1e6
        figures['PSS of supervisor and helpers, MB'] = sum(each.memory_full_info().pss for each in running.ours(pids)) / 1e6
        before = supervisor.num_ctx_switches().voluntary
        time.sleep(IDLE)
        figures[f'wake-ups in {IDLE:g} s of idling, and one'] = supervisor.num_ctx_switches().voluntary - before + 1
        figures[f'stop of {MANY}, ms'] = 1000 * running.stop()
        return figures


def churn(checkout: Path) -> Figures:
    with pool(checkout, BRIEF, 4) as running:
        running.lines(20)
        return {'lives a second of 4 that end at once': running.lines_within(CHURN) / CHURN}


MEASURES: Final[tuple[Callable[[Path], Figures], ...]] = (
    start_of_one,
    lambda checkout: respawn(checkout, 'a function', PLAIN),
    lambda checkout: respawn(checkout, "sergeant's worker", SERGEANT),
    many,
    churn,
)


def measure(before: Path, after: Path, rounds: int) -> list[tuple[Figures, Figures]]:
    """Return the figures of both, round by round."""
    found: list[tuple[Figures, Figures]] = []
    for number in range(rounds):
        pair: tuple[Figures, Figures] = ({}, {})
        for each in MEASURES:
            for index in (0, 1) if number % 2 == 0 else (1, 0):
                pair[index].update(each((before, after)[index]))
        found.append(pair)
        print(f'\rround {number + 1} of {rounds}', end='', file=sys.stderr)
    print(file=sys.stderr)
    return found


def table(rounds: list[tuple[Figures, Figures]]) -> str:
    lines = [f'{"":42}{"before":>10}{"after":>10}{"ratio":>8}   quartiles']
    for name in rounds[0][0]:
        ratios = [after[name] / before[name] for before, after in rounds]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        was, now = (statistics.median(each[index][name] for each in rounds) for index in (0, 1))
        lines.append(f'{name:42}{was:10.2f}{now:10.2f}{middle:8.2f}   {low:.2f} to {high:.2f}')
    return '\n'.join(lines)


@contextmanager
def checkout_of(text: str) -> Iterator[Path]:
    """Give a folder as it is; of a commit, a worktree that is removed at the end."""
    if Path(text).is_dir():
        yield Path(text).resolve()
        return
    with tempfile.TemporaryDirectory(prefix='sgt-') as folder:
        git = ['git', '-C', str(ROOT)]
        subprocess.run([*git, 'worktree', 'add', '--quiet', '--detach', f'{folder}/before', text], check=True)
        try:
            yield Path(folder, 'before')
        finally:
            subprocess.run([*git, 'worktree', 'remove', '--force', f'{folder}/before'], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('before', help='a folder, or what git knows as a commit')
    parser.add_argument('after', nargs='?', default=str(ROOT), help='a folder or a commit (this checkout)')
    parser.add_argument('--rounds', type=int, default=5, help='how many (%(default)s)')
    parser.add_argument('--json', type=Path, help='write all figures there, too')
    arguments = parser.parse_args()
    with checkout_of(arguments.before) as before, checkout_of(arguments.after) as after:
        for each in (before, after):  # compile what is not compiled yet
            subprocess.run([sys.executable, '-m', 'compileall', '-q', str(each / 'sergeant_linux')], check=True)
        rounds = measure(before, after, arguments.rounds)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rounds, indent=1))
    print(table(rounds))


if __name__ == '__main__':
    main()
