"""How unit tests ask for decisions: the facts in, what was said out."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from controller.api.policy import PolicySpec
from controller.decisions.decide import decide
from controller.decisions.decision import Decision, Failure, Recover
from controller.decisions.facts import Facts
from controller.flow_runs import FlowRunIndex
from controller.schedule import ScanRequest, Trigger
from controller.videos import Video, is_stuck
from tests.support import policy
from tests.unit.fakes import DEPLOYMENT, NOW

SCHEDULED = ScanRequest(Trigger.SCHEDULE, NOW)
RECOVER = "recover"


def by_name(video_id: str = "v1") -> ScanRequest:
    """A request for one video."""
    return ScanRequest(Trigger.REQUEST, token="t", video_ids=(video_id,))


def known(spec: PolicySpec | None = None, *, now: datetime = NOW, **facts: Any) -> Facts:
    """The facts of a scan; what is not given is as quiet as can be."""
    return Facts(
        spec or policy().spec,
        now,
        facts.get("request", SCHEDULED),
        FlowRunIndex(facts.get("runs", ())),
        facts.get("deployment", DEPLOYMENT),
        facts.get("recoveries", {}),
        frozenset(facts.get("alive", ())),
        frozenset(facts.get("uploaded", ())),
    )


def conclude(videos: Iterable[Video], spec: PolicySpec, *, now: datetime = NOW, **facts: Any) -> list[Decision]:
    """As a scan does: keep what is stuck, then decide."""
    return decide([each for each in videos if is_stuck(each, spec.stuck, now=now)], known(spec, now=now, **facts))


def said(decision: Decision) -> str:
    """The decision in one word."""
    return RECOVER if isinstance(decision, Recover) else str(decision.reason)


def of_video(decision: Decision) -> str:
    """The id of its video."""
    return decision.video_id if isinstance(decision, Failure) else decision.video.id


def recoveries(decisions: Iterable[Decision]) -> list[str]:
    """The ids of the videos that are to be recovered, in their order."""
    return [decision.video.id for decision in decisions if isinstance(decision, Recover)]
