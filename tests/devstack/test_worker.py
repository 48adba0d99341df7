"""A real worker processes videos."""

from collections.abc import Iterator
from functools import partial

import pytest

from devstack import Prefect, Supabase, Worker
from tests.conftest import serve, steady_prefect
from tests.waiting import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def own_prefect() -> Iterator[Prefect]:
    """Not the one that other tests share: there nothing polls the pool but them."""
    yield from serve(steady_prefect())


def status(supabase: Supabase) -> str:
    (row,) = supabase.query("select status from captionacc.videos")
    return str(row["status"])


def state_of(prefect: Prefect, run: str) -> str:
    return str(prefect.flow_run(run)["state_type"])


def run_for(worker: Worker, prefect: Prefect, video: str) -> str:
    parameters = {"video_id": video, "tenant_id": "tenant", "storage_key": f"tenant/client/videos/{video}/video.mp4"}
    return prefect.create_flow_run(worker.deployment, parameters=parameters, work_queue_name="recovery")


@pytest.mark.parametrize("key", ["service_role_key", "secret_key"])
def test_processes_a_video(supabase: Supabase, own_prefect: Prefect, key: str) -> None:
    with Worker.start(own_prefect, supabase.env(getattr(supabase, key))) as worker:
        (video,) = supabase.insert_videos([{"status": "uploading", "tenant_id": "tenant"}])
        run = run_for(worker, own_prefect, video)
        state = partial(state_of, own_prefect, run)
        wait_for(lambda: state() == "COMPLETED", what="the flow to complete", seen=state)
        assert status(supabase) == "ready"


def test_a_killed_worker_leaves_its_run_running_and_its_video_in_processing(
    supabase: Supabase, own_prefect: Prefect
) -> None:
    with Worker.start(own_prefect, supabase.env(), processing_seconds=60) as worker:
        (video,) = supabase.insert_videos([{"status": "pending", "tenant_id": "tenant"}])
        run = run_for(worker, own_prefect, video)
        wait_for(lambda: status(supabase) == "processing", what="the flow to begin", seen=lambda: status(supabase))
        worker.kill()
    assert state_of(own_prefect, run) == "RUNNING"
