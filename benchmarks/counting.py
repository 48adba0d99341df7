"""Counts the requests that the controller's clients in this process send, and how many of them were sent again."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import stamina.instrumentation
from stamina.instrumentation import RetryDetails

from controller.adapters import instrumentation
from controller.errors import Service


@dataclass(slots=True)
class Sent:
    """What was sent within a block; filled while it runs.

    Attributes:
        to: Requests by service, with those that were sent again.
        again: How often one was sent again.
    """

    to: Counter[Service] = field(default_factory=Counter)
    again: int = 0


_open: list[Sent] = []


@contextmanager
def counted() -> Iterator[Sent]:
    """Count within a block."""
    sent = Sent()
    _open.append(sent)
    try:
        yield sent
    finally:
        _open.remove(sent)


def _on_step(moment: instrumentation.Moment, what: str) -> None:
    if moment is instrumentation.Moment.BEFORE:
        for sent in _open:
            sent.to[Service(what.split()[0])] += 1


def _on_retry(details: RetryDetails) -> None:
    for sent in _open:
        sent.again += 1


instrumentation.watch(_on_step)
stamina.instrumentation.set_on_retry_hooks([_on_retry])
