"""What a `VideoRecoveryPolicy` says: every field with its meaning, default, bounds and rules.

The one source of the resource: the CRD (`controller/api/crd.py`), and with it what the API server checks, and the
checks here all come from these models. A policy is validated once, at the edge, and frozen from then on. Never judges
what takes more than the policy to know: whether a cron line ever fires, whether a time zone, a Secret or a column
exists.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StrictBool

from controller.api.constraints import (
    DNS_NAME,
    PREFECT_NAME,
    Between,
    Block,
    ColumnName,
    OptionalColumnName,
    PrefectName,
    Rule,
    SqlName,
    Status,
    Template,
    Unique,
    matching,
    not_shorter,
    number,
    text,
)


class Mode(StrEnum):
    """What a scan does about the stuck videos that it decides to recover."""

    ENFORCE = "Enforce"
    """Recover them."""
    OBSERVE = "Observe"
    """Report the decisions and create nothing."""


class AbandonedRunAction(StrEnum):
    """What a scan does about an active flow run that is older than `abandonedRunAfter`."""

    REPORT = "Report"
    """Name it in status and leave the video alone."""
    REPLACE = "Replace"
    """Cancel it and, once it has ended, recover the video; the two never run side by side."""


class SecretRef(Block):
    """Names a Secret in the policy's own namespace."""

    name: Annotated[
        str,
        text(253),
        matching(
            DNS_NAME,
            "write the name of a Secret in the policy's namespace, such as captionacc-credentials",
        ),
    ] = Field(examples=["captionacc-credentials"])
    """The name of the Secret, in the policy's own namespace. It is read at every scan, so a rotated key works at the
    next one."""


class Stuck(Block):
    """Which videos count as stuck."""

    statuses: Annotated[tuple[Status, ...], Field(min_length=1, max_length=20), Unique()] = Field(
        default=("uploading", "pending"), examples=[["uploading", "pending", "queued"]]
    )
    """The statuses in which a video waits. Quote what YAML reads as a boolean, such as "no" and "on"."""

    age: Annotated[timedelta, Between("1m", "8760h")] = Field(default=timedelta(minutes=10), examples=["45m"])
    """How long a video waits, counted from its created column, before it is stuck."""

    age_by_status: Annotated[Mapping[str, Annotated[timedelta, Between("1m", "8760h")]], Field(max_length=20)] = Field(
        default={}, examples=[{"uploading": "30m"}]
    )
    """Other ages for single statuses, each of which is also in statuses."""

    recent_run_window: Annotated[timedelta, Between("0s", "24h")] = Field(
        default=timedelta(minutes=5), examples=["15m"]
    )
    """A video for which a flow run ended less than this ago is left alone: its status may still be on the way. 0s turns
    the check off."""

    abandoned_run_after: Annotated[timedelta, Between("10m", "8760h")] | None = Field(default=None, examples=["6h"])
    """An active flow run older than this counts as abandoned, as after the crash of a worker. Choose it longer than the
    longest honest run. Not set: no run does, and its video waits for as long as the run is active."""

    abandoned_run_action: AbandonedRunAction = Field(default=AbandonedRunAction.REPORT, examples=["Replace"])
    """What to do about an abandoned flow run. Report: name it in status and leave the video alone. Replace: cancel it
    and, once it has ended, recover the video; needs abandonedRunAfter."""

    def age_of(self, status: str) -> timedelta:
        """How long a video in this status waits before it is stuck."""
        return self.age_by_status.get(status, self.age)

    rules = (
        Rule(
            "self.ageByStatus.all(status, status in self.statuses)",
            "write only statuses that are also in stuck.statuses",
            lambda stuck: set(stuck.age_by_status) <= set(stuck.statuses),
            field="ageByStatus",
        ),
        Rule(
            "self.abandonedRunAction != 'Replace' || has(self.abandonedRunAfter)",
            "write abandonedRunAfter too, such as 6h: without it no run counts as abandoned",
            lambda stuck: stuck.abandoned_run_action != "Replace" or stuck.abandoned_run_after is not None,
            field="abandonedRunAction",
        ),
    )


