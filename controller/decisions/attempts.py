"""Earlier recoveries of one video: which of them count, and how long to wait after them.

Pure: no I/O, no clock. What is known comes from Prefect alone; nothing is remembered here.
"""

import hashlib
from datetime import datetime, timedelta

from controller.api.policy import Retry
from controller.flow_runs import RELEASED, Recovery
from controller.videos import same_id

JITTER_SHARE = 0.2
"""The share of a wait by which it may be shorter: videos that failed together are not retried together. Never longer,
so that `maxBackoff` is the longest wait."""


MOST_DOUBLINGS = 14
"""From the shortest `backoff` (1m) these lead past the longest `maxBackoff` (168h): more change nothing."""


def next_attempt(earlier: tuple[Recovery, ...]) -> int:
    """The ordinal of a video's next recovery: the highest that exists, plus one."""
    return max((recovery.attempt for recovery in earlier), default=0) + 1


def attempts_that_count(earlier: tuple[Recovery, ...], retry: Retry, *, now: datetime) -> tuple[Recovery, ...]:
    """The attempts that count towards `maxAttempts` now, whatever became of them.

    They are those created within `window`, from the last one on that released the video from quarantine. One whose time
    is not known counts.
    """
    last_release = max((number for number, each in enumerate(earlier) if RELEASED in each.run.tags), default=0)
    horizon = now - retry.window
    return tuple(each for each in earlier[last_release:] if each.run.created is None or each.run.created > horizon)


def used_up(attempts: tuple[Recovery, ...], retry: Retry) -> bool:
    """Whether these attempts, from `attempts_that_count`, are all that the policy allows."""
    return len(attempts) >= retry.max_attempts


def released_at(attempts: tuple[Recovery, ...], retry: Retry) -> datetime | None:
    """When the window releases a video that used up these attempts; `None` if that is not known."""
    decisive = attempts[-retry.max_attempts].run.created
    return decisive + retry.window if decisive is not None else None


def next_try_at(video_id: str, attempts: tuple[Recovery, ...], retry: Retry) -> datetime | None:
    """When the wait after the last of these attempts is over; `None` if there is nothing to wait for.

    The wait begins when that attempt ended and doubles with each attempt that counts, up to `maxBackoff`.
    """
    last_sign = attempts[-1].last_sign if attempts else None
    if last_sign is None:
        return None
    wait: timedelta = min(retry.backoff * 2 ** min(len(attempts) - 1, MOST_DOUBLINGS), retry.max_backoff)
    return last_sign + wait * (1 - JITTER_SHARE * _fraction(video_id, attempts[-1].attempt))


def _fraction(video_id: str, attempt: int) -> float:
    """A number from 0 to 1 that is always the same for one attempt at one video."""
    digest = hashlib.sha256(f"{same_id(video_id)}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32
