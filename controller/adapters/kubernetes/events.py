"""Events on a policy: what a person who runs `kubectl describe` should see.

An Event that says the same again raises the count of the one that is there. Failing to post one is logged and changes
nothing: Events are a courtesy.
"""

import hashlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from kubernetes.aio.client.exceptions import ApiException

from controller.adapters.kubernetes.cluster import TRANSPORT_ERRORS, Cluster, PolicyKey, explain
from controller.api.names import API_VERSION, FIELD_MANAGER, KIND

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

    async def post(self, key: PolicyKey, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Post an Event.

        Args:
            key: The policy it is about.
            kind: Whether somebody should look.
            reason: One word for programs.
            message: A sentence for people, without keys.
        """
        message = message[:MAX_MESSAGE]
        digest = hashlib.sha256("\n".join((key.uid, kind, reason, message)).encode()).hexdigest()[:16]
        name = f"{key.name[:200]}.{digest}"
        now = self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        about = {"apiVersion": API_VERSION, "kind": KIND, "namespace": key.namespace, "name": key.name, "uid": key.uid}
        body = {
            "metadata": {"name": name, "namespace": key.namespace},
            "involvedObject": about,
            "type": kind, "reason": reason, "message": message,
            "source": {"component": FIELD_MANAGER}, "reportingComponent": FIELD_MANAGER,
            "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        }  # fmt: skip
        try:
            await self._cluster.post_event(key.namespace, name, body)
        except (ApiException, *TRANSPORT_ERRORS) as error:
            logger.warning("the Event %s of %s/%s was not posted: %s", reason, key.namespace, key.name, explain(error))
