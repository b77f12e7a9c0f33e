"""sergeant_linux: a supervisor for Python workers on Linux."""

TYPE_CHECKING = False  # typing's own would be an import before a command has left the working folder
if TYPE_CHECKING:
    from typing import Any

    from sergeant_linux.control.client import Client, PoolError
    from sergeant_linux.supervisor import Supervisor
    from sergeant_linux.worker.heartbeat import heartbeat
    from sergeant_linux.worker.ready import ready

__all__ = ['Client', 'PoolError', 'Supervisor', 'heartbeat', 'ready']

__version__ = '0.2.0'

_HOMES = {
    'Client': 'sergeant_linux.control.client',
    'PoolError': 'sergeant_linux.control.client',
    'Supervisor': 'sergeant_linux.supervisor',
    'heartbeat': 'sergeant_linux.worker.heartbeat',
    'ready': 'sergeant_linux.worker.ready',
}


def __getattr__(name: str) -> 'Any':
    """Import a public name when it is asked for: a worker doesn't pay for the supervisor's modules."""
    from importlib import import_module

    if name == 'supervisor':  # as `import sergeant; sergeant.supervisor` reads
        return import_module('sergeant_linux.supervisor')
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_HOMES[name]), name)
