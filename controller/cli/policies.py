"""A policy in a cluster: which one a person means, and how it is now."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kubernetes.aio.config import kube_config

from controller.adapters.kubernetes.client import Cluster
from controller.adapters.kubernetes.config import load_configuration
from controller.adapters.kubernetes.store import get_policy, list_policies, policy_path
from controller.api.manifest import Manifest, Policy, PolicyKey, key_of, parse_policy, read_status
from controller.api.names import CRD_NAME
from controller.api.status import PolicyStatus
from controller.cli.errors import Failed, WrongUseError
from controller.cli.options import Where
from controller.errors import ClusterError

INSTALL_CRD = "kubectl apply --server-side -f manifests/crd.yaml"

PATIENCE = 5.0
"""Seconds for which a person waits for an API server that does not answer."""

IN_A_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class ClusterPolicy:
    """A policy in a cluster, as it was read."""

    cluster: Cluster
    manifest: Manifest

    @property
    def key(self) -> PolicyKey:
        """Which policy it is."""
        return key_of(self.manifest)

    @property
    def policy(self) -> Policy:
        """What it says; raises `ConfigurationError` if that is not valid."""
        return parse_policy(self.manifest)

    @property
    def status(self) -> PolicyStatus:
        """What the controller last wrote."""
        return read_status(self.manifest)

    async def again(self) -> "ClusterPolicy":
        """The policy as it is now.

        Raises:
            Failed: It is gone.
        """
        manifest = await get_policy(self.cluster, self.key.namespace, self.key.name)
        if manifest is None or key_of(manifest) != self.key:
            raise Failed(f"policy {self.key} is gone")
        return ClusterPolicy(self.cluster, manifest)

    async def patch(self, **changes: Mapping[str, Any]) -> None:
        """Merge changes into the policy, unless another one has its name by now."""
        metadata = {"uid": self.key.uid, **changes.pop("metadata", {})}
        path = policy_path(self.key.namespace, self.key.name)
        await self.cluster.request("PATCH", path, {"metadata": metadata, **changes})


@asynccontextmanager
async def open_cluster(where: Where) -> AsyncIterator[Cluster]:
    """Connect to the cluster that the options lead to.

    Raises:
        ClusterError: There is none.
    """
    cluster = await Cluster.connect(partial(load_configuration, where.kubeconfig, where.context), patience=PATIENCE)
    try:
        yield cluster
    finally:
        await cluster.close()


@asynccontextmanager
async def open_policy(where: Where) -> AsyncIterator[ClusterPolicy]:
    """Find the policy that the options name.

    Raises:
        WrongUseError: They name none, or more than one would fit.
        ClusterError: The cluster cannot be used.
    """
    async with open_cluster(where) as cluster:
        yield await find_policy(cluster, where)


async def find_policy(cluster: Cluster, where: Where) -> ClusterPolicy:
    """The policy that the options name; errors as for `open_policy`."""
    try:
        return await (_named(cluster, where, where.name) if where.name is not None else _only(cluster, where))
    except ClusterError as error:
        if error.status == 404:
            raise ClusterError(
                f"the cluster at {cluster.address} does not know {CRD_NAME}",
                f"install it with: {INSTALL_CRD}",
            ) from None
        if error.status in {401, 403}:
            raise Failed(
                f"{error.problem}: you may not read {CRD_NAME}",
                "ask for the right to get and list them, or name a namespace where you have it with -n",
            ) from None
        raise


async def _named(cluster: Cluster, where: Where, name: str) -> ClusterPolicy:
    namespace = where.namespace or current_namespace(where)
    manifest = await get_policy(cluster, namespace, name)
    if manifest is not None:
        return ClusterPolicy(cluster, manifest)
    others: list[Manifest] = []
    try:
        others += [each async for each in list_policies(cluster, where.namespace)]
    except ClusterError as error:
        if error.status != 403:
            raise  # not everybody may list them
    raise WrongUseError(f"there is no policy {namespace}/{name}", _choice(others, where.namespace))


async def _only(cluster: Cluster, where: Where) -> ClusterPolicy:
    try:
        manifests = [each async for each in list_policies(cluster, where.namespace)]
    except ClusterError as error:
        if error.status != 403 or where.namespace is not None:
            raise
        # Not everybody may look into all namespaces; then it is the one that kubectl would take.
        return await _only(cluster, replace(where, namespace=current_namespace(where)))
    if len(manifests) != 1:
        problem = "there is more than one policy" if manifests else "there is no policy"
        place = f" in namespace {where.namespace}" if where.namespace else ""
        raise WrongUseError(f"{problem}{place}", _choice(manifests, where.namespace))
    return ClusterPolicy(cluster, manifests[0])


def _choice(manifests: list[Manifest], namespace: str | None) -> str:
    names = [f"{each['metadata']['name']} -n {each['metadata']['namespace']}" for each in manifests[:5]]
    if not names:
        return "apply one, such as manifests/example.yaml" + (
            ", or name another namespace with -n" if namespace else ""
        )
    return f"write {' or '.join(names)}{' or another' if len(manifests) > len(names) else ''}"


def current_namespace(where: Where) -> str:
    """The namespace that kubectl would use without `-n`."""
    if where.kubeconfig is None and where.context is None and IN_A_POD.is_file():
        return IN_A_POD.read_text().strip()
    file = str(where.kubeconfig or kube_config.KUBE_CONFIG_DEFAULT_LOCATION)
    contexts, active = kube_config.list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
    chosen = next((each for each in contexts if each["name"] == where.context), active)
    return str(chosen["context"].get("namespace") or "default")
