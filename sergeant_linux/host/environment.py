"""In what a process runs: a container and whose, a manager of services and which of its units.

Facts: nothing tells for certain that a process is in a container; who makes one leaves a mark (systemd-detect-virt(1)
and its source collect them), and else there is a pid namespace that isn't the first one of this kernel. Unit names
stand in the path of the cgroup (systemd.resource-control(5)). A user's own manager has a cgroup that is marked as
delegated, to it; it can't mark what it delegates itself, so only it can tell (seen in 252, and no later one does).
Consequence: all but that is told to people, and picks the words of an advice; nothing else that a pool does depends on
it.
"""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from sergeant_linux.core.units import parse_span

SYSTEMD_IS_RUNNING: Final = '/run/systemd/system'
"""sd_booted(3): this directory is there when systemd is the manager of this host."""

FIRST_PID_NAMESPACE: Final = 'pid:[4026531836]'
"""PROC_PID_INIT_INO in the kernel's proc_ns.h."""

SYSTEMCTL_PATIENCE: Final = 3.0

_USER_MANAGER: Final = re.compile(r'user@\d+\.service')

_MARKS: Final = {'/run/.containerenv': 'podman', '/.dockerenv': 'docker'}
_NAMES: Final = ('/run/host/container-manager', '/run/systemd/container')
"""What the maker of a container, and the systemd in it, write its name into."""


class NoAnswer(Exception):
    """A manager of services did not tell; the text says why not."""


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


def limit_line(systemd: str, docker: str, ulimit: str, number: int) -> str:
    """Return the line that sets a limit where this process was started from: in a unit, for a container, in a shell."""
    if systemd_is_running():
        return f'{systemd}={number} in the unit'
    if container() is not None:
        return f'--{docker}={number} for the container'
    return f'ulimit {ulimit} {number}'


def unit_name(cgroup: str) -> str | None:
    """Return the unit that a cgroup belongs to, a service or a scope: the innermost in its path."""
    units = [name for name in cgroup.split('/') if name.endswith(('.service', '.scope'))]
    return units[-1] if units else None


def unit(cgroup: str) -> Unit | None:
    """Return what systemd says of the unit of this cgroup; None where there is none, or systemctl doesn't answer."""
    name = unit_name(cgroup)
    if name is None or not systemd_is_running():
        return None
    of_user = any(map(is_user_manager, cgroup.split('/')[:-1]))
    try:
        said = _show(name, ('OOMPolicy', 'KillMode', 'TimeoutStopUSec'), of_user=of_user)
    except NoAnswer:
        said = {}
    timeout = None
    with suppress(ValueError):
        timeout = parse_span(said.get('TimeoutStopUSec', ''))
    return Unit(name, said.get('OOMPolicy') or None, said.get('KillMode') or None, timeout)


def is_user_manager(name: str) -> bool:
    """Whether a cgroup of this name is that of a user's own manager."""
    return _USER_MANAGER.fullmatch(name) is not None


def is_delegated_by_user_manager(cgroup: str) -> bool:
    """Return whether a user's manager says that it has delegated the unit whose cgroup this is. Raises `NoAnswer`."""
    said = _show(os.path.basename(cgroup), ('Delegate', 'ControlGroup'), of_user=True)
    return said.get('Delegate') == 'yes' and cgroup.endswith(said.get('ControlGroup') or '/')


def _show(name: str, wanted: Sequence[str], *, of_user: bool) -> dict[str, str]:
    """Return properties of a unit, as far as its manager tells them. Raises `NoAnswer`."""
    import subprocess  # here: few have use for it

    command = ['systemctl', *['--user'] * of_user, 'show', *(f'--property={each}' for each in wanted), '--', name]
    environ = {'XDG_RUNTIME_DIR': f'/run/user/{os.geteuid()}', **os.environ}
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=SYSTEMCTL_PATIENCE, env=environ)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(str(error)) from None
    if answer.returncode != 0:
        raise NoAnswer(' '.join(answer.stderr.split()) or f'systemctl has ended with status {answer.returncode}')
    return dict(line.partition('=')[::2] for line in answer.stdout.splitlines())


def _first_line(path: str) -> str:
    with suppress(OSError), open(path, encoding='utf-8', errors='replace') as file:
        return file.readline().strip()
    return ''
