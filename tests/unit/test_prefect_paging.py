"""Prefect's adapter where only a stand-in can show it: pages of any length, what changes meanwhile, and odd answers."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import stamina

from controller.adapters.http import ATTEMPTS
from controller.adapters.prefect.server import KEYS_ASKED, PrefectServer, authorization, open_server
from controller.decisions.decision import Recover
from controller.errors import ConfigurationError, ErrorReason, ServiceError
from controller.flow_runs import ACTIVE, ENDED, Deployment, StateType, idempotency_key
from controller.ports import CreatedRun
from tests.support import DEPLOYMENT as DEPLOYMENT_NAME
from tests.support import policy
from tests.unit.fakes import NOW, SECOND, Answer, Asked, serving, video

DEPLOYMENT = Deployment("d1", "f1")
HORIZON = NOW - timedelta(minutes=5)
SECRET = "pnu_0123456789"


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Retries without the waits between them."""
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        yield


def run(
    run_id: str, *, start: float = 0, state: str = "RUNNING", ended: float | None = None, **fields: Any
) -> dict[str, Any]:
    """A flow run as Prefect writes it; times in seconds after the horizon."""
    return {
        "id": run_id,
        "name": f"name-of-{run_id}",
        "state_type": state,
        "parameters": {"video_id": f"video-of-{run_id}"},
        "expected_start_time": written(start),
        "end_time": None if ended is None else written(ended),
        "flow_id": "f1",
        "idempotency_key": None,
        "next_scheduled_start_time": None,
        **fields,
    }


def written(seconds: float) -> str:
    return (HORIZON + seconds * SECOND).isoformat()


def within(time: str | None, wanted: dict[str, str]) -> bool:
    return time is not None and wanted.get("after_", "") <= time <= wanted.get("before_", "9999")


def matches(run: dict[str, Any], flow_runs: dict[str, Any], flows: dict[str, Any]) -> bool:
    """Whether a filter finds a run, as Prefect reads it: `after_` and `any_` as documented, bounds included."""
    tests: dict[str, Callable[[Any], bool]] = {
        "state": lambda wanted: run["state_type"] in wanted["type"]["any_"],
        "end_time": lambda wanted: run["end_time"] is not None and run["end_time"] >= wanted["after_"],
        "expected_start_time": lambda wanted: within(run["expected_start_time"], wanted),
        "next_scheduled_start_time": lambda wanted: within(run["next_scheduled_start_time"], wanted),
        "id": lambda wanted: (
            run["id"] in wanted.get("any_", [run["id"]]) and run["id"] not in wanted.get("not_any_", ())
        ),
        "idempotency_key": lambda wanted: run["idempotency_key"] in wanted["any_"],
    }
    in_flow = "id" not in flows or run["flow_id"] in flows["id"]["any_"]
    return in_flow and all(tests[name](wanted) for name, wanted in flow_runs.items())


