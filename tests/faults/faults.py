"""The faults, and the moments at which they begin."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web

from tests import proxy
from tests.faults.scenario import Part
from tests.proxy import Exchange, Proxy, Request, Rule, Treatment, everywhere

HTML = "<html><title>Welcome to nginx!</title></html>"


class Kind(StrEnum):
    """What a client of a service in injection sees."""

    REFUSED = "connection refused"
    RESET = "connection reset"
    SILENCE = "30 s of silence"
    RATE_LIMITED = "429 with Retry-After"
    STORM = "503 for half of all requests"
    CUT = "body cut short"
    HTML = "wrong content type"
    OUTAGE = "outage that outlasts all patience"
    """Of the API server: a scan's outcome cannot be kept at all."""


class Moment(StrEnum):
    """When a fault begins."""

    START = "from the start"
    MIDDLE = "in the middle"
    """After the first batch was created; of the API server, after the Secret was read."""
    WRITING = "in the answer to what it writes"
    """The service does what it is asked for: creates runs, replaces a status. It only does not come to tell."""


async def _reset_in_the_middle(exchange: Exchange) -> web.StreamResponse:
    await exchange.send_half(await exchange.pass_on())
    return exchange.reset()


def _half(treatment: Treatment, seed: str) -> Treatment:
    """A treatment for half of all requests, now this one and now that."""
    choose = random.Random(seed)

    async def treat(exchange: Exchange) -> web.StreamResponse:
        return await (treatment(exchange) if choose.random() < 0.5 else exchange.proceed())

    return treat


def treatment(kind: Kind, moment: Moment) -> Treatment:
    """How requests are treated during a fault; connections that are refused are no treatment."""
    plain: dict[Kind, Treatment] = {
        Kind.RESET: _reset_in_the_middle,
        Kind.SILENCE: proxy.silence,
        Kind.RATE_LIMITED: proxy.answer(429, {"message": "slowly"}, Retry_After="1"),
        Kind.STORM: proxy.answer(503, {"message": "busy"}),
        Kind.CUT: proxy.cut,
        Kind.HTML: proxy.answer(200, HTML, content_type="text/html"),
    }
    chosen = plain[kind]
    if moment is Moment.WRITING and kind not in {Kind.RESET, Kind.CUT}:
        chosen = proxy.once_done(chosen)
    return _half(chosen, f"{kind} {moment}") if kind is Kind.STORM else chosen


def creates(request: Request) -> bool:
    return request.path.endswith("/create_flow_run/bulk")


def reads_secret(request: Request) -> bool:
    return "/secrets/" in request.path


def writes_status(request: Request) -> bool:
    return request.method == "PUT" and request.path.endswith("/status")


REFUSALS = frozenset({Kind.REFUSED, Kind.OUTAGE})
"""Nobody listens any more: no treatment of requests, since none arrives."""


@dataclass(frozen=True)
class Fault:
    """A fault of one service; its name is the name of its test."""

    part: Part
    kind: Kind
    moment: Moment

    def __str__(self) -> str:
        return f"{self.part}: {self.kind} {self.moment}"

    @property
    def seconds(self) -> float:
        """How long it lasts at the API server; at a service it ends with the scan that it hits."""
        return {Kind.SILENCE: 30.0, Kind.OUTAGE: 75.0}.get(self.kind, 8.0)


class FaultInjection:
    """A fault that begins and ends. Everything in here happens in the proxies' loop."""

    def __init__(self, fault: Fault, proxies: Mapping[Part, Proxy]) -> None:
        self._fault, self._proxy = fault, proxies[fault.part]
        of_kubernetes = fault.part is Part.KUBERNETES
        self._first = proxies[Part.KUBERNETES if of_kubernetes else Part.PREFECT]
        self._sign = reads_secret if of_kubernetes else creates
        self._writes = writes_status if of_kubernetes else creates
        self._stopping: asyncio.Task[None] | None = None
        self._rule: Rule | None = None
        self._refused = False

    async def begin(self) -> None:
        """Begin now, or as soon as the moment has come."""
        if self._fault.moment is Moment.MIDDLE:
            self._first.treat(self._pass_on_and_set_in, self._sign, times=1)
        else:
            await self._set_in()

    async def _pass_on_and_set_in(self, exchange: Exchange) -> web.StreamResponse:
        answer = await exchange.pass_on()
        if self._fault.kind in REFUSALS and self._proxy is self._first:
            self._stopping = asyncio.create_task(self._set_in())  # which lets this answer go out
        else:
            await self._set_in()
        return answer

    async def _set_in(self) -> None:
        if self._fault.kind in REFUSALS:
            self._refused = True
            await self._proxy.stop()
            return
        where = self._writes if self._fault.moment is Moment.WRITING else everywhere
        self._rule = self._proxy.treat(treatment(self._fault.kind, self._fault.moment), where)
        if self._fault.moment is Moment.START:
            self._proxy.break_watches()

    @property
    def hit(self) -> bool:
        """Whether it has met a request, or would have refused its connection."""
        return self._refused or (self._rule is not None and self._rule.matched > 0)

    async def end(self) -> None:
        """Pass everything on again."""
        if self._refused:
            await self._proxy.start()
        self._first.heal()
        self._proxy.heal()
