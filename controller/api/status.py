"""The `.status` of a policy: what the controller writes, and what it remembers by it.

Models only; `controller.reporting.status` fills them. Nothing in here grows with the number of videos: every list has a
bound, which the CRD's schema repeats.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

from controller.schedule import MAX_TOKEN, Trigger

MAX_DECISIONS = 20
"""Decisions of the last scan that the status lists; the counts have them all."""

MAX_QUARANTINED = 20
"""Quarantined videos that the status lists by id."""

MAX_HISTORY = 100
"""The largest `spec.historyLimit`."""

MAX_MESSAGE = 1024
"""Characters of a condition's message, or of what ended a scan."""

MAX_DETAIL = 256
"""Characters of what was seen for one video, or of its id."""


def _write_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read_time(value: object) -> object:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


Time = Annotated[
    datetime,
    BeforeValidator(_read_time),
    PlainSerializer(_write_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A time as Kubernetes writes it: UTC, in whole seconds."""


MicroTime = Annotated[
    datetime,
    BeforeValidator(_read_time),
    PlainSerializer(lambda moment: moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A time as Kubernetes writes it where seconds are too coarse."""


class _Part(BaseModel):
    # Fields of a newer or older controller are dropped, not refused: the status is only a memory.
    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )


class ConditionType(StrEnum):
    """The conditions of a policy."""

    READY = "Ready"
    STALLED = "Stalled"
    RECONCILING = "Reconciling"
    SUPABASE_REACHABLE = "SupabaseReachable"
    PREFECT_REACHABLE = "PrefectReachable"
    DEPLOYMENT_READY = "DeploymentReady"


class Condition(_Part):
    """One condition, in the form that all Kubernetes tools read."""

    type: str = Field(max_length=64)
    """What the condition is about: Ready, Stalled, Reconciling, SupabaseReachable, PrefectReachable or DeploymentReady.
    Stalled and Reconciling are there only while they are True."""

    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""

    reason: str = Field(max_length=128)
    """Why, in one word for programs, such as SecretNotFound."""

    message: str = Field(max_length=MAX_MESSAGE)
    """Why, in a sentence that names what to fix."""

    last_transition_time: Time
    """When the condition's status last changed."""

    observed_generation: int = 0
    """The generation of the spec that it speaks of."""


class Stuck(_Part):
    """The stuck videos that the last scan of all videos found."""

    total: int = 0
    """How many videos were stuck."""

    oldest_age: str | None = Field(default=None, max_length=32)
    """The age of the oldest one, such as 1h5m; absent if none is stuck."""

    by_status: Mapping[str, int] = Field(default_factory=dict, max_length=20)
    """How many were stuck in each status."""


class DecisionRecord(_Part):
    """What the scan concluded for one video."""

    video: str = Field(max_length=MAX_DETAIL)
    """The id of the video."""

    decision: Literal["Recovered", "Skipped", "Failed"]
    """Recovered, Skipped or Failed."""

    reason: str | None = Field(default=None, max_length=64)
    """Why it was skipped or failed."""

    message: str | None = Field(default=None, max_length=MAX_DETAIL)
    """What was found out about it."""

    flow_run: str | None = Field(default=None, max_length=64)
    """The id of the flow run created for it."""

    attempt: int | None = None
    """Which recovery of this video it is; 1 is the first."""


class WaitTime(_Part):
    """How long videos waited, from their creation until the scan recovered them."""

    median: str = Field(max_length=32)
    """Half of them waited no longer than this, such as 25m."""

    longest: str = Field(max_length=32)
    """The longest wait."""


class Confirmations(_Part):
    """Earlier recoveries of which the scan learned whether they worked."""

    confirmed: int = 0
    """Recoveries that worked: the video left the stuck statuses, or the flow run completed."""

    failed: int = 0
    """Recoveries whose flow run ended otherwise and left the video stuck."""


class ScanRecord(_Part):
    """One scan, in numbers."""

    trigger: Trigger
    """Why it ran: Schedule, Request (an annotation) or CatchUp (a missed one)."""

    start_time: Time
    """When it started."""

    completion_time: Time
    """When it was done."""

    found: int = 0
    """Stuck videos it found."""

    recovered: int = 0
    """Videos for which it created a flow run."""

    skipped: int = 0
    """Videos it left alone, each with a reason."""

    failed: int = 0
    """Videos it could not recover."""

    wait_time: WaitTime | None = None
    """How long the recovered videos waited, from their creation to their recovery; absent if none was recovered."""

    confirmations: Confirmations | None = None
    """Earlier recoveries of which this scan learned whether they worked; each is counted by one scan. Absent if it
    learned of none."""

    reasons: Mapping[str, int] = Field(default_factory=dict, max_length=32)
    """How many videos were skipped or failed, by reason."""

    error: str | None = Field(default=None, max_length=MAX_MESSAGE)
    """What ended the scan early, if anything."""

    video: str | None = Field(default=None, max_length=MAX_DETAIL)
    """The one video a request narrowed it to."""


class LastScan(ScanRecord):
    """The last scan, with its first decisions."""

    decisions: tuple[DecisionRecord, ...] = Field(default=(), max_length=MAX_DECISIONS)
    """Decisions: failures first, then skips that a person has to look into, recoveries, and other skips; at most 20."""


class Quarantine(_Part):
    """Videos that used up their attempts."""

    count: int = 0
    """How many videos are quarantined."""

    videos: tuple[str, ...] = Field(default=(), max_length=MAX_QUARANTINED)
    """Their ids, the oldest videos first; at most 20."""


class Totals(_Part):
    """Counts since the policy was created. What is recovered and neither confirmed nor failed is in flight."""

    scans: int = 0
    """Scans that ran, whatever triggered them."""

    recovered: int = 0
    """Recoveries of the policy's videos."""

    confirmed: int = 0
    """Recoveries that worked: the video left the stuck statuses, or the flow run completed."""

    failed: int = 0
    """Recoveries whose flow run ended otherwise and left the video stuck."""


class RecoveryCursor(_Part):
    """How far the totals have counted, by Prefect's clock: the next scan goes on from there; nothing counts twice."""

    created_until: MicroTime
    """Recoveries created until then are in totals.recovered."""

    counted_later: int = 0
    """How many recoveries created after createdUntil are in totals.recovered, too."""

    ended_until: MicroTime
    """Recoveries that ended until then are in totals.confirmed or totals.failed."""


class PolicyStatus(_Part):
    """What the controller last found out and did."""

    observed_generation: int = 0
    """The generation of the spec that the status speaks of."""

    observed_schedule: str | None = Field(default=None, max_length=200)
    """The schedule and zone that nextScheduleTime was planned for; absent while suspended."""

    conditions: tuple[Condition, ...] = Field(default=(), max_length=16)
    """Conditions, one for each type."""

    last_handled_reconcile_at: str | None = Field(default=None, max_length=MAX_TOKEN)
    """The recovery.captiona.cc/requestedAt token that was served last."""

    last_schedule_time: Time | None = None
    """The last scheduled time that a scan served."""

    next_schedule_time: Time | None = None
    """When the schedule fires next."""

    last_successful_time: Time | None = None
    """When the last scan that reached both services was done."""

    last_missed_time: Time | None = None
    """The last scheduled time at which no controller was there to scan."""

    stuck: Stuck | None = None
    """The stuck videos that the last scan of all videos found."""

    last_scan: LastScan | None = None
    """The last scan."""

    quarantine: Quarantine | None = None
    """Videos that used up their attempts."""

    ramp_up: int | None = None
    """How many videos the next scan recovers at most, while it ramps up after a hold; absent otherwise."""

    totals: Totals = Totals()
    """Counts since the policy was created."""

    recovery_cursor: RecoveryCursor | None = None
    """How far the totals have counted, by Prefect's clock: the next scan goes on from there; nothing counts twice."""

    history: tuple[ScanRecord, ...] = Field(default=(), max_length=MAX_HISTORY)
    """Earlier scans, the newest first; at most spec.historyLimit."""

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of a type, if the status has it."""
        return next((condition for condition in self.conditions if condition.type == kind), None)

    def to_manifest(self) -> dict[str, object]:
        """The status as the API server takes it; absent fields are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
