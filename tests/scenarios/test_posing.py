"""Which pool is meant: those of others that pose as it are not spoken to, those that the kernel's table hides are found."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from sergeant_linux.control import names
from sergeant_linux.control.client import Client
from tests.cli.recorded import STATUS
from tests.cli.stand_in import COMMAND, say, stand_in, surroundings
from tests.kernel.processes import Fork, forking
from tests.scenarios.pool import pool

UID: Final = 65534
"""nobody, who poses."""

HEALTHY: Final = {'live': True, 'ready': True, 'reason': None}
STOPPED: Final = {'status': 0}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason='only root can make processes of another uid')


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path that others can enter."""
    with tempfile.TemporaryDirectory(prefix='posing-', dir='/tmp') as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture
def fork() -> Iterator[Fork]:
    with forking() as fork:
        yield fork


class Poser:
    """A process of another user that listens, and answers everything with this."""

    def __init__(self, path: Path, fork: Fork, result: object, *, binds_as_root: bool = False) -> None:
        self.path: Final = path
        self.heard: Final = path.with_suffix('.heard')
        path.parent.mkdir(exist_ok=True)
        if not binds_as_root:
            os.chown(path.parent, UID, UID)
        self.heard.touch()
        os.chown(self.heard, UID, UID)
        ready, is_ready = os.pipe()

        def body() -> None:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            if binds_as_root:
                listener.bind(str(path))
            os.setgroups([])
            os.setresgid(UID, UID, UID)
            os.setresuid(UID, UID, UID)
            if not binds_as_root:
                listener.bind(str(path))
            listener.listen()
            os.write(is_ready, b'.')
            while True:
                connection, _ = listener.accept()
                with connection:
                    data = connection.recv(65536)
                    if not data:
                        continue
                    self.heard.write_bytes(self.heard.read_bytes() + data)
                    id = json.loads(data)['id']
                    connection.sendall(json.dumps({'v': 1, 'id': id, 'ok': True, 'result': result}).encode() + b'\n')

        fork(body)
        assert os.read(ready, 1) == b'.'
        os.close(ready)
        os.close(is_ready)


@pytest.fixture(params=["in the kernel's table", 'in the same folder'])
def poses(request: pytest.FixtureRequest, folder: Path, fork: Fork) -> Callable[[str, object], Poser]:
    """Poses as a pool: in a folder of its own, or, by a socket whose file is root's, beside a real one."""

    def pose(name: str, result: object) -> Poser:
        is_beside = request.param == 'in the same folder'
        place = folder if is_beside else folder / 'theirs'
        place.mkdir(exist_ok=True)
        return Poser(place / 'sergeant-linux' / f'{name}.sock', fork, result, binds_as_root=is_beside)

    return pose


def listed(folder: Path) -> dict[str, Any]:
    done = say('ps', '--json', XDG_RUNTIME_DIR=str(folder))
    assert (done.returncode, done.stderr) == (0, '')
    return {each['name']: each for each in json.loads(done.stdout) if each['socket'].startswith(str(folder))}


@needs_root
@pytest.mark.parametrize('result', [STATUS, {**STATUS, 'slots': 'none', 'ready': []}, {}, [1], None])
def test_a_socket_of_another_user_is_listed_as_theirs_and_never_spoken_to(
    folder: Path, poses: Callable[[str, object], Poser], result: object
) -> None:
    poser = poses('fake', result)
    with stand_in(folder, 'crawl', status=STATUS):
        found = listed(folder)
        lines = say('ps', XDG_RUNTIME_DIR=str(folder)).stdout.splitlines()

    assert (found['fake']['error'], found['fake']['pid'], found['fake']['state']) == (f'of uid {UID}', None, None)
    assert (found['crawl']['error'], found['crawl']['pid']) == (None, STATUS['pid'])
    assert any(f'of uid {UID}' in line and str(poser.path) in line for line in lines)
    assert poser.heard.read_bytes() == b''


@needs_root
def test_a_name_is_not_believed_of_another_user_when_the_real_one_is_down(
    folder: Path, poses: Callable[[str, object], Poser]
) -> None:
    poser = poses('mill-1234', HEALTHY)
    done = say('health', '--name', 'mill-1234', XDG_RUNTIME_DIR=str(folder))

    assert (done.returncode, done.stdout) == (4, '')
    assert done.stderr == (
        'sergeant-linux health: error: no pool named mill-1234 is running here '
        f'({poser.path} is of the uid {UID}: --control-socket asks it)\n'
    )
    assert poser.heard.read_bytes() == b''


@needs_root
def test_a_name_means_the_real_one_while_others_pose_as_it(folder: Path, fork: Fork) -> None:
    (folder / 'theirs').mkdir()
    poser = Poser(folder / 'theirs' / 'sergeant-linux' / 'mill-1235.sock', fork, HEALTHY)
    with stand_in(folder, 'mill-1235', health=HEALTHY) as real:
        done = say('health', '--name', 'mill-1235', XDG_RUNTIME_DIR=str(folder))

        assert (done.returncode, done.stdout, done.stderr) == (0, 'ready\n', '')
        assert len(real.asked) == 1
    assert poser.heard.read_bytes() == b''


