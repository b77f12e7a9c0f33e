"""How the memory of workers is bounded and what they start is contained here: the strongest that works, or what was
asked for.

Three strengths: the kernel bounds memory and holds together what belongs to a life (cgroup v2 with the memory
controller) · the kernel holds together, memory is polled (cgroup v2 without that controller, as on hybrid hosts) ·
memory is polled and what belongs to a life is searched for (no cgroup that is ours).
Decision: `auto` takes the strongest and says in one line which, and why not a stronger one; what was asked for by
name (the backend `cgroup`, a limit that takes a controller) and isn't to be had ends the start. Never silently
weaker. `rss` leaves cgroups alone altogether. A measure other than RSS is a wish for polling.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Final, Literal

from sergeant_linux.containment.leaves import Leaves, Limits
from sergeant_linux.core.policy import Policy
from sergeant_linux.host import resources
from sergeant_linux.host.delegation import Home, NotOurs, find_home, what_brings

PERIOD: Final = 100_000
"""cpu.max's default period, in microseconds."""

LEAF_KNOBS: Final[dict[str, tuple[str, str, Callable[[float], str]]]] = {
    'worker_pids_max': ('pids', 'pids.max', str),
    'worker_cpu_max': ('cpu', 'cpu.max', lambda cores: f'{max(1000, round(cores * PERIOD))} {PERIOD}'),
    'worker_cpu_weight': ('cpu', 'cpu.weight', str),
    'worker_io_weight': ('io', 'io.weight', lambda weight: f'default {weight}'),
}
"""The knobs that are one file of a leaf each: the controller they take, the file, and the value as it is written."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run does here, decided once.

    why_not: the reason for not doing better, None when there is nothing better. watch: who looks at the memory of
    workers: the counters of their leaves, their RSS, or the meter. limits: what leaves are given, None without any.
    memory `off`: the kernel was to bound it, and somebody has switched the controller off.
    """

    memory: Literal['cgroup', 'rss', 'off']
    containment: Literal['cgroup', 'search']
    watch: Literal['cgroup', 'rss', 'meter']
    home: Home | None
    limits: Limits | None
    why_not: str | None

    def __str__(self) -> str:
        limit = 'by the kernel' if self.memory == 'cgroup' else 'by polling'
        place = f' in {self.home.cgroup.path} ({self.home.title})' if self.home is not None else ''
        held = f'by cgroup v2{place}' if self.containment == 'cgroup' else 'by searching /proc'
        reason = f'; nothing stronger because {self.why_not}' if self.why_not else ''
        return f'memory is bounded {limit}, what workers start is contained {held}{reason}'


def choose(policy: Policy) -> Choice:
    """Return what can be done here for this policy. Raises `NotOurs` when it asks for what isn't to be had."""
    limits = limits_of(policy)
    polled = policy.memory_measure != 'rss'
    if policy.memory_backend == 'rss':
        if limits.needed:
            raise NotOurs(f'--memory-backend=rss uses no cgroups, and {_asked(policy)} takes one')
        return _choice(policy, 'rss', None, None)
    if polled and policy.memory_backend == 'cgroup':
        raise NotOurs('--memory-backend=cgroup counts what the kernel counts, not --memory-measure')
    try:
        home = find_home(policy.cgroup_root)
        missing = limits.needed - home.cgroup.controllers()
        if missing:
            raise NotOurs(
                f'{_asked(policy)} takes the controller {", ".join(sorted(missing))}, '
                f'which is not available in {home.cgroup.path}',
                what_brings(min(missing), home.cgroup),
            )
    except NotOurs as error:
        return without_cgroups(policy, error)
    if polled:
        return _choice(policy, 'rss', home, None)
    if 'memory' in home.cgroup.controllers():
        return _choice(policy, 'cgroup', home, None)
    return _choice(policy, 'rss', home, f'the memory controller is not available in {home.cgroup.path}')


def without_cgroups(policy: Policy, why: NotOurs) -> Choice:
    """Return what is done when the home turned out not to be usable. Raises it when the policy asks for what takes
    one."""
    if policy.memory_backend == 'cgroup' or policy.cgroup_root is not None or limits_of(policy).needed:
        raise why
    return _choice(policy, 'rss', None, str(why))


def _choice(policy: Policy, memory: Literal['cgroup', 'rss'], home: Home | None, why_not: str | None) -> Choice:
    polled: Literal['rss', 'meter'] = 'rss' if policy.memory_measure == 'rss' else 'meter'
    return Choice(
        memory=memory,
        containment='cgroup' if home is not None else 'search',
        watch='cgroup' if memory == 'cgroup' else polled,
        home=home,
        limits=limits_of(policy, home) if home is not None else None,
        why_not=why_not,
    )


def in_force(choice: Choice, leaves: Leaves | None) -> Choice:
    """Return what of a choice holds now: others can write cgroups, too."""
    off = leaves.switched_off() if leaves is not None else frozenset()
    if leaves is None or not off:
        return choice
    names = ', '.join(sorted(off))
    why_not = f'{names} was switched off in {leaves.pool.path}; before the next worker it is switched on again'
    is_off = choice.memory == 'cgroup' and 'memory' in off
    return replace(choice, memory='off' if is_off else choice.memory, why_not=why_not)


def limits_of(policy: Policy, home: Home | None = None) -> Limits:
    """Return what is to be written into each leaf, and into the pool's folder in this home."""
    required: dict[str, str] = {}
    optional: dict[str, str] = {}
    pool: dict[str, str] = {}
    needed = set()
    has_memory = home is not None and 'memory' in home.cgroup.controllers()
    if has_memory and policy.memory_measure == 'rss':
        optional['memory.oom.group'] = '1'
        if policy.max_worker_memory_usage is not None:
            required['memory.max'] = str(policy.max_worker_memory_usage)
            optional['memory.swap.max'] = _or_max(policy.worker_swap_max)
    if policy.memory_backend == 'cgroup':
        needed.add('memory')
    if policy.pool_memory_max is not None:
        needed.add('memory')
        pool['memory.max'] = str(policy.pool_memory_max)
    if home is not None and has_memory:
        pool['memory.high'] = _or_max(resources.high_for_workers(policy, list(home.cgroup.walk_up())))
    for name, (controller, file, as_text) in LEAF_KNOBS.items():
        value = getattr(policy, name)
        if value is not None:
            needed.add(controller)
            required[file] = as_text(value)
    return Limits(required, optional, frozenset(needed), pool)


def _or_max(value: int | None) -> str:
    return 'max' if value is None else str(value)


def _asked(policy: Policy) -> str:
    """Return the flags that take a controller, as they were written."""
    asked = ['--memory-backend=cgroup'] if policy.memory_backend == 'cgroup' else []
    names = ('pool_memory_max', *LEAF_KNOBS)
    asked += [
        each.metadata['knob'].flag
        for each in fields(policy)
        if each.name in names and getattr(policy, each.name) is not None
    ]
    return ', '.join(asked)
