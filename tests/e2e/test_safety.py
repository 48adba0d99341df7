"""What keeps a policy safe, as its users see it with kubectl: attempts, limits, holds, uploads, abandoned runs."""

import re
from datetime import datetime, timedelta

import pytest

from tests.e2e.conftest import Namespace
from tests.support import DEPLOYMENT, stuck_videos

pytestmark = pytest.mark.e2e

AT_ONCE = {"stuck": {"recentRunWindow": "0s"}}


def run_of(namespace: Namespace, video: str) -> str:
    """The id of the last flow run of a video."""
    runs = [run for run in namespace.prefect.flow_runs() if run["parameters"].get("video_id") == video]
    return str(runs[-1]["id"])


def ends(namespace: Namespace, video: str, state: str) -> None:
    """The last flow run of a video ends, and a scan can know that it did: Prefect's clock, as it is told, says so."""
    run = run_of(namespace, video)
    namespace.prefect.set_state(run, state)
    namespace.prefect.wait_until_told(datetime.fromisoformat(namespace.prefect.flow_run(run)["end_time"]))


def is_ready(namespace: Namespace, *videos: str) -> None:
    """Videos have been processed."""
    namespace.supabase.execute("update captionacc.videos set status = 'ready' where id::text = any(%s)", [list(videos)])


def events(namespace: Namespace, reason: str) -> list[str]:
    return [message for _, found, message in namespace.events() if found == reason]


def shown(namespace: Namespace) -> dict[str, str]:
    """What `kubectl get -o wide` shows of the only policy, by the headings."""
    header, line = namespace.kubectl("get", "vrp", "-o", "wide").splitlines()
    headings = list(re.finditer(r"\S+(?: \S+)*", header))
    ends = [heading.start() for heading in headings[1:]] + [None]
    return {found[0]: line[found.start() : end].strip() for found, end in zip(headings, ends, strict=True)}


# Did it work?


def test_totals_say_which_recoveries_worked(namespace, controller, supabase):
    works, fails, goes_on = stuck_videos(supabase, 3)
    namespace.apply(**AT_ONCE)
    waited = namespace.request()["lastScan"]["waitTime"]
    is_ready(namespace, works)
    ends(namespace, fails, "FAILED")

    second = namespace.request()

    assert waited["median"].startswith("1h"), "the videos were created an hour ago"
    assert second["totals"] == {"scans": 2, "recovered": 3, "confirmed": 1, "failed": 1}
    assert second["lastScan"]["confirmations"] == {"confirmed": 1, "failed": 1}
    assert second["lastScan"]["reasons"] == {"ActiveFlowRun": 1, "BackingOff": 1}

    is_ready(namespace, goes_on, fails)
    supabase.reset_requests()

    third = namespace.request()

    assert third["totals"] == {"scans": 3, "recovered": 3, "confirmed": 2, "failed": 1}
    assert third["history"][0]["confirmations"] == {"confirmed": 1, "failed": 0}
    assert len(supabase.requests) == 1, "a scan with nothing stuck asks once, also where it settles recoveries"


# Attempts


def test_a_video_that_uses_up_its_attempts_is_quarantined_until_somebody_asks_for_it(namespace, controller, supabase):
    bad, good = stuck_videos(supabase, 2)
    namespace.apply(**AT_ONCE, retry={"maxAttempts": 1})
    namespace.request()
    ends(namespace, bad, "CRASHED")
    is_ready(namespace, good)

    quarantined = namespace.request()
    namespace.request()

    assert quarantined["quarantine"] == {"count": 1, "videos": [bad]}
    assert quarantined["lastScan"]["reasons"] == {"Quarantined": 1}
    assert "released at" in quarantined["lastScan"]["decisions"][0]["message"]
    [event] = events(namespace, "Quarantined")
    assert bad in event
    items = namespace.kubectl(
        "get", "events", "--field-selector=reason=Quarantined", "-o", "jsonpath={.items[*].count}"
    )
    assert items == "1", "it is said once"
    assert shown(namespace)["QUARANTINED"] == "1"

    released = namespace.request(requestedVideo=bad)

    assert released["lastScan"]["decisions"][0] | {"flowRun": ""} == {
        "video": bad,
        "decision": "Recovered",
        "attempt": 2,
        "flowRun": "",
    }
    assert released["quarantine"] == {"count": 0, "videos": []}
    assert shown(namespace)["QUARANTINED"] == "0"
    assert "video-recovery/released" in namespace.prefect.flow_run(run_of(namespace, bad))["tags"]