class Columns(Block):
    """The names of the table's columns, as PostgreSQL has them: upper and lower case differ."""

    id: ColumnName = Field(default="id", examples=["video_id"])
    """The column that identifies a video: unique, text, UUID or integer."""

    status: ColumnName = Field(default="status", examples=["processing_status"])
    """The column with the status that stuck.statuses lists."""

    created_at: ColumnName = Field(default="created_at", examples=["uploaded_at"])
    """The column with the time from which a video's age counts; a time without a zone is read as UTC."""

    name: OptionalColumnName = Field(default="display_path", examples=["title"])
    """The column with a name for people, shown in reports. "" if the table has none."""

    tenant_id: OptionalColumnName = Field(default="tenant_id", examples=["organization_id"])
    """The column with the tenant; tenants share a scan's limits fairly. "" if the table has none: then all videos are
    one tenant's."""

    deleted_at: OptionalColumnName = Field(default="deleted_at", examples=["removed_at"])
    """The column that is not null once a video is deleted; such a video is never recovered. "" if the table has
    none."""


class Supabase(Block):
    """Where the videos are."""

    secret_ref: SecretRef = Field(examples=["{name: captionacc-credentials}"])
    """The Secret with the keys SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY."""

    schema_name: SqlName = Field(default="public", alias="schema", examples=["captionacc"])
    """The schema of the table; it must be among the exposed schemas of the project's API settings."""

    table: SqlName = Field(default="videos", examples=["media"])
    """The table, or view, of videos."""

    columns: Columns = Columns()
    """The names of the table's columns, where they differ from the defaults."""


_NO_PATH = r"^/|/$|//|(^|/)[.][.]?(/|$)|[%\\]"


class Upload(Block):
    """How to tell whether a video's file has been uploaded. Left out: nobody looks."""

    bucket: Annotated[
        str,
        text(100),
        matching(
            "^[A-Za-z0-9_-]([A-Za-z0-9_. -]*[A-Za-z0-9_-])?$",
            "write a bucket's name of letters, digits, _, -, and between them . and spaces",
        ),
    ] = Field(examples=["videos"])
    """The bucket in Supabase Storage that holds the files."""

    object_path: Annotated[
        Template,
        Rule(
            f"!self.matches(r'{_NO_PATH}')",
            "write a path inside the bucket, such as {tenant_id}/{id}.mp4: no / at its ends, no empty, . or .."
            " step, no % and \\",
            lambda path: re.search(_NO_PATH, path) is None,
        ),
        Rule(
            "self.contains('{')",
            "name a column in braces, such as {id}: otherwise all videos would share one file",
            lambda path: "{" in path,
        ),
    ] = Field(examples=["{tenant_id}/client/videos/{id}/video.mp4"])
    """The path of a video's file in the bucket. {column} stands for the value of that column in the video's row."""

    abandoned_after: Annotated[timedelta, Between("1h", "8760h")] = Field(default=timedelta(hours=24), examples=["6h"])
    """A video without a file is taken to be uploading until it is this old; then its upload is reported as abandoned.
    Neither is recovered. Keep it longer than an upload may take (24h on hosted Supabase)."""


_PARAMETER = "^[A-Za-z_][A-Za-z0-9_]{0,99}$"


