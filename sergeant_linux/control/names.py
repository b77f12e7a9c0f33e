"""Where the control socket of a pool is, and how the pools of this host are found.

    $RUNTIME_DIRECTORY/sergeant-linux/NAME.sock     in a unit with RuntimeDirectory=
    $XDG_RUNTIME_DIR/sergeant-linux/NAME.sock       of a user
    /run/sergeant-linux/NAME.sock                   of root
    /run/sergeant-linux/NAME/sergeant-linux/NAME.sock   of a unit, whoever's it is (User=)

Facts: a socket's file stays when its owner is killed, and a connection to it is then refused. A lock (flock(2)) goes
with the last process that has it, whatever ended that one. The kernel lists the paths of all listening sockets
(/proc/net/unix, unix(7)), as they were when each was bound. The path of a socket has at most 107 bytes.
Consequence: a name is taken as long as the lock on NAME.lock is held; a socket whose lock can be had is a dead one's
and is replaced, unless it answers all the same: then it is another program's. The lock's file is removed with the
socket, so a lock counts only while its file is the one that is found by its path. A pool is found by its socket's path,
wherever its folder is.
Decision: the lock's file is for its owner alone: whoever can open a file can lock it, and keep a name from its pool.
What is at the path and is neither a socket nor a lock of ours is never touched.
Where the kernel's table does not list a socket, as it does none of another network namespace (PrivateNetwork= of a
unit, a container), it is found where a runtime folder of the system's or a user's manager is.
Anybody can listen at such a path of their own. So a pool that is looked for by its name, or without one, is believed to
be that where it is root's or our own, and otherwise only in the folder that root has made for the unit of that name, of
that folder's owner; a socket that is named by its path is believed to be of whoever has its folder, as its caller has
chosen the place. A fake is listed as somebody else's, and never spoken to.
Price: root operates a pool that a user has started by hand with --control-socket. One in a network namespace of its own
is found only where its folder can be seen, and two levels deep.

Invariant: of several that claim a name at once one gets it; nothing is left of a pool that ends in order.
"""

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple
from zlib import crc32

FOLDER: Final = 'sergeant-linux'
SUFFIX: Final = '.sock'
LOCK: Final = '.lock'
RUN: Final = '/run'

TABLE: Final = '/proc/net/unix'

LONGEST_PATH: Final = 107
"""Bytes: sun_path of unix(7), less its end."""

LONGEST_NAME: Final = 64
"""Characters of a pool's name."""

MOST_ENTRIES: Final = 4096
"""Entries of a folder that are looked at."""

BACKLOG: Final = 128
ATTEMPTS: Final = 1000

_LISTENING: Final = '00010000'
"""The flag __SO_ACCEPTCON as /proc/net/unix has it."""


class Taken(Exception):
    """Somebody else has this name; the text says who."""


class NoPlace(Exception):
    """There is no place for a socket; the text says why not."""


class Found(NamedTuple):
    """A socket that may be a pool's."""

    name: str
    path: str


class Claim:
    """A name that is ours, and the socket that listens under it."""

    def __init__(self, name: str, path: str, listener: socket.socket, lock: int) -> None:
        self.name = name
        self.path = path
        self.listener = listener
        self._lock = lock
        self._file = os.lstat(path)
        self._is_ours = True

    def close(self) -> None:
        """Give the name back: remove the socket and the lock's file, then let go of the lock. Again does no harm.

        Where somebody has removed them, and others have come since, theirs stay.
        """
        if not self._is_ours:
            return
        self._is_ours = False
        for path, ours in ((self.path, self._file), (lock_path(self.path), os.fstat(self._lock))):
            with suppress(OSError):
                if os.path.samestat(os.lstat(path), ours):
                    os.unlink(path)
        os.close(self._lock)
        self.listener.close()


def folders(environ: Mapping[str, str]) -> list[str]:
    """Return where sockets may be, the best place first."""
    places = [environ.get('RUNTIME_DIRECTORY', '').partition(':')[0], environ.get('XDG_RUNTIME_DIR', ''), RUN]
    found = [os.path.join(place, FOLDER) for place in places if place.startswith('/')]
    return list(dict.fromkeys(found))


def claim(
    name: str | None, default: str, path: str | None, environ: Mapping[str, str], group: int | None = None
) -> Claim:
    """Return a name and its listening socket: `name`, or else `default` with -2, -3, … where that is taken; at `path`,
    or else in the first folder that can be written.

    The socket is for its owner alone, or for `group` as well. Raises `Taken` when the name or the path that was asked
    for is a living pool's, `NoPlace` when no socket can be made, OSError when there are no descriptors left.
    """
    if path is not None:
        path = os.path.abspath(path)
        try:
            return _claim(name or default, path, group)
        except OSError as error:
            _pass_on(error)
            raise NoPlace(f'{path}: {error.strerror or error}') from None
    refusals = []
    for folder in folders(environ):
        try:
            _make_folder(folder, group)
            return _claim_in(folder, name, default, group)
        except OSError as error:
            _pass_on(error)
            refusals.append(f'{folder}: {error.strerror or error}')
    raise NoPlace('; '.join(refusals))


