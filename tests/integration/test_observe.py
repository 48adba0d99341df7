"""Observe mode writes nothing, to no service: every request is one that only reads, and nothing is changed by it."""

import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.adapters import instrumentation
from controller.decisions.decision import Failure, Skip, SkipReason
from controller.flow_runs import idempotency_key
from controller.outcome import Outcome
from devstack import Prefect, Supabase
from tests import proxy
from tests.conftest import serve, steady_prefect
from tests.proxy import Proxy, Request
from tests.support import DEPLOYMENT, ago, policy, scan, stuck_videos
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

READ_ONLY = re.compile(
    r"GET /.*"
    r"|POST /api/flow_runs/filter"
    r"|POST /api/events/filter"
    r"|POST /storage/v1/object/sign/[^/]+"  # asks for download links, which is how many files are asked for at once
)

BUCKET = "videos"
SPEC: dict[str, Any] = {
    "stuck": {"abandonedRunAfter": "6h", "abandonedRunAction": "Replace"},
    "upload": {"bucket": BUCKET, "objectPath": "{tenant_id}/{id}.mp4"},
    "limits": {"perTenant": 3, "active": 1000, "perScan": 1000},
}


@pytest.fixture(scope="module")
def quick_prefect() -> Iterator[Prefect]:
    """A server of its own that shows an event at once and not after five seconds."""
    settings = {"PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.1"}
    yield from serve(steady_prefect(settings=settings))


@dataclass
class Scene:
    """Videos for every decision that there is."""

    supabase: Supabase
    prefect: Prefect

    def __post_init__(self) -> None:
        self.deployment = self.prefect.create_deployment(DEPLOYMENT)
        self.supabase.clear_storage()
        self.supabase.create_bucket(BUCKET)
        self.prefect.pretend_worker()
        self.expected: dict[str, SkipReason | None] = {}

    def video(self, reason: SkipReason | None, *, uploaded: bool = True, **columns: object) -> str:
        """A stuck video and what a scan has to say of it; `None`: recover it."""
        [video] = stuck_videos(self.supabase, 1, **{"tenant_id": f"tenant-{len(self.expected)}", **columns})
        [row] = self.supabase.query("select tenant_id from captionacc.videos where id = %s", [video])
        if uploaded:
            self.supabase.upload(BUCKET, f"{row['tenant_id']}/{video}.mp4")
        self.expected[video] = reason
        return video

    def run(self, video: str, state: str, *, age: timedelta, attempt: int | None = None, **fields: Any) -> str:
        """A run of a video in a state since a while; one of ours if it has an attempt."""
        if attempt is not None:
            fields["idempotency_key"] = idempotency_key(self.deployment.flow_id, video, attempt)
        run = self.prefect.create_flow_run(self.deployment, state, parameters={"video_id": video}, **fields)
        self.prefect.backdate(run, age)
        return run

    def heartbeat(self, run: str) -> None:
        """A sign of life of a run, as its process sends it."""
        event = {
            "id": str(uuid.uuid4()),
            "event": "prefect.flow-run.heartbeat",
            "occurred": datetime.now(UTC).isoformat(),
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        }
        self.prefect.http.post("events", json=[event]).raise_for_status()
        wanted = {"event": {"name": [event["event"]]}}
        wait_for(
            lambda: self.prefect.http.post("events/filter", json={"filter": wanted}).json()["total"],
            what="the heartbeat to be readable",
        )

    def dump(self) -> dict[str, object]:
        """Everything that a scan could change."""
        runs = sorted(self.prefect.flow_runs(), key=lambda run: str(run["id"]))
        # What the server works out anew for each answer is not part of a run.
        volatile = ("estimated_run_time", "estimated_start_time_delta", "total_run_time")
        return {
            "runs": [{name: value for name, value in run.items() if name not in volatile} for run in runs],
            "states": [self.prefect.http.get(f"flow_run_states/?flow_run_id={run['id']}").json() for run in runs],
            "deployment": self.prefect.deployment(DEPLOYMENT)["updated"],
            "videos": self.supabase.query("select * from captionacc.videos order by id"),
        }