def test_a_video_that_failed_just_now_backs_off(namespace, controller, supabase, prefect):
    [video] = stuck_videos(supabase, 1)
    namespace.apply(**AT_ONCE)
    namespace.request()
    ends(namespace, video, "FAILED")

    assert namespace.request()["lastScan"]["reasons"] == {"BackingOff": 1}

    prefect.backdate(run_of(namespace, video), timedelta(minutes=16))
    again = namespace.request()

    assert again["lastScan"]["decisions"][0]["attempt"] == 2


# Limits and holds


def test_a_scan_keeps_to_each_limit_and_names_it(namespace, controller, supabase):
    stuck_videos(supabase, 4, tenant_id="a")
    stuck_videos(supabase, 2, tenant_id="b")
    namespace.apply(limits={"perTenant": 3, "perScan": 4, "active": 5})

    first, second = namespace.request(), namespace.request()

    assert (first["lastScan"]["recovered"], first["lastScan"]["reasons"]) == (
        4,
        {"OverTenantLimit": 1, "OverScanLimit": 1},
    )
    assert (second["lastScan"]["recovered"], second["lastScan"]["reasons"]) == (
        1,
        {"ActiveFlowRun": 4, "OverActiveLimit": 1},
    )


def test_after_a_hold_it_ramps_up(namespace, controller, supabase, prefect):
    stuck_videos(supabase, 30)
    namespace.apply(limits={"perScan": 20})
    prefect.create_deployment(DEPLOYMENT, paused=True)
    try:
        held = namespace.request()
    finally:
        prefect.create_deployment(DEPLOYMENT, paused=False)

    assert (held["lastScan"]["recovered"], held["rampUp"]) == (0, 2)

    recovered = [namespace.request()["lastScan"]["recovered"] for _ in range(4)]

    assert recovered == [2, 4, 8, 16]
    assert "rampUp" not in namespace.status()


# Uploads


def test_a_video_is_recovered_once_its_file_is_there(namespace, controller, supabase):
    there, uploading = stuck_videos(supabase, 2)
    [never] = stuck_videos(supabase, 1, created_at="2026-01-01T00:00:00Z")
    supabase.create_bucket("videos")
    supabase.upload("videos", f"tenant/{there}.mp4")
    namespace.apply(upload={"bucket": "videos", "objectPath": "{tenant_id}/{id}.mp4"})

    first = namespace.request()
    supabase.upload("videos", f"tenant/{uploading}.mp4")
    second = namespace.request()

    assert first["lastScan"]["reasons"] == {"UploadInProgress": 1, "UploadAbandoned": 1}
    assert [each["video"] for each in first["lastScan"]["decisions"]][:2] == [never, there]
    assert (second["lastScan"]["recovered"], second["lastScan"]["reasons"]) == (
        1,
        {"ActiveFlowRun": 1, "UploadAbandoned": 1},
    )


def test_a_bucket_that_is_missing_stalls_the_policy(namespace, controller):
    namespace.apply(upload={"bucket": "no-such-bucket", "objectPath": "{id}.mp4"})

    stalled = namespace.wait_condition("Stalled", "True", "BucketNotFound")

    assert "no-such-bucket" in stalled["message"]
    assert "spec.upload.bucket" in stalled["message"]


# Abandoned runs


@pytest.mark.parametrize(
    ("state", "action", "reasons", "after"),
    [
        pytest.param("RUNNING", "Report", {"AbandonedRun": 1}, "RUNNING", id="a_report_leaves_it_alone"),
        pytest.param("SCHEDULED", "Replace", {}, "CANCELLED", id="one_without_a_process_is_replaced_at_once"),
        pytest.param("RUNNING", "Replace", {"AbandonedRun": 1}, "CANCELLING", id="one_that_does_not_stop_is_reported"),
    ],
)
def test_an_abandoned_run(state, action, reasons, after, namespace, controller, supabase, prefect):
    [video] = stuck_videos(supabase, 1)
    run = prefect.create_flow_run(
        prefect.create_deployment(DEPLOYMENT),
        state,
        # As a run of that age is named; otherwise Prefect does it only now.
        state_name="Late" if state == "SCHEDULED" else None,
        parameters={"video_id": video},
    )
    prefect.backdate(run, timedelta(hours=7))
    namespace.apply(stuck={"abandonedRunAfter": "6h", "abandonedRunAction": action})

    status = namespace.request()

    assert status["lastScan"]["reasons"] == reasons
    assert status["lastScan"]["recovered"] == (0 if reasons else 1)
    assert prefect.flow_run(run)["state_type"] == after
    if reasons:
        assert prefect.flow_run(run)["name"] in status["lastScan"]["decisions"][0]["message"]
