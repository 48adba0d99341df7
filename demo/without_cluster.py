"""The first part of the story needs no cluster: a policy from its file, by the command line."""

import sys
from pathlib import Path

from demo.processing import create_videos, show_processing
from demo.screen import Shell, heading
from devstack import Stack

PROJECT = Path(__file__).resolve().parent.parent
PROGRAM = Path(sys.executable).with_name("video-recovery")
POLICY = "-f demo/policy.yaml"


def show_without_cluster(stack: Stack) -> None:
    """Look, retry, let the worker process, ask why one was left alone, and retry again: that triggers nothing."""
    videos = create_videos(stack)
    shell = Shell(PROJECT, {"video-recovery": PROGRAM}, stack.env())
    heading("What would a scan of demo/policy.yaml do now?")
    shell.run(f"video-recovery find {POLICY}")
    heading("Retry the stuck videos")
    shell.run(f"video-recovery retry {POLICY} --yes")
    waiting = next(video for video in videos if video.flow_run == "SCHEDULED")
    heading(f"Why was {waiting.name} not retried?")
    shell.run(f"video-recovery explain {POLICY} --video-id {waiting.id}")
    show_processing(stack, videos)
    heading("Retry again: nothing is triggered twice")
    shell.run(f"video-recovery retry {POLICY} --yes")
