"""The cgroups of one pool: a folder of its own, and in it a leaf for each life.

    HOME                        what is ours (delegation.py); controllers are enabled for what is below
    ├── supervisor              our own processes, and whatever else was in HOME
    └── sergeant-PID-RANDOM     one pool; held by flock(2) on the directory as long as its supervisor lives
        ├── life-1              one life: worker, and all it starts
        └── life-2

Facts: a cgroup with controllers for its children may hold no processes, so they are moved out first, all of them,
until none is left; enabling is one write, all or nothing. A leaf's counters begin at zero, so one that is never used
twice tells about one life only. A lock on a directory is gone with the last process that has it open. A killed cgroup
needs some milliseconds to become empty.
Consequence: a folder that can be locked belongs to a dead predecessor: it is killed and removed; one that can't is a
live neighbour's and is not touched. A limit is in force before the worker is born in the leaf. Nothing outside of
HOME is ever written. Before the first worker one leaf is made with all its limits and a process of ours goes there:
what would keep workers from being born is known at the start. Price: that move, 7 to 15 ms.

A life is over when nothing is populated any more (cgroup.events). To remove its leaf is housekeeping, which may fail
for good (cgroups that turned read-only, a mount on one) and then is told once; nothing waits for it. A worker may make
cgroups below its leaf: a few, by cgroup.max.depth and cgroup.max.descendants; as these can be lifted by who may write
them, everything here that looks below a leaf has a bound of its own.

Invariant: what was done to HOME is undone when it fails half-way, and at the end when no neighbour needs it.
"""

import errno
import fcntl
import os
import secrets
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol
from weakref import WeakSet

from sergeant_linux.core.result import MemoryEvidence, OomScope
from sergeant_linux.core.units import format_size
from sergeant_linux.host.delegation import SUPERVISOR, Home, NotOurs, start_inside, what_opens
from sergeant_linux.host.trial import try_birth
from sergeant_linux.kernel.cgroup import Cgroup, explain, flat_keyed, own_path
from sergeant_linux.kernel.pidref import PidRef

POOL_PREFIX: Final = 'sergeant-'
FOLDER_PATIENCE: Final = 2.0
"""Seconds that the kernel is given to let go of what was killed in a pool's folder, or in those of all predecessors."""

BOUNDS: Final = {'cgroup.max.depth': 16, 'cgroup.max.descendants': 256}
"""What a worker may make below its leaf (since Linux 4.14): enough for a container or two."""

LOOKED_AT: Final = 1024
"""Steps of a walk below a leaf, at most: twice as many as cgroups."""

class Warn(Protocol):
    """What is to be warned about: a line, what kind of event it is, and its fields."""

    def __call__(self, message: str, event: str, **fields: object) -> None: ...

MOVE_ATTEMPTS: Final = 100

ROOM: Final = 0.9
"""A limit is written at once where no more than this part of it is used."""

UNREACHABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.ENOENT})
"""What the kernel answers to whom it doesn't let move a process: cgroups(7), delegation; ENOENT at the border of a
cgroup namespace."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What every leaf is given: file -> value; `optional` ones where the kernel has the file. `needed`: the
    controllers for them."""

    required: Mapping[str, str]
    optional: Mapping[str, str]
    needed: frozenset[str]
    pool: Mapping[str, str]

    def write(self, leaf: Cgroup) -> None:
        """Put them in force in a leaf. Raises OSError."""
        for file, bound in BOUNDS.items():
            leaf.write(file, bound)
        for file, value in self.required.items():
            leaf.write(file, value)
        for file, value in self.optional.items():
            with suppress(FileNotFoundError):
                leaf.write(file, value)


