"""Is the file there? Asked for as few videos as possible, once a scan, and nothing is recovered where nobody knows."""

from datetime import timedelta

import pytest

from controller.decisions.decision import FailureReason, SkipReason
from controller.errors import ConfigurationError, ErrorReason, Service
from controller.flow_runs import Deployment
from controller.ports import BATCH
from controller.schedule import ScanRequest, Trigger
from tests.unit.fakes import flow_run, raising, row, unavailable
from tests.unit.scanning import detail, leaves, results, rows, scan
from tests.world.world import World

UPLOAD = {"bucket": "videos", "objectPath": "{tenant_id}/{id}.mp4", "abandonedAfter": "2000h"}
HOUR = timedelta(hours=1)


def path(n: int) -> str:
    return f"t{n:04}/v{n:04}.mp4"


async def test_asks_once_for_the_files_of_all_videos_before_the_first_run_is_created():
    world = World(rows(3), files={path(0), path(2)})

    outcome = await scan(world, upload=UPLOAD)

    assert results(outcome) == {"v0000": "Recovered", "v0001": SkipReason.UPLOAD_IN_PROGRESS, "v0002": "Recovered"}
    assert world.asked["existing_files"] == [path(0), path(1), path(2)]
    assert world.steps.count("existing_files") == 1
    assert world.steps.index("recoveries") < world.steps.index("existing_files") < world.steps.index("create")


async def test_asks_once_however_many_videos_there_are():
    count = 3 * BATCH
    world = World(rows(count), files={path(n) for n in range(count)})

    await scan(world, upload=UPLOAD)

    assert len(world.created) == count
    assert world.steps.count("existing_files") == 1


async def test_asks_for_no_file_where_the_policy_does_not_look():
    world = World(rows(1))

    assert results(await scan(world)) == {"v0000": "Recovered"}
    assert "existing_files" not in world.steps


async def test_asks_only_for_the_videos_that_nothing_else_speaks_against():
    attempts = [flow_run("v0003", "FAILED", ended=n * HOUR, attempt=4 - n) for n in (3, 2, 1)]
    world = World(
        rows(6),
        runs=[
            flow_run("v0000"),
            flow_run("v0001", "FAILED", ended=timedelta(minutes=1)),
            flow_run("v0002", created=HOUR),
            *attempts,
            flow_run("v0004", "FAILED", ended=timedelta(minutes=8), attempt=1),
        ],
    )

    outcome = await scan(world, upload=UPLOAD, stuck={"abandonedRunAfter": "30m"})

    assert world.asked["existing_files"] == [path(5)]
    assert results(outcome) == {
        "v0000": SkipReason.ACTIVE_FLOW_RUN,
        "v0001": SkipReason.RECENTLY_PROCESSED,
        "v0002": SkipReason.ABANDONED_RUN,
        "v0003": SkipReason.QUARANTINED,
        "v0004": SkipReason.BACKING_OFF,
        "v0005": SkipReason.UPLOAD_IN_PROGRESS,
    }


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(World(rows(2), runs=[flow_run("v0000"), flow_run("v0001")]), id="they_are_at_work"),
        pytest.param(World(rows(2), deployment=Deployment("d", "f", "paused", "DeploymentPaused")), id="they_are_held"),
        pytest.param(World([row("v1", tenant_id=None), row("v2", tenant_id="..")]), id="they_have_no_path"),
        pytest.param(World([]), id="there_are_none"),
    ],
)
async def test_asks_nothing_where_no_video_could_be_recovered(world):
    await scan(world, upload=UPLOAD)

    assert "existing_files" not in world.steps


async def test_asks_for_the_files_of_a_video_that_is_replaced():
    stuck = {"abandonedRunAfter": "30m", "abandonedRunAction": "Replace"}
    world = World(rows(1), runs=[flow_run("v0000", created=HOUR)])

    assert results(await scan(world, upload=UPLOAD, stuck=stuck)) == {"v0000": SkipReason.UPLOAD_IN_PROGRESS}
    assert "cancel" not in world.steps


async def test_asks_in_observe_mode_too():
    world = World(rows(2), files={path(0)})

    outcome = await scan(world, upload=UPLOAD, mode="Observe")

    assert results(outcome) == {"v0000": SkipReason.OBSERVE_MODE, "v0001": SkipReason.UPLOAD_IN_PROGRESS}
    assert world.asked["existing_files"] == [path(0), path(1)]


async def test_a_request_by_name_asks_for_one_file():
    world = World(rows(3), files={path(1)})

    outcome = await scan(world, request=ScanRequest(Trigger.REQUEST, token="t", video_ids=("v0001",)), upload=UPLOAD)

    assert results(outcome) == {"v0001": "Recovered"}
    assert world.asked["existing_files"] == [path(1)]


async def test_a_path_that_cannot_be_is_a_failure_of_its_video_alone():
    world = World([row("v1", tenant_id="../other"), row("v2")], files={"tenant/v2.mp4"})

    outcome = await scan(world, upload=UPLOAD)

    assert results(outcome) == {"v1": FailureReason.INVALID_ROW, "v2": "Recovered"}
    assert world.asked["existing_files"] == ["tenant/v2.mp4"]
    assert "'tenant_id'" in detail(outcome, "v1")


async def test_a_file_that_nobody_knows_of_is_given_up_after_a_while():
    world = World(rows(1))

    outcome = await scan(world, upload={**UPLOAD, "abandonedAfter": "24h"})

    assert results(outcome) == {"v0000": SkipReason.UPLOAD_ABANDONED}
    assert detail(outcome) == f"no file {path(0)} after 24h; upload it again"


async def test_two_videos_that_share_a_file_are_both_recovered():
    world = World([row("v1"), row("v2")], files={"tenant/video.mp4"})

    outcome = await scan(world, upload={**UPLOAD, "objectPath": "{tenant_id}/video.mp4"})

    assert results(outcome) == {"v1": "Recovered", "v2": "Recovered"}


@pytest.mark.parametrize(
    "error",
    [
        unavailable(Service.SUPABASE),
        ConfigurationError("create it", reason=ErrorReason.BUCKET_NOT_FOUND, service=Service.SUPABASE),
    ],
    ids=["unavailable", "no_bucket"],
)
async def test_where_nobody_knows_nothing_is_recovered(error):
    world = World(
        [*rows(2), row("bad", created_at=None)],
        runs=[flow_run("v0000")],
        files={path(1)},
        on={("existing_files", 1): raising(error)},
    )

    outcome = await scan(world, upload=UPLOAD)

    assert outcome.error is error
    assert world.created == []
    assert world.steps[-1] == "existing_files"
    assert results(outcome) == {
        "bad": FailureReason.INVALID_ROW,
        "v0000": SkipReason.INTERRUPTED,
        "v0001": SkipReason.INTERRUPTED,
    }


async def test_a_scan_that_could_not_ask_has_not_seen_what_became_of_earlier_recoveries():
    # It decided nothing: whoever was in quarantine still is, and the next scan settles.
    world = World(rows(1), on={("existing_files", 1): raising(unavailable(Service.SUPABASE))})

    assert (await scan(world, upload=UPLOAD)).snapshot is None


async def test_the_second_look_does_not_ask_for_files_again():
    world = World(rows(2), files={path(0), path(1)})
    world.on["still_stuck", 1] = lambda: leaves(world, "v0000")

    assert results(await scan(world, upload=UPLOAD)) == {"v0001": "Recovered"}
    assert world.steps.count("existing_files") == 1
