"""Which cgroup is ours to use, and if none is: why, and what would mend it.

Facts: a cgroup has one writer (systemd's rule, CGROUP_DELEGATION): below one that systemd did not delegate, nothing
may be made even by root, who could. systemd marks what it delegates (xattr user.delegate); with DelegateSubgroup= the
process is one below that. A user's own manager (user@UID.service) has such a mark on its own cgroup, where it is the
one writer, and can put none on its units. In a cgroup namespace of its own the root is what the container has. On a
host without a manager root may use what is below its own cgroup.
Consequence: the home is looked for in this order: what was asked for by name, the nearest delegated cgroup upwards,
or, where that is a user's manager, the unit that we are in, if the manager says that it is delegated; the namespace's
root; the own cgroup where no manager is. Whether it can be used is then decided by doing: a probe is made and removed.
Price: a delegation that is marked in no way (OpenRC, runit, old systemd) must be named: --cgroup-root.
"""

import errno
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from typing import Final

from sergeant_linux.host import environment
from sergeant_linux.kernel.cgroup import Cgroup, explain, mounts, own, own_path

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
    home = candidate(named)
    probe(home.cgroup)
    return home


def candidate(named: str | None) -> Home:
    """Return what would be the home, if it can be used. Touches nothing. Raises `NotOurs`."""
    if named is not None:
        return Home(_named(named), Title.NAMED)
    here = own()
    if here is None:
        raise NotOurs(*_why_not_seen())
    for cgroup in here.walk_up():
        if cgroup.is_delegated():
            return Home(_unit_of_user(here, cgroup) or cgroup, Title.DELEGATED)
    top = Cgroup(here.top, here.top)
    if not top.is_hierarchy_root and not environment.systemd_is_running():
        return Home(top, Title.NAMESPACE)
    if environment.systemd_is_running():
        raise NotOurs(f'{here.path} is managed by systemd and not delegated', what_delegates())
    if os.geteuid() != 0:
        raise NotOurs(f'{here.path} is not delegated to this user', what_delegates())
    parent = here.parent
    if here.name == SUPERVISOR and parent is not None and not parent.is_hierarchy_root:
        here = parent  # a neighbour has moved us there together with its own processes
    return Home(here, Title.UNMANAGED)


def _unit_of_user(here: Cgroup, delegated: Cgroup) -> Cgroup | None:
    """Return the unit that we are in, where what is delegated is a user's manager; None where it is none. Raises
    `NotOurs` when the unit is not delegated itself."""
    if not environment.is_user_manager(delegated.name):
        return None
    way = list(takewhile(lambda cgroup: cgroup != delegated, here.walk_up()))
    unit = next((cgroup for cgroup in reversed(way) if not cgroup.name.endswith('.slice')), here)
    try:
        is_ours = environment.is_delegated_by_user_manager(unit.path)
    except environment.NoAnswer as error:
        reason = f"{unit.path} is managed by systemd, and the user's manager does not say whether it is delegated"
        raise NotOurs(f'{reason} ({error})', what_delegates()) from None
    if not is_ours:
        raise NotOurs(f'{unit.path} is managed by systemd and not delegated', what_delegates())
    return unit


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
        raise NotOurs(f'cannot make a cgroup in {cgroup.path} ({explain(error)})', what_opens(error)) from None


# What would mend it, here: an advice for systemd helps nobody in a container.


def what_opens(error: OSError) -> str | None:
    """Return what would make a cgroup writable that answers with this error."""
    match error.errno:
        case errno.EROFS:
            as_root = ', and run as root in it' if os.geteuid() != 0 and environment.container() is not None else ''
            return _what_makes_writable() + as_root
        case errno.EPERM | errno.EACCES:
            return what_delegates()
        case _:
            return None


def what_delegates() -> str:
    """Return what would give us a cgroup of our own."""
    if environment.systemd_is_running():
        user = '' if os.geteuid() == 0 else '--user '
        return f'add Delegate=yes to the unit, or start with: systemd-run {user}--scope -p Delegate=yes …'
    if environment.container() is not None:
        return f'{_what_makes_writable()}, and run as root in it'
    if os.geteuid() != 0:
        return 'start as root, or give the user a cgroup of its own and name it: --cgroup-root=PATH'
    return 'name a cgroup that is ours to write: --cgroup-root=PATH'


def _what_makes_writable() -> str:
    ways = {'docker': '--security-opt writable-cgroups=true', 'podman': '--security-opt unmask=/sys/fs/cgroup'}
    kind = environment.container()
    if kind in ways:
        return f'start the container with {ways[kind]}'
    if kind is not None:
        listed = '; '.join(f'{name}: {way}' for name, way in ways.items())
        return f'start the container with cgroups mounted writable ({listed})'
    if environment.systemd_is_running():
        return 'take ProtectControlGroups= out of the unit'
    return 'mount -o remount,rw /sys/fs/cgroup'


def start_inside(home: Cgroup) -> str:
    """Return how to be where processes may be moved from: a user may only move them within what is delegated."""
    if environment.systemd_is_running():
        return 'start it inside of it, by systemd-run --user --scope -p Delegate=yes …'
    return f'start it inside of it: as root, echo PID > {home.path}/cgroup.procs before'


def what_brings(controller: str, cgroup: Cgroup) -> str | None:
    """Return what would bring a controller to a cgroup that lacks it."""
    if controller in controllers_of_v1():
        return 'boot with systemd.unified_cgroup_hierarchy=1; without systemd, mount cgroup v2 and no cgroup v1'
    if _is_off(controller):
        return f'boot with cgroup_enable={controller}, and without cgroup_disable={controller}'
    for above in cgroup.walk_up():
        if above is not cgroup and controller in above.controllers():
            if environment.systemd_is_running():
                return f'Delegate=yes in the unit, or {controller} in its list'
            return f'echo +{controller} > {above.path}/cgroup.subtree_control, and so on down to {cgroup.path}'
    if environment.container() is not None:
        return f'on the host, hand the controller {controller} down to the cgroup of the container'
    return None


def controllers_of_v1() -> list[str]:
    """Return the controllers that are in use by cgroup v1 (cgroups(7), /proc/PID/cgroup)."""
    with open('/proc/self/cgroup', encoding='utf-8', errors='surrogateescape') as table:
        lists = [line.split(':')[1] for line in table]
    return sorted(name for names in lists for name in names.split(',') if name and not name.startswith('name='))


def _is_off(controller: str) -> bool:
    """Whether a controller is turned off on the kernel's command line (the last column of /proc/cgroups)."""
    with suppress(OSError), open('/proc/cgroups', encoding='ascii') as table:
        return any(line.split()[0] == controller and line.split()[-1] == '0' for line in table)
    return False