class Leaf:
    """The cgroup of one life."""

    def __init__(self, cgroup: Cgroup, pool: 'PoolLimit', *, has_memory: bool, limit: int | None) -> None:
        self.cgroup = cgroup
        self._pool = pool
        self._has_memory = has_memory
        self.limit = limit
        self._kills = 0
        self._pool_ooms = pool.ooms() if has_memory else 0
        self.directory = cgroup.open()
        pool.leaves.add(self)

    def close_directory(self) -> None:
        """Let go of the descriptor that is passed to whoever is to be born here."""
        if self.directory >= 0:
            os.close(self.directory)
            self.directory = -1

    def memory_peak(self) -> int | None:
        """Return the most it has had, in bytes; None where the kernel doesn't tell (memory.peak, since Linux 5.19)."""
        return self.cgroup.number('memory.peak') if self._has_memory else None

    def change_limit(self, limit: int | None) -> bool:
        """Put another limit in force, in bytes; False when that would take pages away from it, and is not done here.

        Raises OSError.
        """
        has = self.memory_now() or 0
        if limit is not None and has > ROOM * limit:
            self.limit = limit
            return False
        self.write_limit(limit)
        return True

    def restore(self, limits: Limits) -> None:
        """A controller was off, and is on again: put the limits in force, and count from the beginning."""
        limits.write(self.cgroup)
        if self._has_memory:
            self.cgroup.write('memory.max', 'max' if self.limit is None else self.limit)
        self._kills = self._pool_ooms = 0

    def write_limit(self, limit: int | None) -> None:
        """Write a limit, in bytes, even if that takes pages away. Raises OSError."""
        self.cgroup.write('memory.max', 'max' if limit is None else limit)
        self.limit = limit

    def memory_now(self) -> int | None:
        """Return memory.current in bytes."""
        return self.cgroup.number('memory.current') if self._has_memory else None

    def evidence(self, pid: int) -> MemoryEvidence | None:
        """Return what the counters say; to be read before the life, whose main process this is, is buried."""
        if not self._has_memory:
            return None
        cgroup = self.cgroup
        events = cgroup.table('memory.events')
        kills = events.get('oom_kill', 0)
        stat = cgroup.table('memory.stat')
        scope = self._scope(events) if kills else None
        return MemoryEvidence(
            limit_bytes=self.limit,
            peak_bytes=cgroup.number('memory.peak'),
            current_bytes=cgroup.number('memory.current'),
            oom_kills=kills,
            oom_scope=scope,
            main_killed=kills > 0 and self._main_was_killed(pid),
            anon=stat.get('anon'),
            file=stat.get('file'),
            shmem=stat.get('shmem'),
            kernel=stat.get('kernel'),
            left_shmem=self._pool.left_shmem() if scope is OomScope.POOL else None,
        )

    def end_at_birth(self) -> str | None:
        """Return why nobody came to life here, in words; None where no limit of memory is to blame."""
        if not self._has_memory or not (events := self.cgroup.table('memory.events')).get('oom_kill', 0):
            return None
        match self._scope(events):
            case OomScope.WORKER:
                size = format_size(self.limit) if self.limit is not None else 'its limit'
                why = f'--max-worker-memory-usage={size} is too little for it'
            case OomScope.POOL:
                why = 'the pool has no more memory (--pool-memory-max)'
            case _:
                why = 'there is no more memory below a limit that holds for all that runs here'
        return f"the kernel's OOM killer ended it at birth: {why}"

    def _scope(self, events: Mapping[str, int]) -> OomScope:
        """Return for whose limit there was a kill here."""
        if events.get('oom', 0) or self._has_met_a_limit():
            return OomScope.WORKER
        if self._pool.ooms() > self._pool_ooms:
            self._pool.account_for(self)
            return OomScope.POOL
        return OomScope.HOST

    def was_spared(self, pool_ooms: int) -> None:
        """The limit of the pool was met so often by now: if nobody was killed here since the last time, all that was
        others' affair."""
        with suppress(OSError):
            kills = self.cgroup.table('memory.events').get('oom_kill', 0)
            if kills == self._kills:
                self._pool_ooms = pool_ooms
            self._kills = kills

    def _main_was_killed(self, pid: int) -> bool:
        """Whether the main process was among those whom the OOM killer ended here.

        With memory.oom.group a kill for a limit of this leaf, or above, ends all that is in it, and is counted as one
        of a group; what is killed besides was in a cgroup that the worker had made below. Without (a worker can turn
        it off), or in a cgroup of its own making, a kill beside it can't be told from its own.
        """
        local = self.cgroup.table('memory.events.local')
        if local.get('oom_group_kill', 0):
            return True
        place = self._place_of(pid)
        if place == self.cgroup and 'oom_group_kill' in local and self.cgroup.number('memory.oom.group') == 1:
            return False
        return place is None or place.table('memory.events.local').get('oom_kill', 0) > 0

    def _place_of(self, pid: int) -> Cgroup | None:
        """Return the cgroup whose counters count this process, dead or alive: this leaf, or the nearest one below that
        has the memory controller; None when it can't be told."""
        path, leaf = own_path(pid), f'/{self._pool.cgroup.name}/{self.cgroup.name}'
        if path is None or leaf not in path:
            return None
        here = Cgroup(self.cgroup.path + path.partition(leaf)[2], self.cgroup.top)
        while here != self.cgroup and here.parent is not None and not here.has('memory.events.local'):
            here = here.parent
        return here

    def _has_met_a_limit(self) -> bool:
        """Whether a limit of this leaf or of a cgroup that the worker has made below was hit.

        memory.events counts what is below, too, also what is gone; not where cgroups are mounted with
        memory_localevents.
        """
        with suppress(OSError):
            tables = self.cgroup.read_all('memory.events.local', LOOKED_AT)
            return any(flat_keyed(text).get('oom', 0) for text in tables)
        return False

    def cpu_seconds(self) -> float | None:
        """Return the cpu time of everything that ever ran here; cpu.stat is there without the controller (since Linux
        4.15)."""
        usage = self.cgroup.table('cpu.stat').get('usage_usec')
        return usage / 1e6 if usage is not None else None

    def is_populated(self) -> bool | None:
        """Whether a process lives in it or below; None: that can't be seen, with no free descriptor."""
        try:
            return self.cgroup.is_populated()
        except OSError:
            return None

    def kill(self) -> set[int]:
        """End everything in it, and return the pids that were seen; what is gone already is no error."""
        pids = processes(self.cgroup)
        try:
            self.cgroup.kill()
        except OSError:  # read-only, or a kernel before 5.14
            for pid in pids:
                _kill_inside(self.cgroup, pid)
        return pids


