"""A pool of real sergeant workers for the tests under systemd: its folder, its code, its broker, its diary.

Facts: a worker in a unit finds nothing of the test's but what is in its working folder and what listens on the
machine; it writes where --writable lets it.
Decision: tests and workers tell each other everything by files in that folder. A worker writes a diary; each task
waits for its permit, the start of each worker for the file `hold` to be gone; the broker is a redis-server of ours on
a port that is chosen before, so that it can be missing at first.

The module reads from the broker while it is imported, as modules do whose configuration is there.
"""

import shutil
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from sergeant_linux import Client
from tests.systemd.lab import USER, run, wait_until
from tests.worker.queues import NAME, Queue, free_port, redis_server

FOLDER: Final = Path('/srv/crawl')

POOL: Final = 'crawl'

WORKERS: Final = 2

SOURCE: Final = """
    import os, time

    import redis
    from sergeant import config, worker

    redis.Redis(port=PORT).ping()


    class Worker(worker.Worker):
        def generate_config(self):
            node = {'host': '127.0.0.1', 'port': PORT, 'password': None, 'database': 0}
            return config.WorkerConfig(name='NAME', connector=config.Connector(type='redis', params={'nodes': [node]}))

        def initialize(self):
            while os.path.exists('hold'):
                time.sleep(0.05)

        def work(self, task):
            self.note('begun', task)
            while not os.path.exists(f'permit-{task.kwargs["id"]}'):
                time.sleep(0.05)
            self.note('done', task)

        def note(self, what, task):
            diary = os.open('diary', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(diary, f'{what} {task.kwargs["id"]} {os.getpid()} CODE\\n'.encode())
            os.close(diary)
"""


class Note(NamedTuple):
    """One line of the diary: what a worker did with a task, and by which code."""

    what: str
    task: int
    pid: int
    code: str


class Crawl:
    """The folder of the pool, the user's."""

    def __init__(self) -> None:
        self.port = free_port()
        FOLDER.mkdir()
        shutil.chown(FOLDER, USER, USER)
        self.write('one')

    def write(self, code: str) -> None:
        """Put the code of this name on the disk."""
        source = textwrap.dedent(SOURCE).replace('PORT', str(self.port)).replace('NAME', NAME).replace('CODE', code)
        self.write_source(source)

    def write_source(self, source: str) -> None:
        new = FOLDER / 'new'
        new.write_text(source)
        new.rename(FOLDER / 'crawl_worker.py')

    @contextmanager
    def broker(self) -> Iterator[Queue]:
        """A redis-server where the workers look for it, and the queue in it."""
        with redis_server(FOLDER, self.port) as port, closing(Queue.on_redis(port)) as queue:
            yield queue

    def text(self, *options: str) -> str:
        """Return the unit that `sergeant-linux unit` prints for this pool."""
        return run(
            'sergeant-linux', 'unit', '--worker-module=crawl_worker', '--worker-class=Worker', f'--concurrent-workers={WORKERS}',
            f'--name={POOL}', f'--user={USER}', f'--writable={FOLDER}', '--log-format=json', *options, cwd=FOLDER,
        )  # fmt: skip

    def hold(self) -> None:
        """Workers do not become ready until `release`."""
        (FOLDER / 'hold').touch()

    def release(self) -> None:
        (FOLDER / 'hold').unlink()

    def permit(self, *tasks: int) -> None:
        """Let these tasks come to their end."""
        for task in tasks:
            (FOLDER / f'permit-{task}').touch()

    def diary(self, what: str) -> list[Note]:
        try:
            lines = (FOLDER / 'diary').read_text().splitlines()
        except FileNotFoundError:
            return []
        notes = [Note(each, int(task), int(pid), code) for each, task, pid, code in map(str.split, lines)]
        return [note for note in notes if note.what == what]

    def wait_for(self, what: str, count: int) -> list[Note]:
        """Wait until that many notes of a kind are in the diary."""
        return wait_until(
            lambda: (len(notes := self.diary(what)) >= count and notes) or None, f'{count} × {what}', lambda: str(self.ask('status'))
        )

    def ask(self, verb: str) -> dict[str, Any]:
        """Ask the pool by its control socket, which is found by the pool's name."""
        with Client.find(POOL) as pool:
            return pool.call(verb)

    def workers(self) -> list[int]:
        """Return the pids of all workers once all are ready."""

        def look() -> list[int] | None:
            slots = self.ask('status')['slots']
            pids = [slot['pid'] for slot in slots if slot['state'] == 'running' and slot['successor'] is None]
            return pids if len(pids) == WORKERS else None

        return wait_until(look, f'{WORKERS} workers', lambda: str(self.ask('status')))

    def remove(self) -> None:
        shutil.rmtree(FOLDER)
