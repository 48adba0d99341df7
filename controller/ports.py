"""What a scan needs from outside, as protocols; the adapters behind them do the I/O.

Every method raises `ScanError` when the service behind it does not do its part, and none answers with less than all.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from controller.api.manifest import Policy
from controller.decisions.decision import Recover
from controller.flow_runs import Deployment, FlowRun, Recoveries
from controller.videos import Row

BATCH = 100
"""Recoveries that are created at once: the most that Prefect's bulk route takes."""


class VideoTable(Protocol):
    """The table of videos."""

    async def check(self) -> None:
        """See whether the table is there and fits the policy, without reading a row."""

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
        """See whether the bucket is there."""

    async def complete(self, paths: Sequence[str]) -> set[str]:
        """Those of the paths at which a file is whole. What cannot be known is an error, never a missing file."""


@dataclass(frozen=True, slots=True)
class Created:
    """Prefect's answer for one recovery: the run, or why there is none.

    Attributes:
        run_id: The flow run; `None` if Prefect refused.
        error: What it said then.
    """

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

    async def appeared(self) -> list[FlowRun]:
        """Every flow run, whatever its state, that appeared since `flow_runs` or since the last call of this."""

    async def heartbeats(self, run_ids: Sequence[str], *, since: datetime) -> set[str]:
        """Those of the runs that gave a sign of life since a time."""

    async def recoveries(self, deployment: Deployment, video_ids: Sequence[str]) -> Recoveries:
        """The earlier recoveries of each video that has any."""

    async def cancel(self, runs: Sequence[FlowRun]) -> list[FlowRun]:
        """Ask runs to stop, give them a moment, and tell how they are then.

        One to which something has happened meanwhile is not asked, and one that is gone is left out.
        """

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Wait until no other scan of this process creates runs, and keep all others from it within the block.

        A server on SQLite refuses a whole batch that begins during another one.
        """

    def create(self, deployment: Deployment, batch: Sequence[Recover]) -> AsyncIterator[Created]:
        """Create the runs of at most `BATCH` decisions; an answer for each, in their order, as it comes."""

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
