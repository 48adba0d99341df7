"""A reverse proxy between the client under test and a real service: passes everything on, but for what a test asks for.

A `Rule` says which requests are treated otherwise, and a `Treatment` how: `answer`, `reset`, `lost`, `cut`, `silence`,
`held`, `before` and `once_done` (hooks) and `with_headers` make one. It listens on a port of its own in the event loop
that starts it. Watches of the Kubernetes API are passed on as they come.
"""

import asyncio
import gzip
import json
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from multidict import CIMultiDict
from yarl import URL

from devstack.ports import LOOPBACK, free_port

_NOT_FORWARDED = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}
_SECONDS = re.compile(r"(timeoutSeconds=)\d+")
_NO_LIMIT = ClientTimeout(total=None)  # the client's limits are what counts
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 s; closing then sends RST instead of FIN


@dataclass(frozen=True)
class Request:
    """What the client sent, and when by the loop's clock; `path` is without the query."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    time: float

    def json(self) -> Any:
        return json.loads(self.body) if self.body else None

    @property
    def is_watch(self) -> bool:
        """Whether the answer is a stream without an end."""
        return "watch=true" in self.query


class Exchange:
    """One request on its way, for a treatment to decide about."""

    def __init__(self, proxy: "Proxy", incoming: web.Request, request: Request) -> None:
        self._proxy, self._incoming, self.request = proxy, incoming, request

    async def pass_on(self, **headers: str) -> web.Response:
        """The service's own answer to the request, with these headers instead of the client's; of a watch, a second."""
        path = self._incoming.raw_path
        async with self._proxy.forward(_SECONDS.sub(r"\g<1>1", path), self.request, headers) as answer:
            return web.Response(status=answer.status, headers=_forwarded(answer.headers), body=await answer.read())

    async def proceed(self) -> web.StreamResponse:
        """What happens without any treatment."""
        if not self.request.is_watch:
            return await self.pass_on()
        self._proxy.watches.add(self)
        try:
            return await self._stream()
        finally:
            self._proxy.watches.discard(self)

    async def _stream(self) -> web.StreamResponse:
        async with self._proxy.forward(self._incoming.raw_path, self.request, {}) as answer:
            outgoing = web.StreamResponse(status=answer.status, headers=_forwarded(answer.headers))
            await outgoing.prepare(self._incoming)
            async for part in answer.content.iter_any():
                await outgoing.write(part)
            return outgoing

    def reset(self) -> web.Response:
        """Break the connection; what is returned is never sent."""
        transport = self._incoming.transport
        if transport is not None:  # the client may have left
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()
        return web.Response()

    async def until_healed(self) -> None:
        """Wait until the proxy passes everything on again."""
        await self._proxy.healed.wait()

    async def send_half(self, whole: web.Response) -> web.StreamResponse:
        """Announce a whole answer, send half of it and close the connection."""
        body = whole.body if isinstance(whole.body, bytes) else b""
        part = web.StreamResponse(status=whole.status, headers={"Content-Length": str(len(body))})
        part.content_type = whole.content_type
        await part.prepare(self._incoming)
        await part.write(body[: len(body) // 2])
        assert self._incoming.transport is not None
        self._incoming.transport.close()
        return part


Where = Callable[[Request], bool]
Treatment = Callable[[Exchange], Awaitable[web.StreamResponse]]


def _reserve() -> socket.socket:
    """A port for a proxy alone, also while it is down: this socket has it and never listens."""
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for _ in range(100):
        with suppress(OSError):  # somebody was quicker
            place.bind((LOOPBACK, free_port()))
            return place
    raise AssertionError("no port is free for long enough to be taken")


def everywhere(_: Request) -> bool:
    return True


def at(fragment: str) -> Where:
    """Requests whose path contains this."""
    return lambda request: fragment in request.path


@dataclass
class Rule:
    """Treats matching requests otherwise: `times` of them, or all, after the first `after` ones."""

    treatment: Treatment
    where: Where
    after: int
    times: int | None
    matched: int = field(default=0, init=False)

    def takes(self, request: Request) -> bool:
        if not self.where(request):
            return False
        self.matched += 1
        return self.after < self.matched and (self.times is None or self.matched <= self.after + self.times)


class Proxy:
    """A running proxy; `requests` are all that came, in order, whatever became of them."""

    def __init__(self, upstream: str, session: ClientSession) -> None:
        self.requests: list[Request] = []
        self.healed = asyncio.Event()
        self._upstream, self._session = upstream, session
        self._rules: list[Rule] = []
        self.watches: set[Exchange] = set()
        self._runner: web.AppRunner | None = None
        self._place = _reserve()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._place.getsockname()[1]}"

    def treat(
        self, treatment: Treatment, where: Where = everywhere, *, after: int = 0, times: int | None = None
    ) -> Rule:
        """Treat requests otherwise from now on; the first rule that takes a request has it."""
        rule = Rule(treatment, where, after, times)
        self._rules.append(rule)
        self.healed.clear()
        return rule

    def heal(self) -> None:
        """Pass everything on again."""
        self._rules.clear()
        self.healed.set()

    def break_watches(self) -> None:
        """Break the connections of all watches."""
        for watch in self.watches:
            watch.reset()

    def count(self, where: Where) -> int:
        """How many of the requests so far match."""
        return sum(map(where, self.requests))

    @asynccontextmanager
    async def down(self) -> AsyncIterator[None]:
        """Refuse connections for a while."""
        await self.stop()
        try:
            yield
        finally:
            await self.start()

    async def start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._place.getsockname(), reuse_address=True).start()

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def close(self) -> None:
        """Stop for good."""
        await self.stop()
        self._place.close()

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        request = Request(
            incoming.method,
            incoming.path,
            incoming.query_string,
            incoming.headers.copy(),
            await incoming.read(),
            asyncio.get_running_loop().time(),
        )
        self.requests.append(request)
        exchange = Exchange(self, incoming, request)
        for rule in self._rules:
            if rule.takes(request):
                return await rule.treatment(exchange)
        return await exchange.proceed()

    def forward(
        self, raw_path: str, request: Request, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[ClientResponse]:
        kept = _forwarded(request.headers)
        kept.update(headers)
        url = URL(self._upstream + raw_path, encoded=True)
        return self._session.request(
            request.method, url, headers=kept, data=request.body or None, allow_redirects=False
        )


def _forwarded(headers: Mapping[str, str]) -> "CIMultiDict[str]":
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _NOT_FORWARDED)


@asynccontextmanager
async def serve(upstream: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """A proxy in front of a service, whose address has no path; itself it speaks plain HTTP."""
    connector = TCPConnector(ssl=tls or True, limit=0)
    async with ClientSession(
        connector=connector, cookie_jar=DummyCookieJar(), auto_decompress=False, timeout=_NO_LIMIT
    ) as session:
        proxy = Proxy(upstream, session)
        await proxy.start()
        try:
            yield proxy
        finally:
            await proxy.close()


def answer(status: int, body: object = "", *, content_type: str = "application/json", **headers: str) -> Treatment:
    """Answer in the service's place; a body that is no text is sent as JSON. `Retry_After="1"` is a header."""
    text = body if isinstance(body, str) else json.dumps(body)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}

    async def treat(_: Exchange) -> web.Response:
        return web.Response(status=status, text=text, content_type=content_type, headers=sent)

    return treat


