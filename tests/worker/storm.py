"""A storm of stops over a worker with instant tasks: what becomes of every single task?

`python -m tests.worker.storm ROUNDS` runs all combinations with ROUNDS stops each, and prints the figures.
"""

import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import NamedTuple

from tests.worker.life import Start, lives
from tests.worker.queues import Queue, memory_folder, redis_server

LONGEST_WAIT = 0.02
"""Seconds from READY to the stop, at most: some dozens of tasks."""


class Tally(NamedTuple):
    """What became of the tasks of one storm."""

    stops: int
    tasks_done: int
    lost: int
    """Neither done nor in the queue."""
    done_again: int
    """Done more than once, or done and in the queue all the same."""


def storm(start: Start, queue: Queue, results: Path, how: str, rounds: int, **environ: str) -> Tally:
    """Start a worker and stop it at a random moment, `rounds` times; `how` is SIGTERM, DRAIN or BOTH.

    SIGTERM is often followed by another one, as from a stranger.
    """
    results.touch()
    pushed = 0
    for _ in range(rounds):
        if len(queue) < 1000:
            queue.push(*range(pushed, pushed + 1000))
            pushed += 1000
        life = start('Instant', RESULTS=str(results), **queue.environ, **environ)
        life.ready()
        time.sleep(random.uniform(0, LONGEST_WAIT))  # a random moment is what this is about
        if how != 'SIGTERM':
            life.drain()
        if how != 'DRAIN':
            life.process.signal(signal.SIGTERM)
            if random.random() < 0.5:
                time.sleep(random.uniform(0, LONGEST_WAIT / 10))
                life.process.signal(signal.SIGTERM)
        final = life.final()
        assert (final['return_code'], final['received_stop_signal']) == (5, True), final
        assert life.exit_code() == 5
        life.close()

    done = Counter(map(int, results.read_text().split()))
    accounted = done + Counter(queue.take_all())
    return Tally(
        stops=rounds,
        tasks_done=len(done),
        lost=sum(id_ not in accounted for id_ in range(pushed)),
        done_again=sum(count > 1 for count in accounted.values()),
    )


def main(rounds: int) -> None:
    combinations = product(('redis', 'local'), ('1', '4'), ('1', '10'), ('SIGTERM', 'DRAIN', 'BOTH'))
    with tempfile.TemporaryDirectory() as name, redis_server(Path(name)) as port:
        for broker, threads, per_transaction, how in combinations:
            environ = {'THREADS': threads, 'PER_TRANSACTION': per_transaction}
            with (
                memory_folder() as folder,
                lives(folder) as start,
                closing(Queue.on_redis(port) if broker == 'redis' else Queue.on_local(folder)) as queue,
            ):
                tally = storm(start, queue, folder / 'results', how, rounds, **environ)
            print(f'{broker:5} {environ} {how:7} {tally}', flush=True)


if __name__ == '__main__':
    main(int(sys.argv[1]))
