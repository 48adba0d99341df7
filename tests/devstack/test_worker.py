"""A real worker processes videos."""

import time
from collections.abc import Callable, Iterator

import pytest

from devstack import Prefect, Supabase, Worker

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def own_prefect() -> Iterator[Prefect]:
    """Not the one that other tests share: there nothing polls the pool but them."""
    with Prefect.start() as server:
        yield server


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not (reached := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return reached


def status(supabase: Supabase) -> str:
    (row,) = supabase.query("select status from captionacc.videos")
    return str(row["status"])


def run_for(worker: Worker, prefect: Prefect, video: str) -> str:
    parameters = {"video_id": video, "tenant_id": "tenant", "storage_key": f"tenant/client/videos/{video}/video.mp4"}
    return prefect.create_flow_run(worker.deployment, parameters=parameters, work_queue_name="recovery")


@pytest.mark.parametrize("key", ["service_role_key", "secret_key"])
def test_processes_a_video(supabase: Supabase, own_prefect: Prefect, key: str) -> None:
    with Worker.start(own_prefect, supabase.env(getattr(supabase, key))) as worker:
        (video,) = supabase.insert_videos([{"status": "uploading", "tenant_id": "tenant"}])
        run = run_for(worker, own_prefect, video)
        assert eventually(lambda: own_prefect.flow_run(run)["state_type"] == "COMPLETED")
        assert status(supabase) == "ready"


def test_a_killed_worker_leaves_its_run_running_and_its_video_in_processing(
    supabase: Supabase, own_prefect: Prefect
) -> None:
    with Worker.start(own_prefect, supabase.env(), processing_seconds=60) as worker:
        (video,) = supabase.insert_videos([{"status": "pending", "tenant_id": "tenant"}])
        run = run_for(worker, own_prefect, video)
        assert eventually(lambda: status(supabase) == "processing")
        worker.kill()
    assert own_prefect.flow_run(run)["state_type"] == "RUNNING"
