"""`doctor`: checks everything that a scan needs, on the real services. Changes nothing."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import click

from controller.cli.clock import read_clock
from controller.cli.console import BAD, DIM, GOOD, Console
from controller.cli.doctor import cluster, services
from controller.cli.doctor.context import Check, CheckResult, DoctorContext, Mark, run_check
from controller.cli.options import Where, policy_options, run_async
from controller.cli.source import needs_cluster, open_source

Question = tuple[str, Check]

OF_CLUSTER: tuple[Question, ...] = (
    ("API server", cluster.api_server),
    ("CRD", cluster.crd),
    ("Policy", cluster.policy),
    ("Controller", cluster.controller),
    ("Last scan", cluster.last_scan),
    ("Your permissions", cluster.your_permissions),
    ("Controller permissions", cluster.its_permissions),
    ("Secret and keys", services.secret_and_keys),
)

OF_SOURCE: tuple[Question, ...] = (("Settings", services.settings),)

OF_SERVICES: tuple[Question, ...] = (
    ("Supabase table", services.supabase_table),
    ("Upload bucket", services.upload_bucket),
    ("Prefect", services.prefect),
    ("Deployment", services.deployment),
    ("Work pool", services.work_pool),
    ("Workers", services.workers),
)

WIDTH = max(len(title) for title, _ in (*OF_CLUSTER, *OF_SERVICES))

STYLES = {Mark.PASSED: GOOD, Mark.FAILED: BAD, Mark.WARNING: "yellow", Mark.SKIPPED: DIM}


@click.command()
@policy_options
def doctor(**where: Any) -> None:
    """Find out why it does not work.

    Checks everything that a scan needs, and says what to do about what is wrong. Nothing is changed. NAME is a
    policy in the cluster; without it, and without -f, the variables SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY and
    PREFECT_API_URL are used if they are set, else the only policy of the cluster. Without a cluster only the
    services are checked.

    \b
    A line for each check:
      ✓ passed            ✗ failed, and what to do
      ! a warning         - not asked, because of a failure above

    Exit code: 0 if no check failed, 1 if one did, 2 if the command or its settings have to be written differently.
    """  # noqa: D301 - click wants the character
    run_async(_doctor(Where(**where)))


async def _doctor(where: Where) -> None:
    console = Console()
    answers: list[CheckResult] = []
    async with AsyncExitStack() as stack:
        context = DoctorContext(where, read_clock(), stack)
        if not needs_cluster(where):
            context.source = await stack.enter_async_context(open_source(where))
        async for each in _ask(console, context, (OF_SOURCE if context.source else OF_CLUSTER) + OF_SERVICES):
            console.print((each.mark, STYLES[each.mark]), f" {each.title:{WIDTH}}  {each.text}")
            answers.append(each)
    failed = any(each.mark is Mark.FAILED for each in answers)
    console.print("\n", (verdict(answers), BAD if failed else GOOD))
    if failed:
        raise click.exceptions.Exit(1)


async def _ask(console: Console, context: DoctorContext, questions: Sequence[Question]) -> AsyncIterator[CheckResult]:
    for title, ask in questions:
        with console.spinner(title):
            given = await run_check(title, ask, context)
        if given is not None:
            yield given


def verdict(answers: Sequence[CheckResult]) -> str:
    """All answers in a sentence."""
    marks = [each.mark for each in answers]
    bad, doubtful, not_asked = (marks.count(mark) for mark in (Mark.FAILED, Mark.WARNING, Mark.SKIPPED))
    asked = len(marks) - not_asked
    text = f"{bad} of {asked} checks failed" if bad else f"All {asked} checks passed"
    text += f", {doubtful} with a warning" if doubtful else ""
    return text + (f", {not_asked} not asked" if not_asked else "") + "."
