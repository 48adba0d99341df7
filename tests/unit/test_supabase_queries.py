"""Supabase's adapter where only a stand-in can show it: how it asks, cut and odd answers, and what errors mean."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import stamina

from controller.adapters.http import ATTEMPTS
from controller.adapters.supabase.table import MAX_FILTER_LENGTH, PAGE, SupabaseTable, open_supabase
from controller.errors import ConfigurationError, ErrorReason, ScanError, Service, ServiceError
from tests.support import policy
from tests.unit.fakes import NOW, Answer, Asked, Respond, in_turn, row, serving

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJl"
BEFORE = NOW - timedelta(minutes=10)
EMPTY = Answer([])


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Retries without the waits between them."""
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        yield


@asynccontextmanager
async def table(respond: Respond, *, key: str = JWT, **spec: Any) -> AsyncIterator[tuple[SupabaseTable, list[Asked]]]:
    async with serving(respond) as (url, asked), open_supabase(url, key, policy(**spec).spec) as (opened, _):
        yield opened, asked


async def candidates(*answers: Answer, video_ids: Sequence[str] = (), **options: Any) -> tuple[list[Any], list[Asked]]:
    async with table(in_turn(*answers), **options) as (opened, asked):
        return await opened.candidates(created_before=BEFORE, video_ids=video_ids), asked


async def failed(*answers: Answer, **options: Any) -> ScanError:
    with pytest.raises(ScanError) as caught:
        await candidates(*answers, **options)
    return caught.value


def query(asked: Asked) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(asked.target).query)


# How it asks


async def test_asks_one_question_when_nothing_is_stuck():
    rows, asked = await candidates(EMPTY)

    assert rows == []
    assert len(asked) == 1


async def test_asks_for_the_oldest_videos_in_a_stuck_status_that_are_not_deleted():
    _, [asked] = await candidates(EMPTY)

    assert asked.method == "GET"
    assert urlsplit(asked.target).path == "/rest/v1/videos"
    assert asked.headers["accept-profile"] == "captionacc"
    assert dict(query(asked)).keys() == {"select", "or", "order", "limit"}
    asks = query(asked)
    assert ("select", '"id","status","created_at","display_path","tenant_id"') in asks
    assert ("or", '("status".in.("uploading","pending"))') in asks
    assert ("or", f'("created_at".lt."{BEFORE.isoformat()}","created_at".is.null)') in asks
    assert ("or", '("deleted_at".is.null)') in asks
    assert ("order", '"created_at".asc.nullsfirst,"id".asc.nullslast') in asks
    assert ("limit", str(PAGE)) in asks


async def test_asks_for_no_deletion_where_the_policy_names_no_column():
    _, [asked] = await candidates(EMPTY, supabase={"columns": {"deletedAt": ""}})

    assert "deleted_at" not in asked.target


async def test_asks_for_one_video_alone():
    _, [asked] = await candidates(EMPTY, video_ids=["a,b)&x=1"])

    assert ("or", '("id".in.("a,b)&x=1"))') in query(asked)


@pytest.mark.parametrize(
    ("key", "authorization"), [(JWT, f"Bearer {JWT}"), ("sb_secret_0123456789", None)], ids=["a_JWT", "a_new_key"]
)
async def test_sends_a_key_as_supabase_wants_it(key, authorization):
    _, [asked] = await candidates(EMPTY, key=key)

    assert asked.headers["apikey"] == key
    assert asked.headers.get("authorization") == authorization


@pytest.mark.parametrize("status", ["on hold", "a,b", "a(b)", "1.5"])
async def test_writes_a_status_so_that_it_is_read_literally(status):
    _, [asked] = await candidates(EMPTY, stuck={"statuses": [status]})

    assert ("or", f'("status".in.("{status}"))') in query(asked)


# Page by page


