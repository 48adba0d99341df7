"""Events on a policy: what a person who runs `kubectl describe` should see.

An Event that says the same again raises the count of the one that is there. One that cannot be posted is logged, and
nothing else changes.
"""

import hashlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from controller.adapters.kubernetes.client import Cluster, core_path
from controller.api.manifest import PolicyKey
from controller.api.names import API_VERSION, FIELD_MANAGER, KIND
from controller.errors import ClusterError
from controller.ports import PolicyEvent

logger = logging.getLogger(__name__)

MAX_MESSAGE = 1024
"""Characters; the API server refuses longer messages."""


class EventRecorder:
    """Posts Events about policies.

    Args:
        cluster: Where to.
        clock: Tells the time.
    """

    def __init__(self, cluster: Cluster, clock: Callable[[], datetime]) -> None:
        self._cluster, self._clock = cluster, clock

    async def post(self, key: PolicyKey, event: PolicyEvent) -> None:
        """Post an Event; if it exists, count it once more."""
        message = event.message[:MAX_MESSAGE]
        digest = hashlib.sha256("\n".join((key.uid, event.kind, event.reason, message)).encode()).hexdigest()[:16]
        name = f"{key.name[:200]}.{digest}"
        now = self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        about = {"apiVersion": API_VERSION, "kind": KIND, "namespace": key.namespace, "name": key.name, "uid": key.uid}
        body = {
            "metadata": {"name": name, "namespace": key.namespace},
            "involvedObject": about,
            "type": event.kind, "reason": event.reason, "message": message,
            "source": {"component": FIELD_MANAGER}, "reportingComponent": FIELD_MANAGER,
            "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        }  # fmt: skip
        try:
            await self._create_or_count(key.namespace, name, body)
        except ClusterError as error:
            logger.warning("the Event %s of %s was not posted: %s", event.reason, key, error)

    async def _create_or_count(self, namespace: str, name: str, body: Any) -> None:
        try:
            await self._cluster.request_once("POST", core_path(namespace, "events"), body)
        except ClusterError as error:
            if error.status != 409:
                raise
            known = await self._cluster.request_once("GET", core_path(namespace, "events", name))
            again = {"count": known.get("count", 1) + 1, "lastTimestamp": body["lastTimestamp"]}
            await self._cluster.request_once("PATCH", core_path(namespace, "events", name), again)
