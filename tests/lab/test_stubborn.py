"""Cgroups that can't be removed, or hardly: no worker's and no host's keeps a pool from going on, stopping, starting."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.lab.conftest import Cgroup
from tests.lab.housing import WITHIN, housed, leaves
from tests.scenarios.pool import kill, wait_until

pytestmark = pytest.mark.timeout(600)

READ_ONLY: Final = 'mount --bind /sys/fs/cgroup /sys/fs/cgroup; mount -o remount,bind,ro /sys/fs/cgroup'

LEAVES_A_CHILD: Final = """
    import os, subprocess, time

    def Worker():
        child = subprocess.Popen(['setsid', 'sleep', '1000'])
        os.write(1, b'child %d' % child.pid + bytes([10]))
        time.sleep(1000)
"""

DIGS: Final = '''
    import os, time

    def Worker():
        """Makes cgroups, each in the one before: too many, and when it has lifted what bounds it, a thousand. The names
        of the last ones are so long that no path leads there."""
        with open('/proc/self/cgroup') as table:
            leaf = '/sys/fs/cgroup' + next(line[3:].strip() for line in table if line.startswith('0::'))
        try:
            os.makedirs(leaf + '/0' * 17)
        except BlockingIOError:
            os.write(1, b'in vain' + bytes([10]))
        for file in ('cgroup.max.depth', 'cgroup.max.descendants'):
            with open(f'{leaf}/{file}', 'w') as bound:
                bound.write('max')
        here = os.open(leaf, os.O_RDONLY)
        for number in range(1100):
            name = '0' if number < 1060 else f'{number:0200}'
            if number >= 16:
                os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
        os.write(1, b'dug' + bytes([10]))
        time.sleep(1000)
'''


@pytest.mark.skipif(os.geteuid() != 0, reason='mounts')
def test_a_pool_whose_cgroups_turn_read_only_goes_on_to_its_end_and_tells_once_what_it_leaves(
    home: Cgroup, tmp_path: Path
) -> None:
    alone = ['unshare', '--mount', '--propagation=private', sys.executable]
    with housed(home, tmp_path, LEAVES_A_CHILD, python=alone, concurrent_workers=2) as running:
        children = [int(line.split()[1]) for line in running.hear('child', count=2, within=WITHIN)]
        subprocess.run(['nsenter', f'--target={running.pid}', '--mount', 'sh', '-ec', READ_ONLY], check=True)
        kill(running.workers()[1])
        running.wait_for('worker-spawn-failed', within=WITHIN)
        running.wait_for('cgroup-remains', within=WITHIN)
        wait_until(lambda: not os.path.exists(f'/proc/{children[0]}'), 'the end of what the worker had started', WITHIN)

        assert running.stop(within=WITHIN) == 0
        assert not any(os.path.exists(f'/proc/{pid}') for pid in children)
        assert running.find('stragglers-remain') == []
        (told,) = running.find('cgroup-remains')
        assert os.strerror(30) in told['message'] and str(home.path) in told['message']
    for path in sorted(leaves(home), key=lambda path: -len(path.parts)):
        path.rmdir()


@pytest.mark.parametrize('end', ['kill -9 of the worker', 'stop', 'kill -9 of the supervisor', 'next start'])
def test_a_worker_that_makes_a_thousand_nested_cgroups_leaves_none(home: Cgroup, tmp_path: Path, end: str) -> None:
    with housed(home, tmp_path, DIGS, restart_delay='1h', restart_max_delay='1h') as running:
        running.hear('in vain', within=WITHIN)
        running.hear('dug', within=WITHIN)
        if end == 'kill -9 of the worker':
            kill(running.workers()[1])
            running.wait_for('worker-exit', result='signal', within=WITHIN)
            wait_until(lambda: not leaf_of(home, 1), 'the removal of the leaf', WITHIN)
        elif end == 'next start':
            kill(running.helper('undertaker'), signal.SIGSTOP)
        if end in ('stop', 'kill -9 of the worker'):
            assert running.stop(within=WITHIN) == 0
        else:
            running.send(signal.SIGKILL)
            running.process.wait(WITHIN)
    if end == 'next start':
        with housed(home, tmp_path, LEAVES_A_CHILD) as running:
            running.hear('child', within=WITHIN)
            (folder,) = home.path.glob('sergeant-*')
            assert str(running.pid) in folder.name
            assert running.stop(within=WITHIN) == 0
    else:
        wait_until(lambda: not list(home.path.glob('sergeant-*')), 'the removal of the folder', WITHIN)


def leaf_of(home: Cgroup, life: int) -> list[Path]:
    return list(home.path.glob(f'sergeant-*/life-{life}'))


@pytest.mark.skipif(os.geteuid() != 0, reason='mounts')
def test_a_folder_of_a_predecessor_that_cannot_be_removed_is_a_warning(home: Cgroup, tmp_path: Path) -> None:
    stubborn = home.make('sergeant-1-dead').make('life-1')
    subprocess.run(['mount', '-t', 'tmpfs', 'none', stubborn.path], check=True)
    try:
        with housed(home, tmp_path, LEAVES_A_CHILD) as running:
            running.hear('child', within=WITHIN)
            (told,) = running.find('cgroup-remains')
            assert (told['level'], 'sergeant-1-dead' in told['message']) == ('warning', True)
            assert os.strerror(16) in told['message']
            assert running.stop(within=WITHIN) == 0
    finally:
        subprocess.run(['umount', stubborn.path], check=True)
        stubborn.path.rmdir()
        stubborn.path.parent.rmdir()
