"""What is to be buried should the supervisor be killed, as the supervisor tells it to those who would do it."""

from dataclasses import dataclass, field

from sergeant_linux.wire.sessions import Sessions


@dataclass(slots=True)
class Estate:
    """A pool: its name, the sessions of its workers, and its cgroup, where it has one."""

    pool: str
    sessions: Sessions = field(default_factory=Sessions)
    folders: list[str] = field(default_factory=list)
