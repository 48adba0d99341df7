"""What unit tests make up: rows, videos, flow runs and errors, a loopback server, a loop whose time jumps, a schema.

The services of a scan in memory are in `tests.world`.
"""

import asyncio
import json
import selectors
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import yaml

from controller.api.policy import Columns
from controller.errors import ErrorReason, Service, ServiceError
from controller.flow_runs import Deployment, FlowRun, Recovery, StateType, idempotency_key
from controller.videos import Video, read_rows

T = TypeVar("T")

NOW = datetime(2026, 3, 10, 12, 7, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
DEPLOYMENT = Deployment("deployment-1", "flow-1")


def row(video_id: object = "v1", *, age: timedelta = timedelta(hours=1), **columns: object) -> dict[str, object]:
    """A row of the table, created some time before `NOW`; keyword arguments replace columns."""
    return {
        "id": video_id,
        "status": "pending",
        "created_at": (NOW - age).isoformat(),
        "display_path": f"{video_id}.mp4",
        "tenant_id": "tenant",
        **columns,
    }


def video(video_id: object = "v1", *, age: timedelta = timedelta(hours=1), **columns: object) -> Video:
    """A video read from such a row."""
    [read], bad = read_rows([row(video_id, age=age, **columns)], Columns())
    assert not bad
    return read


def flow_run(
    video_id: str | None,
    state: str = "RUNNING",
    *,
    ended: timedelta | None = None,
    created: timedelta = timedelta(minutes=10),
    since: timedelta | None = None,
    run_id: str = "",
    attempt: int | None = None,
    tags: frozenset[str] = frozenset(),
) -> FlowRun:
    """A flow run; `ended`, `created` (before it ended) and `since` are how long before `NOW`.

    With an `attempt` it is a recovery of `DEPLOYMENT`'s flow.
    """
    return FlowRun(
        run_id or f"run-of-{video_id}-{state}-{ended}-{attempt}",
        "happy-fox",
        StateType(state),
        video_id,
        None if ended is None else NOW - ended,
        NOW - created - (ended or timedelta(0)),
        NOW - (created if since is None else since),
        idempotency_key(DEPLOYMENT.flow_id, video_id, attempt) if video_id and attempt else None,
        tags,
    )


def earlier(*runs: FlowRun) -> tuple[Recovery, ...]:
    """The earlier recoveries of a video, from their runs."""
    return tuple(Recovery(attempt, run) for attempt, run in enumerate(runs, 1))


def unavailable(service: Service = Service.PREFECT) -> ServiceError:
    """A service that failed this time."""
    return ServiceError(f"{service} answered 503: busy", reason=ErrorReason.SERVER_ERROR, service=service)


def raising(error: Exception) -> Callable[[], None]:
    """Something that happens in a world: a failure."""

    def fail() -> None:
        raise error

    return fail


# A server on the loopback interface that answers what it is told to


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What to send back; `cut` breaks the connection that many bytes before the end of the body."""

    body: object = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int = 0

    def encoded(self) -> bytes:
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": len(body), "Connection": "close"}
        lines = [f"HTTP/1.1 {self.status} As Told", *(f"{k}: {v}" for k, v in {**headers, **self.headers}.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body[: len(body) - self.cut]


Respond = Callable[[Asked], Answer]


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Run a server on the loopback interface; gives its port. Leaves no connection open, however a test ends."""
    connections: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            connections.add(task)
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def serving(respond: Respond) -> AsyncIterator[tuple[str, list[Asked]]]:
    """Run a server that answers what it is told to; gives its address and what it was asked."""
    requests: list[Asked] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            method, target, _ = head[0].split(" ")
            requests.append(Asked(method, target, headers, body))
            writer.write(respond(requests[-1]).encoded())
            await writer.drain()

    async with listening(serve) as port:
        yield f"http://127.0.0.1:{port}", requests


def in_turn(*answers: Answer) -> Respond:
    """Answer each request with the next answer, and with the last one for ever."""
    remaining = list(answers)
    return lambda _asked: remaining.pop(0) if len(remaining) > 1 else remaining[0]


# Time that jumps


class _Jumping(selectors.DefaultSelector):
    """Instead of waiting, lets time jump to when the wait would end."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = _Jumping()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def in_jumping_time(main: Callable[[], Awaitable[T]]) -> tuple[T, float]:
    """Run a coroutine that does no I/O in a loop that never waits; gives its result and the seconds it would take."""

    async def run() -> tuple[T, float]:
        return await main(), asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        return runner.run(run())


# What the CRD says of a status


CRD = yaml.safe_load((Path(__file__).parents[2] / "manifests" / "crd.yaml").read_text())
STATUS_SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]

_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def violations(schema: Mapping[str, Any], value: Any, path: str = "status") -> list[str]:
    """Where a value breaks a structural schema, or has what the API server would drop."""
    kind = _TYPES[schema["type"]]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return [f"{path}: no {schema['type']}"]
    return [f"{path}: {problem}" for problem in _own(schema, value)] + _inner(schema, value, path)


def _own(schema: Mapping[str, Any], value: Any) -> list[str]:
    problems = []
    if "enum" in schema and value not in schema["enum"]:
        problems.append(f"{value!r} is none of {schema['enum']}")
    problems += [
        f"{keyword} {schema[keyword]} exceeded by {len(value)}"
        for keyword in ("maxLength", "maxItems", "maxProperties")
        if keyword in schema and len(value) > schema[keyword]
    ]
    problems += [f"{name} is required" for name in schema.get("required", ()) if name not in value]
    if schema.get("format") == "date-time" and not datetime.fromisoformat(value).tzinfo:
        problems.append("no zone")
    return problems


def _inner(schema: Mapping[str, Any], value: Any, path: str) -> list[str]:
    if isinstance(value, list):
        return [
            problem for n, item in enumerate(value) for problem in violations(schema["items"], item, f"{path}[{n}]")
        ]
    if not isinstance(value, dict):
        return []
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    problems = []
    for key, item in value.items():
        inner = known.get(key, others)
        problems += violations(inner, item, f"{path}.{key}") if inner else [f"{path}.{key}: unknown"]
    return problems
