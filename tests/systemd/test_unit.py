"""A pool in a unit of systemd: the README's unit, on a real systemd, with the memory controller delegated to it."""

import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.systemd.lab import CHECKOUT, DEADLINE, PYTHON, run, wait_until
from tests.systemd.unit import Unit

pytestmark = pytest.mark.timeout(600)

USER: Final = 'crawler'

LIMIT: Final = 64 << 20

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
    """A folder with a worker's module; `modules` lets the pool's command line find it."""

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
    """The folder of the README's unit, with a worker's module of its name, and its Python where the unit looks for it."""
    folder = Path('/srv/hash')
    folder.mkdir()
    (folder / 'hash_worker.py').write_text(textwrap.dedent(WORKER))
    (folder / '.venv').symlink_to(Path(PYTHON).parents[1])
    shutil.chown(folder, USER, USER)
    yield Site(folder)
    shutil.rmtree(folder)


def readme_unit() -> str:
    """Return the README's unit, for our user."""
    readme = (CHECKOUT / 'README.md').read_text()
    found = re.search(r'^```ini\n(\[Unit\].*?)^```$', readme, re.MULTILINE | re.DOTALL)
    assert found is not None
    text, count = re.subn(r'^User=.*$', f'User={USER}', found[1], flags=re.MULTILINE)
    assert count == 1
    return text


@pytest.fixture
def unit(site: Site, install: Callable[[str, str], Unit]) -> Unit:
    """The README's unit, installed; its log as records, and a limit for each worker."""
    unit = install('hash', readme_unit())
    unit.add(
        f'[Service]\nEnvironment=SERGEANT_LINUX_LOG_FORMAT=json SERGEANT_LINUX_MAX_WORKER_MEMORY_USAGE={LIMIT}\n'
    )
    return unit


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


def test_the_unit_of_the_readme_starts_and_stops(unit: Unit, site: Site) -> None:
    unit.start()
    workers = site.wait_for_workers(4, unit.told)
    cgroup = unit.cgroup()
    assert cgroup is not None
    assert {os.stat(f'/proc/{pid}').st_uid for pid in [unit.main_pid(), *workers]} == {os.stat(site.folder).st_uid}

    unit.stop()

    assert (unit.show('ActiveState'), unit.show('Result'), unit.show('ExecMainStatus')) == ('inactive', 'success', '0')
    assert sorted(record['request'] for record in unit.records('worker-exit')) == ['stop'] * 4, unit.told()
    assert not cgroup.exists()
    assert_gone(*workers, told=unit.told)


def test_a_supervisor_that_is_killed_leaves_nothing_and_systemd_starts_it_again(unit: Unit, site: Site) -> None:
    unit.start()
    before = site.wait_for_workers(4, unit.told)
    supervisor = unit.main_pid()

    unit.kill('SIGKILL')

    after = site.wait_for_workers(4, unit.told, but=set(before))
    assert_gone(supervisor, *before, told=unit.told)
    assert (unit.show('NRestarts'), unit.show('ActiveState')) == ('1', 'active')
    assert unit.main_pid() != supervisor
    cgroup = unit.cgroup()
    assert cgroup is not None
    pools = list(cgroup.glob('sergeant-*'))
    assert [pool for pool in pools if all(unit.cgroup_of(pid).is_relative_to(pool) for pid in after)] == pools


def test_a_worker_that_the_kernel_kills_for_its_memory_leaves_the_unit_active(unit: Unit, site: Site) -> None:
    unit.start()
    before = site.wait_for_workers(4, unit.told)
    supervisor = unit.main_pid()

    site.feed(2)

    after = wait_until(
        lambda: (pids := site.wait_for_workers(4, unit.told))[2] != before[2] and pids, 'another worker in slot 2', unit.told
    )
    assert isinstance(after, list)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, True, False, True]
    assert (unit.show('ActiveState'), unit.show('Result'), unit.main_pid()) == ('active', 'success', supervisor)
    [end] = unit.records('worker-exit')
    assert (end['slot'], end['result'], end['memory']['oom_scope']) == (2, 'oom-kill', 'worker')


def test_the_doctor_in_the_unit_sees_the_delegation(unit: Unit, site: Site) -> None:
    text = re.sub(r'^(ExecStart=\S+) run', r'\1 doctor', readme_unit(), flags=re.MULTILINE)
    unit.install(text.replace('[Service]', '[Service]\nType=oneshot').replace('Restart=on-failure', ''))

    unit.start()

    told = '\n'.join(unit.journal())
    assert re.search(r'ok +delegation .* delegated by systemd', told), told
    assert re.search(r'ok +backend +memory is bounded by the kernel', told), told
    assert unit.show('Result') == 'success'


def test_the_unit_of_the_readme_is_one_that_systemd_has_nothing_to_say_about(unit: Unit) -> None:
    done = subprocess.run(['systemd-analyze', 'verify', str(unit.file)], capture_output=True, text=True, timeout=DEADLINE)

    assert (done.returncode, done.stderr) == (0, '')
    assert run('systemctl', 'cat', unit.name)
