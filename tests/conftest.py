"""The real parts that tests share, each started once in a session and only where a test asks for it."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import pytest

from devstack import ControlPlane, Prefect, Supabase, Unavailable
from tests.support import DEPLOYMENT

T = TypeVar("T")


def serve(part: AbstractContextManager[T]) -> Iterator[T]:
    """Yield a running part; skip with the reason where it cannot be had, but fail in CI: a tier must not go missing."""
    try:
        running = part.__enter__()
    except Unavailable as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))
    try:
        yield running
    finally:
        part.__exit__(None, None, None)


@pytest.fixture(scope="session")
def supabase_server() -> Iterator[Supabase]:
    yield from serve(Supabase.start())


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[Prefect]:
    yield from serve(Prefect.start())


@pytest.fixture(scope="session")
def cluster() -> Iterator[ControlPlane]:
    yield from serve(ControlPlane.start())


@pytest.fixture
def supabase(supabase_server: Supabase) -> Supabase:
    """The running Supabase with an empty table of videos and nothing in its log of requests."""
    supabase_server.execute("truncate captionacc.videos")
    supabase_server.reset_requests()
    return supabase_server


@pytest.fixture
def prefect(prefect_server: Prefect) -> Prefect:
    """The running Prefect with the deployment, its pool polled by a worker, and no flow runs."""
    prefect_server.create_deployment(DEPLOYMENT)
    prefect_server.clear_flow_runs()
    prefect_server.pretend_worker()
    return prefect_server
