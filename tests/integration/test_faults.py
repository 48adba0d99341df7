"""Services that fail: nothing is created blindly, every stuck video has one result, and the next scan heals."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta

import httpx
import pytest
import stamina
from aiohttp import web
from stamina.instrumentation import set_on_retry_hooks

from controller.adapters import http
from controller.api.manifest import Policy
from controller.decisions.decision import Failure, FailureReason, SkipReason
from controller.errors import ErrorReason, Service
from controller.flow_runs import idempotency_key
from controller.outcome import Outcome, Recovered
from devstack import Prefect, Supabase
from tests import proxy
from tests.proxy import Proxy, Request, at
from tests.support import DEPLOYMENT, ago, live, policy, reasons, recovered, scan, stuck_videos
from tests.waiting import PATIENCE

pytestmark = pytest.mark.integration

BOTH = pytest.mark.parametrize("service", list(Service), ids=str)


@dataclass
class Parts:
    """Both services, each behind a proxy."""

    supabase: Supabase
    prefect: Prefect
    proxies: dict[Service, Proxy]

    @property
    def environment(self) -> dict[str, str]:
        to_supabase, to_prefect = self.proxies[Service.SUPABASE], self.proxies[Service.PREFECT]
        return {**self.supabase.env(), "SUPABASE_URL": to_supabase.url, "PREFECT_API_URL": f"{to_prefect.url}/api"}


@pytest.fixture
async def parts(supabase: Supabase, prefect: Prefect) -> AsyncIterator[Parts]:
    async with (
        proxy.serve(supabase.url) as to_supabase,
        proxy.serve(f"http://127.0.0.1:{prefect.port}") as to_prefect,
    ):
        yield Parts(supabase, prefect, {Service.SUPABASE: to_supabase, Service.PREFECT: to_prefect})
    prefect.clear_flow_runs()


@pytest.fixture
def short_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may take 0.5 s."""
    monkeypatch.setattr(http, "TIMEOUT", httpx.Timeout(0.5, connect=5))


def impatience() -> AbstractContextManager[None]:
    """What fails is tried once more, at once."""
    return stamina.set_testing(True, attempts=2)


def patience() -> AbstractContextManager[None]:
    """What fails is tried often, without a wait: more often than a busy server on SQLite refuses."""
    return stamina.set_testing(True, attempts=20)


def all_of_them(**spec: object) -> Policy:
    """A policy whose limits are not what is tested here."""
    return policy(limits={"perScan": 1000, "perTenant": 1000}, **spec)


async def fails(parts: Parts, videos: list[str], service: Service) -> Outcome:
    """A scan that fails at a service, creates nothing and gives every stuck video one result."""
    before = parts.prefect.count_flow_runs()
    with impatience():
        outcome = await asyncio.wait_for(scan(all_of_them(), parts.environment), PATIENCE)
    assert outcome.error is not None
    assert outcome.error.service is service
    assert service in outcome.error.message
    assert recovered(outcome) == []
    assert parts.prefect.count_flow_runs() == before
    if outcome.stuck is not None:
        assert Counter(result.video_id for result in outcome.results) == Counter(videos)
    return outcome


async def heals(parts: Parts, videos: list[str]) -> None:
    """The next scan without a fault recovers all of them, once."""
    for between in parts.proxies.values():
        between.heal()
    outcome = await scan(all_of_them(), parts.environment)
    assert outcome.error is None
    assert sorted(recovered(outcome)) == sorted(videos)
    assert sorted(run["parameters"]["video_id"] for run in parts.prefect.flow_runs()) == sorted(videos)


# A service that fails from the first request on

