"""What an account may do: asks the API server for access reviews, which it does not keep."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from controller.adapters.kubernetes.client import Cluster, api_path
from controller.api.names import GROUP, PLURAL


@dataclass(frozen=True, slots=True)
class Right:
    """A right such as to `get` `secrets`, or to `update` the subresource `status` of policies."""

    verb: str
    resource: str
    subresource: str = ""

    @property
    def target(self) -> str:
        """What it is a right to, such as `secrets`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def describe_rights(rights: Iterable[Right]) -> str:
    """Rights in one line: `get list secrets, update videorecoverypolicies/status`."""
    by_target = groupby(rights, key=lambda right: right.target)
    return ", ".join(f"{' '.join(right.verb for right in of_target)} {target}" for target, of_target in by_target)


CONTROLLER_RIGHTS = (
    Right("get", PLURAL),
    Right("list", PLURAL),
    Right("watch", PLURAL),
    Right("update", PLURAL, "status"),
    Right("get", "secrets"),
    Right("create", "events"),
    Right("get", "events"),
    Right("patch", "events"),
)
"""What the controller calls, and so needs; `manifests/rbac.yaml` grants just this."""

WATCH_RIGHTS = tuple(right for right in CONTROLLER_RIGHTS if right.resource == PLURAL)
"""Those without which a controller is of no use at all."""


async def missing_rights(
    cluster: Cluster, rights: Iterable[Right], namespace: str | None, *, user: str | None = None
) -> list[Right]:
    """Those of the rights that an account lacks.

    Args:
        cluster: Whom to ask.
        rights: The rights.
        namespace: Where; `None` for all namespaces.
        user: Whose; `None` for the account that asks. Another one's takes the right to create subjectaccessreviews.

    Raises:
        ClusterError: The API server does not tell.
    """
    return [right for right in rights if not await _is_allowed(cluster, right, namespace, user)]


async def _is_allowed(cluster: Cluster, right: Right, namespace: str | None, user: str | None) -> bool:
    attributes: dict[str, Any] = {
        "group": GROUP if right.resource == PLURAL else "",
        "resource": right.resource,
        "subresource": right.subresource,
        "verb": right.verb,
    }
    if namespace is not None:
        attributes["namespace"] = namespace
    whose: Mapping[str, str] = {} if user is None else {"user": user}
    kind = "selfsubjectaccessreviews" if user is None else "subjectaccessreviews"
    path = api_path("apis/authorization.k8s.io/v1", None, kind)
    review = await cluster.request("POST", path, {"spec": {"resourceAttributes": attributes, **whose}})
    return bool(review["status"]["allowed"])
