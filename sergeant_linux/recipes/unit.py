"""A systemd unit for exactly one pool, as text, and its installation.

Facts: what a pool needs of its unit is known to us and to hardly anybody else: who gets SIGTERM, which cgroup is
delegated, how long a stop may take, which exit statuses heal. What is written in a unit goes through two readers: the
one of the file knows `%` and backslashes, and the one of command lines knows `$` as well (systemd.service(5)). What an
older systemd doesn't know it warns of and leaves out, which is no good where something else was to stand there.
Decision: all that was given to us on the command line stands in the unit's; what depends on systemd's version, goes by
it, and where it is not known by the oldest that is common. What can't be written for sure is refused.
What is locked is what neither a supervisor nor a worker has use for. Not locked are cgroups (ProtectControlGroups=),
namespaces (RestrictNamespaces= takes clone3 away), memory that is executable (ctypes, and whatever compiles at run
time), user namespaces (PrivateUsers=), and devices, so not the clock either before systemd 253, where that meant all
devices (systemd#18142). A user's own manager may make no mount namespaces without a user namespace: nothing there
that takes one.
Price: workers can write to nothing that wasn't named (--writable), but /tmp, which is their own.

Invariant: systemd reads from the unit what we were given, to the letter.
"""

import os
import re
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil, inf
from typing import Final

from sergeant_linux.control.names import FOLDER, LONGEST_NAME, LONGEST_PATH, SUFFIX
from sergeant_linux.core import margins
from sergeant_linux.core.policy import Auto, Policy
from sergeant_linux.core.units import format_span
from sergeant_linux.log import catalog
from sergeant_linux.log.handler import IDENTIFIER

OLDEST: Final = 252
"""The systemd that is assumed where it is not known: Debian 12's."""

NOTIFY_RELOAD: Final = 253
SUBGROUP: Final = 254
CLOCK_WITHOUT_DEVICES: Final = 253

TRIES: Final = 20
"""Starts within `TRIES_SPAN` after which systemd gives up."""
TRIES_SPAN: Final = 3600.0
PAUSE: Final = 5
"""Seconds from a failure to the next start."""
SPARED: Final = -900
"""The OOM killer takes the supervisor and the processes beside it last; a worker goes back to 0 before its first line
of code. Root's supervisor sees to that itself, another uid may not."""

RATE_INTERVAL: Final = '1ms'
RATE_BURST: Final = 10_000
"""Lines in that time, which no journal can take. 0 would mean the limit of journald.conf(5), not none (systemd 240 and
newer); for units of a user's manager the journal knows no limits of their own."""

MODULE: Final = 'sergeant_linux.supervisor'
TEMPLATE: Final = 'sergeant-linux@.service'

SYSTEM_FOLDER: Final = '/etc/systemd/system'
OTHER_FOLDERS: Final = tuple(
    f'{root}/systemd/system' for root in ('/run', '/usr/local/lib', '/usr/lib', '/lib')
)
"""Where a system unit of the same name would be hidden by ours."""

_PATIENCE: Final = 30.0
"""Seconds that a command of systemd's is given."""

_PLAIN: Final = re.compile(r'[A-Za-z0-9_@%+=:,./$-]+')
"""What needs no quotes."""
_FOLDER_NAME: Final = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.:-]*')
_ESCAPES: Final = {'\\': '\\\\', '"': '\\"', '\n': '\\n', '\r': '\\r', '\t': '\\t'}


class Unwritable(ValueError):
    """It can't be written in a unit; the text names what, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a unit is made from. `flags`: the command line of `run`; `python`: the interpreter; `command`: ours, if it
    is to be started by that; `folder`: where it runs; `needed`: what else it must be able to see; `systemd`: the
    version, None where nobody knows; `user` and `group`: of the supervisor."""

    policy: Policy
    flags: Sequence[str]
    python: str
    folder: str
    pythonpath: str = ''
    needed: Sequence[str] = ()
    systemd: int | None = None
    user: str | None = None
    group: str | None = None
    memory_max: int | None = None
    writable: Sequence[str] = ()
    for_user_manager: bool = False
    is_template: bool = False
    command: str | None = None

    @property
    def pool(self) -> str:
        """What the pool is called."""
        return self.policy.name or f'{self.policy.worker_module_name}.{self.policy.worker_class_name}'[:LONGEST_NAME]

    @property
    def name(self) -> str:
        """The file's name."""
        return TEMPLATE if self.is_template else f'{escape(self.pool)}.service'


