"""What `doctor` asks of the services: Secret and keys, Supabase's table and bucket, Prefect up to its workers.

Each check returns what it saw and raises what is wrong; see `controller.cli.doctor.context`. Reads only.
"""

import shlex
from collections.abc import Mapping
from typing import cast

from controller.adapters.clients import LiveServices
from controller.adapters.credentials import Secret, prefect_credentials, supabase_credentials
from controller.adapters.kubernetes.secrets import ClusterSecrets
from controller.adapters.prefect.health import (
    Pool,
    Worker,
    known_parameters,
    parameter_problem,
    read_pool,
    read_workers,
    version_of,
)
from controller.adapters.prefect.server import PrefectServer
from controller.cli.console import ago
from controller.cli.doctor.context import CheckSkippedError, DoctorContext, require
from controller.cli.errors import Failed
from controller.errors import ConfigurationError, ErrorReason, Service
from controller.schedule import Schedule
from controller.videos import columns_needed

NOWHERE = {
    Service.SUPABASE: {"SUPABASE_URL": "http://nowhere.invalid", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_none"},
    Service.PREFECT: {"PREFECT_API_URL": "http://nowhere.invalid"},
}
"""What stands in for what a Secret lacks of one service, so that the other can be asked; nobody is asked there."""


async def settings(context: DoctorContext) -> str:
    """Check whether settings are right that do not come from a cluster; most of that was seen when they were read."""
    source = require(context.source, "the settings are in the cluster")
    context.policy, context.usable, spec = source.policy, set(Service), source.policy.spec
    context.clients = await context.stack.enter_async_context(source.services.connect(source.policy))
    Schedule(spec.schedule, spec.time_zone)
    return source.description


async def secret_and_keys(context: DoctorContext) -> str:
    """Check whether the Secret is there, with all its keys, and they can be right."""
    cluster, spec, namespace = (
        context.require_cluster(),
        context.require_policy().spec,
        context.require_policy().namespace,
    )
    names = {Service.SUPABASE: spec.supabase.secret_ref.name, Service.PREFECT: spec.prefect.secret_ref.name}
    secrets: dict[Service, Secret] = {}
    problems: list[str] = []
    for service, name in names.items():
        try:
            secret = await ClusterSecrets(cluster)(namespace, name)
            validate_keys(service, secret)
            secrets[service] = secret
        except ConfigurationError as error:
            if error.reason is ErrorReason.SECRET_FORBIDDEN:
                raise CheckSkippedError(f"you may not read Secret {namespace}/{name}") from None
            problems.append(error.message)
    context.usable = set(secrets)
    context.clients = await context.stack.enter_async_context(_services(secrets).connect(context.require_policy()))
    if problems:
        raise Failed("; ".join(dict.fromkeys(problems)))
    places = " and ".join(dict.fromkeys(secret.place for secret in secrets.values()))
    return f"{places} has all keys"


def validate_keys(service: Service, secret: Secret) -> None:
    """Raises `ConfigurationError` if a key of a service is missing or cannot be right."""
    if service is Service.SUPABASE:
        supabase_credentials(secret)
    else:
        prefect_credentials(secret)


def _services(secrets: Mapping[Service, Secret]) -> LiveServices:
    """The way to those services whose keys are known."""
    values: dict[str, str] = {}
    for service, nowhere in NOWHERE.items():
        known = secrets[service].values if service in secrets else nowhere
        values |= {key: value for key, value in known.items() if key.startswith(f"{service.name}_")}

    async def read_secret(_namespace: str, _name: str) -> Secret:
        return Secret("the Secret", values)

    return LiveServices(read_secret)


async def supabase_table(context: DoctorContext) -> str:
    """Check whether Supabase answers and has the table with its columns."""
    clients, spec = context.require_clients(Service.SUPABASE), context.require_policy().spec
    await clients.table.check()
    deleted = spec.supabase.columns.deleted_at
    columns = dict.fromkeys([*columns_needed(spec), *([deleted] if deleted else [])])
    return f"{spec.supabase.schema_name}.{spec.supabase.table} has the columns {', '.join(columns)}"


async def upload_bucket(context: DoctorContext) -> str | None:
    """Check whether the bucket is there, if the policy looks at uploads."""
    upload = context.policy.spec.upload if context.policy else None
    if upload is None:
        return None
    store = context.require_clients(Service.SUPABASE).store
    await require(store, "nobody looks at uploads").check()
    return f"{upload.bucket} is there"


def _server(context: DoctorContext) -> PrefectServer:
    return cast(PrefectServer, context.require_clients(Service.PREFECT).server)


async def prefect(context: DoctorContext) -> str:
    """Check whether Prefect answers, and is of a version that this program can talk to."""
    version = await version_of(_server(context).api)
    return f"version {version}" if version else "answers, and does not tell its version, as Prefect Cloud"


async def deployment(context: DoctorContext) -> str:
    """Check whether the deployment is there, is not paused, and takes the policy's parameters."""
    server, spec = _server(context), context.require_policy().spec.prefect
    found = await server.deployment()
    context.deployment = await server.api.get_object(f"/deployments/{found.id}")
    if found.not_ready is not None and found.not_ready_reason in {"DeploymentPaused", "DeploymentNotReady"}:
        raise Failed(found.not_ready)
    if problem := parameter_problem(spec, context.deployment):
        raise Failed(f"{spec.deployment}: {problem}")
    takes = " and takes the policy's parameters" if known_parameters(context.deployment) else ""
    return f"{spec.deployment} is there{takes}"


async def work_pool(context: DoctorContext) -> str:
    """Check whether the deployment's work pool and queue would hand out runs."""
    server, raw = _server(context), require(context.deployment, "there is no deployment")
    name = raw.get("work_pool_name")
    if not isinstance(name, str):
        return "none: a process of its own serves the deployment"
    queue = context.require_policy().spec.prefect.work_queue or raw.get("work_queue_name")
    _, problem = await server.pool_not_ready(name, queue)
    if problem is not None:
        raise Failed(problem)
    return f"{name} is ready" + (f", with queue {queue}" if queue else "")


async def workers(context: DoctorContext) -> str:
    """Check whether a worker is there to start runs."""
    server, raw = _server(context), require(context.deployment, "there is no deployment")
    name = raw.get("work_pool_name")
    if not isinstance(name, str):
        return "none needed: a process of its own serves the deployment"
    pool = await read_pool(server.api, name)
    if not pool.has_workers:
        return f"none needed: work pool {name} is of type {pool.kind}"
    return _of_workers(context, pool, await read_workers(server.api, pool))


def _of_workers(context: DoctorContext, pool: Pool, found: list[Worker]) -> str:
    heard = next((each.last_heartbeat for each in found if each.last_heartbeat), None)
    last = f", the last sign of one {ago((_server(context).clock or context.now) - heard)}" if heard else ""
    online = sum(each.online for each in found)
    if not online:
        start = f"start one: prefect worker start --pool {shlex.quote(pool.name)}"
        raise Failed(f"none is online in work pool {pool.name}{last}; {start}")
    return f"{online} online in work pool {pool.name}{last}"
