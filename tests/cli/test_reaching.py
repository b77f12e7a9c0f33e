"""Which pool is meant, and what is said when it can't be reached."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.recorded import STATUS
from tests.cli.stand_in import COMMAND, StandIn, raising, say, stand_in, surroundings

HEALTHY = {'live': True, 'ready': True, 'reason': None}

AS_NOBODY = (  # who may not read where this Python lies: what is needed is imported before
    'import locale, os; from sergeant_linux.cli import main, terminal; from sergeant_linux.cli.verbs import ps, status;'
    'os.setgroups([]); os.setgid(65534); os.setuid(65534); main.main()'
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason='only root can be somebody else')


def alone(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command where no pool of this host is seen but those in the folders of the environment."""
    return subprocess.run(
        ['unshare', '--net', '--mount', 'sh', '-ec', 'mount -t tmpfs none /run; exec "$@"', 'sh', *COMMAND, *argv],
        env=surroundings(**environ), capture_output=True, text=True, timeout=60, check=False,
    )


can_be_alone = pytest.mark.skipif(
    subprocess.run(
        ['unshare', '--net', '--mount', 'mount', '-t', 'tmpfs', 'none', '/run'], capture_output=True, check=False
    ).returncode != 0,
    reason='pools of this host that are not ours can be hidden by root alone',
)


# How a pool is named


@pytest.mark.parametrize(('argv', 'environ', 'asked'), [
    (['--name', '{A}'], {}, 'a'),
    (['--name', '{A}'], {'SERGEANT_LINUX_NAME': '{B}'}, 'a'),
    (['--name', '{A}'], {'SERGEANT_LINUX_CONTROL_SOCKET': '{b}'}, 'a'),
    (['--control-socket', '{a}'], {'SERGEANT_LINUX_NAME': '{B}'}, 'a'),
    (['--control-socket', '{a}'], {'SERGEANT_LINUX_CONTROL_SOCKET': '{b}'}, 'a'),
    ([], {'SERGEANT_LINUX_NAME': '{A}'}, 'a'),
    ([], {'SERGEANT_LINUX_CONTROL_SOCKET': '{a}'}, 'a'),
    ([], {'SERGEANT_LINUX_CONTROL_SOCKET': '{a}', 'SERGEANT_LINUX_NAME': '{B}'}, 'a'),
    ([], {'SERGEANT_LINUX_CONTROL_SOCKET': '', 'SERGEANT_LINUX_NAME': '{A}'}, 'a'),
    ([], {'SERGEANT_LINUX_CONTROL_SOCKET': 'auto', 'SERGEANT_LINUX_NAME': '{A}'}, 'a'),
])
def test_an_option_counts_before_a_variable_and_a_socket_before_a_name(
    tmp_path: Path, argv: list[str], environ: dict[str, str], asked: str,
) -> None:
    called = {'A': f'a-{os.getpid()}', 'B': f'b-{os.getpid()}'}  # tests that run beside this one have pools, too
    with stand_in(tmp_path, called['A'], health=HEALTHY) as a, stand_in(tmp_path, called['B'], health=HEALTHY) as b:
        argv = [each.format(a=a.path, b=b.path, **called) for each in argv]
        environ = {key: value.format(a=a.path, b=b.path, **called) for key, value in environ.items()}
        done = say('health', *argv, XDG_RUNTIME_DIR=str(tmp_path), **environ)
        assert (done.returncode, done.stderr) == (0, '')
        assert [len(pool.asked) for pool in (a, b)] == [asked == 'a', asked == 'b']


def test_a_name_and_a_socket_at_once_is_wrong_usage() -> None:
    done = say('health', '--name', 'a', '--control-socket', '/a')
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == (
        'sergeant-linux health: error: argument --control-socket: not allowed with argument --name\n'
    )


@can_be_alone
def test_the_only_pool_needs_no_name(tmp_path: Path) -> None:
    with stand_in(tmp_path, 'a', health=HEALTHY) as pool:
        done = alone('health', XDG_RUNTIME_DIR=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, 'ready\n', '')
    assert len(pool.asked) == 1


@pytest.mark.parametrize('verb', ['health', 'stop'])
def test_of_several_none_is_asked_and_all_are_named(tmp_path: Path, verb: str) -> None:
    with stand_in(tmp_path, 'a') as a, stand_in(tmp_path, 'b') as b:
        done = say(verb, XDG_RUNTIME_DIR=str(tmp_path))
        assert (done.returncode, done.stdout, done.stderr.count('\n')) == (4, '', 1)
        assert str(a.path) in done.stderr and str(b.path) in done.stderr
        assert a.asked == b.asked == []