@dataclass
class StandIn:
    """A Prefect server.

    Attributes:
        page: How many runs it answers at most.
        on: What happens before the n-th page (from 1).
        answers: Answers to paths that end like this, each in its turn and the last one for ever.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    page: int = 200
    on: dict[int, Callable[[], object]] = field(default_factory=dict)
    date: datetime | None = None
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    pages: list[dict[str, Any]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def respond(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        for end, answers in self.answers.items():
            if asked.target.endswith(end):
                return answers.pop(0) if len(answers) > 1 else answers[0]
        assert asked.target == "/flow_runs/filter"
        body = asked.json
        self.pages.append(body)
        self.on.get(len(self.pages), lambda: None)()
        assert body["sort"] == "EXPECTED_START_TIME_ASC"
        found = [run for run in self.runs if matches(run, body["flow_runs"], body.get("flows", {}))]
        found.sort(key=lambda run: run["expected_start_time"] or "")  # null is first, as on SQLite
        return Answer(
            found[: self.page], headers={"Date": format_datetime(self.date, usegmt=True)} if self.date else {}
        )

    @asynccontextmanager
    async def open(self, **prefect: Any) -> AsyncIterator[PrefectServer]:
        spec = policy(prefect=prefect).spec.prefect
        async with (
            serving(self.respond) as (url, _),
            open_server(url, authorization(SECRET, None), [SECRET], spec) as server,
        ):
            yield server

    async def index(self, **prefect: Any) -> list[str]:
        """The ids of what `flow_runs` reads."""
        async with self.open(**prefect) as server:
            return [run.id for run in await server.flow_runs(ended_since=HORIZON)]


# The index, page by page


@pytest.mark.parametrize("page", [1, 2, 3, 7, 200])
async def test_reads_every_run_once_whatever_the_length_of_a_page(page):
    runs = [run(f"r{n}", start=n) for n in range(7)]

    assert await StandIn(runs, page).index() == [f"r{n}" for n in range(7)]


@pytest.mark.parametrize("page", [1, 2, 3, 7])
async def test_reads_runs_that_share_one_instant_over_several_pages(page):
    starts = [0, 1, 1, 1, 1, 1, 2]

    found = await StandIn([run(f"r{n}", start=start) for n, start in enumerate(starts)], page).index()

    assert sorted(found) == [f"r{n}" for n in range(7)]


@pytest.mark.parametrize("page", [1, 3])
async def test_reads_runs_without_a_start_time_too(page):
    world = StandIn([run(f"r{n}", start=n) for n in range(4)], page)
    world.runs[0]["expected_start_time"] = None

    assert sorted(await world.index()) == ["r0", "r1", "r2", "r3"]


async def test_stops_at_an_empty_page_and_not_at_a_short_one():
    world = StandIn([run("r1")], page=200)

    await world.index()

    assert len(world.pages) == 3, "one run and an empty page of active ones, an empty page of ended ones"


async def test_an_empty_server_is_asked_two_questions():
    world = StandIn()

    assert await world.index() == []
    assert [set(body["flow_runs"]["state"]["type"]["any_"]) for body in world.pages] == [ACTIVE, ENDED]


async def test_asks_for_no_length_of_a_page_and_no_offset():
    world = StandIn([run("r1")])

    await world.index()

    assert not [body for body in world.pages if {"limit", "offset"} & set(body)]


async def test_reads_ended_runs_from_the_horizon_on():
    runs = [
        run("before", state="COMPLETED", ended=-0.001),
        run("at", state="COMPLETED", ended=0),
        run("after", state="FAILED", ended=1),
    ]

    assert sorted(await StandIn(runs).index()) == ["after", "at"]


@pytest.mark.parametrize("page", [1, 2])
async def test_loses_no_run_while_others_come_and_go(page):
    world = StandIn([run(f"r{n}", start=n) for n in range(6)], page)
    world.on[2] = lambda: world.runs.pop(0)
    world.on[3] = lambda: world.runs.insert(0, run("new", start=0))

    assert {f"r{n}" for n in range(1, 6)} <= set(await world.index())


async def test_a_run_that_ends_between_the_two_questions_is_found():
    world = StandIn([run("r1")])
    # Before the first question it is active; before the question for ended ones it ends.
    world.on[3] = lambda: world.runs[0].update(state_type="COMPLETED", end_time=written(60))

    async with world.open() as server:
        read = await server.flow_runs(ended_since=HORIZON)

    assert [each.state for each in read] == [StateType.RUNNING, StateType.COMPLETED]


async def test_a_failed_page_is_an_error_and_never_a_shorter_index():
    world = StandIn([run(f"r{n}", start=n) for n in range(6)], page=2)
    world.on[3] = lambda: world.answers.update({"/filter": [Answer(status=500)]})
    world.on[2] = world.on[3]

    async with world.open() as server:
        with pytest.raises(ServiceError):
            await server.flow_runs(ended_since=HORIZON)


OWN_FLOW = DEPLOYMENT_NAME.partition("/")[0]


@pytest.mark.parametrize(
    ("flows", "sent"), [([], None), (["a", "b"], {"name": {"any_": ["a", "b", OWN_FLOW]}})], ids=["all", "some"]
)
async def test_asks_for_the_flows_that_the_policy_names_and_for_its_own(flows, sent):
    world = StandIn()

    await world.index(flows=flows)

    assert [body.get("flows") for body in world.pages] == [sent, sent]


# What a run says


@pytest.mark.parametrize(
    ("fields", "video_id"),
    [
        pytest.param({}, "video-of-r", id="a_text"),
        pytest.param({"parameters": {"video_id": 7}}, "7", id="an_integer"),
        pytest.param({"parameters": {"other": "v"}}, None, id="another_parameter"),
        pytest.param({"parameters": {"video_id": None}}, None, id="null"),
        pytest.param({"parameters": {"video_id": {"a": 1}}}, None, id="an_object"),
        pytest.param({"parameters": None}, None, id="no_parameters"),
    ],
)
async def test_reads_a_runs_video_from(fields, video_id):
    async with StandIn([run("r", **fields)]).open() as server:
        [read] = await server.flow_runs(ended_since=HORIZON)

    assert read.video_id == video_id


async def test_reads_the_parameter_that_the_policy_names():
    world = StandIn([run("r", parameters={"key": "v1", "video_id": "other"})])

    async with world.open(videoIdParameter="key", parameters={"key": "{id}"}) as server:
        [read] = await server.flow_runs(ended_since=HORIZON)

    assert read.video_id == "v1"


async def test_reads_of_a_run_what_tells_a_recovery():
    raw = run("r", created=written(-60), idempotency_key="video-recovery/f1/v1/2", tags=["recovery", "nightly"])
    async with StandIn([raw]).open() as server:
        [read] = await server.flow_runs(ended_since=HORIZON)

    assert read.created == HORIZON - 60 * SECOND
    assert (read.key, sorted(read.tags)) == ("video-recovery/f1/v1/2", ["nightly", "recovery"])


@pytest.mark.parametrize("fields", [{}, {"idempotency_key": 7, "tags": None, "created": None}], ids=["absent", "odd"])
async def test_reads_a_run_that_is_no_recovery_and_says_little(fields):
    async with StandIn([run("r", **fields)]).open() as server:
        [read] = await server.flow_runs(ended_since=HORIZON)

    assert (read.created, read.key, read.tags) == (None, None, frozenset())


STARTED_LATE = {"expected_start_time": 10, "start_time": 20}


@pytest.mark.parametrize(
    ("state", "times", "changed", "since"),
    [
        pytest.param("SCHEDULED", {"expected_start_time": 900}, 0, 900, id="it_is_to_start_later"),
        pytest.param("PENDING", {"expected_start_time": 10}, None, 10, id="it_was_to_start"),
        pytest.param("RUNNING", STARTED_LATE, None, 20, id="it_started"),
        pytest.param("RUNNING", STARTED_LATE, 30, 30, id="its_state_changed"),
        pytest.param("PAUSED", STARTED_LATE, 30, 30, id="it_was_paused"),
        pytest.param("CANCELLING", STARTED_LATE, 30, 20, id="being_cancelled_is_no_sign_of_life"),
        pytest.param(
            "SCHEDULED", {**STARTED_LATE, "next_scheduled_start_time": 900}, 30, 900, id="it_is_to_be_retried_later"
        ),
        pytest.param("RUNNING", {"expected_start_time": None}, None, None, id="nobody_says"),
    ],
)
async def test_reads_since_when_nothing_has_happened_to_a_run(state, times, changed, since):
    raw = {
        **run("r", state=state),
        **{name: written(time) if time is not None else None for name, time in times.items()},
    }
    if changed is not None:
        raw["state"] = {"type": state, "timestamp": written(changed)}
    async with StandIn([raw]).open() as server:
        [read] = await server.flow_runs(ended_since=HORIZON)

    assert read.since == (None if since is None else HORIZON + since * SECOND)


@pytest.mark.parametrize("state", ["SUSPENDED", "", None, 7])
async def test_a_state_that_nobody_knows_counts_as_work(state):
    world = StandIn(answers={"/filter": [Answer([run("r", state_type=state)]), Answer([])]})

    async with world.open() as server:
        [read] = await server.flow_runs(ended_since=HORIZON)

    assert read.active


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"<html>sign in</html>", id="a_page_for_people"),
        pytest.param(b"", id="nothing"),
        pytest.param({"detail": "ok"}, id="an_object"),
        pytest.param(None, id="null"),
        pytest.param(["r1"], id="a_list_of_texts"),
        pytest.param([{}], id="a_run_without_an_id"),
        pytest.param([run("r", id=None)], id="a_run_whose_id_is_null"),
        pytest.param([run("r", id=7)], id="a_run_whose_id_is_a_number"),
        pytest.param([run("r", end_time="yesterday")], id="a_run_that_ended_at_no_time"),
        pytest.param([run("r", end_time="2026-03-10T12:00:00")], id="a_run_that_ended_at_a_time_without_a_zone"),
    ],
)
async def test_an_answer_that_is_no_list_of_runs_is_an_unexpected_answer(answer):
    async with StandIn(answers={"/filter": [Answer(answer), Answer([])]}).open() as server:
        with pytest.raises(ServiceError) as caught:
            await server.flow_runs(ended_since=HORIZON)

    assert caught.value.reason is ErrorReason.UNEXPECTED_ANSWER


async def test_an_error_names_no_key():
    async with StandIn(answers={"/filter": [Answer(f"bad token {SECRET}".encode(), status=401)]}).open() as server:
        with pytest.raises(ServiceError) as caught:
            await server.flow_runs(ended_since=HORIZON)

    assert SECRET not in caught.value.message
    assert caught.value.reason is ErrorReason.UNAUTHORIZED


# Runs that appeared since


def asked_since(world: StandIn) -> datetime:
    """From when on the last look for new runs looked; it asks for retried runs last."""
    starts = [
        page["flow_runs"]["expected_start_time"]
        for page in world.pages
        if "end_time" not in page["flow_runs"] and "expected_start_time" in page["flow_runs"]
    ]
    new, retried = starts[-2:]
    assert new["after_"] == retried["before_"]
    return datetime.fromisoformat(new["after_"])


async def test_looks_for_new_runs_from_shortly_before_the_index_by_the_servers_clock():
    world = StandIn(date=NOW - timedelta(hours=3))  # the server's clock is far behind
    async with world.open() as server:
        await server.flow_runs(ended_since=HORIZON)
        world.date = NOW
        await server.new_flow_runs()
        first = asked_since(world)
        await server.new_flow_runs()

    # However long an answer takes, and the server tells no parts of a second.
    assert first <= NOW - timedelta(hours=3, seconds=30) < asked_since(world) <= NOW - timedelta(seconds=30)


async def test_finds_a_run_that_was_to_start_twenty_seconds_before_the_server_answered():
    # It had its start time when its transaction began, and could be seen when that ended.
    world = StandIn(date=NOW)
    async with world.open() as server:
        await server.flow_runs(ended_since=HORIZON)
        starts = {"late": NOW - 20 * SECOND, "of a minute ago": NOW - 60 * SECOND}
        world.runs = [run(run_id, expected_start_time=start.isoformat()) for run_id, start in starts.items()]

        assert [each.id for each in await server.new_flow_runs()] == ["late"]
        assert [each.id for each in await server.new_flow_runs()] == ["late"]


@pytest.mark.parametrize("date", ["", "nonsense"])
async def test_looks_for_new_runs_from_the_horizon_on_where_the_server_tells_no_time(date):
    world = StandIn()
    async with world.open() as server:
        if date:
            world.answers["/filter"] = [Answer([], headers={"Date": date})]
        await server.flow_runs(ended_since=HORIZON)
        world.answers.clear()
        await server.new_flow_runs()

    assert asked_since(world) == HORIZON - 30 * SECOND


async def test_finds_new_runs_in_any_state():
    world = StandIn(date=HORIZON)
    async with world.open() as server:
        await server.flow_runs(ended_since=HORIZON)
        world.runs = [run("r1", start=1), run("r2", start=2, state="COMPLETED", ended=3)]

        assert [each.id for each in await server.new_flow_runs()] == ["r1", "r2"]


async def test_finds_an_old_run_that_somebody_retries():
    world = StandIn(date=HORIZON + 60 * SECOND)
    async with world.open() as server:
        await server.flow_runs(ended_since=HORIZON)
        world.runs = [
            run("retried", start=-3600, state="SCHEDULED", next_scheduled_start_time=written(61)),
            run("still waits", start=-3600, state="SCHEDULED", next_scheduled_start_time=written(-3600)),
        ]

        assert [each.id for each in await server.new_flow_runs()] == ["retried"]


async def test_leaves_out_runs_of_its_own():
    world = StandIn(date=HORIZON, answers={"/bulk": [created("one", "two", "three")]})
    async with world.open() as server:
        await server.flow_runs(ended_since=HORIZON)
        await create(server, "v1", "v2", "v3")
        world.runs = [run(run_id, start=1) for run_id in ("one", "two", "other", "three")]

        assert [each.id for each in await server.new_flow_runs()] == ["other"]


@pytest.mark.parametrize("page", [1, 2, 200])
async def test_takes_no_new_run_for_a_retried_one_on_any_page(page):
    # A run of its own waits for its start, and so does one that is retried; only the other one is from before.
    world = StandIn(date=HORIZON + 60 * SECOND, page=page, answers={"/bulk": [created("mine")]})
    async with world.open() as server:
        await server.flow_runs(ended_since=HORIZON)
        await create(server, "v1")
        waits: dict[str, Any] = {"state": "SCHEDULED", "next_scheduled_start_time": written(61)}
        world.runs = [
            run("first", start=-60, **waits),
            run("second", start=-30, **waits),
            run("mine", start=61, **waits),
        ]

        assert [each.id for each in await server.new_flow_runs()] == ["first", "second"]


# Earlier recoveries


def recovery(video_id: str, attempt: int, state: str = "CRASHED") -> dict[str, Any]:
    key = idempotency_key("f1", video_id, attempt)
    return run(f"{video_id}-{attempt}", state=state, idempotency_key=key, parameters={"video_id": video_id})


async def attempts(world: StandIn, video_ids: list[str]) -> dict[str, list[int]]:
    async with world.open() as server:
        found = await server.recoveries(DEPLOYMENT, video_ids)
    return {video_id: [each.attempt for each in earlier] for video_id, earlier in found.items()}


async def test_finds_the_earlier_recoveries_of_each_video_in_their_order():
    world = StandIn([recovery("v1", 2), recovery("v1", 1), recovery("v3", 1), recovery("other", 1)])

    assert await attempts(world, ["v1", "v2", "v3"]) == {"v1": [1, 2], "v3": [1]}


async def test_asks_nothing_for_no_videos():
    world = StandIn()

    assert await attempts(world, []) == {}
    assert world.pages == []


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(KEYS_ASKED, [KEYS_ASKED]), (KEYS_ASKED + 1, [KEYS_ASKED, 1]), (3 * KEYS_ASKED, [KEYS_ASKED] * 3)],
)
async def test_asks_for_as_many_keys_at_once_as_prefect_answers(count, sizes):
    world = StandIn()

    await attempts(world, [f"v{n}" for n in range(count)])

    assert [len(body["flow_runs"]["idempotency_key"]["any_"]) for body in world.pages] == sizes


async def test_asks_only_within_the_deployments_flow():
    world = StandIn([{**recovery("v1", 1), "flow_id": "another"}])

    assert await attempts(world, ["v1"]) == {}


@pytest.mark.parametrize("page", [1, 50, 199])
async def test_finds_all_earlier_recoveries_of_a_server_with_shorter_pages(page):
    # PREFECT_SERVER_API_DEFAULT_LIMIT may be below 200. A recovery that is not seen would be created under its old key:
    # Prefect then answers with the old run, and the scan would say "recovered" of a video that nobody works on.
    videos = [f"v{n}" for n in range(200)]

    assert await attempts(StandIn([recovery(each, 1) for each in videos], page), videos) == {
        each: [1] for each in videos
    }


async def test_a_run_that_nobody_asked_for_is_an_unexpected_answer():
    world = StandIn(answers={"/filter": [Answer([recovery("other", 1)]), Answer([])]})

    with pytest.raises(ServiceError) as caught:
        await attempts(world, ["v1"])

    assert caught.value.reason is ErrorReason.UNEXPECTED_ANSWER


# When runs were created


@pytest.mark.parametrize("page", [1, 2, 200])
async def test_tells_when_the_last_of_some_runs_was_created_whatever_their_order(page):
    world = StandIn([run(f"r{n}", created=written(seconds)) for n, seconds in enumerate([2, 9, 5, 70])], page)

    async with world.open() as server:
        assert await server.created_until(["r0", "r1", "r2"]) == HORIZON + 9 * SECOND
    assert world.pages[0]["flow_runs"] == {"id": {"any_": ["r0", "r1", "r2"]}}
    assert len(world.pages) == -(-3 // page), "none is asked for once all have come"


async def test_tells_when_the_last_of_those_runs_was_created_that_are_still_there():
    async with StandIn([run("r0", created=written(2))]).open() as server:
        assert await server.created_until(["r0", "gone"]) == HORIZON + 2 * SECOND
        assert await server.created_until(["gone"]) is None


async def test_another_run_than_those_asked_for_is_an_unexpected_answer():
    async with StandIn(answers={"/filter": [Answer([run("other")])]}).open() as server:
        with pytest.raises(ServiceError) as caught:
            await server.created_until(["r0"])

    assert caught.value.reason is ErrorReason.UNEXPECTED_ANSWER


# Creating


def decision(video_id: str, attempt: int = 1) -> Recover:
    return Recover(video(video_id), attempt, {"video_id": video_id})


def created(*run_ids: str) -> Answer:
    return Answer({"results": [{"status": "CREATED", "flow_run_id": run_id} for run_id in run_ids]}, status=201)


LOCKED = Answer({"results": [{"status": "FAILED", "error": "(sqlite3.OperationalError) database is locked"}]})


async def create(server: PrefectServer, *video_ids: str) -> list[CreatedRun]:
    return [answer async for answer in server.create(DEPLOYMENT, [decision(video_id) for video_id in video_ids])]


def targets(world: StandIn) -> list[str]:
    return [asked.target.rsplit("/", 1)[-1] for asked in world.asked]


async def test_creates_all_in_one_request_with_their_keys_and_tags():
    world = StandIn(answers={"/bulk": [created("r1", "r2")]})
    async with world.open(workQueue="recovery", tags=["recovery", "prod"]) as server:
        answers = await create(server, "v1", "v2")

    assert answers == [CreatedRun(decision("v1"), "r1"), CreatedRun(decision("v2"), "r2")]
    assert world.asked[0].target == "/deployments/d1/create_flow_run/bulk"
    assert [body["idempotency_key"] for body in world.asked[0].json] == [
        idempotency_key("f1", "v1", 1),
        idempotency_key("f1", "v2", 1),
    ]
    assert world.asked[0].json[0] == {
        "parameters": {"video_id": "v1"},
        "tags": ["recovery", "prod"],
        "idempotency_key": "video-recovery/f1/v1/1",
        "work_queue_name": "recovery",
    }


async def test_names_no_work_queue_where_the_policy_names_none():
    world = StandIn(answers={"/bulk": [created("r1")]})
    async with world.open() as server:
        await create(server, "v1")

    assert "work_queue_name" not in world.asked[0].json[0]


async def test_sends_the_key():
    world = StandIn(answers={"/bulk": [created("r1")]})
    async with world.open() as server:
        await create(server, "v1")

    assert world.asked[0].headers["authorization"] == f"Bearer {SECRET}"


async def test_one_refused_run_is_told_with_what_prefect_says_and_the_others_are_created():
    answer = {
        "results": [{"status": "FAILED", "error": "no such\nparameter"}, {"status": "CREATED", "flow_run_id": "r2"}]
    }
    async with StandIn(answers={"/bulk": [Answer(answer)]}).open() as server:
        assert await create(server, "v1", "v2") == [
            CreatedRun(decision("v1"), None, "Prefect refused the run: no such parameter"),
            CreatedRun(decision("v2"), "r2"),
        ]


@pytest.mark.parametrize("status", [404, 405])
async def test_creates_one_by_one_on_a_server_without_the_bulk_route_and_remembers_that(status):
    single = [Answer({"id": f"r{n}"}, status=201) for n in (1, 2, 3)]
    world = StandIn(answers={"/bulk": [Answer({"detail": "Not Found"}, status=status)], "/create_flow_run": single})
    async with world.open() as server:
        first, second = await create(server, "v1", "v2"), await create(server, "v3")

    assert [*first, *second] == [CreatedRun(decision(f"v{n}"), f"r{n}") for n in (1, 2, 3)]
    assert targets(world) == ["bulk", "create_flow_run", "create_flow_run", "create_flow_run"]


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_creates_one_by_one_what_is_refused_together_and_tries_the_next_batch_together(status):
    single = [Answer({"id": "r1"}, status=201), Answer({"detail": "bad parameter"}, status=422)]
    world = StandIn(answers={"/bulk": [Answer(status=status), created("r3")], "/create_flow_run": single})
    async with world.open() as server:
        first, second = await create(server, "v1", "v2"), await create(server, "v3")

    assert first[0] == CreatedRun(decision("v1"), "r1")
    assert first[1].run_id is None
    assert first[1].error.startswith("Prefect refused the run: ")
    assert "bad parameter" in first[1].error
    assert second == [CreatedRun(decision("v3"), "r3")]
    assert targets(world) == ["bulk", "create_flow_run", "create_flow_run", "bulk"]


@pytest.mark.parametrize("status", [400, 409, 413, 422])
async def test_one_run_that_is_refused_alone_does_not_keep_the_others_from_being_created(status):
    single = [Answer(b"no", status=status), Answer({"id": "r2"}, status=201)]
    world = StandIn(answers={"/bulk": [Answer(status=405)], "/create_flow_run": single})
    async with world.open() as server:
        answers = await create(server, "v1", "v2")

    assert [answer.run_id for answer in answers] == [None, "r2"]


async def test_a_server_that_fails_amid_single_creates_keeps_the_answers_before():
    single = [Answer({"id": "r1"}, status=201), Answer(b"oops", status=500)]
    world = StandIn(answers={"/bulk": [Answer(status=405)], "/create_flow_run": single})
    async with world.open() as server:
        answers = server.create(DEPLOYMENT, [decision("v1"), decision("v2"), decision("v3")])
        first = await anext(answers)
        with pytest.raises(ServiceError) as caught:
            await anext(answers)

    assert first == CreatedRun(decision("v1"), "r1")
    assert caught.value.reason is ErrorReason.SERVER_ERROR


@pytest.mark.parametrize("route", ["/bulk", "/create_flow_run"])
async def test_a_deployment_that_is_gone_stalls_the_policy(route):
    gone = Answer({"detail": "Deployment d1 not found"}, status=404)
    answers = {"/bulk": [gone if route == "/bulk" else Answer(status=405)], "/create_flow_run": [gone]}
    async with StandIn(answers=answers).open() as server:
        with pytest.raises(ConfigurationError) as caught:
            await create(server, "v1")

    assert caught.value.reason is ErrorReason.DEPLOYMENT_NOT_FOUND


async def test_asks_again_when_an_answer_of_200_says_that_the_database_is_locked():
    world = StandIn(answers={"/bulk": [LOCKED, LOCKED, created("r1")]})
    async with world.open() as server:
        assert await create(server, "v1") == [CreatedRun(decision("v1"), "r1")]

    assert len({asked.body for asked in world.asked}) == 1, "the same keys each time"
    assert len(world.asked) == 3


async def test_a_database_that_stays_locked_is_an_error_of_the_service():
    async with StandIn(answers={"/bulk": [LOCKED]}).open() as server:
        with pytest.raises(ServiceError) as caught:
            await create(server, "v1")

    assert caught.value.reason is ErrorReason.SERVER_ERROR
    assert "database is locked" in caught.value.message


@pytest.mark.parametrize(
    "busy",
    [Answer(status=503), Answer(status=429, headers={"Retry-After": "1"}), Answer(b"12345", cut=2)],
    ids=["503", "429", "cut"],
)
async def test_asks_again_when_the_server_is_busy(busy):
    world = StandIn(answers={"/bulk": [busy, created("r1")]})
    async with world.open() as server:
        assert await create(server, "v1") == [CreatedRun(decision("v1"), "r1")]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"<html>", id="a_page_for_people"),
        pytest.param([], id="a_list"),
        pytest.param({"results": None}, id="no_results"),
        pytest.param({"results": []}, id="too_few_results"),
        pytest.param({"results": [{}, {}]}, id="too_many_results"),
        pytest.param({"results": ["CREATED"]}, id="a_result_that_is_a_text"),
        pytest.param({"results": [{"status": "CREATED"}]}, id="a_created_run_without_an_id"),
    ],
)
async def test_an_answer_to_a_bulk_create_that_is_none_is_an_unexpected_answer(answer):
    async with StandIn(answers={"/bulk": [Answer(answer)]}).open() as server:
        with pytest.raises(ServiceError) as caught:
            await create(server, "v1")

    assert caught.value.reason is ErrorReason.UNEXPECTED_ANSWER


@pytest.mark.parametrize("answer", [b"<html>", [], {}, {"id": None}], ids=repr)
async def test_an_answer_to_a_single_create_that_is_none_is_an_unexpected_answer(answer):
    answers = {"/bulk": [Answer(status=405)], "/create_flow_run": [Answer(answer)]}
    async with StandIn(answers=answers).open() as server:
        with pytest.raises(ServiceError) as caught:
            await create(server, "v1")

    assert caught.value.reason is ErrorReason.UNEXPECTED_ANSWER


# The deployment

FOUND: dict[str, Any] = {
    "id": "d1",
    "flow_id": "f1",
    "paused": False,
    "status": "READY",
    "work_pool_name": "p",
    "work_queue_name": "q",
}
POOL: dict[str, Any] = {"status": "READY", "is_paused": False}
QUEUE: dict[str, Any] = {"is_paused": False}
PATH = "/deployments/name/" + DEPLOYMENT_NAME


@pytest.mark.parametrize(
    ("found", "pool", "queue", "reason"),
    [
        pytest.param(FOUND, POOL, QUEUE, None, id="ready"),
        pytest.param({**FOUND, "paused": True}, POOL, QUEUE, "DeploymentPaused", id="paused"),
        pytest.param(FOUND, {**POOL, "is_paused": True}, QUEUE, "WorkPoolPaused", id="its_pool_is_paused"),
        pytest.param(FOUND, {**POOL, "status": "NOT_READY"}, QUEUE, "NoWorkerReady", id="no_worker"),
        pytest.param(FOUND, {**POOL, "status": None}, QUEUE, "NoWorkerReady", id="never_a_worker"),
        pytest.param(FOUND, POOL, {"is_paused": True}, "WorkQueuePaused", id="its_queue_is_paused"),
        pytest.param({**FOUND, "status": "NOT_READY"}, POOL, QUEUE, None, id="its_pool_says_more_than_its_own_status"),
        pytest.param({**FOUND, "work_pool_name": None}, None, None, None, id="served_without_a_pool"),
        pytest.param(
            {**FOUND, "work_pool_name": None, "status": "NOT_READY"},
            None,
            None,
            "DeploymentNotReady",
            id="nothing_serves_it",
        ),
        pytest.param({**FOUND, "work_queue_name": None}, POOL, None, None, id="without_a_queue"),
    ],
)
async def test_tells_what_keeps_the_deployment_from_running(found, pool, queue, reason):
    answers = {PATH: [Answer(found)], "/work_pools/p": [Answer(pool)], "/work_pools/p/queues/q": [Answer(queue)]}
    async with StandIn(answers=answers).open() as server:
        deployment = await server.deployment()

    assert (deployment.id, deployment.flow_id, deployment.not_ready_reason) == ("d1", "f1", reason)
    assert (deployment.not_ready is None) is (reason is None)


async def test_looks_at_the_policys_work_queue_which_the_first_recovery_may_yet_create():
    answers = {PATH: [Answer(FOUND)], "/work_pools/p": [Answer(POOL)], "/queues/recovery": [Answer(status=404)]}
    async with StandIn(answers=answers).open(workQueue="recovery") as server:
        assert (await server.deployment()).not_ready is None


async def test_a_deployment_that_is_not_there_stalls_the_policy():
    async with StandIn(answers={PATH: [Answer({"detail": "Deployment not found"}, status=404)]}).open() as server:
        with pytest.raises(ConfigurationError) as caught:
            await server.deployment()

    assert caught.value.reason is ErrorReason.DEPLOYMENT_NOT_FOUND
    assert DEPLOYMENT_NAME in caught.value.message


async def test_a_wrong_address_is_no_missing_deployment():
    async with StandIn(answers={PATH: [Answer({"detail": "Not Found"}, status=404)]}).open() as server:
        with pytest.raises(ServiceError) as caught:
            await server.deployment()

    assert caught.value.reason is ErrorReason.NOT_FOUND
    assert "check PREFECT_API_URL" in caught.value.message


@pytest.mark.parametrize("answer", [b"<html>", [], {}, {"id": "d1"}, {**FOUND, "id": 7}], ids=lambda a: repr(a)[:20])
async def test_an_answer_that_is_no_deployment_is_an_unexpected_answer(answer):
    answers = {PATH: [Answer(answer)], "/work_pools/p": [Answer(POOL)], "/queues/q": [Answer(QUEUE)]}
    async with StandIn(answers=answers).open() as server:
        with pytest.raises(ServiceError) as caught:
            await server.deployment()

    assert caught.value.reason is ErrorReason.UNEXPECTED_ANSWER


def test_authorizes_by_key_by_password_or_not_at_all():
    assert authorization("k", None) == {"Authorization": "Bearer k"}
    assert authorization("k", "user:password") == {"Authorization": "Bearer k"}
    assert authorization(None, "user:password") == {"Authorization": "Basic dXNlcjpwYXNzd29yZA=="}
    assert authorization(None, None) == {}


def test_the_horizon_of_these_tests_is_aware():
    assert HORIZON.tzinfo is UTC
