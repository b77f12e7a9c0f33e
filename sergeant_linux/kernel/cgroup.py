"""cgroup v2: find the hierarchy and the own place in it, and do to a cgroup what can be done to one.

Facts (cgroups(7), the kernel's cgroup-v2 document): /proc/self/cgroup names the own cgroup relative to the root of
the cgroup namespace; a mount shows the hierarchy from some root on, and only a mount whose root is above the own
cgroup, in the same terms, shows it. Whether a directory may be written is told by writing: root is refused on a
read-only mount, a user is allowed in a delegated subtree. A cgroup that has controllers enabled for its children may
hold no process of its own (EBUSY); the threaded controllers (cpu, pids) are enabled over processes all the same, and
ruin the cgroup: its children can't have memory any more.
Consequence: the own directory is believed when the own pid is listed in it. Nothing here decides what is ours.

Every method raises OSError as the kernel gave it, with what was tried as a note; the text of `explain` says what it
means.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final

from sergeant_linux.kernel import cgroup_tree

FSTYPE: Final = 'cgroup2'
UNLIMITED: Final = 'max'

_MEANING: Final = {
    errno.EACCES: 'it belongs to somebody else, and is not delegated to this user',
    errno.EPERM: 'it is above the border of what is delegated (a cgroup namespace with nsdelegate)',
    errno.EROFS: 'cgroups are mounted read-only here',
    errno.EBUSY: 'it is not empty, or holds processes, which one with controllers for its children may not',
    errno.ENOSPC: 'the limit of cgroups is reached (cgroup.max.descendants or cgroup.max.depth)',
    errno.EAGAIN: 'the limit of cgroups or processes is reached',
    errno.ENOENT: 'there is no such file: the controller is not available, or the cgroup is gone',
    errno.ENODEV: 'the cgroup is gone',
    errno.EINVAL: 'the kernel does not know this value or controller',
    errno.EOPNOTSUPP: 'the cgroup is threaded: a threaded controller was enabled over processes',
}


def explain(error: OSError) -> str:
    """Return what an error of the kernel means for cgroups, in one sentence without a full stop."""
    told = [*getattr(error, '__notes__', ()), os.strerror(error.errno) if error.errno else str(error)]
    if error.errno in _MEANING:
        told.append(_MEANING[error.errno])
    return ': '.join(told)


@contextmanager
def _trying(act: str) -> Iterator[None]:
    """Put what was tried into the error."""
    try:
        yield
    except OSError as error:
        error.add_note(act)
        raise


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount of the v2 hierarchy: `point` shows it from `root` on (proc(5), mountinfo)."""

    point: str
    root: str
    read_only: bool


def mounts() -> list[Mount]:
    """Return all mounts of cgroup v2 that this process sees."""
    found = []
    with open('/proc/self/mountinfo', encoding='utf-8', errors='surrogateescape') as table:
        for line in table:
            fields, _, tail = line.partition(' - ')
            if tail.startswith(FSTYPE + ' '):
                root, point, options = fields.split(' ')[3:6]
                found.append(Mount(unescaped(point), unescaped(root), 'ro' in options.split(',')))
    return found


def own_path(pid: int | str = 'self') -> str | None:
    """Return the path of the process's v2 cgroup, relative to the root of the cgroup namespace; None without cgroup
    v2."""
    with suppress(OSError), open(f'/proc/{pid}/cgroup', encoding='utf-8', errors='surrogateescape') as table:
        for line in table:
            if line.startswith('0::'):
                return line[3:].rstrip('\n').removesuffix(' (deleted)')
    return None


