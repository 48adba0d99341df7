"""One scan against a real Supabase (PostgreSQL, PostgREST) and a real Prefect server."""

import pytest

from controller.decisions.decision import SkipReason
from devstack import Prefect, Supabase
from tests.support import DEPLOYMENT, ago, policy, reasons, recovered, scan, stuck_videos

pytestmark = pytest.mark.integration


@pytest.fixture
def environment(supabase: Supabase, prefect: Prefect) -> dict[str, str]:
    return {**supabase.env(), **prefect.env()}


async def test_recovers_a_stuck_video_once_with_its_parameters_and_tag(environment, supabase, prefect):
    [video] = stuck_videos(supabase, 1)

    first = await scan(policy(), environment)
    second = await scan(policy(), environment)

    assert first.error is None
    assert recovered(first) == [video]
    assert reasons(second) == {SkipReason.ACTIVE_FLOW_RUN: 1}
    [run] = prefect.flow_runs()
    assert run["parameters"] == {
        "video_id": video,
        "tenant_id": "tenant",
        "storage_key": f"tenant/client/videos/{video}/video.mp4",
    }
    assert "recovery" in run["tags"]


async def test_asks_supabase_once_and_prefect_never_when_nothing_is_stuck(environment, supabase):
    supabase.insert_videos([{"status": "ready", "created_at": ago(hours=1)}])
    supabase.reset_requests()

    outcome = await scan(policy(), {**environment, "PREFECT_API_URL": "http://127.0.0.1:9/api"})

    assert outcome.error is None
    assert outcome.stuck == []
    assert len(supabase.requests) == 1


async def test_leaves_alone_what_is_young_deleted_or_in_another_status(environment, supabase, prefect):
    stuck_videos(supabase, 1, created_at=ago(minutes=9))
    stuck_videos(supabase, 1, deleted_at=ago(minutes=1))
    stuck_videos(supabase, 1, status="ready")

    outcome = await scan(policy(), environment)

    assert outcome.stuck == []
    assert prefect.count_flow_runs() == 0


@pytest.mark.parametrize("state", ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"])
async def test_skips_a_video_with_an_active_flow_run(environment, supabase, prefect, state):
    [video] = stuck_videos(supabase, 1)
    prefect.create_flow_run(prefect.create_deployment(DEPLOYMENT), state, parameters={"video_id": video})

    outcome = await scan(policy(), environment)

    assert reasons(outcome) == {SkipReason.ACTIVE_FLOW_RUN: 1}


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"])
async def test_skips_a_video_whose_flow_run_ended_only_just(environment, supabase, prefect, state):
    [video] = stuck_videos(supabase, 1)
    prefect.create_flow_run(prefect.create_deployment(DEPLOYMENT), state, parameters={"video_id": video})

    outcome = await scan(policy(), environment)

    assert reasons(outcome) == {SkipReason.RECENTLY_PROCESSED: 1}


async def test_pages_through_a_table_that_postgrest_cuts_silently(environment, supabase, prefect):
    # All have the same time, so the pages have to go on by id; 1,000 rows are the server's cut.
    created_at = ago(hours=2)
    videos = stuck_videos(supabase, 1100, created_at=created_at)
    supabase.reset_requests()

    outcome = await scan(policy(mode="Observe"), environment)

    assert {video.id for video in outcome.stuck or ()} == set(videos)
    assert len(supabase.requests) == 3
    assert prefect.count_flow_runs() == 0


async def test_sees_every_active_run_among_hundreds_that_share_one_start_time(environment, supabase, prefect):
    deployment = prefect.create_deployment(DEPLOYMENT)
    videos = stuck_videos(supabase, 450)
    noon = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2099-01-01T12:00:00Z"}}
    runs = [{"parameters": {"video_id": video}, "state": noon} for video in videos]
    for start in range(0, len(runs), 100):
        prefect._create_batch(deployment.id, runs[start : start + 100])

    outcome = await scan(policy(), environment)

    assert reasons(outcome) == {SkipReason.ACTIVE_FLOW_RUN: 450}


async def test_recovers_a_backlog_in_batches_and_only_up_to_the_scan_limit(environment, supabase, prefect):
    videos = [stuck_videos(supabase, 1, created_at=ago(hours=500 - n))[0] for n in range(250)]

    outcome = await scan(policy(limits={"perScan": 240, "perTenant": 500}), environment)

    assert recovered(outcome) == videos[:240]
    assert reasons(outcome) == {SkipReason.OVER_SCAN_LIMIT: 10}
    assert prefect.count_flow_runs() == 240
