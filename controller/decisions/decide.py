"""What a scan concludes: one decision for each candidate.

Pure: no I/O, no clock. Every candidate goes through the chain of checks; what passes shares the budget; a policy that
only observes creates nothing.
"""

from collections.abc import Iterable

from controller.api.policy import Mode
from controller.decisions.attempts import next_attempt, used_up
from controller.decisions.checks import first_objection
from controller.decisions.decision import Decision, Failure, FailureReason, Recover, Skip, SkipReason
from controller.decisions.facts import Facts
from controller.decisions.limits import share
from controller.videos import UnusableValueError, Video, render


def decide(videos: Iterable[Video], facts: Facts) -> list[Decision]:
    """Conclude one decision for each video: first those who are left alone, then the others in their order.

    Args:
        videos: Stuck videos, each once, in any order: the order changes nothing.
        facts: What was found out about them.
    """
    oldest_first = sorted(videos, key=lambda video: (video.created_at, video.id))
    concluded = [_decide_one(video, facts) for video in oldest_first]
    left_alone: list[Decision] = [each for each in concluded if not isinstance(each, Recover)]
    within_limits = share([each for each in concluded if isinstance(each, Recover)], facts)
    decisions = left_alone + within_limits
    return _observe(decisions) if facts.spec.mode is Mode.OBSERVE else decisions


def _decide_one(video: Video, facts: Facts) -> Decision:
    try:
        if objection := first_objection(video, facts):
            return objection
        parameters = {name: render(template, video.row) for name, template in facts.spec.prefect.parameters.items()}
    except UnusableValueError as error:
        return Failure(video.id, FailureReason.INVALID_ROW, str(error))
    return Recover(
        video,
        next_attempt(facts.recoveries.get(video.id, ())),
        parameters,
        released=used_up(facts.attempts(video), facts.spec.retry),
        replaces=facts.abandoned_runs(video),
    )


def _observe(decisions: list[Decision]) -> list[Decision]:
    return [
        Skip(decision.video, SkipReason.OBSERVE_MODE, describe_recovery(decision))
        if isinstance(decision, Recover)
        else decision
        for decision in decisions
    ]


def describe_recovery(decision: Recover) -> str:
    """What would be done, in words."""
    replaced = "".join(f", in place of flow run {run.name}" for run in decision.replaces)
    return f"attempt {decision.attempt} would be triggered{replaced}"
