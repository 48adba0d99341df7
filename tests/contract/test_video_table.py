"""What `controller.ports.VideoTable` promises, of the world in memory and of PostgreSQL behind PostgREST."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.contract.sides import TableSide

BEFORE = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
MICROSECOND, HOUR = timedelta(microseconds=1), timedelta(hours=1)
OLD = (BEFORE - HOUR).isoformat()
A, B, C = (f"{letter * 8}-5a55-4a3c-9f3e-0f4f6d1a2b3c" for letter in "abc")


async def found(side: TableSide, *video_ids: str, **spec: object) -> list[str]:
    """The ids of the candidates, in their order."""
    async with side.open(**spec) as table:
        return [str(row["id"]) for row in await table.candidates(created_before=BEFORE, video_ids=video_ids)]


# candidates


async def test_no_row_is_no_candidate(table):
    assert await found(table) == []


@pytest.mark.parametrize(
    ("created", "is_candidate"),
    [
        pytest.param((BEFORE - MICROSECOND).isoformat(), True, id="just_before_the_time"),
        pytest.param(BEFORE.isoformat(), False, id="exactly_at_the_time"),
        pytest.param((BEFORE + MICROSECOND).isoformat(), False, id="just_after_the_time"),
        pytest.param("2026-03-10T12:59:00+01:00", True, id="before_the_time_in_another_zone"),
        pytest.param(None, True, id="at_no_time"),
        pytest.param("-infinity", True, id="before_all_times"),
        pytest.param("infinity", False, id="after_all_times"),
    ],
)
async def test_a_row_is_a_candidate_by_when_it_was_created(created, is_candidate, table):
    table.insert(A, created_at=created)

    assert await found(table) == ([A] if is_candidate else [])


async def test_a_row_of_another_status_is_no_candidate(table):
    for video_id, status in ((A, "ready"), (B, "Pending"), (C, "uploading")):
        table.insert(video_id, created_at=OLD, status=status)

    assert await found(table) == [C]
    assert await found(table, stuck={"statuses": ["ready"]}) == [A]


async def test_a_row_of_a_deleted_video_is_no_candidate(table):
    table.insert(A, created_at=OLD, deleted_at=OLD)

    assert await found(table) == []
    assert await found(table, supabase={"columns": {"deletedAt": ""}}) == [A]


async def test_candidates_come_in_the_order_of_their_creation_those_without_a_time_first(table):
    rows = ((A, OLD), (B, None), (C, (BEFORE - 2 * HOUR).isoformat()))
    for video_id, created in rows:
        table.insert(video_id, created_at=created)

    assert await found(table) == [B, C, A]


async def test_candidates_of_one_time_come_in_the_order_of_their_ids(table):
    for video_id in (B, A, C):
        table.insert(video_id, created_at=OLD)

    assert await found(table) == [A, B, C]


async def test_a_candidate_has_the_columns_that_the_policy_needs_and_no_others(table):
    table.insert(A, created_at=OLD, tenant_id=None)

    async with table.open() as opened:
        [row] = await opened.candidates(created_before=BEFORE)

    assert set(row) == {"id", "status", "created_at", "display_path", "tenant_id"}
    assert (row["status"], row["tenant_id"]) == ("pending", None)
    assert datetime.fromisoformat(str(row["created_at"])) == BEFORE - HOUR


# candidates with some ids


async def test_narrowed_to_some_ids_others_are_no_candidates(table):
    for video_id in (A, B, C):
        table.insert(video_id, created_at=OLD)

    assert sorted(await found(table, C, A)) == [A, C]


@pytest.mark.parametrize(
    "columns", [{"status": "ready"}, {"deleted_at": OLD}, {"created_at": BEFORE.isoformat()}], ids=str
)
async def test_narrowed_to_its_id_a_row_that_is_no_candidate_is_still_none(columns, table):
    table.insert(A, **{"created_at": OLD, **columns})

    assert await found(table, A) == []


@pytest.mark.parametrize(
    "spell",
    [
        pytest.param(str.upper, id="in_capitals"),
        pytest.param(lambda video_id: video_id.replace("-", ""), id="without_hyphens"),
        pytest.param(lambda video_id: f"{{{video_id}}}", id="in_braces"),
    ],
)
async def test_a_uuid_is_found_in_any_spelling_and_shown_in_one(spell, table):
    table.insert(A, created_at=OLD)

    assert await found(table, spell(A)) == [A]


@pytest.mark.parametrize("odd", ["v1", "", "1", "' or 1=1", 'a","b', "\\"], ids=repr)
async def test_an_id_that_cannot_be_one_finds_nothing_and_hides_no_other(odd, table):
    table.insert(A, created_at=OLD)

    assert await found(table, odd) == []
    assert await found(table, odd, A) == [A]


async def test_an_id_that_is_a_text_is_found_as_it_is_written_and_in_no_other_way(table_of_texts):
    for video_id in ("v1", "V1", A.upper(), 'a"b,c'):
        table_of_texts.insert(video_id, created_at=OLD)

    assert await found(table_of_texts, "v1") == ["v1"]
    assert await found(table_of_texts, 'a"b,c') == ['a"b,c']
    assert await found(table_of_texts, A.upper()) == [A.upper()]
    assert await found(table_of_texts, A) == []


# row


async def test_a_row_is_found_whatever_its_status_and_age_and_also_deleted(table):
    table.insert(A, status="ready", created_at=(BEFORE + HOUR).isoformat(), deleted_at=OLD)

    async with table.open() as opened:
        row = await opened.row(A.upper())

    assert row is not None
    assert (row["id"], row["status"]) == (A, "ready")
    assert datetime.fromisoformat(str(row["deleted_at"])) == BEFORE - HOUR


async def test_where_the_policy_names_no_column_for_deletion_a_row_does_not_have_it(table):
    table.insert(A, deleted_at=OLD)

    async with table.open(supabase={"columns": {"deletedAt": ""}}) as opened:
        row = await opened.row(A)

    assert row is not None
    assert "deleted_at" not in row


@pytest.mark.parametrize("video_id", [B, "v1", ""], ids=["another_one", "one_that_cannot_be", "an_empty_one"])
async def test_there_is_no_row_of_an_id_that_is_not_there(video_id, table):
    table.insert(A)

    async with table.open() as opened:
        assert await opened.row(video_id) is None


# still_stuck


async def test_still_stuck_are_those_asked_for_that_are_in_a_stuck_status_now_whatever_their_age(table):
    table.insert(A, created_at=(BEFORE + HOUR).isoformat())
    table.insert(B, status="ready")
    table.insert(C)

    async with table.open() as opened:
        assert await opened.still_stuck([A, B]) == {A}
        assert await opened.still_stuck([B]) == set()
        assert await opened.still_stuck([]) == set()


async def test_a_deleted_video_is_not_stuck_any_more(table):
    table.insert(A, deleted_at=OLD)

    async with table.open() as opened:
        assert await opened.still_stuck([A]) == set()


async def test_still_stuck_ids_come_in_the_form_in_which_spellings_are_equal(table, table_of_texts):
    table.insert(A)
    table_of_texts.insert(A.upper())

    async with table.open() as opened:
        assert await opened.still_stuck([A.upper()]) == {A}
    async with table_of_texts.open() as opened:
        assert await opened.still_stuck([A.upper()]) == {A}
        assert await opened.still_stuck([A]) == set()
