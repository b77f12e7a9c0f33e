"""Why a life ended and what that means, from the wait status, the worker's last words and what we did to it."""

from dataclasses import replace

import pytest

from sergeant_linux.core.result import (
    SIGKILL,
    SIGTERM,
    UNLOADABLE,
    Blame,
    Ending,
    FinalReport,
    Outcome,
    Request,
    Result,
    outcome_of,
    result_of,
)

SIGSEGV = 11

NOBODY = Blame()
SIGNALLED = Blame(request=Request.STOP, signalled=True)
ASKED_NOT_YET_SIGNALLED = Blame(request=Request.LIFETIME)
MEMORY = Blame(result=Result.MEMORY_MAX, signalled=True)
TIMEOUT = Blame(request=Request.STOP, result=Result.TIMEOUT, signalled=True)


def left_with(code: int, **report: object) -> Ending:
    return Ending(code, None, report=replace(FinalReport(code), **report) if report else None)  # type: ignore[arg-type]  # names of fields


def killed_by(signum: int, *, core_dumped: bool = False, report: FinalReport | None = None) -> Ending:
    return Ending(None, signum, core_dumped=core_dumped, report=report)


STOLEN = Ending(None, None, stolen=True)


@pytest.mark.parametrize(('ending', 'blame', 'result', 'outcome'), [
    # By itself.
    (left_with(0), NOBODY, Result.SUCCESS, Outcome.FINISHED),
    (left_with(1), NOBODY, Result.EXIT_CODE, Outcome.FAILED),
    (left_with(2), NOBODY, Result.EXIT_CODE, Outcome.UNLOADABLE),
    (left_with(3), NOBODY, Result.EXIT_CODE, Outcome.UNLOADABLE),
    (left_with(4), NOBODY, Result.SUCCESS, Outcome.FINISHED),
    (left_with(5), NOBODY, Result.SUCCESS, Outcome.WANTS_POOL_STOP),
    (left_with(6), NOBODY, Result.EXIT_CODE, Outcome.FAILED),
    (left_with(7), NOBODY, Result.EXIT_CODE, Outcome.UNLOADABLE),
    (left_with(9), NOBODY, Result.EXIT_CODE, Outcome.FAILED),
    (left_with(255), NOBODY, Result.EXIT_CODE, Outcome.FAILED),
    (killed_by(SIGSEGV), NOBODY, Result.SIGNAL, Outcome.FAILED),
    (killed_by(SIGSEGV, core_dumped=True), NOBODY, Result.CORE_DUMP, Outcome.FAILED),
    # By a stranger.
    (killed_by(SIGKILL), NOBODY, Result.SIGNAL, Outcome.FAILED),
    (killed_by(SIGTERM), NOBODY, Result.SIGNAL, Outcome.FAILED),
    (left_with(5, received_stop_signal=True), NOBODY, Result.EXIT_CODE, Outcome.STOPPED_BY_STRANGER),
    (left_with(5, received_stop_signal=True), ASKED_NOT_YET_SIGNALLED, Result.EXIT_CODE, Outcome.STOPPED_BY_STRANGER),
    # A wish that it had before we came to tell it anything.
    (left_with(5, received_stop_signal=False), ASKED_NOT_YET_SIGNALLED, Result.SUCCESS, Outcome.WANTS_POOL_STOP),
    # As we told it.
    (left_with(5), SIGNALLED, Result.SUCCESS, Outcome.FINISHED),
    (left_with(5, received_stop_signal=True), SIGNALLED, Result.SUCCESS, Outcome.FINISHED),
    (left_with(0), SIGNALLED, Result.SUCCESS, Outcome.FINISHED),
    (killed_by(SIGTERM), SIGNALLED, Result.SUCCESS, Outcome.FAILED),
    (left_with(1), SIGNALLED, Result.EXIT_CODE, Outcome.FAILED),
    (killed_by(SIGKILL), SIGNALLED, Result.SIGNAL, Outcome.FAILED),
    # By us, for a cause: however it left in the end, the cause counts.
    (killed_by(SIGKILL), MEMORY, Result.MEMORY_MAX, Outcome.FAILED),
    (left_with(0), MEMORY, Result.MEMORY_MAX, Outcome.FAILED),
    (left_with(5), MEMORY, Result.MEMORY_MAX, Outcome.FAILED),
    (left_with(2), TIMEOUT, Result.TIMEOUT, Outcome.FAILED),
    (killed_by(SIGKILL), TIMEOUT, Result.TIMEOUT, Outcome.FAILED),
    # Nobody knows.
    (STOLEN, NOBODY, Result.UNKNOWN, Outcome.FAILED),
    (STOLEN, SIGNALLED, Result.UNKNOWN, Outcome.FAILED),
    (STOLEN, MEMORY, Result.UNKNOWN, Outcome.FAILED),
    (replace(STOLEN, report=FinalReport(5)), NOBODY, Result.UNKNOWN, Outcome.FAILED),
])  # fmt: skip
def test_the_evidence_has_one_reading(ending: Ending, blame: Blame, result: Result, outcome: Outcome) -> None:
    assert (result_of(ending, blame), outcome_of(ending, blame)) == (result, outcome)


def test_every_exit_code_but_those_with_a_meaning_is_a_failure() -> None:
    failures = {code for code in range(256) if outcome_of(left_with(code), NOBODY) is Outcome.FAILED}

    assert failures == set(range(256)) - {0, 4, 5} - UNLOADABLE


def test_the_first_cause_wins() -> None:
    blame = Blame()

    blame.is_for(Result.MEMORY_MAX)
    blame.is_for(Result.TIMEOUT)

    assert blame.result is Result.MEMORY_MAX


def test_the_first_to_ask_is_remembered() -> None:
    blame = Blame()

    blame.is_ours(Request.LIFETIME)
    blame.is_ours(Request.STOP)

    assert blame.request is Request.LIFETIME


def test_a_worker_that_had_to_kill_itself_because_of_its_threads_left_with_the_code_it_reported() -> None:
    report = FinalReport(4, unkillable_threads=('Thread-1',))

    ending = killed_by(SIGKILL, report=report)

    assert ending.return_code == 4
    assert (result_of(ending, NOBODY), outcome_of(ending, NOBODY)) == (Result.SUCCESS, Outcome.FINISHED)


def test_a_report_says_nothing_about_the_code_of_a_worker_that_was_killed() -> None:
    ending = killed_by(SIGKILL, report=FinalReport(0))

    assert ending.return_code is None
    assert result_of(ending, NOBODY) is Result.SIGNAL


def test_a_report_does_not_overrule_the_code_that_the_kernel_gives() -> None:
    ending = Ending(9, None, report=FinalReport(0, unkillable_threads=('Thread-1',)))

    assert ending.return_code == 9
