"""`explain` as the services see it: one connection, and so each Secret is read once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from controller.cli.commands import explain
from controller.cli.options import Where
from controller.cli.source import Source
from tests.support import policy
from tests.unit.scanning import rows
from tests.world.world import World


async def test_reads_the_secrets_once_and_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    world = World(rows(1))

    @asynccontextmanager
    async def open_source(_where: Where) -> AsyncIterator[Source]:
        yield Source(policy(upload={"bucket": "videos", "objectPath": "{id}.mp4"}), cast(Any, world), "a test")

    monkeypatch.setattr(explain, "open_source", open_source)

    await explain._explain(Where(), "v0000")

    assert world.steps.count("connect") == 1
    assert not {"create", "cancel", "still_stuck"} & set(world.steps)
