"""The demo as a person runs it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, '-u', '-m', 'sergeant_linux.demo'],
        env=os.environ | {'TMPDIR': str(folder), 'PYTHONPATH': str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_the_demo_ends_by_itself_and_proves_what_it_did(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        output, _ = demo.communicate(timeout=110)

    verdicts = [line.partition('  ')[0] for line in output.rpartition('\n\n')[2].splitlines()]
    assert (demo.returncode, verdicts) == (0, ['proven'] * 5), output
    assert list(tmp_path.iterdir()) == [], 'its folder is removed'


def test_ctrl_c_ends_the_demo_and_leaves_nothing(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        assert demo.stdout is not None
        assert any('spawned a new worker' in line for line in demo.stdout)
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=30)

    assert demo.returncode == 128 + signal.SIGINT, output
    assert list(tmp_path.iterdir()) == [], 'its folder is removed'
