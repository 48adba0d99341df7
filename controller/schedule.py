"""When a scan is due: by schedule, by request, or to catch up one that was missed.

Pure: from the spec's timing, what the status remembers and the request annotations, `plan` tells what to do now and
when the schedule fires next. It never fires for a time before the schedule was set, edited or resumed.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from controller.errors import ConfigurationError, ErrorReason

ON_TIME = timedelta(seconds=90)
"""A scan that starts later than this after its time was missed: nobody was there to start it."""

MAX_JITTER = timedelta(seconds=60)
"""The most by which a scan is put off so that policies with one schedule do not all start at once."""

JITTER_SHARE = 0.1
"""The share of the gap between two scheduled times that the jitter may take, up to `MAX_JITTER`."""


LONGEST_CLOCK_CHANGE = timedelta(hours=2)
"""No zone changes its clock by more."""


class Trigger(StrEnum):
    """Why a scan ran."""

    SCHEDULE = "Schedule"
    REQUEST = "Request"
    CATCH_UP = "CatchUp"


@dataclass(frozen=True, slots=True)
class Timing:
    """The part of a spec that says when scans run, with the policy's uid, which fixes its jitter."""

    schedule: str
    time_zone: str
    starting_deadline: timedelta
    suspend: bool
    uid: str

    @property
    def fingerprint(self) -> str | None:
        """The schedule in force, in one line; `None` while suspended. A change of it starts a new plan."""
        return fingerprint(self.schedule, self.time_zone, suspend=self.suspend)


def fingerprint(schedule: str, time_zone: str, *, suspend: bool) -> str | None:
    """The schedule in force, in one line; `None` while suspended."""
    return None if suspend else f"{schedule} {time_zone}"


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """What the status says about earlier scans.

    Attributes:
        observed_schedule: The `fingerprint` for which `next_time` was planned.
        next_time: The next scheduled time, as planned.
        handled_request: The request token that was served last.
    """

    observed_schedule: str | None = None
    next_time: datetime | None = None
    handled_request: str | None = None


MAX_TOKEN = 1024
"""Characters of a request token that count: as many as the status keeps of the one that was served."""


def request_token(annotation: str | None) -> str | None:
    """The token that an annotation holds; `None` if it asks for nothing."""
    return annotation[:MAX_TOKEN] if annotation else None


