"""Where a pool's socket is, and whose a name is: on real files, locks and sockets."""

import os
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from sergeant_linux.control import names
from sergeant_linux.control.names import Claim, NoPlace, Taken
from tests.control.server import ends_well
from tests.kernel.processes import DEADLINE, Fork, in_child, readable

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason='root may write anywhere, and give files away')

OTHERS = 12345
"""A group."""


@pytest.fixture
def claims() -> Iterator[ExitStack]:
    """What is claimed is given back at the end."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def run_is_here(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """`/run` is in the folder, so that no test meets the pools of this host."""
    (folder / 'run').mkdir()
    monkeypatch.setattr(names, 'RUN', str(folder / 'run'))


def claim(
    claims: ExitStack, folder: Path, name: str | None = None, path: Path | None = None, group: int | None = None
) -> Claim:
    got = names.claim(
        name, 'mill.Worker', None if path is None else str(path), {'XDG_RUNTIME_DIR': str(folder)}, group
    )
    return claims.enter_context(closing(got))


def mode(path: str | Path) -> str:
    return oct(stat.S_IMODE(os.stat(path).st_mode))


def connects(path: str | Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        try:
            wire.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def dead_pools_socket(fork: Fork, folder: Path, name: str) -> None:
    """Leave what a pool leaves that was killed."""
    reader, writer = os.pipe()

    def body() -> None:
        names.claim(name, name, None, {'XDG_RUNTIME_DIR': str(folder)})
        os.write(writer, b'.')
        signal.pause()

    pool = fork(body)
    assert readable(reader)
    pool.signal(signal.SIGKILL)
    assert pool.exited(DEADLINE)
    os.close(reader)
    os.close(writer)


# Where.


def test_the_first_place_that_can_be_written_is_taken(folder: Path) -> None:
    environ = {'RUNTIME_DIRECTORY': '/a:/b', 'XDG_RUNTIME_DIR': '/c'}

    assert names.folders(environ) == ['/a/sergeant-linux', '/c/sergeant-linux', f'{folder}/run/sergeant-linux']
    assert names.folders({'XDG_RUNTIME_DIR': 'no/absolute/path'}) == [f'{folder}/run/sergeant-linux']


def test_a_place_that_does_not_exist_is_passed_over(claims: ExitStack, folder: Path) -> None:
    environ = {'RUNTIME_DIRECTORY': str(folder / 'nothing'), 'XDG_RUNTIME_DIR': str(folder)}

    got = claims.enter_context(closing(names.claim(None, 'mill.Worker', None, environ)))

    assert got.path == f'{folder}/sergeant-linux/mill.Worker.sock'
    assert connects(got.path)


def test_a_place_with_too_long_a_path_is_passed_over(claims: ExitStack, folder: Path) -> None:
    (folder / ('x' * 100)).mkdir()
    environ = {'RUNTIME_DIRECTORY': str(folder / ('x' * 100)), 'XDG_RUNTIME_DIR': str(folder)}

    got = claims.enter_context(closing(names.claim(None, 'mill.Worker', None, environ)))

    assert got.path == f'{folder}/sergeant-linux/mill.Worker.sock'


def test_where_there_is_no_place_each_says_why(folder: Path) -> None:
    (folder / 'a').mkdir()
    (folder / 'a' / 'sergeant-linux').write_text('a file')
    os.rmdir(folder / 'run')
    environ = {'RUNTIME_DIRECTORY': str(folder / 'a'), 'XDG_RUNTIME_DIR': str(folder / ('x' * 100))}
    (folder / ('x' * 100)).mkdir()

    with pytest.raises(NoPlace) as caught:
        names.claim('mill', 'mill', None, environ)

    first, second, third = str(caught.value).split('; ')
    assert first == f'{folder}/a/sergeant-linux: cannot be written'
    assert second.endswith(' bytes, more than 107')
    assert third == f'{folder}/run/sergeant-linux: No such file or directory'


@pytest.mark.parametrize('name', ['', '.', '..', 'a/b', '../a', '.hidden', 'a\nb', 'a\0b'])
def test_a_name_that_leads_elsewhere_is_none(folder: Path, name: str) -> None:
    with pytest.raises(NoPlace, match='cannot be the name of a socket'):
        names.claim(name, 'mill', None, {'XDG_RUNTIME_DIR': str(folder)})


@pytest.mark.parametrize('mask', [0, 0o022, 0o777])
def test_a_users_socket_and_its_folder_are_for_the_user_alone(claims: ExitStack, folder: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        (folder / 'sergeant-linux').mkdir(0o700)
        os.chmod(folder / 'sergeant-linux', 0o700)
        got = claim(claims, folder)
    finally:
        after = os.umask(before)

    assert mode(got.path) == '0o600'
    assert after == mask


def test_the_folder_is_for_the_user_alone_but_in_run(claims: ExitStack, folder: Path) -> None:
    claim(claims, folder)
    claims.enter_context(closing(names.claim(None, 'mill.Worker', None, {})))

    assert mode(folder / 'sergeant-linux') == '0o700'
    assert mode(folder / 'run' / 'sergeant-linux') == '0o755'


@needs_root
def test_for_a_group_the_socket_is_the_groups_too(claims: ExitStack, folder: Path) -> None:
    got = claim(claims, folder, group=OTHERS)

    assert mode(got.path) == '0o660'
    assert os.stat(got.path).st_gid == OTHERS
    assert mode(folder / 'sergeant-linux') == '0o755'


def test_what_is_claimed_is_not_inherited_by_another_program(claims: ExitStack, folder: Path) -> None:
    before = set(os.listdir('/proc/self/fd'))

    claim(claims, folder)

    new = [int(fd) for fd in set(os.listdir('/proc/self/fd')) - before if os.path.exists(f'/proc/self/fd/{fd}')]
    assert len(new) >= 1
    assert not any(os.get_inheritable(fd) for fd in new)


# Whose.


def test_a_name_that_is_asked_for_and_taken_is_an_error_that_says_by_whom(claims: ExitStack, folder: Path) -> None:
    first = claim(claims, folder, 'mill')

    with pytest.raises(Taken, match=rf'^mill is already running as pid {os.getpid()} \({first.path}\)$'):
        claim(claims, folder, 'mill')

    assert connects(first.path)


def test_a_path_that_is_asked_for_and_taken_is_an_error(claims: ExitStack, folder: Path) -> None:
    claim(claims, folder, path=folder / 'here.sock')

    with pytest.raises(Taken, match='^mill.Worker is already running as pid'):
        claim(claims, folder, path=folder / 'here.sock')


def test_a_name_that_was_not_asked_for_gets_a_number_where_it_is_taken(claims: ExitStack, folder: Path) -> None:
    got = [claim(claims, folder) for _ in range(3)]
    got[1].close()
    got.append(claim(claims, folder))

    assert [each.name for each in got] == ['mill.Worker', 'mill.Worker-2', 'mill.Worker-3', 'mill.Worker-2']
    assert [os.path.basename(each.path) for each in got] == [f'{each.name}.sock' for each in got]


def test_a_path_need_not_be_absolute(claims: ExitStack, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    got = claim(claims, folder, path=Path('here.sock'))
    monkeypatch.chdir('/')

    got.close()

    assert sorted(os.listdir(folder)) == ['run']


def test_a_path_that_is_too_long_is_said_to_be(claims: ExitStack, folder: Path) -> None:
    fits = folder / ('x' * (107 - len(str(folder)) - 1))

    claim(claims, folder, path=fits)
    with pytest.raises(NoPlace, match=': the path of the socket would have 108 bytes, more than 107$'):
        claim(claims, folder, path=Path(f'{fits}x'))


def test_what_a_killed_pool_has_left_is_replaced(claims: ExitStack, fork: Fork, folder: Path) -> None:
    dead_pools_socket(fork, folder, 'mill')
    assert sorted(os.listdir(folder / 'sergeant-linux')) == ['mill.lock', 'mill.sock']
    assert not connects(folder / 'sergeant-linux' / 'mill.sock')

    got = claim(claims, folder, 'mill')

    assert connects(got.path)
    assert (folder / 'sergeant-linux' / 'mill.lock').read_text() == f'{os.getpid()}\n'


def test_nothing_is_left_of_a_name_that_was_given_back(claims: ExitStack, folder: Path) -> None:
    got = claim(claims, folder)

    got.close()
    got.close()

    assert os.listdir(folder / 'sergeant-linux') == []


def test_who_gives_a_name_back_leaves_what_others_have_made_since(claims: ExitStack, folder: Path) -> None:
    first = claim(claims, folder, 'mill')
    for each in (folder / 'sergeant-linux').iterdir():
        each.unlink()
    second = claim(claims, folder, 'mill')

    first.close()

    assert connects(second.path)
    with pytest.raises(Taken):
        claim(claims, folder, 'mill')


def test_the_living_socket_of_another_program_stays(claims: ExitStack, folder: Path) -> None:
    path = folder / 'other.sock'
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()

        with pytest.raises(Taken, match=f'^another program listens at {path}$'):
            claim(claims, folder, path=path)

        assert connects(path)
    assert not (folder / 'other.lock').exists()


@pytest.mark.parametrize('name', ['file.sock', 'file.lock'])
def test_a_file_that_is_not_ours_stays(claims: ExitStack, folder: Path, name: str) -> None:
    (folder / name).write_text('precious')

    with pytest.raises(NoPlace, match=str(folder)):
        claim(claims, folder, path=folder / 'file.sock')

    assert (folder / name).read_text() == 'precious'
    assert sorted(os.listdir(folder)) == [name, 'run']


def test_of_two_that_claim_a_name_at_once_one_gets_it(fork: Fork, folder: Path) -> None:
    for turn in range(20):
        if turn % 2:  # every other time there is something to replace
            dead_pools_socket(fork, folder, 'mill')
        assert sorted(_race(fork, folder, 'mill')) == ['Taken', 'mill']


def test_of_two_that_claim_the_default_name_at_once_each_gets_one(fork: Fork, folder: Path) -> None:
    for _ in range(20):
        assert sorted(_race(fork, folder, None)) == ['mill.Worker', 'mill.Worker-2']


def _race(fork: Fork, folder: Path, name: str | None) -> list[str]:
    """Return what two got that started at the same moment and hold it until both have tried."""
    go, tried, end = os.eventfd(0, os.EFD_SEMAPHORE), os.pipe(), os.eventfd(0, os.EFD_SEMAPHORE)

    def body() -> None:
        os.eventfd_read(go)
        try:
            got = names.claim(name, 'mill.Worker', None, {'XDG_RUNTIME_DIR': str(folder)})
        except Taken:
            os.write(tried[1], b'Taken\n')
            return
        os.write(tried[1], f'{got.name}\n'.encode())
        os.eventfd_read(end)
        assert connects(got.path), 'the socket is not the one that was got'
        got.close()

    starters = [fork(body) for _ in range(2)]
    os.eventfd_write(go, 2)
    said = b''
    while said.count(b'\n') < 2:
        assert readable(tried[0])
        said += os.read(tried[0], 100)
    os.eventfd_write(end, 2)
    assert all(ends_well(each) for each in starters)
    for fd in (go, *tried, end):
        os.close(fd)
    assert os.listdir(folder / 'sergeant-linux') == []
    return said.decode().split()


def test_a_name_that_goes_from_hand_to_hand_is_never_in_two(fork: Fork, folder: Path) -> None:
    def body() -> None:
        gets = 0
        while gets < 50:
            try:
                got = names.claim('mill', 'mill', None, {'XDG_RUNTIME_DIR': str(folder)})
            except Taken:
                continue
            mine = os.open(folder / 'mine', os.O_CREAT | os.O_EXCL)
            assert connects(got.path)
            os.close(mine)
            os.unlink(folder / 'mine')
            got.close()
            gets += 1

    starters = [fork(body) for _ in range(3)]

    assert all(ends_well(each, 30.0) for each in starters)
    assert os.listdir(folder / 'sergeant-linux') == []


@needs_root
def test_nobody_else_can_lock_a_name(claims: ExitStack, folder: Path) -> None:
    got = claims.enter_context(closing(names.claim('mill', 'mill', None, {})))

    def try_to_open() -> bool:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            os.close(os.open(names.lock_path(got.path), os.O_RDONLY))
        except PermissionError:
            return False
        return True

    assert in_child(try_to_open) is False


# Who is there.


def test_pools_are_found_in_the_places_where_they_may_be_and_by_the_kernels_table(
    claims: ExitStack, fork: Fork, folder: Path
) -> None:
    for place in ('mine', 'elsewhere', 'run/user/1000', 'run'):
        (folder / place).mkdir(exist_ok=True, parents=True)
    listed = claims.enter_context(closing(names.claim('a', 'a', None, {'XDG_RUNTIME_DIR': str(folder / 'mine')})))
    table = claims.enter_context(closing(names.claim('b c', 'b', None, {'XDG_RUNTIME_DIR': str(folder / 'elsewhere')})))
    user = claims.enter_context(closing(names.claim('d', 'd', None, {'XDG_RUNTIME_DIR': f'{folder}/run/user/1000'})))
    dead_pools_socket(fork, folder / 'mine', 'dead')
    claim(claims, folder, path=folder / 'no-pool.sock')
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(folder / 'elsewhere' / 'sergeant-linux' / 'only-bound.sock'))

        found = {each for each in names.pools({'XDG_RUNTIME_DIR': str(folder / 'mine')}) if str(folder) in each.path}

    assert found == {
        ('a', listed.path),
        ('b c', table.path),
        ('d', user.path),
        ('dead', f'{folder}/mine/sergeant-linux/dead.sock'),
    }


def test_a_pool_that_is_known_by_two_paths_is_found_once(claims: ExitStack, folder: Path) -> None:
    (folder / 'real').mkdir()
    (folder / 'link').symlink_to('real')
    claims.enter_context(closing(names.claim('a', 'a', None, {'XDG_RUNTIME_DIR': str(folder / 'real')})))

    found = [each for each in names.pools({'XDG_RUNTIME_DIR': str(folder / 'link')}) if str(folder) in each.path]

    assert [each.name for each in found] == ['a']
