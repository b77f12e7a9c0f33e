"""cgroup v1, as far as limits are read from it: a hybrid host has the memory and cpu controllers there, not in v2.

Facts (cgroups(7), "Cgroups version 1"): each controller is a hierarchy of its own. /proc/self/cgroup names the own
cgroup in it, and a mount shows it from some root on; in a container without a cgroup namespace the path is the host's,
and what is mounted is the own cgroup itself. "No limit" is a number that no host has (memory) or -1 (cpu).
Consequence: where the path is not below the mount's root, the mount's top is the own cgroup, or what can be seen of it.

Invariant: nothing is ever written here.
"""

import os
from typing import Final

from sergeant_linux.kernel.cgroup import unescaped

FSTYPE: Final = 'cgroup'


def folders(controller: str) -> list[str]:
    """Return the own cgroup of this controller and those above it, as far as can be seen; none without cgroup v1."""
    path = _own_path(controller)
    mount = _mount(controller)
    if path is None or mount is None:
        return []
    point, root = mount
    below = path.removeprefix(root.rstrip('/')) if (path + '/').startswith(root.rstrip('/') + '/') else ''
    found = [point]
    for name in filter(None, below.split('/')):
        found.append(f'{found[-1]}/{name}')
    return [folder for folder in reversed(found) if os.path.isdir(folder)]


def number(folder: str, file: str) -> int | None:
    """Return the number in a file; None where there is none."""
    try:
        with open(f'{folder}/{file}', encoding='ascii') as source:
            return int(source.read())
    except (OSError, ValueError):
        return None


def _own_path(controller: str) -> str | None:
    try:
        with open('/proc/self/cgroup', encoding='utf-8', errors='surrogateescape') as table:
            for line in table:
                _, controllers, path = line.rstrip('\n').split(':', 2)
                if controller in controllers.split(','):
                    return path
    except OSError:
        pass
    return None


def _mount(controller: str) -> tuple[str, str] | None:
    """Return where the hierarchy of a controller is mounted, and from which root on (proc(5), mountinfo)."""
    try:
        with open('/proc/self/mountinfo', encoding='utf-8', errors='surrogateescape') as table:
            for line in table:
                fields, _, tail = line.partition(' - ')
                fstype, _, options = tail.rstrip('\n').split(' ', 2)
                if fstype == FSTYPE and controller in options.split(','):
                    root, point = fields.split(' ')[3:5]
                    return unescaped(point), unescaped(root)
    except OSError:
        pass
    return None
