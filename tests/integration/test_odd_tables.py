"""Tables as users have them: odd names, other types, views, and whatever does not fit the policy. Real PostgREST."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from controller.api.manifest import Policy
from controller.errors import ConfigurationError, ErrorReason, ScanError, Service
from controller.outcome import Outcome
from devstack import Prefect, Supabase
from tests.conftest import serve
from tests.support import ago, merge, policy, recovered, scan
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

SCHEMA = "Video Data"
TABLE = "My Videos"
ROLES = ("id", "status", "createdAt", "name", "tenantId", "deletedAt")
TYPES = dict(zip(ROLES, ("text", "text", "timestamptz", "text", "text", "timestamptz"), strict=True))

MakeTable = Callable[..., None]


@pytest.fixture(scope="module")
def database() -> Iterator[Supabase]:
    """A Supabase of our own, whose roles and schemas a test may change."""
    yield from serve(Supabase.start(schemas=("public", SCHEMA), videos=False))


@pytest.fixture
def make_table(database: Supabase) -> Iterator[MakeTable]:
    """Makes tables that the test's end removes."""
    made: list[tuple[str, str]] = []

    def make(columns: dict[str, str], *rows: dict[str, object], schema: str = SCHEMA, table: str = TABLE) -> None:
        database.create_table(schema, table, columns)
        made.append((schema, table))
        database.insert(schema, table, rows)

    yield make
    for schema, table in made:
        database.execute(f'drop table "{schema}"."{table}" cascade')


@pytest.fixture
def environment(database: Supabase, prefect: Prefect) -> Iterator[dict[str, str]]:
    yield {**database.env(), **prefect.env()}
    prefect.clear_flow_runs()


@pytest.fixture
def short_statements(database: Supabase) -> Iterator[None]:
    """PostgreSQL ends a statement of the service role after 0.3 s."""
    database.execute(
        "create or replace function public.time_limit() returns text language sql stable"
        " return current_setting('statement_timeout')"
    )
    database.reload_schema()
    limit_statements(database, "300ms")
    yield
    limit_statements(database, "8s")


def limit_statements(database: Supabase, limit: str) -> None:
    database.execute(f"alter role service_role set statement_timeout = '{limit}'")
    database.execute("notify pgrst, 'reload config'")  # PostgREST keeps the settings of roles
    asked = httpx.Request("GET", f"{database.url}/rest/v1/rpc/time_limit", headers={"apikey": database.secret_key})
    with httpx.Client(trust_env=False) as client:

        def current() -> object:
            return client.send(asked).json()

        wait_for(lambda: current() == limit, what=f"the time limit {limit}", seen=current)


def of_table(columns: dict[str, str] | None = None, **spec: Any) -> Policy:
    """A policy for our table; its parameters need no more than the id."""
    columns = columns or dict.fromkeys(("name", "tenantId", "deletedAt"), "")
    base = {
        "supabase": {"schema": SCHEMA, "table": TABLE, "columns": columns},
        "prefect": {"parameters": {"video_id": f"{{{columns.get('id', 'id')}}}"}},
    }
    return policy(**merge(base, spec))


def stuck(video_id: object, **columns: object) -> dict[str, object]:
    return {"id": video_id, "status": "pending", "created_at": ago(hours=1), **columns}


def error(outcome: Outcome) -> ScanError:
    assert outcome.error is not None
    assert outcome.results == []
    assert outcome.error.service is Service.SUPABASE
    return outcome.error


SMALL = {"id": "text primary key", "status": "text", "created_at": "timestamptz"}


# What works