@dataclass(frozen=True, slots=True)
class RequestAnnotations:
    """What the annotations ask for.

    Attributes:
        token: From `request_token`; a scan is owed while it differs from the token served last.
        video_id: Narrows the scan to one video.
    """

    token: str | None = None
    video_id: str | None = None


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """A scan that somebody wants now: the schedule, an annotation or the command line.

    Attributes:
        slot: The scheduled time that it serves, if it serves one.
        token: The request that it serves, if it serves one.
        video_ids: The only videos to look at, each asked for by name; none means all.
        allowance: The most videos to recover while the policy ramps up after a hold; `None` at full speed.
    """

    trigger: Trigger
    slot: datetime | None = None
    token: str | None = None
    video_ids: tuple[str, ...] = ()
    allowance: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What the schedule says now.

    Attributes:
        request: The scan to run now, if one is due.
        next_time: The first scheduled time after now; `None` while suspended.
        missed: The last scheduled time that nobody served, if there is a new one.
    """

    request: ScanRequest | None
    next_time: datetime | None
    missed: datetime | None = None


def plan(timing: Timing, state: ScheduleState, annotations: RequestAnnotations, *, now: datetime) -> Plan:
    """Tell which scan is due and when the next one is.

    Raises:
        ConfigurationError: The cron line or the zone is invalid.
    """
    schedule = Schedule(timing.schedule, timing.time_zone)
    upcoming = None if timing.suspend else schedule.after(now)
    on_schedule = _plan_schedule(timing, schedule, state, upcoming, now=now)
    if not annotations.token or annotations.token == state.handled_request:
        return on_schedule
    # A request for all videos serves a scheduled time that is due as well; one for a single video does not.
    slot = on_schedule.request.slot if on_schedule.request and annotations.video_id is None else None
    request = ScanRequest(
        Trigger.REQUEST, slot, annotations.token, (annotations.video_id,) if annotations.video_id is not None else ()
    )
    if annotations.video_id is not None and on_schedule.request is not None:
        return Plan(request, state.next_time)
    return Plan(request, on_schedule.next_time, on_schedule.missed)


def _plan_schedule(
    timing: Timing, schedule: "Schedule", state: ScheduleState, upcoming: datetime | None, *, now: datetime
) -> Plan:
    planned = state.next_time
    if upcoming is None or planned is None or state.observed_schedule != timing.fingerprint:
        return Plan(None, upcoming)  # suspended, new, edited or resumed: only the future counts
    if now < planned:
        return Plan(None, planned)
    latest = schedule.at_or_before(now)
    earlier_missed = schedule.before(latest) if latest > planned else None
    start = latest + schedule.jitter(latest, timing.uid)
    if now < start:
        return Plan(None, latest, earlier_missed)
    if now - start <= ON_TIME:
        return Plan(ScanRequest(Trigger.SCHEDULE, latest), upcoming, earlier_missed)
    if now - latest < timing.starting_deadline:
        return Plan(ScanRequest(Trigger.CATCH_UP, latest), upcoming, missed=latest)
    return Plan(None, upcoming, missed=latest)


class Schedule:
    """A cron line in a time zone, with Debian's rules for daylight saving time (by cronsim).

    Raises:
        ConfigurationError: The line is no cron line that ever fires, or the zone is unknown.
    """

    def __init__(self, line: str, time_zone: str) -> None:
        self._zone = _zone(time_zone)
        self._line = line
        try:
            if len(line.split()) != 5:
                raise CronSimError("five fields are needed: minute, hour, day of month, month, day of week")
            next(CronSim(line, datetime(2024, 1, 1, tzinfo=self._zone)))
        except (CronSimError, ValueError) as error:
            raise self._invalid(str(error)) from None
        except StopIteration:
            raise self._invalid("it never fires") from None

    def _invalid(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"spec.schedule: {self._line!r} is no valid cron line ({why})",
            "write five fields such as */15 * * * *",
            reason=ErrorReason.INVALID_SCHEDULE,
        )

    def after(self, moment: datetime) -> datetime:
        """The first scheduled time after a moment, in UTC."""
        # Where an hour comes twice, cronsim begins with times of the first that are over in the second.
        times = (time.astimezone(UTC) for time in CronSim(self._line, moment.astimezone(self._zone)))
        return next(time for time in times if time > moment)

    def at_or_before(self, moment: datetime) -> datetime:
        """The last scheduled time that is not after a moment, in UTC."""
        # Going back from within an hour that comes twice, cronsim leaves out what is later on the clock.
        start = (moment + LONGEST_CLOCK_CHANGE).astimezone(self._zone)
        times = (time.astimezone(UTC) for time in CronSim(self._line, start, reverse=True))
        return next(time for time in times if time <= moment)

    def before(self, moment: datetime) -> datetime:
        """The last scheduled time before a moment, in UTC."""
        return self.at_or_before(moment - timedelta(microseconds=1))

    def jitter(self, slot: datetime, uid: str) -> timedelta:
        """By how much the policy with this uid puts off the scan of a scheduled time: always the same for one gap."""
        span = min((self.after(slot) - slot) * JITTER_SHARE, MAX_JITTER)
        share = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4]) / 2**32
        return span * share


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; no name of a zone; the name of a folder of zones
        raise ConfigurationError(
            f"spec.timeZone: {name!r} is no IANA time zone",
            "write one such as Etc/UTC or Europe/Berlin",
            reason=ErrorReason.INVALID_SCHEDULE,
        ) from None
