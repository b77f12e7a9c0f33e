"""Every knob of a pool, as one validated value object.

Facts: a knob is set from three places (a flag, an environment variable, the Python class), is explained in the help,
and is used deep inside the program. Written down for each of them, its descriptions drift apart.
Decision: one field of `Policy` is one knob, and the field's metadata (`Knob`) is all there is to know about it: its
flag, its kind of value, its help. The command line is generated from it; nothing about a knob is written down twice.
Where a flag takes a size or a time span, a Python caller may give the same text (`'64M'`, `'1min 30s'`).
Price: what a field means is read in its metadata, not in a comment beside it.

Invariant: a `Policy` that exists is valid and its values have their final types; nobody checks them again. Two numbers
may still be `Auto`: the host has them, and `resources.resolve` puts them in before a pool is made of the policy.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Final, Literal, Self, TypeAlias, TypeVar, get_args

from sergeant_linux.core.units import format_size, format_span, parse_size, parse_span

VARIABLE_PREFIX: Final = 'SERGEANT_LINUX_'
"""What the name of every environment variable that sets a knob begins with. Workers don't inherit these."""

OFF: Final = 'off'
"""How "no bound" (`None`) is written. systemd's word for it, `infinity`, is understood as well."""

INHERIT: Final = 'inherit'
"""How "as the supervisor has it" (`None`) is written."""

NONE: Final = 'none'
"""How "do without" is written where there is something to do without by default."""

AUTO: Final = 'auto'
"""How "find it out" is written."""

Spawn = Literal['fork', 'exec']
MemoryBackend = Literal['auto', 'cgroup', 'rss']
MemoryMeasure = Literal['rss', 'pss', 'uss', 'tree']
LogLevel = Literal['debug', 'info', 'warning', 'error', 'critical']
LogFormat = Literal['auto', 'text', 'json', 'journal']
ReadyWhen = Literal['first', 'all']

T = TypeVar('T')


class Auto(int):
    """A number that is still to be found out on the host. Nobody counts with it: it is replaced at the start."""

    def __new__(cls) -> Self:
        return super().__new__(cls, 0)

    def __repr__(self) -> str:
        return AUTO

    __str__ = __repr__


class BadValue(ValueError):
    """The value of one knob can't be: `knob` is the field's name, `text` says what was expected and what was found."""

    def __init__(self, knob: str, text: str) -> None:
        super().__init__(f'{knob}: {text}')
        self.knob = knob
        self.text = text


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `count` restarts within `span` seconds, written `5/1min`. A count of 0 allows none at all.

    Raises TypeError and ValueError.
    """

    count: int
    span: float

    def __post_init__(self) -> None:
        object.__setattr__(self, 'count', _from_0(self.count))
        object.__setattr__(self, 'span', _above_0(self.span))

    def __str__(self) -> str:
        return f'{self.count}/{format_span(self.span)}'


@dataclass(frozen=True, slots=True)
class Limit:
    """A resource limit, soft and hard (getrlimit(2)), in the resource's own unit. `None` is infinity.

    Raises TypeError and ValueError.
    """

    soft: int | None
    hard: int | None

    def __post_init__(self) -> None:
        for bound in (self.soft, self.hard):
            if bound is not None:
                _limited(bound)
        if self.hard is not None and (self.soft is None or self.soft > self.hard):
            raise ValueError(f'expected a soft limit of at most the hard one, not {self}')

    def __str__(self) -> str:
        soft, hard = ('infinity' if bound is None else str(bound) for bound in (self.soft, self.hard))
        return soft if soft == hard else f'{soft}:{hard}'


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value that knobs have.

    `name` stands for the value in the usage, `unit` says how to write it. `accept` takes what a Python caller gave
    and returns it in its final type; its TypeError or ValueError says what was expected. `read` makes the text of a
    flag or a variable into something for `accept`, or raises ValueError. `show` writes a value for people.
    """

    name: str
    unit: str
    accept: Callable[[object], object]
    read: Callable[[str], object] = str
    show: Callable[..., str] = str


