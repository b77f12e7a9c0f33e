"""READY: the one message that says a worker has finished its start.

Facts: the supervisor waits for it (`timeout_start`), and the first READY of a pool opens the way for the other workers.
Only the worker itself knows when it has come: a sergeant worker when `initialize()` has returned, a plain one when its
`run()` begins, or later, when it says so.
Decision: one function for users, `ready()`, that can be called at any time, by any code, in any process.
Price: the gate is kept here, in the one module variable of the worker's side.

Invariant: a life sends at most one READY, and none of its children ever does.
"""

import socket

from sergeant_linux.wire import gate as gates

_PATIENCE = 1.0  # seconds to wait for room on the gate; nobody else has written to it yet

_gate: socket.socket | None = None


def attach(gate: socket.socket) -> None:
    """Say READY on `gate` when the time comes."""
    global _gate
    _gate = gate


def announce(*, drain: bool) -> None:
    """Send READY, unless it was sent before. `drain`: on DRAIN the worker leaves at the next task boundary."""
    global _gate
    gate, _gate = _gate, None
    if gate is not None and gate.fileno() >= 0:  # a child of the worker has closed its copy
        gates.send(gate, {'type': 'ready', 'drain': drain}, patience=_PATIENCE)


def ready() -> None:
    """Tell the supervisor that this worker is ready: for a class with `run()` that sets `calls_ready = True`.

    Called a second time, or outside of a worker, it does nothing.
    """
    announce(drain=False)
