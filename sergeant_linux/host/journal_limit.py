"""How much a unit may log: beyond that the journal drops what comes, and our records with what workers print.

Facts: the journal limits each unit, by default to 10,000 lines in 30 s (journald.conf(5), RateLimitBurst=). A unit may
set a limit of its own (systemd.exec(5), LogRateLimitIntervalSec=, LogRateLimitBurst=; systemd 240 and newer), where 0
is not "none" but the journal's own. systemd hands these to the journal as links in /run/systemd/units, one for each
unit that sets them. It does so only for units of the system; those of a user's manager share the limit of theirs.
Consequence: one readlink(2) tells whether anybody has thought of it. What journald.conf says is not read.
Price: where journald.conf has no limit, the warning is needless.
"""

import os
from typing import Final

from sergeant_linux.core.policy import Policy
from sergeant_linux.host import environment
from sergeant_linux.kernel import journal
from sergeant_linux.kernel.cgroup import own_path
from sergeant_linux.kernel.stderr import STDERR

LINKS: Final = '/run/systemd/units'
"""Where systemd keeps what the journal must know of units."""


def limited_unit(policy: Policy, cgroup: str | None = None, links: str = LINKS) -> str | None:
    """Return the unit of the system whose lines the journal limits as it likes, and with them the log of this pool;
    None where the log doesn't go to the journal, or its unit has a limit of its own. `cgroup`: where this process is.
    """
    to_journal = policy.log_format == 'journal' or journal.is_stream(STDERR, os.environ)
    path = cgroup if cgroup is not None else own_path()
    if not to_journal or path is None or not os.path.isdir(links):
        return None
    parts = path.split('/')
    of_manager = next((part for part in parts if environment.is_user_manager(part)), None)
    unit = of_manager or environment.unit_name(path)
    if unit is None or os.path.lexists(os.path.join(links, f'log-rate-limit-interval:{unit}')):
        return None
    return unit
