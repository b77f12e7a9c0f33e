"""A pool in a unit of systemd, as `sergeant-linux unit` writes it, on a real systemd and a kernel that bounds memory."""

import json
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from sergeant_linux.kernel import procfs
from tests.systemd.lab import DEADLINE, PYTHON, USER, as_user, run, wait_until
from tests.systemd.unit import Unit

pytestmark = pytest.mark.timeout(600)

LIMIT: Final = 64 << 20

WORKERS: Final = 2

WORKER: Final = '''
    import os, time

    SLOT = os.environ['SERGEANT_WORKER_SLOT']

    class Worker:
        """Writes down its pid, and stays; where a file `hog-SLOT` is, it takes that away and eats memory."""

        def run(self):
            with open(f'new-{SLOT}', 'w') as file:
                file.write(str(os.getpid()))
            os.rename(f'new-{SLOT}', f'worker-{SLOT}')
            while not os.path.exists(f'hog-{SLOT}'):
                time.sleep(0.05)
            os.unlink(f'hog-{SLOT}')
            kept = []
            while True:
                kept.append(b'x' * (10 << 20))
'''


class Site:
    """The working folder of a pool: where its workers tell who they are, and are told what to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def worker(self, slot: int) -> int | None:
        """Return the pid that the worker of a slot has written down, if its process is there."""
        try:
            pid = int((self.folder / f'worker-{slot}').read_text())
        except FileNotFoundError:
            return None
        return pid if Path(f'/proc/{pid}').exists() else None

    def wait_for_workers(self, count: int, told: Callable[[], str], *, but: set[int] | None = None) -> list[int]:
        """Wait until each slot has a running worker, none of them one of `but`; return their pids."""

        def look() -> list[int] | None:
            pids = [pid for slot in range(count) if (pid := self.worker(slot))]
            return pids if len(pids) == count and not set(pids) & (but or set()) else None

        return wait_until(look, f'{count} workers', told)

    def feed(self, slot: int) -> None:
        """Let the worker of a slot eat memory without end."""
        (self.folder / f'hog-{slot}').touch()


@pytest.fixture
def site(machine: None) -> Iterator[Site]:
    """A folder with a worker's module, the user's."""
    folder = Path('/srv/hash')
    folder.mkdir()
    (folder / 'hash_worker.py').write_text(textwrap.dedent(WORKER))
    shutil.chown(folder, USER, USER)
    yield Site(folder)
    shutil.rmtree(folder)


@pytest.fixture
def text(site: Site) -> str:
    """The unit that `sergeant-linux unit` prints for a pool in that folder."""
    return run(
        'sergeant-linux', 'unit', '--worker-module=hash_worker', '--worker-class=Worker', f'--concurrent-workers={WORKERS}', '--name=hash',
        f'--user={USER}', f'--writable={site.folder}', f'--max-worker-memory-usage={LIMIT}', '--log-format=json',
        cwd=site.folder,
    )  # fmt: skip


@pytest.fixture
def unit(text: str, install: Callable[[str, str], Unit]) -> Unit:
    """It, installed."""
    return install('hash', text)


def assert_gone(*pids: int, told: Callable[[], str]) -> None:
    for pid in pids:
        wait_until(lambda pid=pid: not Path(f'/proc/{pid}').exists(), f'the end of {pid}', told)  # type: ignore[misc]


def test_a_pool_in_a_transient_unit_is_bounded_by_the_kernel_and_stops_with_0(site: Site) -> None:
    unit = Unit('transient')
    command = [
        'systemd-run', '--quiet', '--wait', '--collect', f'--unit={unit.name}', f'--property=User={USER}', '--property=Delegate=yes',
        '--property=KillMode=mixed', f'--working-directory={site.folder}',
        f'{PYTHON}', '-m', 'sergeant_linux.supervisor', '--worker-module=hash_worker', '--worker-class=Worker',
        '--concurrent-workers=2', '--memory-backend=cgroup', f'--max-worker-memory-usage={LIMIT}',
    ]  # fmt: skip
    with subprocess.Popen(command) as waiting:
        try:
            workers = site.wait_for_workers(2, unit.told)
            cgroup = unit.cgroup()
            assert cgroup is not None
            leaves = [unit.cgroup_of(pid) for pid in workers]
            assert len(set(leaves)) == 2
            for leaf in leaves:
                assert leaf.is_relative_to(cgroup)
                assert (leaf / 'memory.max').read_text() == f'{LIMIT}\n'

            unit.stop()

            assert waiting.wait(DEADLINE) == 0
        finally:
            waiting.kill()
            unit.remove()
    assert not cgroup.exists()
    assert_gone(*workers, told=unit.told)


def adjustment(pid: int) -> int:
    """Return its oom_score_adj."""
    return int(Path(f'/proc/{pid}/oom_score_adj').read_text())


def test_the_unit_starts_and_stops(unit: Unit, site: Site) -> None:
    unit.start()
    workers = site.wait_for_workers(WORKERS, unit.told)
    cgroup = unit.cgroup()
    assert cgroup is not None
    assert {os.stat(f'/proc/{pid}').st_uid for pid in [unit.main_pid(), *workers]} == {os.stat(site.folder).st_uid}
    helpers = {*(procfs.children(unit.main_pid()) or ())} - {*workers}
    assert len(helpers) >= 2
    assert {adjustment(pid) for pid in [unit.main_pid(), *helpers]} == {-900}, 'the OOM killer takes workers first'
    assert {adjustment(pid) for pid in workers} == {0}

    unit.stop()

    assert (unit.show('ActiveState'), unit.show('Result'), unit.show('ExecMainStatus')) == ('inactive', 'success', '0')
    assert sorted(record['request'] for record in unit.records('worker-exit')) == ['stop'] * WORKERS, unit.told()
    assert not cgroup.exists()
    assert_gone(*workers, told=unit.told)


def test_a_supervisor_that_is_killed_or_hangs_leaves_nothing_and_systemd_starts_it_again(unit: Unit, site: Site) -> None:
    unit.add('[Service]\nWatchdogSec=8\nRestartSec=1\n')
    unit.start()
    for restarts, (name, result) in enumerate([('SIGKILL', 'signal'), ('SIGSTOP', 'watchdog')], 1):
        before = site.wait_for_workers(WORKERS, unit.told)
        supervisor = unit.main_pid()

        unit.kill(name)

        after = site.wait_for_workers(WORKERS, unit.told, but=set(before))
        assert_gone(supervisor, *before, told=unit.told)
        unit.wait_for('ActiveState', 'active')
        assert (unit.show('NRestarts'), unit.main_pid() != supervisor) == (str(restarts), True)
        assert f"{unit.name}: Failed with result '{result}'." in unit.of_systemd()
        cgroup = unit.cgroup()
        assert cgroup is not None
        pools = list(cgroup.glob('sergeant-*'))
        assert len(pools) == 1
        assert all(unit.cgroup_of(pid).is_relative_to(pools[0]) for pid in after)


def test_a_worker_that_the_kernel_kills_for_its_memory_leaves_the_unit_active(unit: Unit, site: Site) -> None:
    unit.start()
    before = site.wait_for_workers(WORKERS, unit.told)
    supervisor = unit.main_pid()

    site.feed(1)

    after = site.wait_for_workers(WORKERS, unit.told, but={before[1]})
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]
    assert (unit.show('ActiveState'), unit.show('Result'), unit.main_pid()) == ('active', 'success', supervisor)
    [end] = unit.records('worker-exit')
    assert (end['slot'], end['result'], end['memory']['oom_scope']) == (1, 'oom-kill', 'worker')
    # the result is known to who may ask: root, and the pool's user, who both find the socket in the unit's own folder
    told = json.loads(run('sergeant-linux', 'status', '--json'))
    assert [slot['last_result'] for slot in told['slots']] == [None, 'oom-kill']
    [event] = [
        event
        for event in map(json.loads, run(*as_user('sergeant-linux', 'events', '--name=hash', '--json')).splitlines())
        if event['event'] == 'worker-exit'
    ]
    assert event['fields']['result'] == 'oom-kill'
    assert 'exceeded the maximum memory limit' in unit.show('StatusText')


def test_a_unit_without_delegation_says_so_and_polls_memory(unit: Unit, site: Site) -> None:
    unit.add('[Service]\nDelegate=no\n')
    unit.start()
    before = site.wait_for_workers(WORKERS, unit.told)

    site.feed(1)

    site.wait_for_workers(WORKERS, unit.told, but={before[1]})
    [end] = unit.records('worker-exit')
    assert (end['slot'], end['result'], end['memory']['backend']) == (1, 'memory-max', 'rss')
    said = [line for line in unit.journal() if 'memory is bounded by polling' in line]
    assert len(said) == 1
    assert 'not delegated' in said[0] and 'Delegate=yes' in said[0]
    assert 'memory by rss' in unit.show('StatusText')


def test_the_doctor_in_the_unit_sees_the_delegation(text: str, install: Callable[[str, str], Unit]) -> None:
    doctor = str(Path(PYTHON).with_name('sergeant-linux')) + ' doctor'
    text, count = re.subn(r'^ExecStart=.* -m sergeant_linux.supervisor', f'ExecStart={doctor}', text, flags=re.MULTILINE)
    assert count == 1
    unit = install('hash', text)
    unit.add('[Service]\nType=oneshot\nRestart=no\n')

    unit.start()

    told = '\n'.join(unit.journal())
    assert re.search(r'ok +delegation .* delegated by systemd', told), told
    assert re.search(r'ok +backend +memory is bounded by the kernel', told), told
    assert unit.show('Result') == 'success'


def test_systemd_has_nothing_to_say_about_the_unit(unit: Unit) -> None:
    done = subprocess.run(['systemd-analyze', 'verify', str(unit.file)], capture_output=True, text=True, timeout=DEADLINE)

    assert (done.returncode, done.stderr) == (0, '')
