"""A part that cannot be had skips its tests, except in CI; one that is broken fails them, everywhere."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from devstack import Broken, Unavailable
from tests.conftest import serve


@contextmanager
def part(error: Exception | None) -> Iterator[str]:
    if error is not None:
        raise error
    yield "running"


@pytest.fixture(params=[None, "true"], ids=["here", "in CI"])
def ci(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.delenv("CI", raising=False)
    if request.param is not None:
        monkeypatch.setenv("CI", request.param)
    return request.param is not None


def test_serves_what_runs(ci: bool):
    assert list(serve(part(None))) == ["running"]


def test_skips_what_cannot_be_had_but_not_in_ci(ci: bool):
    expected = Unavailable if ci else pytest.skip.Exception

    with pytest.raises(expected, match="install Go"):
        list(serve(part(Unavailable("install Go"))))


def test_fails_what_is_broken(ci: bool):
    with pytest.raises(Broken, match="it ended with status 1"):
        list(serve(part(Broken("it ended with status 1"))))
