"""What the README says is so."""

import ast
import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from sergeant_linux.core.policy import Knob, Policy

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()

OTHERS = {
    '--json', '--no-deps', '--version', '--help', '--no-install-recommends', '--shell',
    '--build-arg', '--cap-add', '--force', '--image', '--init', '--install', '--memory-max', '--queue', '--replicas',
    '--supervisor-user', '--systemd-version', '--template', '--catalog', '--security-opt', '--user-unit', '--writable', '--wait', '--pipe',
    '--live', '--no-wait', '--now', '--ready', '--signal', '--timeout', '--watch',
}
"""Options in the README that are not a pool's: of verbs, and of other programs."""


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in that language."""
    return re.findall(rf'^```{language}\n(.*?)^```$', README, re.MULTILINE | re.DOTALL)


def test_the_table_of_options_has_every_option_with_its_default() -> None:
    table = dict(re.findall(r'^\| `(--[a-z-]+)(?: [^`]*)?` \| ([^|]*) \| .*\|$', README, re.MULTILINE))

    knobs: list[tuple[Knob, object]] = [(each.metadata['knob'], each.default) for each in fields(Policy)]
    expected = {
        knob.flag: 'required' if default is MISSING else knob.kind.show(default) for knob, default in knobs
    }
    assert expected == table


def test_no_other_option_is_named() -> None:
    flags = {each.metadata['knob'].flag for each in fields(Policy)}

    assert set(re.findall(r'--[a-z][a-z-]+[a-z]', README)) <= flags | OTHERS


def commands(verb: str) -> list[list[str]]:
    """Return the arguments of every `sergeant-linux VERB …` in the README's shell blocks."""
    lines = '\n'.join(blocks('sh')).replace('\\\n', ' ').splitlines()
    return [shlex.split(line.partition('>')[0])[1:] for line in lines if line.startswith(f'sergeant-linux {verb} ')]


@pytest.mark.parametrize('argv', [*commands('unit'), *commands('deploy')], ids=' '.join)
def test_the_commands_that_print_something_print_it(argv: list[str], tmp_path: Path) -> None:
    argv = [word.replace('--user=hash', '--user=nobody') for word in argv]  # a user that every host has
    main = 'from sergeant_linux.cli.main import main; main()'
    environ = os.environ | {'PYTHONPATH': str(ROOT)}

    done = subprocess.run([sys.executable, '-c', main, *argv], cwd=tmp_path, env=environ, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert 'hash_worker' in done.stdout


@pytest.mark.parametrize('code', blocks('python'))
def test_the_code_is_python(code: str) -> None:
    ast.parse(code)


def test_the_first_pool_does_its_task(tmp_path: Path) -> None:
    # given the worker, and a task from its producer
    worker, producer = blocks('python')[:2]
    (tmp_path / 'hash_worker.py').write_text(worker)
    command = next(block for block in blocks('sh') if 'sergeant_linux.supervisor' in block)
    environ = os.environ | {'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1'}
    subprocess.run([sys.executable, '-c', producer], cwd=tmp_path, env=environ, check=True)

    # when the pool is started as the README says, and Ctrl-C is pressed when its first line has come
    log = tmp_path / 'log'
    with log.open('wb') as stderr:
        supervisor = subprocess.Popen(
            [sys.executable, *shlex.split(command)[1:]],
            cwd=tmp_path,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    try:
        assert supervisor.stdout is not None
        first_line = supervisor.stdout.readline().decode()
        supervisor.send_signal(signal.SIGINT)
        supervisor.wait(15)
    finally:
        supervisor.kill()
        supervisor.communicate()

    # then the task is done, and the pool stops
    digest = hashlib.sha256(Path('/etc/hostname').read_bytes()).hexdigest()
    assert (first_line, supervisor.returncode) == (f'{digest} /etc/hostname\n', 0), log.read_text()
