"""Videos as the table has them: which columns a scan needs, what a row says, and what a template makes of it.

Decides nothing about recovery and asks nobody. Rows come from outside, so every value here is treated as hostile: a row
that cannot be used becomes a `BadRow`, never an exception that ends a scan.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from controller.api.policy import Columns, PolicySpec, Stuck, placeholders

Row = Mapping[str, object]

MAX_ID_LENGTH = 200
"""Characters. An id goes into idempotency keys and filters; no sensible key column is longer."""

MAX_SHOWN_LENGTH = 120
"""Characters of a value from a row that are shown to people."""


@dataclass(frozen=True, slots=True)
class Video:
    """One candidate: a row that could be read.

    Attributes:
        id: The id as text; integers are written in decimal.
        created_at: Aware; a column without a time zone is read as UTC.
        name: For people: cut and free of control characters. May be empty.
        tenant_id: `None` if the column is null or the policy names none.
        row: The columns that were selected, for templates.
    """

    id: str
    status: str
    created_at: datetime
    name: str
    tenant_id: str | None
    row: Row


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that nobody can recover, with what is wrong with it, in words for its owner."""

    id: str
    problem: str


class UnusableValueError(ValueError):
    """A row's value cannot go where a template puts it."""


def columns_needed(spec: PolicySpec) -> tuple[str, ...]:
    """The columns that one scan of this policy selects, each once and in a stable order."""
    columns = spec.supabase.columns
    named = [columns.id, columns.status, columns.created_at, columns.name, columns.tenant_id]
    templates = list(spec.prefect.parameters.values())
    if spec.upload is not None:
        templates.append(spec.upload.object_path)
    named.extend(column for template in templates for column in placeholders(template))
    return tuple(dict.fromkeys(column for column in named if column))


def read_rows(rows: Iterable[Row], columns: Columns) -> tuple[list[Video], list[BadRow]]:
    """Split rows into videos, each id once, and rows that cannot be used."""
    videos: dict[str, Video] = {}
    bad: list[BadRow] = []
    for row in rows:
        read = _read_row(row, columns)
        if isinstance(read, BadRow):
            bad.append(read)
        else:
            videos.setdefault(same_id(read.id), read)
    return list(videos.values()), bad


def _read_row(row: Row, columns: Columns) -> Video | BadRow:
    raw_id = row.get(columns.id)
    video_id = _text(raw_id)
    if not video_id or len(video_id) > MAX_ID_LENGTH or printable(video_id) != video_id:
        return BadRow(shown(raw_id), f"column {columns.id!r} holds no usable id")
    created_at = _time(row.get(columns.created_at))
    if created_at is None:
        value = shown(row.get(columns.created_at))
        return BadRow(video_id, f"column {columns.created_at!r} holds no usable time ({value})")
    tenant = _text(row.get(columns.tenant_id)) if columns.tenant_id else None
    name = shown(row.get(columns.name)) if columns.name and row.get(columns.name) is not None else ""
    status = (_text(row.get(columns.status)) or "").rstrip()  # a char(n) is padded
    return Video(video_id, status, created_at, name, tenant or None, row)


def is_stuck(video: Video, stuck: Stuck, *, now: datetime) -> bool:
    """Whether the video waits in one of the statuses for longer than its threshold."""
    return video.status in stuck.statuses and now - video.created_at > stuck.age_of(video.status)


def youngest_age(stuck: Stuck) -> timedelta:
    """The smallest threshold of the policy: no younger video can be stuck."""
    return min(stuck.age_of(status) for status in stuck.statuses)


def same_id(video_id: str) -> str:
    """The id in the form in which two spellings of one UUID are equal; any other id as it is."""
    return video_id.lower() if _UUID.fullmatch(video_id) else video_id


_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def render(template: str, row: Row) -> str:
    """Put the row's values into a template's placeholders.

    Raises:
        UnusableValueError: A value is null, empty or no text or integer, has control characters, or would change the
            path that the template writes down (`/`, `.`, `..`).
    """
    is_path = "/" in _PLACEHOLDER.sub("", template)

    def value(match: re.Match[str]) -> str:
        column = match[1]
        text = _text(row.get(column))
        if not text:
            raise UnusableValueError(f"column {column!r} is empty")
        if printable(text) != text:
            raise UnusableValueError(f"column {column!r} holds control characters")
        if is_path and ("/" in text or "\\" in text or text in {".", ".."}):
            raise UnusableValueError(f"column {column!r} would change the path {template!r}: {shown(text)!r}")
        return text

    return _PLACEHOLDER.sub(value, template)


def printable(text: str) -> str:
    """The text with every control, format, line-ending and unassigned character replaced: it can break no output."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _breaks_output(character) else character for character in text)


def _breaks_output(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in {"Zl", "Zp"}


def shown(value: object) -> str:
    """Any value from outside as one short line for people."""
    text = value if isinstance(value, str) else str(value)
    line = printable(text[: MAX_SHOWN_LENGTH + 1])
    return line if len(line) <= MAX_SHOWN_LENGTH else line[: MAX_SHOWN_LENGTH - 1] + "…"


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
