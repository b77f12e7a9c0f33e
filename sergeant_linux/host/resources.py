"""What this place gives a pool, processors and memory, and what a pool is told of it: `auto`, and warnings.

Facts: a container or a unit sees all processors and all memory of the host in the places where programs look for them;
what it may use is told by its cgroup and those above it (cpu.max, memory.max; on hybrid hosts cgroup v1's files) and by
sched_getaffinity(2). Limits above the own cgroup hold as well, where they can be seen. A quota of half a processor
still runs one worker.
Decision: `--concurrent-workers=auto` is the least of affinity and quotas, rounded up, and at least 1.
`--max-worker-memory-usage=auto` is

    (memory - reserve) / workers, rounded down to a page;  reserve = max(64 MiB, memory / 20)

where memory is the least of the limits and the memory of the host, and the reserve is for the supervisor, the fork
server and the undertaker; --pool-memory-max, which these are not in, bounds what is divided. Less than 16 MiB a worker
is refused: an interpreter has that much before it does anything.
Both are worked out once, at the start; a pool that is scaled keeps the limit it has. While a worker is replaced its
successor is there beside it (--max-surge): the two are trusted not to be at their limits both.
Price: other processes in the same container are not known, and what they take isn't subtracted.

The doctor says the same from the same functions.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from sergeant_linux.core.margins import LEAST_RESERVE, RESERVE_SHARE
from sergeant_linux.core.policy import Auto, BadValue, Policy
from sergeant_linux.core.units import format_size
from sergeant_linux.host import credentials, environment
from sergeant_linux.host.delegation import NotOurs, candidate
from sergeant_linux.host.journal_limit import limited_unit
from sergeant_linux.kernel import cgroup_v1, module_path
from sergeant_linux.kernel.cgroup import UNLIMITED, Cgroup, own

MIB: Final = 1024**2

LEAST_SHARE: Final = 16 * MIB


class NotEnough(Exception):
    """`auto` has no value here; the text says why."""


class Bound(NamedTuple):
    """How much there is of something, and what it is that says so."""

    amount: int
    whose: str


class Concern(NamedTuple):
    """What a pool may suffer from here, and what would mend it."""

    event: str
    detail: str
    remedy: str | None

    def __str__(self) -> str:
        return f'{self.detail}; {self.remedy}' if self.remedy else self.detail


@dataclass(frozen=True, slots=True)
class Share:
    """A worker's memory where it is `auto`, and the figures that it comes from."""

    limit: int
    room: Bound
    reserve: int
    workers: int

    def __str__(self) -> str:
        size = format_size
        taken = f' - {size(self.reserve)}' if self.reserve else ''
        return f'{size(self.limit)} = ({size(self.room.amount)}{taken}) / {self.workers} ({self.room.whose})'


@dataclass(frozen=True, slots=True)
class Resolved:
    """A policy in which nothing is `auto` any more; `told`: what was, in one line, None for nothing."""

    policy: Policy
    told: str | None


def limiting(policy: Policy) -> list[Cgroup]:
    """Return the cgroups whose limits hold for workers, from the lowest up, as far as can be seen. Touches none."""
    lowest: Cgroup | None = None
    with suppress(NotOurs, OSError):
        lowest = candidate(policy.cgroup_root).cgroup
    if lowest is None:
        with suppress(OSError):
            lowest = own()
    return list(lowest.walk_up()) if lowest is not None else []


def resolve(policy: Policy, cgroups: Sequence[Cgroup]) -> Resolved:
    """Return the policy with figures in the place of each `auto`. Raises `NotEnough`."""
    told = []
    if isinstance(policy.concurrent_workers, Auto):
        number = processors(cgroups)
        policy = replace(policy, concurrent_workers=number.amount)
        told.append(f'--concurrent-workers=auto is {number.amount} ({number.whose})')
    if isinstance(policy.max_worker_memory_usage, Auto):
        share = memory_share(policy, cgroups)
        try:
            policy = replace(policy, max_worker_memory_usage=share.limit)
        except BadValue as error:
            raise NotEnough(f'--max-worker-memory-usage=auto is {share}, and {error}') from None
        told.append(f'--max-worker-memory-usage=auto is {share}')
    return Resolved(policy, ', '.join(told) or None)


# Processors.


def processors(cgroups: Sequence[Cgroup]) -> Bound:
    """Return how many processors can be used here, at least 1."""
    bounds = [Bound(len(os.sched_getaffinity(0)), 'sched_getaffinity'), *_quotas(cgroups)]
    least = min(bounds, key=lambda bound: bound.amount)
    return least._replace(amount=max(1, least.amount))


