"""The index of flow runs, idempotency keys and attempts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.flow_runs import ACTIVE, ENDED, FlowRunIndex, Recovery, StateType, idempotency_key, next_attempt
from tests.unit.fakes import earlier, flow_run

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
    index.add([flow_run("v1", "COMPLETED", run_id="r")])

    assert [run.state for run in index.of("v1")] == [StateType.COMPLETED]


def test_the_index_takes_in_runs_that_appear_later():
    index = FlowRunIndex([flow_run("v1")])
    index.add([flow_run("v2"), flow_run("v1", "PENDING")])

    assert len(index.of("v1")) == 2
    assert len(index.of("v2")) == 1


def test_the_idempotency_key_is_made_of_flow_video_and_attempt_alone():
    assert idempotency_key("flow", "v1", 2) == "video-recovery/flow/v1/2"


def test_a_uuid_has_one_idempotency_key_in_any_spelling():
    assert idempotency_key("flow", UUID.upper(), 1) == idempotency_key("flow", UUID, 1)


parts = st.tuples(st.uuids().map(str), st.text(min_size=1, max_size=20), st.integers(1, 30))


@given(parts, parts)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_two_recoveries_never_share_a_key(one, other):
    assert (idempotency_key(*one) == idempotency_key(*other)) is (one == other)


@pytest.mark.parametrize("video_id", ["v/1", "v", "1/2"])
def test_a_slash_in_an_id_makes_no_key_of_another_video(video_id):
    keys = {idempotency_key("flow", each, attempt) for each in (video_id, "v/1/1", "v1") for attempt in (1, 2)}

    assert len(keys) == 6


def test_the_first_attempt_is_1():
    assert next_attempt(()) == 1


def test_the_next_attempt_is_behind_the_highest_whatever_their_order_and_gaps():
    run = flow_run("v1", "FAILED")

    assert next_attempt(earlier(run, run)) == 3
    assert next_attempt((Recovery(7, run), Recovery(2, run))) == 8
