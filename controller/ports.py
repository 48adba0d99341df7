"""What a scan and a reconcile need from outside, as protocols; the adapters behind them do the I/O.

Every method of a service raises `ScanError` when the service does not do its part, and none answers with less than all.
Those of a policy store raise `ClusterError`.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from controller.api.manifest import Manifest, Policy, PolicyKey
from controller.decisions.decision import Recover
from controller.flow_runs import Deployment, FlowRun, Recoveries
from controller.videos import Row

BATCH = 100
"""Recoveries that are created at once: the most that Prefect's bulk route takes."""


class VideoTable(Protocol):
    """The table of videos."""

    async def check(self) -> None:
        """Raise `ScanError` if the table is not there or does not fit the policy; reads no row."""

    async def candidates(self, *, created_before: datetime, video_ids: Sequence[str] = ()) -> list[Row]:
        """All rows in a stuck status created before a time, and those that have no such time.

        Args:
            created_before: The time.
            video_ids: Only the rows with these ids; none means all.
        """

    async def row(self, video_id: str) -> Row | None:
        """The row with an id, whatever its status and age, also of a deleted video; `None` if there is none."""

    async def still_stuck(self, video_ids: Sequence[str]) -> set[str]:
        """Those of the ids (in the form of `same_id`) whose rows are in a stuck status now."""


class ObjectStore(Protocol):
    """The bucket with the videos' files."""

    async def check(self) -> None:
        """Raise `ScanError` if the bucket is not there."""

    async def existing_files(self, paths: Sequence[str]) -> set[str]:
        """Those of the paths at which a file is whole. What cannot be known is an error, never a missing file."""


@dataclass(frozen=True, slots=True)
class CreatedRun:
    """Prefect's answer for one recovery: the run, or why there is none.

    Attributes:
        decision: The recovery that was asked for.
        run_id: The flow run; `None` if Prefect refused.
        error: What it said then.
    """

    decision: Recover
    run_id: str | None
    error: str = ""


class FlowServer(Protocol):
    """Prefect."""

    @property
    def clock(self) -> datetime | None:
        """The server's own clock when it last answered, in whole seconds; `None` if it does not tell."""

    async def deployment(self) -> Deployment:
        """The policy's deployment, with what keeps it from running."""

    async def flow_runs(self, *, ended_since: datetime) -> list[FlowRun]:
        """Every active flow run, and those that ended since a time."""

    async def new_flow_runs(self) -> list[FlowRun]:
        """Every flow run, whatever its state, that appeared since `flow_runs` or since the last call of this."""

    async def heartbeats(self, run_ids: Sequence[str], *, since: datetime) -> set[str]:
        """Those of the runs that gave a sign of life since a time."""

    async def recoveries(self, deployment: Deployment, video_ids: Sequence[str]) -> Recoveries:
        """The earlier recoveries of each video that has any."""

    async def cancel(self, runs: Sequence[FlowRun]) -> list[FlowRun]:
        """Ask runs to stop, give them a moment, and tell how they are then.

        One to which something has happened meanwhile is not asked, and one that is gone is left out.
        """

    def creation_lock(self) -> AbstractAsyncContextManager[None]:
        """Wait until no other scan of this process creates runs, and keep all others from it within the block.

        A server on SQLite refuses a whole batch that begins during another one.
        """

    def create(self, deployment: Deployment, batch: Sequence[Recover]) -> AsyncIterator[CreatedRun]:
        """Create the runs of at most `BATCH` decisions; an answer for each, as it comes."""

    async def created_until(self, run_ids: Sequence[str]) -> datetime | None:
        """When the last of these runs was created, by the server's clock; `None` if all of them are gone."""


class Clients(NamedTuple):
    """The services of one policy; `store` is `None` if the policy does not look at uploads."""

    table: VideoTable
    server: FlowServer
    store: ObjectStore | None


class Services(Protocol):
    """The way to the services of a policy."""

    def connect(self, policy: Policy) -> AbstractAsyncContextManager[Clients]:
        """Read the policy's Secrets and make the clients; asks no service yet."""


class Stop(Protocol):
    """Tells a scan that it should end after its current batch."""

    def is_set(self) -> bool:
        """Whether to end now."""


@dataclass(frozen=True, slots=True)
class PolicyEvent:
    """Something about a policy that a person should see.

    Attributes:
        kind: Whether somebody should look into it.
        reason: One word for programs.
        message: A sentence for people, without keys.
    """

    kind: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A status that was written, and the one that it was computed from."""

    before: Mapping[str, object]
    after: Mapping[str, object]


class PolicyStore(Protocol):
    """Where policies are and their status is kept: a cluster, or a policy's files."""

    async def read(self, key: PolicyKey) -> Manifest | None:
        """The policy as it is now; `None` if it is gone, or another one has its name."""

    async def update_status(
        self, key: PolicyKey, compute: Callable[[Mapping[str, object]], Mapping[str, object]]
    ) -> StatusChange | None:
        """Write a status that is computed from the current one.

        Args:
            key: The policy; if it is gone, or another one has its name, nothing is written.
            compute: From the status as it is to the status as it should be, and nothing else; may be called again.

        Returns:
            What changed; `None` if nothing was written, as where the status is the same.
        """

    async def emit_event(self, key: PolicyKey, event: PolicyEvent) -> None:
        """Tell whoever looks at the policy; an event that is lost changes nothing else, so this raises nothing."""
