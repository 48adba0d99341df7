"""`suspend` and `resume`: stop the scheduled scans of a policy, and start them again."""

from typing import Any

import click

from controller.cli.clock import read_clock
from controller.cli.console import Console, moment
from controller.cli.options import Where, cluster_options, run_async
from controller.cli.policies import open_policy
from controller.schedule import Schedule


@click.command()
@cluster_options
def suspend(**where: Any) -> None:
    """Suspend a policy.

    No scheduled scan runs until it is resumed. A scan that is running is finished, and requested scans still run.
    """
    run_async(_set_suspend(Where(**where), suspended=True))


@click.command()
@cluster_options
def resume(**where: Any) -> None:
    """Resume a policy.

    The next scan is the next scheduled one. Scans missed while it was suspended are not caught up.
    """
    run_async(_set_suspend(Where(**where), suspended=False))


async def _set_suspend(where: Where, *, suspended: bool) -> None:
    console = Console()
    async with open_policy(where) as found:
        key, spec = found.key, found.policy.spec
        schedule = Schedule(spec.schedule, spec.time_zone)
        already = "already " if spec.suspend is suspended else ""
        if not already:
            await found.patch(spec={"suspend": suspended})
    now = read_clock()
    next_scan = "" if suspended else f"; the next scan comes {moment(schedule.after(now), now=now)}"
    verb = "suspended" if suspended else "active" if already else "resumed"
    console.print(f"policy {key} is {already}{verb}{next_scan}")