HTML = "<html><title>Welcome to nginx!</title></html>"
FAULTS = [
    pytest.param(proxy.reset, ErrorReason.UNREACHABLE, id="connection reset"),
    pytest.param(proxy.cut, ErrorReason.UNREACHABLE, id="body cut short"),
    pytest.param(proxy.answer(401, {"message": "no"}), ErrorReason.UNAUTHORIZED, id="401"),
    pytest.param(proxy.answer(403, "no"), ErrorReason.FORBIDDEN, id="403"),
    pytest.param(proxy.answer(404, {"detail": "Not Found"}), ErrorReason.NOT_FOUND, id="404"),
    pytest.param(proxy.answer(429, "slowly", Retry_After="0"), ErrorReason.RATE_LIMITED, id="429 that stays"),
    pytest.param(proxy.answer(500, HTML, content_type="text/html"), ErrorReason.SERVER_ERROR, id="500"),
    pytest.param(proxy.answer(502, ""), ErrorReason.SERVER_ERROR, id="502 without a body"),
    pytest.param(proxy.answer(503, "busy"), ErrorReason.SERVER_ERROR, id="503 that stays"),
    pytest.param(proxy.answer(200, HTML, content_type="text/html"), ErrorReason.UNEXPECTED_ANSWER, id="HTML"),
    pytest.param(proxy.answer(200, ""), ErrorReason.UNEXPECTED_ANSWER, id="nothing"),
    pytest.param(proxy.answer(204), ErrorReason.UNEXPECTED_ANSWER, id="204"),
    pytest.param(proxy.answer(200, {}), ErrorReason.UNEXPECTED_ANSWER, id="an empty object"),
    pytest.param(proxy.answer(200, {"error": "x" * 5000}), ErrorReason.UNEXPECTED_ANSWER, id="another object"),
    pytest.param(proxy.answer(200, [1, None]), ErrorReason.UNEXPECTED_ANSWER, id="a list of no objects"),
    pytest.param(proxy.answer(200, [{}]), ErrorReason.UNEXPECTED_ANSWER, id="a list of empty objects"),
    pytest.param(proxy.answer(200, [{"id": "a"}]), ErrorReason.UNEXPECTED_ANSWER, id="a list of other objects"),
    pytest.param(proxy.answer(200, "null"), ErrorReason.UNEXPECTED_ANSWER, id="null"),
    pytest.param(proxy.answer(200, "[" * 100_000), ErrorReason.UNEXPECTED_ANSWER, id="JSON without an end"),
    pytest.param(proxy.no_gzip, ErrorReason.UNEXPECTED_ANSWER, id="broken compression"),
    pytest.param(proxy.answer(302, Location="/login"), ErrorReason.UNEXPECTED_ANSWER, id="redirect"),
    pytest.param(proxy.answer(308, Location="https://example.org"), ErrorReason.UNEXPECTED_ANSWER, id="moved"),
    pytest.param(proxy.answer(304), ErrorReason.UNEXPECTED_ANSWER, id="304"),
]


@BOTH
@pytest.mark.parametrize(("fault", "reason"), FAULTS)
async def test_reports_a_service_that_fails_and_heals(service, fault, reason, parts):
    videos = stuck_videos(parts.supabase, 2)
    parts.proxies[service].treat(fault)

    outcome = await fails(parts, videos, service)

    assert outcome.error is not None
    assert outcome.error.reason is reason
    assert len(outcome.error.message) < 600
    assert reasons(outcome) == ({} if service is Service.SUPABASE else {SkipReason.INTERRUPTED: 2})
    await heals(parts, videos)


@BOTH
async def test_reports_a_service_that_is_silent_and_heals(service, parts, short_time_limit, monkeypatch):
    videos = stuck_videos(parts.supabase, 2)
    parts.proxies[service].treat(proxy.silence)

    outcome = await fails(parts, videos, service)

    assert outcome.error is not None
    assert outcome.error.reason is ErrorReason.TIMED_OUT
    assert "within 0.5 s" in outcome.error.message
    monkeypatch.undo()
    await heals(parts, videos)


@BOTH
async def test_reports_a_service_that_refuses_connections_and_heals(service, parts):
    videos = stuck_videos(parts.supabase, 2)

    async with parts.proxies[service].down():
        outcome = await fails(parts, videos, service)

    assert outcome.error is not None
    assert outcome.error.reason is ErrorReason.UNREACHABLE
    await heals(parts, videos)


@BOTH
async def test_reports_a_service_whose_name_is_unknown(service, parts):
    videos = stuck_videos(parts.supabase, 2)
    variable = "SUPABASE_URL" if service is Service.SUPABASE else "PREFECT_API_URL"

    with impatience():
        outcome = await scan(policy(), {**parts.environment, variable: "http://no-such-host.invalid"})

    assert outcome.error is not None
    assert (outcome.error.service, outcome.error.reason) == (service, ErrorReason.UNREACHABLE)
    await heals(parts, videos)


@BOTH
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(proxy.answer(503, "busy"), id="503"),
        pytest.param(proxy.answer(502, "bad gateway"), id="502"),
        pytest.param(proxy.answer(429, "slowly"), id="429"),
        pytest.param(proxy.reset, id="reset"),
        pytest.param(proxy.cut, id="cut"),
    ],
)
async def test_goes_on_when_a_fault_passes_after_two_requests(service, fault, parts):
    videos = stuck_videos(parts.supabase, 2)
    parts.proxies[service].treat(fault, times=2)

    with patience():
        outcome = await scan(policy(), parts.environment)

    assert outcome.error is None
    assert sorted(recovered(outcome)) == sorted(videos)
    assert parts.prefect.count_flow_runs() == 2


