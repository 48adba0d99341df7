"""The times of one flow run as Prefect keeps them, and how they change with its state."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controller.flow_runs import FlowRun, StateType


@dataclass(frozen=True)
class Times:
    """What Prefect keeps of a run and a `FlowRun` does not have.

    Attributes:
        expected: When it was to start first; never changes. Prefect's look for new runs goes by it.
        planned: When it is to start next; `None` unless it is SCHEDULED.
        started: When it started first.
        last_change: When its state changed last.
    """

    expected: datetime
    planned: datetime | None
    started: datetime | None
    last_change: datetime

    @classmethod
    def of(cls, run: FlowRun, at: datetime) -> "Times":
        """Those of a run that was there before the time `at`."""
        since = run.since or run.created or at - timedelta(days=1)
        began = {StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING}
        planned = since if run.state is StateType.SCHEDULED else None
        return cls(min(run.created or since, since), planned, since if run.state in began else None, since)

    def changed(self, run: FlowRun, state: StateType, at: datetime) -> tuple["Times", FlowRun]:
        """The times and the run when it takes another state."""
        started = self.started or (at if state is StateType.RUNNING else None)
        times = Times(self.expected, at if state is StateType.SCHEDULED else None, started, at)
        changed = replace(run, state=state, since=times._since(state))
        end_time = None if changed.active else run.end_time or at
        return times, replace(changed, end_time=end_time)

    def earlier(self, run: FlowRun, by: timedelta) -> tuple["Times", FlowRun]:
        """The times and the run as if all that had been earlier."""

        def moved(moment: datetime | None) -> datetime | None:
            return None if moment is None else moment - by

        times = Times(self.expected - by, moved(self.planned), moved(self.started), self.last_change - by)
        return times, replace(run, end_time=moved(run.end_time), created=moved(run.created), since=moved(run.since))

    def was_planned_anew(self, since: datetime) -> bool:
        """Whether a run from before a time is to start after it."""
        return self.planned is not None and self.expected <= since <= self.planned

    def _since(self, state: StateType) -> datetime:
        # That a run is to be cancelled is no sign of life.
        changed = None if state is StateType.CANCELLING else self.last_change
        return max(time for time in (self.expected, self.planned, self.started, changed) if time is not None)