def own() -> 'Cgroup | None':
    """Return the cgroup of this process, or None when no mount shows it."""
    path = own_path()
    if path is None:
        return None
    for mount in mounts():
        root = mount.root.rstrip('/')
        if path == root or path.startswith(root + '/'):
            candidate = Cgroup(os.path.normpath(mount.point + path[len(root) :]), mount.point)
            with suppress(OSError):
                if os.getpid() in candidate.processes():
                    return candidate
    return None


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A cgroup, by its directory; `top`: where the mount that shows it is, the highest that can be seen."""

    path: str
    top: str

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def parent(self) -> 'Cgroup | None':
        """The cgroup above, or None at the top of what the mount shows."""
        return None if self.path == self.top else Cgroup(os.path.dirname(self.path), self.top)

    @property
    def is_hierarchy_root(self) -> bool:
        """Whether this is the root of the whole hierarchy, which alone has no type and may hold processes beside
        controllers."""
        return not self.has('cgroup.type')

    def child(self, name: str) -> 'Cgroup':
        return Cgroup(f'{self.path}/{name}', self.top)

    def children(self) -> list['Cgroup']:
        """Return the cgroups directly below."""
        with os.scandir(self.path) as entries:
            return [self.child(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]

    def make(self) -> None:
        """Create it. Raises FileExistsError and what `explain` knows."""
        with _trying(f'mkdir {self.path}'):
            os.mkdir(self.path)

    def remove(self) -> None:
        """Remove it; raises EBUSY while a process or a child is in it (zombies don't count)."""
        os.rmdir(self.path)

    def exists(self) -> bool:
        return os.path.isdir(self.path)

    def has(self, file: str) -> bool:
        """Whether it has this file: what a kernel can do is told by its files, not by its version."""
        return os.path.exists(f'{self.path}/{file}')

    def read(self, file: str) -> str:
        with _trying(f'read {self.path}/{file}'), open(f'{self.path}/{file}', encoding='ascii') as source:
            return source.read().strip()

    def write(self, file: str, value: object) -> None:
        """Write one value by one write(2), as cgroup files want it."""
        with _trying(f"write '{value}' to {self.path}/{file}"):
            fd = os.open(f'{self.path}/{file}', os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, str(value).encode('ascii'))
            finally:
                os.close(fd)

    def number(self, file: str) -> int | None:
        """Return the number in a file; None for `max`, and where there is no such file."""
        try:
            text = self.read(file)
        except FileNotFoundError:
            return None
        return None if text == UNLIMITED else int(text)

    def table(self, file: str) -> dict[str, int]:
        """Return a flat-keyed file; empty where there is none."""
        try:
            return flat_keyed(self.read(file))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return {}
            raise

    def open(self) -> int:
        """Return a descriptor of its directory."""
        with _trying(f'open {self.path}'):
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def processes(self) -> list[int]:
        """Return the pids in it (0: one outside of this pid namespace)."""
        return [int(pid) for pid in self.read('cgroup.procs').split()]

    def controllers(self) -> frozenset[str]:
        """Return the controllers that can be enabled for its children."""
        return frozenset(self.read('cgroup.controllers').split())

    def enabled(self) -> frozenset[str]:
        """Return the controllers that are enabled for its children."""
        return frozenset(self.read('cgroup.subtree_control').split())

    def is_delegated(self) -> bool:
        """Whether systemd has marked it as delegated (xattr user.delegate, readable by anyone; since systemd 251)."""
        with suppress(OSError):
            return os.getxattr(self.path, 'user.delegate') == b'1'
        return False

    def is_populated(self) -> bool:
        """Whether a process lives in it or below; False when it is gone."""
        return self.table('cgroup.events').get('populated', 0) != 0

    def kill(self) -> None:
        """SIGKILL everything in it and below (since Linux 5.14), frozen or not, also what forks meanwhile."""
        self.write('cgroup.kill', 1)

    def removal(self) -> Iterator[None]:
        """Remove it and all that was made below it, a step at each `next`; raises EBUSY while anything lives there."""
        with _trying(f'rmdir {self.path}'):
            yield from cgroup_tree.removal(self.path)

    def read_all(self, file: str, at_most: int) -> Iterator[str]:
        """Yield the text of this file of it and of what is below, of so many cgroups at most."""
        yield self.read(file)
        for step in islice(cgroup_tree.walk(self.path), at_most):
            if not step.up:
                yield cgroup_tree.read(step, file)

    def walk_up(self) -> Iterator['Cgroup']:
        """Yield it and what is above, as far as the mount shows."""
        here: Cgroup | None = self
        while here is not None:
            yield here
            here = here.parent


def flat_keyed(text: str) -> dict[str, int]:
    """Return what a file of `KEY NUMBER` lines says."""
    return {key: int(value) for key, _, value in (line.partition(' ') for line in text.splitlines())}


def unescaped(text: str) -> str:
    """Undo mountinfo's octal escapes of blanks and such."""
    return text.encode('utf-8', 'surrogateescape').decode('unicode_escape') if '\\' in text else text