@BOTH
async def test_waits_for_as_long_as_retry_after_says(service, parts):
    [video] = stuck_videos(parts.supabase, 1)
    parts.proxies[service].treat(proxy.answer(429, "slowly", Retry_After="1"), times=1)

    waits: list[float] = []
    set_on_retry_hooks([lambda details: waits.append(details.wait_for)])
    try:
        outcome = await scan(policy(), parts.environment)
    finally:
        set_on_retry_hooks(None)

    assert outcome.error is None
    assert recovered(outcome) == [video]
    refused, passed = parts.proxies[service].requests[:2]
    assert passed.time - refused.time >= 1
    assert waits[0] == 1


@BOTH
async def test_does_not_follow_a_redirect_with_its_key(service, parts):
    videos = stuck_videos(parts.supabase, 1)
    async with proxy.serve("http://127.0.0.1:9") as elsewhere:
        parts.proxies[service].treat(proxy.answer(307, Location=f"{elsewhere.url}/"))

        await fails(parts, videos, service)

        assert elsewhere.requests == []


# A service that fails on the way


def filters(request: Request) -> dict[str, object]:
    found = request.json()["flow_runs"] if request.path.endswith("/flow_runs/filter") else {}
    assert isinstance(found, dict)
    return found


def index(request: Request) -> bool:
    return "state" in filters(request)


def earlier_recoveries(request: Request) -> bool:
    return "idempotency_key" in filters(request)


def new_runs(request: Request) -> bool:
    return bool(filters(request)) and not index(request) and not earlier_recoveries(request)


def second_page(request: Request) -> bool:
    return "order=" in request.query and request.query.count("or=") > 2


def still_stuck(request: Request) -> bool:
    return "order=" not in request.query


STEPS = [
    pytest.param(Service.SUPABASE, second_page, id="Supabase, the second page"),
    pytest.param(Service.PREFECT, at("/deployments/name/"), id="Prefect, the deployment"),
    pytest.param(Service.PREFECT, at("/work_pools/"), id="Prefect, the work pool"),
    pytest.param(Service.PREFECT, at("/queues/"), id="Prefect, the work queue"),
    pytest.param(Service.PREFECT, index, id="Prefect, the index"),
    pytest.param(Service.PREFECT, earlier_recoveries, id="Prefect, the earlier recoveries"),
    pytest.param(Service.SUPABASE, still_stuck, id="Supabase, the second look"),
    pytest.param(Service.PREFECT, new_runs, id="Prefect, the second look"),
    pytest.param(Service.PREFECT, at("/bulk"), id="Prefect, the creation"),
]


@pytest.mark.parametrize(("service", "step"), STEPS)
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(proxy.reset, id="reset"),
        pytest.param(proxy.answer(500, "broken"), id="500"),
        pytest.param(proxy.answer(200, [{}]), id="JSON of another shape"),
        pytest.param(proxy.answer(200, [{"id": "a", "end_time": "soon", "created_at": "x"}]), id="odd rows"),
    ],
)
async def test_recovers_nothing_when_a_step_fails_and_heals(service, step, fault, parts):
    videos = stuck_videos(parts.supabase, 2)
    parts.proxies[service].treat(fault, step)

    outcome = await fails(parts, videos, service)

    expected = FailureReason.NOT_CREATED if "/bulk" in str(last(parts.proxies[service])) else SkipReason.INTERRUPTED
    assert set(reasons(outcome)) <= {expected}
    await heals(parts, videos)


def last(between: Proxy) -> str:
    return between.requests[-1].path


@pytest.mark.parametrize("step", [index, earlier_recoveries, new_runs], ids=["index", "recoveries", "second look"])
@pytest.mark.parametrize("hours", [[1], [2, 1]], ids=["one run", "two runs"])
async def test_does_not_read_the_same_page_of_runs_for_ever(step, hours, parts):
    videos = stuck_videos(parts.supabase, 2)
    page = [{"id": f"{hour}", "state_type": "RUNNING", "expected_start_time": ago(hours=hour)} for hour in hours]
    parts.proxies[Service.PREFECT].treat(proxy.answer(200, page), step)

    outcome = await fails(parts, videos, Service.PREFECT)

    assert outcome.error is not None
    assert outcome.error.reason is ErrorReason.UNEXPECTED_ANSWER
    await heals(parts, videos)


