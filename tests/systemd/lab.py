"""Where these tests may run: in `vagrant/lab --systemd`, a machine that is thrown away.

Facts: they make units, kill them, fill a cgroup until the kernel kills; on a machine that somebody needs that is rude,
and few have systemd, podman and cgroup v2 together.
Consequence: outside of the lab they skip and say so. In the lab nothing may skip, or nobody would see what is not tested.
"""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import pytest

IN_LAB: Final = 'SERGEANT_LAB_SYSTEMD' in os.environ
"""Set by `vagrant/lab --systemd`."""

CHECKOUT: Final = Path(__file__).parents[2]

PYTHON: Final = '/opt/lab/bin/python'
"""The lab's and its containers'; `sergeant-linux` lies beside it."""

DEADLINE: Final = 90.0
"""How long, in seconds, a test waits for something; the lab is slow, and shares a machine with others."""

USER: Final = 'crawler'
"""The lab's user without rights."""

T = TypeVar('T')


def require(*programs: str) -> None:
    """Skip outside of the lab; in it, fail when something is missing that it should have."""
    if not IN_LAB:
        pytest.skip('for a machine that is thrown away: make lab-systemd')
    lacks = [program for program in programs if shutil.which(program) is None]
    assert not lacks, f'the lab has no {", ".join(lacks)}'


def run(*command: str, check: bool = True, cwd: Path | None = None, told: Callable[[], str] = str) -> str:
    """Run a command to its end, return what it says; when it fails, so does the test, with all of it, and `told`."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, cwd=cwd)
    assert not check or done.returncode == 0, f'{command} -> {done.returncode}\n{done.stdout}\n{done.stderr}\n{told()}'
    return done.stdout


def as_user(*command: str) -> list[str]:
    """Return a command that `USER` would give, who is logged in."""
    user = pwd.getpwnam(USER)
    who = [f'HOME={user.pw_dir}', f'USER={USER}', f'LOGNAME={USER}', f'XDG_RUNTIME_DIR=/run/user/{user.pw_uid}']
    become = ['setpriv', f'--reuid={user.pw_uid}', f'--regid={user.pw_gid}', '--init-groups']
    return [*become, 'env', '-i', f'PATH={os.environ["PATH"]}', 'LANG=C.UTF-8', *who, *command]


def wait_until(look: Callable[[], T | None], what: str, told: Callable[[], str] = str) -> T:
    """Wait until `look` gives something true, and return it; when it doesn't, `told` says what is known."""
    deadline = time.monotonic() + DEADLINE
    while not (found := look()):
        assert time.monotonic() < deadline, f'waited {DEADLINE:g} s in vain for {what}\n{told()}'
        time.sleep(0.2)  # to look is not cheap, with one processor
    return found
