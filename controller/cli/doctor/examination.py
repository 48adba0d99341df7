"""How `doctor` asks its questions, and what it has found out so far.

A question is a function that returns what it saw and raises what is wrong. One that cannot be asked, for want of what
an earlier one should have found, says so.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

import click

from controller.adapters.kubernetes.cluster import Cluster
from controller.api.manifest import Policy
from controller.cli.errors import in_words
from controller.cli.options import Where
from controller.cli.policies import Found, current_namespace
from controller.cli.source import Source
from controller.errors import Service, ServiceError
from controller.ports import Clients

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Mark(StrEnum):
    """How a question was answered."""

    GOOD = "✓"
    BAD = "✗"
    DOUBTFUL = "!"
    NOT_ASKED = "-"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question: what was seen, or what is wrong and what to do."""

    mark: Mark
    title: str
    text: str


class DoubtError(Exception):
    """Something that may well be meant to be so."""


class NotAskedError(Exception):
    """The question makes no sense now; the message says why."""


@dataclass(slots=True)
class Examination:
    """What has been found out so far; what has not, a question that needs it is not asked for.

    Attributes:
        where: Where the policy is.
        now: When it began.
        source: The settings, if they do not come from a cluster.
        stack: Closes in the end what questions have opened.
        cluster: The cluster, once it has answered.
        served: Whether the cluster knows policies.
        found: The policy in the cluster.
        policy: What it says, once that is known to be valid.
        clients: The services; only those in `usable` may be asked.
        usable: Those whose address and key can be right.
        silent: Those that have failed: nobody waits for them again.
        deployment: Prefect's, as Prefect has it.
    """

    where: Where
    now: datetime
    stack: AsyncExitStack
    source: Source | None = None
    cluster: Cluster | None = None
    served: bool = False
    found: Found | None = None
    policy: Policy | None = None
    clients: Clients | None = None
    usable: set[Service] = field(default_factory=set)
    silent: set[Service] = field(default_factory=set)
    deployment: Mapping[str, object] | None = None

    def the_cluster(self) -> Cluster:
        """The cluster."""
        return needed(self.cluster, "the API server did not answer")

    def the_found(self) -> Found:
        """The policy in the cluster."""
        return needed(self.found, "there is no policy to look at")

    def the_policy(self) -> Policy:
        """What the policy says."""
        return needed(self.policy, "there is no valid policy, which names what to ask")

    def the_clients(self, service: Service) -> Clients:
        """The services, if this one can be asked."""
        if service in self.silent:
            raise NotAskedError(f"{service} has failed already")
        clients = self.clients if service in self.usable else None
        return needed(clients, f"it is not known where {service} is, or with which key to ask it")

    @property
    def namespace(self) -> str:
        """The policy's namespace, or the one where it should be."""
        return self.found.key.namespace if self.found else self.where.namespace or current_namespace(self.where)


def needed(thing: T | None, otherwise: str) -> T:
    """What an earlier question should have found; raises `NotAskedError` with a reason if it has not."""
    if thing is None:
        raise NotAskedError(otherwise)
    return thing


Ask = Callable[[Examination], Awaitable[str | None]]
"""Returns what was seen, or `None` if the question does not apply here."""


async def answer(title: str, ask: Ask, it: Examination) -> Answer | None:
    """Ask one question; whatever it raises is its answer, so that the next one can be asked."""
    try:
        seen = await ask(it)
    except NotAskedError as error:
        return Answer(Mark.NOT_ASKED, title, f"not asked: {error}")
    except DoubtError as error:
        return Answer(Mark.DOUBTFUL, title, str(error))
    except click.ClickException as error:
        return Answer(Mark.BAD, title, error.message)
    except Exception as error:  # of whatever kind: the next question is asked
        logger.debug("%s", title, exc_info=True)
        if isinstance(error, ServiceError) and error.service is not None:
            it.silent.add(error.service)
        return Answer(Mark.BAD, title, in_words(error).message)
    return None if seen is None else Answer(Mark.GOOD, title, seen)