class Prefect(Block):
    """What recovers a video: a run of this deployment."""

    secret_ref: SecretRef = Field(examples=["{name: captionacc-credentials}"])
    """The Secret with the key PREFECT_API_URL and, if the server wants one, PREFECT_API_KEY or PREFECT_API_AUTH_STRING
    (user:password)."""

    deployment: Annotated[
        str,
        text(511),
        matching(
            f"^{PREFECT_NAME}/{PREFECT_NAME}$",
            "write flow/deployment, such as process-video/production: one slash, neither name with % & < >",
        ),
    ] = Field(examples=["captionacc-video-initial-processing/captionacc-prod-video-initial-processing"])
    """The deployment that processes a video, written flow/deployment."""

    video_id_parameter: Annotated[
        str,
        text(100),
        matching(_PARAMETER, "write the name of a parameter of the flow, such as video_id"),
    ] = Field(default="video_id", examples=["id"])
    """The parameter by which a flow run, whoever created it, is recognized as one for a video."""

    parameters: Annotated[Mapping[str, Template], Field(max_length=20)] = Field(
        default={
            "video_id": "{id}",
            "tenant_id": "{tenant_id}",
            "storage_key": "{tenant_id}/client/videos/{id}/video.mp4",
        },
        examples=[{"video_id": "{id}"}],
    )
    """The parameters of a recovery, each a text in which {column} stands for the value of that column in the video's
    row. What you write replaces the default as a whole. The one that videoIdParameter names is the id column alone, so
    that the run can be found again."""

    tags: Annotated[tuple[Annotated[str, text(100)], ...], Field(max_length=20), Unique()] = Field(
        default=("recovery",), examples=[["recovery", "production"]]
    )
    """The tags of a recovery."""

    work_queue: PrefectName | None = Field(default=None, examples=["recovery"])
    """The work queue, of the deployment's work pool, for recoveries. Not set: the deployment's own queue."""

    flows: Annotated[tuple[PrefectName, ...], Field(max_length=50), Unique()] = Field(
        default=(), examples=[["captionacc-video-initial-processing", "crop-and-infer-caption-frames"]]
    )
    """The flows whose runs show that a video is being processed. Empty: the runs of any flow do."""

    hold_until_ready: StrictBool = Field(default=True, examples=[False])
    """Whether to create nothing while the deployment is paused or has no ready worker, instead of piling up late
    runs."""

    rules = (
        Rule(
            f"self.parameters.all(name, name.matches('{_PARAMETER}'))",
            "write the names of the flow's parameters, such as video_id: letters, digits and _, at most 100",
            lambda prefect: all(re.fullmatch(_PARAMETER, name) for name in prefect.parameters),
            field="parameters",
        ),
        Rule(
            "self.videoIdParameter in self.parameters",
            'write the parameter that videoIdParameter names, such as video_id: "{id}"',
            lambda prefect: prefect.video_id_parameter in prefect.parameters,
            field="parameters",
        ),
    )


class Limits(Block):
    """How much a scan may do. What is over a limit waits for a later scan."""

    per_scan: Annotated[int, number(1, 10_000)] = Field(default=500, examples=[50])
    """How many videos one scan recovers at most."""

    per_tenant: Annotated[int, number(1, 10_000)] = Field(default=100, examples=[10])
    """How many videos of one tenant one scan recovers at most. The scan's budget is shared fairly between tenants, the
    oldest videos of each first."""

    active: Annotated[int, number(1, 100_000)] = Field(default=1000, examples=[200])
    """How many recoveries of this policy may be in flight, that is created and not yet ended."""


class Retry(Block):
    """How often, and how soon, a video is recovered again that is stuck again."""

    max_attempts: Annotated[int, number(1, 20)] = Field(default=3, examples=[5])
    """How many recoveries of one video within window before it is quarantined, that is left alone until somebody asks
    for it."""

    window: Annotated[timedelta, Between("1m", "8760h")] = Field(default=timedelta(hours=72), examples=["24h"])
    """How far back attempts count."""

    backoff: Annotated[timedelta, Between("1m", "168h")] = Field(default=timedelta(minutes=15), examples=["30m"])
    """How long to wait before the second attempt. It doubles with each further one, with some jitter."""

    max_backoff: Annotated[timedelta, Between("1m", "168h")] = Field(default=timedelta(hours=6), examples=["12h"])
    """The longest wait between two attempts."""

    rules = (
        Rule(
            not_shorter("maxBackoff", "backoff"),
            "write a duration that is not shorter than retry.backoff",
            lambda retry: retry.max_backoff >= retry.backoff,
            field="maxBackoff",
        ),
        Rule(
            not_shorter("window", "backoff"),
            "write a duration that is not shorter than retry.backoff: otherwise no attempt would ever count",
            lambda retry: retry.window >= retry.backoff,
            field="window",
        ),
    )


