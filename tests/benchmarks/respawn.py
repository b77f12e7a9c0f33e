"""From the kill of a worker to its replacement's first line of user code: sergeant_linux against sergeant.supervisor, in one run.

    python tests/benchmarks/respawn.py [--rounds 30]

Both supervise the same real sergeant worker, in a folder of its own, with the same command line. The worker module's first line says the time
(CLOCK_MONOTONIC, which all processes share) and its pid; the benchmark notes the time, kills the worker, and takes the difference to
the next line. The two take turns, so that whatever else the machine does concerns both.
Leaves with 1 when the ratio of the medians is below the goal.
"""

import argparse
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

GOAL: Final = 20
"""How many times faster than the ancestor we mean to be."""

PATIENCE: Final = 60.0

WORKER: Final = """\
import os, time; os.write(1, f'{time.monotonic()} {os.getpid()}\\n'.encode())
from sergeant import config, worker

class Worker(worker.Worker):
    def generate_config(self):
        return config.WorkerConfig(name='idle', connector=config.Connector(type='local', params={'file_path': 'tasks.sqlite3'}))
"""


class Contender:
    """A supervisor at work on one worker."""

    def __init__(self, process: 'subprocess.Popen[str]') -> None:
        self._process = process
        _, self._worker = self._next_start()

    def respawn(self) -> float:
        """Kill the worker; return the seconds until its replacement runs."""
        killed_at = time.monotonic()
        os.kill(self._worker, signal.SIGKILL)
        started_at, self._worker = self._next_start()
        return started_at - killed_at

    def _next_start(self) -> tuple[float, int]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise TimeoutError(f'{self._process.args!r} has started no worker within {PATIENCE} s')
        started_at, pid = self._process.stdout.readline().split()
        return float(started_at), int(pid)


@contextmanager
def contender(module: str) -> Iterator[Contender]:
    """Run `module` as a supervisor of one worker. Its end is the end of all it has started."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, 'idle_worker.py').write_text(WORKER)
        flags = ['--worker-module=idle_worker', '--worker-class=Worker', '--concurrent-workers=1']
        process = subprocess.Popen(
            [sys.executable, '-m', module, *flags],
            cwd=folder,
            env=os.environ | {'PYTHONPATH': str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            yield Contender(process)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=30, help='kills of each (%(default)s)')
    rounds = parser.parse_args().rounds

    with ExitStack() as stack:
        ours, theirs = (
            stack.enter_context(contender(module)) for module in ('sergeant_linux.supervisor', 'sergeant.supervisor')
        )
        our_times, their_times = [], []
        for _ in range(rounds):
            time.sleep(1.2)  # a life that has been ready for --restart-reset is replaced at once
            our_times.append(ours.respawn())
            their_times.append(theirs.respawn())
    for name, times in (('sergeant_linux', our_times), ('sergeant.supervisor', their_times)):
        low, median, high = (1000 * pick(times) for pick in (min, statistics.median, max))
        print(f'{name:20} median {median:7.1f} ms   (min {low:.1f}, max {high:.1f}, of {rounds})')
    ratio = statistics.median(their_times) / statistics.median(our_times)
    print(f'{ratio:.0f} times faster (the goal: {GOAL})')
    return 0 if ratio >= GOAL else 1


if __name__ == '__main__':
    sys.exit(main())
