"""`video-recovery retry`: what it says, what it does, and how it ends."""

import subprocess
from datetime import timedelta

import pytest
from syrupy.assertion import SnapshotAssertion

from controller.flow_runs import idempotency_key
from tests.integration.conftest import Scene
from tests.support import DEPLOYMENT, policy, scan
from tests.terminal import PROGRAM, stable, video_id
from tests.waiting import PATIENCE

pytestmark = pytest.mark.integration


def recoveries(scene: Scene) -> list[str]:
    """The videos for which there is a recovery."""
    runs = scene.prefect.flow_runs()
    return sorted(run["parameters"]["video_id"] for run in runs if "recovery" in run["tags"])


def test_retries_what_a_scan_would_recover_and_tells_of_each_video(night: Scene, snapshot: SnapshotAssertion):
    assert stable(night.run("retry")) == snapshot
    assert recoveries(night) == [video_id(1), video_id(2)]


def test_a_second_time_it_triggers_nothing(night: Scene):
    night.run("retry")
    again = night.run("retry")

    assert again.code == 0
    assert "Successfully triggered: 0" in again.out
    assert recoveries(night) == [video_id(1), video_id(2)]


def test_a_dry_run_shows_the_same_and_changes_nothing(night: Scene, snapshot: SnapshotAssertion):
    assert stable(night.run("retry", "--dry-run")) == snapshot
    assert recoveries(night) == []


def test_nothing_stuck_is_good_news(scene: Scene, snapshot: SnapshotAssertion):
    assert stable(scene.run("retry")) == snapshot


def test_arrives_at_the_same_key_as_the_controller(night: Scene):
    night.run("retry", "--video-id", video_id(1))

    flow = night.prefect.deployment(DEPLOYMENT)["flow_id"]
    keys = [run["idempotency_key"] for run in night.prefect.flow_runs()]
    assert idempotency_key(flow, video_id(1), 1) in keys


async def test_a_controller_beside_it_does_not_recover_a_video_again(night: Scene):
    night.run("retry")
    outcome = await scan(policy(), {**night.supabase.env(), **night.prefect.env()})

    assert outcome.recovered == []
    assert recoveries(night) == [video_id(1), video_id(2)]


# By name


def test_retries_only_the_videos_that_are_named(night: Scene):
    night.insert(8)
    said = night.run("retry", "--video-id", video_id(2), "--video-id", video_id(8))

    assert said.code == 0
    assert recoveries(night) == [video_id(2), video_id(8)]


def test_tells_an_unknown_video_from_those_that_are_not_stuck(night: Scene, snapshot: SnapshotAssertion):
    arguments = [f"--video-id={each}" for each in (*map(video_id, (5, 6, 7, 99)), "not-a-uuid")]

    assert stable(night.run("retry", *arguments)) == snapshot
    assert recoveries(night) == []


def test_a_video_that_is_not_stuck_is_no_failure(night: Scene):
    assert night.run("retry", "--video-id", video_id(7)).code == 0


def test_lifts_the_back_off_of_a_video_that_is_named(night: Scene):
    night.run("retry", "--video-id", video_id(1))
    [run] = [run for run in night.prefect.flow_runs() if "recovery" in run["tags"]]
    night.prefect.set_state(run["id"], "CRASHED")
    night.prefect.backdate(run["id"], timedelta(minutes=10))

    assert "BackingOff 1" in night.run("retry", "--dry-run").out
    assert "Successfully triggered: 1" in night.run("retry", "--video-id", video_id(1)).out


# How it ends


def test_a_video_that_cannot_be_recovered_is_a_failure_and_keeps_none_of_the_others(night: Scene):
    night.insert(9, created_at="-infinity")

    said = night.run("retry")

    assert said.code == 1
    assert f"✗ Failed to trigger flow for video {video_id(9)}: InvalidRow (" in said.out
    assert "Failed:                 1  (InvalidRow 1)" in said.out
    assert recoveries(night) == [video_id(1), video_id(2)]


def test_a_service_that_is_down_is_named_and_nothing_is_lost(night: Scene):
    closed = {**night.env, "PREFECT_API_URL": "http://127.0.0.1:9/api"}

    said = night.run("retry", env=closed)

    assert said.code == 1
    assert "Error: Prefect cannot be reached" in said.err
    assert "Traceback" not in said.err
    assert "Skipped:                4  (Interrupted 4)" in said.out


def test_a_reader_that_goes_away_stops_nothing_half_way(night: Scene):
    shell = f"{PROGRAM} retry | head -n 1"
    finished = subprocess.run(["bash", "-c", shell], env=night.env, capture_output=True, text=True, timeout=PATIENCE)

    assert "Traceback" not in finished.stderr
    assert len(recoveries(night)) in {0, 1, 2}
    assert night.run("retry").code == 0
    assert recoveries(night) == [video_id(1), video_id(2)]


def test_an_observing_policy_triggers_nothing(night: Scene):
    path = night.write_policy(mode="Observe")

    said = night.run("retry", "-f", str(path))

    assert said.code == 0
    assert "ObserveMode 2" in said.out
    assert recoveries(night) == []
