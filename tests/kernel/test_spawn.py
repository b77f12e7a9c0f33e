"""A helper's interpreter: which modules it finds, and which options it has."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.processes import REPOSITORY

PROBE = """
import json, sys

def main(arguments):
    flags = {name: getattr(sys.flags, name) for name in dir(sys.flags) if name[0] != '_' and not callable(getattr(sys.flags, name))}
    print(json.dumps({'flags': flags, 'xoptions': sys._xoptions, 'warnoptions': sys.warnoptions, 'path': sys.path,
                      'arguments': arguments, 'unbuffered': sys.stdout.write_through}))
"""

ASK = """
import os, sys
sys.path.append({root!r})
from sergeant_linux.kernel import spawn
sys.stdout.flush()
command = spawn.command_line('sergeant_linux.probe', ['a', 'b c'])
os.execv(command[0], command)
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The package in a folder of its own, with a module beside the others that tells what it finds."""
    root = tmp_path / 'installed'
    (root / 'sergeant_linux').mkdir(parents=True)
    for each in (REPOSITORY / 'sergeant_linux').iterdir():
        if each.name != '__pycache__':
            (root / 'sergeant_linux' / each.name).symlink_to(each)
    (root / 'sergeant_linux' / '__init__.py').unlink()
    (root / 'sergeant_linux' / '__init__.py').write_text((REPOSITORY / 'sergeant_linux' / '__init__.py').read_text())
    for name in ('kernel',):
        (root / 'sergeant_linux' / name).unlink()
        (root / 'sergeant_linux' / name).mkdir()
        for each in (REPOSITORY / 'sergeant_linux' / name).glob('*.py'):
            (root / 'sergeant_linux' / name / each.name).write_text(each.read_text())
    (root / 'sergeant_linux' / 'probe.py').write_text(PROBE)
    return root


def helper_of(installed: Path, *options: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    """Return what a helper of an interpreter with these options finds."""
    code = ASK.format(root=str(installed))
    kept = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}
    done = subprocess.run(
        [sys.executable, *options, '-c', code], env={**kept, **(environ or {})}, cwd=installed.parent,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def itself(*options: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    """Return what an interpreter with these options says of itself."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}
    done = subprocess.run(
        [sys.executable, *options, '-c', PROBE + '\nmain([])'], env={**kept, **(environ or {})},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


OPTIONS = [
    [], ['-O'], ['-OO'], ['-W', 'error::UserWarning', '-W', 'ignore::DeprecationWarning:json'], ['-P'], ['-I'], ['-E'],
    ['-s'], ['-S'], ['-B'], ['-d'], ['-b'], ['-bb'], ['-u'], ['-X', 'faulthandler'], ['-X', 'dev'], ['-X', 'utf8'],
    ['-X', 'utf8=0'], ['-X', 'int_max_str_digits=1000'], ['-X', 'mine=a=b'],
    ['-OO', '-b', '-W', 'once', '-X', 'dev', '-P', '-s', '-X', 'faulthandler'], ['-I', '-W', 'error::UserWarning'],
]  # fmt: skip


@pytest.mark.parametrize('options', OPTIONS, ids=' '.join)
def test_a_helper_has_the_options_of_the_interpreter_that_starts_it(installed: Path, options: list[str]) -> None:
    helper, own = helper_of(installed, *options), itself(*options)

    for what in ('flags', 'xoptions', 'warnoptions', 'unbuffered'):
        assert helper[what] == own[what], what


@pytest.mark.parametrize('environ', [
    {'PYTHONWARNINGS': 'error::UserWarning,once'}, {'PYTHONDEVMODE': '1'}, {'PYTHONOPTIMIZE': '2'},
    {'PYTHONSAFEPATH': '1'}, {'PYTHONUNBUFFERED': '1'}, {'PYTHONUTF8': '1'},
])
def test_and_what_the_environment_says_is_not_said_twice(installed: Path, environ: dict[str, str]) -> None:
    helper, own = helper_of(installed, '-W', 'ignore', environ=environ), itself('-W', 'ignore', environ=environ)

    assert (helper['flags'], helper['warnoptions']) == (own['flags'], own['warnoptions'])


def test_modules_of_the_standard_library_are_its_own_whatever_lies_beside_our_package(installed: Path) -> None:
    for name in ('enum', 'typing', 'dataclasses', 'json', 'socket', 'signal', 'runpy', 'importlib'):
        (installed / f'{name}.py').write_text(f'raise SystemExit("{name} of 2013")')
    told = helper_of(installed)

    assert told['arguments'] == ['a', 'b c']
    assert str(installed) not in told['path'] and '' not in told['path'] and str(installed.parent) not in told['path']
