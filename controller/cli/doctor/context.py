"""How `doctor` runs its checks, and what they have found out so far.

A check is a function that returns what it saw and raises what is wrong. One that needs something that an earlier check
did not find out is skipped, and says so.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

import click

from controller.adapters.kubernetes.client import Cluster
from controller.api.manifest import Policy
from controller.cli.errors import in_words
from controller.cli.options import Where
from controller.cli.policies import ClusterPolicy, current_namespace
from controller.cli.source import Source
from controller.errors import Service, ServiceError
from controller.ports import Clients

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Mark(StrEnum):
    """How a check ended."""

    PASSED = "✓"
    FAILED = "✗"
    WARNING = "!"
    SKIPPED = "-"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check: what was seen, or what is wrong and what to do."""

    mark: Mark
    title: str
    text: str


class CheckWarningError(Exception):
    """Something that may well be meant to be so."""


class CheckSkippedError(Exception):
    """The check makes no sense now; the message says why."""


@dataclass(slots=True)
class DoctorContext:
    """What has been found out so far; a check that needs what has not is skipped.

    Attributes:
        where: Where the policy is.
        now: When it began.
        source: The settings, if they do not come from a cluster.
        stack: Closes in the end what checks have opened.
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
    found: ClusterPolicy | None = None
    policy: Policy | None = None
    clients: Clients | None = None
    usable: set[Service] = field(default_factory=set)
    silent: set[Service] = field(default_factory=set)
    deployment: Mapping[str, object] | None = None

    def require_cluster(self) -> Cluster:
        """The cluster."""
        return require(self.cluster, "the API server did not answer")

    def require_policy_object(self) -> ClusterPolicy:
        """The policy in the cluster."""
        return require(self.found, "there is no policy to look at")

    def require_policy(self) -> Policy:
        """What the policy says."""
        return require(self.policy, "there is no valid policy, which names what to ask")

    def require_clients(self, service: Service) -> Clients:
        """The services, if this one can be asked."""
        if service in self.silent:
            raise CheckSkippedError(f"{service} has failed already")
        clients = self.clients if service in self.usable else None
        return require(clients, f"it is not known where {service} is, or with which key to ask it")

    @property
    def namespace(self) -> str:
        """The policy's namespace, or the one where it should be."""
        return self.found.key.namespace if self.found else self.where.namespace or current_namespace(self.where)


def require(thing: T | None, otherwise: str) -> T:
    """What an earlier check should have found out; raises `CheckSkippedError` with a reason if it has not."""
    if thing is None:
        raise CheckSkippedError(otherwise)
    return thing


Check = Callable[[DoctorContext], Awaitable[str | None]]
"""Returns what was seen, or `None` if the check does not apply here."""


async def run_check(title: str, ask: Check, context: DoctorContext) -> CheckResult | None:
    """Run one check; whatever it raises is its result, so that the next one can run."""
    try:
        seen = await ask(context)
    except CheckSkippedError as error:
        return CheckResult(Mark.SKIPPED, title, f"not asked: {error}")
    except CheckWarningError as error:
        return CheckResult(Mark.WARNING, title, str(error))
    except click.ClickException as error:
        return CheckResult(Mark.FAILED, title, error.message)
    except Exception as error:  # of whatever kind: the next check runs
        logger.debug("%s", title, exc_info=True)
        if isinstance(error, ServiceError) and error.service is not None:
            context.silent.add(error.service)
        return CheckResult(Mark.FAILED, title, in_words(error).message)
    return None if seen is None else CheckResult(Mark.PASSED, title, seen)