async def test_does_not_read_the_same_page_of_rows_for_ever(parts):
    videos = stuck_videos(parts.supabase, 3)
    first: list[bytes] = []

    async def repeat(exchange: proxy.Exchange) -> web.Response:
        answer = await exchange.pass_on()
        assert isinstance(answer.body, bytes)
        first.append(answer.body)
        return web.Response(body=first[0], content_type="application/json")

    parts.proxies[Service.SUPABASE].treat(repeat)

    outcome = await fails(parts, videos, Service.SUPABASE)

    assert outcome.error is not None
    assert outcome.error.reason is ErrorReason.UNEXPECTED_ANSWER
    await heals(parts, videos)


async def test_asks_no_prefect_when_supabase_fails(parts):
    parts.proxies[Service.SUPABASE].treat(proxy.answer(500, "broken"))

    await scan(policy(), parts.environment)

    assert parts.proxies[Service.PREFECT].requests == []


# Creating


async def test_creates_every_run_once_when_the_answer_of_a_bulk_request_is_lost(parts):
    videos = stuck_videos(parts.supabase, 120)
    parts.proxies[Service.PREFECT].treat(proxy.lost, at("/bulk"), times=1)

    outcome = await scan(all_of_them(), parts.environment)

    assert outcome.error is None
    assert sorted(recovered(outcome)) == sorted(videos)
    assert sorted(run["parameters"]["video_id"] for run in parts.prefect.flow_runs()) == sorted(videos)
    by_video = {run["parameters"]["video_id"]: run["id"] for run in parts.prefect.flow_runs()}
    assert {r.video_id: r.run_id for r in outcome.results if isinstance(r, Recovered)} == by_video


@pytest.mark.parametrize("fault", [proxy.lost, proxy.cut], ids=["lost", "cut short"])
async def test_creates_no_second_run_after_a_scan_that_never_learned_of_the_first(fault, parts):
    videos = stuck_videos(parts.supabase, 3)
    parts.proxies[Service.PREFECT].treat(fault, at("/bulk"))

    with patience():
        outcome = await scan(policy(), parts.environment)
    parts.proxies[Service.PREFECT].heal()
    again = await scan(policy(), parts.environment)

    assert outcome.error is not None
    assert reasons(outcome) == {FailureReason.NOT_CREATED: 3}
    assert reasons(again) == {SkipReason.ACTIVE_FLOW_RUN: 3}
    assert sorted(run["parameters"]["video_id"] for run in parts.prefect.flow_runs()) == sorted(videos)


async def test_counts_the_batches_that_were_created_before_a_service_failed(parts):
    videos = [stuck_videos(parts.supabase, 1, created_at=ago(hours=300 - n))[0] for n in range(250)]
    late = {video.encode() for video in videos[100:]}
    parts.proxies[Service.PREFECT].treat(
        proxy.answer(500, "broken"),
        lambda request: request.path.endswith("/bulk") and any(video in request.body for video in late),
    )

    outcome = await scan(all_of_them(), parts.environment)

    assert outcome.error is not None
    assert outcome.error.service is Service.PREFECT
    assert recovered(outcome) == videos[:100]
    assert reasons(outcome) == {FailureReason.NOT_CREATED: 100, SkipReason.INTERRUPTED: 50}
    assert Counter(result.video_id for result in outcome.results) == Counter(videos)
    assert parts.prefect.count_flow_runs() == 100


STRICT = "process-video/with-a-schema"
PATTERN = {"type": "object", "properties": {"tenant_id": {"type": "string", "pattern": "^[a-z]+$"}}}


async def test_recovers_the_others_when_prefect_refuses_the_parameters_of_one_video(parts):
    parts.prefect.create_deployment(STRICT, enforce_parameter_schema=True, parameter_openapi_schema=PATTERN)
    videos = stuck_videos(parts.supabase, 4)
    [refused] = stuck_videos(parts.supabase, 1, tenant_id="TENANT 5", created_at=ago(hours=2))

    outcome = await scan(policy(prefect={"deployment": STRICT}), parts.environment)

    assert outcome.error is None
    assert sorted(recovered(outcome)) == sorted(videos)
    [failure] = [result for result in outcome.results if isinstance(result, Failure)]
    assert (failure.video_id, failure.reason) == (refused, FailureReason.REFUSED)
    assert "TENANT 5" in failure.detail
    assert parts.prefect.count_flow_runs() == 4


async def test_names_a_deployment_that_does_not_exist(parts):
    videos = stuck_videos(parts.supabase, 1)

    outcome = await scan(policy(prefect={"deployment": "no/such"}), parts.environment)

    assert outcome.error is not None
    assert outcome.error.reason is ErrorReason.DEPLOYMENT_NOT_FOUND
    assert "no/such" in outcome.error.message
    assert [result.video_id for result in outcome.results] == videos


