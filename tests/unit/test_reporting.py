"""From an outcome to the status: conditions and their transitions, counts, bounds, and that nothing moves by itself."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.api.manifest import Policy
from controller.api.status import MAX_DECISIONS, MAX_MESSAGE, ConditionType, PolicyStatus, WaitTime
from controller.decisions.decision import Failure, FailureReason, Skip, SkipReason
from controller.errors import ConfigurationError, ErrorReason, ScanError, Service, ServiceError
from controller.flow_runs import Deployment
from controller.outcome import Outcome, Recovered, Result
from controller.reporting.conditions import Findings
from controller.reporting.status import after_check, after_invalid, after_plan, after_scan
from controller.reporting.summary import summary
from controller.schedule import Plan, ScanRequest, Trigger, request_token
from tests.support import policy
from tests.unit.fakes import DEPLOYMENT, NOW, SECOND, STATUS_SCHEMA, video, violations

SLOT = NOW - timedelta(minutes=1)
NEXT = NOW + timedelta(minutes=14)
LATER = NOW + timedelta(minutes=15)
REQUEST = ScanRequest(Trigger.SCHEDULE, SLOT)
PLAN = Plan(REQUEST, NEXT)
POLICY = policy()
NO_WORKER = Deployment("d", "f", "no worker polls work pool 'p'; start one", "NoWorkerReady")


def outcome(
    *results: Result, request: ScanRequest = REQUEST, error: ScanError | None = None, **changes: Any
) -> Outcome:
    stuck = [each.video for each in results if not isinstance(each, Failure)]
    ended = Outcome(request, NOW, stuck, DEPLOYMENT if stuck else None, results=list(results), error=error)
    return replace(ended, **changes)


def scanned(
    ended: Outcome, status: PolicyStatus | None = None, *, of: Policy = POLICY, plan: Plan = PLAN, now: Any = NOW
) -> PolicyStatus:
    """The status after a scan, as it comes back from the API server."""
    after = after_scan(status or PolicyStatus(), of, ended, plan, now=now).to_manifest()
    assert violations(STATUS_SCHEMA, after) == []
    return PolicyStatus.model_validate(after)


def conditions(status: PolicyStatus) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def recovered(video_id: str = "v1", **columns: Any) -> Recovered:
    return Recovered(video(video_id, **columns), 1, "00000000-0000-0000-0000-000000000001")


def skipped(video_id: str = "v1", reason: SkipReason = SkipReason.ACTIVE_FLOW_RUN) -> Skip:
    return Skip(video(video_id), reason, "flow run happy-fox is RUNNING")


def failed(video_id: str = "v1") -> Failure:
    return Failure(video_id, FailureReason.INVALID_ROW, "column 'tenant_id' is empty")


def failure(service: Service, reason: ErrorReason = ErrorReason.UNREACHABLE) -> ServiceError:
    return ServiceError(f"{service} could not be connected to", reason=reason, service=service)


ANSWERED = ("True", "Answered")

# Conditions


def test_a_scan_with_stuck_videos_is_ready_and_saw_both_services():
    assert conditions(scanned(outcome(recovered()))) == {
        "Ready": ("True", "Succeeded"),
        "SupabaseReachable": ANSWERED,
        "PrefectReachable": ANSWERED,
        "DeploymentReady": ("True", "Ready"),
    }


def test_a_scan_that_finds_nothing_speaks_only_of_supabase():
    assert conditions(scanned(outcome())) == {"Ready": ("True", "Succeeded"), "SupabaseReachable": ANSWERED}


def test_stuck_videos_that_cannot_be_recovered_do_not_make_it_unready():
    assert conditions(scanned(outcome(failed(), skipped("v2"))))["Ready"] == ("True", "Succeeded")


def test_a_deployment_that_is_not_ready_says_so_and_is_no_error():
    found = conditions(scanned(outcome(skipped(reason=SkipReason.DEPLOYMENT_NOT_READY), deployment=NO_WORKER)))

    assert found["DeploymentReady"] == ("False", "NoWorkerReady")
    assert found["Ready"] == ("True", "Succeeded")


@pytest.mark.parametrize(
    ("service", "stuck", "expected"),
    [
        pytest.param(
            Service.SUPABASE, None, {"SupabaseReachable": ("False", "Unreachable")}, id="supabase_at_the_first_question"
        ),
        pytest.param(
            Service.PREFECT,
            [video()],
            {"SupabaseReachable": ANSWERED, "PrefectReachable": ("False", "Unreachable")},
            id="prefect_after_supabase_answered",
        ),
        pytest.param(
            Service.SUPABASE,
            [video()],
            {"SupabaseReachable": ("False", "Unreachable")},
            id="supabase_at_the_second_look",
        ),
    ],
)
def test_an_error_of_a_service_waits_for_the_next_scan(service, stuck, expected):
    error = failure(service)

    status = scanned(outcome(error=error, stuck=stuck))

    assert conditions(status) == {
        "Ready": ("False", "Unreachable"), "Reconciling": ("True", "Retrying"), **expected,
    }  # fmt: skip
    ready = status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.message == error.message


@pytest.mark.parametrize("reason", list(ErrorReason))
@pytest.mark.parametrize("service", list(Service))
def test_every_error_of_a_service_names_its_reason_and_never_stalls(service, reason):
    found = conditions(scanned(outcome(error=failure(service, reason), stuck=None)))

    assert found["Ready"] == ("False", str(reason))
    assert "Stalled" not in found
    assert found["Reconciling"] == ("True", "Retrying")


CONFIGURATION_REASONS = [
    ErrorReason.SECRET_KEY_MISSING, ErrorReason.INVALID_URL, ErrorReason.INVALID_KEY, ErrorReason.SCHEMA_NOT_EXPOSED,
    ErrorReason.TABLE_NOT_FOUND, ErrorReason.COLUMN_NOT_FOUND, ErrorReason.INVALID_FILTER,
]  # fmt: skip


@pytest.mark.parametrize("reason", CONFIGURATION_REASONS)
def test_every_wrong_configuration_of_supabase_stalls_the_policy(reason):
    error = ConfigurationError("write something else", reason=reason, service=Service.SUPABASE)

    assert conditions(scanned(outcome(error=error, stuck=None))) == {
        "Ready": ("False", str(reason)),
        "Stalled": ("True", str(reason)),
        "SupabaseReachable": ("False", str(reason)),
    }


@pytest.mark.parametrize("reason", [ErrorReason.SECRET_NOT_FOUND, ErrorReason.SECRET_FORBIDDEN])
def test_without_its_secret_nothing_is_known_of_the_services(reason):
    error = ConfigurationError("create it", reason=reason)

    assert conditions(scanned(outcome(error=error, stuck=None))) == {
        "Ready": ("False", str(reason)),
        "Stalled": ("True", str(reason)),
        "SupabaseReachable": ("Unknown", str(reason)),
        "PrefectReachable": ("Unknown", str(reason)),
    }


def test_a_missing_deployment_stalls_the_policy_although_prefect_answers():
    error = ConfigurationError("deploy it", reason=ErrorReason.DEPLOYMENT_NOT_FOUND, service=Service.PREFECT)

    assert conditions(scanned(outcome(error=error, stuck=[video()]))) == {
        "Ready": ("False", "DeploymentNotFound"),
        "Stalled": ("True", "DeploymentNotFound"),
        "SupabaseReachable": ANSWERED,
        "PrefectReachable": ANSWERED,
        "DeploymentReady": ("False", "DeploymentNotFound"),
    }


def test_an_error_of_no_service_leaves_the_services_alone():
    before = scanned(outcome(recovered()))
    error = ScanError("the API server does not answer", reason=ErrorReason.UNREACHABLE)

    found = conditions(scanned(outcome(error=error, stuck=None, deployment=None), before))

    assert found["Ready"] == ("False", "Unreachable")
    assert found["SupabaseReachable"] == found["PrefectReachable"] == ANSWERED


def test_a_failed_request_of_a_suspended_policy_does_not_promise_another_try():
    error = failure(Service.PREFECT)

    found = conditions(scanned(outcome(error=error), of=policy(suspend=True), plan=Plan(REQUEST, None)))

    assert "Reconciling" not in found
    assert found["Ready"] == ("False", "Unreachable")


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(failure(Service.SUPABASE), id="supabase_is_back"),
        pytest.param(failure(Service.PREFECT), id="prefect_is_back"),
        pytest.param(ConfigurationError("create it", reason=ErrorReason.SECRET_NOT_FOUND), id="the_Secret_is_there"),
        pytest.param(
            ConfigurationError("deploy it", reason=ErrorReason.DEPLOYMENT_NOT_FOUND, service=Service.PREFECT),
            id="the_deployment_is_there",
        ),
    ],
)
def test_a_cured_policy_is_ready_and_neither_stalled_nor_reconciling(error):
    broken = scanned(outcome(error=error, stuck=None))
    cured = {
        "Ready": ("True", "Succeeded"),
        "SupabaseReachable": ANSWERED,
        "PrefectReachable": ANSWERED,
        "DeploymentReady": ("True", "Ready"),
    }

    by_scan = scanned(outcome(recovered()), broken, now=LATER)
    by_check = after_check(broken, POLICY, Findings(True, DEPLOYMENT), PLAN, now=LATER)

    assert conditions(by_scan) == cured
    assert conditions(by_check) == cured


def test_an_error_of_the_configuration_takes_the_place_of_an_error_of_a_service():
    reconciling = scanned(outcome(error=failure(Service.PREFECT)))
    error = ConfigurationError("create it", reason=ErrorReason.SECRET_NOT_FOUND)

    stalled = scanned(outcome(error=error, stuck=None, deployment=None), reconciling)
    again = scanned(outcome(error=failure(Service.PREFECT)), stalled)

    assert "Reconciling" not in conditions(stalled)
    assert "Stalled" not in conditions(again)


def test_a_check_is_told_in_the_conditions_and_counts_as_no_scan():
    status = after_check(PolicyStatus(), POLICY, Findings(True, NO_WORKER), Plan(None, NEXT), now=NOW)

    assert conditions(status)["Ready"] == ("True", "Succeeded")
    assert conditions(status)["DeploymentReady"] == ("False", "NoWorkerReady")
    assert status.totals.scans == 0
    assert status.last_scan is None
    assert status.last_successful_time is None
    assert status.next_schedule_time == NEXT


def test_a_check_that_fails_stalls_the_policy():
    error = ConfigurationError("write another", reason=ErrorReason.TABLE_NOT_FOUND, service=Service.SUPABASE)

    status = after_check(PolicyStatus(), POLICY, Findings(False, error=error), Plan(None, NEXT), now=NOW)

    assert conditions(status)["Stalled"] == ("True", "TableNotFound")


def test_an_invalid_schedule_stalls_the_policy_and_plans_nothing():
    before = scanned(outcome(recovered()))
    error = ConfigurationError("spec.schedule: no", reason=ErrorReason.INVALID_SCHEDULE)

    status = after_invalid(before, 7, error, now=LATER)

    assert conditions(status)["Stalled"] == ("True", "InvalidSchedule")
    assert status.next_schedule_time is None
    assert status.observed_schedule is None
    assert status.observed_generation == 7
    assert status.last_scan == before.last_scan
    assert conditions(status)["SupabaseReachable"] == ANSWERED


def test_conditions_that_others_wrote_stay():
    theirs = {
        "type": "Theirs", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip

    status = scanned(outcome(), PolicyStatus.model_validate({"conditions": [theirs]}))

    assert conditions(status)["Theirs"] == ("True", "R")


# When a condition changed


def since(status: PolicyStatus, kind: ConditionType = ConditionType.READY) -> Any:
    condition = status.condition(kind)
    assert condition is not None
    return condition.last_transition_time


def test_a_condition_that_stays_keeps_its_time_also_with_another_message():
    first = scanned(outcome(recovered()))

    second = scanned(outcome(failed()), first, now=LATER)

    assert since(second) == since(first) == NOW
    ready = second.condition(ConditionType.READY)
    assert ready is not None
    assert ready.message == summary(outcome(failed()))


def test_a_condition_that_stays_false_for_another_reason_keeps_its_time():
    first = scanned(outcome(error=failure(Service.PREFECT)))

    second = scanned(outcome(error=failure(Service.SUPABASE, ErrorReason.FORBIDDEN), stuck=None), first, now=LATER)

    assert since(second) == NOW
    assert conditions(second)["Ready"] == ("False", "Forbidden")


def test_a_condition_that_changes_moves_its_time():
    first = scanned(outcome(recovered()))
    second = scanned(outcome(error=failure(Service.PREFECT)), first, now=LATER)
    third = scanned(outcome(recovered()), second, now=LATER + SECOND)

    assert [since(status) for status in (first, second, third)] == [NOW, LATER, LATER + SECOND]
    assert since(third, ConditionType.SUPABASE_REACHABLE) == NOW


def test_a_stall_that_comes_again_begins_anew():
    error = ConfigurationError("create it", reason=ErrorReason.SECRET_NOT_FOUND)
    first = scanned(outcome(error=error, stuck=None))
    cured = scanned(outcome(recovered()), first)
    second = scanned(outcome(error=error, stuck=None), cured, now=LATER)

    assert since(second, ConditionType.STALLED) == LATER


def test_conditions_speak_of_the_generation_they_were_seen_in():
    of_two = replace(POLICY, generation=2)

    status = scanned(outcome(recovered()), scanned(outcome()), of=of_two)

    assert {condition.observed_generation for condition in status.conditions} == {2}
    assert status.observed_generation == 2


# Counts, records and bounds


def test_counts_what_a_scan_did():
    status = scanned(outcome(recovered("v1"), skipped("v2"), skipped("v3"), failed("v4")), now=LATER)
    scan = status.last_scan

    assert scan is not None
    assert (scan.found, scan.recovered, scan.skipped, scan.failed) == (4, 1, 2, 1)
    assert scan.reasons == {"ActiveFlowRun": 2, "InvalidRow": 1}
    assert (scan.trigger, scan.start_time, scan.completion_time) == (Trigger.SCHEDULE, NOW, LATER)
    assert scan.error is None
    assert status.last_schedule_time == SLOT
    assert status.last_successful_time == LATER


def test_lists_first_what_somebody_has_to_see_to_and_last_what_passes_by_itself():
    results: list[Result] = [
        skipped("v1"), recovered("v2"), failed("v3"), skipped("v4", SkipReason.ABANDONED_RUN),
        skipped("v5", SkipReason.UPLOAD_ABANDONED), skipped("v6", SkipReason.BACKING_OFF),
    ]  # fmt: skip

    scan = scanned(outcome(*results)).last_scan

    assert scan is not None
    assert [(record.video, record.decision) for record in scan.decisions] == [
        ("v3", "Failed"),
        ("v4", "Skipped"),
        ("v5", "Skipped"),
        ("v2", "Recovered"),
        ("v1", "Skipped"),
        ("v6", "Skipped"),
    ]


@pytest.mark.parametrize("count", [MAX_DECISIONS, MAX_DECISIONS + 1, 500])
def test_lists_a_bounded_number_of_decisions_and_counts_them_all(count):
    scan = scanned(outcome(*(skipped(f"v{n}") for n in range(count)))).last_scan

    assert scan is not None
    assert len(scan.decisions) == MAX_DECISIONS
    assert scan.skipped == count


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_keeps_as_many_scans_as_the_history_limit_says_the_newest_first(limit):
    of = policy(historyLimit=limit)
    status = PolicyStatus()
    for n in range(5):
        status = scanned(outcome(), status, of=of, now=NOW + n * SECOND)

    assert [scan.completion_time for scan in status.history] == [NOW + n * SECOND for n in range(4, 4 - limit, -1)]


def test_a_smaller_history_limit_cuts_what_is_there():
    status = scanned(outcome(), scanned(outcome(), scanned(outcome())), of=policy(historyLimit=1))

    assert len(status.history) == 1


def test_totals_add_up():
    status = scanned(outcome(recovered("v3")), scanned(outcome(recovered("v1"), recovered("v2"), skipped("v3"))))

    assert (status.totals.scans, status.totals.recovered) == (2, 3)


def test_a_video_that_could_not_be_recovered_is_no_recovery_that_failed():
    status = scanned(outcome(failed("v4")))

    assert status.last_scan is not None
    assert status.last_scan.failed == 1
    assert status.totals.failed == 0


@pytest.mark.parametrize(
    ("minutes", "median", "longest"),
    [
        pytest.param([25], "25m", "25m", id="one_video"),
        pytest.param([90, 11, 30], "30m", "1h30m", id="an_odd_number"),
        pytest.param([60, 11, 20, 5000], "20m", "83h20m", id="an_even_number_takes_the_lower"),
    ],
)
def test_tells_how_long_the_recovered_videos_waited(minutes, median, longest):
    ages = {f"v{n}": timedelta(minutes=each) for n, each in enumerate(minutes)}
    results: list[Result] = [recovered(video_id, age=age) for video_id, age in ages.items()]
    others: list[Result] = [
        Skip(video("skipped", age=timedelta(days=99)), SkipReason.ACTIVE_FLOW_RUN),
        failed("failed"),
    ]

    scan = scanned(outcome(*results, *others), now=LATER).last_scan

    assert scan is not None
    assert scan.wait_time == WaitTime(median=median, longest=longest)


def test_where_nothing_was_recovered_nobody_waited():
    scan = scanned(outcome(skipped(), failed())).last_scan

    assert scan is not None
    assert scan.wait_time is None


def test_tells_how_many_are_stuck_since_when_and_in_which_status():
    results = [
        Skip(video("v1", age=timedelta(hours=1, minutes=5)), SkipReason.ACTIVE_FLOW_RUN),
        Skip(video("v2", status="uploading"), SkipReason.ACTIVE_FLOW_RUN),
    ]

    stuck = scanned(outcome(*results)).stuck

    assert stuck is not None
    assert (stuck.total, stuck.oldest_age, stuck.by_status) == (2, "1h5m", {"pending": 1, "uploading": 1})


def test_nothing_stuck_has_no_age():
    stuck = scanned(outcome(), scanned(outcome(recovered()))).stuck

    assert stuck is not None
    assert (stuck.total, stuck.oldest_age, stuck.by_status) == (0, None, {})


def test_a_narrowed_scan_leaves_the_stuck_videos_as_they_were_and_names_its_video():
    before = scanned(outcome(recovered(), skipped("v2")))

    status = scanned(outcome(recovered(), request=ScanRequest(Trigger.REQUEST, token="t", video_ids=("v1",))), before)

    assert status.stuck == before.stuck
    assert status.last_scan is not None
    assert status.last_scan.video == "v1"


def test_a_scan_that_never_saw_the_table_leaves_the_stuck_videos_as_they_were():
    before = scanned(outcome(recovered()))

    assert scanned(outcome(error=failure(Service.SUPABASE), stuck=None), before).stuck == before.stuck


def test_a_failed_scan_is_counted_and_was_no_success():
    before = scanned(outcome())

    status = scanned(outcome(skipped(), error=failure(Service.PREFECT)), before, now=LATER)

    assert status.last_successful_time == NOW
    assert status.totals.scans == 2
    assert status.last_scan is not None
    assert status.last_scan.error == failure(Service.PREFECT).message


def test_a_request_takes_its_token_over_also_when_it_failed():
    request = ScanRequest(Trigger.REQUEST, token="now")

    assert scanned(outcome(request=request, error=failure(Service.PREFECT))).last_handled_reconcile_at == "now"


def test_a_scan_by_schedule_leaves_the_token_alone_and_a_request_the_slot():
    before = scanned(outcome(request=ScanRequest(Trigger.REQUEST, token="now")))

    status = scanned(outcome(), before)

    assert before.last_schedule_time is None
    assert status.last_handled_reconcile_at == "now"
    assert status.last_schedule_time == SLOT


def test_a_missed_scan_is_remembered():
    first = after_plan(PolicyStatus(), POLICY, Plan(None, NEXT, missed=SLOT))
    second = after_plan(first, POLICY, Plan(None, LATER))

    assert first.last_missed_time == second.last_missed_time == SLOT


def test_remembers_for_which_schedule_it_planned():
    assert after_plan(PolicyStatus(), POLICY, PLAN).observed_schedule == "*/15 * * * * Etc/UTC"
    assert after_plan(PolicyStatus(), policy(suspend=True), Plan(None, None)).observed_schedule is None


def test_however_long_the_texts_are_the_status_fits_its_schema():
    long = "x" * 100_000
    request = ScanRequest(Trigger.REQUEST, token="t", video_ids=(long,))
    error = ServiceError(long, reason=ErrorReason.SERVER_ERROR, service=Service.PREFECT)
    failures = [Failure("v" * 200, FailureReason.REFUSED, long)]

    status = scanned(outcome(*failures, request=request, error=error))  # `scanned` checks the schema

    ready = status.condition(ConditionType.READY)
    assert ready is not None
    assert len(ready.message) == MAX_MESSAGE


@pytest.mark.parametrize("length", [1024, 1025, 100_000])
def test_however_long_a_request_token_is_the_status_fits_its_schema(length):
    # An annotation may have 256 kB. A status that the API server refuses would make the scan run again at each tick.
    scanned(outcome(request=ScanRequest(Trigger.REQUEST, token=request_token("t" * length))))


# Nothing moves by itself


STEADY: list[Any] = [
    pytest.param(lambda status, now: after_plan(status, POLICY, Plan(None, NEXT)), id="planned_again"),
    pytest.param(
        lambda status, now: after_check(status, POLICY, Findings(True, DEPLOYMENT), Plan(None, NEXT), now=now),
        id="checked_again",
    ),
    pytest.param(
        lambda status, now: after_check(
            status, POLICY, Findings(True, error=failure(Service.PREFECT)), Plan(None, NEXT), now=now
        ),
        id="checked_again_in_vain",
    ),
    pytest.param(
        lambda status, now: after_invalid(
            status, 1, ConfigurationError("no", reason=ErrorReason.INVALID_SCHEDULE), now=now
        ),
        id="invalid_again",
    ),
]


@pytest.mark.parametrize("step", STEADY)
def test_the_same_again_gives_the_same_status(step: Callable[[PolicyStatus, Any], PolicyStatus]):
    first = step(scanned(outcome(recovered())), NOW + timedelta(milliseconds=1)).to_manifest()
    second = step(PolicyStatus.model_validate(first), LATER).to_manifest()

    assert second == first


def test_a_status_comes_back_from_the_api_server_as_it_was():
    status = scanned(outcome(recovered("v1"), skipped("v2"), failed("v3"), error=failure(Service.PREFECT)))

    assert PolicyStatus.model_validate(status.to_manifest()) == status


def test_a_status_of_another_version_is_read_without_what_is_unknown():
    raw = {**scanned(outcome()).to_manifest(), "newField": {"a": 1}}

    assert PolicyStatus.model_validate(raw) == scanned(outcome())


def test_times_are_written_in_utc_and_whole_seconds():
    status = scanned(outcome(), now=NOW + timedelta(microseconds=999_999))

    assert status.to_manifest()["lastSuccessfulTime"] == "2026-03-10T12:07:30Z"


# The summary


def test_the_summary_counts_and_names_the_reasons():
    assert summary(outcome(recovered("v1"), skipped("v2"), skipped("v3"), failed("v4"))) == (
        "4 found: 1 recovered, 2 skipped, 1 failed (ActiveFlowRun 2, InvalidRow 1)"
    )


def test_the_summary_of_nothing_is_short():
    assert summary(outcome()) == "0 found: 0 recovered, 0 skipped, 0 failed"