def processes(cgroup: Cgroup) -> set[int]:
    """Return the pids in a cgroup and in what a worker may have made below, as far as can be seen."""
    found: set[int] = set()
    with suppress(OSError):
        for text in cgroup.read_all('cgroup.procs', LOOKED_AT):
            found.update(map(int, text.split()))
    return found


def _kill_inside(cgroup: Cgroup, pid: int) -> None:
    """SIGKILL a process if it is in this cgroup: held by a pidfd first and then seen there, it is no other."""
    with suppress(OSError), PidRef.open(pid) as process:
        if pid in processes(cgroup):
            process.signal(signal.SIGKILL)


class PoolLimit:
    """How often the limit of the pool was met, and which of it is accounted for.

    Facts: the kernel counts how often the limit of the pool was met, and who was killed, but not for which limit; one
    kill may be counted as many times that the limit was met.
    Consequence: as soon as a kill is known to be for the pool's limit, what was counted until then explains no later
    kill of those that were spared. Price: a look at each leaf after such a kill.
    """

    def __init__(self, cgroup: Cgroup) -> None:
        self.cgroup = cgroup
        self.leaves: WeakSet[Leaf] = WeakSet()

    def ooms(self) -> int:
        return self.cgroup.table('memory.events.local').get('oom', 0)

    def left_shmem(self) -> int | None:
        """Return how many bytes of files in memory are charged to the pool and to no life that is there: a file in a
        tmpfs outlives who has written it, and what its cgroup was charged falls to the one above."""
        of_all = self.cgroup.table('memory.stat').get('shmem')
        if of_all is None:
            return None
        of_leaves = 0
        for leaf in self.leaves:
            with suppress(OSError):
                of_leaves += leaf.cgroup.table('memory.stat').get('shmem', 0)
        return max(0, of_all - of_leaves)

    def account_for(self, killed: Leaf) -> None:
        ooms = self.ooms()
        for leaf in self.leaves:
            if leaf is not killed:
                leaf.was_spared(ooms)