async def test_names_a_deployment_that_is_deleted_during_the_scan(parts):
    stuck_videos(parts.supabase, 2)
    doomed = parts.prefect.create_deployment("process-video/doomed")

    def delete() -> None:
        parts.prefect.http.delete(f"deployments/{doomed.id}").raise_for_status()

    parts.proxies[Service.PREFECT].treat(proxy.before(delete), at("/bulk"), times=1)

    outcome = await scan(policy(prefect={"deployment": doomed.full_name}), parts.environment)

    assert outcome.error is not None
    assert outcome.error.reason is ErrorReason.DEPLOYMENT_NOT_FOUND
    assert reasons(outcome) == {FailureReason.NOT_CREATED: 2}
    assert parts.prefect.count_flow_runs() == 0


# Never twice


async def test_two_scans_at_once_create_one_run_for_each_video(parts):
    videos = stuck_videos(parts.supabase, 150)

    outcomes = await asyncio.gather(*(scan(all_of_them(), parts.environment) for _ in range(2)))

    assert [outcome.error for outcome in outcomes] == [None, None]
    assert sorted(run["parameters"]["video_id"] for run in parts.prefect.flow_runs()) == sorted(videos)
    for outcome in outcomes:
        assert Counter(result.video_id for result in outcome.results) == Counter(videos)
        assert set(reasons(outcome)) <= {SkipReason.ACTIVE_FLOW_RUN}


async def test_scans_of_one_process_take_turns_in_creating_so_that_none_counts_what_another_created(parts):
    videos = stuck_videos(parts.supabase, 250)
    crowd, services = proxy.Crowd(), live(parts.environment)
    parts.proxies[Service.PREFECT].treat(crowd, at("/bulk"))

    outcomes = await asyncio.gather(*(scan(all_of_them(), parts.environment, services=services) for _ in range(3)))

    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert crowd.most == 1
    assert sorted(video for outcome in outcomes for video in recovered(outcome)) == sorted(videos)


async def test_knows_when_its_last_run_was_created_also_where_that_is_not_the_last_of_the_batch(parts):
    videos = stuck_videos(parts.supabase, 3)
    deployment = parts.prefect.create_deployment(DEPLOYMENT)
    key = idempotency_key(deployment.flow_id, max(videos), 1)

    def create_one() -> None:
        parts.prefect.create_flow_run(deployment, parameters={"video_id": max(videos)}, idempotency_key=key)

    parts.proxies[Service.PREFECT].treat(proxy.before(create_one), at("/bulk"), times=1)

    outcome = await scan(policy(), parts.environment)

    created = {
        run["parameters"]["video_id"]: datetime.fromisoformat(run["created"]) for run in parts.prefect.flow_runs()
    }
    assert recovered(outcome) == sorted(videos)
    assert min(created, key=created.__getitem__) == recovered(outcome)[-1]
    assert outcome.created_until == max(created.values())


async def test_creates_no_second_run_after_a_crash_before_the_outcome_was_kept(parts):
    videos = stuck_videos(parts.supabase, 3)

    await scan(policy(), parts.environment)  # and whatever it said is lost
    outcome = await scan(policy(), parts.environment)

    assert reasons(outcome) == {SkipReason.ACTIVE_FLOW_RUN: 3}
    assert sorted(run["parameters"]["video_id"] for run in parts.prefect.flow_runs()) == sorted(videos)


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"])
async def test_recovers_a_video_again_whose_recovery_ended_without_getting_it_going(state, parts):
    [video] = stuck_videos(parts.supabase, 1)
    [first] = (await scan(policy(), parts.environment)).results
    assert isinstance(first, Recovered)
    parts.prefect.set_state(first.run_id, state)

    just_ended = await scan(policy(), parts.environment)
    parts.prefect.backdate(first.run_id, timedelta(days=1))
    [second] = (await scan(policy(), parts.environment)).results

    assert reasons(just_ended) == {SkipReason.RECENTLY_PROCESSED: 1}
    assert isinstance(second, Recovered)
    assert (first.attempt, second.attempt) == (1, 2)
    assert second.video_id == video
    assert len({run["idempotency_key"] for run in parts.prefect.flow_runs()}) == 2


async def test_a_scan_that_is_stopped_creates_nothing_more(parts):
    stuck_videos(parts.supabase, 250)
    stop = asyncio.Event()
    parts.proxies[Service.PREFECT].treat(proxy.before(stop.set), at("/bulk"), times=1)

    outcome = await scan(all_of_them(), parts.environment, stop=stop)

    assert len(recovered(outcome)) == parts.prefect.count_flow_runs() == 100
    assert reasons(outcome) == {SkipReason.INTERRUPTED: 150}
