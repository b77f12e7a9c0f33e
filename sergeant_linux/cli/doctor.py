"""`sergeant-linux doctor`: can a pool run here as asked, and what would mend it?

Facts: the same host gives a shell, a unit and a container different things, and what it gives is known for certain only
by doing. A run decides by `backend.choose` and `credentials.prepare`.
Consequence: the doctor asks the same two, in the place where it was started, with the options of the run; the rest it
tries on children and a cgroup of its own, or reads. One line a check: what was found, and the line that would mend it.
Decision: `fail` is what would keep a run from doing as asked, `warn` what it would do without or suffer from, and the
exit status depends on `fail` alone.
Price: it speaks for the place it was started in. That controllers can be enabled it can't try without changing what is
there, nor does it look at the worker's code.

Invariant: it leaves nothing behind, and changes nothing but a probe's cgroup.
"""

import errno
import json
import os
import platform
import re
import resource
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, TypeVar

from sergeant_linux.containment import choice as backend
from sergeant_linux.core.exit import HOST_CANT
from sergeant_linux.core.policy import VARIABLE_PREFIX, Policy
from sergeant_linux.core.units import format_size, format_span
from sergeant_linux.engine.borrowed import open_missing_stdio
from sergeant_linux.host import CantRun, credentials, descriptors, environment, resources, trial
from sergeant_linux.host.delegation import Home, NotOurs, controllers_of_v1, find_home, start_inside, what_brings
from sergeant_linux.kernel import prctl, procfs, spawn
from sergeant_linux.kernel.cgroup import Cgroup, explain, mounts, own

ALL_OF_IT: Final = (5, 14)
"""The first Linux that has all that is made use of: cgroup.kill came last."""

PROCESSES: Final = 6
"""How many there are beside the workers at most: supervisor, undertaker, fork server, meter, an intermediate, a
successor."""

HELPER_PATIENCE: Final = 10.0
"""Seconds a fresh interpreter may take to come and go."""


class Verdict(StrEnum):
    """What a check has come to."""

    OK = 'ok'
    """It works."""
    INFO = 'info'
    """A fact, neither good nor bad."""
    WARN = 'warn'
    """A run does without it, or may suffer from it."""
    FAIL = 'fail'
    """A run would not do as asked."""


class Finding(NamedTuple):
    """What a check has found; `remedy`: what would mend it, as exact as can be."""

    verdict: Verdict
    detail: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """A finding and what it is about."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str | None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks, in the order in which they are shown, and what a run would do (None: it would end with status 4)."""

    checks: tuple[Check, ...]
    choice: backend.Choice | None

    @property
    def works(self) -> bool:
        """Whether a run would do as asked."""
        return not any(check.verdict is Verdict.FAIL for check in self.checks)


@dataclass(frozen=True, slots=True)
class Place:
    """What the checks look at: what is asked for, and where we are."""

    policy: Policy
    environ: Mapping[str, str]
    here: Cgroup | None
    """The own cgroup, None when it can't be seen."""
    home: Home | NotOurs
    choice: backend.Choice | NotOurs
    pidfd: OSError | None
    """What went wrong when a pidfd was tried."""
    kinship: trial.Kinship | OSError
    not_enough: str | None = None
    """Why a limit that is asked for as `auto` can't be; the policy has none then."""

    @property
    def limiting(self) -> list[Cgroup]:
        """The cgroups whose limits hold for workers, from the lowest up, as far as can be seen."""
        lowest = self.home.cgroup if isinstance(self.home, Home) else self.here
        return list(lowest.walk_up()) if lowest is not None else []

    @property
    def workers(self) -> str:
        return f'{self.policy.concurrent_workers} worker{"s" if self.policy.concurrent_workers > 1 else ""}'


def run(policy: Policy, *, as_json: bool) -> NoReturn:
    """Examine this place for this policy, say it on stdout, and leave: 0 when a run would do as asked, else 4."""
    open_missing_stdio()
    diagnosis = examine(policy, os.environ)
    if sys.stdout is not None:  # it is when the descriptor was closed
        is_terminal = sys.stdout.isatty()
        text = as_data(diagnosis) if as_json else as_screen(
            diagnosis,
            width=shutil.get_terminal_size().columns if is_terminal else None,
            in_colour=is_terminal and not os.environ.get('NO_COLOR'),
        )
        try:
            sys.stdout.buffer.write(text.encode(sys.stdout.encoding, 'backslashreplace'))
            sys.stdout.flush()
        except BrokenPipeError:  # `sergeant-linux doctor | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0 if diagnosis.works else HOST_CANT)


