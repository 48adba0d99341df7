"""The life of one controller process: look before the start, watch, leave in good order."""

import asyncio
import logging
import signal
from datetime import UTC, datetime

import kopf
from kubernetes.aio.client.exceptions import ApiException

from controller.adapters.clients import LiveServices
from controller.adapters.kubernetes.cluster import TRANSPORT_ERRORS, Cluster, explain
from controller.adapters.kubernetes.config import load_configuration
from controller.adapters.kubernetes.errors import ClusterError
from controller.adapters.kubernetes.events import EventRecorder
from controller.api.names import GROUP, PLURAL
from controller.operator.dispatcher import Dispatcher
from controller.operator.handlers import make_kopf_settings, make_registry
from controller.operator.reconcile import Tools
from controller.operator.settings import FINALIZER, GRACE, Settings

logger = logging.getLogger(__name__)


async def run_controller(settings: Settings) -> None:
    """Watch the policies until a signal says to leave.

    Raises:
        ClusterError: There is no cluster, no CRD or no permission; the message says which, in one line.
    """
    cluster = await Cluster.connect(lambda: load_configuration(settings.kubeconfig, settings.context))
    try:
        policies = await _look(cluster, settings)
        where = ", ".join(settings.namespaces) or "all namespaces"
        logger.info("watching %d policies in %s at %s", policies, where, cluster.address)
        await _watch(cluster, settings)
    finally:
        await cluster.close()


async def _look(cluster: Cluster, settings: Settings) -> int:
    """Count the policies, and see what would go wrong later: kopf only warns and idles where it cannot watch."""
    count = 0
    for namespace in settings.namespaces or (None,):
        where = f"in namespace {namespace}" if namespace else "in all namespaces"
        try:
            async for _ in cluster.policies(namespace):
                count += 1
            missing = await cluster.missing_rights(namespace)
        except ApiException as error:
            if error.status == 404:
                raise ClusterError(
                    f"the cluster does not know {PLURAL}.{GROUP}; install it with: kubectl apply -f manifests/crd.yaml"
                ) from None
            if error.status != 403:
                raise ClusterError(explain(error)) from None
            missing = ["list"]
        except TRANSPORT_ERRORS as error:
            raise ClusterError(explain(error)) from None
        if missing:
            raise ClusterError(
                f"no permission to {', '.join(missing)} {PLURAL}.{GROUP} {where}; give the controller's account the "
                "rules of manifests/rbac.yaml, or name the namespaces it has them for with --namespace"
            )
    return count


async def _watch(cluster: Cluster, settings: Settings) -> None:
    def clock() -> datetime:
        return datetime.now(UTC)  # noqa: TID251

    tools = Tools(cluster, LiveServices(cluster.secret), EventRecorder(cluster, clock), clock)
    dispatcher = Dispatcher(tools)
    dispatcher.start(settings.max_concurrent_scans)
    older_tasks = asyncio.all_tasks()
    stop = asyncio.Event()
    operator = await kopf.spawn_tasks(
        registry=make_registry(dispatcher, settings),
        settings=make_kopf_settings(),
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        stop_flag=stop,
    )
    _on_signals(dispatcher, stop)  # after kopf has set its own
    problem = ""
    try:
        await kopf.run_tasks(operator, ignored=older_tasks)
    except Exception as error:  # noqa: BLE001 - whatever ended the watch: a CRD that was deleted, rights taken away
        problem = f": {error}"
    await dispatcher.leave(grace=GRACE.total_seconds())
    if not stop.is_set():
        raise ClusterError(f"the watch on the policies ended{problem}")
    await _let_go(cluster, settings)


def _on_signals(dispatcher: Dispatcher, stop: asyncio.Event) -> None:
    def leave(name: str) -> None:
        logger.info("%s: leaving; scans in flight finish their batch", name)
        dispatcher.request_stop()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave, number.name)


async def _let_go(cluster: Cluster, settings: Settings) -> None:
    """Take our finalizer off, so that policies can be deleted while no controller runs."""
    try:
        for namespace in settings.namespaces or (None,):
            async for manifest in cluster.policies(namespace):
                await cluster.remove_finalizer(manifest, FINALIZER)
    except (ApiException, *TRANSPORT_ERRORS) as error:
        logger.warning("the finalizer %s may be left on policies: %s", FINALIZER, explain(error))