@can_be_alone
def test_without_a_pool_there_is_one_line(tmp_path: Path) -> None:
    done = alone('status', XDG_RUNTIME_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (4, '')
    assert done.stderr == 'sergeant-linux status: error: no pool is running here\n'


# What can't be reached


def test_a_name_that_no_pool_has_is_one_line(tmp_path: Path) -> None:
    done = say('status', '--name', 'nobody', XDG_RUNTIME_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (4, '')
    assert done.stderr == 'sergeant-linux status: error: no pool named nobody is running here\n'


def test_a_socket_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = say('status', '--control-socket', f'{tmp_path}/none.sock')
    assert (done.returncode, done.stdout) == (4, '')
    assert done.stderr == (
        f'sergeant-linux status: error: no pool answers at {tmp_path}/none.sock: there is no such socket\n'
    )


def test_the_socket_of_a_dead_pool_is_one_line(tmp_path: Path) -> None:
    path = f'{tmp_path}/dead.sock'
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    done = say('status', '--control-socket', path)
    assert (done.returncode, done.stdout) == (4, '')
    assert done.stderr == f'sergeant-linux status: error: no pool answers at {path}: nobody listens there any more\n'


@pytest.mark.parametrize('path', ['/etc/passwd', '/', '/dev/null', '/proc/1/nothing', 'x' * 200, ''])
def test_what_is_no_socket_is_one_line(path: str) -> None:
    done = say('status', '--control-socket', path)
    assert (done.returncode, done.stdout, done.stderr.count('\n')) == (4, '', 1)
    assert done.stderr.startswith('sergeant-linux status: error: ')


@needs_root
def test_a_socket_of_somebody_else_is_one_line(tmp_path: Path) -> None:
    with stand_in(tmp_path, status=STATUS) as pool:
        os.chmod(tmp_path, 0o755)
        done = subprocess.run(
            [sys.executable, '-c', AS_NOBODY, 'status', '--control-socket', str(pool.path)], env=surroundings(),
            capture_output=True, text=True, timeout=60, check=False,
        )
    assert (done.returncode, done.stdout, done.stderr.count('\n')) == (4, '', 1)
    assert 'permission denied' in done.stderr


def test_a_pool_that_does_not_answer_in_time_is_one_line(tmp_path: Path) -> None:
    path = f'{tmp_path}/silent.sock'
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        done = say('health', '--control-socket', path)
    assert (done.returncode, done.stdout) == (4, '')
    assert done.stderr == 'sergeant-linux health: error: the pool does not answer in time\n'


# ps


def told(folder: Path, *argv: str, **environ: str) -> dict[str, dict[str, object]]:
    """What `ps --json` says of the pools in this folder, by name; the host may have others."""
    done = say('ps', '--json', XDG_RUNTIME_DIR=str(folder), **environ)
    assert (done.returncode, done.stderr) == (0, '')
    return {pool['name']: pool for pool in json.loads(done.stdout) if pool['socket'].startswith(str(folder))}


def test_ps_has_a_line_for_each_pool(tmp_path: Path) -> None:
    small = {**STATUS, 'name': 'mail', 'pid': 77, 'ready': 4, 'state': 'running', 'slots': [], 'module': 'mailer'}
    with stand_in(tmp_path, 'crawl', status=STATUS) as crawl, stand_in(tmp_path, 'mail', status=small) as mail:
        done = say('ps', XDG_RUNTIME_DIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, '')
    lines = done.stdout.splitlines()
    assert lines[0].split() == ['NAME', 'PID', 'STATE', 'READY', 'MEM', 'UP', 'WORKER', 'SOCKET']
    assert [line.split() for line in lines if str(tmp_path) in line] == [
        ['crawl', '1200', 'reloading', '2/4', '1.1G', '1d0h', 'crawl_worker.Worker', str(crawl.path)],
        ['mail', '77', 'running', '4/4', '-', '1d0h', 'mailer.Worker', str(mail.path)],
    ]


def test_ps_lists_what_will_not_answer_with_the_reason(tmp_path: Path) -> None:
    with stand_in(tmp_path, 'crawl', status=STATUS), stand_in(tmp_path, 'shy', status=raising('denied', 'not for you')):
        pools = told(tmp_path)
    assert {name: pool['error'] for name, pool in pools.items()} == {'crawl': None, 'shy': 'not for you'}
    assert (pools['crawl']['pid'], pools['crawl']['memory_bytes']) == (1200, 1082 << 20)
    assert (pools['shy']['pid'], pools['shy']['state']) == (None, None)


def test_ps_does_not_list_a_pool_that_was_killed(tmp_path: Path) -> None:
    with stand_in(tmp_path, 'crawl', status=STATUS) as pool:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(pool.path.with_name('dead.sock')))
        assert list(told(tmp_path)) == ['crawl']


@needs_root
def test_ps_lists_the_pools_of_others_as_theirs(tmp_path: Path) -> None:
    with stand_in(tmp_path, status=STATUS):
        os.chmod(tmp_path, 0o755)
        done = subprocess.run(
            [sys.executable, '-c', AS_NOBODY, 'ps'], env=surroundings(XDG_RUNTIME_DIR=str(tmp_path)),
            capture_output=True, text=True, timeout=60, check=False,
        )
    assert done.returncode == 0
    assert 'permission denied' in next(line for line in done.stdout.splitlines() if str(tmp_path) in line)


@can_be_alone
def test_ps_says_that_there_is_none(tmp_path: Path) -> None:
    done = alone('ps', XDG_RUNTIME_DIR=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, '', 'no pool on this host answers\n')
    done = alone('ps', '--json', XDG_RUNTIME_DIR=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, '[]\n', '')


def test_a_pool_is_asked_no_more_than_it_needs(pool: StandIn) -> None:
    say('status', '--control-socket', str(pool.path))
    assert pool.asked == [('status', {})]
