"""A shell completes verbs, options and the names of pools, asked as bash, zsh and fish ask."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sergeant_linux.cli.main import VERBS
from tests.cli.stand_in import COMMAND, REPOSITORY, stand_in, surroundings

pytest.importorskip('argcomplete', reason='it is an extra')


def complete(line: str, *more: str, shell: str = 'bash', **environ: str) -> list[str]:
    """Return what may follow this line. argcomplete's protocol: the line in COMP_LINE, the answer on descriptor 8."""
    asked = {
        '_ARGCOMPLETE': '1', '_ARGCOMPLETE_SHELL': shell, '_ARGCOMPLETE_SUPPRESS_SPACE': '1', '_ARGCOMPLETE_IFS': '\013',
        'COMP_LINE': line, 'COMP_POINT': str(len(line.encode())), 'COMP_TYPE': '9', '_ARGCOMPLETE_COMP_WORDBREAKS': ' \t\n"\'><=;|&(:',
    }
    done = subprocess.run(
        ['bash', '-c', '"$@" 8>&1 9>/dev/null', 'bash', *COMMAND], env=surroundings(**asked, **environ),
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert done.stderr == ''
    return [each.partition(':')[0].strip() if shell != 'bash' else each.strip() for each in done.stdout.split('\013') if each]


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'fish'])
def test_verbs_are_completed(shell: str) -> None:
    assert set(VERBS) <= set(complete('sergeant-linux ', shell=shell))
    assert [each.partition('\t')[0] for each in complete('sergeant-linux st', shell=shell)] == ['status', 'stop']


@pytest.mark.parametrize(('line', 'found'), [
    ('sergeant-linux status --', {'--name', '--control-socket', '--json', '--watch', '--help'}),
    ('sergeant-linux stop --no', {'--no-wait', '--now'}),
    ('sergeant-linux run --worker-mod', {'--worker-module'}),
    ('sergeant-linux doctor --mem', {'--memory-backend', '--memory-measure', '--memory-poll-interval'}),
    ('sergeant-linux unit --sys', {'--systemd-version'}),
    ('sergeant-linux unit --worker-mod', {'--worker-module'}),
    ('sergeant-linux set timeout-s', {'timeout-start', 'timeout-stop'}),
    ('sergeant-linux get worker-m', {'worker-module', 'worker-memory-high'}),
])
def test_options_are_completed(line: str, found: set[str]) -> None:
    completed = set(complete(line))
    assert found <= completed and all(each.startswith(line.split()[-1]) for each in completed)


def test_names_of_pools_are_completed(tmp_path: Path) -> None:
    with stand_in(tmp_path, 'crawl-a') as a, stand_in(tmp_path, 'crawl-b') as b, stand_in(tmp_path, 'mail'):
        completed = complete('sergeant-linux status --name crawl-', XDG_RUNTIME_DIR=str(tmp_path))
        assert {'crawl-a', 'crawl-b'} <= set(completed) and 'mail' not in completed
        assert a.asked == b.asked == []


def test_bash_itself_completes(tmp_path: Path) -> None:
    command = tmp_path / 'sergeant-linux'
    command.write_text(f'#!{sys.executable}\nfrom sergeant_linux.cli.main import main\nmain()\n')
    command.chmod(0o755)
    register = Path(sys.executable).with_name('register-python-argcomplete')
    if not register.exists():
        pytest.skip('argcomplete is here without its command')
    code = f"""
        eval "$({sys.executable} {register} sergeant-linux)"
        COMP_WORDS=(sergeant-linux sta) COMP_CWORD=1 COMP_LINE='sergeant-linux sta' COMP_POINT=18 COMP_TYPE=9
        _python_argcomplete sergeant-linux sta sergeant-linux
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environ = surroundings(PATH=f'{tmp_path}:{os.environ["PATH"]}')
    done = subprocess.run(['bash', '-c', code], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ('status', '')


def test_without_argcomplete_a_shell_that_asks_gets_nothing(tmp_path: Path) -> None:
    code = f'import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from sergeant_linux.cli.main import main; main()'
    done = subprocess.run(
        [sys.executable, '-I', '-S', '-c', code], env=surroundings(_ARGCOMPLETE='1'), capture_output=True, text=True,
        timeout=60, check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, '', '')


def test_the_command_says_to_bash_that_it_can_be_completed() -> None:
    assert 'PYTHON_ARGCOMPLETE_OK' in (REPOSITORY / 'sergeant_linux' / 'cli' / 'main.py').read_text()[:1024]


@pytest.mark.parametrize('shell', ['zsh', 'fish'])
def test_what_is_registered_is_what_the_shell_understands(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f'there is no {shell} here')
    register = Path(sys.executable).with_name('register-python-argcomplete')
    if not register.exists():
        pytest.skip('argcomplete is here without its command')
    script = subprocess.run(
        [sys.executable, str(register), '--shell', shell, 'sergeant-linux'], capture_output=True, text=True, check=True
    ).stdout
    done = subprocess.run([shell, '-n', '/dev/stdin'], input=script, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, '')