ODD_COLUMNS = [
    pytest.param({role: f"{role} Of The Video" for role in ROLES}, id="upper case and spaces"),
    pytest.param({role: f"v.{role}" for role in ROLES}, id="a dot"),
    pytest.param({role: f"Größe-{role}-é%" for role in ROLES}, id="umlauts and a percent sign"),
    pytest.param({role: f"a->>{role}" for role in ROLES}, id="an arrow, which PostgREST reads as JSON"),
    pytest.param({role: f"{role}::text" for role in ROLES}, id="colons, which PostgREST reads as a cast"),
    pytest.param({role: f"{role}!*'&=+#?" for role in ROLES}, id="what URLs and PostgREST give a meaning to"),
    pytest.param(
        dict(zip(ROLES, ("user", "group", "table", "end", "from", "where"), strict=True)), id="words reserved in SQL"
    ),
    pytest.param(
        dict(zip(ROLES, ("select", "order", "limit", "offset", "columns", "on_conflict"), strict=True)),
        id="words reserved in PostgREST",
    ),
    pytest.param(
        dict(zip(ROLES, ("not", "or", "is", "null", "in", "and"), strict=True)), id="words of PostgREST's logic"
    ),
]


@pytest.mark.parametrize("columns", ODD_COLUMNS)
async def test_finds_just_the_stuck_videos_whatever_the_columns_are_called(columns, environment, make_table, prefect):
    def row(video_id: str, status: str = "pending", age: float = 60, deleted: str | None = None) -> dict[str, object]:
        values = (video_id, status, ago(minutes=age), f"{video_id}.mp4", "tenant", deleted)
        return dict(zip(columns.values(), values, strict=True))

    make_table(
        {columns[role]: TYPES[role] for role in ROLES},
        row("stuck"),
        row("also stuck", "uploading"),
        row("ready", "ready"),
        row("young", age=5),
        row("deleted", deleted=ago(minutes=1)),
    )
    parameters = {"video_id": f"{{{columns['id']}}}", "tenant": f"{{{columns['tenantId']}}}"}

    found = await scan(of_table(columns, prefect={"parameters": parameters}), environment, video_id="also stuck")
    everything = await scan(of_table(columns, prefect={"parameters": parameters}), environment)

    assert (found.error, everything.error) == (None, None)
    assert recovered(found) == ["also stuck"]
    assert recovered(everything) == ["stuck"]
    assert [video.name for video in found.stuck or ()] == ["also stuck.mp4"]
    assert {"video_id": "stuck", "tenant": "tenant"} in [run["parameters"] for run in prefect.flow_runs()]


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        pytest.param("bigint", [1, 2**53 + 1, -(2**63)], id="bigint"),
        pytest.param("text", ["1", "x" * 200], id="text"),
        pytest.param("uuid", ["0b0e5d90-6a5c-4d0e-8d0e-8d0e8d0e8d0e"], id="uuid"),
        pytest.param("varchar(8)", ["a b", "é"], id="varchar"),
    ],
)
async def test_recovers_videos_with_ids_of_any_type(kind, ids, environment, make_table, prefect):
    make_table({**SMALL, "id": f"{kind} primary key"}, *(stuck(video_id) for video_id in ids))

    outcome = await scan(of_table(), environment)
    again = await scan(of_table(), environment)

    assert outcome.error is None
    assert set(recovered(outcome)) == {str(video_id) for video_id in ids}
    assert {run["parameters"]["video_id"] for run in prefect.flow_runs()} == {str(video_id) for video_id in ids}
    assert recovered(again) == []


@pytest.mark.parametrize(
    ("kind", "asked_for"),
    [
        pytest.param("uuid", "holiday.mp4", id="a word where ids are UUIDs"),
        pytest.param("bigint", "holiday.mp4", id="a word where ids are numbers"),
        pytest.param("bigint", "1" * 40, id="a number beyond the column's"),
        pytest.param("text", "it's), or=(id.gt.0", id="a text that tries to be a filter"),
    ],
)
async def test_finds_no_video_where_there_is_none_of_that_id(kind, asked_for, environment, make_table):
    make_table({**SMALL, "id": f"{kind} primary key"})

    outcome = await scan(of_table(), environment, video_id=asked_for)

    assert outcome.error is None
    assert outcome.stuck == []


