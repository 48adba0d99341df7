"""What both parts of the story show alike: the videos as the table has them, and the worker that processes them."""

import time
from collections.abc import Callable

from demo import situations
from demo.screen import heading, say
from demo.situations import Situation
from devstack import Stack

RECOVERIES = {"tags": {"all_": ["recovery"]}}
PATIENCE = 60
"""Seconds to wait for what should take one or two."""


def create_videos(stack: Stack) -> list[Situation]:
    """Put the videos into an empty table, and show them."""
    assert stack.worker is not None
    heading("Ten videos: four are stuck, the others only look like it")
    videos = situations.create(stack.supabase, stack.prefect, stack.worker.deployment)
    show_videos(stack, videos)
    return videos


def show_processing(stack: Stack, videos: list[Situation]) -> None:
    """Wait until the worker has processed every video that was recovered, and show the videos again."""
    heading("The Prefect worker processes the recovered videos")
    began = time.monotonic()
    wait_until(lambda: all(run["state_type"] == "COMPLETED" for run in stack.prefect.flow_runs(flow_runs=RECOVERIES)))
    recovered = [run["parameters"]["video_id"] for run in stack.prefect.flow_runs(flow_runs=RECOVERIES)]
    wait_until(lambda: all(statuses(stack)[video_id] == "ready" for video_id in recovered))
    say(f"All {len(recovered)} are ready after {time.monotonic() - began:.0f} s:")
    show_videos(stack, videos)


def show_videos(stack: Stack, videos: list[Situation]) -> None:
    """Print the videos with the status that the table has for each now."""
    say(situations.table(videos, statuses(stack)))


def statuses(stack: Stack) -> dict[str, str]:
    """The status of each video by its id."""
    return {str(row["id"]): row["status"] for row in stack.supabase.query("select id, status from captionacc.videos")}


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that should soon hold."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"gave up after {PATIENCE} s; this is a defect of the project or a very slow machine")
        time.sleep(0.1)