@dataclass(frozen=True, slots=True)
class Knob:
    """What there is to know about a field of `Policy`: its flag, its kind of value, and its help (whole sentences)."""

    flag: str
    kind: Kind
    help: str

    @property
    def variable(self) -> str:
        """The environment variable that sets the knob where the flag doesn't."""
        return VARIABLE_PREFIX + self.flag.removeprefix('--').replace('-', '_').upper()


def _where(parse: Callable[[object], T], holds: Callable[[T], bool], expected: str) -> Callable[[object], T]:
    """Return an `accept` that takes what `parse` takes, but only where `holds`."""

    def accept(value: object) -> T:
        parsed = parse(value)
        if not holds(parsed):
            raise ValueError(f'expected {expected}, not {value!r:.100}')
        return parsed

    return accept


def _optional(kind: Kind, *words: object) -> Kind:
    """Return the kind that also has `None`, written as any of these words and shown as the first; else as no bound."""
    words = words or (OFF, 'infinity', math.inf)

    def accept(value: object) -> object:
        if value is None or (isinstance(value, str | float) and value in words):
            return None
        return kind.accept(value)

    def read(text: str) -> object:
        return text if text in words else kind.read(text)

    def show(value: object) -> str:
        return str(words[0]) if value is None else kind.show(value)

    return Kind(kind.name, kind.unit, accept, read, show)


def _or_auto(kind: Kind) -> Kind:
    """Return the kind that can also be left to be found out."""

    def accept(value: object) -> object:
        return Auto() if isinstance(value, Auto) or value == AUTO else kind.accept(value)

    def read(text: str) -> object:
        return text if text == AUTO else kind.read(text)

    def show(value: object) -> str:
        return AUTO if isinstance(value, Auto) else kind.show(value)

    return Kind(kind.name, f'{kind.unit or "a number"}, or auto', accept, read, show)


def _choice(*choices: str) -> Kind:
    """Return the kind that has these values and no other."""
    parse = _where(_text, lambda text: text in choices, f'one of {", ".join(choices)}')
    return Kind(f'{{{",".join(choices)}}}', '', parse)


def _int(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f'expected a whole number, not {value!r:.100}')
    return value


def _read_int(text: str) -> int:
    digits = text.removeprefix('-')
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
        raise ValueError(f'expected a whole number, not {text!r:.100}')
    return int(text)


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f'expected True or False, not {value!r:.100}')
    return value


def _read_bool(text: str) -> bool:
    if text not in ('0', '1'):
        raise ValueError(f'expected 1 or 0, not {text!r:.100}')
    return text == '1'


def _show_bool(value: bool) -> str:
    return 'on' if value else OFF


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f'expected text, not {value!r:.100}')
    return value


def _is_module_name(text: str) -> bool:
    """Whether importlib.import_module could take `text`, which needn't be identifiers: `my-worker` is my-worker.py."""
    return all(part and part == part.strip() and part.isprintable() and '/' not in part for part in text.split('.'))


def _modules(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f'expected a list of module names, not {value!r:.100}')
    return tuple(_module(name) for name in value)


def _read_modules(text: str) -> list[str]:
    return [name.strip() for name in text.split(',')]


def _show_modules(value: tuple[str, ...]) -> str:
    return ', '.join(value) or 'none'


def _budget(value: object) -> Budget:
    if isinstance(value, Budget):
        return value
    if not isinstance(value, str):
        raise TypeError(f'expected a budget (text such as 5/1min), not {value!r:.100}')
    count, _, span = value.partition('/')
    try:
        return Budget(_read_int(count), parse_span(span))
    except ValueError:
        raise ValueError(f'expected restarts/time span, such as 5/1min, not {value!r:.100}') from None


def _cores(value: object) -> float:
    if isinstance(value, str):
        number = _PERCENTAGE.fullmatch(value.strip())
        cores = float(number[1]) / 100 if number else math.nan
    elif isinstance(value, int | float) and not isinstance(value, bool):
        cores = float(value)
    else:
        raise TypeError(f'expected cores (a number, or text such as 150%), not {value!r:.100}')
    if not 0.01 <= cores <= _MOST_CORES:
        raise ValueError(f'expected a percentage of one core, from 1% on, not {value!r:.100}')
    return cores


