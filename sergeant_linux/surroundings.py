"""In what a process runs: a container and whose, a manager of services and which of its units.

Facts: nothing tells for certain that a process is in a container; who makes one leaves a mark (systemd-detect-virt(1)
and its source collect them), and else there is a pid namespace that isn't the first one of this kernel. Unit names
stand in the path of the cgroup (systemd.resource-control(5)).
Consequence: it is told to people, and picks the words of an advice; nothing that a pool does depends on it.
"""

import os
import re
from contextlib import suppress
from typing import Final, NamedTuple

from sergeant_linux.core.units import parse_span

SYSTEMD_IS_RUNNING: Final = '/run/systemd/system'
"""sd_booted(3): this directory is there when systemd is the manager of this host."""

FIRST_PID_NAMESPACE: Final = 'pid:[4026531836]'
"""PROC_PID_INIT_INO in the kernel's proc_ns.h."""

SYSTEMCTL_PATIENCE: Final = 3.0

_MARKS: Final = {'/run/.containerenv': 'podman', '/.dockerenv': 'docker'}
_NAMES: Final = ('/run/host/container-manager', '/run/systemd/container')
"""What the maker of a container, and the systemd in it, write its name into."""


class Unit(NamedTuple):
    """How systemd treats the unit that this process is in; None: it doesn't say."""

    name: str
    oom_policy: str | None
    kill_mode: str | None
    timeout_stop: float | None
    """Seconds."""


def container() -> str | None:
    """Return what kind of container this is, as systemd-detect-virt names them, 'unknown' for one without a mark; None
    outside of containers."""
    for path in _NAMES:
        if name := _first_line(path):
            return name
    for path, name in _MARKS.items():
        if os.path.exists(path):
            return name
    with suppress(OSError):
        if os.readlink('/proc/self/ns/pid') != FIRST_PID_NAMESPACE:
            return 'unknown'
    return None


def is_kubernetes() -> bool:
    """Whether this is a pod: kubelet gives its processes the address of the API server."""
    return 'KUBERNETES_SERVICE_HOST' in os.environ


def systemd_is_running() -> bool:
    """sd_booted(3)."""
    return os.path.isdir(SYSTEMD_IS_RUNNING)


def unit_name(cgroup: str) -> str | None:
    """Return the unit that a cgroup belongs to, a service or a scope: the innermost in its path."""
    units = [name for name in cgroup.split('/') if name.endswith(('.service', '.scope'))]
    return units[-1] if units else None


def unit(cgroup: str) -> Unit | None:
    """Return what systemd says of the unit of this cgroup; None where there is none, or systemctl doesn't answer."""
    name = unit_name(cgroup)
    if name is None or not systemd_is_running():
        return None
    import subprocess  # here: the supervisor itself has no use for it

    of_user = re.search(r'/user@\d+\.service/', cgroup) is not None
    wanted = 'OOMPolicy', 'KillMode', 'TimeoutStopUSec'
    command = ['systemctl', *['--user'] * of_user, 'show', *(f'--property={each}' for each in wanted), '--', name]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=SYSTEMCTL_PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = dict(line.partition('=')[::2] for line in answer.stdout.splitlines())
    timeout = None
    with suppress(ValueError):
        timeout = parse_span(said.get('TimeoutStopUSec', ''))
    return Unit(name, said.get('OOMPolicy') or None, said.get('KillMode') or None, timeout)


def _first_line(path: str) -> str:
    with suppress(OSError), open(path, encoding='utf-8', errors='replace') as file:
        return file.readline().strip()
    return ''
