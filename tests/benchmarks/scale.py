"""What a pool costs: the time until N workers are ready, its memory, an idle second, and a death.

    python tests/benchmarks/scale.py [--workers 100]

The workers are real sergeant workers without tasks. Figures: seconds from the command to the first and to the last worker's READY; PSS, which
divides each shared page among those who share it, of a worker and of the supervisor with its helpers; context switches and CPU of
the idle supervisor; then, in a pool of four whose workers leave at once, deaths a second and the supervisor's CPU for each.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[2]))

from sergeant_linux.helpers import meter
from sergeant_linux.kernel import procfs
from tests.scenarios.pool import Pool, pool

IDLE: Final = '''
    from sergeant import config, worker

    class Worker(worker.Worker):
        """Looks for no task, so that what is measured is ours."""

        def generate_config(self):
            connector = config.Connector(type='local', params={'file_path': 'tasks.sqlite3'})
            return config.WorkerConfig(name='idle', connector=connector)

        def work_loop(self):
            import signal
            signal.pause()
'''

BRIEF: Final = """
    import os

    class Worker:
        def run(self):
            os._exit(9)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--workers', type=int, default=100, help='how many (%(default)s)')
    parser.add_argument('--deaths', type=int, default=1000, help='how many (%(default)s)')
    arguments = parser.parse_args()
    measure_many(arguments.workers)
    measure_deaths(arguments.deaths)


def measure_many(workers: int) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, pool(Path(folder), IDLE, concurrent_workers=workers) as running:
        running.wait_for('worker-ready')
        first = time.monotonic() - began
        running.wait_for('worker-ready', count=workers, within=120)
        last = time.monotonic() - began
        print(f'{workers} workers: the first is ready after {first:.2f} s, the last {last - first:.2f} s later')

        time.sleep(2)
        mine = pss(running.workers().values())
        others = pss(running.processes().keys() - set(running.workers().values()))
        print(f'PSS: {mine / workers / 2**20:.2f} MiB a worker; supervisor and helpers {others / 2**20:.1f} MiB')

        before = cost(running)
        time.sleep(5)
        switches, cpu = (after - start for after, start in zip(cost(running), before, strict=True))
        print(f'5 s idle: {switches:.0f} context switches and {cpu:.2f} s of CPU of the supervisor')

        began = time.monotonic()
        running.stop()
        print(f'stopped in {time.monotonic() - began:.2f} s')


def measure_deaths(deaths: int) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        pool(Path(folder), BRIEF, concurrent_workers=4, restart_delay=0) as running,
    ):
        running.wait_for('worker-exit')
        _, cpu_before = cost(running)
        began, before = time.monotonic(), len(running.find('worker-exit'))
        running.wait_for('worker-exit', count=before + deaths, within=120)
        took, (_, cpu_after) = time.monotonic() - began, cost(running)
        print(f'{deaths / took:.0f} deaths a second, each {1000 * (cpu_after - cpu_before) / deaths:.2f} ms of its CPU')


def pss(pids: Iterable[int]) -> int:
    return sum(meter.measure(pid, 'pss') or 0 for pid in pids)


def cost(running: Pool) -> tuple[int, float]:
    """Return the supervisor's own context switches and CPU seconds so far."""
    match = re.search(r'^voluntary_ctxt_switches:\s*(\d+)$', Path(f'/proc/{running.pid}/status').read_text(), re.MULTILINE)
    stat = procfs.read_stat(running.pid)
    assert match is not None and stat is not None
    return int(match[1]), stat.cpu_seconds


if __name__ == '__main__':
    main()
