"""A pool whose cgroup is frozen (cgroup.freeze), alone or with all that is above it: no worker is ended for that."""

import signal
import time
from pathlib import Path
from typing import Final

import pytest

from tests.lab.conftest import Cgroup
from tests.lab.housing import WITHIN, housed
from tests.scenarios.pool import wait_until

pytestmark = pytest.mark.timeout(600)

STARTS_AT_A_CUE: Final = """
    import os, time

    open('importing', 'w').close()
    while not os.path.exists('cue'):
        time.sleep(0.01)

    def Worker():
        time.sleep(1000)
"""

LEAVES_AT_A_CUE: Final = """
    import os, signal, sys, time

    def Worker():
        signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'told' + bytes([10])))
        print('here', flush=True)
        while not os.path.exists('cue'):
            time.sleep(0.01)
        sys.exit(0)
"""

TIMEOUT: Final = 20.0
"""Seconds to start or to stop, on the slow kernel of the lab."""


def freeze(cgroup: Cgroup, seconds: float) -> None:
    """Freeze it for so long; that time passes is what is tested."""
    cgroup.write('cgroup.freeze', '1')
    wait_until(lambda: 'frozen 1' in cgroup.read('cgroup.events'), 'the freeze', WITHIN)
    time.sleep(seconds)
    cgroup.write('cgroup.freeze', '0')


def folder(home: Cgroup) -> Cgroup:
    """Return the cgroup of the one pool in here."""
    (path,) = home.path.glob('sergeant-*')
    return Cgroup(path)


def test_a_worker_that_starts_has_its_time_when_the_pool_was_frozen(home: Cgroup, tmp_path: Path) -> None:
    with housed(home, tmp_path, STARTS_AT_A_CUE, light=True, timeout_start=f'{TIMEOUT}s') as running:
        wait_until(lambda: (tmp_path / 'importing').exists(), 'a worker that starts', WITHIN)
        freeze(folder(home), TIMEOUT + 2)
        running.wait_for('thawed', within=WITHIN)

        (tmp_path / 'cue').touch()

        running.wait_for('worker-ready', within=WITHIN)
        assert not running.find('worker-start-timeout')
        assert running.stop(within=WITHIN) == 0


def test_a_worker_that_stops_has_its_time_when_the_pool_was_frozen(home: Cgroup, tmp_path: Path) -> None:
    with housed(home, tmp_path, LEAVES_AT_A_CUE, light=True, timeout_stop=f'{TIMEOUT}s') as running:
        running.hear('here', within=WITHIN)
        running.send(signal.SIGTERM)
        running.hear('told', within=WITHIN)
        freeze(folder(home), TIMEOUT + 2)

        (tmp_path / 'cue').touch()

        assert running.exit_status(within=WITHIN) == 0
        (ending,) = running.find('worker-exit')
        assert (ending['return_code'], ending['signal']) == (0, None)


def test_a_frozen_pool_is_killed_by_a_second_signal(home: Cgroup, tmp_path: Path) -> None:
    with housed(home, tmp_path, LEAVES_AT_A_CUE, light=True) as running:
        running.hear('here', within=WITHIN)
        folder(home).write('cgroup.freeze', '1')
        running.wait_for('frozen', within=WITHIN)
        running.send(signal.SIGTERM)
        running.wait_for('stop', within=WITHIN)
        running.send(signal.SIGQUIT)

        assert running.exit_status(within=WITHIN) == 0


def test_a_worker_that_starts_has_its_time_when_all_was_frozen(home: Cgroup, tmp_path: Path) -> None:
    with housed(home, tmp_path, STARTS_AT_A_CUE, light=True, timeout_start=f'{TIMEOUT}s') as running:
        wait_until(lambda: (tmp_path / 'importing').exists(), 'a worker that starts', WITHIN)
        freeze(home, TIMEOUT + 2)
        running.wait_for('paused', within=WITHIN)

        (tmp_path / 'cue').touch()

        running.wait_for('worker-ready', within=WITHIN)
        assert not running.find('worker-start-timeout')
        assert running.stop(within=WITHIN) == 0
