"""Modules that a worker of another user has put where root looks for modules: they are never root's.

Facts: the worker owns its folder, so it can write there whatever it likes, at any moment; what it writes runs when some
process imports that name. Each planted module leaves a file that says as whom it was run.
Consequence: the pools here run by an interpreter that everybody may execute, in a folder that the worker can write to.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from tests.scenarios.pool import ROOT, Pool, kill, pool
from tests.scenarios.test_credentials import UID, can_run

PACKAGES: Final = {'PYTHONPATH': f'{ROOT}:{Path(psutil.__file__).parents[1]}'}
"""Where the other interpreter finds sergeant, psutil and us."""

FLAGS: Final[dict[str, Any]] = {
    'user': 'nobody', 'memory_measure': 'tree', 'worker_memory_high': '1G', 'memory_backend': 'rss', 'restart_delay': 0,
}  # fmt: skip

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason='only root can make processes of another uid')

NAMES: Final = (
    'sergeant', 'redis', 'msgpack', 'pymongo', 'psutil', 'prctl', 'ctypes', 'json', 'enum', 'typing', 'logging', 'traceback',
    'linecache', 'resource', 'subprocess', 'sitecustomize', 'usercustomize', 'argparse', 'socket', 'pwd',
)  # fmt: skip

PLANTED: Final = """
import os
with open({folder!r} + f'/run-as-{{os.geteuid()}}-{name}', 'w'):
    pass
"""

WORKER: Final = """
    import os, time

    class Worker:
        def run(self):
            try:
                import sergeant
            except Exception:
                pass
            print('up', os.geteuid(), flush=True)
            time.sleep(1000)
"""


def plant(folder: Path, names: Sequence[str] = NAMES) -> None:
    for name in names:
        (folder / f'{name}.py').write_text(PLANTED.format(folder=str(folder), name=name))
        os.chown(folder / f'{name}.py', UID, UID)


def run_as(folder: Path, uid: int) -> list[str]:
    """Return which planted modules were run as this user."""
    return sorted(path.name.removeprefix(f'run-as-{uid}-') for path in folder.glob(f'run-as-{uid}-*'))


@pytest.fixture(scope='session')
def python() -> str:
    """An interpreter that the other uid can execute, with sergeant if that can be."""
    for candidate in (sys.executable, '/usr/bin/python3', shutil.which('python3') or sys.executable):
        if can_run(candidate):
            return candidate
    pytest.skip('there is no Python 3.11 or newer here that everybody may execute')


@pytest.fixture
def folder() -> Iterator[Path]:
    """The worker's own folder."""
    with tempfile.TemporaryDirectory(prefix='sergeant-', dir='/tmp') as path:
        os.chmod(path, 0o755)
        os.chown(path, UID, UID)
        yield Path(path)


@pytest.fixture
def script(tmp_path: Path) -> str:
    """The console script, as pip writes it."""
    path = tmp_path / 'sergeant-linux'
    path.write_text('from sergeant_linux.__main__ import main\nmain()\n')
    return str(path)


def make_it_import(running: Pool) -> None:
    """Give each process that root has in this pool a reason to import something."""
    running.wait_for('worker-ready')
    plant(running_folder(running))
    running.send(signal.SIGUSR1)
    running.wait_for('slot-status')
    kill(running.helper('undertaker'))
    running.wait_for('undertaker-exit')
    running.helper('undertaker')
    running.send(signal.SIGHUP)
    running.wait_for('reload-end')
    running.hear(f'up {UID}', count=2)
    kill(running.helper('fork server'))
    running.wait_for('fork-server-exit')
    kill(next(iter(running.workers().values())))
    running.hear(f'up {UID}', count=3)
    kill(running.helper('meter'))
    running.wait_for('meter-exit')
    running.helper('meter')
    running.send(signal.SIGUSR1)
    running.wait_for('slot-status', count=2)
    running.ask('dump', slot=0)


def running_folder(running: Pool) -> Path:
    return Path(os.readlink(f'/proc/{running.pid}/cwd'))