def _quotas(cgroups: Sequence[Cgroup]) -> Iterator[Bound]:
    for cgroup in cgroups:
        with suppress(OSError, ValueError):
            quota, period = cgroup.read('cpu.max').split()
            if quota != UNLIMITED:
                yield Bound(math.ceil(int(quota) / int(period)), f'cpu.max of {cgroup.path}: {quota} {period}')
    for folder in cgroup_v1.folders('cpu'):
        microseconds = cgroup_v1.number(folder, 'cpu.cfs_quota_us')
        of = cgroup_v1.number(folder, 'cpu.cfs_period_us')
        if microseconds is not None and of and microseconds > 0:
            yield Bound(math.ceil(microseconds / of), f'cpu.cfs_quota_us of {folder}: {microseconds} of {of}')


# Memory.


def memory_share(policy: Policy, cgroups: Sequence[Cgroup]) -> Share:
    """Return what `auto` is for a worker of this policy, whose number of workers is known. Raises `NotEnough`."""
    number = policy.concurrent_workers
    room = min([*ceilings(cgroups), *throttles(cgroups)])
    reserve = reserve_of(room.amount)
    if policy.pool_memory_max is not None and policy.pool_memory_max < room.amount - reserve:
        room, reserve = Bound(policy.pool_memory_max, '--pool-memory-max'), 0
    page = os.sysconf('SC_PAGE_SIZE')
    share = Share(max(0, room.amount - reserve) // number // page * page, room, reserve, number)
    if share.limit < LEAST_SHARE:
        more = f'at least {format_size(LEAST_SHARE * number + LEAST_RESERVE)}'
        fewer = ' or fewer workers' if number > 1 else ''
        raise NotEnough(
            f'--max-worker-memory-usage=auto is too little for a worker: {share}; give it {more}{fewer}, '
            'or name the limit'
        )
    return share


def needed(number: int, limit: int) -> int:
    """Return the memory of which `auto` would give this many workers this limit, in whole MiB."""
    memory = max(number * limit + LEAST_RESERVE, math.ceil(number * limit * RESERVE_SHARE / (RESERVE_SHARE - 1)))
    return math.ceil(memory / MIB) * MIB


def reserve_of(memory: int) -> int:
    """Return how much of it is kept for our own processes."""
    return max(LEAST_RESERVE, memory // RESERVE_SHARE)


def throttles(cgroups: Sequence[Cgroup]) -> Iterator[Bound]:
    """Yield where all that runs here is slowed down."""
    for cgroup in cgroups:
        high = None
        with suppress(OSError, ValueError):
            high = cgroup.number('memory.high')
        if high is not None:
            yield Bound(high, f'memory.high of {cgroup.path}')


def throttle(cgroups: Sequence[Cgroup]) -> Bound | None:
    """Return where all that runs here is slowed down before its memory ends; None where it isn't."""
    lowest = min(throttles(cgroups), default=None)
    return lowest if lowest is not None and lowest.amount < min(ceilings(cgroups)).amount else None


def high_for_workers(policy: Policy, cgroups: Sequence[Cgroup]) -> int | None:
    """Return the memory.high of the workers together that has them slowed down before the supervisor is.

    None where nothing slows the supervisor, and where it would slow workers that are within their limits.
    """
    high = throttle(cgroups)
    if high is None:
        return None
    room = high.amount - reserve_of(high.amount)
    limit, number = policy.max_worker_memory_usage, policy.concurrent_workers
    needed = number * (limit if limit is not None else LEAST_SHARE)
    if policy.pool_memory_max is not None and policy.pool_memory_max <= room:
        return None
    return room if needed <= room else None


def ceilings(cgroups: Sequence[Cgroup]) -> Iterator[Bound]:
    """Yield what bounds the memory of all that runs here: the host, and the cgroups around us."""
    yield Bound(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'), 'the memory of the host')
    for cgroup in cgroups:
        limit = None
        with suppress(OSError, ValueError):
            limit = cgroup.number('memory.max')
        if limit is not None:
            yield Bound(limit, f'memory.max of {cgroup.path}')
    for folder in cgroup_v1.folders('memory'):
        if (limit := cgroup_v1.number(folder, 'memory.limit_in_bytes')) is not None:
            yield Bound(limit, f'memory.limit_in_bytes of {folder}')


# What a pool may suffer from.


def concerns(policy: Policy, cgroups: Sequence[Cgroup]) -> Iterator[Concern]:
    """Yield what is to be warned of at the start of a pool whose policy is resolved."""
    of_memory = too_much(policy, cgroups), slowed(policy, cgroups), grouped_kill(cgroups)
    for concern in (*of_memory, unsafe_start(policy), limited_log(policy)):
        if concern is not None:
            yield concern


def unsafe_start(policy: Policy) -> Concern | None:
    """Return who but root could have had something run as root, before a line of ours was."""
    if module_path.unsafe is None or policy.user is None or credentials.account(policy).uid == 0:
        return None
    detail = f'Python itself has looked for modules, as root, where others can write: {module_path.unsafe}'
    remedy = 'start it by `sergeant-linux run` instead of `python3 -m`, without such folders in PYTHONPATH'
    return Concern('unsafe-start', detail, remedy)


def room_for(policy: Policy, cgroups: Sequence[Cgroup]) -> Bound:
    """Return what bounds the memory of all workers together."""
    bounds = list(ceilings(cgroups))
    if policy.pool_memory_max is not None:
        bounds.append(Bound(policy.pool_memory_max, '--pool-memory-max'))
    return min(bounds)


def too_much(policy: Policy, cgroups: Sequence[Cgroup]) -> Concern | None:
    """Return what is wrong with the limits of the workers where they may have more than there is."""
    limit, number = policy.max_worker_memory_usage, policy.concurrent_workers
    if limit is None:
        return None
    room = room_for(policy, cgroups)
    if number * limit <= room.amount:
        return None
    share = room.amount // (number + 1) // MIB
    mends = [f'--max-worker-memory-usage={share}M'] * (share > 0) + ['fewer workers'] * (number > 1)
    remedy = ', or '.join(mends) or None
    there = f'{format_size(room.amount)} ({room.whose})'
    if limit > room.amount:
        detail = (
            f'--max-worker-memory-usage={format_size(limit)} is more than {there}, so it never acts: where that ends, '
            'an OOM kill hits the largest'
        )
        return Concern('limit-too-high', detail, remedy)
    detail = (
        f'{number} × {format_size(limit)} = {format_size(number * limit)} is more than {there}, '
        'where an OOM kill hits the largest, not the one that grows'
    )
    return Concern('limits-too-high', detail, remedy)


def slowed(policy: Policy, cgroups: Sequence[Cgroup]) -> Concern | None:
    """Return where a memory.high slows all of us down before a limit of the workers acts."""
    high = throttle(cgroups)
    if high is None:
        return None
    room = high.amount - reserve_of(high.amount)
    limit, number = policy.max_worker_memory_usage, policy.concurrent_workers
    pool = policy.pool_memory_max
    if (limit is not None and number * limit <= room) or (pool is not None and pool <= room):
        return None
    there = f'{high.whose} is {format_size(high.amount)}'
    follows = 'what runs there is slowed to a crawl when it has that much, the supervisor, too'
    share = room // number // MIB
    mends = [f'--max-worker-memory-usage={share}M'] * (share * MIB >= LEAST_SHARE)
    mends.append('MemoryMax= instead of MemoryHigh=' if environment.systemd_is_running() else 'memory.max instead')
    remedy = ', or '.join(mends)
    if limit is None:
        return Concern('memory-high', f'{there}, and workers have no --max-worker-memory-usage: {follows}', remedy)
    detail = (
        f'{number} × --max-worker-memory-usage={format_size(limit)} is more than workers have before that: {there}, '
        f'less {format_size(reserve_of(high.amount))} for the supervisor; {follows}'
    )
    return Concern('memory-high', detail, remedy)


def grouped_kill(cgroups: Sequence[Cgroup]) -> Concern | None:
    """Return where an OOM kill ends all of us (memory.oom.group; Kubernetes sets it since 1.28)."""
    for cgroup in cgroups:
        is_grouped = False
        with suppress(OSError, ValueError):
            is_grouped = cgroup.number('memory.oom.group') == 1
        if is_grouped:
            detail = (
                f'memory.oom.group is 1 in {cgroup.path}: one OOM kill at its limit ends all that is in it, '
                'the supervisor included'
            )
            return Concern('oom-group', detail, _what_ungroups(cgroup))
    return None


def _what_ungroups(cgroup: Cgroup) -> str:
    if environment.is_kubernetes():
        return 'singleProcessOOMKill: true in the configuration of kubelet (since 1.32), or limits that bite before'
    if environment.systemd_is_running():
        return 'OOMPolicy=continue in the unit'
    return f'echo 0 > {cgroup.path}/memory.oom.group'


def limited_log(policy: Policy) -> Concern | None:
    """Return what may be lost of the log where the journal limits the unit of this pool."""
    unit = limited_unit(policy)
    if unit is None:
        return None
    detail = (
        f'the journal takes a limited number of lines from {unit} (journald.conf(5): 10,000 in 30 s by default); '
        'when workers print more, it drops the records of this log, too'
    )
    return Concern('log-limited', detail, f'LogRateLimitIntervalSec=1ms and LogRateLimitBurst=10000 in {unit}')
