"""Supabase as its hosted form answers: PostgreSQL, PostgREST, a stand-in for Storage, and a gateway that knows keys."""

import json
import secrets
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import jwt

from devstack import gateway, storage
from devstack.errors import Broken
from devstack.ports import LOOPBACK, on_free_ports
from devstack.postgres import Postgres
from devstack.postgrest import postgrest_program, serve_postgrest
from devstack.process import Child
from devstack.workdir import part_directory, write_private

SCHEMAS = ("public", "captionacc")
VIDEOS = ("captionacc", "videos")
_HERE = Path(__file__).parent
_KEY_SECONDS = 10 * 365 * 24 * 3600
_MINTED_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Request:
    """A request that the gateway answered; `path`, with `/rest/v1/` or `/storage/v1/`, and `query` are decoded."""

    method: str
    path: str
    query: str
    status: int


class Supabase:
    """A running Supabase with the schemas `public` and `captionacc`, and the table `captionacc.videos`; no bucket yet.

    `service_role_key` and `anon_key` are legacy keys (JWTs), `secret_key` and `publishable_key` new ones.
    """

    def __init__(self, postgres: Postgres, schemas: Sequence[str]) -> None:
        self.postgres = postgres
        self.schemas = tuple(schemas)
        self.url = ""
        self.jwt_secret = secrets.token_urlsafe(32)
        self.anon_key = self.token("anon")
        self.service_role_key = self.token("service_role")
        self.secret_key = f"sb_secret_{secrets.token_urlsafe(24)}"
        self.publishable_key = f"sb_publishable_{secrets.token_urlsafe(24)}"
        self._control = secrets.token_urlsafe(16)
        self._upstream = ""
        self._storage = ""
        self._http = httpx.Client(trust_env=False, headers={"X-Control": self._control})

    @classmethod
    @contextmanager
    def start(
        cls,
        workdir: Path | None = None,
        *,
        max_rows: int = 1000,
        schemas: Sequence[str] = SCHEMAS,
        videos: bool = True,
    ) -> Iterator["Supabase"]:
        """Start everything with an empty database.

        Any answer is cut after `max_rows` rows, without an error. The first of `schemas` is the default one. Without
        `videos` there is no table at all.

        Raises:
            Unavailable: a part cannot be had here.
            Broken: a part did not start.
        """
        postgrest_program()  # before anything runs: the first time it is fetched
        with ExitStack() as stack:
            directory = stack.enter_context(part_directory(workdir, "supabase"))
            postgres = stack.enter_context(Postgres.start(directory))
            supabase = cls(postgres, schemas)
            stack.callback(supabase._http.close)
            supabase._serve(stack, directory, max_rows=max_rows, videos=videos)
            yield supabase

    def _serve(self, stack: ExitStack, directory: Path, *, max_rows: int, videos: bool) -> None:
        password = secrets.token_urlsafe(16)
        self._prepare(password, videos=videos)
        self._upstream = stack.enter_context(
            serve_postgrest(
                directory,
                self.postgres.dsn_of("authenticator", password),
                schemas=self.schemas,
                max_rows=max_rows,
                jwt_secret=self.jwt_secret,
            )
        )
        stack.callback(on_free_ports(lambda port: self._start_storage(port, directory)).stop)
        stack.callback(on_free_ports(lambda port: self._start_gateway(port, directory)).stop)

    def token(self, role: str, *, expires_in: float = _KEY_SECONDS, **claims: Any) -> str:
        """Return a JWT of `role`, signed with this instance's secret, that runs out in `expires_in` seconds."""
        now = int(time.time())
        body = {"iss": "supabase", "role": role, "iat": now, "exp": now + int(expires_in), **claims}
        return jwt.encode(body, self.jwt_secret, algorithm="HS256")

    def env(self, key: str | None = None) -> dict[str, str]:
        """Return `SUPABASE_URL` and `SUPABASE_SERVICE_ROLE_KEY`: the legacy key, or `key`."""
        return {"SUPABASE_URL": self.url, "SUPABASE_SERVICE_ROLE_KEY": key or self.service_role_key}

    @property
    def requests(self) -> list[Request]:
        """All requests since the start or the last reset, in the order in which they were answered."""
        return [Request(**row) for row in self._ask("GET").json()]

    def reset_requests(self) -> None:
        """Forget the requests so far."""
        self._ask("DELETE")

    def execute(self, statement: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> int:
        """Run SQL as the superuser; return the number of its rows. See `Postgres.execute`."""
        return self.postgres.execute(statement, params)

    def query(self, statement: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run one SQL statement as the superuser and return its rows, each a dict by column name."""
        return self.postgres.query(statement, params)

    def insert_videos(self, videos: Sequence[Mapping[str, Any]]) -> list[str]:
        """Insert rows into `captionacc.videos`, with defaults for what they leave out; return their ids in order."""
        rows = [{"id": str(uuid.uuid4()), **video} for video in videos]
        self.insert(*VIDEOS, rows)
        return [str(row["id"]) for row in rows]

    def insert(self, schema: str, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows into any table; names may be as odd as SQL allows."""
        by_columns: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in rows:
            by_columns.setdefault(tuple(row), []).append(dict(row))
        target = _quoted(schema, table)
        for columns, group in by_columns.items():
            names = ", ".join(_quoted(column) for column in columns)
            insert = f"insert into {target} ({names}) select {names} from jsonb_populate_recordset(null::{target}, "
            self.execute(insert.replace("%", "%%") + "%s::jsonb)", [json.dumps(group, default=str)])

    def create_bucket(self, name: str) -> None:
        """Create an empty private bucket, if it is not there."""
        self._ask_storage("PUT", name)

    def upload(self, bucket: str, path: str) -> None:
        """Let a file be there, complete, at a path of a bucket; any path, also one that the real Storage refuses."""
        self.upload_many(bucket, [path])

    def upload_many(self, bucket: str, paths: Sequence[str]) -> None:
        """Let files be there, complete, at the paths of a bucket."""
        for start in range(0, len(paths), storage.MAX_PATHS):
            self._ask_storage("POST", bucket, list(paths[start : start + storage.MAX_PATHS]))

    def clear_storage(self) -> None:
        """Remove all files and buckets."""
        self._ask_storage("DELETE")

    def create_table(self, schema: str, table: str, columns: Mapping[str, str]) -> None:
        """Create a table (column name to SQL type and constraints), and wait until PostgREST serves it."""
        definitions = ", ".join(f"{_quoted(name)} {kind}" for name, kind in columns.items())
        self.execute(f"create table {_quoted(schema, table)} ({definitions})")
        self.reload_schema()

    def reload_schema(self, timeout: float = 120) -> None:
        """Make PostgREST read the database's schema again, and wait until it did, at most `timeout` seconds."""
        marker = f"devstack_{secrets.token_hex(8)}"
        schema = self.schemas[0]
        self.execute(f'create function "{schema}"."{marker}"() returns int language sql return 1')
        self.execute("notify pgrst, 'reload schema'")
        deadline = time.monotonic() + timeout
        try:
            while self._upstream_get(f"/rpc/{marker}") != httpx.codes.OK:
                if time.monotonic() > deadline:
                    raise Broken(f"PostgREST did not read the schema again within {timeout} s")
                time.sleep(0.01)
        finally:
            self.execute(f'drop function "{schema}"."{marker}"')

    def _upstream_get(self, path: str) -> int:
        headers = {"Authorization": f"Bearer {self.service_role_key}"}
        return self._http.get(self._upstream + path, headers=headers).status_code

    def _prepare(self, password: str, *, videos: bool) -> None:
        roles = (_HERE / "supabase.sql").read_text()
        self.execute(roles.replace("{password}", password).replace("{schemas}", ",".join(self.schemas)))
        if videos:
            self.execute((_HERE / "videos.sql").read_text())

    def _start_storage(self, port: int, directory: Path) -> Child:
        settings = {"port": port, "control": self._control, "jwt_secret": self.jwt_secret}
        config = write_private(directory / "storage.json", json.dumps(settings))
        self._storage = f"http://{LOOPBACK}:{port}"
        return Child.start(
            "the Storage stand-in",
            [sys.executable, "-P", storage.__file__, config],
            log=directory / "storage.log",
            ready=lambda: self._ask_storage("GET").is_success,
        )

    def _start_gateway(self, port: int, directory: Path) -> Child:
        keys = {
            self.anon_key: None,
            self.service_role_key: None,
            self.publishable_key: self.token("anon", expires_in=_MINTED_SECONDS),
            self.secret_key: self.token("service_role", expires_in=_MINTED_SECONDS),
        }
        upstreams = {gateway.REST: self._upstream, gateway.STORAGE: self._storage}
        settings = {"port": port, "upstreams": upstreams, "control": self._control, "keys": keys}
        config = write_private(directory / "gateway.json", json.dumps(settings))
        self.url = f"http://{LOOPBACK}:{port}"
        return Child.start(
            "the Supabase gateway",
            [sys.executable, "-P", gateway.__file__, config],
            log=directory / "gateway.log",
            ready=lambda: self._ask("GET").is_success,
        )

    def _ask(self, method: str) -> httpx.Response:
        return self._http.request(method, self.url + gateway.CONTROL).raise_for_status()

    def _ask_storage(self, method: str, bucket: str = "", paths: Sequence[str] | None = None) -> httpx.Response:
        url = self._storage + storage.CONTROL + (f"/{quote(bucket, safe='')}" if bucket else "")
        return self._http.request(method, url, json=paths).raise_for_status()


def _quoted(*names: str) -> str:
    """Return a name as SQL writes it, whatever is in it."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)
