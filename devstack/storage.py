"""A stand-in for Supabase's Storage: `python -P storage.py CONFIG.json`.

It knows buckets, and which objects are complete in them, and answers as the real API (1.70) does where somebody asks
for that: a bucket's details, signed URLs for many paths at once, an object's details. It holds no files and has no
uploads: an upload in progress looks exactly like none. It stands behind the gateway, in a process of its own, and
imports nothing of this package.
"""

import argparse
import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web

CONTROL = "/_devstack"
MAX_PATHS = 1000

_MISSING = "Either the object does not exist or you do not have access to it"
_CREATED = "2026-01-01T00:00:00.000Z"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiError(Exception):
    """An error as Storage tells it: nearly always HTTP 400, and the real status as a text in the body."""

    def __init__(self, status: int, code: str, message: str, *, error: str = "", http: int = 400) -> None:
        super().__init__(message)
        self.http = http
        self.body = {"statusCode": str(status), "error": error or code, "message": message, "code": code}


class Storage:
    """Private buckets and their objects.

    `config` has `port` to listen on, `control` (the password of what is only for tests) and `jwt_secret`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._control: str = config["control"]
        self._secret: str = config["jwt_secret"]
        self._buckets: dict[str, set[str]] = {}

    def app(self) -> web.Application:
        """Return the web application."""
        app = web.Application(middlewares=[_errors])  # takes bodies of 1 MiB, as the real one
        app.router.add_get("/bucket/{bucket}", self._bucket)
        app.router.add_post("/object/sign/{bucket}", self._sign)
        app.router.add_get("/object/info/{bucket}/{path:.+}", self._info, allow_head=False)
        app.router.add_get(CONTROL, self._state)
        app.router.add_delete(CONTROL, self._clear)
        app.router.add_put(CONTROL + "/{bucket}", self._create)
        app.router.add_post(CONTROL + "/{bucket}", self._upload)
        return app

    async def _bucket(self, request: web.Request) -> web.Response:
        name = request.match_info["bucket"]
        if not self._sees_all(request) or name not in self._buckets:
            raise _no_bucket()
        details = {"id": name, "name": name, "owner": "", "public": False, "type": "STANDARD"}
        limits = {"file_size_limit": None, "allowed_mime_types": None}
        return web.json_response({**details, **limits, "created_at": _CREATED, "updated_at": _CREATED})

    async def _sign(self, request: web.Request) -> web.Response:
        sees_all = self._sees_all(request)
        name = request.match_info["bucket"]
        paths, seconds = await _asked(request)
        there = self._buckets.get(name, set()) if sees_all else set()
        return web.json_response(
            [
                {"error": None, "path": path, "signedURL": self._signed(f"{name}/{path}", seconds)}
                if path in there
                else {"error": _MISSING, "path": path, "signedURL": None}
                for path in paths
            ]
        )

    async def _info(self, request: web.Request) -> web.Response:
        name, path = request.match_info["bucket"], request.match_info["path"]
        try:
            sees_all = self._sees_all(request)
        except ApiError:
            raise _no_bucket() from None  # this route takes a wrong key for none
        if name not in self._buckets:
            raise _no_bucket()
        if not sees_all or path not in self._buckets[name]:
            raise ApiError(404, "NoSuchKey", "Object not found", error="not_found")
        identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{path}")
        return web.json_response(
            {
                "id": str(identity),
                "name": path,
                "version": str(identity),
                "bucket_id": name,
                "size": 1,
                "content_type": "video/mp4",
                "cache_control": "no-cache",
                "etag": f'"{identity.hex}"',
                "metadata": {},
                "last_modified": _CREATED,
                "created_at": _CREATED,
            }
        )

    def _sees_all(self, request: web.Request) -> bool:
        """Whether row level security, which has no policies here, lets the client see anything."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            claims = jwt.decode(token, self._secret, ["HS256"], options={"verify_aud": False})
        except jwt.ExpiredSignatureError:
            raise _denied('"exp" claim timestamp check failed') from None
        except jwt.InvalidSignatureError:
            raise _denied("signature verification failed") from None
        except jwt.PyJWTError:
            raise _denied("Invalid Compact JWS") from None
        return claims.get("role") == "service_role"

    def _signed(self, target: str, seconds: int) -> str:
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        token = jwt.encode({"url": target, "exp": expires}, self._secret, algorithm="HS256")
        return f"/object/sign/{target}?token={token}"

    async def _state(self, request: web.Request) -> web.Response:
        self._check_control(request)
        return web.json_response({name: len(paths) for name, paths in self._buckets.items()})

    async def _create(self, request: web.Request) -> web.Response:
        self._check_control(request)
        self._buckets.setdefault(request.match_info["bucket"], set())
        return web.Response(status=204)

    async def _upload(self, request: web.Request) -> web.Response:
        self._check_control(request)
        objects = self._buckets.get(request.match_info["bucket"])
        if objects is None:
            raise _no_bucket()
        objects.update(await request.json())
        return web.Response(status=204)

    async def _clear(self, request: web.Request) -> web.Response:
        self._check_control(request)
        self._buckets.clear()
        return web.Response(status=204)

    def _check_control(self, request: web.Request) -> None:
        if request.headers.get("X-Control") != self._control:
            raise web.HTTPForbidden


async def _asked(request: web.Request) -> tuple[list[str], int]:
    """Return the paths of a body and for how many seconds to sign them, written as a number or as a text."""
    try:
        body = json.loads(await request.text())
    except ValueError:
        raise _invalid("Body is not valid JSON but content-type is set to 'application/json'") from None
    if not isinstance(body, dict):
        raise _invalid("body must be object")
    for name in ("expiresIn", "paths"):
        if name not in body:
            raise _invalid(f"body must have required property '{name}'")
    return _paths(body["paths"]), _seconds(body["expiresIn"])


def _paths(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(path, str) for path in value):
        raise _invalid("body/paths must be array")
    if not value:
        raise _invalid("body/paths must NOT have fewer than 1 items")
    if len(value) > MAX_PATHS:
        raise _invalid(f"body/paths must NOT have more than {MAX_PATHS} items")
    return value


def _seconds(value: object) -> int:
    try:
        seconds = int(str(value))
    except ValueError:
        raise _invalid("body/expiresIn must be integer") from None
    if seconds < 1:
        raise _invalid("body/expiresIn must be >= 1")
    return seconds


def _no_bucket() -> ApiError:
    return ApiError(404, "NoSuchBucket", "Bucket not found", error="Bucket not found")


def _denied(why: str) -> ApiError:
    return ApiError(403, "AccessDenied", why, error="Unauthorized")


def _invalid(problem: str) -> ApiError:
    return ApiError(400, "InvalidRequest", problem, error="Error")


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        answer = error
    except web.HTTPRequestEntityTooLarge:
        answer = ApiError(413, "EntityTooLarge", "Request body is too large", error="FastifyError", http=413)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        message = f"Route {request.method}:{request.raw_path} not found"
        answer = ApiError(404, "InvalidRequest", message, error="Not Found", http=404)
    return web.json_response(answer.body, status=answer.http)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    config = json.loads(parser.parse_args().config.read_text())
    web.run_app(
        Storage(config).app(),
        host="127.0.0.1",
        port=config["port"],
        access_log=None,
        print=lambda *_: None,
        shutdown_timeout=0.2,
        keepalive_timeout=75,
    )


if __name__ == "__main__":
    main()