@pytest.mark.parametrize('command', ['supervisor', 'package', 'script'])
@pytest.mark.parametrize('spawn', ['fork', 'exec'])
def test_a_module_that_the_worker_has_planted_is_never_run_as_root(
    folder: Path, python: str, script: str, command: str, spawn: str
) -> None:
    commands = {
        'supervisor': ['-m', 'sergeant_linux.supervisor'],
        'package': ['-m', 'sergeant_linux', 'run'],
        'script': [script, 'run'],
    }
    with pool(folder, WORKER, python=[python], environ=PACKAGES, command=commands[command], spawn=spawn, **FLAGS) as running:
        make_it_import(running)
        assert bool(running.find('unsafe-start')) == (command != 'script')
        assert running.stop() == 0

    assert run_as(folder, 0) == []
    assert 'sergeant' in run_as(folder, UID)  # for the worker all is as `python3 -m` would have it


def test_neither_is_one_in_a_folder_of_pythonpath_that_the_worker_can_write_to(folder: Path, python: str) -> None:
    theirs = folder / 'theirs'
    theirs.mkdir()
    os.chown(theirs, UID, UID)
    environ = {'PYTHONPATH': f'{theirs}:{PACKAGES["PYTHONPATH"]}'}
    source = WORKER.replace("print('up'", "print(os.environ['PYTHONPATH']); print('up'")
    with pool(folder, source, python=[python], environ=environ, **FLAGS) as running:
        running.wait_for('worker-ready')
        plant(theirs)
        make_it_import(running)
        assert set(running.hear(str(ROOT))) == {environ['PYTHONPATH']}
        assert running.stop() == 0

    assert run_as(theirs, 0) == run_as(folder, 0) == []
    assert {'sergeant'} <= {*run_as(theirs, UID), *run_as(folder, UID)}


def test_a_folder_that_only_root_can_write_to_is_imported_from_as_ever(folder: Path, python: str) -> None:
    os.chown(folder, 0, 0)
    (folder / 'sergeant.py').write_text('import os\nloaded_in = os.getpid()\n')
    source = """
        import os, sergeant, time

        class Worker:
            def run(self):
                print('here' if sergeant.loaded_in == os.getpid() else 'before', flush=True)
                time.sleep(1000)
    """
    with pool(folder, source, python=[python], environ=PACKAGES, user='nobody') as running:
        assert running.hear() == ['before']
        assert not running.find('unsafe-start')


def test_a_program_has_its_path_back_when_the_pool_has_stopped(folder: Path, python: str) -> None:
    (folder / 'worker.py').write_text('import os, time\n\ndef Worker():\n    time.sleep(1000)\n')
    program = folder / 'program.py'
    program.write_text(textwrap.dedent("""
        import os, sys
        from sergeant_linux import Supervisor
        before = list(sys.path)
        try:
            Supervisor('worker', 'Worker', 1, user='nobody', memory_backend='rss', log_format='json', log_level='debug').start()
        finally:
            print('path', sys.path == before, before[0] == os.getcwd(), flush=True)
    """))
    with pool(folder, python=[python], environ=PACKAGES, command=['-c', f'exec(open({str(program)!r}).read())']) as running:
        running.wait_for('worker-ready')
        plant(folder)
        running.send(signal.SIGUSR1)
        running.wait_for('slot-status')
        assert running.stop() == 0
        assert running.hear('path') == ['path True False']

    assert run_as(folder, 0) == []


@pytest.mark.parametrize('how', ['variable', 'option'])
def test_a_module_that_the_worker_has_compiled_for_root_is_not_run(folder: Path, python: str, how: str) -> None:
    cache = folder / 'cache'
    cache.mkdir()
    os.chown(cache, UID, UID)
    marker = 'import os\nif os.geteuid() == 0:\n    open({!r}, "w").close()\n'.format(str(folder / 'run-as-0-compiled'))
    environ = {**PACKAGES, **({'PYTHONPYCACHEPREFIX': str(cache)} if how == 'variable' else {})}
    started = [python, *(['-X', f'pycache_prefix={cache}'] if how == 'option' else [])]
    with pool(folder, WORKER, python=started, environ=environ, **FLAGS) as running:
        running.wait_for('worker-ready')
        (record,) = running.find('unsafe-start')
        poison(python, cache, marker, [ROOT / 'sergeant_linux' / 'helpers', ROOT / 'sergeant_linux' / 'forkserver'])
        make_it_import(running)
        assert running.stop() == 0

    assert str(folder) in record['message']
    assert run_as(folder, 0) == []