@pytest.fixture
def scene(supabase: Supabase, quick_prefect: Prefect) -> Iterator[Scene]:
    scene, week = Scene(supabase, quick_prefect), timedelta(days=7)
    scene.video(None)
    scene.video(SkipReason.UPLOAD_IN_PROGRESS, uploaded=False)
    scene.video(SkipReason.UPLOAD_ABANDONED, uploaded=False, created_at=ago(days=2))
    scene.run(scene.video(SkipReason.ACTIVE_FLOW_RUN), "PAUSED", age=timedelta(minutes=20))
    scene.run(scene.video(SkipReason.RECENTLY_PROCESSED), "COMPLETED", age=timedelta(minutes=2))
    at_work = scene.run(scene.video(SkipReason.ACTIVE_FLOW_RUN), "RUNNING", age=timedelta(hours=7))
    scene.heartbeat(at_work)
    scene.run(scene.video(None), "SCHEDULED", age=timedelta(hours=7), state_name="Late")
    scene.run(scene.video(None), "FAILED", age=timedelta(hours=7), attempt=1)
    scene.run(scene.video(None), "FAILED", age=week, attempt=1)
    scene.run(scene.video(SkipReason.BACKING_OFF), "FAILED", age=timedelta(minutes=6), attempt=1)
    quarantined = scene.video(SkipReason.QUARANTINED)
    for attempt in (1, 2, 3):
        scene.run(quarantined, "CRASHED", age=timedelta(hours=30 - attempt), attempt=attempt)
    for hours in range(5, 0, -1):
        scene.video(SkipReason.OVER_TENANT_LIMIT if hours < 3 else None, tenant_id="many", created_at=ago(hours=hours))
    yield scene
    quick_prefect.clear_flow_runs()
    supabase.clear_storage()


@pytest.fixture
async def proxies(scene: Scene) -> AsyncIterator[tuple[Proxy, Proxy]]:
    async with AsyncExitStack() as stack:
        upstreams = (scene.supabase.url, f"http://127.0.0.1:{scene.prefect.port}")
        to_supabase, to_prefect = [await stack.enter_async_context(proxy.serve(upstream)) for upstream in upstreams]
        yield to_supabase, to_prefect


def environment(scene: Scene, proxies: tuple[Proxy, Proxy]) -> dict[str, str]:
    to_supabase, to_prefect = proxies
    return {**scene.supabase.env(), "SUPABASE_URL": to_supabase.url, "PREFECT_API_URL": f"{to_prefect.url}/api"}


def line(request: Request) -> str:
    return f"{request.method} {request.path}"


def said(outcome: Outcome) -> dict[str, SkipReason | None]:
    """What a scan concluded of each video; `None` where it recovers it, or would."""
    concluded: dict[str, SkipReason | None] = {}
    for result in outcome.results:
        assert not isinstance(result, Failure)
        skipped = isinstance(result, Skip) and result.reason is not SkipReason.OBSERVE_MODE
        concluded[result.video_id] = result.reason if isinstance(result, Skip) and skipped else None
    return concluded


async def test_sends_only_requests_that_read_and_changes_nothing(scene, proxies):
    before = scene.dump()

    outcome = await scan(policy(mode="Observe", **SPEC), environment(scene, proxies))

    sent = Counter(line(request) for between in proxies for request in between.requests)
    assert outcome.error is None
    assert [request for request in sent if not READ_ONLY.fullmatch(request)] == []
    assert scene.dump() == before
    assert sent["POST /api/events/filter"] == sent["POST /storage/v1/object/sign/videos"] == 1, "all there is to ask"


async def test_decides_as_in_enforce_mode_where_the_same_proof_finds_the_writes(scene, proxies):
    now = datetime.now(UTC)

    observed = await scan(policy(mode="Observe", **SPEC), environment(scene, proxies), now=now)
    for between in proxies:
        between.requests.clear()
    before = scene.dump()
    enforced = await scan(policy(**SPEC), environment(scene, proxies), now=now)

    assert said(observed) == scene.expected
    assert said(enforced) == scene.expected
    would = {skip.video_id: skip.detail.partition(" would")[0] for skip in observed.results if isinstance(skip, Skip)}
    assert {would[each.video_id] for each in enforced.recovered} == {"attempt 1", "attempt 2"}
    assert {each.video_id: f"attempt {each.attempt}" for each in enforced.recovered}.items() <= would.items()
    sent = {line(request) for between in proxies for request in between.requests}
    writes = sorted(request for request in sent if not READ_ONLY.fullmatch(request))
    assert [re.sub(r"[0-9a-f-]{36}", "…", write) for write in writes] == [
        "POST /api/deployments/…/create_flow_run/bulk",
        "POST /api/flow_runs/…/set_state",
    ]
    assert scene.dump() != before


async def test_every_request_passes_the_edge_where_writes_are_seen(scene, proxies):
    passed: Counter[str] = Counter()

    def note(moment: instrumentation.Moment, what: str) -> None:
        if moment is instrumentation.Moment.BEFORE:
            passed[what.split(" ", 1)[1]] += 1

    instrumentation.watch(note)
    try:
        await scan(policy(mode="Observe", **SPEC), environment(scene, proxies))
    finally:
        instrumentation._hooks.remove(note)

    assert passed == Counter(line(request) for between in proxies for request in between.requests)