def examine(policy: Policy, environ: Mapping[str, str]) -> Diagnosis:
    """Make all checks. Raises nothing that a broken host could cause: that is a finding."""
    if not os.path.exists('/proc/self/stat'):
        return Diagnosis((Check('proc', Verdict.FAIL, 'is not mounted', 'mount -t proc proc /proc'),), None)
    policy, not_enough = _resolved(policy)
    place = Place(
        policy=policy,
        environ={key: value for key, value in environ.items() if not key.startswith(VARIABLE_PREFIX)},
        here=own(),
        home=_or_why_not(lambda: find_home(policy.cgroup_root)),
        choice=_or_why_not(lambda: backend.choose(policy)),
        pidfd=_or_error(trial.try_pidfd),
        kinship=_or_error(trial.try_kinship),
        not_enough=not_enough,
    )
    checks = []
    for name, look in CHECKS.items():
        try:
            found = look(place)
        except OSError as error:
            found = Finding(Verdict.WARN, f'cannot be looked at: {error}')
        verdict = found.verdict
        if name in OF_CGROUPS and policy.memory_backend == 'rss' and verdict is not Verdict.OK:
            verdict = Verdict.INFO  # such a run has nothing to do with cgroups
        checks.append(Check(name, verdict, found.detail, found.remedy))
    return Diagnosis(tuple(checks), place.choice if isinstance(place.choice, backend.Choice) else None)


def _resolved(policy: Policy) -> tuple[Policy, str | None]:
    """Return the policy as a run would have it, and why it can't have a limit that it leaves to be found out."""
    cgroups = resources.limiting(policy)
    try:
        return resources.resolve(policy, cgroups).policy, None
    except resources.NotEnough as error:
        without = replace(policy, max_worker_memory_usage=None)
        return resources.resolve(without, cgroups).policy, str(error)


T = TypeVar('T')


def _or_why_not(ask: Callable[[], T]) -> T | NotOurs:
    try:
        return ask()
    except NotOurs as why:
        return why
    except OSError as error:
        return NotOurs(str(error))


def _or_error(attempt: Callable[[], T]) -> T | OSError:
    try:
        return attempt()
    except OSError as error:
        return error


# What the kernel does for us.


def _kernel(place: Place) -> Finding:
    release = os.uname().release
    detail = f'Linux {release}, prctl(2) through {prctl.IMPLEMENTATION}'
    number = re.match(r'(\d+)\.(\d+)', release)
    if number and (int(number[1]), int(number[2])) < ALL_OF_IT:
        return Finding(Verdict.WARN, f'{detail}; cgroup.kill came with 5.14', 'boot Linux 5.14 or newer')
    return Finding(Verdict.OK, detail)


def _python(place: Place) -> Finding:
    detail = f'{platform.python_version()}, {sys.executable}'
    if place.pidfd is not None:
        return Finding(Verdict.INFO, f'{detail}; without pidfds it is not tried whether it can be started anew')
    try:
        with spawn.launch(trial.__name__, [], [], place.environ) as process:
            if not process.exited(HELPER_PATIENCE):
                process.signal(signal.SIGKILL)
                process.exited(HELPER_PATIENCE)
            ended = process.reap()
    except OSError as error:
        closed = [folder for folder in _folders_above(sys.executable) if not os.access(folder, os.X_OK)]
        remedy = f'chmod a+x {closed[0]}' if closed else None
        return Finding(Verdict.FAIL, f'{detail}: cannot be started anew: {error.strerror}', remedy)
    if ended is None or ended.return_code != 0:
        return Finding(Verdict.FAIL, f'{detail}: started anew it does not work (see its words on stderr)')
    return Finding(Verdict.OK, f'{detail}; it can be started anew')


def _folders_above(path: str) -> list[str]:
    """Return the folders that lead to a file, links followed, from the root on."""
    return [str(folder) for folder in reversed(Path(os.path.realpath(path)).parents)]


def _pidfd(place: Place) -> Finding:
    if place.pidfd is not None:
        return Finding(Verdict.FAIL, str(place.pidfd.strerror), _unfiltered('pidfd_open(2)', '5.4'))
    return Finding(Verdict.OK, 'a child was held, ended and reaped by its pidfd')