def poison(python: str, cache: Path, marker: str, homes: Sequence[Path]) -> None:
    """Write compiled modules that leave the marker, and are taken for those of the sources that they lie before."""
    script = """
import importlib.util, marshal, os, sys
sys.pycache_prefix, marker, *homes = sys.argv[1:]
for home in homes:
    for name in os.listdir(home):
        if name.endswith('.py'):
            source = os.path.join(home, name)
            text, status = open(source).read(), os.stat(source)
            docstring_end = text.index('\"\"\"', 3) + 3
            code = compile(text[:docstring_end] + '\\n' + marker + text[docstring_end:], source, 'exec')
            path = importlib.util.cache_from_source(source)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            head = importlib.util.MAGIC_NUMBER + (0).to_bytes(4, 'little')
            stamp = int(status.st_mtime).to_bytes(4, 'little') + status.st_size.to_bytes(4, 'little')
            open(path, 'wb').write(head + stamp + marshal.dumps(code))
"""
    subprocess.run([python, '-c', script, str(cache), marker, *map(str, homes)], check=True)


# What is to be preloaded.


@pytest.mark.parametrize('flags', [{'preload': True}, {'preload_module': ['worker']}, {'preload_module': ['package.part']}])
def test_to_preload_as_root_what_others_can_write_is_refused(folder: Path, python: str, flags: dict[str, Any]) -> None:
    os.mkdir(folder / 'package')
    plant(folder, ['package/__init__', 'package/part'])
    with pool(folder, WORKER, python=[python], environ=PACKAGES, user='nobody', **flags) as running:
        assert running.exit_status() == 4
        (record,) = running.find('cant-run')

    module = 'package.part' if 'package.part' in str(flags) else 'worker'
    assert f'cannot preload {module}: it would be imported as root, and {folder}' in record['message']
    assert f'belongs to the uid {UID}' in record['message']
    assert run_as(folder, 0) == []


def test_root_preloads_what_only_root_can_write(folder: Path, python: str) -> None:
    os.chown(folder, 0, 0)
    source = 'import os\nLOADED = os.geteuid()\n' + textwrap.dedent(WORKER).replace("'up'", "'up', LOADED")
    with pool(folder, source, python=[python], environ=PACKAGES, user='nobody', preload=True) as running:
        assert running.hear('up') == [f'up 0 {UID}']


def test_what_a_preloaded_module_imports_is_not_taken_from_others_either(folder: Path, python: str) -> None:
    os.chown(folder, 0, 0)
    theirs = folder / 'theirs'
    theirs.mkdir()
    plant(folder, ['theirs/__init__'])
    os.chown(theirs, UID, UID)
    source = 'import theirs\n' + textwrap.dedent(WORKER)
    with pool(folder, source, python=[python], environ=PACKAGES, user='nobody', preload_module=['worker']) as running:
        (failure,) = running.wait_for('preload-failed')
        assert 'theirs is not imported as root' in failure['message']
        assert running.exit_status() == 1

    assert run_as(folder, 0) == []


def test_a_compiled_module_that_others_can_write_is_not_run_as_root(folder: Path, python: str) -> None:
    os.chown(folder, 0, 0)
    (folder / '__pycache__').mkdir()
    os.chown(folder / '__pycache__', UID, UID)
    (folder / 'shared.py').write_text('')
    with pool(folder, WORKER, python=[python], environ=PACKAGES, user='nobody', preload_module=['shared']) as running:
        (failure,) = running.wait_for('preload-failed')
        assert 'shared is not imported as root' in failure['message'] and '__pycache__' in failure['message']


def test_workers_of_the_supervisors_own_user_may_have_anything_preloaded(folder: Path, python: str) -> None:
    with pool(folder, WORKER, python=[python], environ=PACKAGES, preload=True, preload_module=['worker']) as running:
        running.hear('up 0')


# The verbs.


def test_a_verb_that_root_types_in_such_a_folder_imports_nothing_from_it(folder: Path, python: str) -> None:
    plant(folder, [name for name in NAMES if name not in ('sitecustomize', 'usercustomize', 'typing')])
    env = {**os.environ, **PACKAGES, 'XDG_RUNTIME_DIR': str(folder)}
    for verb in (['ps'], ['status', '--name=nobody-has-it'], ['doctor'], ['health', '--name=nobody-has-it']):
        subprocess.run([python, '-m', 'sergeant_linux', *verb], cwd=folder, env=env, capture_output=True, check=False)

    assert run_as(folder, 0) == []
