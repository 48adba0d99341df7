"""A video in each situation that a scan can meet, put into the real table and the real Prefect."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from devstack import Deployment, Prefect, Supabase


@dataclass(frozen=True, slots=True)
class Situation:
    """One video and what is the matter with it.

    Attributes:
        flow_run: The type of the state in which Prefect has a flow run for it; `None` for no flow run.
    """

    name: str
    story: str
    status: str
    age: timedelta
    tenant: str = "acme"
    deleted: bool = False
    flow_run: str | None = None
    id: str = ""

    def with_id(self) -> "Situation":
        """The same with an id of its own."""
        return Situation(**{**{name: getattr(self, name) for name in self.__slots__}, "id": str(uuid.uuid4())})


SITUATIONS = (
    Situation("holiday.mp4", "stuck: its Realtime event was missed", "uploading", timedelta(days=2)),
    Situation("lecture-01.mp4", "stuck: the deployment did not exist yet", "pending", timedelta(hours=5), "globex"),
    Situation("lecture-02.mp4", "stuck: the API was down", "pending", timedelta(minutes=47), "globex"),
    Situation("interview.mp4", "stuck: nobody knows why", "pending", timedelta(minutes=12)),
    Situation("concert.mp4", "being processed", "pending", timedelta(minutes=30), flow_run="RUNNING"),
    Situation("keynote.mp4", "waits for a worker", "pending", timedelta(minutes=25), flow_run="SCHEDULED"),
    Situation("trailer.mp4", "its flow run ended a moment ago", "uploading", timedelta(hours=1), flow_run="COMPLETED"),
    Situation("selfie.mp4", "too young to be stuck", "uploading", timedelta(minutes=3)),
    Situation("mistake.mp4", "deleted by its owner", "pending", timedelta(hours=3), deleted=True),
    Situation("wedding.mp4", "processed long ago", "ready", timedelta(days=9), "globex"),
)


def create(supabase: Supabase, prefect: Prefect, deployment: Deployment) -> list[Situation]:
    """Put every situation into the database, with its flow run into Prefect; what was in either is gone."""
    supabase.execute("truncate captionacc.videos")
    prefect.clear_flow_runs()
    now = datetime.now(UTC)
    situations = [situation.with_id() for situation in SITUATIONS]
    supabase.insert_videos(
        [
            {
                "id": situation.id,
                "display_path": situation.name,
                "tenant_id": situation.tenant,
                "status": situation.status,
                "created_at": (now - situation.age).isoformat(),
                "deleted_at": now.isoformat() if situation.deleted else None,
            }
            for situation in situations
        ]
    )
    for situation in situations:
        if situation.flow_run == "SCHEDULED":
            later = {"type": "SCHEDULED", "state_details": {"scheduled_time": (now + timedelta(hours=1)).isoformat()}}
            body = {"parameters": {"video_id": situation.id}, "state": later}
            prefect.http.post(f"deployments/{deployment.id}/create_flow_run", json=body).raise_for_status()
        elif situation.flow_run is not None:
            prefect.create_flow_run(deployment, situation.flow_run, parameters={"video_id": situation.id})
    return situations


def table(situations: list[Situation], statuses: dict[str, str]) -> str:
    """The videos as lines: name, id, status now, age, what is the matter."""
    lines = [("VIDEO", "ID", "STATUS", "AGE", "SITUATION")]
    lines += [(s.name, s.id, statuses[s.id], _age(s.age), s.story) for s in situations]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join("  ".join((*(t.ljust(w) for t, w in zip(line, widths, strict=False)), line[4])) for line in lines)


def _age(age: timedelta) -> str:
    minutes = int(age.total_seconds() // 60)
    return f"{minutes // 1440}d" if minutes >= 1440 else f"{minutes // 60}h" if minutes >= 60 else f"{minutes}m"