def _show_cores(cores: float) -> str:
    return f'{cores * 100:.15g}%'


def _account(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise TypeError(f'expected a name or a number, not {value!r:.100}')
    is_name = value.isprintable() and not any(char in ':/,' or char.isspace() for char in value)
    if not value or not is_name or value[0] in '-+~' or (value.isdecimal() and int(value[:20]) >= _NO_ID):
        raise ValueError(f'expected a name or a number, not {value!r:.100}')
    return value


def _umask(value: object) -> int:
    if isinstance(value, str):
        mask = int(value, 8) if _OCTAL.fullmatch(value) else -1
    elif isinstance(value, int) and not isinstance(value, bool):
        mask = value
    else:
        raise TypeError(f'expected a umask (a number, or octal text such as 027), not {value!r:.100}')
    if not 0 <= mask <= 0o777:
        raise ValueError(f'expected an octal number of at most 777, such as 027, not {value!r:.100}')
    return mask


def _name(value: object) -> str:
    text = _text(value)
    if not (text.isprintable() and 0 < len(text) <= _LONGEST_NAME and '/' not in text and text[0] not in '.-'):
        raise ValueError(f'expected a name of at most {_LONGEST_NAME} characters without "/", not {value!r:.100}')
    return text


def _socket(value: object) -> str:
    return value if value in (AUTO, NONE) and isinstance(value, str) else _path(value)


def _count_of(value: object) -> int:
    return _read_int(value) if isinstance(value, str) else _int(value)


def _limit(unit: str, parse: Callable[[object], float]) -> Kind:
    """Return the kind of resource limits whose bounds `parse` understands; a part of a unit counts as a whole one."""

    def bound(value: object) -> int | None:
        parsed = math.inf if value in ('infinity', math.inf) else parse(value)
        return None if parsed == math.inf else _limited(math.ceil(parsed))

    def accept(value: object) -> Limit:
        if isinstance(value, Limit):
            return value
        soft, colon, hard = value.partition(':') if isinstance(value, str) else (value, '', value)
        try:
            bounds = bound(soft), bound(hard if colon else soft)
        except ValueError:
            raise ValueError(f'expected {unit}, not {value!r:.100}') from None
        return Limit(*bounds)

    return _optional(Kind('LIMIT', unit, accept), INHERIT)


_NO_ID: Final = 2**32 - 1
"""(uid_t) -1: in a system call it means "leave it as it is"."""

_MOST_CORES: Final = 10_000
_LONGEST_NAME: Final = 64

_PERCENTAGE: Final = re.compile(r'([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*%')
_OCTAL: Final = re.compile(r'[0-7]{1,4}')

_from_0 = _where(_int, lambda number: number >= 0, 'a whole number, 0 or more')
_from_1 = _where(_int, lambda number: number >= 1, 'a whole number, 1 or more')
_above_0 = _where(parse_span, lambda span: span > 0, 'a time span above 0')
_finite = _where(parse_span, math.isfinite, 'a finite time span')
_finite_above_0 = _where(_above_0, math.isfinite, 'a finite time span')
_paced = _where(_finite, lambda span: span >= 0.02, 'a time span of 20ms or more')
_limited = _where(_int, lambda number: 0 <= number < 2**63, 'a whole number, 0 or more')
_weight = _where(_int, lambda number: 1 <= number <= 10_000, 'a whole number from 1 to 10000')
_niceness = _where(_int, lambda number: -20 <= number <= 19, 'a whole number from -20 to 19')
_path = _where(_text, lambda text: text.startswith('/') and text.isprintable(), 'an absolute path')
_bytes = _where(parse_size, lambda size: size > 0, 'a size above 0')
_module = _where(_text, _is_module_name, 'the name of a module, as in `import package.module`')
_class = _where(_text, str.isidentifier, 'the name of a class')

COUNT: Final = Kind('N', '', _from_1, _read_int)
AMOUNT: Final = Kind('N', '', _from_0, _read_int)
MODULE: Final = Kind('MODULE', '', _module)
CLASS: Final = Kind('CLASS', '', _class)
SIZE: Final = _optional(Kind('SIZE', 'in bytes, or with K, M, G, T', _bytes, show=format_size))
TIMEOUT: Final = Kind('SPAN', 'in seconds, or as a time span', _above_0, show=format_span)
DELAY: Final = Kind('SPAN', 'in seconds, or as a time span', _finite, show=format_span)
PACE: Final = Kind('SPAN', 'in seconds, or as a time span', _paced, show=format_span)
LIFETIME: Final = _optional(Kind('SPAN', 'in seconds, or as a time span', _finite_above_0, show=format_span))
BUDGET: Final = _optional(Kind('N/SPAN', 'such as 5/1min', _budget))
SWAP: Final = _optional(Kind('SIZE', 'in bytes, or with K, M, G, T', parse_size, show=format_size))
PIDS: Final = _optional(COUNT)
CORES: Final = _optional(Kind('PERCENT', 'such as 150% for one core and a half', _cores, show=_show_cores))
WEIGHT: Final = _optional(Kind('N', '1 to 10000', _weight, _read_int))
FILE: Final = _optional(Kind('FILE', 'an absolute path', _path), OFF)
DIRECTORY: Final = _optional(Kind('PATH', 'an absolute path', _path), AUTO)
NAME: Final = _optional(Kind('NAME', 'at most 64 characters', _name), AUTO)
SOCKET: Final = Kind('PATH', 'an absolute path, auto or none', _socket)
GROUP: Final = _optional(Kind('NAME', 'a name or a number', _account), NONE)
ACCOUNT: Final = _optional(Kind('NAME', 'a name or a number', _account), INHERIT)
NICENESS: Final = _optional(Kind('N', '-20 to 19', _niceness, _read_int), INHERIT)
UMASK: Final = _optional(Kind('MASK', 'octal, such as 027', _umask, show='{:03o}'.format), INHERIT)
COUNT_LIMIT: Final = _limit('a number, SOFT:HARD, or infinity', _count_of)
SIZE_LIMIT: Final = _limit('a size, SOFT:HARD, or infinity', parse_size)
TIME_LIMIT: Final = _limit('a time span, SOFT:HARD, or infinity', parse_span)
SWITCH: Final = Kind('', '', _bool, _read_bool, _show_bool)
MODULES: Final = Kind('MODULE', '', _modules, _read_modules, _show_modules)


def _knob(flag: str, kind: Kind, help: str) -> Mapping[str, Knob]:
    """Return a field's metadata."""
    return {'knob': Knob(flag, kind, help)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a pool is to be run. Sizes are bytes, time spans seconds; what each knob means is said in its metadata.

    Raises TypeError for a value of the wrong type and `BadValue` (a ValueError) for one that can't be; the text names
    the knob, what was expected, and the value.
    """

    concurrent_workers: int = field(metadata=_knob(
        '--concurrent-workers', _or_auto(COUNT),
        'Number of worker processes to keep running; `auto`: as many as there are processors to use here.',
    ))
    worker_class_name: str = field(metadata=_knob(
        '--worker-class', CLASS,
        'Class name of the worker to spawn.',
    ))
    worker_module_name: str = field(metadata=_knob(
        '--worker-module', MODULE,
        'Module of the worker class.',
    ))
    max_worker_memory_usage: int | None = field(default=None, metadata=_knob(
        '--max-worker-memory-usage', _or_auto(SIZE),
        'Maximum memory usage of an individual worker, by default its RSS. A worker that goes over it is killed '
        'and another one is spawned in its place. `auto`: its share of what this container, unit or host has.',
    ))
    spawn: Spawn = field(default='fork', metadata=_knob(
        '--spawn', _choice(*get_args(Spawn)),
        'How a worker is started: forked from a process that has the common modules loaded, or as a fresh '
        "interpreter, for libraries that can't live with fork.",
    ))
    preload: bool = field(default=False, metadata=_knob(
        '--preload', SWITCH,
        'Import the worker module once, before workers are forked, instead of in each worker.',
    ))
    preload_modules: tuple[str, ...] = field(default=(), metadata=_knob(
        '--preload-module', MODULES,
        'Import this module once, before workers are forked. May be given several times.',
    ))
    timeout_start: float = field(default=60.0, metadata=_knob(
        '--timeout-start', TIMEOUT,
        'How long a worker may take to become ready; then it is killed and its start has failed.',
    ))
    timeout_stop: float = field(default=8.0, metadata=_knob(
        '--timeout-stop', TIMEOUT,
        'How long a stop may take; then the worker and everything it has started is killed. The default fits in '
        '`docker stop`, which waits 10s.',
    ))
    timeout_drain: float = field(default=math.inf, metadata=_knob(
        '--timeout-drain', TIMEOUT,
        'How long a worker that is to be replaced as planned may take to finish the task in hand; then it gets '
        'SIGTERM.',
    ))
    restart_delay: float = field(default=0.1, metadata=_knob(
        '--restart-delay', DELAY,
        'Wait before a worker that has failed is restarted, doubled with each further failure in a row. 0 turns '
        'the waiting off.',
    ))
    restart_max_delay: float = field(default=30.0, metadata=_knob(
        '--restart-max-delay', DELAY,
        'Upper bound of that wait.',
    ))
    restart_reset: float = field(default=1.0, metadata=_knob(
        '--restart-reset', DELAY,
        'A worker that was ready for this long and then fails is restarted at once, and failures in a row are '
        'counted anew.',
    ))
    restart_budget: Budget | None = field(default=None, metadata=_knob(
        '--restart-budget', BUDGET,
        'How many failed workers the whole pool may restart within a time span. When one more is needed the pool '
        'stops, with exit status 3.',
    ))
    max_worker_lifetime: float | None = field(default=None, metadata=_knob(
        '--max-worker-lifetime', LIFETIME,
        'Age at which a worker is replaced as planned: its successor is ready before it is asked to go.',
    ))
    max_worker_lifetime_jitter: float = field(default=0.0, metadata=_knob(
        '--max-worker-lifetime-jitter', DELAY,
        "Added to the lifetime: a random span of at most this, drawn once for each worker, so that workers don't "
        'leave together.',
    ))
    max_surge: int = field(default=1, metadata=_knob(
        '--max-surge', AMOUNT,
        'How many workers may have a successor at a time, beyond the number of workers, while they are replaced as '
        'planned. 0: a worker goes first, and its place is filled when it is gone.',
    ))
    max_unavailable: int = field(default=0, metadata=_knob(
        '--max-unavailable', AMOUNT,
        'How many workers may be missing at a time while workers are replaced as planned.',
    ))
    worker_memory_high: int | None = field(default=None, metadata=_knob(
        '--worker-memory-high', SIZE,
        'Memory mark of an individual worker: one that stays over it is replaced as planned, no task is '
        'interrupted.',
    ))
    memory_measure: MemoryMeasure = field(default='rss', metadata=_knob(
        '--memory-measure', _choice(*get_args(MemoryMeasure)),
        'What counts as the memory of a worker: its RSS, its PSS or USS (shared pages counted in part or not at '
        'all), or the RSS of it and all that descends from it.',
    ))
    memory_poll_interval: float = field(default=0.5, metadata=_knob(
        '--memory-poll-interval', PACE,
        'The longest wait between two looks at the memory of a worker; near its limit they come faster.',
    ))
    worker_watchdog: float | None = field(default=None, metadata=_knob(
        '--worker-watchdog', LIFETIME,
        'Longest time in one task, or without a sign of life from a worker that gives them; a worker over it is '
        'taken for hung: its stacks are logged, then it is stopped.',
    ))
    ready_when: ReadyWhen = field(default='first', metadata=_knob(
        '--ready-when', _choice(*get_args(ReadyWhen)),
        'When a service manager is told that the pool is ready: when the first worker is, or when all of them are.',
    ))
    watchdog_quorum: int = field(default=1, metadata=_knob(
        '--watchdog-quorum', COUNT,
        "How many workers must run, or wait for a start or restart that will come, for the service manager's watchdog "
        'to be given a sign of life.',
    ))
    name: str | None = field(default=None, metadata=_knob(
        '--name', NAME,
        'What the pool is called by those who operate it. By default MODULE.CLASS, and -2, -3 and so on where that is '
        'taken; a name given here that is taken is exit status 4.',
    ))
    control_socket: str = field(default=AUTO, metadata=_knob(
        '--control-socket', SOCKET,
        'Where the pool can be asked. By default a socket in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR or /run, whichever '
        'can be written.',
    ))
    control_group: str | None = field(default=None, metadata=_knob(
        '--control-group', GROUP,
        'Group whose members may operate the pool, as root and the own user may.',
    ))
    log_level: LogLevel = field(default='info', metadata=_knob(
        '--log-level', _choice(*get_args(LogLevel)),
        'The least severe messages that are logged.',
    ))
    log_format: LogFormat = field(default='auto', metadata=_knob(
        '--log-format', _choice(*get_args(LogFormat)),
        "Log lines as sergeant.supervisor writes them, one JSON object a line, or entries of systemd's journal. `auto` "
        'is journal where stderr leads there, else text.',
    ))
    flight_recorder: str | None = field(default=None, metadata=_knob(
        '--flight-recorder', FILE,
        'A file that is to have all that the pool is told and decides, as JSON lines from which it can be replayed; '
        'it is begun anew when it has 4M, and the one before is kept as FILE.1.',
    ))
    memory_backend: MemoryBackend = field(default='auto', metadata=_knob(
        '--memory-backend', _choice(*get_args(MemoryBackend)),
        'What bounds the memory of a worker: the kernel, in a cgroup of its own, or the supervisor, by looking at '
        'its RSS. `auto` takes the cgroup where it can be had; `cgroup` has it or ends with exit status 4.',
    ))
    cgroup_root: str | None = field(default=None, metadata=_knob(
        '--cgroup-root', DIRECTORY,
        'The cgroup below which the cgroups of this pool are made, by default the one that was delegated to it.',
    ))
    worker_swap_max: int | None = field(default=0, metadata=_knob(
        '--worker-swap-max', SWAP,
        'Maximum swap usage of an individual worker, by its cgroup, where the host has swap accounting.',
    ))
    worker_pids_max: int | None = field(default=None, metadata=_knob(
        '--worker-pids-max', PIDS,
        'Maximum number of processes and threads of an individual worker and all that it starts, by its cgroup.',
    ))
    worker_cpu_max: float | None = field(default=None, metadata=_knob(
        '--worker-cpu-max', CORES,
        'Maximum processor time of an individual worker and all that it starts, by its cgroup.',
    ))
    worker_cpu_weight: int | None = field(default=None, metadata=_knob(
        '--worker-cpu-weight', WEIGHT,
        'Share of processor time of an individual worker where there is not enough of it, by its cgroup. The '
        "kernel's own is 100.",
    ))
    worker_io_weight: int | None = field(default=None, metadata=_knob(
        '--worker-io-weight', WEIGHT,
        'Share of disk bandwidth of an individual worker where there is not enough of it, by its cgroup. The '
        "kernel's own is 100.",
    ))
    pool_memory_max: int | None = field(default=None, metadata=_knob(
        '--pool-memory-max', SIZE,
        'Maximum memory usage of all workers together, by the cgroup of the pool. Over it, the kernel kills one of '
        'them.',
    ))
    user: str | None = field(default=None, metadata=_knob(
        '--user', ACCOUNT,
        'User that the workers run as, with its group and its supplementary groups.',
    ))
    group: str | None = field(default=None, metadata=_knob(
        '--group', ACCOUNT,
        "Group that the workers run as, instead of the user's.",
    ))
    worker_nice: int | None = field(default=None, metadata=_knob(
        '--worker-nice', NICENESS,
        'Niceness of the workers.',
    ))
    worker_limit_nofile: Limit | None = field(default=None, metadata=_knob(
        '--worker-limit-nofile', COUNT_LIMIT,
        'How many files a worker may have open.',
    ))
    worker_limit_nproc: Limit | None = field(default=None, metadata=_knob(
        '--worker-limit-nproc', COUNT_LIMIT,
        'How many processes and threads the user of the workers may have.',
    ))
    worker_limit_core: Limit | None = field(default=None, metadata=_knob(
        '--worker-limit-core', SIZE_LIMIT,
        'Size of the core file of a worker.',
    ))
    worker_limit_memlock: Limit | None = field(default=None, metadata=_knob(
        '--worker-limit-memlock', SIZE_LIMIT,
        'How much memory a worker may lock.',
    ))
    worker_limit_stack: Limit | None = field(default=None, metadata=_knob(
        '--worker-limit-stack', SIZE_LIMIT,
        'Size of the stack of a worker.',
    ))
    worker_limit_fsize: Limit | None = field(default=None, metadata=_knob(
        '--worker-limit-fsize', SIZE_LIMIT,
        'Size of a file that a worker writes.',
    ))
    worker_limit_data: Limit | None = field(default=None, metadata=_knob(
        '--worker-limit-data', SIZE_LIMIT,
        'Size of the private memory of a worker; over it, an allocation is a MemoryError.',
    ))
    worker_limit_cpu: Limit | None = field(default=None, metadata=_knob(
        '--worker-limit-cpu', TIME_LIMIT,
        'Processor time of a worker in all its life; over it, the worker gets SIGXCPU.',
    ))
    umask: int | None = field(default=None, metadata=_knob(
        '--umask', UMASK,
        'File mode creation mask of the workers.',
    ))
    no_new_privileges: bool = field(default=False, metadata=_knob(
        '--no-new-privileges', SWITCH,
        'Workers, and what they start, can gain no privilege by running a program (set-user-ID bits, file '
        'capabilities).',
    ))

    def __post_init__(self) -> None:
        for each in fields(self):
            knob: Knob = each.metadata['knob']
            try:
                accepted = knob.kind.accept(getattr(self, each.name))
            except TypeError as error:
                raise TypeError(f'{each.name}: {error}') from None
            except ValueError as error:
                raise BadValue(each.name, str(error)) from None
            object.__setattr__(self, each.name, accepted)
        if self.restart_delay > self.restart_max_delay == _default('restart_max_delay'):
            object.__setattr__(self, 'restart_max_delay', self.restart_delay)
        if self.restart_max_delay < self.restart_delay:
            raise BadValue(
                'restart_max_delay',
                f'expected at least the restart delay ({format_span(self.restart_delay)}), '
                f'not {format_span(self.restart_max_delay)}',
            )
        if self.max_surge == 0 == self.max_unavailable == _default('max_unavailable'):
            object.__setattr__(self, 'max_unavailable', 1)
        if self.spawn == 'exec' and (self.preload or self.preload_modules):
            name = 'preload' if self.preload else 'preload_modules'
            raise BadValue(name, 'expected nothing to preload with --spawn=exec: a fresh interpreter inherits nothing')
        limit, mark = self.max_worker_memory_usage, self.worker_memory_high
        if limit is not None and not isinstance(limit, Auto) and mark is not None and mark > limit:
            raise BadValue(
                'worker_memory_high',
                f'expected at most the maximum memory usage ({format_size(limit)}), not {format_size(mark)}',
            )
        workers, quorum = self.concurrent_workers, self.watchdog_quorum
        if not isinstance(workers, Auto) and quorum > workers:
            raise BadValue('watchdog_quorum', f'expected at most the number of workers ({workers}), not {quorum}')
        if self.pool_memory_max is not None and self.memory_backend == 'rss':
            raise BadValue(
                'pool_memory_max',
                f'expected a memory backend of auto or cgroup, not rss, with {format_size(self.pool_memory_max)}',
            )


def _default(name: str) -> object:
    """Return the default of a knob."""
    return next(each.default for each in fields(Policy) if each.name == name)


PolicyNow: TypeAlias = Callable[[], Policy]
"""Gives the policy that is in force. A running pool's one holder of it is the pool itself; nobody else keeps a copy."""
