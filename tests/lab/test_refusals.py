"""A pool that may not, or can't, use cgroups: refused at the start in one line, or without what is missing, and undone.

What the kernel refuses by itself is refused by it. The rest (a cgroup file system that turns read-only, a limit of
cgroups that is reached half-way) comes from a library that fails the calls of the supervisor alone: faults.c.
"""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from sergeant_linux.core.exit import HOST_CANT, TRY_AGAIN
from sergeant_linux.host import PASSING, environment
from tests.lab.conftest import Cgroup
from tests.lab.housing import TAKE, WITHIN, housed
from tests.scenarios.pool import Pool

pytestmark = pytest.mark.timeout(600)

STAYS: Final = 'import time\ndef Worker(): time.sleep(1000)\n'

HOG: Final = (
    TAKE
    + """
    def Worker():
        if os.environ['SERGEANT_WORKER_LIFE'] == '1':
            kept = take(100 << 20)
        time.sleep(1000)
"""
)


def refusal(running: Pool, status: int = HOST_CANT) -> str:
    """Return the one line that a pool says which does not start; it has to end with this status, and say nothing else."""
    assert running.exit_status(WITHIN) == status, running.lines
    (line,) = running.lines
    return line


# Nobody has delegated anything.


@pytest.fixture
def undelegated(home: Cgroup) -> Iterator[dict[str, Any]]:
    """How to start a pool in a cgroup that is not delegated: without the mark; as root also as if systemd ran."""
    marked = [path for path in home.path.parents if is_marked(path)]
    for path in marked:
        os.removexattr(path, 'user.delegate')
    start = ['unshare', '--mount', 'sh', '-ec', AS_IF_SYSTEMD_RAN, 'sh'] if os.geteuid() == 0 else []
    yield {'python': [*start, sys.executable]}
    for path in marked:
        os.setxattr(path, 'user.delegate', b'1')


AS_IF_SYSTEMD_RAN: Final = 'mount -t tmpfs none /run; mkdir -p /run/systemd/system; exec "$@"'


def is_marked(path: Path) -> bool:
    try:
        return os.getxattr(path, 'user.delegate') == b'1'
    except OSError:
        return False


def test_without_delegation_auto_says_why_and_polls_memory(
    home: Cgroup, tmp_path: Path, undelegated: dict[str, Any]
) -> None:
    with housed(home, tmp_path, HOG, memory_backend='auto', cgroup_root=None, **undelegated) as running:
        (backend,) = running.wait_for('backend', within=WITHIN)
        assert (backend['memory'], backend['containment']) == ('rss', 'search')
        assert 'not delegated' in backend['why_not'] and backend['why_not'] in backend['message']
        (record,) = running.wait_for('worker-exit', within=WITHIN)
        assert (record['result'], record['memory']['backend']) == ('memory-max', 'rss')
        assert home.below() == set()
        assert running.stop(within=WITHIN) == 0


def test_without_delegation_the_backend_cgroup_is_exit_status_4_and_one_line(
    home: Cgroup, tmp_path: Path, undelegated: dict[str, Any]
) -> None:
    with housed(home, tmp_path, STAYS, cgroup_root=None, **undelegated) as running:
        line = refusal(running)
        assert 'not delegated' in line
        if os.geteuid() == 0 or environment.systemd_is_running():
            assert 'Delegate=yes' in line
        else:
            assert ('--cgroup-root=PATH' if environment.container() is None else 'start the container with') in line
            assert 'Delegate' not in line and 'systemd' not in line
        assert home.below() == set()


def test_a_root_that_no_process_may_be_moved_to_is_exit_status_4_with_the_reason_and_the_remedy(
    home: Cgroup, ground: Cgroup, tmp_path: Path
) -> None:
    """cgroups(7): who moves a process needs to write cgroup.procs of what is above both ends."""
    procs = ground.path / 'cgroup.procs'
    mode = procs.stat().st_mode
    procs.chmod(0o444)
    bound = ['setpriv', '--bounding-set=-dac_override', '--inh-caps=-all'] if os.geteuid() == 0 else []
    try:
        with housed(home, tmp_path, STAYS, starts_inside=False, python=[*bound, sys.executable]) as running:
            line = refusal(running)
    finally:
        procs.chmod(mode)
    assert f'no process of ours may be moved to {home.path}' in line
    assert 'start it inside of it' in line
    assert home.below() == set()
    assert home.read('cgroup.subtree_control') == ''


