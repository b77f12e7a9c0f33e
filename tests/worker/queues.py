"""The two brokers that the tests run on: a redis-server of our own, and sergeant's embedded local broker."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sergeant.broker import Broker
from sergeant.connector import local, redis
from sergeant.encoder.encoder import Encoder
from sergeant.objects import Task

NAME: Final = 'tasks'
"""The name of the queue, and so of the worker."""

ATTEMPTS: Final = 5
"""How often a free port may be taken by somebody else before redis-server has it."""


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory where the host has one: the local broker syncs its file after every single statement."""
    with tempfile.TemporaryDirectory(dir='/dev/shm' if os.path.isdir('/dev/shm') else None) as name:
        yield Path(name)


@contextmanager
def redis_server(folder: Path, port: int | None = None) -> Iterator[int]:
    """A redis-server on a free port of 127.0.0.1, or on this one, that keeps nothing; gives the port."""
    program = shutil.which('redis-server')
    assert program is not None, 'redis-server is not installed (Debian, Ubuntu: apt-get install redis-server)'
    for _ in range(ATTEMPTS):
        listens_at = free_port() if port is None else port
        options = f'--bind 127.0.0.1 --port {listens_at} --appendonly no --save'.split()
        command = [program, *options, '', '--dir', str(folder)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            if any('Ready to accept connections' in line for line in server.stdout):
                yield listens_at
                return
        finally:
            server.kill()
            server.communicate()
    raise AssertionError('redis-server found no free port')


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port: int = probe.getsockname()[1]
        return port


class Queue:
    """The tests' own view of a queue. `environ` tells a worker of tests.worker.workers where it is."""

    def __init__(self, connector: dict[str, Any]) -> None:
        self.environ = {'CONNECTOR': json.dumps(connector)}
        self._connector = (redis if connector['type'] == 'redis' else local).Connector(**connector['params'])
        self._broker = Broker(self._connector, Encoder(compressor_name=None, serializer_name='pickle'))
        self._broker.purge_tasks(NAME)

    @classmethod
    def on_redis(cls, port: int, host: str = '127.0.0.1') -> 'Queue':
        node = {'host': host, 'port': port, 'password': None, 'database': 0}
        return cls({'type': 'redis', 'params': {'nodes': [node]}})

    @classmethod
    def on_local(cls, folder: Path) -> 'Queue':
        return cls({'type': 'local', 'params': {'file_path': str(folder / 'queue.sqlite3')}})

    def close(self) -> None:
        if isinstance(self._connector, local.Connector):
            self._connector.connection.close()
        else:
            for connection in self._connector.connections:
                connection.connection_pool.disconnect()

    def push(self, *ids: int) -> None:
        """Put tasks with these ids into the queue."""
        self._broker.push_tasks(NAME, [Task(kwargs={'id': id_}) for id_ in ids])

    def __len__(self) -> int:
        return self._broker.number_of_enqueued_tasks(NAME, include_delayed=True)

    def take_all(self) -> list[int]:
        """Take everything out of the queue; return the ids in their order."""
        return [task.kwargs['id'] for task in self._broker.pop_tasks(NAME, 1_000_000)]