async def test_says_what_does_not_fit_also_where_a_scan_is_narrowed_to_one_video(environment, make_table):
    make_table({**SMALL, "id": "uuid", "status": "boolean"})

    problem = error(await scan(of_table(), environment, video_id="holiday.mp4"))

    assert problem.reason is ErrorReason.INVALID_FILTER


@pytest.mark.parametrize("kind", ["timestamp", "timestamp(0)", "timestamptz(3)"])
async def test_reads_a_time_without_zone_as_utc(kind, environment, make_table):
    make_table(
        {**SMALL, "created_at": kind},
        stuck("old", created_at=ago(minutes=12)),
        stuck("young", created_at=ago(minutes=8)),
    )

    outcome = await scan(of_table(), environment)

    assert recovered(outcome) == ["old"]


async def test_reads_a_status_that_is_an_enum(database, environment, make_table):
    database.execute("create type video_status as enum ('uploading', 'pending', 'ready')")
    try:
        make_table({**SMALL, "status": "video_status"}, stuck("a"), stuck("b", status="ready"))
        outcome = await scan(of_table(), environment)
    finally:
        database.execute("drop type video_status cascade")

    assert recovered(outcome) == ["a"]


async def test_reads_a_status_that_is_padded_to_a_fixed_length(environment, make_table):
    make_table({**SMALL, "status": "char(20)"}, stuck("a"), stuck("b", status="ready"))

    outcome = await scan(of_table(), environment)

    assert recovered(outcome) == ["a"]


async def test_needs_no_columns_for_name_tenant_and_deletion(environment, make_table):
    make_table(SMALL, stuck("a"))

    outcome = await scan(of_table(), environment)

    assert recovered(outcome) == ["a"]
    assert [(video.name, video.tenant_id) for video in outcome.stuck or ()] == [("", None)]


async def test_reads_a_view(database, environment, make_table):
    make_table(SMALL, stuck("a"), stuck("b"))
    database.execute(f'create view "{SCHEMA}".waiting as select * from "{SCHEMA}"."{TABLE}" where id = \'b\'')
    database.reload_schema()

    outcome = await scan(of_table(supabase={"table": "waiting"}), environment)

    assert recovered(outcome) == ["b"]


async def test_recovers_a_video_once_whose_id_is_there_twice(environment, make_table, prefect):
    uuid = "0b0e5d90-6a5c-4d0e-8d0e-8d0e8d0e8d0e"
    times = [ago(hours=2), ago(hours=1), ago(hours=1)]
    make_table(
        {**SMALL, "id": "text"},
        *(stuck("a", created_at=time) for time in times),
        stuck(uuid),
        stuck(uuid.upper()),
        stuck(None),
        stuck(None),
    )

    outcome = await scan(of_table(), environment)

    assert outcome.error is None
    assert len(recovered(outcome)) == len(outcome.results) == 2
    assert prefect.count_flow_runs() == 2


# What does not fit the policy: each names what to fix


async def test_names_a_schema_that_is_not_exposed(environment, make_table):
    make_table(SMALL)

    problem = error(await scan(of_table(supabase={"schema": "captionacc"}), environment))

    assert isinstance(problem, ConfigurationError)
    assert problem.reason is ErrorReason.SCHEMA_NOT_EXPOSED
    assert "spec.supabase.schema" in problem.message
    assert "captionacc" in problem.message


async def test_names_a_table_that_does_not_exist(environment):
    problem = error(await scan(of_table(supabase={"table": "vidoes"}), environment))

    assert isinstance(problem, ConfigurationError)
    assert problem.reason is ErrorReason.TABLE_NOT_FOUND
    assert "spec.supabase.table" in problem.message
    assert f"{SCHEMA}.vidoes" in problem.message


