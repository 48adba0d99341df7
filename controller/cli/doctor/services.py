"""What `doctor` asks of the services: Secret and keys, Supabase's table and bucket, Prefect up to its workers.

Each question returns what it saw and raises what is wrong with it; see `controller.cli.doctor.examination`. Reads only.
"""

import shlex
from collections.abc import Mapping
from typing import cast

from controller.adapters.clients import LiveServices
from controller.adapters.credentials import Secret, prefect_credentials, supabase_credentials
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
from controller.cli.doctor.examination import Examination, NotAskedError, needed
from controller.cli.errors import Failed
from controller.errors import ConfigurationError, ErrorReason, Service
from controller.schedule import Schedule
from controller.videos import columns_needed

NOWHERE = {
    Service.SUPABASE: {"SUPABASE_URL": "http://nowhere.invalid", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_none"},
    Service.PREFECT: {"PREFECT_API_URL": "http://nowhere.invalid"},
}
"""What stands in for what a Secret lacks of one service, so that the other can be asked; nobody is asked there."""


async def settings(it: Examination) -> str:
    """See whether settings are right that do not come from a cluster; most of that was seen when they were read."""
    source = needed(it.source, "the settings are in the cluster")
    it.policy, it.usable, spec = source.policy, set(Service), source.policy.spec
    it.clients = await it.stack.enter_async_context(source.services.connect(source.policy))
    Schedule(spec.schedule, spec.time_zone)
    return source.said


async def secret_and_keys(it: Examination) -> str:
    """See whether the Secret is there, with all its keys, and they can be right."""
    cluster, spec, namespace = it.the_cluster(), it.the_policy().spec, it.the_policy().namespace
    names = {Service.SUPABASE: spec.supabase.secret_ref.name, Service.PREFECT: spec.prefect.secret_ref.name}
    secrets: dict[Service, Secret] = {}
    problems: list[str] = []
    for service, name in names.items():
        try:
            secret = await cluster.secret(namespace, name)
            see_that_keys_can_be_right(service, secret)
            secrets[service] = secret
        except ConfigurationError as error:
            if error.reason is ErrorReason.SECRET_FORBIDDEN:
                raise NotAskedError(f"you may not read Secret {namespace}/{name}") from None
            problems.append(error.message)
    it.usable = set(secrets)
    it.clients = await it.stack.enter_async_context(_services(secrets).connect(it.the_policy()))
    if problems:
        raise Failed("; ".join(dict.fromkeys(problems)))
    places = " and ".join(dict.fromkeys(secret.place for secret in secrets.values()))
    return f"{places} has all keys"


def see_that_keys_can_be_right(service: Service, secret: Secret) -> None:
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


async def supabase_table(it: Examination) -> str:
    """See whether Supabase answers and has the table with its columns."""
    clients, spec = it.the_clients(Service.SUPABASE), it.the_policy().spec
    await clients.table.check()
    deleted = spec.supabase.columns.deleted_at
    columns = dict.fromkeys([*columns_needed(spec), *([deleted] if deleted else [])])
    return f"{spec.supabase.schema_name}.{spec.supabase.table} has the columns {', '.join(columns)}"


async def upload_bucket(it: Examination) -> str | None:
    """See whether the bucket is there, if the policy looks at uploads."""
    upload = it.policy.spec.upload if it.policy else None
    if upload is None:
        return None
    store = it.the_clients(Service.SUPABASE).store
    await needed(store, "nobody looks at uploads").check()
    return f"{upload.bucket} is there"


def _server(it: Examination) -> PrefectServer:
    return cast(PrefectServer, it.the_clients(Service.PREFECT).server)


async def prefect(it: Examination) -> str:
    """See whether Prefect answers, and is of a version that this program can talk to."""
    version = await version_of(_server(it).api)
    return f"version {version}" if version else "answers, and does not tell its version, as Prefect Cloud"


async def deployment(it: Examination) -> str:
    """See whether the deployment is there, is not paused, and takes the policy's parameters."""
    server, spec = _server(it), it.the_policy().spec.prefect
    found = await server.deployment()
    it.deployment = await server.api.look(f"/deployments/{found.id}")
    if found.not_ready is not None and found.not_ready_reason in {"DeploymentPaused", "DeploymentNotReady"}:
        raise Failed(found.not_ready)
    if problem := parameter_problem(spec, it.deployment):
        raise Failed(f"{spec.deployment}: {problem}")
    takes = " and takes the policy's parameters" if known_parameters(it.deployment) else ""
    return f"{spec.deployment} is there{takes}"


async def work_pool(it: Examination) -> str:
    """See whether the deployment's work pool and queue would hand out runs."""
    server, raw = _server(it), needed(it.deployment, "there is no deployment")
    name = raw.get("work_pool_name")
    if not isinstance(name, str):
        return "none: a process of its own serves the deployment"
    queue = it.the_policy().spec.prefect.work_queue or raw.get("work_queue_name")
    _, problem = await server.pool_not_ready(name, queue)
    if problem is not None:
        raise Failed(problem)
    return f"{name} is ready" + (f", with queue {queue}" if queue else "")


async def workers(it: Examination) -> str:
    """See whether a worker is there to start runs."""
    server, raw = _server(it), needed(it.deployment, "there is no deployment")
    name = raw.get("work_pool_name")
    if not isinstance(name, str):
        return "none needed: a process of its own serves the deployment"
    pool = await read_pool(server.api, name)
    if not pool.has_workers:
        return f"none needed: work pool {name} is of type {pool.kind}"
    return _of_workers(it, pool, await read_workers(server.api, pool))


def _of_workers(it: Examination, pool: Pool, found: list[Worker]) -> str:
    heard = next((each.last_heartbeat for each in found if each.last_heartbeat), None)
    last = f", the last sign of one {ago((_server(it).clock or it.now) - heard)}" if heard else ""
    online = sum(each.online for each in found)
    if not online:
        start = f"start one: prefect worker start --pool {shlex.quote(pool.name)}"
        raise Failed(f"none is online in work pool {pool.name}{last}; {start}")
    return f"{online} online in work pool {pool.name}{last}"
