"""`video-recovery explain`: why was my video not retried?"""

import pytest
from syrupy.assertion import SnapshotAssertion

from tests.integration.conftest import Scene
from tests.terminal import stable, video_id

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(1, id="that_would_be_recovered"),
        pytest.param(3, id="that_a_flow_run_works_on"),
        pytest.param(4, id="whose_flow_run_just_ended"),
        pytest.param(5, id="that_is_too_young"),
        pytest.param(6, id="that_is_deleted"),
        pytest.param(7, id="that_is_ready"),
    ],
)
def test_goes_through_every_check_of_a_video(night: Scene, snapshot: SnapshotAssertion, number):
    assert stable(night.run("explain", "--video-id", video_id(number))) == snapshot


def test_also_tells_what_a_scan_would_not_come_to(night: Scene, snapshot: SnapshotAssertion):
    night.supabase.create_bucket("videos")
    policy = night.write_policy(
        upload={"bucket": "videos", "objectPath": "{tenant_id}/{id}.mp4"}, stuck={"abandonedRunAfter": "6h"}
    )

    said = night.run("explain", "-f", str(policy), "--video-id", video_id(3))

    assert stable(said, names={str(policy): "policy.yaml"}) == snapshot


def test_a_limit_is_the_verdict_where_no_check_objects(night: Scene):
    policy = night.write_policy(limits={"perScan": 1})

    said = night.run("explain", "-f", str(policy), "--video-id", video_id(2))

    assert "✗" not in said.out
    assert "A scan would leave it alone: OverScanLimit" in said.out


def test_says_that_the_policy_is_suspended(night: Scene):
    policy = night.write_policy(suspend=True)

    said = night.run("explain", "-f", str(policy), "--video-id", video_id(1))

    assert "But the policy is suspended" in said.out


def test_a_video_that_does_not_exist_is_an_error(night: Scene):
    said = night.run("explain", "--video-id", video_id(99))

    assert (said.code, said.out) == (1, "")
    assert f"Error: table captionacc.videos has no video {video_id(99)}" in said.err
    assert "find -o name" in said.err


def test_creates_nothing(night: Scene):
    before = night.prefect.count_flow_runs()
    night.run("explain", "--video-id", video_id(1))

    assert night.prefect.count_flow_runs() == before
