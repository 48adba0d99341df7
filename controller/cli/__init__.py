"""The command line: what a person types, and what the screen shows.

Two names, one program: `video-recovery`, and `kubectl video-recovery` where `kubectl-video_recovery` is on the PATH.
Scans are those of `controller.scan`, as in the controller; nothing here decides about a video.
"""

from controller.cli.program import main

__all__ = ["main"]
