"""The table and the bucket of a world, as PostgREST and Storage answer through their adapters."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from typing_extensions import override

from controller.api.manifest import Policy
from controller.errors import ConfigurationError, ErrorReason, Service
from controller.ports import ObjectStore, VideoTable
from controller.videos import Row, columns_needed, same_id

if TYPE_CHECKING:
    from tests.world.world import World

LONG_AGO, NEVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass
class WorldTable(VideoTable):
    """The table of a policy."""

    world: "World"
    policy: Policy

    @override
    async def check(self) -> None:
        await self.world.ask("check")

    @override
    async def candidates(self, *, created_before: datetime, video_ids: Sequence[str] = ()) -> list[Row]:
        await self.world.ask("candidates", (created_before, video_ids))
        found = [row for row in self._stuck() if self._is_due(row, created_before)]
        if video_ids:
            found = [row for row in found if any(self._is_row(row, video_id) for video_id in video_ids)]
        return [self._selected(row) for row in sorted(found, key=self._place)]

    @override
    async def row(self, video_id: str) -> Row | None:
        await self.world.ask("row", video_id)
        deleted_at = self.policy.spec.supabase.columns.deleted_at
        found = next((row for row in self.world.rows if self._is_row(row, video_id)), None)
        if found is None or not deleted_at:
            return found and self._selected(found)
        return {**self._selected(found), deleted_at: found.get(deleted_at)}

    @override
    async def still_stuck(self, video_ids: Sequence[str]) -> set[str]:
        await self.world.ask("still_stuck", list(video_ids))
        stuck = {str(row[self._id]) for row in self._stuck()}
        return {same_id(each) for video_id in video_ids for each in {video_id, _canonical(video_id)} & stuck}

    @property
    def _id(self) -> str:
        return self.policy.spec.supabase.columns.id

    def _stuck(self) -> list[dict[str, object]]:
        """The rows with an id, in a stuck status, of videos that are not deleted."""
        spec = self.policy.spec
        columns = spec.supabase.columns
        return [
            row
            for row in self.world.rows
            if row[columns.status] in spec.stuck.statuses
            and row[columns.id] is not None
            and (not columns.deleted_at or row.get(columns.deleted_at) is None)
        ]

    def _is_row(self, row: Row, video_id: str) -> bool:
        return str(row[self._id]) in {video_id, _canonical(video_id)}

    def _is_due(self, row: Row, created_before: datetime) -> bool:
        created = self._created(row)
        return created is None or created < created_before

    def _created(self, row: Row) -> datetime | None:
        """When a row was created; fails where PostgreSQL has no such time."""
        value = row[self.policy.spec.supabase.columns.created_at]
        if value is None:
            return None
        if value in {"infinity", "-infinity"}:
            return NEVER if value == "infinity" else LONG_AGO
        created = datetime.fromisoformat(str(value))
        return created if created.tzinfo else created.replace(tzinfo=UTC)

    def _place(self, row: Row) -> tuple[object, ...]:
        created, video_id = self._created(row), row[self._id]
        number = video_id if isinstance(video_id, int) else 0
        return (created is not None, created or LONG_AGO, number, str(video_id))

    def _selected(self, row: Row) -> Row:
        return {column: row.get(column) for column in columns_needed(self.policy.spec)}


def _canonical(video_id: str) -> str:
    """The form in which a column of UUIDs shows an id: small letters, with hyphens; "" if it cannot be one."""
    braced = re.fullmatch(r"\{(.*)\}", video_id)
    digits = (braced[1] if braced else video_id).replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", digits):
        return ""
    return "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]])


@dataclass
class WorldStore(ObjectStore):
    """The bucket of a policy."""

    world: "World"
    policy: Policy

    @override
    async def check(self) -> None:
        await self.world.ask("check_bucket")
        self._refuse_without_bucket()

    @override
    async def existing_files(self, paths: Sequence[str]) -> set[str]:
        if not paths:
            return set()
        await self.world.ask("existing_files", list(paths))
        self._refuse_without_bucket()
        return self.world.files & set(paths)

    def _refuse_without_bucket(self) -> None:
        if not self.world.has_bucket:
            raise ConfigurationError("no such bucket", reason=ErrorReason.BUCKET_NOT_FOUND, service=Service.SUPABASE)
