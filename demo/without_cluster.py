"""The story where no Kubernetes API server can be had: the same policy, run from its file by the same `run_scan`."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import yaml

from controller.adapters.credentials import Secret
from controller.adapters.services import LiveServices
from controller.outcome import Outcome
from controller.policy import Policy, parse_policy
from controller.reporting import describe, summary
from controller.scan import Reporter, run_scan
from controller.schedule import Order, Trigger
from demo import situations
from demo.screen import heading, say
from devstack import Stack

POLICY = Path(__file__).with_name("policy.yaml")


def show_without_cluster(stack: Stack) -> None:
    """Scan twice: the second scan triggers nothing."""
    assert stack.worker is not None
    heading("Ten videos: four are stuck, the others only look like it")
    videos = situations.create(stack.supabase, stack.prefect, stack.worker.deployment)
    rows = stack.supabase.query("select id, status from captionacc.videos")
    say(situations.table(videos, {str(row["id"]): row["status"] for row in rows}))
    policy = parse_policy(yaml.safe_load(POLICY.read_text()))
    for title in ("A scan of demo/policy.yaml", "A second scan triggers nothing"):
        heading(title)
        asyncio.run(_scan(policy, {**stack.supabase.env(), **stack.prefect.env()}))


async def _scan(policy: Policy, credentials: Mapping[str, str]) -> None:
    async def read_secret(namespace: str, name: str) -> Secret:
        return Secret("the environment", credentials)

    order = Order(Trigger.REQUEST)
    await run_scan(policy, order, LiveServices(read_secret), _Printer(), now=datetime.now(UTC), stop=asyncio.Event())


class _Printer(Reporter):
    async def report(self, policy: Policy, outcome: Outcome) -> None:
        for result in outcome.results:
            say(describe(result))
        say(f"{policy.name}: {outcome.error or summary(outcome)}")
