"""Each test of the contract runs against the world in memory and, where it can be had, against the real service."""

from collections.abc import Iterator

import pytest

from controller.adapters.prefect import abandoned
from devstack import Supabase
from tests.contract.sides import (
    RealServerSide,
    RealStoreSide,
    RealTableSide,
    ServerSide,
    StoreSide,
    TableSide,
    WorldServerSide,
    WorldStoreSide,
    WorldTableSide,
)

WORLD = pytest.param("world", id="in_memory")
COLUMNS = {
    "status": "text not null",
    "created_at": "timestamptz",
    "deleted_at": "timestamptz",
    "tenant_id": "text",
    "display_path": "text",
}


def real(name: str) -> object:
    """A parameter that names what is real."""
    return pytest.param(name, marks=pytest.mark.integration, id=name)


@pytest.fixture(scope="module")
def tables(supabase_server: Supabase) -> Iterator[Supabase]:
    """Two tables whose rows may have no time: one with UUIDs as ids, as the real one has, one with texts."""
    for kind in ("uuid", "text"):
        supabase_server.create_table("captionacc", f"contract_{kind}", {"id": f"{kind} primary key", **COLUMNS})
    yield supabase_server
    for kind in ("uuid", "text"):
        supabase_server.execute(f"drop table captionacc.contract_{kind}")
    supabase_server.reload_schema()


def _table(request: pytest.FixtureRequest, kind: str) -> TableSide:
    if request.param == "world":
        return WorldTableSide()
    supabase: Supabase = request.getfixturevalue("tables")
    supabase.execute(f"truncate captionacc.contract_{kind}")
    return RealTableSide(supabase, f"contract_{kind}")


@pytest.fixture(params=[WORLD, real("PostgREST")])
def table(request: pytest.FixtureRequest) -> TableSide:
    """A table whose ids are UUIDs."""
    return _table(request, "uuid")


@pytest.fixture(params=[WORLD, real("PostgREST")])
def table_of_texts(request: pytest.FixtureRequest) -> TableSide:
    """A table whose ids are any text."""
    return _table(request, "text")


@pytest.fixture(params=[WORLD, real("Storage")])
def store(request: pytest.FixtureRequest) -> StoreSide:
    return WorldStoreSide() if request.param == "world" else RealStoreSide(request.getfixturevalue("supabase"))


@pytest.fixture(params=[WORLD, real("Prefect")])
def prefects(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerSide]:
    """A server without flow runs and without a worker: a run that is asked to stop is not given time for that."""
    if request.param == "world":
        yield WorldServerSide()
        return
    monkeypatch.setattr(abandoned, "CANCEL_WAIT", 0)
    prefect = request.getfixturevalue("prefect")
    yield RealServerSide(prefect)
    prefect.clear_flow_runs()