def _pass_on(error: OSError) -> None:
    """Raise what is no fault of the place."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise error


def _claim_in(folder: str, name: str | None, default: str, group: int | None) -> Claim:
    for each in [name] if name is not None else _numbered(default):
        if '/' in each or each.startswith('.') or not each.isprintable() or not each:
            raise OSError(None, f'{each!r} cannot be the name of a socket')
        try:
            return _claim(each, os.path.join(folder, each + SUFFIX), group)
        except Taken:
            if name is not None:
                raise
    raise OSError(None, f'{default} to {default}-{ATTEMPTS} are taken')


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f'{name}-{number}' for number in range(2, ATTEMPTS + 1))


def _make_folder(folder: str, group: int | None) -> None:
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
        if group is not None or os.path.dirname(folder) == RUN:
            os.chmod(folder, 0o755)
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(None, 'cannot be written')


def _claim(name: str, path: str, group: int | None) -> Claim:
    length = len(os.fsencode(path))
    if length > LONGEST_PATH:
        raise OSError(None, f'the path of the socket would have {length} bytes, more than {LONGEST_PATH}')
    lock = _lock(name, path)
    try:
        return Claim(name, path, _listen(path, group), lock)
    except BaseException:
        os.unlink(lock_path(path))
        os.close(lock)
        raise


def _lock(name: str, path: str) -> int:
    """Return the lock on the name. The file may be removed by who gives the name back: then it is another one's."""
    while True:
        lock = os.open(lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            text = os.pread(lock, 32, 0).strip()
            if text and not text.isdigit():
                raise FileExistsError(None, f'{lock_path(path)} is no lock of ours')
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.lstat(lock_path(path))):
                os.ftruncate(lock, 0)
                os.pwrite(lock, f'{os.getpid()}\n'.encode(), 0)
                return lock
        except FileNotFoundError:
            pass  # it was removed meanwhile
        except BlockingIOError:
            pid = os.pread(lock, 32, 0).decode('ascii', 'replace').strip() or '?'
            os.close(lock)
            raise Taken(f'{name} is already running as pid {pid} ({path})') from None
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _listen(path: str, group: int | None) -> socket.socket:
    """Return a socket that listens at `path`; who is to be kept out never gets in, not even for a moment."""
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(path)
        if group is not None:
            os.chown(path, -1, group)
            os.chmod(path, 0o660)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _remove_stale(path: str) -> None:
    """Remove the socket that somebody has left at `path`. Raises `Taken` when it is not left, but in use."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(None, 'there is a file that is no socket')
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
            stranger.setblocking(False)
            stranger.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)  # nobody listens
    except FileNotFoundError:
        pass  # there is nothing
    except BlockingIOError:  # more want to connect than can wait
        raise Taken(f'another program listens at {path}') from None
    else:
        raise Taken(f'another program listens at {path}')


def lock_path(path: str) -> str:
    """Return the path of the lock beside a socket."""
    return path.removesuffix(SUFFIX) + LOCK


def pools(environ: Mapping[str, str]) -> list[Found]:
    """Return every socket on this host that looks like a pool's, whoever's it is; whether it answers is to be tried."""
    paths = list(_listening())
    for folder in _places(environ):
        paths += [each for each in _entries(folder) if each.endswith(SUFFIX)]
    # a socket may be known by several paths: /var/run is /run; a link in somebody's folder gives it no other name
    places = {os.path.realpath(path) for path in paths}
    return sorted(Found(os.path.basename(path).removesuffix(SUFFIX), path) for path in places if path.endswith(SUFFIX))


def _places(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the folders that sockets may be in: of the environment, of the system's manager, of each user's."""
    yield from folders(environ)
    for run in (RUN, *_entries(f'{RUN}/user')):
        yield os.path.join(run, FOLDER)
        for unit in (*_entries(run), *_entries(os.path.join(run, FOLDER))):  # RuntimeDirectory=
            yield os.path.join(unit, FOLDER)


def _entries(folder: str) -> list[str]:
    """Return the paths in a folder, at most so many as nobody has by chance; none where it can't be read."""
    with suppress(OSError), os.scandir(folder) as entries:
        return [entry.path for entry in islice(entries, MOST_ENTRIES)]
    return []


def trusted(found: Found) -> frozenset[int]:
    """Return the uids whose pool is believed to be the one of its name, where it was found."""
    uids = {0, os.geteuid()}
    unit, folder = os.path.split(os.path.dirname(found.path))
    if folder == FOLDER and unit in unit_folders(found.name):
        with suppress(OSError):
            if all(_is_roots(place) for place in (RUN, os.path.join(RUN, FOLDER))):
                uids.add(os.stat(unit).st_uid)
    return frozenset(uids)


def is_believed(found: Found) -> bool:
    """Return whether a socket's file, at least, is of somebody whose pool is believed to be that of its name."""
    with suppress(OSError):
        return os.stat(found.path).st_uid in trusted(found)
    return False


def _is_roots(folder: str) -> bool:
    """Return whether nobody but root can make something here."""
    status = os.lstat(folder)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == 0 and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def unit_folders(name: str) -> list[str]:
    """Return where the unit of a pool with this name may have its runtime folder."""
    base = os.path.realpath(os.path.join(RUN, FOLDER))
    return [os.path.join(base, each) for each in (name, f'{crc32(os.fsencode(name)):08x}')]


def owners(path: str) -> frozenset[int]:
    """Return the uids whose pool is believed to be the one that a caller means by this path."""
    uids = {0, os.geteuid()}
    with suppress(OSError):
        uids.add(os.stat(os.path.dirname(os.path.realpath(path))).st_uid)
    return frozenset(uids)


def _listening() -> Iterator[str]:
    """Yield the paths of the listening sockets that may be pools'. In a row: number, references, protocol, flags, …"""
    with suppress(OSError), open(TABLE, encoding='utf-8', errors='surrogateescape') as table:
        for line in table:
            fields, _, path = line.rstrip('\n').partition(' /')
            is_listening = fields.split()[3:4] == [_LISTENING]
            if is_listening and path.endswith(SUFFIX) and os.path.basename(os.path.dirname(path)) == FOLDER:
                yield '/' + path
