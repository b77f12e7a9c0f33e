"""What a pool has said: four slots, one of which is on its third try, one that is being replaced."""

from typing import Any, Final

MIB: Final = 1 << 20


def life(**known: Any) -> dict[str, Any]:
    """Return a life of which nothing is known, but this."""
    unknown = (
        'state', 'goal', 'pid', 'life', 'generation', 'uptime_seconds', 'memory_bytes', 'memory_peak_bytes',
        'cpu_seconds', 'tasks_done', 'tasks_failed', 'tasks_per_second', 'task_age_seconds', 'last_error', 'restarts',
        'last_result', 'restart_in_seconds',
    )
    assert set(known) <= set(unknown)
    return {**dict.fromkeys(unknown), 'state': 'running', 'goal': 'up', **known}


def slot(number: int, successor: dict[str, Any] | None = None, **known: Any) -> dict[str, Any]:
    return {'slot': number, **life(**known), 'successor': successor}


TROUBLE: Final = {
    'seq': 71, 'time': '2026-01-31T09:26:53.589Z', 'level': 'warning', 'event': 'worker-exit',
    'message': 'worker 2 has ended: exit 6 (failure) after 3.2s', 'fields': {'slot': 2, 'life': 17},
}

SLOTS: Final = [
    slot(
        0, pid=1234, life=4, generation=2, uptime_seconds=11220.0, memory_bytes=120 * MIB, memory_peak_bytes=188 * MIB,
        cpu_seconds=512.25, tasks_done=18204, tasks_failed=0, tasks_per_second=12.5, task_age_seconds=0.4, restarts=0,
    ),
    slot(
        1, pid=1235, life=5, generation=1, state='drain', uptime_seconds=86520.0, memory_bytes=430 * MIB,
        memory_peak_bytes=441 * MIB, cpu_seconds=7212.0, tasks_done=190233, tasks_failed=7, tasks_per_second=2.25,
        task_age_seconds=54.0, restarts=3, last_result='exit 4 (respawn)', last_error='ValueError: no \x1b[2J such\nhost',
        successor=life(
            state='start', pid=1301, life=21, generation=2, uptime_seconds=0.3, memory_bytes=31 * MIB, tasks_done=0,
            tasks_failed=0,
        ),
    ),
    slot(2, state='auto-restart', life=17, generation=2, restarts=3, last_result='exit 6 (failure)', restart_in_seconds=0.4),
    slot(
        3, pid=1236, life=6, generation=2, uptime_seconds=320.0, memory_bytes=501 * MIB, memory_peak_bytes=501 * MIB,
        cpu_seconds=31.0, tasks_done=77, tasks_failed=0, tasks_per_second=0.2, restarts=1, last_result='oom-kill',
    ),
]

STATUS: Final[dict[str, Any]] = {
    'name': 'crawl', 'pid': 1200, 'version': '0.2.0', 'module': 'crawl_worker', 'class': 'Worker',
    'started': '2026-01-30T09:20:11Z', 'uptime_seconds': 86811.0, 'state': 'reloading', 'wanted': 4, 'ready': 2,
    'generation': 2, 'spawned': 21, 'restarts': 7,
    'counters': {
        'spawned': 21, 'spawn_failures': 0, 'restarts': 7, 'tasks_done': 208_421, 'tasks_failed': 12,
        'ended': {'success': 12, 'exit-code': 4, 'oom-kill': 1, 'timeout': 0}, 'requested': {'restart': 2, 'reload': 4},
    },
    'backend': {
        'memory': 'rss', 'containment': 'search',
        'why_not': "controller 'memory' is not delegated to /sys/fs/cgroup/crawl.service",
    },
    'memory': {'limit_bytes': 512 * MIB, 'mark_bytes': 400 * MIB, 'pool_limit_bytes': 2048 * MIB},
    'watchdog_seconds': 60.0,
    'reload': {'generation': 2, 'state': 'rolling', 'changed': 2, 'of': 4, 'reason': None},
    'last_trouble': TROUBLE, 'slots': SLOTS,
}

QUIET: Final[dict[str, Any]] = {
    **STATUS, 'state': 'running', 'wanted': 2, 'ready': 2, 'generation': 1, 'spawned': 2, 'restarts': 0,
    'backend': {'memory': 'cgroup', 'containment': 'cgroup', 'why_not': None},
    'memory': {'limit_bytes': None, 'mark_bytes': None, 'pool_limit_bytes': None},
    'watchdog_seconds': None, 'reload': None, 'last_trouble': None, 'counters': {'tasks_done': 0, 'ended': {'success': 0}},
    'slots': [
        slot(n, pid=1300 + n, life=n + 1, generation=1, uptime_seconds=12.0, restarts=0) for n in range(2)
    ],
}
"""A pool of two workers of which nothing is counted and that have no limit."""


def large(count: int = 1000) -> dict[str, Any]:
    """Return a pool of so many slots, of which 700 is in trouble and 900 near its limit."""
    slots = [
        slot(
            n, pid=2000 + n, life=n + 1, generation=1, uptime_seconds=3600.0, memory_bytes=(100 + n % 7) * MIB,
            tasks_done=n, tasks_failed=0, restarts=0,
        )
        for n in range(count)
    ]
    slots[700] = slot(700, state='auto-restart', restarts=9, last_result='signal SEGV', restart_in_seconds=12.0)
    slots[900] |= {'memory_bytes': 500 * MIB}
    return {**STATUS, 'wanted': count, 'ready': count - 1, 'reload': None, 'state': 'running', 'slots': slots}
