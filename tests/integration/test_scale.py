"""Thousands of videos and flow runs: each video gets one decision, and requests grow with pages, never with videos."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from controller.adapters import instrumentation
from controller.adapters.prefect.creation import DATABASE_LOCKED
from controller.decisions.decision import SkipReason
from devstack import Prefect, Supabase
from tests.conftest import StartPrefect
from tests.support import DEPLOYMENT, ago, policy, reasons, recovered, scan, stuck_videos

pytestmark = pytest.mark.integration

RUNS = 10_000
"""Active runs of somebody else's flow."""

NO_LIMITS = {"perScan": 10_000, "perTenant": 10_000, "active": 10_000}


def active_runs(prefect: Prefect, videos: list[str]) -> None:
    """Have as many active runs as there are here of another flow; the first ones work on these videos."""
    elsewhere = prefect.create_deployment("transcribe/nightly")
    [first] = prefect.create_flow_runs(elsewhere, [{"video_id": "of another table"}], "RUNNING")
    others = [f"another {number}" for number in range(RUNS - 1 - len(videos))]
    prefect.clone_flow_run(first, [{"video_id": video} for video in videos + others])


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """The requests of a block, by service; those that a busy server on SQLite refuses and gets again count once."""
    sent: Counter[str] = Counter()

    def note(moment: instrumentation.Moment, what: str) -> None:
        if moment is instrumentation.Moment.BEFORE:
            sent[what.partition(" ")[0]] += 1

    def note_retry(details: RetryDetails) -> None:
        assert DATABASE_LOCKED in str(details.caused_by)
        sent["Prefect"] -= 1

    instrumentation.watch(note)
    set_on_retry_hooks([note_retry])
    try:
        yield sent
    finally:
        instrumentation._hooks.remove(note)
        set_on_retry_hooks(None)


@pytest.fixture
def prefect(start_prefect: StartPrefect) -> Prefect:
    prefect = start_prefect(events=False)
    prefect.create_deployment(DEPLOYMENT)
    prefect.pretend_worker()
    return prefect


@pytest.fixture
def environment(supabase: Supabase, prefect: Prefect) -> dict[str, str]:
    return {**supabase.env(), **prefect.env()}


async def test_ten_thousand_stuck_videos_against_ten_thousand_active_runs(supabase, prefect, environment):
    videos = stuck_videos(supabase, 10_000)
    active_runs(prefect, videos[:1000])

    with counted() as sent:
        outcome = await scan(policy(limits={**NO_LIMITS, "perScan": 300}), environment)

    assert outcome.error is None
    assert Counter(result.video_id for result in outcome.results) == Counter(videos)
    assert reasons(outcome) == {SkipReason.ACTIVE_FLOW_RUN: 1000, SkipReason.OVER_SCAN_LIMIT: 8700}
    ours = prefect.flow_runs(flow_runs={"tags": {"all_": ["recovery"]}})
    assert sorted(run["parameters"]["video_id"] for run in ours) == sorted(recovered(outcome))
    assert len(ours) == 300
    # 11 pages of rows; then one look at each of three batches.
    assert sent["Supabase"] <= 11 + 3 * 2
    # 51 pages of active runs, 45 of keys of the videos that none works on, and all the rest.
    assert sent["Prefect"] <= 51 + 45 + 30


async def test_a_thousand_stuck_videos_against_ten_thousand_active_runs_cost_at_most_120_requests(
    supabase, prefect, environment
):
    videos = [video for hours in range(10) for video in stuck_videos(supabase, 100, created_at=ago(hours=hours + 1))]
    active_runs(prefect, [])

    with counted() as sent:
        outcome = await scan(policy(limits=NO_LIMITS), environment)

    assert outcome.error is None
    assert sorted(recovered(outcome)) == sorted(videos)
    assert prefect.count_flow_runs() == RUNS + 1000
    assert sent.total() <= 120, sent
