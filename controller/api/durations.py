"""Durations as a policy writes them: `90s`, `10m`, `1h30m`, `72h`.

A subset of Go's notation, so that CEL's `duration()` reads the same text in the same way: hours, minutes and
seconds, each at most once and in this order. No days, no fractions, no sign.
"""

import re
from datetime import timedelta

DURATION_PATTERN = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"
"""Also matches the empty text, which is no duration. Six digits keep the sum within what CEL can count."""

DURATION_ADVICE = "write a duration such as 90s, 10m or 1h30m"

LONGEST_TEXT = len("999999h999999m999999s")

_PARTS = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?")


def parse_duration(text: str) -> timedelta:
    """Read a duration.

    Raises:
        ValueError: The text is none; the message says what to write.
    """
    match = _PARTS.fullmatch(text)
    if not text or match is None:
        raise ValueError(DURATION_ADVICE)
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """Write a duration in its shortest form: `1h5m`, `1m30s`, `0s`. Parts of a second are cut off.

    Raises:
        ValueError: The duration is negative, which the notation cannot say.
    """
    if duration < timedelta(0):
        raise ValueError("a duration cannot be negative")
    minutes, seconds = divmod(int(duration.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (seconds, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"
