"""The sentences about a scan: for the log, for Events and for conditions. Pure."""

from collections import Counter
from collections.abc import Sequence

from controller.decisions.decision import Failure, Skip
from controller.outcome import Outcome, Recovered, Result

QUARANTINED_NAMED = 5
"""Videos that the Event about a quarantine names."""


def summary(outcome: Outcome) -> str:
    """The scan in one sentence: for the log, for Events and for people."""
    counts = Counter(type(result) for result in outcome.results)
    text = (
        f"{len(outcome.results)} found: {counts[Recovered]} recovered, {counts[Skip]} skipped, {counts[Failure]} failed"
    )
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(count_reasons(outcome.results).items()))
    return f"{text} ({reasons})" if reasons else text


def describe(result: Result) -> str:
    """What became of one video, in one line."""
    if isinstance(result, Recovered):
        return f"recovered video {result.video_id} by flow run {result.run_id}, attempt {result.attempt}"
    verb = "skipped" if isinstance(result, Skip) else "failed to recover"
    return f"{verb} video {result.video_id}: {result.reason}: {result.detail}"


def describe_quarantined(skips: Sequence[Skip]) -> str:
    """The videos that are quarantined from now on, in a sentence that says what to do."""
    named = ", ".join(skip.video_id for skip in skips[:QUARANTINED_NAMED])
    more = f" and {len(skips) - QUARANTINED_NAMED} more" if len(skips) > QUARANTINED_NAMED else ""
    return (
        f"{len(skips)} videos used up their attempts and are left alone: {named}{more}; see what their flow runs say, "
        "then release one with the annotation recovery.captiona.cc/requestedVideo"
    )


def count_reasons(results: Sequence[Result]) -> dict[str, int]:
    """How many videos were skipped or failed, by reason, in the order of the alphabet."""
    counts = Counter(str(result.reason) for result in results if not isinstance(result, Recovered))
    return dict(sorted(counts.items()))
