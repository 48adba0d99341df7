"""Who may be recovered when not all may: fair turns between tenants, each limit on both sides, which one is named."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.policy import PolicySpec
from controller.decisions.decision import Skip, SkipReason
from controller.flow_runs import StateType
from controller.schedule import ScanRequest, Trigger
from controller.videos import Video
from tests.support import policy
from tests.unit.deciding import RECOVER, by_name, conclude, recoveries, said
from tests.unit.fakes import MICROSECOND, NOW, earlier, flow_run, video

HOUR = timedelta(hours=1)
SCAN, TENANT, ACTIVE = SkipReason.OVER_SCAN_LIMIT, SkipReason.OVER_TENANT_LIMIT, SkipReason.OVER_ACTIVE_LIMIT
REPLACE = {"abandonedRunAfter": "6h", "abandonedRunAction": "Replace"}


def limited(**limits: int) -> PolicySpec:
    return policy(limits=limits).spec


def of_tenant(tenant: str | None, count: int, *, age: int = 100) -> list[Video]:
    """Videos an hour apart, the first one the oldest: a0, a1, ..."""
    ages = [(age - n) * HOUR for n in range(count)]
    return [video(f"{tenant or 'none-'}{n}", age=each, tenant_id=tenant) for n, each in enumerate(ages)]


def in_flight(count: int, **run: Any) -> list[Any]:
    return [flow_run(f"other{n}", run_id=f"other{n}", attempt=1, **run) for n in range(count)]


# Turns


def test_tenants_take_turns_and_each_sends_its_oldest():
    videos = [*of_tenant("a", 3, age=500), *of_tenant("b", 2, age=300), *of_tenant("c", 3, age=100)]

    assert recoveries(conclude(videos, limited())) == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "c2"]


def test_a_tenant_with_a_few_videos_does_not_wait_for_one_with_many():
    videos = [*of_tenant("a", 50, age=500), *of_tenant("b", 2)]

    assert recoveries(conclude(videos, limited(perScan=4))) == ["a0", "b0", "a1", "b1"]


def test_what_one_tenant_does_not_need_goes_to_the_others():
    videos = [*of_tenant("a", 5), *of_tenant("b", 1), *of_tenant("c", 5)]

    assert Counter(each[0] for each in recoveries(conclude(videos, limited(perScan=9)))) == {"a": 4, "b": 1, "c": 4}


def test_where_not_even_every_tenant_has_a_turn_the_oldest_video_goes_first():
    videos = [*of_tenant("a", 2, age=50), *of_tenant("b", 2, age=90), *of_tenant("c", 2, age=70)]

    assert recoveries(conclude(videos, limited(perScan=2))) == ["b0", "c0"]


def test_videos_without_a_tenant_are_one_tenants():
    videos = [*of_tenant(None, 3, age=500), *of_tenant("a", 3)]
    spec = policy(limits={"perScan": 3}, prefect={"parameters": {"video_id": "{id}"}}).spec

    assert recoveries(conclude(videos, spec)) == ["none-0", "a0", "none-1"]


def test_a_video_that_cannot_be_recovered_uses_up_no_turn_of_its_tenant():
    videos = [*of_tenant("a", 4, age=500), *of_tenant("b", 2)]
    busy = [flow_run("a0"), flow_run("a1")]

    assert recoveries(conclude(videos, limited(perScan=4, perTenant=2), runs=busy)) == ["a2", "b0", "a3", "b1"]


def test_a_video_that_was_recovered_before_waits_from_the_end_of_that_attempt():
    videos = of_tenant("a", 3, age=100)
    again = {"a0": earlier(flow_run("a0", "FAILED", ended=98 * HOUR + MICROSECOND))}
    later = {"a0": earlier(flow_run("a0", "FAILED", ended=98 * HOUR - MICROSECOND))}

    assert recoveries(conclude(videos, limited(), recoveries=again)) == ["a1", "a0", "a2"]
    assert recoveries(conclude(videos, limited(), recoveries=later)) == ["a1", "a2", "a0"]


def test_attempts_of_unknown_times_leave_a_video_in_its_place():
    unknown = replace(flow_run("a0", "FAILED"), created=None)

    assert recoveries(conclude(of_tenant("a", 2), limited(), recoveries={"a0": earlier(unknown)})) == ["a0", "a1"]


# Each limit


def counts(decisions: Any) -> dict[str, int]:
    return dict(Counter(said(decision) for decision in decisions))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(2, {RECOVER: 2}, id="one_below"),
        pytest.param(3, {RECOVER: 3}, id="exactly"),
        pytest.param(4, {RECOVER: 3, "over": 1}, id="one_over"),
    ],
)
@pytest.mark.parametrize(("limit", "reason"), [("perScan", SCAN), ("perTenant", TENANT), ("active", ACTIVE)])
def test_recovers_up_to_each_limit_and_names_it(limit, reason, found, expected):
    decisions = conclude(of_tenant("a", found), limited(**{limit: 3}))

    assert counts(decisions) == {str(reason) if key == "over" else key: count for key, count in expected.items()}
    assert recoveries(decisions) == [f"a{n}" for n in range(min(found, 3))]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        pytest.param((2, 1, 2), {RECOVER: 2, TENANT: 2}, id="that_of_the_tenant_first"),
        pytest.param((2, 9, 2), {RECOVER: 2, ACTIVE: 2}, id="then_that_of_recoveries_in_flight"),
        pytest.param((2, 9, 3), {RECOVER: 2, SCAN: 2}, id="then_that_of_the_scan"),
    ],
)
def test_of_several_limits_one_is_named(limits, expected):
    per_scan, per_tenant, active = limits
    spec = limited(perScan=per_scan, perTenant=per_tenant, active=active)

    assert counts(conclude([*of_tenant("a", 3), *of_tenant("b", 1)], spec)) == expected


def test_a_limit_of_a_tenant_leaves_the_others_alone():
    videos = [*of_tenant("a", 5), *of_tenant("b", 1)]

    assert recoveries(conclude(videos, limited(perTenant=2))) == ["a0", "b0", "a1"]


def test_skips_say_what_they_wait_for():
    videos = of_tenant("a", 2)

    def last(**facts: Any) -> str:
        decision = conclude(videos, limited(**facts.pop("limits")), **facts)[-1]
        assert isinstance(decision, Skip)
        return decision.detail

    assert last(limits={"perScan": 1}) == "the scan takes 1 videos and others come first"
    assert last(limits={"perTenant": 1}) == "1 videos of its tenant have waited longer"
    assert last(limits={"active": 7}, runs=in_flight(6)) == "7 recoveries are in flight"


# Recoveries in flight


@pytest.mark.parametrize(
    ("flying", "recovered"),
    [
        pytest.param(1, 2, id="two_places_for_two"),
        pytest.param(2, 1, id="one_place_for_two"),
        pytest.param(3, 0, id="no_place"),
        pytest.param(9, 0, id="more_than_the_limit_already"),
    ],
)
def test_recoveries_in_flight_take_up_the_active_limit(flying, recovered):
    decisions = conclude(of_tenant("a", 2), limited(active=3), runs=in_flight(flying))

    assert counts(decisions) == {
        key: count for key, count in ((RECOVER, recovered), (str(ACTIVE), 2 - recovered)) if count
    }


@pytest.mark.parametrize("state", [state for state in StateType if flow_run("v", state).active])
def test_a_recovery_is_in_flight_in_every_active_state(state):
    assert counts(conclude(of_tenant("a", 1), limited(active=1), runs=in_flight(1, state=state))) == {ACTIVE: 1}


def test_runs_that_are_no_recoveries_or_have_ended_are_not_in_flight():
    others = [flow_run("other"), flow_run(None), *in_flight(3, state="FAILED", ended=HOUR)]

    assert counts(conclude(of_tenant("a", 1), limited(active=1), runs=others)) == {RECOVER: 1}


def abandoned(video_id: str, **run: Any) -> Any:
    return flow_run(video_id, since=7 * HOUR, run_id=f"abandoned-{video_id}", **run)


def test_a_recovery_that_takes_the_place_of_an_abandoned_one_adds_nothing_to_those_in_flight():
    # After a crash of all workers the abandoned ones may be all that the limit allows.
    spec = policy(limits={"active": 2}, stuck=REPLACE).spec
    runs = [abandoned(each, attempt=1) for each in ("a0", "a1", "b0")]
    before = {run.video_id: earlier(replace(run, created=NOW - 8 * HOUR)) for run in runs}

    decisions = conclude([*of_tenant("a", 3), *of_tenant("b", 1)], spec, runs=runs, recoveries=before)

    assert sorted(recoveries(decisions)) == ["a0", "a1", "b0"]
    assert counts(decisions) == {RECOVER: 3, ACTIVE: 1}


def test_a_recovery_that_takes_the_place_of_somebody_elses_run_adds_one():
    spec = policy(limits={"active": 1}, stuck=REPLACE).spec

    decisions = conclude(of_tenant("a", 2), spec, runs=[abandoned("a0"), abandoned("a1")])

    assert counts(decisions) == {RECOVER: 1, ACTIVE: 1}


def test_replacements_use_up_the_scans_limit_like_others():
    spec = policy(limits={"active": 1, "perScan": 1}, stuck=REPLACE).spec
    runs = [abandoned(each, attempt=1) for each in ("a0", "a1")]

    assert counts(conclude(of_tenant("a", 2), spec, runs=runs)) == {RECOVER: 1, SCAN: 1}


# Ramping up after a hold


def ramping(allowance: int) -> ScanRequest:
    return ScanRequest(Trigger.SCHEDULE, NOW, allowance=allowance)


@pytest.mark.parametrize(
    ("allowance", "recovered"),
    [
        pytest.param(1, 1, id="one"),
        pytest.param(2, 2, id="less_than_the_scans_limit"),
        pytest.param(3, 3, id="as_many"),
        pytest.param(9, 3, id="never_more_than_the_scans_limit"),
    ],
)
def test_a_scan_recovers_no_more_than_its_allowance(allowance, recovered):
    decisions = conclude(of_tenant("a", 4), limited(perScan=3), request=ramping(allowance))

    assert counts(decisions) == {RECOVER: recovered, SCAN: 4 - recovered}


def test_a_video_that_waits_for_the_ramp_says_so():
    videos = of_tenant("a", 4)

    slow, full = (conclude(videos, limited(perScan=3), request=ramping(allowance))[-1] for allowance in (2, 3))

    assert isinstance(slow, Skip)
    assert isinstance(full, Skip)
    assert slow.detail == "the scan takes 2 videos while it ramps up after a hold and others come first"
    assert full.detail == "the scan takes 3 videos and others come first"


def test_the_smallest_allowance_is_enough_for_a_request_by_name():
    request = replace(by_name("a0"), allowance=1)

    assert counts(conclude(of_tenant("a", 1), limited(), request=request)) == {RECOVER: 1}


# Whatever the input

tenants = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 8), max_size=6)
calmly = settings(max_examples=80)


@given(
    tenants=tenants,
    per_scan=st.integers(1, 20),
    per_tenant=st.integers(1, 8),
    active=st.integers(1, 20),
    flying=st.integers(0, 20),
    allowance=st.none() | st.integers(1, 20),
    ages=st.randoms(use_true_random=False),
)
@calmly
def test_the_budget_is_used_up_and_shared_as_equally_as_can_be(
    tenants, per_scan, per_tenant, active, flying, allowance, ages
):
    videos = [each for name, count in tenants.items() for each in of_tenant(name, count, age=ages.randint(20, 900))]
    spec = limited(perScan=per_scan, perTenant=per_tenant, active=active)
    request = ScanRequest(Trigger.SCHEDULE, NOW, allowance=allowance)

    recovered = recoveries(conclude(videos, spec, request=request, runs=in_flight(flying)))
    share = Counter(each[0] for each in recovered)

    allowed = {name: min(count, per_tenant) for name, count in tenants.items()}
    budget = min(per_scan, allowance or per_scan, max(0, active - flying))
    assert len(recovered) == min(budget, sum(allowed.values()))
    # Nobody has two more than somebody who could have had one more.
    assert max(share.values(), default=0) <= 1 + min(
        (share[name] for name in tenants if share[name] < allowed[name]), default=max(share.values(), default=0)
    )
    for name in tenants:
        assert [each for each in recovered if each[0] == name] == [f"{name}{n}" for n in range(share[name])]
