"""Why a worker has died, when memory was tight: for whose limit the kernel's OOM killer has ended it, or who else has.

The home is a cgroup made for the test, so that a limit can be set at each height: the worker's own leaf and what it
makes below, the pool's folder, the home above it.
"""

from pathlib import Path
from typing import Any, Final

import pytest

from tests.lab.conftest import Cgroup
from tests.lab.housing import LIMIT, TAKE, WITHIN, housed
from tests.scenarios.pool import kill

pytestmark = pytest.mark.timeout(600)

OWN: Final = (
    TAKE
    + '''
    def own():
        """Return the folder of the own cgroup."""
        with open('/proc/self/cgroup') as table:
            return '/sys/fs/cgroup' + next(line[3:].strip() for line in table if line.startswith('0::'))

    def write(path, text):
        with open(path, 'w') as file:
            file.write(text)
'''
)

HOG: Final = (
    OWN
    + '''
    def Worker():
        """In slot 0 it eats; in the others it stays."""
        if os.environ['SERGEANT_WORKER_SLOT'] == '0':
            eat()
        time.sleep(1000)
'''
)

NEARLY_FULL: Final = (
    OWN
    + f'''
    def Worker():
        """Takes 95 % of its limit, says so, and stays."""
        kept = []
        while int(open(own() + '/memory.current').read()) < 0.95 * {LIMIT}:
            kept.append(take(1 << 18))
        os.write(1, b'full' + bytes([10]))
        time.sleep(1000)
'''
)

LOWERS_ITS_LIMIT: Final = (
    OWN
    + """
    def Worker():
        write(own() + '/memory.max', str(32 << 20))
        eat()
"""
)

HAS_A_CGROUP_OF_ITS_OWN: Final = (
    OWN
    + '''
    def Worker():
        """Makes a cgroup below its leaf, with a limit below ours, and goes there."""
        leaf = own()
        os.mkdir(leaf + '/inner')
        write(leaf + '/inner/cgroup.procs', '0')
        write(leaf + '/cgroup.subtree_control', '+memory')
        write(leaf + '/inner/memory.max', str(32 << 20))
        eat()
'''
)


EATS_ON_CUE: Final = (
    OWN
    + '''
    def Worker():
        """Eats when the file says so that is named after its slot."""
        while not os.path.exists('eat-' + os.environ['SERGEANT_WORKER_SLOT']):
            time.sleep(0.02)
        eat()
'''
)

LOSES_A_CHILD: Final = (
    OWN
    + '''
    def Worker():
        """Loses a child to the limit of a cgroup that it has made for it, and stays."""
        leaf = own()
        os.makedirs(leaf + '/below/inner')
        write(leaf + '/cgroup.procs', '0')
        os.mkdir(leaf + '/main')
        write(leaf + '/main/cgroup.procs', '0')
        for folder in (leaf, leaf + '/below'):
            write(folder + '/cgroup.subtree_control', '+memory')
        write(leaf + '/below/inner/memory.max', str(16 << 20))
        child = os.fork()
        if child == 0:
            write(leaf + '/below/inner/cgroup.procs', '0')
            eat()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(1, b'lost %d' % status + bytes([10]))
        time.sleep(1000)
'''
)


@pytest.mark.slow
def test_fifty_times_in_a_row_the_kernel_kills_a_worker_at_its_limit_and_its_neighbour_stays(
    home: Cgroup, tmp_path: Path
) -> None:
    with housed(home, tmp_path, HOG, light=True, concurrent_workers=2, restart_delay=0) as running:
        ends = running.wait_for('worker-exit', count=50, within=2 * WITHIN)[:50]
        assert [record['slot'] for record in ends] == [0] * 50
        assert {(record['result'], record['signal'], record['return_code']) for record in ends} == {
            ('oom-kill', 'SIGKILL', None)
        }
        for record in ends:
            memory = record['memory']
            assert (memory['backend'], memory['oom_scope'], memory['limit_bytes']) == ('cgroup', 'worker', LIMIT)
            assert memory['oom_kills'] >= 1 and memory['peak_bytes'] <= LIMIT
            assert (
                record['message']
                == f'worker({record["pid"]}) exceeded the maximum memory limit: {memory["peak_bytes"]}'
            )
        assert len(running.find('worker-ready', slot=0)) >= 50
        (neighbour,) = running.find('worker-spawn', slot=1)
        assert neighbour['pid'] in running.workers().values()
        assert running.stop(within=WITHIN) == 0


def test_a_sigkill_by_hand_at_95_percent_of_the_limit_is_a_signal(home: Cgroup, tmp_path: Path) -> None:
    with housed(home, tmp_path, NEARLY_FULL) as running:
        running.hear('full', within=WITHIN)
        kill(running.workers()[1])
        (record,) = running.wait_for('worker-exit', within=WITHIN)
        assert (record['result'], record['signal']) == ('signal', 'SIGKILL')
        memory = record['memory']
        assert (memory['oom_kills'], memory['oom_scope']) == (0, None)
        assert memory['peak_bytes'] >= 0.95 * LIMIT
        assert running.stop(within=WITHIN) == 0


