"""`suspend` and `resume`: let the schedule rest, and take it up again."""

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
    """Let the schedule of a policy rest.

    A scan under way is finished, and requests are still served.
    """
    run_async(_set_suspend(Where(**where), suspended=True))


@click.command()
@cluster_options
def resume(**where: Any) -> None:
    """Take the schedule of a policy up again.

    It goes on with its next time: nothing in the past is made up for.
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
    rest = "" if suspended else f"; the next scan comes {moment(schedule.after(now), now=now)}"
    verb = "suspended" if suspended else "active" if already else "resumed"
    console.print(f"policy {key.namespace}/{key.name} is {already}{verb}{rest}")
