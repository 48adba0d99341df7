"""The index of flow runs, idempotency keys, and which runs are recoveries."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.flow_runs import ACTIVE, ENDED, FlowRunIndex, StateType, attempt_of, idempotency_key, is_recovery
from tests.unit.fakes import DEPLOYMENT, flow_run

FLOW = DEPLOYMENT.flow_id

UUID = "6b2d1ef0-5a55-4a3c-9f3e-0f4f6d1a2b3c"


def test_every_state_is_either_active_or_over():
    assert set(StateType) == ACTIVE | ENDED
    assert not ACTIVE & ENDED


@pytest.mark.parametrize(
    ("state", "active"),
    [
        ("SCHEDULED", True), ("PENDING", True), ("RUNNING", True), ("PAUSED", True), ("CANCELLING", True),
        ("COMPLETED", False), ("FAILED", False), ("CANCELLED", False), ("CRASHED", False),
    ],
)  # fmt: skip
def test_a_run_is_active_by_its_state(state, active):
    assert flow_run("v1", state).active is active


def test_the_index_finds_all_runs_of_a_video_and_no_others():
    mine, also_mine, other = flow_run("v1"), flow_run("v1", "FAILED"), flow_run("v2")

    assert FlowRunIndex([mine, other, also_mine]).of("v1") == (mine, also_mine)


def test_the_index_finds_nothing_where_nothing_is():
    assert FlowRunIndex().of("v1") == ()


def test_the_index_leaves_out_runs_of_something_else():
    assert FlowRunIndex([flow_run(None)]).of("None") == ()


@pytest.mark.parametrize(("of_run", "asked"), [(UUID, UUID.upper()), (UUID.upper(), UUID)])
def test_the_index_finds_a_uuid_in_any_spelling(of_run, asked):
    assert len(FlowRunIndex([flow_run(of_run)]).of(asked)) == 1


def test_a_run_that_was_read_twice_counts_once_as_it_was_last():
    index = FlowRunIndex([flow_run("v1", "RUNNING", run_id="r")])
    index = index.with_runs([flow_run("v1", "COMPLETED", run_id="r")])

    assert [run.state for run in index.of("v1")] == [StateType.COMPLETED]


def test_the_index_takes_in_runs_that_appear_later():
    before = FlowRunIndex([flow_run("v1")])
    index = before.with_runs([flow_run("v2"), flow_run("v1", "PENDING")])

    assert (len(before.of("v1")), len(before.of("v2"))) == (1, 0), "an index never changes"
    assert len(index.of("v1")) == 2
    assert len(index.of("v2")) == 1


def test_the_idempotency_key_is_made_of_flow_video_and_attempt_alone():
    assert idempotency_key("flow", "v1", 2) == "video-recovery/flow/v1/2"


def test_a_uuid_has_one_idempotency_key_in_any_spelling():
    assert idempotency_key("flow", UUID.upper(), 1) == idempotency_key("flow", UUID, 1)


parts = st.tuples(st.uuids().map(str), st.text(min_size=1, max_size=20), st.integers(1, 30))


@given(parts, parts)
@settings(max_examples=100)
def test_two_recoveries_never_share_a_key(one, other):
    assert (idempotency_key(*one) == idempotency_key(*other)) is (one == other)


@pytest.mark.parametrize("video_id", ["v/1", "v", "1/2"])
def test_a_slash_in_an_id_makes_no_key_of_another_video(video_id):
    keys = {idempotency_key("flow", each, attempt) for each in (video_id, "v/1/1", "v1") for attempt in (1, 2)}

    assert len(keys) == 6


# Which runs are recoveries


def test_a_recovery_is_known_by_its_key():
    assert attempt_of(flow_run("v1", attempt=12), FLOW, "v1") == 12
    assert is_recovery(flow_run("v1", attempt=12), FLOW)


@pytest.mark.parametrize(
    ("key", "flow", "video_id"),
    [
        pytest.param(None, FLOW, "v1", id="a_run_without_a_key"),
        pytest.param("nightly/2026-03-10", FLOW, "v1", id="a_run_with_a_key_of_somebody_else"),
        pytest.param(idempotency_key(FLOW, "v1", 1), "flow-2", "v1", id="a_recovery_by_another_flow"),
        pytest.param(idempotency_key(FLOW, "v2", 1), FLOW, "v1", id="a_recovery_of_another_video"),
        pytest.param(idempotency_key(FLOW, "v1/2", 1), FLOW, "v1", id="a_recovery_of_a_video_that_begins_like_it"),
        pytest.param(f"video-recovery/{FLOW}/v1/", FLOW, "v1", id="no_attempt"),
        pytest.param(f"video-recovery/{FLOW}/v1/first", FLOW, "v1", id="an_attempt_in_letters"),
        pytest.param(f"video-recovery/{FLOW}/v1/-1", FLOW, "v1", id="an_attempt_below_zero"),
    ],
)
def test_no_recovery_of_a_video_is(key, flow, video_id):
    assert attempt_of(replace(flow_run("v1"), key=key), flow, video_id) is None


@pytest.mark.parametrize(("of_run", "asked"), [(UUID, UUID.upper()), (UUID.upper(), UUID)])
def test_a_recovery_is_known_in_any_spelling_of_a_uuid(of_run, asked):
    assert attempt_of(flow_run(of_run, attempt=3), FLOW, asked) == 3
    assert len(FlowRunIndex([flow_run(of_run, attempt=3)]).recoveries_of(asked, FLOW)) == 1


def test_the_index_has_a_videos_recoveries_in_the_order_of_their_attempts():
    runs = [flow_run("v1", "FAILED", attempt=n) for n in (10, 9, 2)] + [flow_run("v1"), flow_run("v2", attempt=1)]

    found = FlowRunIndex(runs).recoveries_of("v1", FLOW)

    assert [recovery.attempt for recovery in found] == [2, 9, 10]
    assert [recovery.run for recovery in found] == [runs[2], runs[1], runs[0]]


@pytest.mark.parametrize("video_id", [None, "another"])
def test_a_recovery_whose_parameter_has_another_name_by_now_still_works_on_its_video(video_id):
    renamed = replace(flow_run("v1", attempt=1), video_id=video_id)
    index = FlowRunIndex([renamed])

    assert index.of("v1") == (renamed,)
    assert index.in_flight(FLOW) == 1
    assert index.without_runs([renamed]).of("v1") == ()
    assert index.of("v1") == (renamed,), "an index never changes"


def test_the_index_forgets_what_is_removed_and_nothing_else():
    stopped, other = flow_run("v1"), flow_run("v1", "PENDING")
    index = FlowRunIndex([stopped, other])

    index = index.without_runs([stopped, flow_run("v2"), flow_run(None)])

    assert index.of("v1") == (other,)


@pytest.mark.parametrize("state", sorted(StateType))
def test_a_recovery_is_in_flight_while_it_is_active(state):
    assert FlowRunIndex([flow_run("v1", state, attempt=1)]).in_flight(FLOW) == (state in ACTIVE)


def test_counts_each_recovery_in_flight_of_its_flow_and_no_other_run():
    runs = [flow_run("v1", attempt=1), flow_run("v1", attempt=2), flow_run("v2", "PENDING", attempt=7)]
    others = [flow_run("v3"), flow_run(None), replace(flow_run("v4"), key=idempotency_key("flow-2", "v4", 1))]

    assert FlowRunIndex([*runs, *others, *runs]).in_flight(FLOW) == 3