class Leaves:
    """The cgroups of one pool, from the first to the last."""

    def __init__(self, home: Home, limits: Limits, *, name: str, warn: Warn) -> None:
        """Take the home into use. Raises `NotOurs` when it can't be, and then nothing has changed."""
        self.home = home
        self._warn = warn
        self._limits = limits
        self._has_complained = False
        self._has_made_room = False
        self._enabled: frozenset[str] = frozenset()
        try:
            available = home.cgroup.controllers()
            wanted = limits.needed | ({'memory'} & available)
            self.has_memory = 'memory' in available
            self._wanted = wanted
            clean_up_predecessors(home.cgroup, warn)
            self._enable(wanted - home.cgroup.enabled())
            self.pool, self._lock = self._make_pool(name)
            self._pool_limit = PoolLimit(self.pool)
            try:
                self._set_up_pool(wanted)
                self._try_birth()
            except BaseException:
                end(self.pool)
                os.close(self._lock)
                raise
        except OSError as error:
            self._undo()
            raise NotOurs(f'cannot use {home.cgroup.path} ({explain(error)})', what_opens(error)) from None
        except NotOurs:
            self._undo()
            raise

    def _enable(self, missing: frozenset[str]) -> None:
        if not missing:
            return
        home = self.home.cgroup
        if not home.is_hierarchy_root:
            self._move_out()
        home.write('cgroup.subtree_control', ' '.join(f'+{name}' for name in sorted(missing)))
        self._enabled = missing

    def _move_out(self) -> None:
        """Move every process of the home into the leaf `supervisor`, again until none is left: they may fork
        meanwhile."""
        home, leaf = self.home.cgroup, self.home.cgroup.child(SUPERVISOR)
        for _ in range(MOVE_ATTEMPTS):
            processes = home.processes()
            if not processes:
                return
            with suppress(FileExistsError):
                leaf.make()
            self._has_made_room = True
            for pid in processes:
                with suppress(ProcessLookupError):
                    leaf.write('cgroup.procs', pid)

    def _make_pool(self, name: str) -> tuple[Cgroup, int]:
        """Make the pool's folder and lock it. A neighbour that is cleaning up may take it for a dead one's before it
        is locked: then try another."""
        while True:
            pool = self.home.cgroup.child(f'{POOL_PREFIX}{name}')
            with suppress(FileExistsError):
                pool.make()
                try:
                    if (lock := locked(pool)) is not None:
                        if pool.exists():
                            return pool, lock
                        os.close(lock)
                except FileNotFoundError:
                    pass
                except OSError:
                    with suppress(OSError):
                        pool.remove()
                    raise
            name = f'{os.getpid()}-{secrets.token_hex(4)}'

    def _set_up_pool(self, wanted: frozenset[str]) -> None:
        if wanted:
            self.pool.write('cgroup.subtree_control', ' '.join(f'+{name}' for name in sorted(wanted)))
        for file, value in self._limits.pool.items():
            self.pool.write(file, value)

    def change_limits(self, limits: Limits) -> None:
        """Give leaves that are made from now on these limits."""
        self._limits = limits

    def _try_birth(self) -> None:
        """Make a leaf with its limits and have a process go there, as every worker will. Raises `NotOurs`, OSError."""
        cgroup = self._make_leaf('probe')
        try:
            try_birth(cgroup)
        except OSError as error:
            if error.errno not in UNREACHABLE:
                raise
            reason = f'no process of ours may be moved to {self.home.cgroup.path} ({explain(error)})'
            raise NotOurs(reason, start_inside(self.home.cgroup)) from None
        finally:
            end(cgroup)

    def leaf(self, life: int) -> Leaf:
        """Make the leaf of a life, with its limits in force. Raises OSError."""
        self._restore()
        cgroup = self._make_leaf(f'life-{life}')
        limit = self._limits.required.get('memory.max')
        try:
            return Leaf(cgroup, self._pool_limit, has_memory=self.has_memory, limit=int(limit) if limit else None)
        except OSError:
            cgroup.remove()
            raise

    def switched_off(self) -> frozenset[str]:
        """Return the controllers that were enabled for leaves and aren't any more: somebody has written there."""
        with suppress(OSError):
            return self._wanted - self.pool.enabled()
        return frozenset()

    def _restore(self) -> None:
        """Enable again what was switched off: no worker is started without what it was promised. Raises OSError."""
        missing = self.switched_off()
        if not missing:
            return
        for cgroup in (self.home.cgroup, self.pool):
            cgroup.write('cgroup.subtree_control', ' '.join(f'+{name}' for name in sorted(missing)))
        for file, value in self._limits.pool.items():
            self.pool.write(file, value)
        for leaf in self._pool_limit.leaves:
            with suppress(OSError):  # it is over, and removed
                leaf.restore(self._limits)
        names = ', '.join(sorted(missing))
        message = (
            f'somebody switched {names} off in {self.pool.path}: it is on again, and limits are in force again; '
            'for workers that ran meanwhile only what they take from now on counts'
        )
        self._warn(message, 'controllers-restored', cgroup=self.pool.path, controllers=sorted(missing))

    def _make_leaf(self, name: str) -> Cgroup:
        cgroup = self.pool.child(name)
        cgroup.make()
        try:
            self._limits.write(cgroup)
        except OSError:
            cgroup.remove()
            raise
        return cgroup

    def cannot_remove(self, path: str, error: OSError) -> None:
        """Tell that a cgroup stays, the first time: what keeps one of them mostly keeps all."""
        if not self._has_complained:
            self._has_complained = True
            warn_of_remains(path, error, self._warn)

    def close(self) -> None:
        """Remove the pool's folder (its leaves are gone or going), and give the home back as it was if no neighbour
        uses it."""
        try:
            if (error := end(self.pool)) is not None:
                self.cannot_remove(self.pool.path, error)
        finally:
            os.close(self._lock)
            self._undo()

    def _undo(self) -> None:
        """Put the home back: controllers off, processes back in it. Not while a neighbour is there."""
        home = self.home.cgroup
        with suppress(OSError):
            if any(child.name.startswith(POOL_PREFIX) for child in home.children()):
                return
            if self._enabled:
                home.write('cgroup.subtree_control', ' '.join(f'-{name}' for name in sorted(self._enabled)))
            if self._has_made_room:
                leaf = home.child(SUPERVISOR)
                for pid in leaf.processes():
                    with suppress(ProcessLookupError):
                        home.write('cgroup.procs', pid)
                leaf.remove()