# Writing.


def escape(name: str) -> str:
    """Return a name as a unit may have it (systemd.unit(5), STRING ESCAPING)."""
    return ''.join(
        char if char.isascii() and (char.isalnum() or char in ':_.-') else
        ''.join(f'\\x{byte:02x}' for byte in os.fsencode(char))
        for char in name
    )


def word(text: str) -> str:
    """Return a word of a list or of the environment, as systemd reads it."""
    if _PLAIN.fullmatch(text):
        return text.replace('%', '%%')
    return f'"{"".join(map(_character, text))}"'.replace('%', '%%')


def _character(char: str) -> str:
    if char in _ESCAPES or char.isprintable():
        return _ESCAPES.get(char, char)
    return ''.join(f'\\x{byte:02x}' for byte in os.fsencode(char))


def argument(text: str) -> str:
    """Return a word of a command line, as systemd reads it."""
    return word(text).replace('$', '$$')


def path(what: str, text: str) -> str:
    """Return a path that stands alone, or in a list. Raises `Unwritable` for one that systemd would read otherwise."""
    if not (text.startswith('/') and text.isprintable()) or text != text.strip() or text.endswith('\\'):
        raise Unwritable(f'{what}: {text!r:.200} can not be written in a unit')
    return text.replace('%', '%%')


def runtime_directory(pool: str, *, for_user_manager: bool = False) -> str | None:
    """Return a folder below /run that is this unit's alone and short enough for the pool's control socket; None where
    the name leaves no room."""
    base = '/run/user/4294967294' if for_user_manager else '/run'
    names = [f'{zlib.crc32(os.fsencode(pool)):08x}']
    if _FOLDER_NAME.fullmatch(pool):
        names.insert(0, pool)
    for name in names:
        if len(os.fsencode(f'{base}/{FOLDER}/{name}/{FOLDER}/{pool}{SUFFIX}')) <= LONGEST_PATH:
            return f'{FOLDER}/{name}'
    return None


def as_text(plan: Plan) -> str:
    """Return the unit. Raises `Unwritable`."""
    return '\n'.join(_lines(plan)) + '\n'


def _lines(plan: Plan) -> Iterator[str]:
    version = plan.systemd if plan.systemd is not None else OLDEST
    yield f'# Made by `sergeant-linux unit` for systemd {version}{"" if plan.systemd else ", as no systemd was found"}.'
    yield '[Unit]'
    workers = f'{plan.policy.worker_module_name}.{plan.policy.worker_class_name}'
    described = 'pool %i' if plan.is_template else f'workers {workers}'.replace('%', '%%')
    yield f'Description=sergeant-linux: {described}'
    if not plan.for_user_manager:
        yield 'Wants=network-online.target'
        yield 'After=network-online.target'
    yield f'# {TRIES} starts that fail one after the other are enough: `systemctl reset-failed` allows more'
    yield f'StartLimitIntervalSec={_long_enough(plan.policy)}'
    yield f'StartLimitBurst={TRIES}'
    yield ''
    yield '[Service]'
    yield from _process(plan, version)
    yield ''
    yield from _life(plan)
    yield ''
    yield from _resources(plan, version)
    yield ''
    yield from _locks(plan, version)
    yield ''
    yield '[Install]'
    yield f'WantedBy={"default" if plan.for_user_manager else "multi-user"}.target'
    if plan.is_template:
        yield from _example(plan)