_CRON_LINE = "^[A-Za-z0-9*,/#-]+( +[A-Za-z0-9*,/#-]+){4}$"
_ZONE_ADVICE = "write an IANA time zone such as Etc/UTC or Europe/Berlin"


class PolicySpec(Block):
    """What to look for, where, and what to do about it."""

    schedule: Annotated[
        str,
        text(100),
        Rule(
            "!self.contains('TZ=')",
            "write five fields without TZ= or CRON_TZ=, and the zone in spec.timeZone",
            lambda schedule: "TZ=" not in schedule,
        ),
        Rule(
            "!self.startsWith('@')",
            'write five fields instead of a macro, such as "0 * * * *" instead of @hourly',
            lambda schedule: not schedule.startswith("@"),
        ),
        Rule(
            f"self.contains('TZ=') || self.startsWith('@') || self.matches('{_CRON_LINE}')",
            'write five fields, minute, hour, day of month, month and day of week, such as "*/15 * * * *"',
            lambda schedule: re.fullmatch(_CRON_LINE, schedule) is not None,
        ),
    ] = Field(default="*/15 * * * *", examples=["0 3 * * MON-FRI"])
    """When to scan: a cron line of five fields (minute, hour, day of month, month, day of week), read in timeZone."""

    time_zone: Annotated[
        str,
        text(64),
        matching("^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$", _ZONE_ADVICE),
        Rule(
            "!(self.lowerAscii() in ['local', 'localtime'])",
            f"{_ZONE_ADVICE}: the controller has no local time",
            lambda zone: zone.lower() not in {"local", "localtime"},
        ),
    ] = Field(default="Etc/UTC", examples=["Europe/Berlin"])
    """The IANA time zone in which schedule is read."""

    starting_deadline: Annotated[timedelta, Between("0s", "24h")] = Field(
        default=timedelta(minutes=10), examples=["1h"]
    )
    """A scan that was missed by less than this, because no controller was there, is caught up once. 0s: never."""

    suspend: StrictBool = Field(default=False, examples=[True])
    """Whether scheduled scans are suspended. Scans requested by annotation still run."""

    mode: Mode = Field(default=Mode.ENFORCE, examples=["Observe"])
    """What a scan does. Enforce: decide and recover. Observe: decide and report, create nothing."""

    stuck: Stuck = Stuck()
    """Which videos count as stuck."""

    supabase: Supabase = Field(examples=["{secretRef: {name: captionacc-credentials}}"])
    """Where the videos are."""

    upload: Upload | None = Field(default=None, examples=[{"bucket": "videos", "objectPath": "{tenant_id}/{id}.mp4"}])
    """How to tell whether a video's file is there yet. A video without its file is not recovered. Not set: nobody
    looks, and a video that still uploads is recovered like any other."""

    prefect: Prefect = Field(
        examples=["{secretRef: {name: captionacc-credentials}, deployment: process-video/production}"]
    )
    """What recovers a video: a run of a Prefect deployment."""

    limits: Limits = Limits()
    """How much a scan may do. What is over a limit waits for a later scan."""

    retry: Retry = Retry()
    """How often, and how soon, a video is recovered again that is stuck again."""

    history_limit: Annotated[int, number(0, 100)] = Field(default=10, examples=[30])
    """How many scans status.history keeps."""

    rules = (
        Rule(
            "!(self.prefect.videoIdParameter in self.prefect.parameters)"
            " || self.prefect.parameters[self.prefect.videoIdParameter]"
            " == '{' + self.supabase.columns.id + '}'",
            "write the id column, and nothing else, for the parameter that videoIdParameter names, such as"
            ' video_id: "{id}"; otherwise a run could not be found again',
            lambda spec: spec.prefect.parameters[spec.prefect.video_id_parameter] == f"{{{spec.supabase.columns.id}}}",
            field="prefect.parameters",
        ),
    )


def placeholders(template: str) -> tuple[str, ...]:
    """The columns that a template names, each once, in order."""
    return tuple(dict.fromkeys(re.findall(r"\{([^{}]*)\}", template)))
