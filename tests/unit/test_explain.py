"""What a person is told of one video: every check, in order, and what each saw."""

from datetime import timedelta
from typing import Any

import pytest

from controller.api.policy import PolicySpec
from controller.decisions.checks import CHECKS
from controller.decisions.decide import decide
from controller.decisions.decision import Failure, Recover
from controller.decisions.explain import Step, explain_checks, explain_row, why_not_stuck
from controller.flow_runs import FlowRun
from tests.support import policy
from tests.unit.deciding import known
from tests.unit.fakes import NOW, earlier, flow_run, row, video

MINUTE = timedelta(minutes=1)
FAILED = flow_run("v1", "FAILED", ended=timedelta(hours=9), attempt=1)
UPLOAD = {"bucket": "videos", "objectPath": "{id}.mp4"}


def spec(**changes: Any) -> PolicySpec:
    return policy(**changes).spec


def of_row(changes: dict[str, Any] | None = None, **columns: Any) -> list[Step]:
    return explain_row(row("v1", **columns), spec(**(changes or {})), now=NOW)[0]


def of_checks(changes: dict[str, Any] | None = None, **facts: Any) -> list[Step]:
    return explain_checks(video("v1"), known(spec(**(changes or {})), **facts))


# The row


def test_says_what_the_row_of_a_stuck_video_holds():
    steps, found = explain_row(row("v1", age=timedelta(hours=3, minutes=5, seconds=7)), spec(), now=NOW)

    assert found is not None
    assert found.id == "v1"
    assert [(step.passed, step.saw) for step in steps] == [
        (True, "deleted_at is null"),
        (True, "its status is pending"),
        (True, "it is 3h5m old; stuck from 10m on"),
    ]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        pytest.param({"status": "ready"}, "its status is ready; stuck are uploading, pending", id="its_status"),
        pytest.param({"age": 3 * MINUTE}, "it is 3m old; stuck from 10m on", id="its_age"),
        pytest.param({"age": 10 * MINUTE}, "it is 10m old; stuck from 10m on", id="its_age_to_the_second"),
        pytest.param({"age": -MINUTE}, "it is 0s old; stuck from 10m on", id="a_time_in_the_future"),
        pytest.param({"deleted_at": "2026-01-01"}, "it is deleted: deleted_at is 2026-01-01", id="its_deletion"),
        pytest.param({"created_at": None}, "column 'created_at' holds no usable time (None)", id="a_row_without_time"),
        pytest.param({"status": "x\x1b[2J"}, "its status is x\N{REPLACEMENT CHARACTER}[2J; stuck are", id="odd_signs"),
    ],
)
def test_says_why_a_video_is_not_stuck(columns, why):
    said = why_not_stuck(row("v1", **columns), spec(), now=NOW)

    assert said is not None
    assert said.startswith(why)


def test_goes_by_the_age_of_the_status():
    assert of_row({"stuck": {"ageByStatus": {"uploading": "30m"}}}, status="uploading", age=20 * MINUTE)[2] == Step(
        "It waits for long enough", False, "it is 20m old; stuck from 30m on"
    )


def test_a_policy_without_a_column_for_deletion_deletes_nothing():
    steps = of_row({"supabase": {"columns": {"deletedAt": ""}}}, deleted_at="2026-01-01")

    assert (steps[0].passed, steps[0].saw) == (True, "the policy names no column for that")


def test_of_a_stuck_video_nothing_says_that_it_is_not():
    assert why_not_stuck(row("v1"), spec(), now=NOW) is None


# The checks


def test_every_check_of_the_chain_has_its_words_in_its_order():
    steps = of_checks()

    assert len(steps) == len(CHECKS)
    assert all(step.passed and step.title and step.saw for step in steps)


@pytest.mark.parametrize(
    ("number", "changes", "facts", "saw"),
    [
        pytest.param(0, {}, {"runs": [flow_run("v1", "COMPLETED")]}, "is COMPLETED", id="a_run_that_ended"),
        pytest.param(1, {"stuck": {"abandonedRunAfter": "1h"}}, {}, "no active run is older than 1h", id="no_old_run"),
        pytest.param(2, {"stuck": {"recentRunWindow": "0s"}}, {}, "is 0s: nobody looks", id="no_window"),
        pytest.param(3, {}, {"recoveries": {"v1": earlier(FAILED)}}, "1 of 3 attempts within 72h", id="attempts"),
        pytest.param(4, {}, {}, "there is no earlier attempt", id="no_attempt"),
        pytest.param(6, {"upload": UPLOAD}, {"uploaded": ["v1.mp4"]}, "the file v1.mp4 is there", id="a_file"),
    ],
)
def test_says_what_a_check_saw_that_does_not_object(number, changes, facts, saw):
    step = of_checks(changes, **facts)[number]

    assert step.passed
    assert saw in step.saw


def test_says_what_each_check_would_say_after_one_that_objects():
    steps = of_checks({"upload": UPLOAD}, runs=[flow_run("v1", "RUNNING")])

    assert [(step.passed, step.reason) for step in steps] == [
        (False, "ActiveFlowRun"),
        *[(True, "")] * 5,
        (False, "UploadInProgress"),
    ]


def test_a_value_that_no_path_can_hold_is_said():
    step = of_checks({"upload": {"bucket": "videos", "objectPath": "{display_path}/{nothing}.mp4"}})[-1]

    assert (step.passed, step.reason, step.saw) == (False, "InvalidRow", "column 'nothing' is empty")


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({}, {"runs": [flow_run("v1", "RUNNING")]}, id="an_active_run"),
        pytest.param({"upload": UPLOAD}, {}, id="a_missing_file"),
        pytest.param({"retry": {"maxAttempts": 1}}, {"recoveries": {"v1": earlier(FAILED)}}, id="quarantine"),
    ],
)
def test_the_first_objection_is_what_the_scan_decides(changes, facts):
    [decision] = decide([video("v1")], known(spec(**changes), **facts))
    objections = [step.reason for step in of_checks(changes, **facts) if not step.passed]

    assert not isinstance(decision, Failure)
    assert objections[:1] == ([] if isinstance(decision, Recover) else [str(decision.reason)])


def test_tells_of_an_abandoned_run_that_will_be_replaced():
    old: FlowRun = flow_run("v1", "PENDING", since=timedelta(hours=9))
    stuck = {"abandonedRunAfter": "6h", "abandonedRunAction": "Replace"}

    step = of_checks({"stuck": stuck}, runs=[old])[1]

    assert step.passed
    assert "is abandoned and will be replaced" in step.saw