def _process(plan: Plan, version: int) -> Iterator[str]:
    yield '# active when workers are ready; a reload replaces them one by one, by new code'
    yield f'Type={"notify-reload" if version >= NOTIFY_RELOAD else "notify"}'
    yield 'NotifyAccess=main'
    if '$' in plan.python or not plan.python.isprintable():
        raise Unwritable(f'the interpreter: {plan.python!r:.200} can not be written in a unit')
    start = f'{word(plan.command)} run' if plan.command is not None else f'{word(plan.python)} -m {MODULE}'
    words = [start, *map(argument, plan.flags)]
    yield 'ExecStart=' + ' \\\n    '.join(words)
    if version < NOTIFY_RELOAD:
        yield 'ExecReload=/bin/kill -HUP $MAINPID'
    yield f'WorkingDirectory={path("the working folder", plan.folder)}'
    if plan.pythonpath:
        yield f'Environment={word(f"PYTHONPATH={plan.pythonpath}")}'
    if plan.is_template:
        yield 'Environment=SERGEANT_LINUX_NAME=%i'
        yield f'EnvironmentFile={_environment_file(plan)}'
    yield f'SyslogIdentifier={_identifier(plan)}'
    if not plan.for_user_manager:
        yield '# no limit to the lines in the journal: one worker that prints much would hide the ends of the others'
        yield f'LogRateLimitIntervalSec={RATE_INTERVAL}'
        yield f'LogRateLimitBurst={RATE_BURST}'
    if plan.user is not None:
        yield f'User={plan.user.replace("%", "%%")}'
    elif not plan.for_user_manager:
        yield '# no User=: the supervisor runs as root'
    if plan.group is not None:
        yield f'Group={plan.group.replace("%", "%%")}'
    folder = f'{FOLDER}/%i' if plan.is_template else runtime_directory(
        plan.pool, for_user_manager=plan.for_user_manager
    )
    if folder is not None:
        yield '# the place of the control socket'
        yield f'RuntimeDirectory={folder}'
    else:
        yield '# no RuntimeDirectory=: the name of the pool leaves no room for a control socket, a shorter --name does'


def _life(plan: Plan) -> Iterator[str]:
    policy = plan.policy
    yield '# SIGTERM goes to the supervisor alone, which knows how to stop its workers, and takes --timeout-stop for it'
    yield 'KillMode=mixed'
    yield f'TimeoutStartSec={_above(policy.timeout_start, margins.START)}'
    yield f'TimeoutStopSec={_above(policy.timeout_stop, margins.STOP)}'
    yield 'WatchdogSec=30'
    yield '# wrong usage (2) and a host that can not do what was asked for (4) do not heal by themselves;'
    yield '# what may pass by itself, no room for a process at the start, is 75'
    yield 'Restart=on-failure'
    yield f'RestartSec={PAUSE}'
    yield 'RestartPreventExitStatus=2 4'


def _resources(plan: Plan, version: int) -> Iterator[str]:
    if plan.policy.memory_backend != 'rss':
        yield '# a cgroup of its own for each worker'
        yield 'Delegate=memory pids cpu io'
        if version >= SUBGROUP:
            yield 'DelegateSubgroup=supervisor'
    yield '# a worker that is over its limit ends alone'
    yield 'OOMPolicy=continue'
    if not plan.for_user_manager:
        yield '# the supervisor and the fork server are spared by the OOM killer, workers put this back'
        yield f'OOMScoreAdjust={SPARED}'
    if plan.memory_max is not None:
        yield f'MemoryMax={_size(plan.memory_max)}'


def _locks(plan: Plan, version: int) -> Iterator[str]:
    yield 'NoNewPrivileges=yes'
    if not plan.for_user_manager:
        needed = [plan.python, plan.folder, *plan.needed, *plan.pythonpath.split(':'), *plan.writable]
        writable = list(plan.writable)
        if any(f'{each}/'.startswith(('/tmp/', '/var/tmp/')) for each in needed):
            yield '# no PrivateTmp=: something that the pool needs is there'
            writable += ['/tmp', '/var/tmp']
        else:
            yield 'PrivateTmp=yes'
        yield '# workers can write to what --writable names, to /tmp, and to nothing else'
        yield 'ProtectSystem=strict'
        yield 'ProtectHome=read-only'
        if plan.policy.control_socket.startswith('/'):
            writable.append(os.path.dirname(plan.policy.control_socket))
        for each in dict.fromkeys(writable):
            path('a writable folder', each)
            yield f'ReadWritePaths={word(each)}'
        if version >= CLOCK_WITHOUT_DEVICES:
            yield 'ProtectClock=yes'
        yield from ('ProtectHostname=yes', 'ProtectKernelLogs=yes')
        yield from ('ProtectKernelModules=yes', 'ProtectKernelTunables=yes')
    yield from ('LockPersonality=yes', 'RestrictRealtime=yes', 'RestrictSUIDSGID=yes')


