"""Who is at the other end of a Unix stream socket.

Facts: the kernel keeps the pid, uid and gid that the peer had when it connected (SO_PEERCRED, unix(7)), and since
Linux 4.13 also its supplementary groups (SO_PEERGROUPS); neither can be forged, and both are of that moment. A buffer
that is too short for the groups is refused (ERANGE), and Python's getsockopt takes none of more than 1024 bytes, which
is 256 groups; a process may have 65,536.
Consequence: who has more is asked about through ctypes, which is loaded for that alone. /proc/PID/status would be
simpler, but tells of whoever has the pid by now.
"""

import errno
import os
import socket
import struct
from typing import Final, NamedTuple

_UCRED: Final = struct.Struct('iII')
_SO_PEERGROUPS: Final = 59
_MOST_BYTES: Final = 1024
"""Of Python's getsockopt."""

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
        data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        data = _many_groups(connection)
    return Peer(pid, uid, frozenset({gid, *(group for (group,) in struct.iter_unpack('I', data))}))


def _many_groups(connection: socket.socket) -> bytes:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    data = ctypes.create_string_buffer(4 * _MOST_GROUPS)
    size = ctypes.c_uint(len(data))
    if libc.getsockopt(connection.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, data, ctypes.byref(size)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return data.raw[: size.value]