async def test_reads_on_until_a_page_is_empty_however_short_the_pages_are():
    pages = [Answer([row("v1"), row("v2")]), Answer([row("v3")]), EMPTY]

    rows, asked = await candidates(*pages)

    assert [each["id"] for each in rows] == ["v1", "v2", "v3"]
    assert len(asked) == 3


async def test_the_next_page_begins_behind_the_last_row():
    last = row("v2")

    _, asked = await candidates(Answer([row("v1"), last]), EMPTY)

    moment = f'"{last["created_at"]}"'
    assert ("or", f'("created_at".gt.{moment},and("created_at".eq.{moment},"id".gt."v2"))') in query(asked[1])


async def test_behind_a_row_without_a_time_come_the_others_without_one_and_then_those_with_one():
    _, asked = await candidates(Answer([row("v1", created_at=None)]), EMPTY)

    assert ("or", '("created_at".not.is.null,and("created_at".is.null,"id".gt."v1"))') in query(asked[1])


@pytest.mark.parametrize(
    ("video_id", "written"),
    [
        ('a"b', r'"a\"b"'), ("a\\b", r'"a\\b"'), ("a,b)", '"a,b)"'), (7, '"7"'), ("a&b=c#d", '"a&b=c#d"'),
        ("x),or(id.gt.0", '"x),or(id.gt.0"'),
    ],
)  # fmt: skip
async def test_an_id_in_a_filter_is_read_literally(video_id, written):
    _, asked = await candidates(Answer([row(video_id)]), EMPTY)

    assert [value for name, value in query(asked[1]) if name == "or"][-1].endswith(f'"id".gt.{written}))')


async def test_the_same_page_twice_is_an_unexpected_answer_and_no_endless_scan():
    error = await failed(Answer([row("v1"), row("v2")]))

    assert error.reason is ErrorReason.UNEXPECTED_ANSWER


async def test_a_page_that_fails_is_an_error_and_never_a_shorter_list():
    assert (await failed(Answer([row("v1")]), Answer(status=500))).reason is ErrorReason.SERVER_ERROR


async def test_a_page_that_was_cut_is_asked_for_again():
    rows, asked = await candidates(Answer([row("v1")], cut=10), Answer([row("v1")]), EMPTY)

    assert [each["id"] for each in rows] == ["v1"]
    assert len(asked) == 3


@pytest.mark.parametrize("status", [429, 502, 503, 504, 520, 522])
async def test_a_page_that_fails_for_a_moment_is_asked_for_again(status):
    rows, _ = await candidates(Answer(status=status), Answer([row("v1")]), EMPTY)

    assert len(rows) == 1


# Odd answers


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html>sign in</html>", id="a_page_for_people"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"[{", id="half_of_one"),
        pytest.param({"message": "hello"}, id="an_object"),
        pytest.param("text", id="a_text"),
        pytest.param(["v1"], id="a_list_of_texts"),
        pytest.param([None], id="a_list_of_nulls"),
    ],
)
async def test_an_answer_that_is_no_list_of_rows_is_an_unexpected_answer(body):
    error = await failed(Answer(body), EMPTY)

    assert error.reason is ErrorReason.UNEXPECTED_ANSWER
    assert error.service is Service.SUPABASE
    assert isinstance(error, ServiceError)


@pytest.mark.parametrize("missing", ["id", "created_at"])
async def test_a_row_without_a_column_that_was_asked_for_is_an_unexpected_answer(missing):
    cut = {name: value for name, value in row().items() if name != missing}

    assert (await failed(Answer([cut]), EMPTY)).reason is ErrorReason.UNEXPECTED_ANSWER


# What errors mean


def refusal(status: int, code: str, message: str = "details") -> Answer:
    return Answer({"code": code, "message": message, "details": None, "hint": None}, status=status)


