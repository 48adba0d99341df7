"""Supabase: reads the stuck videos. Never writes anything.

Answers are cut silently at the server's `db-max-rows`, so everything is paged by (`created_at`, `id`) until a page
comes back empty; nothing here trusts a short page.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Protocol, cast

import httpx
from more_itertools import constrained_batches
from postgrest import APIError
from pydantic import ValidationError
from supabase import AsyncClient, AsyncClientOptions, acreate_client
from typing_extensions import override

from controller.adapters.http import HttpError, ServiceClient
from controller.adapters.supabase.errors import explain, is_no_value, message
from controller.adapters.supabase.storage import SupabaseStorage
from controller.api.policy import PolicySpec, Stuck, Supabase
from controller.errors import Service
from controller.ports import VideoTable
from controller.videos import Row, columns_needed, same_id

PAGE = 1000
"""Rows asked for at once: what hosted Supabase answers at most."""

MAX_FILTER_LENGTH = 6000
"""Characters of ids in one filter, as the URL has them: proxies cut off URLs from 8 kB. A batch of UUIDs fits."""


class _Query(Protocol):
    """What this module uses of supabase-py's query builders."""

    def or_(self, filters: str) -> "_Query": ...
    def order(self, column: str, *, nullsfirst: bool) -> "_Query": ...
    def limit(self, size: int) -> "_Query": ...
    async def execute(self) -> object: ...


class _NoSuchIdError(Exception):
    """The column of ids cannot hold a value that was asked for."""


@asynccontextmanager
async def open_supabase(
    url: str, key: str, spec: PolicySpec
) -> AsyncIterator[tuple["SupabaseTable", SupabaseStorage | None]]:
    """Make clients for a policy's table and, if it looks at uploads, its bucket; sends nothing yet.

    Args:
        url: `SUPABASE_URL`.
        key: `SUPABASE_SERVICE_ROLE_KEY`: a legacy JWT or a new `sb_secret_…` key.
        spec: Names both.
    """
    service = ServiceClient(Service.SUPABASE, "SUPABASE_URL", [key])
    # The new keys are no JWT: an Authorization header that holds one is refused.
    async with service.http_client(drop="Authorization" if key.startswith("sb_") else None) as http:
        options = AsyncClientOptions(
            schema=spec.supabase.schema_name,
            auto_refresh_token=False,
            persist_session=False,
            postgrest_client_retry=False,  # `Channel` retries, alike for both services
            httpx_client=http,
        )
        client = await acreate_client(url, key, options)
        table = SupabaseTable(client, service, spec.supabase, spec.stuck, columns_needed(spec))
        yield table, SupabaseStorage(client, service, spec.upload.bucket) if spec.upload else None


