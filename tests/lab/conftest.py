"""A place for cgroups with a memory limit: in the lab (vagrant/lab), or wherever a cgroup v2 is ours.

Facts: a limit needs its controller enabled in the parent, a parent with controllers may hold no processes (but for the
root), and whoever sits in a delegated cgroup sits in the parent (cgroups(7)).
Consequence: outside the root, the tests' own process has to make room first.
Decision: for the session it moves to a leaf of its own; when that doesn't work out, the tests skip and say why. In the
lab it has to work out: there a skip would hide what the lab is for. Price: one more leaf, put away at the end.

After each test its cgroups are gone: a pool's undertaker gets `PATIENCE` for it, what is still there is a failure.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from tests.kernel.processes import DEADLINE, Fork, forking

IN_LAB: Final = 'SERGEANT_LAB' in os.environ
"""Set by vagrant/lab."""

DEEPEST: Final = 12
"""How many levels below a cgroup are looked at: a broken pool may leave a thousand, which no path leads to."""

NEEDED: Final = {'memory', 'pids'}

PATIENCE: Final = 5.0
"""How long, in seconds, a cgroup may take to be gone after its test."""


class Cgroup:
    """A folder of the cgroup v2 hierarchy, its files as text."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> str:
        return (self.path / name).read_text().strip()

    def counters(self, name: str) -> dict[str, int]:
        """Return a file of `KEY NUMBER` lines."""
        return {key: int(number) for key, number in (line.split() for line in self.read(name).splitlines())}

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    def join(self) -> None:
        """Move the calling process here."""
        self.write('cgroup.procs', '0')

    def members(self) -> set[int]:
        return {int(pid) for pid in self.read('cgroup.procs').split()}

    def make(self, name: str) -> 'Cgroup':
        (self.path / name).mkdir()
        return Cgroup(self.path / name)

    def below(self) -> set[Path]:
        """Return the folders of the cgroups below it, as far down as anybody is to make some."""
        found, lowest = set(), len(self.path.parts) + DEEPEST
        for path, folders, _ in os.walk(self.path):
            found.add(Path(path))
            if len(Path(path).parts) >= lowest:
                folders.clear()
        return found - {self.path}

    def remove_tree(self) -> None:
        """Remove it and all that is below."""
        self.write('cgroup.kill', '1')
        subprocess.run(['find', self.path, '-mindepth', '1', '-type', 'd', '-delete'], check=False)
        for path in sorted(self.below(), key=lambda path: -len(path.parts)):
            Cgroup(path).remove()
        self.remove()

    def remove(self) -> None:
        """Kill who is left, remove the folder as soon as it is empty."""
        self.write('cgroup.kill', '1')
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                return self.path.rmdir()
            except OSError:  # EBUSY: a process killed isn't a process gone
                assert time.monotonic() < deadline, f'{self.path} does not become empty'
                time.sleep(0.005)


def own_cgroup() -> Cgroup:
    """Return the cgroup of this process. Raises LookupError when it can't be seen."""
    mounts = [line.split() for line in Path('/proc/self/mountinfo').read_text().splitlines()]
    point = next((fields[4] for fields in mounts if fields[fields.index('-') + 1] == 'cgroup2'), None)
    lines = Path('/proc/self/cgroup').read_text().splitlines()
    path = next((line[3:] for line in lines if line.startswith('0::')), None)
    if point is None or path is None:
        raise LookupError('no cgroup v2 is mounted')
    own = Cgroup(Path(point + path))
    if not own.path.is_dir() or os.getpid() not in own.members():
        raise LookupError(f'{own.path} is not the cgroup of this process')
    lacking = NEEDED - set(own.read('cgroup.controllers').split())
    if lacking:
        raise LookupError(f'{own.path} has no controller {", ".join(sorted(lacking))}')
    return own


@pytest.fixture(scope='session')
def ground() -> Iterator[Cgroup]:
    """A cgroup of ours without processes, its controllers enabled for its children."""
    try:
        own = own_cgroup()
        is_root = not (own.path / 'cgroup.type').exists()
        room = own.make(f'tests-{os.getpid()}')
    except (LookupError, OSError) as error:
        reason = f'no cgroup v2 with the memory controller is ours ({error}); vagrant/lab has one'
        if IN_LAB:
            pytest.fail(reason)
        pytest.skip(reason)

    if not is_root:
        for pid in own.members():
            room.write('cgroup.procs', str(pid))
    controllers = own.read('cgroup.controllers').split()
    enabled_before = own.read('cgroup.subtree_control').split()
    own.write('cgroup.subtree_control', ' '.join(f'+{name}' for name in controllers))
    yield own
    own.write('cgroup.subtree_control', ' '.join(f'-{name}' for name in controllers if name not in enabled_before))
    for pid in room.members():
        own.write('cgroup.procs', str(pid))
    room.remove()


@pytest.fixture(autouse=True)
def cgroup_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test that leaves a cgroup behind."""
    if 'ground' not in request.fixturenames:
        yield
        return
    ground: Cgroup = request.getfixturevalue('ground')
    before = ground.below()
    yield
    deadline = time.monotonic() + PATIENCE
    while (left := ground.below() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    for path in left:
        if path.parent not in left:
            Cgroup(path).remove_tree()
    if left:
        pytest.fail('the test has left behind:\n  ' + '\n  '.join(sorted(map(str, left))), pytrace=False)


@pytest.fixture
def home(ground: Cgroup) -> Iterator[Cgroup]:
    """A cgroup without processes or controllers, as a unit's is at first; at the end no pool may be left in it."""
    home = ground.make(f'home-{time.monotonic_ns()}')
    yield home
    left = sorted(path.name for path in home.below() if path.name.startswith('sergeant-'))
    home.remove_tree()
    assert left == []


@pytest.fixture
def leaf(ground: Cgroup) -> Iterator[Cgroup]:
    """A fresh cgroup."""
    leaf = ground.make(f'leaf-{uuid4().hex[:8]}')
    yield leaf
    leaf.remove()


@pytest.fixture
def fork(leaf: Cgroup) -> Iterator[Fork]:
    """A function that forks a child, which runs the function it is given; they end before the leaf is removed."""
    with forking() as fork:
        yield fork
        with suppress(ProcessLookupError):
            leaf.write('cgroup.kill', '1')