@pytest.mark.parametrize("role", ROLES)
async def test_names_a_column_that_does_not_exist(role, environment, make_table):
    make_table(SMALL)
    columns = {**dict.fromkeys(("name", "tenantId", "deletedAt"), ""), role: "no_such_column"}

    problem = error(await scan(of_table(columns), environment))

    assert isinstance(problem, ConfigurationError)
    assert problem.reason is ErrorReason.COLUMN_NOT_FOUND
    assert "spec.supabase.columns" in problem.message
    assert "no_such_column" in problem.message


async def test_names_the_column_of_a_placeholder_that_does_not_exist(environment, make_table):
    make_table(SMALL)
    parameters = {"video_id": "{id}", "path": "{tenant}/a"}

    problem = error(await scan(of_table(prefect={"parameters": parameters}), environment))

    assert problem.reason is ErrorReason.COLUMN_NOT_FOUND
    assert "placeholder" in problem.message
    assert "tenant" in problem.message


async def test_names_a_status_that_the_enum_lacks(database, environment, make_table):
    database.execute("create type video_status as enum ('uploading', 'ready')")
    try:
        make_table({**SMALL, "status": "video_status"})
        problem = error(await scan(of_table(), environment))
    finally:
        database.execute("drop type video_status cascade")

    assert isinstance(problem, ConfigurationError)
    assert problem.reason is ErrorReason.INVALID_FILTER
    assert "spec.stuck.statuses" in problem.message
    assert "pending" in problem.message


@pytest.mark.parametrize(
    ("columns", "of_policy"),
    [
        pytest.param({"status": "boolean"}, {}, id="a status that is a boolean"),
        pytest.param({"status": "integer"}, {}, id="a status that is a number"),
        pytest.param({"status": "jsonb"}, {}, id="a status that is JSON"),
        pytest.param({"status": "json"}, {}, id="a status that is JSON and cannot be compared"),
        pytest.param({}, {"status": "created_at"}, id="a time for the status"),
        pytest.param({"created_at": "bigint"}, {}, id="a number for the time"),
        pytest.param({"created_at": "smallint"}, {}, id="a small number for the time"),
        pytest.param({"created_at": "boolean"}, {}, id="a boolean for the time"),
        pytest.param({"id": "json"}, {}, id="ids that have no order"),
    ],
)
async def test_says_that_a_column_of_another_kind_cannot_be_compared(columns, of_policy, environment, make_table):
    make_table({"id": "text", **{name: kind for name, kind in SMALL.items() if name != "id"}, **columns})
    named = {**dict.fromkeys(("name", "tenantId", "deletedAt"), ""), **of_policy}

    problem = error(await scan(of_table(named), environment))

    assert isinstance(problem, ConfigurationError)
    assert problem.reason is ErrorReason.INVALID_FILTER
    assert "spec.supabase.columns" in problem.message
    assert TABLE in problem.message


async def test_names_a_table_that_may_not_be_read(database, environment, make_table):
    make_table(SMALL, stuck("a"))
    database.execute(f'revoke select on "{SCHEMA}"."{TABLE}" from service_role')

    problem = error(await scan(of_table(), environment))

    assert problem.reason is ErrorReason.FORBIDDEN
    assert TABLE in problem.message


async def test_says_that_a_statement_took_too_long(database, environment, make_table, short_statements):
    make_table(SMALL, *(stuck(str(n)) for n in range(10)))
    # PostgreSQL may not skip the column: it is the name.
    database.execute(f'create view "{SCHEMA}".slow as select *, pg_sleep(0.1)::text as name from "{SCHEMA}"."{TABLE}"')
    database.reload_schema()
    slow = of_table({"name": "name", "tenantId": "", "deletedAt": ""}, supabase={"table": "slow"})

    problem = error(await scan(slow, environment))

    assert not isinstance(problem, ConfigurationError)
    assert problem.reason is ErrorReason.TIMED_OUT
    assert f"{SCHEMA}.slow" in problem.message
    assert "index" in problem.message