def _subreaper(place: Place) -> Finding:
    if isinstance(place.kinship, OSError):
        return Finding(Verdict.FAIL, f'cannot be tried: {place.kinship.strerror}')
    if not place.kinship.adopted:
        remedy = _unfiltered('PR_SET_CHILD_SUBREAPER', '3.4')
        return Finding(Verdict.FAIL, 'an orphaned child of a child did not fall to us', remedy)
    return Finding(Verdict.OK, 'an orphaned child of a child fell to us')


def _pdeathsig(place: Place) -> Finding:
    if isinstance(place.kinship, OSError):
        return Finding(Verdict.FAIL, f'cannot be tried: {place.kinship.strerror}')
    if not place.kinship.killed:
        return Finding(Verdict.FAIL, 'a child outlived its parent', _unfiltered('PR_SET_PDEATHSIG', '2.1.57'))
    return Finding(Verdict.OK, 'a child was killed at the death of its parent')


def _unfiltered(call: str, since: str) -> str:
    if environment.container() is None:
        return f'boot Linux {since} or newer, or leave the sandbox that filters {call}'
    return f'a container runtime newer than November 2020, whose seccomp profile allows {call}'


def _pressure(place: Place) -> Finding:
    try:
        with open('/proc/pressure/memory', encoding='ascii') as file:
            file.read()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
            return Finding(Verdict.INFO, 'not available; no run depends on it', 'boot with psi=1')
        raise
    return Finding(Verdict.OK, 'the kernel tells the pressure on memory, cpu and io (/proc/pressure)')


# Cgroups.


def _hierarchy(place: Place) -> Finding:
    if place.here is None:
        try:
            find_home()
        except NotOurs as why:
            return Finding(Verdict.WARN, why.reason, why.remedy)
    facts = [f'mounted at {place.here.top}' if place.here is not None else 'mounted']
    if place.here is not None and any(mount.point == place.here.top and mount.read_only for mount in mounts()):
        facts.append('read-only')
    if 'memory' in controllers_of_v1():
        facts.append('beside cgroup v1, which has the memory controller')
    return Finding(Verdict.OK, ', '.join(facts))


def _own_cgroup(place: Place) -> Finding:
    if place.here is None:
        return Finding(Verdict.WARN, 'not to be seen')
    detail = place.here.path
    if place.here.is_hierarchy_root:
        detail += ', the root of the hierarchy'
    elif place.here.path == place.here.top:
        detail += ", the cgroup namespace's root"
    return Finding(Verdict.OK, detail)


def _delegation(place: Place) -> Finding:
    if isinstance(place.home, NotOurs):
        return Finding(Verdict.WARN, place.home.reason, place.home.remedy)
    return Finding(Verdict.OK, f'{place.home.cgroup.path} is ours to use: {place.home.title}')


def _controllers(place: Place) -> Finding:
    cgroup = place.home.cgroup if isinstance(place.home, Home) else place.here
    if cgroup is None:
        return Finding(Verdict.INFO, 'not to be seen')
    if cgroup.has('cgroup.type') and (kind := cgroup.read('cgroup.type')) != 'domain':
        return Finding(
            Verdict.FAIL if place.policy.memory_backend == 'cgroup' else Verdict.WARN,
            f'{cgroup.path} is {kind}: cpu or pids was enabled over its processes, and now it can have no memory',
            'start the unit or the container anew',
        )
    available = cgroup.controllers()
    listed = ', '.join(sorted(available)) or 'none'
    missing = sorted({'memory', *backend.limits_of(place.policy).needed} - available)
    if not missing:
        return Finding(Verdict.OK, listed)
    return Finding(Verdict.WARN, f'{listed}; not {", ".join(missing)}', what_brings(missing[0], cgroup))


def _tree_kill(place: Place) -> Finding:
    if isinstance(place.home, NotOurs):
        return Finding(Verdict.INFO, 'not tried: there is no cgroup to try it in')
    try:
        trial.try_leaf(place.home.cgroup, f'probe-{os.getpid()}-{os.urandom(4).hex()}')
    except OSError as error:
        detail = f'{error.strerror} in {place.home.cgroup.path} ({explain(error)})'
        if error.errno == errno.ENOENT and trial.KILL in str(error):
            return Finding(Verdict.WARN, detail, 'boot Linux 5.14 or newer')
        return Finding(Verdict.FAIL, detail, start_inside(place.home.cgroup) if error.errno == errno.EACCES else None)
    return Finding(Verdict.OK, 'a child in a cgroup of its own was ended by it')