class SupabaseTable(VideoTable):
    """The table of videos behind PostgREST."""

    def __init__(
        self, client: AsyncClient, service: ServiceClient, supabase: Supabase, stuck: Stuck, columns: Sequence[str]
    ) -> None:
        self._client, self._service = client, service
        self._supabase, self._stuck, self._columns = supabase, stuck, columns

    @override
    async def candidates(self, *, created_before: datetime, video_ids: Sequence[str] = ()) -> list[Row]:
        created = _quoted(self._supabase.columns.created_at)
        due = f"{created}.lt.{_quoted(created_before.isoformat())},{created}.is.null"
        if not video_ids:
            return await self._pages(due, None)
        batches = _batches(list(dict.fromkeys(video_ids)))
        return [row for batch in batches for row in await self._named(due, batch)]

    async def _named(self, due: str, video_ids: Sequence[str]) -> list[Row]:
        """The rows with some ids; an id that cannot be one, such as a word where ids are UUIDs, has none."""
        try:
            return await self._pages(due, video_ids)
        except _NoSuchIdError:
            if len(video_ids) == 1:
                return []
            return [row for video_id in video_ids for row in await self._named(due, [video_id])]

    async def _pages(self, due: str, video_ids: Sequence[str] | None) -> list[Row]:
        rows: list[Row] = []
        while page := await self._page(due, after=rows[-1] if rows else None, video_ids=video_ids):
            if rows and page[-1] == rows[-1]:
                raise self._service.unexpected("the same page of rows twice")
            rows += page
        return rows

    async def _page(self, due: str, *, after: Row | None, video_ids: Sequence[str] | None) -> list[Row]:
        columns = self._supabase.columns
        query = self._stuck_rows(self._columns).or_(due)
        if after is not None:
            query = query.or_(self._behind(after))
        if video_ids is not None:
            query = query.or_(_is_in(columns.id, video_ids))
        query = query.order(_quoted(columns.created_at), nullsfirst=True)
        query = query.order(_quoted(columns.id), nullsfirst=False).limit(PAGE)
        return await self._rows(query, self._columns, video_ids or ())

    @override
    async def row(self, video_id: str) -> Row | None:
        columns = self._supabase.columns
        wanted = [*self._columns, *([columns.deleted_at] if columns.deleted_at else [])]
        query = self._select(wanted).or_(_is_in(columns.id, [video_id])).limit(1)
        try:
            rows = await self._rows(query, wanted, [video_id])
        except _NoSuchIdError:
            return None
        return rows[0] if rows else None

    async def _rows(self, query: _Query, columns: Sequence[str], video_ids: Sequence[str] = ()) -> list[Row]:
        """The rows of an answer; raises `_NoSuchIdError` if one of the ids that are asked for cannot be any."""
        try:
            return await self._ask(query, columns)
        except HttpError as error:
            if is_no_value(error) and any(video_id in message(error) for video_id in video_ids):
                raise _NoSuchIdError from None
            raise explain(error, self._service, self._supabase) from None

    def _behind(self, row: Row) -> str:
        """The rows that the order puts behind this one; rows without a time come first."""
        columns = self._supabase.columns
        created, video_id = _quoted(columns.created_at), _quoted(columns.id)
        last_created, last_id = row[columns.created_at], _quoted(str(row[columns.id]))
        if last_created is None:
            return f"{created}.not.is.null,and({created}.is.null,{video_id}.gt.{last_id})"
        moment = _quoted(str(last_created))
        return f"{created}.gt.{moment},and({created}.eq.{moment},{video_id}.gt.{last_id})"

    @override
    async def still_stuck(self, video_ids: Sequence[str]) -> set[str]:
        column = self._supabase.columns.id
        stuck: set[str] = set()
        for batch in _batches(video_ids):
            asked = list(batch)
            # An answer may be cut; only an empty one says that none of the ids asked for is stuck any more.
            while asked:
                rows = await self._rows(self._stuck_rows([column]).or_(_is_in(column, asked)), [column])
                found = {same_id(str(row[column])) for row in rows}
                if not found <= {same_id(video_id) for video_id in asked}:
                    raise self._service.unexpected("rows that were not asked for")
                if not found:
                    break
                stuck |= found
                asked = [video_id for video_id in asked if same_id(video_id) not in found]
        return stuck

    async def check(self) -> None:
        """Ask for no rows at all, only whether table, columns and statuses fit.

        Raises:
            ScanError: They do not, or Supabase does not answer.
        """
        await self._rows(self._stuck_rows(self._columns).limit(0), ())

    def _stuck_rows(self, columns: Sequence[str]) -> _Query:
        names = self._supabase.columns
        # All conditions go through `or_`, each as an alternative to nothing: there, unlike in a parameter of their own,
        # names are quoted, and may then hold dots, arrows and words that PostgREST gives a meaning to.
        query = self._select(columns).or_(_is_in(names.status, self._stuck.statuses))
        query = query.or_(f"{_quoted(names.id)}.not.is.null")
        return query.or_(f"{_quoted(names.deleted_at)}.is.null") if names.deleted_at else query

    def _select(self, columns: Sequence[str]) -> _Query:
        selected = self._client.table(self._supabase.table).select(*(_quoted(column) for column in columns))
        return cast(_Query, selected)

    async def _ask(self, query: _Query, columns: Sequence[str]) -> list[Row]:
        """The rows of an answer, each with all columns asked for; raises `HttpError` as it comes."""
        try:
            answer = await self._service.send(query.execute)
        except (APIError, ValidationError, ValueError, RecursionError) as error:
            raise self._service.unexpected(getattr(error, "message", None) or str(error)) from None
        rows, wanted = getattr(answer, "data", None), set(columns)
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) and row.keys() >= wanted for row in rows):
            raise self._service.unexpected(str(rows))
        return rows


def _quoted(name: str) -> str:
    """A name or a value as PostgREST reads it literally, whatever characters it has."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_in(column: str, values: Sequence[str]) -> str:
    return f"{_quoted(column)}.in.({','.join(_quoted(value) for value in values)})"


def _batches(video_ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The ids in batches that each fit into one filter."""
    return constrained_batches(video_ids, MAX_FILTER_LENGTH, get_len=_length_in_url, strict=False)


def _length_in_url(video_id: str) -> int:
    return len(str(httpx.QueryParams({"": _quoted(video_id)}))) + len("%2C") - len("=")
