"""Flow runs over time as Prefect keeps them: what becomes of them, and when."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controller.flow_runs import FlowRun, Recovery, StateType, attempt_of, is_recovery
from controller.videos import same_id


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


class FlowRuns(ABC):
    """The flow runs of a Prefect server, and what workers and people do to them.

    Attributes:
        runs: All of them by id, in the order of their creation.
        times: The times that Prefect keeps of each; also of those that were deleted.
        by_video: The ids of the runs that work or worked on a video.
        by_key: The id of the run with an idempotency key.
        appeared: The ids of runs in the order in which they became active, also once more.
        beating: The runs that give signs of life all the time.
        last_beats: When each other run gave its last one, by Prefect's clock.
    """

    def __init__(self, flow_id: str, beating: Iterable[str] = ()) -> None:
        """Make a server without flow runs.

        Args:
            flow_id: The flow whose runs are recoveries.
            beating: See the attribute.
        """
        self.flow_id = flow_id
        self.runs: dict[str, FlowRun] = {}
        self.times: dict[str, Times] = {}
        self.by_video: dict[str, tuple[str, ...]] = {}
        self.by_key: dict[str, str] = {}
        self.appeared: list[str] = []
        self.beating: set[str] = set(beating)
        self.last_beats: dict[str, datetime] = {}

    @property
    @abstractmethod
    def server_time(self) -> datetime:
        """The time by Prefect's clock."""

    def add(self, run: FlowRun) -> None:
        """A flow run is there, with a past of its own; one that begins now is `begin`'s."""
        assert run.id not in self.runs, f"another run {run.id}"
        assert run.active == (run.end_time is None), f"{run} has ended, or has not"
        self._enter(run, Times.of(run, self.server_time))

    def begin(self, video_id: str | None, key: str | None = None, *, tags: frozenset[str] = frozenset()) -> str:
        """Somebody creates a flow run."""
        run_id, at = f"run{len(self.times)}", self.server_time
        run = FlowRun(run_id, run_id, StateType.SCHEDULED, video_id, None, at, at, key, tags)
        self._enter(run, Times(at, at, None, at))
        return run_id

    def _enter(self, run: FlowRun, times: Times) -> None:
        assert run.key is None or run.key not in self.by_key, f"another run with the key {run.key}"
        self.runs[run.id], self.times[run.id] = run, times
        self.appeared.append(run.id)
        if run.video_id is not None:
            video_id = same_id(run.video_id)
            self.by_video[video_id] = (*self.by_video.get(video_id, ()), run.id)
        if run.key is not None:
            self.by_key[run.key] = run.id

    def become(self, run_id: str, state: StateType) -> None:
        """A flow run changes its state; one that had ended and is active again is a retry."""
        run = self.runs[run_id]
        self.times[run_id], changed = self.times[run_id].changed(run, state, self.server_time)
        if changed.active and not run.active:
            self.appeared.append(run_id)
        if not changed.active and run_id in self.beating:
            self.beat(run_id, goes_on=False)
        self.runs[run_id] = changed

    def remove(self, run_id: str) -> None:
        """Somebody deletes a flow run."""
        run = self.runs.pop(run_id)
        self.by_key.pop(run.key or "", None)
        if run.video_id is not None:
            video_id = same_id(run.video_id)
            self.by_video[video_id] = tuple(each for each in self.by_video[video_id] if each != run_id)

    def backdate(self, run_id: str, by: timedelta) -> None:
        """All of a flow run was earlier."""
        self.times[run_id], self.runs[run_id] = self.times[run_id].earlier(self.runs[run_id], by)

    def beat(self, run_id: str, *, goes_on: bool) -> None:
        """A flow run gives a sign of life, and goes on with that or not."""
        self.last_beats[run_id] = self.server_time
        (self.beating.add if goes_on else self.beating.discard)(run_id)

    def stop_all_beats(self) -> None:
        """All workers crash."""
        for run_id in list(self.beating):
            self.beat(run_id, goes_on=False)

    def is_alive(self, run_id: str, since: datetime) -> bool:
        """Whether a run gave a sign of life since a time."""
        beat = self.server_time if run_id in self.beating else self.last_beats.get(run_id)
        return beat is not None and beat >= since

    def runs_of(self, video_id: str) -> list[FlowRun]:
        """The runs that work or worked on a video."""
        return [self.runs[run_id] for run_id in self.by_video.get(same_id(video_id), ())]

    def active(self, video_id: str) -> list[FlowRun]:
        """The runs that work on a video."""
        return [run for run in self.runs_of(video_id) if run.active]

    def recoveries(self, video_id: str) -> list[Recovery]:
        """The recoveries of a video, in the order of their attempts."""
        numbered = ((attempt_of(run, self.flow_id, video_id), run) for run in self.runs_of(video_id))
        found = [Recovery(attempt, run) for attempt, run in numbered if attempt is not None]
        return sorted(found, key=lambda recovery: recovery.attempt)

    def in_flight(self) -> int:
        """How many recoveries are active."""
        return sum(run.active and is_recovery(run, self.flow_id) for run in self.runs.values())