def _oom_group(place: Place) -> Finding:
    concern = resources.grouped_kill(place.limiting)
    if concern is not None:
        return Finding(Verdict.WARN, concern.detail, concern.remedy)
    return Finding(Verdict.OK, '0 from the own cgroup up: an OOM kill ends no more than it must')


# Room.


def _auto(place: Place) -> Finding:
    if place.not_enough is not None:
        return Finding(Verdict.FAIL, place.not_enough)
    number = resources.processors(place.limiting)
    told = f'--concurrent-workers=auto is {number.amount} ({number.whose})'
    try:
        share = resources.memory_share(place.policy, place.limiting)
    except resources.NotEnough as error:
        return Finding(Verdict.INFO, f'{told}; {error}')
    return Finding(Verdict.INFO, f'{told}; --max-worker-memory-usage=auto is {share}')


def _memory(place: Place) -> Finding:
    concern = resources.too_much(place.policy, place.limiting) or resources.slowed(place.policy, place.limiting)
    if concern is not None:
        return Finding(Verdict.WARN, concern.detail, concern.remedy)
    room, whose = resources.room_for(place.policy, place.limiting)
    limit, number = place.policy.max_worker_memory_usage, place.policy.concurrent_workers
    if limit is None:
        return Finding(Verdict.INFO, f'workers have no limit of their own, all together {format_size(room)} ({whose})')
    sum_of_limits = f'{number} × {format_size(limit)} = {format_size(number * limit)}'
    return Finding(Verdict.OK, f'{sum_of_limits}, within {format_size(room)} ({whose})')


def _descriptors(place: Place) -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # a supervisor raises its own to that
    if hard == resource.RLIM_INFINITY:
        return Finding(Verdict.OK, 'no limit')
    before = descriptors.open_now()
    needed, missing = descriptors.needed(place.policy, before), descriptors.too_few(place.policy, before, hard)
    if missing is not None:
        return Finding(Verdict.FAIL, missing, descriptors.remedy(needed))
    return Finding(Verdict.OK, f'{place.workers} may take {needed}, the limit is {hard}')


def _processes(place: Place) -> Finding:
    needed = PROCESSES + place.policy.concurrent_workers
    room, whose = min(_process_ceilings(place), default=(None, ''))
    if room is None:
        return Finding(Verdict.OK, 'no limit')
    detail = f'{place.workers} make {needed} in all, {room} {"is" if room == 1 else "are"} left ({whose})'
    if needed > room:
        return Finding(Verdict.FAIL, detail, environment.limit_line('TasksMax', 'pids-limit', '-u', needed))
    return Finding(Verdict.OK, detail)


def _process_ceilings(place: Place) -> Iterator[tuple[int, str]]:
    """Yield how many processes can still be made: number, and what bounds it."""
    for cgroup in place.limiting:
        if (limit := cgroup.number('pids.max')) is not None:
            yield max(0, limit - (cgroup.number('pids.current') or 0)), f'pids.max of {cgroup.path}'
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:  # root is not bounded by it, see setrlimit(2)
        yield soft, 'RLIMIT_NPROC, for all that this user runs'


# Who and where.


def _conditions(place: Place) -> Finding:
    try:
        credentials.prepare(place.policy, None, place.environ)
    except CantRun as error:
        return Finding(Verdict.FAIL, str(error))
    asked = [f'{kind} {name}' for kind in ('user', 'group') if (name := getattr(place.policy, kind)) is not None]
    if asked:
        return Finding(Verdict.OK, f'a child ran as {" and ".join(asked)}, and could be ended')
    return Finding(Verdict.OK, f'run as the supervisor does, as uid {os.geteuid()}')


def _pid_1(place: Place) -> Finding:
    if os.getpid() == 1:
        return Finding(Verdict.INFO, 'yes: every orphan here falls to this process')
    first = procfs.read_stat(1)
    return Finding(Verdict.INFO, f'no, that is {first.comm}' if first is not None else 'no')


def _container(place: Place) -> Finding:
    kind = environment.container()
    pod = ', in a pod of Kubernetes' if environment.is_kubernetes() else ''
    return Finding(Verdict.INFO, f'yes: {kind}{pod}' if kind is not None else f'none{pod}')


