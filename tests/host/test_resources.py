"""What a place gives a pool, and what `auto` makes of it: on cgroups that are files in a folder, and on this host's own."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest

from sergeant_linux.core.margins import LEAST_RESERVE
from sergeant_linux.core.policy import Policy
from sergeant_linux.host import resources
from sergeant_linux.host.resources import MIB, NotEnough
from sergeant_linux.kernel import cgroup_v1
from sergeant_linux.kernel.cgroup import Cgroup
from tests.cli.asking import ask

GIB: Final = 1024 * MIB
HOST: Final = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
AFFINITY: Final = len(os.sched_getaffinity(0))


def policy(**knobs: Any) -> Policy:
    return Policy(**{'concurrent_workers': 4, 'worker_class_name': 'W', 'worker_module_name': 'w', **knobs})


def cgroups(top: Path, *each: Mapping[str, object]) -> list[Cgroup]:
    """Cgroups below one another, the lowest first, as `walk_up` gives them; each with these files."""
    folder, found = top, []
    for files in reversed(each):
        folder = folder / 'below'
        folder.mkdir()
        for name, value in files.items():
            (folder / name.replace('_', '.', 1)).write_text(f'{value}\n')
        found.append(Cgroup(str(folder), str(top / 'below')))
    return found[::-1]


# Processors


@pytest.mark.parametrize(('quotas', 'number'), [
    ([], AFFINITY),
    (['max 100000'], AFFINITY),
    (['100000 100000'], 1),
    (['1000 100000'], 1),
    (['150000 100000'], min(2, AFFINITY)),
    (['max 100000', '50000 100000'], 1),
    (['10000000 100000', 'max 100000'], AFFINITY),
])
def test_as_many_processors_count_as_the_quotas_from_the_own_cgroup_up_and_affinity_allow(
    tmp_path: Path, quotas: list[str], number: int
) -> None:
    around = cgroups(tmp_path, *({'cpu_max': quota} for quota in quotas))
    assert resources.processors(around).amount == number


def test_a_quota_that_bounds_is_told_with_its_cgroup(tmp_path: Path) -> None:
    around = cgroups(tmp_path, {}, {'cpu_max': '1000 100000'})
    assert resources.processors(around).whose == f'cpu.max of {around[1].path}: 1000 100000'


def test_affinity_bounds_the_workers_that_are_auto() -> None:
    told = ask('--concurrent-workers=auto', start=['taskset', '-c', str(min(os.sched_getaffinity(0)))])
    assert told['auto']['detail'].startswith('--concurrent-workers=auto is 1 (sched_getaffinity)')
    assert told['descriptors']['detail'].startswith('1 worker ')


# Memory


@pytest.mark.parametrize(('room', 'workers', 'limit'), [
    (GIB, 4, (GIB - 64 * MIB) // 4),
    (GIB, 7, (GIB - 64 * MIB) // 7 // 4096 * 4096),
    (2 * GIB, 1, 2 * GIB - 2 * GIB // 20),
    (128 * MIB, 4, 16 * MIB),
])
def test_auto_divides_what_is_there_minus_a_reserve_and_rounds_down_to_a_page(
    tmp_path: Path, room: int, workers: int, limit: int
) -> None:
    if HOST < 2 * GIB or os.sysconf('SC_PAGE_SIZE') != 4096:
        pytest.skip('the figures are for a host of 2G or more, with pages of 4K')
    around = cgroups(tmp_path, {'memory_max': 'max'}, {'memory_max': room})
    share = resources.memory_share(policy(concurrent_workers=workers), around)
    assert share.limit == limit // 4096 * 4096
    assert share.room == (room, f'memory.max of {around[1].path}')


def test_the_smallest_limit_from_the_own_cgroup_up_counts(tmp_path: Path) -> None:
    around = cgroups(tmp_path, {'memory_max': 300 * MIB}, {'memory_max': 200 * MIB}, {'memory_max': 400 * MIB})
    assert resources.memory_share(policy(), around).room == (200 * MIB, f'memory.max of {around[1].path}')


def test_a_memory_high_counts_as_a_limit_that_is_divided(tmp_path: Path) -> None:
    around = cgroups(tmp_path, {'memory_max': 300 * MIB, 'memory_high': 192 * MIB}, {'memory_high': 'max'})
    share = resources.memory_share(policy(), around)
    assert (share.limit, share.room) == (32 * MIB, (192 * MIB, f'memory.high of {around[0].path}'))


@pytest.mark.parametrize(('knobs', 'high', 'warns'), [
    ({'max_worker_memory_usage': '32M'}, 128 * MIB, False),
    ({'max_worker_memory_usage': '33M'}, None, True),
    ({'pool_memory_max': '100M'}, None, False),
    ({}, 128 * MIB, True),
])
def test_below_a_memory_high_workers_have_a_lower_one_where_their_limits_fit(
    tmp_path: Path, knobs: dict[str, str], high: int | None, warns: bool
) -> None:
    around = cgroups(tmp_path, {'memory_high': 192 * MIB})
    assert resources.high_for_workers(policy(**knobs), around) == high
    assert (resources.slowed(policy(**knobs), around) is not None) == warns


def test_a_memory_high_that_is_no_lower_than_the_limit_slows_nobody(tmp_path: Path) -> None:
    around = cgroups(tmp_path, {'memory_max': 192 * MIB, 'memory_high': 192 * MIB})
    assert (resources.high_for_workers(policy(), around), resources.slowed(policy(), around)) == (None, None)


def test_without_any_limit_the_memory_of_the_host_is_divided(tmp_path: Path) -> None:
    share = resources.memory_share(policy(concurrent_workers=1), cgroups(tmp_path, {'memory_max': 'max'}))
    assert share.room.amount <= HOST
    assert share.reserve == max(LEAST_RESERVE, share.room.amount // 20)


def test_a_limit_of_the_pool_bounds_what_is_divided_and_has_no_reserve_to_give(tmp_path: Path) -> None:
    around = cgroups(tmp_path, {'memory_max': GIB})
    assert resources.memory_share(policy(pool_memory_max='400M'), around).limit == 100 * MIB
    assert resources.memory_share(policy(pool_memory_max='1000M'), around).limit == 240 * MIB


def test_a_share_that_no_interpreter_fits_in_is_refused_with_what_it_takes(tmp_path: Path) -> None:
    around = cgroups(tmp_path, {'memory_max': 127 * MIB})
    with pytest.raises(NotEnough, match='too little for a worker: 15.8M = .*; give it at least 128M or fewer workers'):
        resources.memory_share(policy(), around)


@pytest.mark.parametrize(('workers', 'limit'), [(1, 16 * MIB), (4, 256 * MIB), (3, GIB), (64, 512 * MIB)])
def test_the_memory_that_is_needed_for_a_limit_gives_that_limit(workers: int, limit: int) -> None:
    room = resources.needed(workers, limit)
    reserve = max(LEAST_RESERVE, room // 20)
    assert limit <= (room - reserve) // workers <= limit + 2 * MIB


def test_a_policy_is_resolved_once_and_tells_what_was_auto(tmp_path: Path) -> None:
    around = cgroups(tmp_path, {'memory_max': GIB, 'cpu_max': '200000 100000'})
    resolved = resources.resolve(policy(concurrent_workers='auto', max_worker_memory_usage='auto'), around)
    number = min(2, AFFINITY)
    share = (GIB - 64 * MIB) // number
    assert resolved.policy == policy(concurrent_workers=number, max_worker_memory_usage=share)
    assert resolved.told is not None and resolved.told.startswith(f'--concurrent-workers=auto is {number} (')
    assert f'(1G - 64M) / {number} (memory.max of {around[0].path})' in resolved.told

    again = resources.resolve(resolved.policy, around)
    assert again == replace(resolved, told=None)


def test_a_mark_above_what_auto_gives_is_refused(tmp_path: Path) -> None:
    around = cgroups(tmp_path, {'memory_max': GIB})
    with pytest.raises(NotEnough, match='auto is 240M = .* and worker_memory_high: expected at most .*240M.*, not 500M'):
        resources.resolve(policy(max_worker_memory_usage='auto', worker_memory_high='500M'), around)


def test_the_doctor_tells_an_auto_that_is_too_little() -> None:
    told = ask('--concurrent-workers=100', '--max-worker-memory-usage=auto', '--pool-memory-max=1M')
    assert told.status == 4 and 'auto' in told.failures()
    assert 'too little for a worker' in told['auto']['detail']


# What a pool may suffer from


@pytest.mark.parametrize(('limit', 'event', 'said'), [
    ('256M', None, ''),
    ('300M', 'limits-too-high', '4 × 300M = 1.2G is more than 1G (memory.max of'),
    ('2G', 'limit-too-high', '--max-worker-memory-usage=2G is more than 1G (memory.max of'),
])
def test_limits_above_what_is_there_are_a_concern_with_a_remedy(
    tmp_path: Path, limit: str, event: str | None, said: str
) -> None:
    around = cgroups(tmp_path, {'memory_max': GIB})
    found = list(resources.concerns(policy(max_worker_memory_usage=limit), around))
    assert [concern.event for concern in found] == ([event] if event else [])
    if event:
        assert found[0].detail.startswith(said)
        assert found[0].remedy == '--max-worker-memory-usage=204M, or fewer workers'


def test_auto_is_never_a_concern(tmp_path: Path) -> None:
    around = cgroups(tmp_path, {'memory_max': 777 * MIB})
    resolved = resources.resolve(policy(max_worker_memory_usage='auto'), around)
    assert list(resources.concerns(resolved.policy, around)) == []


def test_an_oom_kill_that_ends_the_container_is_a_concern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    around = cgroups(tmp_path, {'memory_oom.group': 1})
    monkeypatch.setenv('KUBERNETES_SERVICE_HOST', '10.0.0.1')
    (concern,) = resources.concerns(policy(), around)
    assert concern.event == 'oom-group' and 'singleProcessOOMKill' in str(concern)


# cgroup v1, as hybrid hosts have it


@pytest.fixture
def v1_memory() -> Iterator[Path]:
    """A cgroup of the memory controller of cgroup v1, below the own one."""
    folders = cgroup_v1.folders('memory')
    if not folders or not os.access(folders[0], os.W_OK):
        pytest.skip('there is no cgroup v1 with a memory controller that is ours')
    folder = Path(folders[0], f'test-{uuid4().hex[:8]}')
    folder.mkdir()
    yield folder
    folder.rmdir()


def test_the_limit_of_cgroup_v1_counts_where_it_has_the_memory_controller(v1_memory: Path) -> None:
    Path(v1_memory, 'memory.limit_in_bytes').write_text('268435456')
    start = ['sh', '-ec', f'echo $$ > "{v1_memory}/cgroup.procs"; exec "$@"', 'sh']
    told = ask('--concurrent-workers=2', '--max-worker-memory-usage=auto', start=start)
    assert f'is 96M = (256M - 64M) / 2 (memory.limit_in_bytes of {v1_memory})' in told['auto']['detail']
    assert told['memory']['verdict'] == 'ok'


def test_the_quota_of_cgroup_v1_counts_where_it_has_the_cpu_controller() -> None:
    folders = cgroup_v1.folders('cpu')
    if not folders or not os.access(folders[0], os.W_OK):
        pytest.skip('there is no cgroup v1 with a cpu controller that is ours')
    folder = Path(folders[0], f'test-{uuid4().hex[:8]}')
    folder.mkdir()
    try:
        Path(folder, 'cpu.cfs_quota_us').write_text('40000')
        start = ['sh', '-ec', f'echo $$ > "{folder}/cgroup.procs"; exec "$@"', 'sh']
        script = 'from sergeant_linux.host import resources; print(resources.processors([]))'
        done = subprocess.run([*start, sys.executable, '-c', script], capture_output=True, text=True, timeout=30)
    finally:
        folder.rmdir()
    assert f"amount=1, whose='cpu.cfs_quota_us of {folder}: 40000 of 100000'" in done.stdout
