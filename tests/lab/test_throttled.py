"""A memory.high above a pool: the workers are slowed by it, not the supervisor, and the start says what will be."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.lab.conftest import Cgroup
from tests.lab.housing import TAKE, WITHIN, housed
from tests.scenarios.pool import wait_until

pytestmark = pytest.mark.timeout(600)

MIB: Final = 1 << 20

GROWS: Final = (
    TAKE
    + '''
    def Worker():
        """Takes all that it can get, and keeps it."""
        kept = []
        while True:
            kept.append(take(1 << 20))
'''
)

STAYS: Final = 'import time\ndef Worker(): time.sleep(1000)\n'


def throttled(cgroup: Cgroup) -> int:
    """Return how often processes in it were made to wait for its memory.high."""
    return cgroup.counters('memory.events')['high']


def test_where_the_unit_has_a_memory_high_the_workers_meet_a_lower_one_and_the_supervisor_none(
    home: Cgroup, tmp_path: Path
) -> None:
    home.write('memory.high', str(192 * MIB))
    with housed(home, tmp_path, GROWS, max_worker_memory_usage=None) as running:
        (warning,) = running.wait_for('memory-high', within=WITHIN)
        assert (warning['level'], f'memory.high of {home.path}' in warning['message']) == ('warning', True)
        running.wait_for('worker-ready', within=WITHIN)
        (folder,) = home.path.glob('sergeant-*')
        pool = Cgroup(folder)
        wait_until(lambda: throttled(pool) > 3, 'the throttling of the worker', WITHIN)
        for _ in range(5):
            running.ask('ping')
        assert int(pool.read('memory.high')) == 128 * MIB
        assert home.counters('memory.events.local')['high'] == 0
        assert running.stop(within=WITHIN) == 0


def test_workers_whose_limits_leave_no_room_below_a_memory_high_are_warned_about(home: Cgroup, tmp_path: Path) -> None:
    home.write('memory.high', str(192 * MIB))
    with housed(home, tmp_path, STAYS, max_worker_memory_usage=f'{160 * MIB}') as running:
        (warning,) = running.wait_for('memory-high', within=WITHIN)
        assert '--max-worker-memory-usage' in warning['message']
        running.wait_for('worker-ready', within=WITHIN)
        (folder,) = home.path.glob('sergeant-*')
        assert Cgroup(folder).read('memory.high') == 'max'
        assert running.stop(within=WITHIN) == 0


def test_auto_divides_what_is_below_a_memory_high(home: Cgroup, tmp_path: Path) -> None:
    home.write('memory.high', str(192 * MIB))
    with housed(home, tmp_path, STAYS, concurrent_workers=2, max_worker_memory_usage='auto') as running:
        (told,) = running.wait_for('auto', within=WITHIN)
        assert told['max_worker_memory_usage'] == 64 * MIB
        assert f'memory.high of {home.path}' in told['message']
        running.wait_for('worker-ready', count=2, within=WITHIN)
        (folder,) = home.path.glob('sergeant-*')
        assert int(Cgroup(folder).read('memory.high')) == 128 * MIB
        assert running.find('memory-high') == []
        assert running.stop(within=WITHIN) == 0


SLOWED: Final = """
import logging, mmap, sys, time
from sergeant_linux.core.policy import Policy
from sergeant_linux.engine.slowness import LONG, Slowness
from sergeant_linux.log.words import Journal

def write(file, text):
    with open(f'{sys.argv[1]}/{file}', 'w') as target:
        target.write(text)

write('cgroup.procs', '0')
logging.basicConfig(stream=sys.stdout)
policy = Policy(concurrent_workers=1, worker_class_name='W', worker_module_name='w')
slowness = Slowness(Journal(logging.getLogger('Supervisor'), lambda: policy))
write('memory.high', str(4 << 20))
began, kept = time.monotonic(), []
while time.monotonic() - began < 1.2 * LONG:
    kept.append(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE))
slowness.turned(began, time.monotonic())
"""


def test_after_a_turn_that_was_slowed_the_supervisor_says_by_what(leaf: Cgroup) -> None:
    command = [sys.executable, '-c', SLOWED, str(leaf.path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WITHIN).stdout
    assert 'the supervisor was held up for' in told
    assert f'memory.high of {leaf.path} (4M) slows all that runs there' in told
