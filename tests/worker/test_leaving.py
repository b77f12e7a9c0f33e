"""The end of a worker's process: its threads, its atexit callbacks, its buffers."""

import atexit
import multiprocessing.util  # noqa: F401  # see the test of a child of multiprocessing
import signal
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent

import pytest

from tests.worker.life import Life, Start

Run = Callable[[str], Life]


@pytest.fixture
def run(start: Start, tmp_path: Path) -> Run:
    """A function that starts a worker with this body."""

    def run(body: str) -> Life:
        head = 'from tests.worker.workers import journal, wait_for_cue\n\ndef work():\n'
        (tmp_path / 'mine.py').write_text(head + indent(dedent(body), '    '))
        life = start('work', 'mine')
        life.ready()
        return life

    return run


def test_what_the_worker_has_printed_and_not_flushed_is_written(run: Run, tmp_path: Path) -> None:
    life = run(
        """
        import sys
        sys.stdout = open(1, 'w', closefd=False)
        print('printed')
        """
    )

    assert life.exit_code() == 0
    assert (tmp_path / 'output').read_text() == 'printed\n'


def test_a_worker_without_stdout_leaves_all_the_same(run: Run) -> None:
    assert run('import sys; sys.stdout = None; sys.stderr.close()').exit_code() == 0


def test_the_worker_s_own_atexit_callbacks_run_after_the_report(run: Run) -> None:
    life = run(
        """
        import atexit
        atexit.register(journal, 'second')
        atexit.register(journal, 'first')
        atexit.register(wait_for_cue)
        """
    )
    life.final()
    life.cue()

    assert life.exit_code() == 0
    assert life.rest() == ['first', 'second']


def test_an_atexit_callback_that_raises_changes_nothing(run: Run) -> None:
    life = run(
        """
        import atexit, sys
        atexit.register(journal, 'second')
        atexit.register(sys.exit, 9)
        raise SystemExit(3)
        """
    )

    assert life.exit_code() == 3
    assert life.rest() == ['second']


def test_callbacks_and_finalizers_from_before_the_fork_are_not_run(start: Start, tmp_path: Path) -> None:
    """The test's own process plays the fork server: what it has registered belongs to it alone."""

    def inherited(what: str) -> None:
        (tmp_path / what).touch()

    class Owner:
        pass

    owner = Owner()
    finalizer = weakref.finalize(owner, inherited, 'finalizer')
    atexit.register(inherited, 'callback')
    try:
        (tmp_path / 'mine.py').write_text('def work(): pass')
        assert start('work', 'mine').exit_code() == 0
    finally:
        atexit.unregister(inherited)
        finalizer.detach()

    assert {path.name for path in tmp_path.iterdir()} & {'callback', 'finalizer'} == set()


def test_a_temporary_directory_of_the_worker_is_removed(run: Run) -> None:
    life = run(
        """
        import tempfile
        global folder
        folder = tempfile.TemporaryDirectory()
        journal(folder.name)
        """
    )
    folder = Path(life.heard() or '')

    assert life.exit_code() == 0
    assert not folder.exists()


def test_a_child_of_multiprocessing_is_waited_for_although_the_fork_server_has_used_multiprocessing(run: Run) -> None:
    assert 'multiprocessing.util' in sys.modules  # this process plays the fork server
    life = run(
        """
        import multiprocessing
        def child():
            wait_for_cue()
            journal('the child is done')
        multiprocessing.get_context('fork').Process(target=child).start()
        """
    )
    life.final()
    life.cue()

    assert life.exit_code() == 0
    assert life.rest() == ['the child is done']


def test_logging_handlers_are_flushed(run: Run, tmp_path: Path) -> None:
    life = run(
        """
        import logging, logging.handlers
        handler = logging.handlers.MemoryHandler(1000, target=logging.StreamHandler())
        logging.getLogger().addHandler(handler)
        logging.error('logged')
        """
    )

    assert life.exit_code() == 0
    assert (tmp_path / 'output').read_text() == 'logged\n'


def test_threads_that_still_run_are_ended(run: Run) -> None:
    life = run(
        """
        import threading, time
        def busy():
            try:
                journal('busy')
                while True:
                    time.sleep(0.001)
            except SystemExit:
                journal('ended')
        for _ in range(3):
            threading.Thread(target=busy).start()
        """
    )

    assert life.final()['unkillable_threads'] is None
    assert life.exit_code() == 0
    assert sorted(life.rest()) == ['busy', 'busy', 'busy', 'ended', 'ended', 'ended']


def test_threads_that_cannot_be_ended_are_reported_together_and_the_process_kills_itself(run: Run) -> None:
    began = time.monotonic()
    life = run(
        """
        import threading
        for name in ('one', 'two', 'three'):
            threading.Thread(target=threading.Event().wait, name=name, daemon=True).start()
        raise SystemExit(3)
        """
    )

    final = life.final()

    assert (final['return_code'], final['unkillable_threads']) == (3, ['one', 'two', 'three'])
    assert life.end().signal == signal.SIGKILL
    assert time.monotonic() - began < 4.0, 'they were waited for one after another'


def test_signals_that_ask_a_leaving_worker_to_leave_are_ignored(run: Run) -> None:
    life = run(
        """
        import atexit
        atexit.register(wait_for_cue)
        """
    )
    life.final()

    life.terminate()
    life.process.signal(signal.SIGINT)
    life.cue()

    assert life.exit_code() == 0