@pytest.mark.parametrize(
    ('worker', 'limits', 'limit_of_home', 'scope'),
    [
        pytest.param(HOG, {'pool_memory_max': LIMIT}, 'max', 'pool', id='the pool'),
        pytest.param(HOG, {}, str(2 * LIMIT), 'host', id='the home, which is above all that is ours'),
        pytest.param(LOWERS_ITS_LIMIT, {}, 'max', 'worker', id='the leaf, by a limit that the worker has set'),
        pytest.param(HAS_A_CGROUP_OF_ITS_OWN, {}, 'max', 'worker', id='a cgroup that the worker has made'),
    ],
)
def test_an_oom_kill_is_told_for_whose_limit_it_was(
    home: Cgroup, tmp_path: Path, worker: str, limits: dict[str, Any], limit_of_home: str, scope: str
) -> None:
    home.write('memory.max', limit_of_home)
    with housed(home, tmp_path, worker, **{'max_worker_memory_usage': 4 * LIMIT, **limits}) as running:
        (record, *_) = running.wait_for('worker-exit', within=WITHIN)
        assert (record['result'], record['signal'], record['memory']['oom_scope']) == ('oom-kill', 'SIGKILL', scope)
        assert running.stop(within=WITHIN) == 0


def test_a_kill_for_the_host_is_the_hosts_also_when_the_pool_has_met_its_limit_before(
    home: Cgroup, tmp_path: Path
) -> None:
    flags: dict[str, Any] = {'pool_memory_max': LIMIT, 'max_worker_memory_usage': 4 * LIMIT, 'concurrent_workers': 2}
    with housed(home, tmp_path, EATS_ON_CUE, restart_delay='1h', restart_max_delay='1h', **flags) as running:
        running.wait_for('worker-ready', count=2, within=WITHIN)
        (tmp_path / 'eat-0').touch()
        (first,) = running.wait_for('worker-exit', within=WITHIN)
        assert (first['slot'], first['memory']['oom_scope']) == (0, 'pool')
        (folder,) = home.path.glob('sergeant-*')
        (folder / 'memory.max').write_text('max')
        home.write('memory.max', str(2 * LIMIT))
        (tmp_path / 'eat-1').touch()
        (second,) = running.wait_for('worker-exit', slot=1, within=WITHIN)
        assert (second['result'], second['memory']['oom_scope']) == ('oom-kill', 'host')
        assert running.stop(within=WITHIN) == 0


def test_a_sigkill_by_hand_after_a_child_was_killed_by_the_kernel_is_a_signal(home: Cgroup, tmp_path: Path) -> None:
    with housed(home, tmp_path, LOSES_A_CHILD) as running:
        running.hear('lost -9', within=WITHIN)
        kill(running.workers()[1])
        (record,) = running.wait_for('worker-exit', within=WITHIN)
        assert (record['result'], record['signal']) == ('signal', 'SIGKILL')
        assert record['memory']['oom_kills'] >= 1
        assert running.stop(within=WITHIN) == 0


def test_a_limit_that_no_newborn_fits_in_is_told_as_what_ends_newborns(home: Cgroup, tmp_path: Path) -> None:
    with housed(home, tmp_path, EATS_ON_CUE, restart_delay='10ms') as running:
        running.wait_for('worker-ready', within=WITHIN)
        running.ask('set', key='max-worker-memory-usage', value='64K')
        kill(running.workers()[1])
        (failed, *_) = running.wait_for('worker-spawn-failed', within=WITHIN)
        assert 'OOM killer' in failed['message'] and '--max-worker-memory-usage=64K' in failed['message']
        running.ask('set', key='max-worker-memory-usage', value='64M')
        running.wait_for('worker-ready', count=2, within=WITHIN)
        assert running.stop(within=WITHIN) == 0


AROUND: Final = (
    TAKE
    + """
    def Worker():
        if os.environ['SERGEANT_WORKER_LIFE'] == '1':
            eat()
        time.sleep(1000)
"""
)


def test_without_a_leaf_an_oom_kill_is_told_by_the_cgroup_in_which_all_of_us_are(home: Cgroup, tmp_path: Path) -> None:
    home.write('memory.max', str(200 << 20))
    flags: dict[str, Any] = {'cgroup_root': None, 'max_worker_memory_usage': None, 'memory_backend': 'rss'}
    with housed(home, tmp_path, AROUND, **flags) as running:
        (end,) = running.wait_for('worker-exit', life=1, within=WITHIN)

        assert (end['result'], end['signal'], end['memory']['oom_scope']) == ('oom-kill', 'SIGKILL', 'container')
        assert 'for the memory limit of the container' in end['message']
        (ready, *_) = running.wait_for('worker-ready', life=2, within=WITHIN)
        kill(ready['pid'])
        (end,) = running.wait_for('worker-exit', life=2, within=WITHIN)
        assert (end['result'], end['memory']['oom_scope']) == ('signal', None)