def _systemd(place: Place) -> Finding:
    if not environment.systemd_is_running():
        return Finding(Verdict.INFO, 'is not the manager here')
    unit = environment.unit(place.here.path) if place.here is not None else None
    if unit is None:
        return Finding(Verdict.INFO, 'is the manager here; nothing is known of a unit around this process')
    complaints, lines = [], []
    if unit.oom_policy in ('stop', 'kill'):
        complaints.append(f'OOMPolicy={unit.oom_policy}: the OOM kill of one worker ends the unit')
        lines.append('OOMPolicy=continue')
    if unit.kill_mode == 'control-group':
        complaints.append('KillMode=control-group: workers get SIGTERM beside the supervisor, not from it')
        lines.append('KillMode=mixed')
    if unit.timeout_stop is not None and unit.timeout_stop <= place.policy.timeout_stop:
        stop = format_span(place.policy.timeout_stop)
        complaints.append(f'TimeoutStopSec={format_span(unit.timeout_stop)} is not longer than --timeout-stop={stop}')
        lines.append(f'TimeoutStopSec={format_span(place.policy.timeout_stop + 2)}')
    if complaints:
        return Finding(Verdict.WARN, f'{unit.name}: {"; ".join(complaints)}', f'in the unit: {", ".join(lines)}')
    return Finding(Verdict.OK, f'{unit.name} lets a pool stop, and a worker die, in peace')


def _backend(place: Place) -> Finding:
    if isinstance(place.choice, NotOurs):
        return Finding(Verdict.FAIL, place.choice.reason, place.choice.remedy)
    return Finding(Verdict.OK, str(replace(place.choice, why_not=None)))  # the reason is told by the lines above


CHECKS: Final[Mapping[str, Callable[[Place], Finding]]] = {
    'kernel': _kernel,
    'Python': _python,
    'pidfd': _pidfd,
    'subreaper': _subreaper,
    'PDEATHSIG': _pdeathsig,
    'cgroup v2': _hierarchy,
    'own cgroup': _own_cgroup,
    'delegation': _delegation,
    'controllers': _controllers,
    'cgroup.kill': _tree_kill,
    'oom.group': _oom_group,
    'PSI': _pressure,
    'auto': _auto,
    'memory': _memory,
    'descriptors': _descriptors,
    'processes': _processes,
    'workers': _conditions,
    'PID 1': _pid_1,
    'container': _container,
    'systemd': _systemd,
    'backend': _backend,
}
"""Every check by its name, in the order in which they are shown."""

OF_CGROUPS: Final = frozenset({'cgroup v2', 'own cgroup', 'delegation', 'controllers', 'cgroup.kill'})


# How it is said.

_COLOURS: Final = {Verdict.OK: '32', Verdict.INFO: '2', Verdict.WARN: '33', Verdict.FAIL: '1;31'}
_MARGIN: Final = ' ' * 21


def as_screen(diagnosis: Diagnosis, *, width: int | None, in_colour: bool) -> str:
    """Return the diagnosis for people. width: columns to fit details in, None for one line each. Remedies are never
    broken: they are there to be copied."""
    lines = []
    for check in diagnosis.checks:
        word = f'{check.verdict:<4}'
        if in_colour:
            word = f'\033[{_COLOURS[check.verdict]}m{word}\033[0m'
        detail = _fitted(check.detail, width)
        lines.append(f'  {word}  {check.name:<11}  {detail}')
        if check.remedy is not None:
            lines.append(f'{_MARGIN}→ {check.remedy}')
    return '\n'.join([*lines, '', _summary(diagnosis), ''])


def _fitted(text: str, width: int | None) -> str:
    if width is None:
        return text
    room = max(width - len(_MARGIN), 20)
    return f'\n{_MARGIN}'.join(textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False))


def _summary(diagnosis: Diagnosis) -> str:
    if not diagnosis.works:
        names = ', '.join(check.name for check in diagnosis.checks if check.verdict is Verdict.FAIL)
        return f'A run would not do as asked here: {names}.'
    warnings = sum(check.verdict is Verdict.WARN for check in diagnosis.checks)
    with_warnings = {0: '', 1: ', with one warning'}.get(warnings, f', with {warnings} warnings')
    return f'A run would do as asked here{with_warnings}.'


def as_data(diagnosis: Diagnosis) -> str:
    """Return the diagnosis for programs, as one JSON object; its keys are described in the README."""
    choice = diagnosis.choice
    data = {
        'works': diagnosis.works,
        'memory': choice.memory if choice is not None else None,
        'containment': choice.containment if choice is not None else None,
        'checks': [asdict(check) for check in diagnosis.checks],
    }
    return json.dumps(data, indent=2) + '\n'