@needs_root
def test_without_a_name_those_of_others_do_not_count(folder: Path, fork: Fork) -> None:
    poser = Poser(folder / 'sergeant-linux' / 'fake.sock', fork, HEALTHY, binds_as_root=True)
    with stand_in(folder, 'real', health=HEALTHY) as real:
        done = subprocess.run(
            ['unshare', '--net', '--mount', 'sh', '-ec', 'mount -t tmpfs none /run; exec "$@"', 'sh', *COMMAND, 'health'],
            env=surroundings(XDG_RUNTIME_DIR=str(folder)), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if 'unshare failed' in done.stderr or 'mount:' in done.stderr:
            pytest.skip('pools of this host that are not ours can be hidden by root alone')
        assert (done.returncode, done.stdout, done.stderr) == (0, 'ready\n', '')
        assert len(real.asked) == 1
    assert poser.heard.read_bytes() == b''


@needs_root
def test_a_path_is_believed_of_whoever_has_its_folder_and_of_nobody_else(folder: Path, fork: Fork) -> None:
    (folder / 'theirs').mkdir()
    theirs = Poser(folder / 'theirs' / 'sergeant-linux' / 'a.sock', fork, HEALTHY)
    beside = Poser(folder / 'sergeant-linux' / 'b.sock', fork, HEALTHY, binds_as_root=True)

    done = say('health', '--control-socket', str(theirs.path))
    assert (done.returncode, done.stdout, done.stderr) == (0, 'ready\n', '')
    done = say('health', '--control-socket', str(beside.path))
    assert (done.returncode, done.stdout) == (4, '')
    assert done.stderr == (
        f'sergeant-linux health: error: {beside.path} is a socket of the uid {UID}, '
        'which is neither root, nor you, nor the owner of its folder: not asked\n'
    )
    assert beside.heard.read_bytes() == b''
    with pytest.raises(PermissionError, match=f'of the uid {UID}'):
        Client(str(beside.path))


@needs_root
def test_a_unit_of_another_user_is_believed_in_the_folder_that_root_has_made_for_its_name(
    folder: Path, fork: Fork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, 'RUN', str(folder))
    units = folder / 'sergeant-linux'
    units.mkdir()
    for unit in ('mill', 'mail'):
        (units / unit).mkdir()
        os.chown(units / unit, UID, UID)
    Poser(units / 'mill' / 'sergeant-linux' / 'mill.sock', fork, HEALTHY)
    in_anothers = Poser(units / 'mail' / 'sergeant-linux' / 'parse.sock', fork, HEALTHY)

    with Client.find('mill') as client:
        assert client.call('health') == HEALTHY
    with pytest.raises(LookupError, match=f'parse.sock is of the uid {UID}'):
        Client.find('parse')
    assert in_anothers.heard.read_bytes() == b''
    os.chmod(units, 0o777)  # now anybody may have made it
    with pytest.raises(LookupError, match=f'mill.sock is of the uid {UID}'):
        Client.find('mill')


@needs_root
def test_a_link_in_a_folder_of_another_user_gives_a_pool_no_other_name(folder: Path) -> None:
    theirs = folder / 'theirs' / 'sergeant-linux'
    theirs.mkdir(parents=True)
    with stand_in(folder, 'mill-1236', stop=STOPPED) as real:
        (theirs / 'mine.sock').symlink_to(real.path)
        done = say('stop', '--name', 'mine', '--now', XDG_RUNTIME_DIR=str(folder / 'theirs'))
        assert (done.returncode, real.asked) == (4, [])


def test_an_answer_of_another_shape_is_no_answer(folder: Path) -> None:
    broken = {**STATUS, 'slots': [{'slot': 'zero'}], 'memory': 7}
    with stand_in(folder, 'broken', status=broken, health={'live': 'yes'}) as broken_one:
        found = listed(folder)
        assert (found['broken']['error'], found['broken']['pid']) == ('what came is no answer', None)
        for verb in ('status', 'health'):
            done = say(verb, '--control-socket', str(broken_one.path))
            assert (done.returncode, done.stdout) == (4, '')
            assert done.stderr == f'sergeant-linux {verb}: error: {broken_one.path}: what came is no answer\n'


# Pools that the kernel's table hides.

IDLE: Final = """
    import time

    def Worker():
        time.sleep(1000)
"""


@contextmanager
def in_a_place_of_its_own(tmp_path: Path, runtime: str) -> Iterator[Callable[..., 'subprocess.CompletedProcess[str]']]:
    """Run a pool in another network namespace, as PrivateNetwork=yes does, with this runtime folder in a /run of the
    test's own; give what types a verb there, in the host's network namespace."""
    mounts = f'mount -t tmpfs none /run; mkdir -p -m 755 {runtime}; exec unshare --net "$@"'
    started = ['unshare', '--mount', 'sh', '-ec', mounts, 'sh', sys.executable]
    with pool(tmp_path, IDLE, python=started, environ={'RUNTIME_DIRECTORY': runtime}, name='hidden') as running:
        running.wait_for('worker-ready')

        def type(*argv: str) -> 'subprocess.CompletedProcess[str]':
            return subprocess.run(
                ['nsenter', f'--mount=/proc/{running.pid}/ns/mnt', *COMMAND, *argv], env=surroundings(),
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip

        yield type


@needs_root
@pytest.mark.parametrize('runtime', [
    '/run', '/run/crawl', '/run/sergeant-linux/hidden', '/run/user/0', '/run/user/0/crawl', '/run/user/0/sergeant-linux/hidden',
])
def test_a_pool_in_another_network_namespace_is_found_by_its_folder(tmp_path: Path, runtime: str) -> None:
    if subprocess.run(['unshare', '--mount', '--net', 'true'], capture_output=True, check=False).returncode != 0:
        pytest.skip('namespaces are for root alone here')
    with in_a_place_of_its_own(tmp_path, runtime) as typed:
        (found,) = [each for each in json.loads(typed('ps', '--json').stdout) if each['name'] == 'hidden']
        assert (found['socket'], found['error']) == (f'{runtime}/sergeant-linux/hidden.sock', None)
        done = typed('health', '--name', 'hidden')
        assert (done.returncode, done.stdout, done.stderr) == (0, 'ready\n', '')
