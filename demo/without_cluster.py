"""The story where no Kubernetes API server can be had: the same policy, from its file, by the command line."""

import sys
from pathlib import Path

from demo import situations
from demo.screen import Shell, heading, say
from devstack import Stack

PROJECT = Path(__file__).resolve().parent.parent
PROGRAM = Path(sys.executable).with_name("video-recovery")
POLICY = "-f demo/policy.yaml"


def show_without_cluster(stack: Stack) -> None:
    """Look, retry, and retry again: the second time triggers nothing."""
    assert stack.worker is not None
    heading("Ten videos: four are stuck, the others only look like it")
    videos = situations.create(stack.supabase, stack.prefect, stack.worker.deployment)
    rows = stack.supabase.query("select id, status from captionacc.videos")
    say(situations.table(videos, {str(row["id"]): row["status"] for row in rows}))
    shell = Shell(PROJECT, {"video-recovery": PROGRAM}, stack.env())
    heading("What a scan of demo/policy.yaml would do")
    shell.run(f"video-recovery find {POLICY}")
    heading("Retry them")
    shell.run(f"video-recovery retry {POLICY} --yes")
    heading("Again: nothing is triggered twice")
    shell.run(f"video-recovery retry {POLICY} --yes")
