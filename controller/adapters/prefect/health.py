"""Prefect, for somebody who looks for what is wrong: version, parameters, pools, workers. Changes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

import httpx

from controller.adapters.http import HttpError
from controller.adapters.prefect.api import Json, PrefectApi
from controller.api.policy import Prefect
from controller.errors import ConfigurationError, ErrorReason, Service

MAJOR = "3"
"""The major version of Prefect whose API this program speaks."""

WITHOUT_WORKERS = (":push", ":managed")
"""How the types of those work pools end whose runs no worker starts."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A work pool."""

    name: str
    kind: str

    @property
    def has_workers(self) -> bool:
        """Whether runs of the pool need a worker."""
        return not self.kind.endswith(WITHOUT_WORKERS)


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that polls a work pool."""

    name: str
    online: bool
    last_heartbeat: datetime | None


async def version_of(api: PrefectApi) -> str | None:
    """The server's version; `None` if it answers and does not tell, as Prefect Cloud.

    Raises:
        ConfigurationError: It is none that this program can talk to.
        ServiceError: It does not answer, or it is no Prefect.
    """
    try:
        answer = await api.ask("/admin/version")
    except HttpError as error:
        if error.status not in {httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED}:
            raise api.service.refused(error) from None
        await _ask(api, "/deployments/count")
        return None
    if not isinstance(answer, str) or not answer[:1].isdecimal():
        raise api.service.unexpected(f"{answer} as its version")
    if answer.partition(".")[0] != MAJOR:
        raise ConfigurationError(
            f"Prefect is version {api.service.clean(answer)}, and only Prefect {MAJOR} has the API that is needed",
            "upgrade the server",
            reason=ErrorReason.UNEXPECTED_ANSWER,
            service=Service.PREFECT,
        )
    return api.service.clean(answer)


def known_parameters(deployment: Json) -> set[str] | None:
    """The parameters of the deployment's flow; `None` if nobody checks those of its runs."""
    known = _schema(deployment).get("properties") if deployment.get("enforce_parameter_schema") else None
    return set(known) if isinstance(known, Mapping) else None


def _schema(deployment: Json) -> Json:
    schema = deployment.get("parameter_openapi_schema")
    return schema if isinstance(schema, Mapping) else {}


def parameter_problem(prefect: Prefect, deployment: Json) -> str | None:
    """What the deployment's flow has against the policy's parameters; `None` if nothing, or if nobody checks them.

    Args:
        prefect: The policy's parameters.
        deployment: As Prefect has it, with the schema of its flow's parameters and its own values for some of them.
    """
    schema, known = _schema(deployment), known_parameters(deployment)
    if known is None:
        return None
    needed, filled = schema.get("required"), deployment.get("parameters")
    given = {*prefect.parameters, *(filled if isinstance(filled, Mapping) else ())}
    missing = sorted(str(name) for name in needed if name not in given) if isinstance(needed, list) else []
    unknown = [] if schema.get("additionalProperties") else sorted(set(prefect.parameters) - known)
    problems = [f"the flow needs {' and '.join(missing)}"] if missing else []
    problems += [f"the flow has no parameter {' and no '.join(unknown)}"] if unknown else []
    if not problems:
        return None
    return f"spec.prefect.parameters: {', and '.join(problems)}; write those it takes: {', '.join(sorted(known))}"


async def read_pool(api: PrefectApi, name: str) -> Pool:
    """A work pool; raises `ServiceError`."""
    return Pool(name, api.text(await api.get_object(f"/work_pools/{quote(name, safe='')}"), "type"))


async def read_workers(api: PrefectApi, pool: Pool) -> list[Worker]:
    """The workers of a pool, those that gave a sign of life last in front; raises `ServiceError`."""
    answer = await _ask(api, f"/work_pools/{quote(pool.name, safe='')}/workers/filter")
    if not isinstance(answer, list) or not all(isinstance(each, Mapping) for each in answer):
        raise api.service.unexpected(str(answer))
    return [
        Worker(api.text(each, "name"), each.get("status") == "ONLINE", api.time(each, "last_heartbeat_time"))
        for each in answer
    ]


async def _ask(api: PrefectApi, path: str) -> object:
    """The answer to a question that Prefect wants posted."""
    try:
        return await api.service.send(lambda: api.post(path, {}))
    except HttpError as error:
        raise api.service.refused(error) from None
