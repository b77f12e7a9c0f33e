"""Signals: on the real ones, each test in a process of its own."""

import faulthandler
import os
import resource
import signal
import sys
import threading

import pytest

from sergeant_linux.kernel import signals
from sergeant_linux.kernel.pidref import Ended
from sergeant_linux.kernel.poller import EPOLLIN, Poller
from sergeant_linux.kernel.signals import SignalInbox
from tests.kernel.processes import (
    DEADLINE,
    Event,
    Fork,
    forking,
    in_child,
    run_python,
    signal_state,
    sleep_for_ever,
)

PIPE_CAPACITY = 65_536  # pipe(7), since Linux 2.6.11

CHOSEN = (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD)


def test_signals_are_read_as_numbers_in_order() -> None:
    def receive() -> list[list[int]]:
        with SignalInbox(CHOSEN) as inbox:
            nothing = inbox.read()
            for signum in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
                signal.raise_signal(signum)
            return [nothing, inbox.read(), inbox.read()]

    assert in_child(receive) == [[], [signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1], []]


def test_a_signal_ends_the_wait_of_the_loop() -> None:
    def wait() -> list[object]:
        with SignalInbox(CHOSEN) as inbox, Poller[str]() as poller:
            poller.register(inbox, 'signals')
            threading.Timer(0.02, signal.raise_signal, (signal.SIGTERM,)).start()
            events = list(poller.wait(DEADLINE))
            return [events, inbox.read(), list(poller.wait(0))]

    assert in_child(wait) == [[['signals', EPOLLIN]], [signal.SIGTERM], []]


def test_thousands_of_unread_signals_are_all_kept() -> None:
    def receive() -> int:
        with SignalInbox(CHOSEN) as inbox:
            for _ in range(PIPE_CAPACITY):
                signal.raise_signal(signal.SIGUSR1)
            return len(inbox.read())

    assert in_child(receive) == PIPE_CAPACITY


def test_a_signal_that_comes_when_the_pipe_is_full_is_not_lost_and_none_is_read_twice() -> None:
    def receive() -> list[object]:
        with SignalInbox(CHOSEN) as inbox:
            for _ in range(PIPE_CAPACITY):
                signal.raise_signal(signal.SIGCHLD)
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            first = inbox.read()
            signal.raise_signal(signal.SIGUSR1)
            return [first.count(signal.SIGTERM), first[-1], inbox.read(), inbox.read()]

    assert in_child(receive) == [1, signal.SIGTERM, [signal.SIGUSR1], []]


def test_too_many_unread_signals_neither_block_nor_complain() -> None:
    def receive() -> list[object]:
        complaints: list[object] = []
        sys.unraisablehook = complaints.append
        with SignalInbox(CHOSEN) as inbox:
            for _ in range(PIPE_CAPACITY + 1):
                signal.raise_signal(signal.SIGUSR1)
            return [len(inbox.read()), len(complaints)]

    assert in_child(receive) == [PIPE_CAPACITY, 0]


def test_the_inbox_is_not_passed_on_to_another_program() -> None:
    def look() -> list[bool]:
        with SignalInbox(CHOSEN) as inbox:
            return [os.get_inheritable(fd) for fd in (inbox.fileno(), signal.set_wakeup_fd(-1))]

    assert in_child(look) == [False, False]


def test_signals_that_were_blocked_are_received_and_blocked_again_afterwards() -> None:
    def receive() -> list[object]:
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTERM, signal.SIGHUP})
        with SignalInbox(CHOSEN) as inbox:
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            signal.raise_signal(signal.SIGTERM)
            received = inbox.read()
        return [list(blocked), received, sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))]

    assert in_child(receive) == [[signal.SIGHUP], [signal.SIGTERM], [signal.SIGHUP, signal.SIGTERM]]


def test_a_pending_signal_is_received_and_not_lost() -> None:
    def receive() -> list[int]:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.raise_signal(signal.SIGTERM)
        with SignalInbox(CHOSEN) as inbox:
            return inbox.read()

    assert in_child(receive) == [signal.SIGTERM]


def a_handler(signum: int, frame: object) -> None:
    """Some handler of a host program."""


def be_a_host_program() -> None:
    """Take every kind of thing that has to be put back."""
    signal.signal(signal.SIGTERM, a_handler)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGCHLD, signal.SIGALRM})
    _, writer = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(writer)


def test_everything_is_put_back() -> None:
    def listen() -> list[object]:
        be_a_host_program()
        before = signal_state()
        inbox = SignalInbox([*CHOSEN, *CHOSEN])
        during = signal_state()
        inbox.close()
        inbox.close()
        return [before, during, signal_state(), inbox.fileno()]

    before, during, after, fd = in_child(listen)
    assert before == after
    assert before != during
    assert fd == -1


def test_everything_is_put_back_when_an_exception_passes() -> None:
    def listen() -> list[object]:
        be_a_host_program()
        before = signal_state()
        with pytest.raises(ZeroDivisionError), SignalInbox(CHOSEN):
            raise ZeroDivisionError
        return [before, signal_state()]

    before, after = in_child(listen)
    assert before == after


