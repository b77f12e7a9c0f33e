"""A pool in a unit of a user's own manager, as `sergeant-linux unit --user-unit --install` makes it."""

import json
import os
import pwd
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.systemd.lab import USER, as_user, run, wait_until
from tests.systemd.unit import Unit

pytestmark = pytest.mark.timeout(600)

LIMIT: Final = 64 << 20

WORKER: Final = """
    import time

    class Worker:
        def run(self):
            time.sleep(1000)
"""


@pytest.fixture
def folder(machine: None) -> Iterator[Path]:
    """A folder with a worker's module, of a user whose manager runs without a session."""
    user = pwd.getpwnam(USER)
    run('loginctl', 'enable-linger', USER)
    wait_until(lambda: Path(f'/run/user/{user.pw_uid}/systemd/private').exists(), "the user's manager")
    folder = Path(user.pw_dir, 'own')
    folder.mkdir()
    (folder / 'own_worker.py').write_text(textwrap.dedent(WORKER))
    yield folder
    shutil.rmtree(folder)
    run('loginctl', 'disable-linger', USER)
    run('systemctl', 'stop', f'user@{user.pw_uid}.service')


@pytest.fixture
def unit(folder: Path) -> Iterator[Unit]:
    """The unit, installed by its user."""
    command = ['sergeant-linux', 'unit', '--worker-module=own_worker', '--worker-class=Worker', '--name=own']
    options = ['--concurrent-workers=2', f'--max-worker-memory-usage={LIMIT}', '--log-format=json']
    run(*as_user(*command, *options, '--user-unit', '--install'), cwd=folder)
    unit = Unit('own', of_user=True)
    yield unit
    unit.systemctl('stop', check=False)
    Path('~crawler/.config/systemd/user/own.service').expanduser().unlink()


def status() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run(*as_user('sergeant-linux', 'status', '--json')))
    return told


def test_a_unit_of_a_user_has_all_that_one_of_the_system_has(unit: Unit) -> None:
    unit.start()

    told = wait_until(lambda: ((now := status())['ready'] == 2 and now) or None, 'two workers', unit.told)
    assert told['backend'] == {'memory': 'cgroup', 'containment': 'cgroup', 'why_not': None}
    cgroup = unit.cgroup()
    assert cgroup is not None
    before = [slot['pid'] for slot in told['slots']]
    for pid in before:
        leaf = unit.cgroup_of(pid)
        assert os.stat(leaf).st_uid == pwd.getpwnam(USER).pw_uid
        assert leaf.is_relative_to(cgroup), unit.told()
        assert (leaf / 'memory.max').read_text() == f'{LIMIT}\n'

    run(*as_user('sergeant-linux', 'scale', '3'))
    unit.systemctl('reload')

    told = wait_until(
        lambda: ((now := status())['generation'] == 2 and now['state'] == 'running' and now) or None, 'the reload', unit.told
    )
    assert (told['ready'], unit.show('ActiveState'), unit.show('NRestarts')) == (3, 'active', '0')
    assert not set(before) & {slot['pid'] for slot in told['slots']}

    unit.stop()

    assert unit.shows('ActiveState', 'Result', 'ExecMainStatus') == ('inactive', 'success', '0')
    assert not cgroup.exists()