@pytest.mark.parametrize(
    ("answer", "reason", "says"),
    [
        pytest.param(refusal(404, "42P01"), ErrorReason.TABLE_NOT_FOUND, "no table captionacc.videos", id="no_table"),
        pytest.param(
            refusal(404, "PGRST205"), ErrorReason.TABLE_NOT_FOUND, "spec.supabase.table", id="no_table_served"
        ),
        pytest.param(
            refusal(400, "42703", "column videos.x does not exist"),
            ErrorReason.COLUMN_NOT_FOUND,
            "column videos.x does not exist",
            id="no_column",
        ),
        pytest.param(refusal(406, "PGRST106"), ErrorReason.SCHEMA_NOT_EXPOSED, "'captionacc'", id="no_schema"),
        pytest.param(refusal(400, "22P02"), ErrorReason.INVALID_FILTER, "spec.stuck.statuses", id="no_such_status"),
    ],
)
async def test_a_wrong_policy_stalls_and_says_which_field(answer, reason, says):
    error = await failed(answer)

    assert isinstance(error, ConfigurationError)
    assert error.reason is reason
    assert error.service is Service.SUPABASE
    assert says in error.message


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(refusal(500, "57014"), ErrorReason.TIMED_OUT, id="a_statement_that_took_too_long"),
        pytest.param(refusal(401, "PGRST301"), ErrorReason.UNAUTHORIZED, id="a_key_that_it_does_not_know"),
        pytest.param(refusal(403, "42501"), ErrorReason.FORBIDDEN, id="a_key_without_the_right"),
        pytest.param(refusal(500, "XX000"), ErrorReason.SERVER_ERROR, id="a_failure_of_its_own"),
        pytest.param(Answer(b"<html>", status=404), ErrorReason.NOT_FOUND, id="no_supabase_at_all"),
        pytest.param(Answer({"code": 42}, status=400), ErrorReason.UNEXPECTED_ANSWER, id="a_code_that_is_a_number"),
        pytest.param(Answer([], status=400), ErrorReason.UNEXPECTED_ANSWER, id="an_error_that_is_a_list"),
    ],
)
async def test_any_other_refusal_waits_for_the_next_scan(answer, reason):
    error = await failed(answer)

    assert isinstance(error, ServiceError)
    assert error.reason is reason


async def test_a_statement_that_took_too_long_names_the_index_that_helps():
    assert "(status, created_at)" in (await failed(refusal(500, "57014"))).message


@pytest.mark.parametrize("key", [JWT, "sb_secret_0123456789"])
async def test_no_error_repeats_the_key(key):
    for answer in (Answer(f"unknown {key}".encode(), status=401), refusal(404, "42703", f"column {key}"), Answer(key)):
        assert key not in (await failed(answer, key=key)).message


async def test_a_word_where_ids_are_uuids_is_no_such_video():
    said = {"code": "22P02", "message": 'invalid input syntax for type uuid: "not-a-uuid"'}
    rows, _ = await candidates(Answer(said, status=400), video_ids=["not-a-uuid"])

    assert rows == []


async def test_a_word_among_ids_leaves_the_others():
    said = {"code": "22P02", "message": 'invalid input syntax for type uuid: "not-a-uuid"'}

    def respond(asked: Asked) -> Answer:
        if "not-a-uuid" in asked.target:
            return Answer(said, status=400)
        return EMPTY if "gt" in asked.target else Answer([row("v1")])

    async with table(respond) as (opened, _):
        rows = await opened.candidates(created_before=BEFORE, video_ids=["v1", "not-a-uuid"])

    assert [each["id"] for each in rows] == ["v1"]


async def test_asks_for_many_ids_in_few_questions():
    ids = [f"{number:036}" for number in range(1000)]

    _, asked = await candidates(*[EMPTY] * 20, video_ids=ids)

    assert len(asked) < 10
    assert all(len(each.target) < MAX_FILTER_LENGTH + 2000 for each in asked)
    assert all(sum(video_id in each.target for each in asked) == 1 for video_id in ids)


async def test_finds_a_row_whatever_its_status_and_whether_it_was_deleted():
    async with table(in_turn(Answer([row("v1", status="ready", deleted_at="2026-01-01")]))) as (opened, asked):
        found = await opened.row("v1")

    assert found is not None
    assert found["status"] == "ready"
    assert "deleted_at" in dict(query(asked[0]))["select"]
    assert [value for name, value in query(asked[0]) if name == "or"] == ['("id".in.("v1"))']


