"""A view: what stands in an object's place where the ancestor's own functions run, and there alone.

Facts: a method is a function that is given its object. What is set on a worker or on its executor is seen by all of the
user's code: it is pickled and copied with the worker, it meets a `__setattr__` that allows no strangers, and it can't
be set at all over a property.
Consequence: to hook the ancestor's loop nothing need be changed in the objects that it runs on. Its functions are
called with a view of the object: what we put into the view is what they find, and everything else is the object's. What
they set is set on the object. The user's methods are the object's own, and never see a view.
Decision: only functions of the ancestor's, which are known, are called with a view.
Price: a microsecond for each attribute that the ancestor's functions look up.

Invariant: to who looks at the object there is no view.
"""

from typing import Any


class View:
    """A view of `real`, in which `ours` stand for the attributes of these names."""

    def __init__(self, real: Any, **ours: Any) -> None:
        self.__dict__.update(ours, _View__real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__['_View__real'], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__['_View__real'], name, value)

    def __bool__(self) -> bool:
        return bool(self.__dict__['_View__real'])


def put(view: View, name: str, value: Any) -> None:
    """Have `value` stand for the attribute `name` in the view."""
    view.__dict__[name] = value


def behind(either: Any) -> Any:
    """Return the object that a view is of; any other object is itself."""
    return either.__dict__['_View__real'] if type(either) is View else either
