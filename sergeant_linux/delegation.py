"""Which cgroup is ours to use, and if none is: why, and what would mend it.

Facts: a cgroup has one writer (systemd's rule, CGROUP_DELEGATION): below one that systemd did not delegate, nothing
may be made even by root, who could. systemd marks what it delegates (xattr user.delegate); with DelegateSubgroup= the
process is one below that. In a cgroup namespace of its own the root is what the container has. On a host without a
manager root may use what is below its own cgroup.
Consequence: the home is looked for in this order: what was asked for by name, the nearest delegated cgroup upwards,
the namespace's root, the own cgroup where no manager is. Whether it can be used is then decided by doing: a probe is
made and removed.
Price: a delegation that is marked in no way (OpenRC, runit, old systemd) must be named: --cgroup-root.
"""

import errno
import os
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sergeant_linux.kernel.cgroup import Cgroup, explain, mounts, own, own_path

SYSTEMD_IS_RUNNING: Final = '/run/systemd/system'
"""sd_booted(3): this directory is there when systemd is the manager of this host."""

SUPERVISOR: Final = 'supervisor'
"""The leaf of our own processes, so that their cgroup can have controllers for its children."""


class Title(StrEnum):
    """By what right a home is ours."""

    NAMED = 'named by --cgroup-root'
    DELEGATED = 'delegated by systemd'
    NAMESPACE = "the cgroup namespace's root"
    UNMANAGED = 'the own cgroup of root on a host without a manager'


class NotOurs(Exception):
    """There is no cgroup to use: `reason`, and the `remedy` (an instruction) where there is one."""

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        super().__init__(f'{reason}; {remedy}' if remedy else reason)
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Home:
    """The cgroup below which everything of ours is, and by what right."""

    cgroup: Cgroup
    title: Title


def find_home(named: str | None = None) -> Home:
    """Return the home. Raises `NotOurs`."""
    home = _candidate(named)
    probe(home.cgroup)
    return home


def _candidate(named: str | None) -> Home:
    if named is not None:
        return Home(_named(named), Title.NAMED)
    here = own()
    if here is None:
        raise NotOurs(*_why_not_seen())
    for cgroup in here.walk_up():
        if cgroup.is_delegated():
            return Home(cgroup, Title.DELEGATED)
    top = Cgroup(here.top, here.top)
    if not top.is_hierarchy_root and not os.path.isdir(SYSTEMD_IS_RUNNING):
        return Home(top, Title.NAMESPACE)
    if os.path.isdir(SYSTEMD_IS_RUNNING):
        raise NotOurs(
            f'{here.path} is managed by systemd and not delegated',
            'add Delegate=yes to the unit, or start with: systemd-run '
            f'{"" if os.geteuid() == 0 else "--user "}--scope -p Delegate=yes …',
        )
    if os.geteuid() != 0:
        raise NotOurs(
            f'{here.path} is not delegated to this user',
            'give the user a cgroup of its own and name it: --cgroup-root=PATH',
        )
    parent = here.parent
    if here.name == SUPERVISOR and parent is not None and not parent.is_hierarchy_root:
        here = parent  # a neighbour has moved us there together with its own processes
    return Home(here, Title.UNMANAGED)


def _named(path: str) -> Cgroup:
    path = os.path.realpath(path)
    tops = [mount.point for mount in mounts() if path == mount.point or path.startswith(mount.point.rstrip('/') + '/')]
    if not tops or not os.path.isdir(path):
        raise NotOurs(f'--cgroup-root={path} is no directory of a cgroup v2 mount', 'name one below /sys/fs/cgroup')
    return Cgroup(path, max(tops, key=len))


def _why_not_seen() -> tuple[str, str | None]:
    if own_path() is None:
        return 'this kernel has no cgroup v2', 'boot with systemd.unified_cgroup_hierarchy=1'
    if not mounts():
        return 'cgroup v2 is not mounted here', 'mount -t cgroup2 none /sys/fs/cgroup'
    return (
        'no mount of cgroup v2 shows the own cgroup (a mount of another cgroup namespace?)',
        'start the container with --cgroupns=private',
    )


def probe(cgroup: Cgroup) -> None:
    """Make a cgroup below this one and remove it. Raises `NotOurs`."""
    trial = cgroup.child(f'probe-{secrets.token_hex(4)}')
    try:
        trial.make()
        trial.remove()
    except OSError as error:
        remedy = None
        if error.errno == errno.EROFS:
            remedy = (
                'make it writable (docker: --security-opt writable-cgroups=true; '
                'podman: --security-opt unmask=/sys/fs/cgroup; systemd: no ProtectControlGroups=)'
            )
        elif error.errno in (errno.EPERM, errno.EACCES):
            remedy = 'add Delegate=yes to the unit, or start with: systemd-run --user --scope -p Delegate=yes …'
        raise NotOurs(f'cannot make a cgroup in {cgroup.path} ({explain(error)})', remedy) from None
