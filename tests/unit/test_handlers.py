"""The wiring to kopf: nothing asks for a finalizer, and a deleted policy stops its timer."""

from typing import Any

import kopf
import pytest

from controller.operator.handlers import UNUSED_FINALIZER, make_kopf_settings, make_registry
from controller.operator.settings import Settings
from tests.support import manifest


class Recorder:
    """Stands in for the dispatcher."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def enqueue_if_due(self, manifest: Any) -> None:
        self.seen.append(manifest)

    async def see(self, manifest: Any) -> None:
        pass


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def registry(recorder: Recorder) -> kopf.OperatorRegistry:
    return make_registry(recorder, Settings(), recorder.see)  # type: ignore[arg-type]


def test_no_timer_asks_for_a_finalizer(registry):
    timers = registry._spawning._handlers

    assert [timer.requires_finalizer for timer in timers] == [False], "kopf changed: see docs/architecture.md"


def test_no_policy_can_have_the_finalizer_that_kopf_would_take_off():
    assert make_kopf_settings().persistence.finalizer == UNUSED_FINALIZER == "recovery.captiona.cc/unused"


@pytest.mark.parametrize(("kind", "marked"), [("DELETED", True), ("MODIFIED", False), ("ADDED", False), (None, False)])
async def test_a_policy_that_is_gone_is_marked_as_being_deleted(registry, recorder, kind, marked):
    policy = manifest()
    policy["metadata"] |= {"creationTimestamp": "2026-03-10T12:00:00Z", "managedFields": [{}]}
    [handler] = registry._watching._handlers

    await handler.fn(event={"type": kind, "object": policy})

    assert ("deletionTimestamp" in policy["metadata"]) is marked
    assert "managedFields" not in policy["metadata"]
    assert recorder.seen == [policy]
