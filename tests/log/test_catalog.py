"""What the journal can explain: it is what the supervisor says."""

import logging
import re
from collections.abc import Iterator

import pytest

from sergeant_linux.core.commands import (
    BudgetSpent,
    ReloadEnded,
    Report,
    WorkerExited,
    WorkerHung,
    WorkerSpawnFailed,
    WorkerStartTimedOut,
)
from sergeant_linux.core.policy import Budget, Policy
from sergeant_linux.core.reload import Phase
from sergeant_linux.core.result import Ending, Outcome, Result
from sergeant_linux.log.catalog import MESSAGES, as_text
from sergeant_linux.log.formats import journal_entry
from sergeant_linux.log.words import Journal

REPORTS: dict[str, Report | None] = {
    'worker-exit': WorkerExited(
        slot=0, life=1, pid=2, ending=Ending(None, signal=9), result=Result.SIGNAL, outcome=Outcome.FAILED, request=None,
        uptime=1.0, restart_in=None, measured=None,
    ),
    'worker-hung': WorkerHung(0, 1, 2, 'one task for 10s'),
    'worker-start-timeout': WorkerStartTimedOut(0, 1, 2, 60.0),
    'worker-spawn-failed': WorkerSpawnFailed(0, 1, 'no memory', 1.0),
    'reload-end': ReloadEnded(2, Phase.FAILED, 0, 4, 'SyntaxError'),
    'restart-budget-spent': BudgetSpent(0),
    'cant-run': None,
}  # fmt: skip


class Entries(logging.Handler):
    """Keeps what the journal would get."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[dict[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(dict(journal_entry(record, 'pool')))


@pytest.fixture
def entries() -> Iterator[Entries]:
    logger, handler = logging.getLogger('catalog'), Entries()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)


def test_each_kind_of_message_has_an_id_of_its_own() -> None:
    ids = [message.id for message in MESSAGES.values()]

    assert all(re.fullmatch('[0-9a-f]{32}', each) for each in ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize('event', MESSAGES)
def test_a_message_that_can_be_explained_has_its_id_and_all_that_the_text_names(event: str, entries: Entries) -> None:
    policy = Policy(
        worker_module_name='crawl_worker', worker_class_name='Worker', concurrent_workers=4, restart_budget=Budget(10, 60.0),
    )
    journal = Journal(logging.getLogger('catalog'), lambda: policy)
    report = REPORTS[event]
    if report is None:
        journal.note(logging.CRITICAL, 'no cgroup', event)
    else:
        journal.tell(report, stopping=False)

    message = MESSAGES[event]
    [entry] = [each for each in entries.kept if each.get('MESSAGE_ID') == message.id]
    named = set(re.findall('@([A-Z_]+)@', message.subject + message.text))
    assert named <= entry.keys()


def test_the_file_is_as_the_journal_reads_it() -> None:
    blocks = re.split('^-- ', as_text(), flags=re.MULTILINE)[1:]

    assert [block.splitlines()[0] for block in blocks] == [message.id for message in MESSAGES.values()]
    for block in blocks:
        head, _, body = block.partition('\n\n')
        assert [line.split(':')[0] for line in head.splitlines()[1:]] == ['Subject', 'Defined-By']
        assert body.strip()
