"""A Prefect server without the bulk route, or one that refuses a whole batch: runs are created one by one, once."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import stamina

from controller import scan as scan_module
from controller.decisions.decision import Failure, FailureReason, SkipReason
from controller.errors import ErrorReason, Service
from controller.outcome import Outcome, Recovered
from devstack import Prefect, Supabase
from tests import proxy
from tests.proxy import Proxy, Request, Where, at
from tests.support import ago, policy, reasons, recovered, scan, stuck_videos

pytestmark = pytest.mark.integration

bulk = at("/create_flow_run/bulk")


def single(request: Request) -> bool:
    return request.path.endswith("/create_flow_run")


def creates(videos: list[str]) -> Where:
    """The creation of a run for one of these."""
    return lambda request: single(request) and request.json()["parameters"]["video_id"] in videos


@dataclass
class Parts:
    """The services, with a proxy in front of Prefect."""

    supabase: Supabase
    prefect: Prefect
    to_prefect: Proxy

    @property
    def environment(self) -> dict[str, str]:
        return {**self.supabase.env(), "PREFECT_API_URL": f"{self.to_prefect.url}/api"}

    def runs(self) -> list[str]:
        """The videos that have a run, one for each run."""
        return sorted(run["parameters"]["video_id"] for run in self.prefect.flow_runs())


@pytest.fixture
async def parts(supabase: Supabase, prefect: Prefect, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Parts]:
    monkeypatch.setattr(scan_module, "BATCH", 5)
    async with proxy.serve(f"http://127.0.0.1:{prefect.port}") as to_prefect:
        yield Parts(supabase, prefect, to_prefect)
    prefect.clear_flow_runs()


def asked(to_prefect: Proxy, where: Where) -> int:
    """How many things were asked for; a server on SQLite is now and then too busy and asked again."""
    return len({request.body for request in to_prefect.requests if where(request)})


def videos_in_order(supabase: Supabase, count: int) -> list[str]:
    return [stuck_videos(supabase, 1, created_at=ago(hours=count - n + 1))[0] for n in range(count)]


def results(outcome: Outcome) -> Counter[str]:
    return Counter(result.video_id for result in outcome.results)


LACKS = [
    pytest.param(404, {"detail": "Not Found"}, id="404, as a server that lacks it answers"),
    pytest.param(404, "", id="404 without a body"),
    pytest.param(405, {"detail": "Method Not Allowed"}, id="405"),
]
REFUSES = [
    pytest.param(400, {"detail": "Cannot create more than 3 flow runs at once."}, id="400"),
    pytest.param(413, "", id="413"),
    pytest.param(422, {"detail": "one of them"}, id="422"),
]


@pytest.mark.parametrize(("status", "body"), LACKS)
async def test_creates_one_by_one_and_asks_for_the_bulk_route_once(status, body, parts):
    videos = videos_in_order(parts.supabase, 12)
    parts.to_prefect.treat(proxy.answer(status, body), bulk)

    outcome = await scan(policy(), parts.environment)

    assert outcome.error is None
    assert recovered(outcome) == videos
    assert parts.runs() == sorted(videos)
    assert parts.to_prefect.count(bulk) == 1
    assert asked(parts.to_prefect, single) == 12


@pytest.mark.parametrize(("status", "body"), REFUSES)
async def test_creates_a_batch_one_by_one_that_is_refused_as_a_whole(status, body, parts):
    videos = videos_in_order(parts.supabase, 12)
    parts.to_prefect.treat(proxy.answer(status, body), bulk, times=1)

    outcome = await scan(policy(), parts.environment)

    assert outcome.error is None
    assert recovered(outcome) == videos
    assert parts.runs() == sorted(videos)
    assert asked(parts.to_prefect, bulk) == 3
    assert asked(parts.to_prefect, single) == 5


@pytest.mark.parametrize(("status", "body"), [*LACKS, *REFUSES])
async def test_creates_no_second_run_in_the_next_scan_or_after_an_upgrade(status, body, parts):
    videos = videos_in_order(parts.supabase, 3)
    parts.to_prefect.treat(proxy.answer(status, body), bulk)

    await scan(policy(), parts.environment)
    again = await scan(policy(), parts.environment)
    parts.to_prefect.heal()
    upgraded = await scan(policy(), parts.environment)

    assert reasons(again) == reasons(upgraded) == {SkipReason.ACTIVE_FLOW_RUN: 3}
    assert parts.runs() == sorted(videos)


@pytest.mark.parametrize(
    "fault", [proxy.answer(500, "broken"), proxy.reset, proxy.answer(401, "no")], ids=["500", "reset", "401"]
)
async def test_counts_the_runs_that_were_created_before_the_server_failed(fault, parts):
    videos = videos_in_order(parts.supabase, 12)
    parts.to_prefect.treat(proxy.answer(405), bulk)
    parts.to_prefect.treat(fault, creates(videos[7:]))

    with stamina.set_testing(True, attempts=20):
        outcome = await scan(policy(), parts.environment)
    parts.to_prefect.heal()
    again = await scan(policy(), parts.environment)

    assert outcome.error is not None
    assert outcome.error.service is Service.PREFECT
    assert recovered(outcome) == videos[:7]
    assert results(outcome) == Counter(videos)
    assert reasons(outcome) == {FailureReason.NOT_CREATED: 3, SkipReason.INTERRUPTED: 2}
    assert recovered(again) == videos[7:]
    assert parts.runs() == sorted(videos)


async def test_creates_a_run_once_whose_answer_is_lost(parts):
    videos = videos_in_order(parts.supabase, 3)
    parts.to_prefect.treat(proxy.answer(404), bulk)
    parts.to_prefect.treat(proxy.lost, creates(videos[1:2]), times=1)

    outcome = await scan(policy(), parts.environment)

    assert outcome.error is None
    assert recovered(outcome) == videos
    assert parts.runs() == sorted(videos)
    by_video = {run["parameters"]["video_id"]: run["id"] for run in parts.prefect.flow_runs()}
    assert {r.video_id: r.run_id for r in outcome.results if isinstance(r, Recovered)} == by_video


STRICT = "process-video/with-a-schema"
PATTERN = {"type": "object", "properties": {"tenant_id": {"type": "string", "pattern": "^[a-z]+$"}}}


async def test_recovers_the_others_when_prefect_refuses_the_parameters_of_one_video(parts):
    parts.prefect.create_deployment(STRICT, enforce_parameter_schema=True, parameter_openapi_schema=PATTERN)
    first, *others = videos_in_order(parts.supabase, 3)
    parts.supabase.execute("update captionacc.videos set tenant_id = 'TENANT 5' where id = %s", [first])
    parts.to_prefect.treat(proxy.answer(404), bulk)

    outcome = await scan(policy(prefect={"deployment": STRICT}), parts.environment)

    assert outcome.error is None
    assert recovered(outcome) == others
    [failure] = [result for result in outcome.results if isinstance(result, Failure)]
    assert (failure.video_id, failure.reason) == (first, FailureReason.REFUSED)
    assert "TENANT 5" in failure.detail


async def test_names_a_deployment_that_is_deleted_between_two_creations(parts):
    videos = videos_in_order(parts.supabase, 3)
    doomed = parts.prefect.create_deployment("process-video/doomed")
    parts.to_prefect.treat(proxy.answer(404), bulk)

    def delete() -> None:
        parts.prefect.http.delete(f"deployments/{doomed.id}").raise_for_status()

    parts.to_prefect.treat(proxy.before(delete), creates(videos[1:2]), times=1)

    outcome = await scan(policy(prefect={"deployment": doomed.full_name}), parts.environment)

    assert outcome.error is not None
    assert outcome.error.reason is ErrorReason.DEPLOYMENT_NOT_FOUND
    assert recovered(outcome) == videos[:1]
    assert reasons(outcome) == {FailureReason.NOT_CREATED: 2}
