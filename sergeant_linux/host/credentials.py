"""Who the workers are: the user and the groups they run as, and what else they run under.

Facts: names become numbers through the host's user database (getpwnam(3)), which may ask a server. PR_SET_PDEATHSIG is
delivered only if the dying supervisor could have sent that signal itself, as kill(2) has it: from root, or with
CAP_KILL, or to its own uid; else the worker silently lives on. /proc/PID/environ, by which stragglers are found, and
smaps_rollup are for those who may ptrace(2) the process: for another uid that takes CAP_SYS_PTRACE (or, on newer
kernels, CAP_PERFMON: seen on 6.18), which root lacks in a container of Docker's.
Consequence: names are looked up here, before there are workers; the fork server gets numbers. What the kernel
will allow is not worked out from uids and capabilities (there are user namespaces, seccomp filters and security modules
too) but tried: a process takes the conditions on, and the supervisor looks whether it can still signal it and read it.
What can't be ends the supervisor before it has begun.
Price: 100 ms at the start of a pool that has other conditions than its supervisor's, 150 with fresh interpreters.

Invariant: no worker runs whom the kernel would not end with its supervisor.
"""

import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from sergeant_linux.core.policy import BadValue, Limit, Policy
from sergeant_linux.forkserver.conditions import INFINITY
from sergeant_linux.host import CantRun
from sergeant_linux.kernel import module_path, procfs, spawn
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.wire import gate as gates

PATIENCE: Final = 10.0
"""Seconds that trying the conditions on may take."""

_LIMITS: Final = ('nofile', 'nproc', 'core', 'memlock', 'stack', 'fsize', 'data', 'cpu')

_PRIVILEGED: Final = ('uid', 'gid', 'groups', 'nice', 'limits')
"""The conditions that can be refused, and so are tried on."""

Conditions = dict[str, Any]
"""What `forkserver.conditions.apply` takes, as plain JSON."""


class Account(NamedTuple):
    """The user and the groups that workers are to have. None: those of the supervisor."""

    uid: int | None
    gid: int | None
    groups: tuple[int, ...] | None
    environ: Mapping[str, str]
    """HOME, USER, LOGNAME and SHELL, as systemd.exec(5) sets them for `User=`."""


def account(policy: Policy) -> Account:
    """Look the user and the group up. Raises `BadValue` for one that doesn't exist, or has no group."""
    gid = _gid(policy.group) if policy.group is not None else None
    if policy.user is None:
        return Account(None, gid, None, {})

    import pwd  # only for those who ask for a user

    try:
        entry = pwd.getpwuid(int(policy.user)) if policy.user.isdecimal() else pwd.getpwnam(policy.user)
    except KeyError:
        if not policy.user.isdecimal():
            raise BadValue('user', f'expected the name of a user of this host, not {policy.user!r:.100}') from None
        if gid is None:
            raise BadValue(
                'user', f'expected a user of this host, or a group as well, not the number {policy.user} alone'
            ) from None
        environ = {'HOME': '/', 'USER': policy.user, 'LOGNAME': policy.user, 'SHELL': '/bin/sh'}
        return Account(int(policy.user), gid, (gid,), environ)
    gid = entry.pw_gid if gid is None else gid
    groups = tuple(sorted(set(os.getgrouplist(entry.pw_name, gid))))
    environ = {'HOME': entry.pw_dir, 'USER': entry.pw_name, 'LOGNAME': entry.pw_name, 'SHELL': entry.pw_shell}
    return Account(entry.pw_uid, gid, groups, environ)


def control_group(policy: Policy) -> int | None:
    """Look the control group up. Raises `BadValue`."""
    return _gid(policy.control_group, 'control_group') if policy.control_group is not None else None


def _gid(group: str, knob: str = 'group') -> int:
    if group.isdecimal():
        return int(group)

    import grp  # only for those who ask for a group

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise BadValue(knob, f'expected the name of a group of this host, not {group!r:.100}') from None


