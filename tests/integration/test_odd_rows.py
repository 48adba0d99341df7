"""Rows as tables have them after years: null times, hostile names, ids with any character. One never harms another."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from controller.api.manifest import Policy
from controller.decisions.decision import Failure, FailureReason, SkipReason
from controller.outcome import Outcome, Recovered
from controller.videos import MAX_SHOWN_LENGTH, printable
from devstack import Prefect, Supabase
from tests.support import DEPLOYMENT, ago, policy, reasons, recovered, scan, stuck_videos

pytestmark = pytest.mark.integration

TABLE = "odd_rows"
ONLY_THE_ID = {"video_id": "{id}"}

Insert = Callable[..., None]


@pytest.fixture(scope="module")
def table(supabase_server: Supabase) -> Iterator[None]:
    """A table that forbids nothing: ids are text, and everything else may be null."""
    columns = {
        "id": "text",
        "status": "text",
        "created_at": "timestamptz",
        "display_path": "text",
        "tenant_id": "text",
        "deleted_at": "timestamptz",
    }
    supabase_server.create_table("captionacc", TABLE, columns)
    yield
    supabase_server.execute(f"drop table captionacc.{TABLE}")


@pytest.fixture
def insert(table: None, supabase: Supabase) -> Insert:
    """Inserts stuck videos, each with what the arguments say."""
    supabase.execute(f"truncate captionacc.{TABLE}")

    def insert(*rows: dict[str, object]) -> None:
        stuck = {"status": "pending", "created_at": ago(hours=1), "tenant_id": "tenant"}
        supabase.insert("captionacc", TABLE, [{**stuck, **row} for row in rows])

    return insert


@pytest.fixture
def environment(supabase: Supabase, prefect: Prefect) -> Iterator[dict[str, str]]:
    yield {**supabase.env(), **prefect.env()}
    prefect.clear_flow_runs()


def failures(outcome: Outcome) -> dict[str, str]:
    failed = [result for result in outcome.results if isinstance(result, Failure)]
    assert {failure.reason for failure in failed} <= {FailureReason.INVALID_ROW}
    return {failure.video_id: failure.detail for failure in failed}


def of_table(**prefect: object) -> Policy:
    return policy(supabase={"table": TABLE}, prefect=prefect)


@pytest.mark.parametrize("time", [None, "-infinity", "0044-03-15 BC"])
async def test_reports_a_video_without_a_usable_time_and_recovers_its_neighbours(time, environment, insert):
    insert({"id": "before"}, {"id": "bad", "created_at": time}, {"id": "after"})

    outcome = await scan(of_table(), environment)

    assert outcome.error is None
    assert sorted(recovered(outcome)) == ["after", "before"]
    assert list(failures(outcome)) == ["bad"]
    assert "created_at" in failures(outcome)["bad"]


async def test_recovers_a_video_from_the_year_one_and_waits_for_one_from_the_future(environment, insert):
    insert({"id": "old", "created_at": "0001-01-01"}, {"id": "next", "created_at": "9999-12-31"})
    insert({"id": "never", "created_at": "infinity"})

    outcome = await scan(of_table(), environment)

    assert recovered(outcome) == ["old"]
    assert len(outcome.results) == 1


@pytest.mark.parametrize("tenant", [None, "", "a/b", "/", "..", ".", "../..", "a\\b", "a\nb", "a\x1b[31mb"])
async def test_reports_a_tenant_that_would_change_a_path_and_recovers_its_neighbours(tenant, environment, insert):
    insert({"id": "before"}, {"id": "bad", "tenant_id": tenant}, {"id": "after"})

    outcome = await scan(of_table(), environment)

    assert outcome.error is None
    assert sorted(recovered(outcome)) == ["after", "before"]
    assert list(failures(outcome)) == ["bad"]
    assert "tenant_id" in failures(outcome)["bad"]
    assert printable(failures(outcome)["bad"]) == failures(outcome)["bad"]


async def test_takes_a_tenant_without_a_path_for_what_it_is(environment, insert, prefect):
    insert({"id": "a", "tenant_id": "a/b"})

    outcome = await scan(of_table(parameters={"video_id": "{id}", "tenant": "{tenant_id}"}), environment)

    assert recovered(outcome) == ["a"]
    assert [run["parameters"]["tenant"] for run in prefect.flow_runs()] == ["a/b"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("x" * 10_000, id="10 kB"),
        pytest.param("a\x1b[2J\x1b]0;title\x07b\r\nc\x7f\x85", id="escape sequences and line breaks"),
        pytest.param("a\u202egnp.exe\u2066\u200b\ufeff", id="characters that turn the direction of writing"),
        pytest.param("", id="empty"),
        pytest.param(None, id="null"),
    ],
)
async def test_recovers_a_video_whatever_its_name_and_shows_it_on_one_line(name, environment, insert):
    insert({"id": "a", "display_path": name})

    outcome = await scan(of_table(), environment)

    assert recovered(outcome) == ["a"]
    assert outcome.stuck is not None
    [video] = outcome.stuck
    assert len(video.name) <= MAX_SHOWN_LENGTH
    assert printable(video.name) == video.name


ODD_IDS = [
    *("comma,", "a,b", '"quoted"', 'half"', "(parentheses)", ")", "back\\slash", "\\", '\\"', "percent%", "%2C", "%00"),
    *("plus+ +", "a&b=c", "#", "?", ";", ":", "a.b", "eq.a", "in.(a)", "*", "{id}", "{}", "null", "NULL", "true", "0"),
    *("-1", "'", "''; drop table videos", "/", "..", "../a", "é", "e\u0301", "日本語", "🎬", "a🎬" * 60, "x" * 200),
    *("inner  spaces", "-", "_", "[", "]", "|", "<b>", "~", "`", "$1", "@", "!", "^"),
]


async def test_recovers_a_video_once_whatever_characters_its_id_has(environment, insert, prefect):
    insert(*({"id": video_id} for video_id in ODD_IDS))

    first = await scan(of_table(parameters=ONLY_THE_ID), environment)
    second = await scan(of_table(parameters=ONLY_THE_ID), environment)

    assert first.error is None
    assert failures(first) == {}
    assert sorted(recovered(first)) == sorted(ODD_IDS)
    assert sorted(run["parameters"]["video_id"] for run in prefect.flow_runs()) == sorted(ODD_IDS)
    assert reasons(second) == {SkipReason.ACTIVE_FLOW_RUN: len(ODD_IDS)}


async def test_finds_the_earlier_attempts_of_a_video_whatever_characters_its_id_has(environment, insert, prefect):
    insert(*({"id": video_id} for video_id in ODD_IDS))
    await scan(of_table(parameters=ONLY_THE_ID), environment)
    for run in prefect.flow_runs():
        prefect.set_state(run["id"], "COMPLETED")
        prefect.backdate(run["id"], timedelta(days=2))

    again = await scan(of_table(parameters=ONLY_THE_ID), environment)

    assert sorted(recovered(again)) == sorted(ODD_IDS)
    assert {result.attempt for result in again.results if isinstance(result, Recovered)} == {2}
    assert prefect.count_flow_runs() == 2 * len(ODD_IDS)


async def test_narrows_a_scan_to_a_video_whatever_characters_its_id_has(environment, insert):
    insert(*({"id": video_id} for video_id in ODD_IDS))
    found: list[str] = []

    for video_id in ODD_IDS:
        outcome = await scan(policy(supabase={"table": TABLE}, mode="Observe"), environment, video_id=video_id)
        found += [video.id for video in outcome.stuck or ()]

    assert found == ODD_IDS


@pytest.mark.parametrize("video_id", [" leading", "trailing ", " both ", " ", "\u00a0", "\u3000wide"])
async def test_recovers_or_reports_a_video_with_spaces_around_its_id(video_id, environment, insert):
    insert({"id": "a"}, {"id": video_id})

    outcome = await scan(of_table(parameters=ONLY_THE_ID), environment)

    assert outcome.error is None
    assert sorted([*recovered(outcome), *failures(outcome)]) == sorted(["a", video_id])


@pytest.mark.parametrize(
    "video_id",
    [
        pytest.param("two\nlines", id="a line break"),
        pytest.param("tab\t", id="a tab"),
        pytest.param("\x1b[31mred", id="an escape sequence"),
        pytest.param("zero\u200bwidth", id="a space without width"),
        pytest.param("👨\u200d👩\u200d👧", id="an emoji of several, joined invisibly"),
        pytest.param("x" * 300, id="300 characters"),
        pytest.param("x" * 10_000, id="10 kB"),
        pytest.param("", id="none"),
    ],
)
async def test_reports_an_id_that_nothing_can_be_done_with_and_recovers_its_neighbours(video_id, environment, insert):
    insert({"id": "0"}, {"id": video_id}, {"id": "zz"}, {"id": None})

    outcome = await scan(of_table(parameters=ONLY_THE_ID), environment)

    assert outcome.error is None
    assert recovered(outcome) == ["0", "zz"]
    [(shown, detail)] = failures(outcome).items()
    assert len(shown) <= MAX_SHOWN_LENGTH
    assert printable(shown + detail) == shown + detail
    assert "'id'" in detail


async def test_reports_an_id_that_would_change_a_path(environment, insert):
    insert({"id": "a/../b"}, {"id": ".."}, {"id": "c"})

    outcome = await scan(of_table(), environment)

    assert recovered(outcome) == ["c"]
    assert set(failures(outcome)) == {"a/../b", ".."}


async def test_reports_many_bad_rows_one_by_one(environment, insert):
    insert(*({"id": f"bad {n}", "created_at": None} for n in range(50)), *({"id": f"good {n}"} for n in range(5)))

    outcome = await scan(of_table(), environment)

    assert outcome.error is None
    assert len(recovered(outcome)) == 5
    assert len(failures(outcome)) == 50


async def test_knows_a_flow_run_by_a_uuid_in_upper_case(environment, supabase, prefect):
    upper, braces, other = stuck_videos(supabase, 3)
    deployment = prefect.create_deployment(DEPLOYMENT)
    prefect.create_flow_runs(deployment, [{"video_id": upper.upper()}, {"video_id": f" {braces} "}], "RUNNING")

    outcome = await scan(policy(), environment)

    assert reasons(outcome) == {SkipReason.ACTIVE_FLOW_RUN: 1}
    assert sorted(recovered(outcome)) == sorted([braces, other])


@pytest.mark.parametrize(
    "parameters",
    [{}, {"video_id": None}, {"video_id": ["a"]}, {"video_id": {"id": "a"}}, {"video_id": True}, {"video_id": 1.5}],
    ids=str,
)
async def test_takes_a_run_whose_parameters_name_no_video_for_one_of_something_else(
    parameters, environment, supabase, prefect
):
    [video] = stuck_videos(supabase, 1)
    prefect.create_flow_run(prefect.create_deployment(DEPLOYMENT), "RUNNING", parameters=parameters)

    outcome = await scan(policy(), environment)

    assert outcome.error is None
    assert recovered(outcome) == [video]


async def test_knows_a_flow_run_by_an_id_that_is_a_number(environment, insert, prefect):
    insert({"id": "7"}, {"id": "8"})
    prefect.create_flow_run(prefect.create_deployment(DEPLOYMENT), "RUNNING", parameters={"video_id": 7})

    outcome = await scan(of_table(), environment)

    assert reasons(outcome) == {SkipReason.ACTIVE_FLOW_RUN: 1}
    assert recovered(outcome) == ["8"]
