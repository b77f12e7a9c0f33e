"""The lab itself: what the other tests here take for granted."""

import pwd
from pathlib import Path

from tests.systemd.lab import CHECKOUT, PYTHON, run, wait_until


def test_systemd_is_process_1_and_everything_has_started() -> None:
    assert Path('/proc/1/comm').read_text() == 'systemd\n'
    # a unit that a unit has just started is one more job
    wait_until(
        lambda: run('systemctl', 'is-system-running', check=False) == 'running\n',
        'the machine to be running', lambda: run('systemctl', 'list-jobs') + run('systemctl', '--failed'),
    )  # fmt: skip


def test_the_kernel_has_the_controllers_on_cgroup_v2() -> None:
    controllers = Path('/sys/fs/cgroup/cgroup.controllers').read_text().split()

    assert {'cpu', 'io', 'memory', 'pids'} <= set(controllers)


def test_the_project_is_the_checkout_and_a_user_without_rights_can_read_it() -> None:
    code = 'import os, sergeant, psutil, prctl, redis, sergeant_linux; print(os.getuid(), sergeant_linux.__file__)'

    said = run('setpriv', '--reuid=crawler', '--regid=crawler', '--clear-groups', PYTHON, '-c', code)

    assert said.split() == [str(pwd.getpwnam('crawler').pw_uid), str(CHECKOUT / 'sergeant_linux/__init__.py')]
