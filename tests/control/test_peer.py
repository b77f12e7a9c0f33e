"""peer_of: on real sockets."""

import errno
import os
import socket
from pathlib import Path

import pytest

from sergeant_linux.kernel.peer import Peer, peer_of
from tests.kernel.processes import Fork

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason='only root can be somebody else')


def connected(fork: Fork, path: Path, groups: list[int] | None = None) -> tuple[Peer, int]:
    """Return what is seen of a child that connects, and its pid."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()

        def body() -> None:
            if groups is not None:
                os.setgroups(groups)
                os.setgid(3456)
                os.setuid(4567)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
                wire.connect(str(path))
                wire.recv(1)

        child = fork(body)
        connection, _ = listener.accept()
        with connection:
            return peer_of(connection), child.pid


def test_a_peer_is_known_by_its_pid_its_user_and_its_groups(fork: Fork, folder: Path) -> None:
    peer, pid = connected(fork, folder / 'socket')

    assert peer == Peer(pid, os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


@needs_root
@pytest.mark.parametrize('number', [0, 1, 256, 257, 3000])
def test_all_groups_of_another_user_are_seen_however_many(fork: Fork, folder: Path, number: int) -> None:
    groups = list(range(10_000, 10_000 + number))

    peer, pid = connected(fork, folder / 'socket', groups)

    assert peer == Peer(pid, 4567, frozenset({3456, *groups}))


def test_what_is_no_unix_socket_has_no_peer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stranger:
        with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
            peer_of(stranger)
