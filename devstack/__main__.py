"""`python -m devstack build` prepares everything once; `python -m devstack up` runs everything until Ctrl-C."""

import argparse
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from devstack.controlplane import programs
from devstack.errors import Unavailable
from devstack.postgrest import postgrest_program
from devstack.prefect import environment
from devstack.stack import Stack
from devstack.workdir import temporary_directory, write_private

PARTS: dict[str, Callable[[], object]] = {
    "postgrest": postgrest_program,
    "prefect": environment.environment,
    "controlplane": programs.find_programs,
}


def build(parts: Sequence[str] = tuple(PARTS)) -> int:
    """Prepare parts side by side, or one in this thread, which Ctrl-C then ends at once; return the exit status."""
    if len(parts) == 1:
        return 0 if attempt(parts[0]) else 1
    with ThreadPoolExecutor() as threads:
        done = list(threads.map(attempt, parts))
    return 0 if all(done) else 1


def attempt(part: str) -> bool:
    """Prepare one part; say what is the matter if it cannot be had."""
    try:
        PARTS[part]()
    except Unavailable as problem:
        print(f"devstack: {problem}", file=sys.stderr)
        return False
    return True


def up(workdir: Path | None, *, worker: bool, control_plane: bool) -> int:
    """Run everything, say where it is, and wait for Ctrl-C or SIGTERM; return the exit status."""
    started = time.monotonic()
    try:
        with (
            temporary_directory("up") as place,
            Stack.start(workdir or place, worker=worker, control_plane=control_plane) as stack,
        ):
            took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in stack.seconds.items())
            print(f"Everything runs after {time.monotonic() - started:.1f} s ({took}).")
            show(stack, workdir or place)
            threading.Event().wait()
    except Unavailable as problem:
        print(f"devstack: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.")
    return 0


def show(stack: Stack, workdir: Path) -> None:
    """Print where everything is; the keys go into a file that only its owner can read."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in stack.env().items()]
    env_file = write_private(workdir / "env", "\n".join([*lines, ""]))
    print(f"Supabase    {stack.supabase.url}")
    print(f"Prefect     {stack.prefect.api_url}")
    if stack.control_plane is not None:
        print(f"KUBECONFIG  {stack.control_plane.kubeconfig}")
        print(f"kubectl     {stack.control_plane.kubectl_program}")
    print(f"Keys        . {env_file}")
    print("Ctrl-C stops everything.", flush=True)


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m devstack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build", help="prepare everything once, in the cache")
    builder.add_argument("parts", nargs="*", metavar="PART", help=f"only these: {', '.join(PARTS)}")
    upper = commands.add_parser("up", help="run everything until Ctrl-C")
    upper.add_argument("--workdir", type=Path, help="keep logs and data here (default: a temporary directory)")
    upper.add_argument("--no-worker", action="store_true", help="nothing processes the videos")
    upper.add_argument("--no-control-plane", action="store_true", help="no Kubernetes")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments.command == "build":
        if unknown := set(arguments.parts) - PARTS.keys():
            parser.error(f"there is no part {', '.join(sorted(unknown))}")
        try:
            return build(arguments.parts or tuple(PARTS))
        except KeyboardInterrupt:
            return 130
    return up(arguments.workdir, worker=not arguments.no_worker, control_plane=not arguments.no_control_plane)


if __name__ == "__main__":
    sys.exit(main())
