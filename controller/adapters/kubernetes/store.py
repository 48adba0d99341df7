"""The policies of a cluster: read them, write their status, post Events about them.

Writes nothing of a policy but its status. A status is written with the resourceVersion that it was computed from, so
that two writers cannot undo each other.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime

from typing_extensions import override

from controller.adapters.kubernetes.client import Cluster, api_path
from controller.adapters.kubernetes.events import EventRecorder
from controller.api.manifest import Manifest, PolicyKey, key_of
from controller.api.names import FIELD_MANAGER, GROUP, PLURAL, VERSION
from controller.errors import ClusterError
from controller.ports import PolicyEvent, PolicyStore, StatusChange

CONFLICTS = 10
"""How often a status is computed anew because somebody else wrote the object in between."""


def policy_path(namespace: str | None, *names: str) -> str:
    """Where the API server has the policies of a namespace, or one of them."""
    return api_path(f"apis/{GROUP}/{VERSION}", namespace, PLURAL, *names)


def list_policies(cluster: Cluster, namespace: str | None) -> AsyncIterator[Manifest]:
    """All policies of a namespace, or of all namespaces; raises `ClusterError`."""
    return cluster.list(policy_path(namespace))


async def get_policy(cluster: Cluster, namespace: str, name: str) -> Manifest | None:
    """The policy of a name; `None` if there is none. Raises `ClusterError`."""
    try:
        return await cluster.request("GET", policy_path(namespace, name))
    except ClusterError as error:
        if error.status == 404:
            return None
        raise


class ClusterStore(PolicyStore):
    """The policies of a cluster.

    Args:
        cluster: The cluster.
        clock: Tells the time, for Events.
    """

    def __init__(self, cluster: Cluster, clock: Callable[[], datetime]) -> None:
        self._cluster, self._events = cluster, EventRecorder(cluster, clock)

    @override
    async def read(self, key: PolicyKey) -> Manifest | None:
        manifest = await get_policy(self._cluster, key.namespace, key.name)
        return manifest if manifest is not None and key_of(manifest) == key else None

    @override
    async def update_status(
        self, key: PolicyKey, compute: Callable[[Mapping[str, object]], Mapping[str, object]]
    ) -> StatusChange | None:
        sent: StatusChange | None = None
        for _ in range(CONFLICTS):
            manifest = await self.read(key)
            if manifest is None:
                return None
            before = manifest.get("status") or {}
            if sent is not None and before == sent.after:
                return sent  # it was written, only the answer was lost; computed again it would count twice
            sent = StatusChange(before, dict(compute(before)))
            if sent.after == before:
                return None
            if (is_written := await self._replace_status(key, {**manifest, "status": sent.after})) is not None:
                return sent if is_written else None
        raise ClusterError(f"the status of {key} could not be written: it changes all the time")

    async def _replace_status(self, key: PolicyKey, manifest: Manifest) -> bool | None:
        """Write a status; tells whether it is written, or the policy gone (`False`) or somebody else's (`None`)."""
        try:
            path = policy_path(key.namespace, key.name, "status")
            await self._cluster.request("PUT", path, manifest, fieldManager=FIELD_MANAGER)
        except ClusterError as error:
            if error.status not in {404, 409}:
                raise
            return False if error.status == 404 else None
        return True

    @override
    async def emit_event(self, key: PolicyKey, event: PolicyEvent) -> None:
        await self._events.post(key, event)


async def remove_finalizer(cluster: Cluster, manifest: Manifest, finalizer: str) -> None:
    """Take a finalizer off a policy that an older version of the controller has left there.

    Raises:
        ClusterError: Most likely the account may not patch policies, which nothing else needs.
    """
    metadata = manifest["metadata"]
    remaining = [other for other in metadata.get("finalizers", []) if other != finalizer]
    patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": remaining}}
    try:
        await cluster.request_once("PATCH", policy_path(metadata["namespace"], metadata["name"]), patch)
    except ClusterError as error:
        if error.status not in {404, 409}:  # it is gone, or will be seen again as it is now
            raise
