"""Fixtures for the scenarios; the pool itself is in pool.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.queues import Queue, redis_server


@pytest.fixture(scope='session')
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a redis-server for all scenarios."""
    with redis_server(tmp_path_factory.mktemp('redis')) as port:
        yield port


@pytest.fixture(params=['redis', 'local'])
def queue(request: pytest.FixtureRequest, redis_port: int, tmp_path: Path) -> Iterator[Queue]:
    """An empty queue, on each of the brokers."""
    queue = Queue.on_redis(redis_port) if request.param == 'redis' else Queue.on_local(tmp_path)
    yield queue
    queue.close()
