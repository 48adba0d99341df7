"""What a scan replaces, the way its scripts do it: with Prefect's own client, opened anew for each question.

Run by Prefect's Python: `python -P replaced.py DEPLOYMENT < VIDEOS`, with the id of the deployment and a JSON list of
each run's parameters. Prints the seconds it took once Prefect was imported. Imports nothing of this project.
"""

import asyncio
import json
import sys
import time
from datetime import UTC, datetime, timedelta

ACTIVE = frozenset({"PENDING", "RUNNING", "SCHEDULED"})
LAST_RUNS = 100
JUST_ENDED = timedelta(minutes=5)


def is_or_was_at_work(state: str, end_time: datetime | None) -> bool:
    """Whether a flow run is at work on its video, or has just ended."""
    return state in ACTIVE or (end_time is not None and end_time > datetime.now(UTC) - JUST_ENDED)


async def retry(deployment_id: str, videos: list[dict[str, str]]) -> float:
    """Per video: ask for the last hundred runs, look for it among them, create one run; return the seconds."""
    from prefect.client.orchestration import get_client  # type: ignore[import-not-found, unused-ignore]
    from prefect.client.schemas.sorting import FlowRunSort  # type: ignore[import-not-found, unused-ignore]

    began = time.perf_counter()
    for video in videos:
        async with get_client() as client:
            runs = await client.read_flow_runs(limit=LAST_RUNS, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
        of_video = (run for run in runs if run.parameters.get("video_id") == video["video_id"])
        if not any(is_or_was_at_work(run.state_type.value, run.end_time) for run in of_video):
            async with get_client() as client:
                await client.create_flow_run_from_deployment(deployment_id, parameters=video, tags=["recovery"])
    return time.perf_counter() - began


if __name__ == "__main__":
    print(asyncio.run(retry(sys.argv[1], json.load(sys.stdin))))
