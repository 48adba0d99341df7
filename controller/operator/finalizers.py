"""Takes off the finalizer that an older version of the controller has left on a policy.

This version puts none on. Taking one off needs the right to patch policies, which nothing else here needs, so it is not
among the rights that the controller is installed with: without it this only says what a person can do.
"""

import logging

from controller.adapters.kubernetes.client import Cluster
from controller.adapters.kubernetes.store import remove_finalizer
from controller.api.manifest import Manifest, PolicyKey, key_of
from controller.api.names import GROUP
from controller.errors import ClusterError

logger = logging.getLogger(__name__)

OLD_FINALIZER = f"{GROUP}/controller"


class FinalizerCleanup:
    """Takes the old finalizer off each policy that has it; tries once for each."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._tried: set[PolicyKey] = set()

    async def see(self, manifest: Manifest) -> None:
        """Take the old finalizer off a policy, if it has it; a failure is logged."""
        key = key_of(manifest)
        if OLD_FINALIZER not in manifest["metadata"].get("finalizers", ()) or key in self._tried:
            return
        self._tried.add(key)
        try:
            await remove_finalizer(self._cluster, manifest, OLD_FINALIZER)
        except ClusterError as error:
            logger.warning(
                "%s has the finalizer %s of an older version, which keeps it from being deleted, and it could not be "
                "taken off: %s; take it off with: kubectl patch vrp %s -n %s --type=merge -p "
                '\'{"metadata": {"finalizers": null}}\'',
                key, OLD_FINALIZER, error.problem, key.name, key.namespace,
            )  # fmt: skip
        else:
            logger.info("%s: took off the finalizer %s of an older version", key, OLD_FINALIZER)
