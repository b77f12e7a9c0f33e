"""vagrant/lab --systemd, from the outside: the same manners as the lab's, and a disk that stays as it is."""

import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.test_lab_command import LAB, assert_nothing_is_left, place, processes, run, start

__all__ = ['place']

CHECKOUT: Final = Path(__file__).parents[1]

WITHIN: Final = 240.0


def disk() -> Path | None:
    """Return the disk, if it has been built."""
    if platform.machine() != 'x86_64' or shutil.which('linux.uml') is None or shutil.which('apt-get') is None:
        return None
    where = subprocess.run([sys.executable, LAB.parent / 'image.py', '--where'], capture_output=True, text=True)
    found = Path(where.stdout.strip())
    return found if where.returncode == 0 and found.is_file() else None


pytestmark = [
    pytest.mark.slow,  # a boot takes 10 s and more
    pytest.mark.skipif(disk() is None, reason='there is no disk yet: make lab-systemd'),
    pytest.mark.timeout(300),
]


def test_output_error_and_exit_status_come_back_from_a_machine_with_systemd(place: Path) -> None:
    script = 'cat /proc/1/comm; pwd; echo "$@"; readlink /proc/self/fd/0; echo oh >&2; systemctl --failed --quiet; exit 42'

    status, out, err = run('--systemd', '--', 'sh', '-c', script, 'sh', 'a b', '$HOME', "'", cwd=CHECKOUT, within=WITHIN)

    assert (status, err) == (42, 'oh\n')
    assert out == f"systemd\n{CHECKOUT}\na b $HOME '\n/dev/null\n"
    assert_nothing_is_left(place)


def test_what_is_written_is_forgotten_but_for_the_scratch_folder(tmp_path: Path) -> None:
    image = disk()
    assert image is not None
    before = image.stat()
    other = CHECKOUT / 'forgotten'
    script = f'echo after | tee {tmp_path}/result {other} /etc/forgotten; sync; cat {other} /etc/forgotten'

    status, out, _ = run('--systemd', '--scratch', str(tmp_path), '--', 'sh', '-c', script, cwd=CHECKOUT, within=WITHIN)

    assert (status, out) == (0, 'after\n' * 3)
    assert (tmp_path / 'result').read_text() == 'after\n'
    assert not other.exists()
    assert (image.stat().st_mtime_ns, image.stat().st_blocks) == (before.st_mtime_ns, before.st_blocks)


def test_a_command_that_is_killed_with_its_unit_ends_the_machine(place: Path) -> None:
    status, out, err = run('--systemd', '--', 'systemctl', 'kill', '--signal=KILL', 'lab.service', cwd=CHECKOUT, within=WITHIN)

    assert (status, out) == (125, '')
    assert err.startswith('lab: the machine has ended before the command')
    assert_nothing_is_left(place)


def test_a_lab_that_is_killed_leaves_no_process_and_no_file(place: Path) -> None:
    with start('--systemd', '--', 'sh', '-c', 'echo started; sleep 600', cwd=CHECKOUT) as lab:
        assert lab.stdout is not None
        assert lab.stdout.readline() == 'started\n'
        assert len(processes(place)) > 2

        lab.send_signal(signal.SIGKILL)

    assert lab.returncode == -signal.SIGKILL
    assert_nothing_is_left(place)


def test_wrong_usage_is_told_in_one_line(tmp_path: Path) -> None:
    status, out, err = run('--systemd', '--user', 'nobody', '--', 'true', cwd=CHECKOUT, within=WITHIN)
    assert (status, out, err.count('\n')) == (125, '', 1)
    assert err.startswith('lab: --user goes without --systemd')

    status, out, err = run('--systemd', '--', 'true', cwd=tmp_path)
    assert (status, out, err.count('\n')) == (125, '', 1)
    assert err.startswith(f'lab: with --systemd the working folder must be in the checkout, {CHECKOUT}')


def test_what_is_missing_for_the_disk_is_told_with_the_package_that_has_it(tmp_path: Path) -> None:
    environ = {'PATH': os.environ['PATH'], 'XDG_CACHE_HOME': str(tmp_path)}
    image = subprocess.run(
        [sys.executable, LAB.parent / 'image.py'], env={**environ, 'PATH': str(tmp_path)}, capture_output=True, text=True
    )

    assert (image.returncode, image.stdout) == (125, '')
    assert image.stderr == 'image: unshare is missing: apt-get install util-linux\n'
    assert not list((tmp_path / 'sergeant-linux-lab').glob('*.ext4'))
