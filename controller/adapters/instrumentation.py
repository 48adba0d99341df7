"""The edge: every request that a reconcile sends passes here, before it is sent and after its answer came.

By itself this does nothing. A test that kills the controller at each step sets a hook, and so learns of every step that
there is: whoever sends a request without passing here has left the adapters.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum


class Moment(StrEnum):
    """When, in a step."""

    BEFORE = "before"
    AFTER = "after"


Hook = Callable[[Moment, str], None]

_hooks: list[Hook] = []


def watch(hook: Hook) -> None:
    """Call a hook at each step from now on, with the moment and what is sent where."""
    _hooks.append(hook)


def notify(moment: Moment, what: str) -> None:
    """Tell the hooks that a request is about to be sent, or was answered."""
    for hook in _hooks:
        hook(moment, what)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Send a request within this block; one that fails has no second moment."""
    notify(Moment.BEFORE, what)
    yield
    notify(Moment.AFTER, what)
