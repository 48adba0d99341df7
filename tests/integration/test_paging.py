"""Tables and flow runs over many pages, and what changes between two of them: none is lost, none counts twice."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import pytest

from controller.api.manifest import Policy
from controller.decisions.decision import FailureReason, SkipReason
from controller.outcome import Outcome
from devstack import Deployment, Prefect, Supabase
from tests import proxy
from tests.conftest import serve
from tests.proxy import Proxy, Request
from tests.support import DEPLOYMENT, ago, policy, reasons, recovered, scan, stuck_videos

pytestmark = pytest.mark.integration

PAGE = 7
RUNS_IN_A_PAGE = 200


@pytest.fixture(scope="module")
def small_pages() -> Iterator[Supabase]:
    """A Supabase that cuts every answer after seven rows, with a table that allows null times."""
    for server in serve(Supabase.start(max_rows=PAGE)):
        server.execute("alter table captionacc.videos alter column created_at drop not null")
        server.reload_schema()
        yield server


@dataclass
class Parts:
    """Both services, each behind a proxy."""

    supabase: Supabase
    prefect: Prefect
    to_supabase: Proxy
    to_prefect: Proxy
    deployment: Deployment

    @property
    def environment(self) -> dict[str, str]:
        urls = {"SUPABASE_URL": self.to_supabase.url, "PREFECT_API_URL": f"{self.to_prefect.url}/api"}
        return {**self.supabase.env(), **urls}


@pytest.fixture
async def parts(small_pages: Supabase, prefect: Prefect) -> AsyncIterator[Parts]:
    small_pages.execute("truncate captionacc.videos")
    async with (
        proxy.serve(small_pages.url) as to_supabase,
        proxy.serve(f"http://127.0.0.1:{prefect.port}") as to_prefect,
    ):
        yield Parts(small_pages, prefect, to_supabase, to_prefect, prefect.create_deployment(DEPLOYMENT))
    prefect.clear_flow_runs()


def candidates(request: Request) -> bool:
    return "order=" in request.query


def still_stuck(request: Request) -> bool:
    return not candidates(request)


def filters(request: Request) -> dict[str, object]:
    found = request.json()["flow_runs"] if request.path.endswith("/flow_runs/filter") else {}
    assert isinstance(found, dict)
    return found


def active_runs(request: Request) -> bool:
    return "RUNNING" in str(filters(request).get("state"))


def ended_runs(request: Request) -> bool:
    return "COMPLETED" in str(filters(request).get("state"))


def earlier_recoveries(request: Request) -> bool:
    return "idempotency_key" in filters(request)


def new_runs(request: Request) -> bool:
    return bool(filters(request)) and not {"state", "idempotency_key"} & set(filters(request))


def stuck_ids(outcome: Outcome) -> list[str]:
    assert outcome.error is None
    return [video.id for video in outcome.stuck or ()]


def results(outcome: Outcome) -> Counter[str]:
    return Counter(result.video_id for result in outcome.results)


def observe() -> Policy:
    return policy(mode="Observe", limits={"perTenant": 500})


# The table


async def test_finds_each_of_hundreds_of_videos_once_although_answers_are_cut_after_seven(parts):
    same, others = ago(hours=2), [ago(hours=3, minutes=n // 3) for n in range(120)]
    videos = stuck_videos(parts.supabase, 80, created_at=same)
    videos += [stuck_videos(parts.supabase, 1, created_at=time)[0] for time in others]
    nulls = parts.supabase.insert_videos([{"status": "pending", "created_at": None}] * 33)

    outcome = await scan(observe(), parts.environment)

    assert sorted(stuck_ids(outcome)) == sorted(videos)
    assert results(outcome) == Counter([*videos, *nulls])
    assert reasons(outcome) == {FailureReason.INVALID_ROW: 33, SkipReason.OBSERVE_MODE: 200}
    assert parts.to_supabase.count(candidates) == -(-233 // PAGE) + 1


@pytest.mark.parametrize("extra", [-1, 0, 1])
async def test_finds_all_where_the_last_page_is_full_or_nearly(extra, parts):
    videos = stuck_videos(parts.supabase, 2 * PAGE + extra, created_at=ago(hours=1))

    outcome = await scan(observe(), parts.environment)

    assert sorted(stuck_ids(outcome)) == sorted(videos)


async def test_looks_again_at_every_video_although_answers_are_cut_after_seven(parts):
    videos = stuck_videos(parts.supabase, 60)

    outcome = await scan(policy(), parts.environment)

    assert outcome.error is None
    assert sorted(recovered(outcome)) == sorted(videos)
    assert parts.prefect.count_flow_runs() == 60


async def test_loses_none_while_rows_leave_and_appear_between_two_pages(parts):
    videos = [stuck_videos(parts.supabase, 1, created_at=ago(minutes=300 - n // 4))[0] for n in range(100)]
    new_flow_runs: list[str] = []

    def change() -> None:
        parts.supabase.execute("delete from captionacc.videos where id = any(%s::uuid[])", [videos[:10]])
        parts.supabase.execute(
            "update captionacc.videos set status = 'ready' where id = any(%s::uuid[])", [[*videos[10:25], *videos[90:]]]
        )
        new_flow_runs.extend(stuck_videos(parts.supabase, 5, created_at=ago(minutes=400)))
        new_flow_runs.extend(stuck_videos(parts.supabase, 5, created_at=ago(minutes=200)))

    parts.to_supabase.treat(proxy.before(change), candidates, after=3, times=1)

    outcome = await scan(policy(), parts.environment)
    again = await scan(policy(), parts.environment)

    assert outcome.error is None
    # Read before the change were 21 rows, of which none is left; the older ones that appeared come the next time.
    assert sorted(recovered(outcome)) == sorted([*videos[25:90], *new_flow_runs[5:]])
    assert sorted(recovered(again)) == sorted(new_flow_runs[:5])
    assert parts.prefect.count_flow_runs() == 75


async def test_goes_on_where_the_last_row_of_a_page_has_left(parts):
    videos = [stuck_videos(parts.supabase, 1, created_at=ago(hours=50 - n))[0] for n in range(20)]

    def leave() -> None:
        parts.supabase.execute("delete from captionacc.videos where id = %s", [videos[PAGE - 1]])

    parts.to_supabase.treat(proxy.before(leave), candidates, after=1, times=1)

    outcome = await scan(observe(), parts.environment)

    assert stuck_ids(outcome) == videos


async def test_does_not_recover_a_video_that_leaves_its_status_during_the_scan(parts):
    videos = stuck_videos(parts.supabase, 20)

    def leave() -> None:
        parts.supabase.execute("update captionacc.videos set status = 'ready' where id = %s", [videos[0]])
        parts.supabase.execute("update captionacc.videos set deleted_at = now() where id = %s", [videos[1]])
        parts.supabase.execute("delete from captionacc.videos where id = %s", [videos[2]])

    parts.to_prefect.treat(proxy.before(leave), earlier_recoveries, times=1)

    outcome = await scan(policy(), parts.environment)

    assert outcome.error is None
    assert sorted(recovered(outcome)) == sorted(videos[3:])
    assert results(outcome) == Counter(videos[3:])
    assert sorted(stuck_ids(outcome)) == sorted(videos[3:])


async def test_recovers_none_where_all_left_their_status_during_the_scan(parts):
    stuck_videos(parts.supabase, 3)
    leave = proxy.before(lambda: parts.supabase.execute("update captionacc.videos set status = 'ready'"))
    parts.to_prefect.treat(leave, earlier_recoveries, times=1)

    outcome = await scan(policy(), parts.environment)

    assert (outcome.error, outcome.stuck, outcome.results) == (None, [], [])
    assert parts.to_prefect.count(proxy.at("/create_flow_run")) == 0


# The flow runs


def clones(parts: Parts, state: str, videos: list[str], apart: timedelta) -> str:
    """A run in a state for each video, made in the database, each older than the one before; the id of the newest."""
    first = parts.prefect.create_flow_run(parts.deployment, state, parameters={"video_id": videos[0]})
    parts.prefect.clone_flow_run(first, [{"video_id": video} for video in videos[1:]], apart=apart)
    return first


ids = [str(UUID(int=n)) for n in range(1, 1000)]


@pytest.mark.parametrize("apart", [timedelta(0), timedelta(milliseconds=1)], ids=["at one time", "a millisecond apart"])
@pytest.mark.parametrize(
    ("state", "reason"), [("RUNNING", SkipReason.ACTIVE_FLOW_RUN), ("FAILED", SkipReason.RECENTLY_PROCESSED)]
)
async def test_sees_each_of_450_runs(state, reason, apart, parts):
    clones(parts, state, ids[:450], apart)
    parts.supabase.insert_videos(
        [{"id": video, "status": "pending", "created_at": ago(hours=1)} for video in (ids[0], ids[225], ids[449])]
    )

    outcome = await scan(policy(), parts.environment)

    assert outcome.error is None
    assert reasons(outcome) == {reason: 3}
    seen = active_runs if state == "RUNNING" else ended_runs
    assert parts.to_prefect.count(seen) == 4


@pytest.mark.parametrize("count", [RUNS_IN_A_PAGE - 1, RUNS_IN_A_PAGE, RUNS_IN_A_PAGE + 1])
async def test_sees_the_oldest_and_the_newest_run_where_a_page_is_just_full(count, parts):
    clones(parts, "PENDING", ids[:count], timedelta(seconds=1))
    parts.supabase.insert_videos(
        [{"id": video, "status": "pending", "created_at": ago(hours=1)} for video in (ids[0], ids[count - 1])]
    )

    outcome = await scan(policy(), parts.environment)

    assert reasons(outcome) == {SkipReason.ACTIVE_FLOW_RUN: 2}


async def test_sees_a_run_that_ends_while_the_active_ones_are_being_read(parts):
    newest = clones(parts, "RUNNING", ids[:250], timedelta(seconds=1))
    parts.supabase.insert_videos([{"id": ids[0], "status": "pending", "created_at": ago(hours=1)}])

    # It is on the second page.
    end = proxy.before(lambda: parts.prefect.set_state(newest, "COMPLETED"))
    parts.to_prefect.treat(end, active_runs, after=1, times=1)

    outcome = await scan(policy(), parts.environment)

    assert reasons(outcome) == {SkipReason.RECENTLY_PROCESSED: 1}


APPEARANCES = [
    pytest.param(active_runs, 1, id="between two pages of the active runs"),
    pytest.param(ended_runs, 0, id="when the active runs have been read"),
    pytest.param(earlier_recoveries, 0, id="when the index is complete"),
    pytest.param(new_runs, 0, id="just before the second look"),
]


@pytest.mark.parametrize(("where", "after"), APPEARANCES)
@pytest.mark.parametrize("state", ["RUNNING", "COMPLETED"])
async def test_sees_a_run_that_appears_during_the_scan(state, where, after, parts):
    clones(parts, "RUNNING", ids[:250], timedelta(seconds=1))
    mine, other = stuck_videos(parts.supabase, 2)

    def appear() -> None:
        parts.prefect.create_flow_run(parts.deployment, state, parameters={"video_id": mine})

    parts.to_prefect.treat(proxy.before(appear), where, after=after, times=1)

    outcome = await scan(policy(), parts.environment)

    assert outcome.error is None
    assert recovered(outcome) == [other]
    expected = SkipReason.RECENTLY_PROCESSED if state == "COMPLETED" else SkipReason.ACTIVE_FLOW_RUN
    assert reasons(outcome) == {expected: 1}


async def test_sees_a_run_that_somebody_schedules_for_later_during_the_scan(parts):
    [video] = stuck_videos(parts.supabase, 1)

    def appear() -> None:
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2099-01-01T12:00:00Z"}}
        body = {"parameters": {"video_id": video}, "state": state}
        parts.prefect.http.post(f"deployments/{parts.deployment.id}/create_flow_run", json=body).raise_for_status()

    parts.to_prefect.treat(proxy.before(appear), new_runs, times=1)

    outcome = await scan(policy(), parts.environment)

    assert reasons(outcome) == {SkipReason.ACTIVE_FLOW_RUN: 1}


async def test_sees_a_run_that_somebody_retries_during_the_scan(parts):
    [video] = stuck_videos(parts.supabase, 1)
    run = parts.prefect.create_flow_run(parts.deployment, "FAILED", parameters={"video_id": video})
    parts.prefect.backdate(run, timedelta(hours=1))
    retry = proxy.before(lambda: parts.prefect.set_state(run, "SCHEDULED", state_name="AwaitingRetry"))
    parts.to_prefect.treat(retry, new_runs, times=1)

    outcome = await scan(policy(), parts.environment)

    assert reasons(outcome) == {SkipReason.ACTIVE_FLOW_RUN: 1}


@pytest.mark.parametrize(
    ("state", "name"),
    [
        ("SCHEDULED", "Late"),
        ("SCHEDULED", "AwaitingRetry"),
        ("SCHEDULED", "AwaitingConcurrencySlot"),
        ("SCHEDULED", "Resuming"),
        ("PAUSED", "Suspended"),
        ("RUNNING", "Retrying"),
        ("RUNNING", "Completed"),
        ("PENDING", "InfrastructurePending"),
    ],
)
async def test_knows_an_active_run_by_the_type_of_its_state_whatever_the_name(state, name, parts):
    [video] = stuck_videos(parts.supabase, 1)
    run = parts.prefect.create_flow_run(parts.deployment, parameters={"video_id": video})
    parts.prefect.set_state(run, state, state_name=name)

    outcome = await scan(policy(), parts.environment)

    assert parts.prefect.flow_run(run)["state_name"] == name
    assert reasons(outcome) == {SkipReason.ACTIVE_FLOW_RUN: 1}


OTHER_FLOW = "crop-and-infer-caption-frames"


@pytest.mark.parametrize(
    ("flows", "counts"),
    [
        pytest.param([], True, id="no flows are named"),
        pytest.param([OTHER_FLOW], True, id="its flow is named"),
        pytest.param([DEPLOYMENT.partition("/")[0]], False, id="another flow is named"),
    ],
)
@pytest.mark.parametrize("when", ["before", "during"])
async def test_counts_a_run_of_another_flow_unless_only_others_are_named(flows, counts, when, parts):
    [video] = stuck_videos(parts.supabase, 1)
    other = parts.prefect.create_deployment(f"{OTHER_FLOW}/production")

    def appear() -> None:
        parts.prefect.create_flow_run(other, "RUNNING", parameters={"video_id": video})

    if when == "before":
        appear()
    else:
        parts.to_prefect.treat(proxy.before(appear), new_runs, times=1)

    outcome = await scan(policy(prefect={"flows": flows}), parts.environment)

    assert outcome.error is None
    assert (reasons(outcome), recovered(outcome)) == (
        ({SkipReason.ACTIVE_FLOW_RUN: 1}, []) if counts else ({}, [video])
    )


async def test_knows_its_own_recoveries_by_their_keys_also_where_only_other_flows_are_named(parts):
    stuck_videos(parts.supabase, 3)
    narrow = policy(prefect={"flows": [OTHER_FLOW]})

    await scan(narrow, parts.environment)
    again = await scan(narrow, parts.environment)

    assert reasons(again) == {SkipReason.ACTIVE_FLOW_RUN: 3}
    assert parts.prefect.count_flow_runs() == 3


@pytest.mark.parametrize("page", [1, 2, 3])
@pytest.mark.parametrize("index", [active_runs, ended_runs], ids=["active", "ended"])
async def test_recovers_nothing_when_one_page_of_the_index_fails(index, page, parts):
    clones(parts, "RUNNING" if index is active_runs else "COMPLETED", ids[:450], timedelta(milliseconds=1))
    videos = stuck_videos(parts.supabase, 2)
    parts.to_prefect.treat(proxy.answer(500, "broken"), index, after=page - 1)

    outcome = await scan(policy(), parts.environment)

    assert outcome.error is not None
    assert reasons(outcome) == {SkipReason.INTERRUPTED: 2}
    assert results(outcome) == Counter(videos)
    assert parts.prefect.count_flow_runs() == 450
