"""The gateway in front of PostgREST and Storage, as on hosted Supabase: `python -P gateway.py CONFIG.json`.

It checks API keys, says which role a request has, serves PostgREST below `/rest/v1/` and Storage below `/storage/v1/`,
and remembers every request. It runs in a process of its own, so that it takes no time from a program under test, and
imports nothing of this package.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, DummyCookieJar, TCPConnector, web
from multidict import CIMultiDict
from yarl import URL

REST = "/rest/v1"
STORAGE = "/storage/v1"
CONTROL = "/_devstack/requests"

_NOT_FORWARDED = {
    *("connection", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "upgrade"),
    *("transfer-encoding", "content-length", "host", "apikey", "authorization"),
}
_NO_KEY = ("No API key found in request", "No `apikey` request header or url param was found.")
_BAD_KEY = ("Invalid API key", "Double check your Supabase `anon` or `service_role` API key.")


class RefusedError(Exception):
    """A request without a right to be forwarded."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class Gateway:
    """The services behind API keys.

    `config` has `port` to listen on, `upstreams` (the services' URLs by the path that leads to them), `control` (the
    password of the request log) and `keys`: by API key the JWT that a service gets for it, or null for a legacy key,
    which is a JWT itself.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._upstreams: dict[str, str] = config["upstreams"]
        self._control: str = config["control"]
        self._keys: dict[str, str | None] = config["keys"]
        self._requests: list[dict[str, str | int]] = []
        self._session: ClientSession | None = None

    def app(self) -> web.Application:
        """Return the web application."""
        app = web.Application(client_max_size=2**30)
        app.router.add_get(CONTROL, self._show)
        app.router.add_delete(CONTROL, self._forget)
        app.router.add_route("*", "/{path:.*}", self._handle)
        app.on_startup.append(self._open)
        app.on_cleanup.append(self._close)
        return app

    async def _open(self, _: web.Application) -> None:
        self._session = ClientSession(
            connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar(), auto_decompress=False
        )

    async def _close(self, _: web.Application) -> None:
        if self._session is not None:
            await self._session.close()

    async def _show(self, request: web.Request) -> web.Response:
        self._check_control(request)
        return web.json_response(self._requests)

    async def _forget(self, request: web.Request) -> web.Response:
        self._check_control(request)
        self._requests.clear()
        return web.Response(status=204)

    def _check_control(self, request: web.Request) -> None:
        if request.headers.get("X-Control") != self._control:
            raise web.HTTPForbidden

    async def _handle(self, request: web.Request) -> web.Response:
        try:
            authorization = self._authorization(request)
        except RefusedError as refused:
            answer = _json(401, message=refused.message, hint=refused.hint)
        else:
            answer = await self._route(request, authorization)
        self._requests.append(
            {
                "method": request.method,
                "path": request.path,
                "query": request.query_string,
                "status": answer.status,
            }
        )
        return answer

    def _authorization(self, request: web.Request) -> str | None:
        """Return the Authorization header for a service: the client's own, or the one that its API key stands for."""
        if _leads_to(STORAGE, request):
            return self._unchecked(request)
        key = request.headers.get("apikey") or request.query.get("apikey")
        if not key:
            raise RefusedError(*_NO_KEY)
        if key not in self._keys:
            raise RefusedError(*_BAD_KEY)
        given = request.headers.get("Authorization")
        if given is not None and given.removeprefix("Bearer ").startswith("sb_"):
            raise RefusedError(*_BAD_KEY)  # the new keys are no JWT
        minted = self._keys[key]
        return given or (f"Bearer {minted}" if minted else None)

    def _unchecked(self, request: web.Request) -> str | None:
        """Return the header for Storage, which gets every request and judges its key itself."""
        given = request.headers.get("Authorization")
        if given is not None and not given.startswith("Bearer sb_"):
            return given
        key = request.headers.get("apikey", "")
        minted = self._keys.get(key)
        return f"Bearer {minted}" if minted else key or None

    async def _route(self, request: web.Request, authorization: str | None) -> web.Response:
        prefix = next((prefix for prefix in self._upstreams if _leads_to(prefix, request)), None)
        if prefix is None:
            return _json(404, message="no Route matched with those values")
        try:
            return await self._forward(request, prefix, authorization)
        except (ClientError, TimeoutError):
            return _json(502, message="An invalid response was received from the upstream server")

    async def _forward(self, request: web.Request, prefix: str, authorization: str | None) -> web.Response:
        assert self._session is not None
        headers = CIMultiDict((k, v) for k, v in request.headers.items() if k.lower() not in _NOT_FORWARDED)
        if authorization:
            headers["Authorization"] = authorization
        async with self._session.request(
            request.method,
            URL(self._upstreams[prefix] + _upstream_path(request, prefix), encoded=True),
            headers=headers,
            data=await request.read() if request.can_read_body else None,
            allow_redirects=False,
        ) as answer:
            kept = CIMultiDict((k, v) for k, v in answer.headers.items() if k.lower() not in _NOT_FORWARDED)
            return web.Response(status=answer.status, headers=kept, body=await answer.read())


def _leads_to(prefix: str, request: web.Request) -> bool:
    return request.path == prefix or request.path.startswith(f"{prefix}/")


def _upstream_path(request: web.Request, prefix: str) -> str:
    """Return path and query as the client wrote them, below the service's own root and without an API key."""
    path, _, query = request.raw_path.partition("?")
    rest = "&".join(part for part in query.split("&") if not part.startswith("apikey="))
    return (path.removeprefix(prefix) or "/") + (f"?{rest}" if rest else "")


def _json(status: int, **body: str) -> web.Response:
    return web.json_response(body, status=status)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    config = json.loads(parser.parse_args().config.read_text())
    web.run_app(
        Gateway(config).app(),
        host="127.0.0.1",
        port=config["port"],
        access_log=None,
        print=lambda *_: None,
        shutdown_timeout=0.2,
        keepalive_timeout=75,
    )


if __name__ == "__main__":
    main()
