"""What the demo proves, from what can be seen outside the pool.

Facts: the workers leave a line for each file they have hashed, the supervisor's log a record for each life that has
ended, the broker a row for each task that waits.
Consequence: nobody's word is needed: every file is hashed again, every pid is looked up.
Decision: each thing proven is one claim, with its verdict and its figures.
Price: it sees what was done, not how often it was begun.
"""

import hashlib
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

Record = dict[str, Any]
"""One line of the supervisor's JSON log."""

BORN: Final = re.compile(r'spawned a new worker at pid: (\d+)|worker\(\d+\) was respawned as worker\((\d+)\)')


class Claim(NamedTuple):
    """One thing that holds, or doesn't."""

    holds: bool
    text: str


def results(folder: Path) -> list[tuple[str, str]]:
    """Return digest and path of every file that the workers say they have hashed."""
    return [
        (digest, path)
        for file in sorted((folder / 'results').glob('*.sha256'))
        for digest, _, path in (line.partition('  ') for line in file.read_text().splitlines())
    ]


def waiting(folder: Path) -> int:
    """Return the number of tasks that nobody has fetched."""
    connection = sqlite3.connect(folder / 'tasks.sqlite3')
    try:
        count: int = connection.execute('SELECT count(*) FROM task_queue').fetchone()[0]
        return count
    finally:
        connection.close()


def exits(log: Iterable[Record]) -> list[Record]:
    """Return the record of each life that has ended."""
    return [record for record in log if record.get('event') == 'worker-exit']


def killed_for_memory(log: Iterable[Record]) -> list[Record]:
    """Return the record of each life that was ended at the memory limit."""
    return [record for record in exits(log) if record.get('result') == 'memory-max']


def born(log: Iterable[Record]) -> set[int]:
    """Return the pid of each worker that was started, at first or in another's place."""
    messages = (BORN.fullmatch(str(record.get('message'))) for record in log)
    return {int(match[1] or match[2]) for match in messages if match}


def every_file_once(files: Sequence[str], folder: Path) -> Claim:
    """Every file was hashed exactly once, and rightly; `files` are the paths that were enqueued."""
    found = results(folder)
    times = Counter(path for _, path in found)
    missing = [path for path in files if path not in times]
    repeated = [path for path, count in times.items() if count > 1]
    wrong = [path for digest, path in found if hashlib.sha256(Path(path).read_bytes()).hexdigest() != digest]
    strange = times.keys() - set(files)
    faults = {'missing': missing, 'repeated': repeated, 'wrong': wrong, 'strange': strange}
    verdict = '; '.join(f'{len(paths)} {fault}: {min(paths)}' for fault, paths in faults.items() if paths)
    text = f'{len(files):,} files enqueued, {len(found):,} hashed: '
    return Claim(not verdict, text + (verdict or 'each exactly once, every digest right'))


def nothing_waits(folder: Path) -> Claim:
    """The queue is empty: what isn't hashed was fetched, and lost."""
    count = waiting(folder)
    return Claim(count == 0, f'{count} tasks still wait in the queue')


def the_hog_was_killed(hogs: Sequence[int], limit: int, log: Iterable[Record]) -> Claim:
    """One worker was ended at the limit, and it is the one that ran the hog; `hogs` are the pids that say so."""
    records = killed_for_memory(log)
    pids = [record.get('pid') for record in records]
    if len(hogs) != 1 or pids != hogs:
        return Claim(False, f'the hog was begun by {hogs}, and reported as killed at its memory limit were {pids}')
    rss = records[0].get('max_rss_bytes') or 0
    text = f'the hog, worker {hogs[0]}, was killed at {rss >> 20} MiB, over its {limit >> 20} MiB, and reported as such'
    return Claim(rss > limit, text)


def every_life_is_accounted_for(workers: int, log: Sequence[Record]) -> Claim:
    """The hog was replaced, nobody else was, and each life has its record."""
    ended = sorted(record.get('pid', 0) for record in exits(log))
    text = f'{workers} workers at the start, {len(born(log))} lives in all, {len(ended)} records of their ends'
    return Claim(ended == sorted(born(log)) and len(ended) == workers + 1, text)


def the_pool_has_stopped(status: int, seconds: float, log: Iterable[Record]) -> Claim:
    """The supervisor has left as it was told to, and no worker is left. `seconds`: from the signal to its end."""
    alive = [record.get('pid') for record in exits(log) if os.path.exists(f'/proc/{record.get("pid")}')]
    text = f'told to stop by SIGTERM, the pool was gone after {seconds:.2f} s, with exit status {status}'
    return Claim(status == 0 and not alive, text + (f'; still there: {alive}' if alive else '; no process is left'))
