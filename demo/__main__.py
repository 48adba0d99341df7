"""`python -m demo [--keep]`: see the README."""

import argparse
import os
import signal
import sys
import time
from types import FrameType

from demo.screen import say


def main() -> None:
    """Tell the story, and end in good order on Ctrl-C and SIGTERM."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running to play with, until Ctrl-C")
    keep = parser.parse_args().keep
    for number in (signal.SIGINT, signal.SIGTERM):  # the first one too where a script's shell has it ignored
        signal.signal(number, interrupt)
    began = time.monotonic()
    try:
        from demo.story import tell  # here, because it takes a second, in which Ctrl-C should not show a traceback

        tell(keep=keep)
    except KeyboardInterrupt:
        say("Interrupted; everything that was started is stopped.")
        sys.exit(130)
    say(f"\nDone in {time.monotonic() - began:.0f} s; everything that was started is stopped.")


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Say at once that it ends, since it takes a moment to stop everything."""
    os.write(sys.stdout.fileno(), b"\nStopping everything ...\n")  # print may be at work just now
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