def _example(plan: Plan) -> Iterator[str]:
    yield ''
    file = _environment_file(plan).replace('%E', '~/.config').replace('%i', 'crawl')
    yield f'# {file} for the pool `crawl`; any option can stand there'
    yield '# (a longer SERGEANT_LINUX_TIMEOUT_STOP needs no longer TimeoutStopSec=: the supervisor asks for its time):'
    yield '#     SERGEANT_LINUX_WORKER_MODULE=crawl_worker'
    yield '#     SERGEANT_LINUX_WORKER_CLASS=Worker'
    yield '#     SERGEANT_LINUX_CONCURRENT_WORKERS=4'
    yield '#     SERGEANT_LINUX_MAX_WORKER_MEMORY_USAGE=512M'


def _environment_file(plan: Plan) -> str:
    return '%E/sergeant-linux/%i.env' if plan.for_user_manager else '/etc/sergeant-linux/%i.env'


def _identifier(plan: Plan) -> str:
    """Return what the journal calls what workers print; the supervisor's own entries have the same."""
    if plan.is_template:
        return '%i'
    name = plan.policy.name or IDENTIFIER
    return name.replace('%', '%%') if name == name.strip() and not name.endswith('\\') else IDENTIFIER


def _long_enough(policy: Policy) -> str:
    """Return a time in which so many starts fit, even if each fails at the last moment."""
    start = policy.timeout_start + margins.START + PAUSE
    return _above(max(TRIES_SPAN, TRIES * start), 0.0)


def _above(span: float, margin: float) -> str:
    return 'infinity' if span == inf else format_span(ceil(span + margin)).replace(' ', '')


def _size(size: int) -> str:
    for suffix, unit in (('G', 1024**3), ('M', 1024**2), ('K', 1024)):
        if size % unit == 0:
            return f'{size // unit}{suffix}'
    return str(size)


def memory_for(policy: Policy) -> int | None:
    """Return what all of a pool may take: its workers, the successors that it may have beside them, and a reserve;
    None where there is no number for it: no limit for a worker and none for all of them, or one that is still auto."""
    limit, workers, bounds = policy.max_worker_memory_usage, policy.concurrent_workers, []
    if limit is not None and not isinstance(limit, Auto) and not isinstance(workers, Auto):
        bounds.append((workers + policy.max_surge) * limit)
    if policy.pool_memory_max is not None:
        bounds.append(policy.pool_memory_max)
    return min(bounds) + margins.RESERVE_OF_A_UNIT if bounds else None


# systemd.


def systemd_version() -> int | None:
    """Return the version of this host's systemd, None where there is none."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ['systemctl', '--version'], capture_output=True, text=True, timeout=_PATIENCE, check=False,
        )
        if found := re.match(r'systemd ([0-9]{1,6})\b', done.stdout):
            return int(found[1])
    return None


def install_folder(*, for_user_manager: bool) -> str:
    """Return where a unit belongs."""
    if not for_user_manager:
        return SYSTEM_FOLDER
    config = os.environ.get('XDG_CONFIG_HOME', '')
    return os.path.join(config if config.startswith('/') else os.path.expanduser('~/.config'), 'systemd/user')


def hidden_by(name: str, *, for_user_manager: bool) -> str | None:
    """Return the unit of somebody else's that one of this name would hide."""
    for folder in () if for_user_manager else OTHER_FOLDERS:
        if os.path.lexists(os.path.join(folder, name)):
            return os.path.join(folder, name)
    return None


def install(folder: str, name: str, text: str, *, force: bool) -> str:
    """Write a file, whole or not at all, and return its path. Raises OSError; FileExistsError where there is one
    already, unless `force`."""
    target = os.path.join(folder, name)
    os.makedirs(folder, exist_ok=True)
    new = os.path.join(folder, f'.{os.getpid()}.new')
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(fd, 'w', encoding='utf-8') as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if force:
            os.replace(new, target)
        else:
            os.link(new, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(new)
    return target


def verify(target: str, *, for_user_manager: bool) -> str | None:
    """Return what `systemd-analyze verify` has to say of a unit: nothing where all is well, None where it isn't there
    or can't look."""
    command = ['systemd-analyze', 'verify', '--man=no', *(['--user'] if for_user_manager else []), target]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    if 'Failed to initialize manager' in done.stderr:
        return None
    return done.stderr.strip() if done.returncode else ''


def install_catalog() -> str | None:
    """Write what explains our messages where `journalctl -x` finds it; return why that was not possible, if so."""
    try:
        install(*os.path.split(catalog.FILE), catalog.as_text(), force=True)
        command = ['journalctl', '--update-catalog']
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return done.stderr.strip() or f'journalctl has failed with {done.returncode}' if done.returncode else None
