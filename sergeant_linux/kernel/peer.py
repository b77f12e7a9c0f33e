"""Who is at the other end of a Unix stream socket.

Facts: the kernel keeps the pid, uid and gid that the peer had when it connected (SO_PEERCRED, unix(7)), and since
Linux 4.13 also its supplementary groups (SO_PEERGROUPS); neither can be forged, and both are of that moment.
"""

import errno
import socket
import struct
from typing import Final, NamedTuple

_UCRED: Final = struct.Struct('iII')
_SO_PEERGROUPS: Final = 59
_MOST_GROUPS: Final = 65_536
"""NGROUPS_MAX."""


class Peer(NamedTuple):
    """A peer as it was when it connected. `groups`: the primary one among them."""

    pid: int
    uid: int
    groups: frozenset[int]


def peer_of(connection: socket.socket) -> Peer:
    """Return the peer of a connected Unix socket. Raises OSError."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * 1024)
    except OSError as error:
        if error.errno != errno.ERANGE:
            return Peer(pid, uid, frozenset({gid}))
        data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MOST_GROUPS)
    return Peer(pid, uid, frozenset({gid, *(group for (group,) in struct.iter_unpack('I', data))}))
