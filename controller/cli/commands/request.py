"""`scan` and `release`: request a scan from the controller, and wait for just that scan."""

import asyncio
import uuid
from typing import Any

import click

from controller.adapters.clients import LiveServices
from controller.adapters.kubernetes.secrets import ClusterSecrets
from controller.api.durations import parse_duration
from controller.api.names import REQUESTED_AT, REQUESTED_VIDEO
from controller.api.status import ConditionType, PolicyStatus
from controller.cli.clock import read_clock
from controller.cli.console import BAD, GOOD, Console
from controller.cli.errors import Failed
from controller.cli.options import Where, cluster_options, run_async
from controller.cli.policies import ClusterPolicy, open_policy
from controller.cli.preview import explain_missing
from controller.cli.program import program_name
from controller.cli.render import print_decisions, print_scan
from controller.errors import ScanError
from controller.videos import shown

POLL = 0.5
"""Seconds between two looks at the policy."""

HINT_AFTER = 20.0
"""Seconds after which somebody who waits is told what may be the matter: a controller takes a request up at once."""


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_duration(str(value)).total_seconds()
        except ValueError as error:
            self.fail(f"{value}: {error}", param, ctx)


_timeout = click.option(
    "--timeout", type=_Duration(), default="10m", show_default=True, metavar="TIME", help="How long to wait."
)
_no_wait = click.option("--no-wait", is_flag=True, help="Request the scan and do not wait.")


@click.command()
@_no_wait
@_timeout
@cluster_options
def scan(no_wait: bool, timeout: float, **where: Any) -> None:
    """Request a scan from the controller, and wait until it is done.

    Works while the policy is suspended, too. Exit code: 0 if nothing failed, 1 if something did.
    """
    run_async(_request(Where(**where), None, wait=not no_wait, seconds=timeout))


@click.command()
@click.option("--video-id", required=True, metavar="ID", help="The video.")
@_no_wait
@_timeout
@cluster_options
def release(video_id: str, no_wait: bool, timeout: float, **where: Any) -> None:
    """Release one video from quarantine: the controller recovers it now.

    Its attempts count anew from there. A video that is backing off is recovered as well; one that a flow run
    works on is not. Without a cluster, `retry --video-id` does the same.
    """
    run_async(_request(Where(**where), video_id, wait=not no_wait, seconds=timeout))


async def _request(where: Where, video_id: str | None, *, wait: bool, seconds: float) -> None:
    console = Console()
    async with open_policy(where) as found:
        name = f"policy {found.key}"
        _validate_servable(found)
        token = f"{read_clock():%Y-%m-%dT%H:%M:%SZ}-{uuid.uuid4().hex[:8]}"
        # A video that somebody named earlier would narrow this scan to it.
        await found.patch(metadata={"annotations": {REQUESTED_AT: token, REQUESTED_VIDEO: video_id}})
        console.note(f"Asked the controller for a scan of {name}" + (f", video {video_id}" if video_id else ""))
        if not wait:
            return
        try:
            served = await _wait_at_most(console, found, token, seconds)
        except asyncio.CancelledError:
            console.note("The request stays: the controller serves it all the same.")
            raise
        if video_id is not None:
            await _tidy(served, token)
        _show(console, served.status)
        if video_id is not None and (why := await _why_not_released(served, video_id)):
            raise Failed(f"video {shown(video_id)} was not released: {why}")
        _exit(console, served.status)


def _validate_servable(found: ClusterPolicy) -> None:
    """A policy that cannot even be planned serves no request."""
    found.policy  # noqa: B018 - raises what is wrong with it
    stalled = found.status.condition(ConditionType.STALLED)
    current = found.status.observed_generation == found.manifest["metadata"]["generation"]
    if stalled is not None and current and stalled.reason in {"InvalidSpec", "InvalidSchedule"}:
        raise Failed(stalled.message)


async def _wait_at_most(console: Console, found: ClusterPolicy, token: str, seconds: float) -> ClusterPolicy:
    try:
        async with asyncio.timeout(seconds) as deadline:
            with console.spinner("Waiting for the controller"):
                return await _wait(console, found, token)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise Failed("the controller did not serve the request in time", f"see `{program_name()} doctor`") from None


async def _wait(console: Console, found: ClusterPolicy, token: str) -> ClusterPolicy:
    """Wait until the controller has served this token, or one that came after it in its place."""
    wanted, hint_at = token, asyncio.get_running_loop().time() + HINT_AFTER
    while True:
        current = await found.again()
        if current.status.last_handled_reconcile_at in {token, wanted}:
            return current
        asked = (current.manifest["metadata"].get("annotations") or {}).get(REQUESTED_AT)
        if asked not in {wanted, None}:
            console.note(f"Another request ({asked}) took the place of this one; waiting for that")
            wanted = str(asked)
        if asyncio.get_running_loop().time() > hint_at:
            hint_at = float("inf")
            console.note(f"Still waiting; if no controller is running, `{program_name()} doctor` tells")
        await asyncio.sleep(POLL)


async def _tidy(found: ClusterPolicy, token: str) -> None:
    """Take the video's annotation off again: it would narrow whatever scan is asked for next."""
    annotations = found.manifest["metadata"].get("annotations") or {}
    if annotations.get(REQUESTED_AT) == token:
        await found.patch(metadata={"annotations": {REQUESTED_VIDEO: None}})


def _show(console: Console, status: PolicyStatus) -> None:
    if status.last_scan is None:
        raise Failed("the controller served the request and wrote no scan", "its log may tell why")
    print_scan(console, status.last_scan, now=read_clock())
    print_decisions(console, status.last_scan)


async def _why_not_released(found: ClusterPolicy, video_id: str) -> str | None:
    last = found.status.last_scan
    if last is None or last.error is not None or last.recovered or last.failed:
        return None
    if last.found:
        return "; ".join(f"{each.reason}: {each.message}" for each in last.decisions)
    try:
        async with LiveServices(ClusterSecrets(found.cluster)).connect(found.policy) as clients:
            missing = await explain_missing(clients, found.policy, [video_id])
    except ScanError:  # not everybody may read the Secret
        return f"no stuck one has that id; `{program_name()} explain --video-id {video_id}` may tell why"
    return missing[video_id].why


def _exit(console: Console, status: PolicyStatus) -> None:
    last = status.last_scan
    if last is None or last.error is not None or last.failed:
        console.print(
            ("✗", BAD), " The scan failed" if last is None or last.error else " Some videos were not recovered"
        )
        raise click.exceptions.Exit(1)
    console.print(("✓", GOOD), " Done")