def test_a_limit_whose_controller_is_not_handed_down_is_refused_with_the_line_that_does_it(
    home: Cgroup, tmp_path: Path
) -> None:
    inner = home.make('inner')
    with housed(inner, tmp_path, STAYS, memory_backend='auto', worker_pids_max=100) as running:
        line = refusal(running)
    assert f'--worker-pids-max takes the controller pids, which is not available in {inner.path}' in line
    by_hand = f'echo +pids > {home.path}/cgroup.subtree_control'
    assert ('Delegate=yes' if environment.systemd_is_running() else by_hand) in line


# Faults of cgroup files.


@pytest.fixture(scope='session')
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that fails calls."""
    library = tmp_path_factory.mktemp('faults') / 'faults.so'
    source = Path(__file__).with_name('faults.c')
    subprocess.run(['gcc', '-O2', '-Wall', '-shared', '-fPIC', '-o', library, source, '-ldl'], check=True)
    return library


def fault(library: Path, call: str, part: str, number: int, times: int = 1) -> dict[str, str]:
    """Return the environment in which the next calls fail."""
    return {'LD_PRELOAD': str(library), 'FAULT': f'{call} {part} {number} {times}'}


AT_THE_START: Final = [
    # what is probed, moved, enabled, made, set up, tried: each of its steps, with what a kernel may answer
    ('mkdir', '/probe-', errno.EROFS),
    ('mkdir', '/probe-', errno.EACCES),
    ('mkdir', '/supervisor', errno.ENOSPC),
    ('write', '/supervisor/cgroup.procs', errno.EBUSY),
    ('open', '/supervisor/cgroup.procs', errno.EACCES),
    ('write', '/cgroup.subtree_control', errno.EBUSY),
    ('open', '/cgroup.subtree_control', errno.EPERM),
    ('mkdir', '/sergeant-', errno.EAGAIN),
    ('mkdir', '/sergeant-', errno.ENOSPC),
    ('open', '/sergeant-', errno.EACCES),
    ('write', '/sergeant-', errno.EBUSY),
    ('mkdir', '/probe', errno.EAGAIN),
    ('open', '/probe/memory.max', errno.EACCES),
    ('write', '/probe/memory.max', errno.EPERM),
    ('write', '/memory.oom.group', errno.EROFS),
]


@pytest.mark.parametrize(
    ('call', 'part', 'number'), AT_THE_START, ids=[f'{call} {part} {errno.errorcode[n]}' for call, part, n in AT_THE_START]
)
def test_a_fault_at_the_start_is_one_line_and_undone_and_its_status_says_whether_it_may_pass(
    home: Cgroup, tmp_path: Path, faults: Path, call: str, part: str, number: int
) -> None:
    with housed(home, tmp_path, STAYS, environ=fault(faults, call, part, number)) as running:
        line = refusal(running, TRY_AGAIN if number in PASSING else HOST_CANT)
    assert os.strerror(number) in line
    assert str(home.path) in line
    assert part.strip('/').rstrip('-') in line, 'the line names what has failed'
    assert home.below() == set()
    assert home.read('cgroup.subtree_control') == ''


LATER_ON: Final = [('mkdir', errno.EAGAIN), ('mkdir', errno.ENOSPC), ('write', errno.EBUSY), ('open', errno.EACCES)]


@pytest.mark.parametrize(('call', 'number'), LATER_ON, ids=[f'{call} {errno.errorcode[n]}' for call, n in LATER_ON])
def test_a_fault_later_on_is_a_failed_spawn_that_is_tried_again(
    home: Cgroup, tmp_path: Path, faults: Path, call: str, number: int
) -> None:
    environ = fault(faults, call, '/life-', number, 2)
    with housed(home, tmp_path, STAYS, environ=environ, restart_delay='10ms') as running:
        running.wait_for('worker-ready', within=WITHIN)
        failures = running.find('worker-spawn-failed')
        assert len(failures) == 2
        for record in failures:
            assert os.strerror(number) in record['message'] and '/life-' in record['message']
        (worker,) = running.workers()
        (folder,) = [path for path in home.below() if path.name.startswith('sergeant-')]
        assert [path.name for path in folder.iterdir() if path.is_dir()] == [f'life-{worker}']
        assert running.stop(within=WITHIN) == 0
