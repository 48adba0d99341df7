"""The kopf handlers: they hand policies to the dispatcher and do nothing else.

A timer per policy looks at the clock; an event handler sees edits and requests at once. Neither writes to the resource
nor returns a value: kopf would patch the resource for that, and a timer whose patch fails never runs again. Kopf puts a
finalizer on whatever has a timer, so that a deletion waits until the timer was stopped. Here none is wanted: a policy
has to be deleted also where no controller runs.
"""

import dataclasses
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf
from kubernetes.aio import client

from controller.adapters.kubernetes.config import load_configuration
from controller.api.manifest import Manifest
from controller.api.names import GROUP, PLURAL, VERSION
from controller.operator.dispatcher import Dispatcher
from controller.operator.settings import TICK, Settings

LOGIN_LIFETIME = timedelta(minutes=5)
"""How long credentials are used before they are read again: Kubernetes replaces a Pod's token every hour or so."""

UNUSED_FINALIZER = f"{GROUP}/unused"
"""What kopf would call its finalizer. No policy has it, so kopf never has one to put on or to take off."""


def make_registry(
    dispatcher: Dispatcher, settings: Settings, see: Callable[[Manifest], Awaitable[None]]
) -> kopf.OperatorRegistry:
    """The handlers of one operator.

    Args:
        dispatcher: Is handed each policy at each tick and each event.
        settings: Where the cluster is.
        see: Is shown each policy whenever something about it changed; raises nothing.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        configuration = await load_configuration(settings.kubeconfig, settings.context)
        return await _connection(configuration, expiration=datetime.now(UTC) + LOGIN_LIFETIME)  # noqa: TID251

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def changed(event: kopf.RawEvent, **_: Any) -> None:
        manifest: Any = event["object"]
        metadata = manifest["metadata"]
        metadata.pop("managedFields", None)  # half of what kopf keeps of a policy, and nobody reads it
        if event["type"] == "DELETED":
            # By this mark kopf stops the timer. An object without finalizers is gone before it ever has it.
            metadata.setdefault("deletionTimestamp", metadata["creationTimestamp"])
        dispatcher.enqueue_if_due(manifest)
        await see(manifest)

    @kopf.timer(GROUP, VERSION, PLURAL, registry=registry, interval=TICK.total_seconds())
    async def tick(body: kopf.Body, **_: Any) -> None:
        dispatcher.enqueue_if_due(body)

    _do_without_finalizer(registry)
    return registry


def _do_without_finalizer(registry: kopf.OperatorRegistry) -> None:
    """Have kopf put no finalizer on policies; a private name, and so kopf is pinned and a test looks at it."""
    spawning = registry._spawning
    spawning._handlers[:] = [dataclasses.replace(each, requires_finalizer=False) for each in spawning._handlers]


def make_kopf_settings() -> kopf.OperatorSettings:
    """Kopf's settings, each for a reason."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False  # we post our own Events, which aggregate
    settings.peering.standalone = True  # peering is no leader election
    settings.scanning.disabled = True  # the resource is known: no watch on CRDs and namespaces, less RBAC
    settings.persistence.finalizer = UNUSED_FINALIZER
    settings.watching.server_timeout = 600  # a watch that hangs is noticed
    settings.watching.client_timeout = 630
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.queueing.worker_limit = 20  # else a start with 1,000 policies opens 1,000 connections at once
    settings.queueing.idle_timeout = 0.1  # and a worker makes room for the next policy
    return settings


async def _connection(configuration: client.Configuration, *, expiration: datetime) -> kopf.ConnectionInfo:
    header = configuration.get_api_key_with_prefix("BearerToken") or ""
    if not isinstance(header, str):
        header = await header or ""  # an exec plug-in or a cloud provider is asked for the token
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        ca_data=None if configuration.ssl_ca_cert else configuration.ca_cert_data,
        insecure=not configuration.verify_ssl,
        username=configuration.username or None,
        password=configuration.password or None,
        token=header.removeprefix("Bearer ").removeprefix("bearer ") or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        expiration=expiration,
    )
