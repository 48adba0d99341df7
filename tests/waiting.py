"""The one way in which tests wait for something: look again and again, and say in the end what was last seen.

How long a machine takes must never decide a test, so the deadline is far beyond what anything takes. A test that passes
does not come near it.
"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 300.0
"""Seconds: for one thing to happen on a machine that has much else to do."""

PAUSE = 0.05
"""Seconds from one look to the next."""


def wait_for(
    condition: Callable[[], T],
    *,
    what: str,
    seconds: float = PATIENCE,
    seen: Callable[[], object] | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> T:
    """Wait until a condition has a value that counts as true, and return that value.

    Args:
        condition: Looks, and returns what it sees. What it raises ends the wait.
        what: What is waited for, for the message of a wait in vain.
        seconds: How long. A shorter time than the default is for tests of waiting itself.
        seen: What to show in that message instead of the condition's last value.
        meanwhile: Called between two looks; it raises where there is nothing to wait for any more.

    Raises:
        AssertionError: It did not happen.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for {what}; last seen: {_shown(value, seen)}")
        if meanwhile is not None:
            meanwhile()
        time.sleep(min(PAUSE, seconds))
    return value


def _shown(value: object, seen: Callable[[], object] | None) -> str:
    last = value if seen is None else seen()
    return last if isinstance(last, str) else repr(last)
