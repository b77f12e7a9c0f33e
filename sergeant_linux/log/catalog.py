"""What the journal can explain: the kinds of messages that an administrator asks about, each with its MESSAGE_ID.

Facts: `journalctl -x` shows with a message the text that a catalog has for its MESSAGE_ID, and puts the message's own
fields into it, @NAME@ (systemd.io, Message Catalogs). An id is a random number that stays for ever.
Decision: the ids and the texts are in one table; `sergeant-linux unit --catalog` prints it as the file that systemd
reads, and `--install` puts it in its place.
"""

from typing import Final, NamedTuple

FILE: Final = '/usr/local/lib/systemd/catalog/sergeant-linux.catalog'
"""Where systemd looks for catalogs of what didn't come with the system."""


class Message(NamedTuple):
    """A kind of message: `id` is its MESSAGE_ID, `subject` and `text` explain it."""

    id: str
    subject: str
    text: str


_WORKERS: Final = '@SERGEANT_WORKER_MODULE_NAME@.@SERGEANT_WORKER_CLASS_NAME@'

MESSAGES: Final = {
    'worker-exit': Message(
        'eccee15b332c4643a79497881b4dffce',
        'A worker has ended: @SERGEANT_RESULT@',
        f"""\
Process @SERGEANT_PID@, a worker of {_WORKERS} in slot @SERGEANT_SLOT@, has ended.
Its result is "@SERGEANT_RESULT@":

success: it finished, or left because it was asked to (SERGEANT_REQUEST= says by whom)
exit-code: it left with a code that is a failure (SERGEANT_RETURN_CODE=)
signal, core-dump: a signal ended it that did not come from the supervisor (SERGEANT_SIGNAL=)
timeout: it was not ready, or not gone, in time
memory-max: it was over its memory limit, and the supervisor has killed it
oom-kill: the kernel has killed it for its memory (SERGEANT_MEMORY_OOM_SCOPE= says by whose limit)
watchdog: it was taken for hung

Unless the pool stops or is made smaller, another worker takes its place.
"sergeant-linux status" shows the pool, "sergeant-linux events" what has happened in it.""",
    ),
    'worker-hung': Message(
        '71a9f6ef8d764e99ad5052335998cff9',
        'A worker was taken for hung',
        f"""\
Process @SERGEANT_PID@, a worker of {_WORKERS} in slot @SERGEANT_SLOT@, has given no sign
of getting on: @SERGEANT_REASON@. It is stopped, and another worker takes its place.
Its stacks are in the log before this message. --worker-watchdog sets the time.""",
    ),
    'worker-start-timeout': Message(
        'eba3f68aeea7495fba766dd41b3109e1',
        'A worker was not ready in time',
        f"""\
Process @SERGEANT_PID@, a worker of {_WORKERS} in slot @SERGEANT_SLOT@, was not ready
within --timeout-start. It is stopped, and tried again after a delay.""",
    ),
    'worker-spawn-failed': Message(
        '904fbbebe5f14ba6be78ce2ce7632e2b',
        'A worker could not be started',
        f"""\
A worker of {_WORKERS} for slot @SERGEANT_SLOT@ could not be started: @SERGEANT_REASON@.
It is tried again after a delay. "sergeant-linux doctor" shows what this host gives a pool.""",
    ),
    'reload-end': Message(
        '20692e32e4524ba2bb31447c018663e0',
        'A reload of the code is over: @SERGEANT_PHASE@',
        f"""\
The code of {_WORKERS} was loaded anew, as generation @SERGEANT_GENERATION@.
@SERGEANT_CHANGED@ of @SERGEANT_OF@ workers have changed. Where it has failed, the workers run the code from before:
mend it, and reload again.""",
    ),
    'restart-budget-spent': Message(
        'f4c61a797dad4b608712b36f8eaa0467',
        'A pool gives up',
        f"""\
The workers of {_WORKERS} have failed more often than --restart-budget=@SERGEANT_BUDGET@ allows.
The pool stops with exit status 3. The ends of its workers before this message say why they failed.""",
    ),
    'cant-run': Message(
        'f154109c9d964d17859eff47d21ddcce',
        'This host can not run a pool',
        f"""\
The pool of {_WORKERS} was not started, because this host does not give what was asked for.
The message says what. The exit status is 4; a unit made by "sergeant-linux unit" is not started again after it.
"sergeant-linux doctor", run as the same user in the same place, shows what would mend it.""",
    ),
}
"""By the event."""


def as_text() -> str:
    """Return the file, as `journalctl --update-catalog` reads it."""
    return '\n'.join(
        f'-- {message.id}\nSubject: {message.subject}\nDefined-By: sergeant-linux\n\n{message.text}\n'
        for message in MESSAGES.values()
    )
