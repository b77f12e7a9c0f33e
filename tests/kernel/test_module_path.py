"""Who else could have written what is imported: on real files."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sergeant_linux.kernel import module_path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason='only root can give files away')

OTHER = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of root's below one that is everybody's, with its sticky bit."""
    with tempfile.TemporaryDirectory(prefix='path-', dir='/tmp') as path:
        os.chmod(path, 0o755)
        yield Path(path)


def give(path: Path) -> None:
    os.chown(path, OTHER, OTHER)


@pytest.mark.parametrize(('change', 'why'), [
    (lambda folder: None, None),
    (lambda folder: give(folder / 'app' / 'module.py'), 'app/module.py belongs to the uid 65534'),
    (lambda folder: give(folder / 'app'), 'app belongs to the uid 65534'),
    (lambda folder: give(folder), ' belongs to the uid 65534'),
    (lambda folder: os.chmod(folder / 'app' / 'module.py', 0o664), 'app/module.py can be written by the group 0'),
    (lambda folder: os.chmod(folder / 'app', 0o777), 'app can be written by everybody'),
    (lambda folder: os.chmod(folder, 0o1777), None),
    (lambda folder: os.chmod(folder, 0o777), ' can be written by everybody'),
])
def test_who_can_write_a_file_or_move_a_folder_above_it_away(
    folder: Path, change: Callable[[Path], object], why: str | None
) -> None:
    module = folder / 'app' / 'module.py'
    module.parent.mkdir(mode=0o755)
    module.touch(mode=0o644)
    change(folder)

    found = module_path.who_else_writes(str(module))
    assert found == why or (found is not None and why is not None and found.endswith(why))


def test_who_can_make_what_is_not_there_could_write_it(folder: Path) -> None:
    assert module_path.who_else_writes(str(folder / 'app' / 'module.py')) is None
    os.chmod(folder, 0o1777)
    assert str(module_path.who_else_writes(str(folder / 'app' / 'module.py'))).endswith('can be written by everybody')


def test_a_link_is_as_safe_as_where_it_lies_and_where_it_leads(folder: Path) -> None:
    (folder / 'ours').mkdir(mode=0o755)
    (folder / 'theirs').mkdir(mode=0o755)
    (folder / 'theirs' / 'to-ours').symlink_to(folder / 'ours')
    (folder / 'ours' / 'to-theirs').symlink_to(folder / 'theirs')
    give(folder / 'theirs')

    for path in ('theirs/to-ours', 'ours/to-theirs'):
        assert str(module_path.who_else_writes(str(folder / path))).endswith('theirs belongs to the uid 65534')
    assert module_path.who_else_writes(str(folder / 'ours')) is None


def test_what_is_added_while_a_part_of_the_path_is_withheld_stays(folder: Path) -> None:
    give(folder)
    before = list(sys.path)
    try:
        sys.path.insert(0, str(folder))
        module_path.withhold()
        assert str(folder) not in sys.path
        sys.path.append('/added')
        module_path.give_back()
        assert sys.path == [str(folder), *before, '/added']
        module_path.give_back()
        assert sys.path == [str(folder), *before, '/added']
    finally:
        sys.path[:] = before
