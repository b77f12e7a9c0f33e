"""What runs a pool in containers: an image, a compose file, manifests of Kubernetes, filled in for the pool.

Facts: who writes such a file for a supervisor forgets the same things: a grace that is shorter than the supervisor's
own, a memory limit that the workers' limits don't fit in, a probe that has no folder for its socket, arguments that are
quoted for a shell that isn't there. The figures of all of these follow from the options of the run.
Decision: the files lie beside this one, whole and readable, with `@{name}` where something is to be filled in, and are
printed, not written: they are a start, to be kept with the workers' code and changed. A list of words is a JSON array,
which is YAML, and what Dockerfile's exec form takes; in compose and Kubernetes a `$` is doubled, for both expand it.
Only what was given on the command line is in them: not this shell's environment, and nothing of this host.
Price: what depends on the host (`auto`) has a figure here that is a proposal.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Final

from sergeant_linux.control.names import FOLDER, LONGEST_NAME, SUFFIX
from sergeant_linux.core import margins
from sergeant_linux.core.policy import AUTO, NONE, Auto, BadValue, Policy
from sergeant_linux.core.units import format_size, format_span
from sergeant_linux.host import resources

UID: Final = 10001
"""The user of the image, by number: nobody's on the host."""

UNKNOWN_MEMORY: Final = 1024
"""MiB, where no limit tells how much a pool needs."""

UNKNOWN_WORKERS: Final = 2
"""Processors, and so workers, where they are `auto`."""

PIDS_A_WORKER: Final = 64
PIDS: Final = 64

TASKS_A_WORKER: Final = 10
"""How many tasks may wait for each worker of a pod before there is one more pod."""

MOST_PODS: Final = 10
"""As many times the pods that there are at least, at most."""

RUNTIME_DIRECTORY: Final = '/run/pool'
"""Of a pod: a volume, as the rest of the container can't be written."""

_IMAGE: Final = re.compile(r'[A-Za-z0-9](?:[\w./:@-]*\w)?', re.ASCII)
"""Roughly: a registry tells exactly."""

_TARGET_FILES: Final = {'dockerfile': 'Dockerfile', 'compose': 'compose.yaml', 'kubernetes': 'kubernetes.yaml'}

TARGETS: Final = tuple(_TARGET_FILES)


class BadDeployment(ValueError):
    """The options can't be deployed so; the text says which, and why not."""


class _Form(Template):
    delimiter = '@'


@dataclass(frozen=True, slots=True)
class Deployment:
    """A pool that is to be run in containers. words: the options of the run, as they were given."""

    policy: Policy
    words: Sequence[str]
    image: str | None = None
    replicas: int = 1
    queue: str | None = None

    def __post_init__(self) -> None:
        policy = self.policy
        if math.isinf(policy.timeout_stop):
            raise BadValue('timeout_stop', 'expected a finite time span, for no container is waited for without end')
        if policy.control_socket == NONE:
            raise BadValue('control_socket', 'expected a socket: the probes ask the pool by it')
        if self.image is not None and not _IMAGE.fullmatch(self.image):
            raise BadDeployment(f'--image: expected the name of an image, such as crawl:1.2, not {self.image!r:.100}')

    @property
    def name(self) -> str:
        policy = self.policy
        return policy.name or f'{policy.worker_module_name}.{policy.worker_class_name}'

    @property
    def label(self) -> str:
        """The name as DNS has them (RFC 1123), which names of Kubernetes are."""
        label = re.sub(r'[^a-z0-9]+', '-', (self.policy.name or self.policy.worker_module_name).lower())[:50].strip('-')
        return label or 'pool'

    @property
    def workers(self) -> int:
        workers = self.policy.concurrent_workers
        return UNKNOWN_WORKERS if isinstance(workers, Auto) else workers


def text(target: str, deployment: Deployment) -> str:
    """Return the file for this target (one of TARGETS), filled in."""
    form = files(__name__).joinpath(_TARGET_FILES[target]).read_text(encoding='utf-8')
    return _Form(form).substitute({**_common(deployment), **_FILLERS[target](deployment)})