async def no_gzip(_: Exchange) -> web.Response:
    """Answer with a body that says it is compressed, and breaks off in it."""
    return web.Response(body=gzip.compress(b"[]")[:-6] + b"broken", headers={"Content-Encoding": "gzip"})


async def reset(exchange: Exchange) -> web.Response:
    """Break the connection before the service hears of the request."""
    return exchange.reset()


async def lost(exchange: Exchange) -> web.Response:
    """Let the service do it, and break the connection instead of answering."""
    await exchange.pass_on()
    return exchange.reset()


async def cut(exchange: Exchange) -> web.StreamResponse:
    """Let the service do it, and send half of its answer."""
    return await exchange.send_half(await exchange.pass_on())


async def held(exchange: Exchange) -> web.StreamResponse:
    """Keep the request until the proxy is healed, and pass it on then."""
    await exchange.until_healed()
    return await exchange.proceed()


async def silence(exchange: Exchange) -> web.Response:
    """Say nothing, and break the connection when the proxy is healed."""
    await exchange.until_healed()
    return exchange.reset()


class Crowd:
    """Counts the requests that are at a proxy at the same time, each of which it keeps for a moment."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def __call__(self, exchange: Exchange) -> web.StreamResponse:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.02)
            return await exchange.proceed()
        finally:
            self.now -= 1


def before(action: Callable[[], object]) -> Treatment:
    """Do something, such as change the database, and then pass the request on."""

    async def treat(exchange: Exchange) -> web.Response:
        action()
        return await exchange.pass_on()

    return treat


def once_done(treatment: Treatment) -> Treatment:
    """Let the service do it, and then treat its answer as if it had not."""

    async def treat(exchange: Exchange) -> web.StreamResponse:
        await exchange.pass_on()
        return await treatment(exchange)

    return treat


def with_headers(**headers: str) -> Treatment:
    """Pass the request on with other headers than the client sent."""

    async def treat(exchange: Exchange) -> web.Response:
        return await exchange.pass_on(**headers)

    return treat
