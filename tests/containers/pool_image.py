"""The image of a pool of real sergeant workers, built by the Dockerfile that `sergeant-linux deploy` prints.

Facts: nothing can be pulled in the lab; all that the Dockerfile's steps install lies in its disk (vagrant/image.py).
Consequence: the Dockerfile is taken as it is printed, and podman is told where its packages are.
Decision: workers find their broker, and tell of themselves, by a redis-server of the lab on a port that stands in the
image, for containers in the lab's own network; REDIS names another one. Each task waits in the broker for its permit.
"""

import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import redis

from tests.systemd.lab import CHECKOUT, run, wait_until
from tests.worker.queues import NAME, Queue
from vagrant.image import IMAGE_OPTIONS

IMAGE: Final = 'localhost/crawl:latest'

POOL: Final = ('--worker-module=crawl_worker', '--worker-class=Worker', '--concurrent-workers=2', '--max-worker-memory-usage=64M')

PORT: Final = 6399

BUILD_TIME: Final = 400.0
"""Seconds; the lab takes two minutes when it has a processor for itself."""

SOURCE: Final = """
    import os

    import redis
    from sergeant import config, worker

    HOST, PORT = os.environ.get('REDIS', '127.0.0.1:PORT').split(':')
    broker = redis.Redis(HOST, int(PORT))


    class Worker(worker.Worker):
        def generate_config(self):
            node = {'host': HOST, 'port': int(PORT), 'password': None, 'database': 0}
            return config.WorkerConfig(name='NAME', connector=config.Connector(type='redis', params={'nodes': [node]}))

        def work(self, task):
            number = task.kwargs['id']
            broker.rpush('begun', number)
            while not broker.exists(f'permit-{number}'):
                broker.blpop('nothing', 0.1)
            broker.rpush('done', number)
"""


def build(folder: Path) -> None:
    """Build the image in this folder, as somebody would who has read the README."""
    wheels = list((CHECKOUT / 'dist').glob('*.whl'))
    assert len(wheels) == 1, f'expected one wheel in {CHECKOUT}/dist: make wheel'
    (folder / 'dist').mkdir()
    shutil.copy(wheels[0], folder / 'dist')
    (folder / 'crawl_worker.py').write_text(textwrap.dedent(SOURCE).replace(':PORT', f':{PORT}').replace('NAME', NAME))
    (folder / 'requirements.txt').write_text('redis>=4\n')
    (folder / 'Dockerfile').write_text(run('sergeant-linux', 'deploy', 'dockerfile', *POOL))
    command = ['podman', 'build', '--layers', *IMAGE_OPTIONS, f'--tag={IMAGE}', '.']
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BUILD_TIME)
    assert done.returncode == 0, f'{shlex.join(command)}\n{done.stdout}'


class Crawl:
    """What is known of tasks and workers out here: a queue, and what the workers have written down in the broker."""

    def __init__(self, queue: Queue, host: str = '127.0.0.1', port: int = PORT) -> None:
        self.queue = queue
        self._broker = redis.Redis(host, port)

    def close(self) -> None:
        self._broker.connection_pool.disconnect()

    def permit(self, *tasks: int) -> None:
        """Let these tasks come to their end."""
        for task in tasks:
            self._broker.set(f'permit-{task}', 1)

    def tasks(self, what: str) -> list[int]:
        """Return the tasks that have `begun`, or are `done`."""
        return [int(each) for each in self._broker.lrange(what, 0, -1)]

    def wait_for(self, what: str, count: int) -> Sequence[int]:
        def look() -> list[int] | None:
            tasks = self.tasks(what)
            return tasks if len(tasks) >= count else None

        return wait_until(look, f'{count} tasks that are {what}', lambda: run('podman', 'ps', '--all'))
