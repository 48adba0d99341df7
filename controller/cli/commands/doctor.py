"""`doctor`: the questions people ask when it does not work, each asked for real. Changes nothing."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import click

from controller.cli.clock import read_clock
from controller.cli.console import BAD, DIM, GOOD, Screen
from controller.cli.doctor import cluster, services
from controller.cli.doctor.examination import Answer, Ask, Examination, Mark, answer
from controller.cli.options import Where, policy_options, run_async
from controller.cli.source import needs_a_cluster, open_source

Question = tuple[str, Ask]

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

STYLES = {Mark.GOOD: GOOD, Mark.BAD: BAD, Mark.DOUBTFUL: "yellow", Mark.NOT_ASKED: DIM}


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
      ✓ it is well        ✗ it is not, and what to do
      ! it may be meant   - not asked, because of something above

    Exit code: 0 if no check failed, 1 if one did, 2 if the command or its settings have to be written differently.
    """  # noqa: D301 - click wants the character
    run_async(_doctor(Where(**where)))


async def _doctor(where: Where) -> None:
    screen = Screen()
    answers: list[Answer] = []
    async with AsyncExitStack() as stack:
        it = Examination(where, read_clock(), stack)
        if not needs_a_cluster(where):
            it.source = await stack.enter_async_context(open_source(where))
        async for each in _ask(screen, it, (OF_SOURCE if it.source else OF_CLUSTER) + OF_SERVICES):
            screen.say((each.mark, STYLES[each.mark]), f" {each.title:{WIDTH}}  {each.text}")
            answers.append(each)
    failed = any(each.mark is Mark.BAD for each in answers)
    screen.say("\n", (verdict(answers), BAD if failed else GOOD))
    if failed:
        raise click.exceptions.Exit(1)


async def _ask(screen: Screen, it: Examination, questions: Sequence[Question]) -> AsyncIterator[Answer]:
    for title, ask in questions:
        with screen.waiting(title):
            given = await answer(title, ask, it)
        if given is not None:
            yield given


def verdict(answers: Sequence[Answer]) -> str:
    """All answers in a sentence."""
    marks = [each.mark for each in answers]
    bad, doubtful, not_asked = (marks.count(mark) for mark in (Mark.BAD, Mark.DOUBTFUL, Mark.NOT_ASKED))
    asked = len(marks) - not_asked
    text = f"{bad} of {asked} checks failed" if bad else f"All {asked} checks passed"
    text += f", {doubtful} with a warning" if doubtful else ""
    return text + (f", {not_asked} not asked" if not_asked else "") + "."