def test_a_signal_that_comes_while_things_are_put_back_does_not_come_between() -> None:
    def listen_under_fire() -> str:
        main_thread, over = threading.get_ident(), threading.Event()
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGINT})  # else the handler here would raise, and rightly

        def fire() -> None:
            while not over.is_set():
                signal.pthread_kill(main_thread, signal.SIGINT)

        thread = threading.Thread(target=fire)
        thread.start()
        for _ in range(300):
            SignalInbox({signal.SIGINT, *CHOSEN}).close()
        over.set()
        thread.join()
        return 'undisturbed'

    assert in_child(listen_under_fire) == 'undisturbed'


@pytest.mark.parametrize('signum', [signal.SIGKILL, signal.SIGSTOP])
def test_a_signal_that_cannot_be_handled_changes_nothing(signum: int) -> None:
    def listen() -> list[object]:
        be_a_host_program()
        before = signal_state()
        with pytest.raises(OSError, match='Invalid argument'):
            SignalInbox([*CHOSEN, signum])
        return [before, signal_state()]

    before, after = in_child(listen)
    assert before == after


def test_off_the_main_thread_nothing_changes() -> None:
    def listen() -> list[object]:
        be_a_host_program()
        before = signal_state()
        failures: list[str] = []

        def try_it() -> None:
            try:
                SignalInbox(CHOSEN)
            except RuntimeError as error:
                failures.append(str(error))

        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
        return [before, signal_state(), failures]

    before, after, failures = in_child(listen)
    assert before == after
    assert failures == ['signals can be received in the main thread only: Python runs their handlers there']


def test_a_handler_that_is_not_pythons_is_named_and_left_at_the_default() -> None:
    said = run_python(
        """
        import signal
        from sergeant_linux.kernel.signals import SignalInbox
        with SignalInbox([signal.SIGSEGV, signal.SIGTERM]) as inbox:
            foreign = inbox.foreign
        answer = [list(foreign), signal.getsignal(signal.SIGSEGV) == signal.SIG_DFL]
        """,
        '-X',
        'faulthandler',
    )

    assert said == [[signal.SIGSEGV], True]


def test_all_signals_are_blocked_and_then_delivered_before_restore_returns() -> None:
    def block_and_restore() -> list[object]:
        seen: list[int] = []
        signal.signal(signal.SIGTERM, lambda signum, frame: seen.append(signum))
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGHUP})
        mask = signals.block_all()
        blocked = signal_state()['SigBlk']
        signal.raise_signal(signal.SIGTERM)
        before = list(seen)
        signals.restore(mask)
        return [sorted(mask), blocked, before, seen, sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))]

    mask, blocked, before, after, mask_afterwards = in_child(block_and_restore)
    assert mask == mask_afterwards == [signal.SIGHUP]
    assert int(blocked, 16) == sum(1 << signum - 1 for signum in signals.CAN_BE_HANDLED)
    assert before == []
    assert after == [signal.SIGTERM]


def test_a_child_is_reset_to_what_a_new_interpreter_has() -> None:
    def reset() -> dict[str, str]:
        faulthandler.disable()  # pytest has turned it on
        be_a_host_program()
        for signum in signals.CAN_BE_HANDLED:
            signal.signal(signum, signal.SIG_IGN)
        signals.block_all()
        signals.reset_to_default()
        return signal_state()

    fresh = run_python('from tests.kernel.processes import signal_state; answer = signal_state()')

    reset_child = in_child(reset)
    for what in ('SigBlk', 'SigIgn', 'SigCgt', 'handlers', 'wakeup fd'):
        assert reset_child[what] == fresh[what], what


def test_a_reset_child_is_ended_by_a_signal_and_its_parent_hears_nothing() -> None:
    def listen() -> list[object]:
        with SignalInbox(CHOSEN) as inbox, forking() as fork:
            ready = Event()
            mask = signals.block_all()

            def child() -> None:
                signals.reset_to_default()
                ready.set()
                sleep_for_ever()

            process = fork(child)
            signals.restore(mask)
            ready.wait()
            process.signal(signal.SIGTERM)
            assert process.exited(DEADLINE)
            return [process.reap(), inbox.read()]

    assert in_child(listen) == [[None, signal.SIGTERM, False], [signal.SIGCHLD]]


def test_a_child_can_reset_its_handlers_and_stay_uninterrupted() -> None:
    def reset() -> list[object]:
        signals.block_all()
        signals.reset_handlers()
        signal.raise_signal(signal.SIGTERM)  # would be its end
        return list(signal.sigpending())

    assert in_child(reset) == [signal.SIGTERM]


def test_a_reset_child_raises_for_a_lost_connection_and_for_ctrl_c() -> None:
    def reset_and_be_interrupted() -> list[str]:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signals.reset_to_default()
        reader, writer = os.pipe()
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            os.write(writer, b'.')
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return ['alive']

    assert in_child(reset_and_be_interrupted) == ['alive']


@pytest.mark.parametrize('watched', [True, False])
def test_a_reset_child_has_the_fault_handler_if_its_parent_had(fork: Fork, watched: bool) -> None:
    told = os.memfd_create('stderr')

    def crash() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(told, 2)
        faulthandler.enable() if watched else faulthandler.disable()
        signals.reset_to_default()
        signal.raise_signal(signal.SIGSEGV)

    process = fork(crash)

    assert process.exited(DEADLINE)
    assert process.reap() == Ended(exit_code=None, signal=signal.SIGSEGV, core_dumped=False)
    assert (b'Fatal Python error: Segmentation fault' in os.pread(told, 4096, 0)) is watched
    os.close(told)