def prepare(policy: Policy, oom_score_adj: int | None, environ: Mapping[str, str]) -> Conditions:
    """Return the conditions for the workers of this pool. Raises `CantRun` when they can't be had here.

    oom_score_adj: what the supervisor's was before it spared itself. The conditions are tried on unless there are
    none; then this costs nothing.
    """
    try:
        terms = conditions(policy, oom_score_adj)
    except BadValue as error:
        raise CantRun(str(error)) from None
    if terms['uid'] is not None:
        for variable in {module_path.VARIABLE, module_path.COMPILED} & environ.keys():
            terms['environ'] = {**terms['environ'], variable: environ[variable]}  # the helpers of root may have less
        _refuse_others_code(policy, environ)
    if not any(terms[name] not in (None, {}) for name in _PRIVILEGED):
        return terms
    _try_on(policy, terms, environ)
    return terms


def conditions(policy: Policy, oom_score_adj: int | None) -> Conditions:
    """Return what each worker is to run under. What the supervisor is already is not asked for: that needs no
    privilege. Raises `BadValue`."""
    who = account(policy)
    uid, gid, groups = who.uid, who.gid, who.groups
    is_same = uid in (None, os.geteuid()) and gid in (None, os.getegid())
    if is_same and (groups is None or set(groups) == {os.getegid(), *os.getgroups()}):
        uid = gid = groups = None
    core = policy.worker_limit_core
    return {
        'oom_score_adj': max(0, oom_score_adj) if oom_score_adj is not None else None,
        'nice': policy.worker_nice,
        'limits': {
            name: [INFINITY if bound is None else bound for bound in (limit.soft, limit.hard)]
            for name in _LIMITS
            if isinstance(limit := getattr(policy, f'worker_limit_{name}'), Limit)
        },
        'umask': policy.umask,
        'groups': groups,
        'gid': gid,
        'uid': uid,
        'dumpable': core is not None and core.soft != 0,
        'no_new_privileges': policy.no_new_privileges,
        'environ': who.environ,
        'fresh_interpreter': policy.spawn == 'exec',
    }


def _refuse_others_code(policy: Policy, environ: Mapping[str, str]) -> None:
    """Raise `CantRun` where a module that is to be imported before the change of uid could be written by others."""
    for module in [policy.worker_module_name] * policy.preload + list(policy.preload_modules):
        for file in module_path.locate(module, module_path.natural(environ.get(module_path.VARIABLE))):
            if why := None if module_path.is_installed(file) else module_path.who_else_writes(file):
                raise CantRun(
                    f'cannot preload {module}: it would be imported as root, and {why}, who could so become root; '
                    'chown it to root and chmod it go-w, or do not preload it'
                )


def _try_on(policy: Policy, terms: Conditions, environ: Mapping[str, str]) -> None:
    """Have a process take the conditions on, and see what can be done with it. Raises `CantRun`."""
    ours, theirs = gates.pair()
    try:
        ours.settimeout(PATIENCE)
        process = spawn.launch('sergeant_linux.forkserver.conditions', [json.dumps(terms)], [theirs.fileno()], environ)
    except OSError as error:
        ours.close()
        raise CantRun(f'cannot start a process of our own: {error}', error) from None
    finally:
        theirs.close()
    with process, ours:
        try:
            _hear_refusal(ours)
            _check_signals(process, terms)
            if policy.memory_measure in ('pss', 'uss') and not procfs.environ_is_readable(process.pid):
                raise CantRun(
                    f'cannot measure the {policy.memory_measure.upper()} of workers of the uid {terms["uid"]}: '
                    'this needs CAP_SYS_PTRACE'
                )
        finally:
            ours.close()
            process.exited(1.0)
            with suppress(PermissionError):
                process.signal(signal.SIGKILL)
            process.exited(1.0)
            with suppress(ChildProcessError):
                process.reap()


def _hear_refusal(trial: Any) -> None:
    try:
        answer = gates.receive(trial)
    except (OSError, gates.Malformed) as error:
        raise CantRun(f'cannot try on what the workers are to run under: {error}', error) from None
    if answer is None:
        raise CantRun('cannot try on what the workers are to run under: it has ended (see its words on stderr)')
    if answer['refusal'] is not None:
        raise CantRun(str(answer['refusal']))


def _check_signals(process: PidRef, terms: Conditions) -> None:
    """Signal 0 is checked as any signal is, and sent to nobody."""
    try:
        process.signal(0)
    except PermissionError:
        raise CantRun(
            f'cannot have workers of the uid {terms["uid"]}: the kernel would not end them with the supervisor, which '
            f'has the uid {os.geteuid()} and may not signal them (PR_SET_PDEATHSIG, prctl(2)): '
            'this needs CAP_KILL, or a supervisor that is root'
        ) from None