def clean_up_predecessors(home: Cgroup, warn: Warn) -> None:
    """Kill and remove the folders of pools whose supervisors are dead; what remains is told, and harms nobody."""
    deadline = time.monotonic() + FOLDER_PATIENCE
    for pool in home.children():
        if not pool.name.startswith(POOL_PREFIX):
            continue
        with suppress(OSError):
            if (lock := locked(pool)) is not None:
                try:
                    if (error := end(pool, deadline)) is not None:
                        warn_of_remains(pool.path, error, warn)
                finally:
                    os.close(lock)


def warn_of_remains(path: str, error: OSError, warn: Warn) -> None:
    warn(f'a cgroup that is over remains: {path} ({explain(error)})', 'cgroup-remains', cgroup=path)


def locked(pool: Cgroup) -> int | None:
    """Return a descriptor that holds the lock of a pool's folder; None when somebody else has it."""
    lock = pool.open()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    return lock


def end(folder: Cgroup, deadline: float | None = None) -> OSError | None:
    """Kill what is in a folder and remove it as soon as the kernel lets it go, by the deadline: within
    `FOLDER_PATIENCE`. Returns why it is still there, None when it isn't.

    Another user's is left alone.
    """
    deadline = time.monotonic() + FOLDER_PATIENCE if deadline is None else deadline
    try:
        folder.kill()
    except PermissionError:
        return None
    except OSError:  # it is gone, or this kernel has no cgroup.kill: what is empty can be removed all the same
        pass
    while True:
        try:
            for _ in folder.removal():
                pass
        except OSError as error:
            if is_final(error) or time.monotonic() >= deadline:
                return error
            time.sleep(0.002)
        else:
            return None


def is_final(error: OSError) -> bool:
    """Whether a cgroup that could not be removed will not be either when it is tried again soon."""
    return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
