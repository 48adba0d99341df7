"""The life of one controller process: check what it needs, watch, stop in good order."""

import asyncio
import logging
import signal
from datetime import UTC, datetime

import kopf

from controller.adapters.clients import LiveServices
from controller.adapters.kubernetes.access import WATCH_RIGHTS, missing_rights
from controller.adapters.kubernetes.client import Cluster
from controller.adapters.kubernetes.config import load_configuration
from controller.adapters.kubernetes.secrets import ClusterSecrets
from controller.adapters.kubernetes.store import ClusterStore, list_policies
from controller.api.names import CRD_NAME
from controller.errors import ClusterError
from controller.operator.dispatcher import Dispatcher
from controller.operator.finalizers import FinalizerCleanup
from controller.operator.handlers import make_kopf_settings, make_registry
from controller.operator.reconcile import Reconciler
from controller.operator.settings import GRACE, Settings

logger = logging.getLogger(__name__)


async def run_controller(settings: Settings) -> None:
    """Watch the policies until a signal says to stop.

    Raises:
        ClusterError: There is no cluster, no CRD or no permission; the message says which, in one line.
    """
    cluster = await Cluster.connect(lambda: load_configuration(settings.kubeconfig, settings.context))
    try:
        policies = await _preflight(cluster, settings)
        where = ", ".join(settings.namespaces) or "all namespaces"
        logger.info("watching %d policies in %s at %s", policies, where, cluster.address)
        await _watch(cluster, settings)
    finally:
        await cluster.close()


async def _preflight(cluster: Cluster, settings: Settings) -> int:
    """Count the policies, and find out what would go wrong later: kopf only warns and idles where it cannot watch."""
    return sum([await _preflight_namespace(cluster, namespace) for namespace in settings.namespaces or (None,)])


async def _preflight_namespace(cluster: Cluster, namespace: str | None) -> int:
    count, missing = 0, ["list"]
    try:
        async for _ in list_policies(cluster, namespace):
            count += 1
    except ClusterError as error:
        if error.status == 404:
            raise ClusterError(
                f"the cluster does not know {CRD_NAME}", "install it with: kubectl apply -f manifests/crd.yaml"
            ) from None
        if error.status != 403:
            raise
    else:
        missing = [
            f"{right.verb} {right.subresource}".rstrip()
            for right in await missing_rights(cluster, WATCH_RIGHTS, namespace)
        ]
    if missing:
        where = f"in namespace {namespace}" if namespace else "in all namespaces"
        raise ClusterError(
            f"no permission to {', '.join(missing)} {CRD_NAME} {where}",
            "give the controller's account the rules of manifests/rbac.yaml, or name the namespaces it has them for "
            "with --namespace",
        )
    return count


def _read_clock() -> datetime:
    return datetime.now(UTC)  # noqa: TID251


async def _watch(cluster: Cluster, settings: Settings) -> None:
    reconciler = Reconciler(ClusterStore(cluster, _read_clock), LiveServices(ClusterSecrets(cluster)), _read_clock)
    dispatcher = Dispatcher(reconciler.reconcile, _read_clock)
    dispatcher.start(settings.max_concurrent_scans)
    older_tasks = asyncio.all_tasks()
    stop = asyncio.Event()
    operator = await kopf.spawn_tasks(
        registry=make_registry(dispatcher, settings, FinalizerCleanup(cluster).see),
        settings=make_kopf_settings(),
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        stop_flag=stop,
    )
    _stop_on_signals(dispatcher, stop)  # after kopf has set its own
    problem = ""
    try:
        await kopf.run_tasks(operator, ignored=older_tasks)
    except Exception as error:  # noqa: BLE001 - whatever ended the watch: a CRD that was deleted, rights taken away
        problem = f": {error}"
    await dispatcher.drain(grace=GRACE.total_seconds())
    if not stop.is_set():
        raise ClusterError(f"the watch on the policies ended{problem}")


def _stop_on_signals(dispatcher: Dispatcher, stop: asyncio.Event) -> None:
    def stop_now(name: str) -> None:
        logger.info("%s: stopping; scans in flight finish their batch", name)
        dispatcher.request_stop()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_now, number.name)
