"""The leak guard of conftest.py, seen from outside: pytest runs tests that leak, in a process of its own."""

from pathlib import Path

import pytest

CONFTEST = (Path(__file__).parent / 'conftest.py').read_text().replace('PATIENCE: Final = 2.0', 'PATIENCE: Final = 0.5')

LEAKS = {
    # what a test does: what the guard says
    'os.open("/dev/null", os.O_RDONLY)': '*fd * on /dev/null',
    'os.fork() or os._exit(0)': '*zombie * (child of *',
    # Popen is made to believe that its process has ended, and so does not warn by itself
    'subprocess.Popen(["sleep", "3600"]).returncode = 0': '*process * (child of *): sleep 3600',
    'subprocess.run("setsid sleep 3601 > /dev/null 2>&1 & sleep 0.1", shell=True)': '*process * (child of *): sleep 3601',
    'signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])': '*mask was set(), is {*SIGUSR1*',
    'signal.signal(signal.SIGUSR2, lambda *_: None)': '*handler of SIGUSR2 was *SIG_DFL*, is <function *',
    'signal.set_wakeup_fd(os.eventfd(0, os.EFD_NONBLOCK))': '*wakeup fd was -1, is *',
}


def run(pytester: pytest.Pytester, *bodies: str) -> pytest.RunResult:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile('import os, signal, socket, subprocess\n' + ''.join(
        f'def test_{number}():\n    {body}\n' for number, body in enumerate(bodies)
    ))
    return pytester.runpytest_subprocess('-p', 'no:cacheprovider')


def test_a_test_that_leaves_something_behind_fails_and_the_next_one_does_not(pytester: pytest.Pytester) -> None:
    result = run(pytester, *(body for leak in LEAKS for body in (leak, 'pass')))

    result.assert_outcomes(passed=2 * len(LEAKS), errors=len(LEAKS))
    for line in LEAKS.values():
        result.stdout.fnmatch_lines(['*the test has left behind:', line])


def test_what_is_gone_within_the_patience_is_no_leak(pytester: pytest.Pytester) -> None:
    in_a_cycle = 'cycle = [socket.socket()]; cycle.append(cycle)'
    ends_by_itself = 'subprocess.run("setsid sleep 0.2 > /dev/null 2>&1 &", shell=True)'

    result = run(pytester, in_a_cycle, ends_by_itself)

    result.assert_outcomes(passed=2)


def test_a_test_that_fails_is_cleaned_up_after_and_reported_once(pytester: pytest.Pytester) -> None:
    result = run(pytester, 'subprocess.Popen(["sleep", "3602"]).returncode = 0; assert False', 'pass')

    result.assert_outcomes(passed=1, failed=1)