def _common(deployment: Deployment) -> dict[str, object]:
    policy = deployment.policy
    memory, reason = _memory(deployment)
    return {
        'name': deployment.name,
        'uid': UID,
        'memory': memory,
        'memory_reason': reason,
        'timeout_stop': format_span(policy.timeout_stop),
        'grace': math.ceil(policy.timeout_stop) + margins.STOP_OF_A_CONTAINER,
    }


def _dockerfile(deployment: Deployment) -> Mapping[str, object]:
    return {
        'image': deployment.image or deployment.label,
        'live': _array(_probe(deployment, '--live')),
        'command': ', \\\n     '.join(map(_scalar, deployment.words)).join('[]'),
    }


def _compose(deployment: Deployment) -> Mapping[str, object]:
    return {
        'image': _scalar(_expanded(deployment.image or deployment.label)),
        'command': _list(deployment.words, 6),
        'health': _array(['CMD', *map(_expanded, _probe(deployment, '--live'))]),
        'scale': f'    scale: {deployment.replicas}\n' if deployment.replicas != 1 else '',
        'cpus': deployment.workers,
        'pids': PIDS + PIDS_A_WORKER * deployment.workers,
    }


def _kubernetes(deployment: Deployment) -> Mapping[str, object]:
    is_auto = isinstance(deployment.policy.concurrent_workers, Auto)
    limit = f'              # as many workers as this, for they are `auto`\n              cpu: {deployment.workers}\n'
    return {
        'image': _scalar(deployment.image or f'{deployment.label}:latest'),
        'label': _scalar(deployment.label),
        'command': _list(deployment.words, 12),
        'ready': _array(map(_expanded, _probe(deployment, '--ready', RUNTIME_DIRECTORY))),
        'live': _array(map(_expanded, _probe(deployment, '--live', RUNTIME_DIRECTORY))),
        'run': RUNTIME_DIRECTORY,
        'cpus': deployment.workers,
        'cpu_limit': limit if is_auto else '',
        'replicas': deployment.replicas,
        'most': deployment.replicas * MOST_PODS,
        'queue': _scalar(deployment.queue or deployment.policy.worker_module_name),
        'backlog': deployment.workers * TASKS_A_WORKER,
    }


_FILLERS: Final[Mapping[str, Callable[[Deployment], Mapping[str, object]]]] = {
    'dockerfile': _dockerfile,
    'compose': _compose,
    'kubernetes': _kubernetes,
}


def _memory(deployment: Deployment) -> tuple[int, str]:
    """Return the memory of a container, in MiB, and why it is that."""
    limit, number = deployment.policy.max_worker_memory_usage, deployment.workers
    if isinstance(limit, Auto):
        return UNKNOWN_MEMORY, 'a proposal; each worker gets its share of it'
    if limit is None:
        return UNKNOWN_MEMORY, 'a proposal: the workers have no limit of their own'
    memory = resources.needed(number, limit) // resources.MIB
    return memory, f'{number} × {format_size(limit)}, and a reserve for the supervisor and its helpers'


def _probe(deployment: Deployment, which: str, run: str = '/run') -> list[str]:
    """Return the command of a probe. It names the socket: what is searched for, anybody in the container could offer.

    run: the folder that the pool has for its socket there.
    """
    path = deployment.policy.control_socket
    if path == AUTO:
        path = f'{run}/{FOLDER}/{deployment.name[:LONGEST_NAME]}{SUFFIX}'
    return ['sergeant-linux', 'health', which, f'--control-socket={path}']


# Words.


def _expanded(word: str) -> str:
    """Return the word so that it is itself after compose or Kubernetes have expanded it."""
    return word.replace('$', '$$')


def _scalar(word: str) -> str:
    """Return a word as JSON, and so as YAML. Not in ASCII: YAML has no surrogates."""
    return json.dumps(word, ensure_ascii=False)


def _array(words: Iterable[str]) -> str:
    return ', '.join(map(_scalar, words)).join('[]')


def _list(words: Sequence[str], margin: int) -> str:
    return '\n'.join(f'{" " * margin}- {_scalar(_expanded(word))}' for word in words)
