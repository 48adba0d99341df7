"""The one place where the command line reads the clock."""

from datetime import UTC, datetime


def read_clock() -> datetime:
    """The time now."""
    return datetime.now(UTC)  # noqa: TID251
