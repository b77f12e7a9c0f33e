"""Fixtures for the tests of the worker's side: lives (life.py), queues (queues.py)."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.worker.life import Start, lives
from tests.worker.queues import Queue, memory_folder, redis_server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts a life of a worker."""
    with lives(tmp_path) as start:
        yield start


@pytest.fixture(scope='session', autouse=True)  # before the leak guard looks
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a redis-server for all tests."""
    with redis_server(tmp_path_factory.mktemp('redis')) as port:
        yield port


@pytest.fixture
def local_queue() -> Iterator[Queue]:
    """An empty queue on the local broker, for rules that have nothing to do with the broker."""
    with memory_folder() as folder, closing(Queue.on_local(folder)) as queue:
        yield queue


@pytest.fixture
def redis_queue(redis_port: int) -> Iterator[Queue]:
    """An empty queue on redis."""
    with closing(Queue.on_redis(redis_port)) as queue:
        yield queue


@pytest.fixture(params=['redis_queue', 'local_queue'])
def queue(request: pytest.FixtureRequest) -> Queue:
    """An empty queue, on each of the brokers."""
    queue: Queue = request.getfixturevalue(request.param)
    return queue
