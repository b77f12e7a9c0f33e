"""A worker that closes every descriptor: what gets the numbers that were ours is not ours."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.life import DEADLINE, Life, Start
from tests.worker.queues import Queue

COUNTED = 'tests.worker.counted'


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket that listens on `victim`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / 'victim'))
        listener.listen(64)
        listener.settimeout(DEADLINE)
        yield listener


def accepted(victim: socket.socket) -> list[socket.socket]:
    connections = [victim.accept()[0] for _ in range(64)]
    for each in connections:
        each.settimeout(DEADLINE)
    return connections


def test_no_report_is_written_into_a_socket_of_the_workers_and_its_children_keep_theirs(
    start: Start, victim: socket.socket, tmp_path: Path
) -> None:
    life: Life = start('Reconnecting', COUNTED, VICTIM=str(tmp_path / 'victim'))
    life.ready()
    connections = accepted(victim)
    life.expect('child has all')
    life.expect('connected')

    life.cue()

    assert life.exit_code() == 1
    assert [each.recv(100_000) for each in connections] == [b''] * 64
    for each in connections:
        each.close()


def test_a_knock_takes_nothing_out_of_a_socket_of_the_workers(
    start: Start, local_queue: Queue, victim: socket.socket, tmp_path: Path
) -> None:
    local_queue.push(1)
    life = start('ReconnectingInATask', COUNTED, **local_queue.environ, VICTIM=str(tmp_path / 'victim'))
    connections = accepted(victim)
    life.expect('connected')
    for each in connections:
        each.send(b'mail')

    assert life.process.signal(signal.SIGURG)
    life.cue()

    life.expect('got True')
    assert life.exit_code() == 7
    for each in connections:
        each.close()