async def test_there_is_no_row_with_a_word_where_ids_are_uuids():
    said = {"code": "22P02", "message": 'invalid input syntax for type uuid: "not-a-uuid"'}
    async with table(in_turn(Answer(said, status=400), EMPTY)) as (opened, _):
        assert await opened.row("not-a-uuid") is None
        assert await opened.row("v1") is None


# The second look


async def still_stuck(respond: Respond, video_ids: list[str]) -> tuple[set[str], list[Asked]]:
    async with table(respond) as (opened, asked):
        return await opened.still_stuck(video_ids), asked


def ids_asked(asked: Asked) -> str:
    return next(value for name, value in query(asked) if name == "or" and value.startswith('("id".in.'))


async def test_tells_which_are_still_stuck():
    stuck, _ = await still_stuck(in_turn(Answer([{"id": "v1"}]), EMPTY), ["v1", "v2"])

    assert stuck == {"v1"}


async def test_asks_no_more_when_all_are_still_stuck():
    _, asked = await still_stuck(in_turn(Answer([{"id": "v1"}, {"id": "v2"}])), ["v1", "v2"])

    assert len(asked) == 1


async def test_trusts_no_short_answer_and_asks_for_the_rest():
    answers = in_turn(Answer([{"id": "v1"}]), Answer([{"id": "v2"}]), EMPTY)

    stuck, asked = await still_stuck(answers, ["v1", "v2", "v3"])

    assert stuck == {"v1", "v2"}
    assert [ids_asked(each) for each in asked] == [
        '("id".in.("v1","v2","v3"))',
        '("id".in.("v2","v3"))',
        '("id".in.("v3"))',
    ]


async def test_asks_nothing_for_no_videos():
    _, asked = await still_stuck(in_turn(EMPTY), [])

    assert asked == []


async def test_knows_a_uuid_in_any_spelling():
    uuid = "6b2d1ef0-5a55-4a3c-9f3e-0f4f6d1a2b3c"

    stuck, _ = await still_stuck(in_turn(Answer([{"id": uuid}])), [uuid.upper()])

    assert stuck == {uuid}


async def test_knows_an_integer():
    assert (await still_stuck(in_turn(Answer([{"id": 7}])), ["7"]))[0] == {"7"}


@pytest.mark.parametrize(
    "video_id", ["v" * 200, "\N{CLAPPER BOARD}" * 100], ids=["long_ids", "ids_that_grow_in_an_address"]
)
async def test_asks_in_addresses_that_no_proxy_cuts_off(video_id):
    video_ids = [f"{video_id[:-3]}{n:03}" for n in range(100)]

    _, asked = await still_stuck(in_turn(EMPTY), video_ids)

    assert len(asked) > 1
    assert max(len(each.target) for each in asked) < MAX_FILTER_LENGTH + 1000
    assert sum(ids_asked(each).count(video_id[:10]) for each in asked) >= 100


async def test_an_error_of_the_second_look_is_explained_too():
    async with table(in_turn(refusal(404, "42P01"))) as (opened, _):
        with pytest.raises(ConfigurationError):
            await opened.still_stuck(["v1"])


# The check of a new policy


async def test_checks_table_and_columns_without_reading_a_row():
    async with table(in_turn(EMPTY)) as (opened, asked):
        await opened.check()

    assert ("limit", "0") in query(asked[0])
    assert dict(query(asked[0]))["select"] == '"id","status","created_at","display_path","tenant_id"'


async def test_a_check_explains_what_is_wrong():
    async with table(in_turn(refusal(406, "PGRST106"))) as (opened, _):
        with pytest.raises(ConfigurationError) as caught:
            await opened.check()

    assert caught.value.reason is ErrorReason.SCHEMA_NOT_EXPOSED
