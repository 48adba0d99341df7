"""Executes flow runs as `python -m prefect.engine` does, but forks them from a process that has imported Prefect.

`python -P runs.py DIRECTORY` serves at the socket `runs.sock` in that directory; `run.py` beside this file, which the
worker starts for each run, asks here for one. A new Python with Prefect takes a second of one core, a fork nothing.
"""

import array
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import warnings
from typing import Any

SOCKET = "runs.sock"

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 10


def main(directory: str) -> None:
    """Serve until killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    _import_prefect()
    os.chdir(directory)  # a socket's path must be short, and `directory` may be long
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(SOCKET)
    listener.listen()
    while True:
        asker, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _keep(asker)
            return
        asker.close()


def _import_prefect() -> None:
    gc.disable()
    for module in ("httpx", "prefect.deployments.steps", "prefect.filesystems", "prefect.flow_engine"):
        importlib.import_module(module)
    gc.freeze()  # the children share this memory


def _keep(asker: socket.socket) -> None:
    """Start the run that was asked for, tell its status when it ends, and end it when nobody asks any more."""
    _die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, outputs = _receive(asker)
    run = os.fork()
    if run == 0:
        asker.close()
        _run(request, outputs)
        return
    ended = os.pidfd_open(run)
    select.select([ended, asker.fileno()], [], [])
    if not select.select([ended], [], [], 0)[0]:
        os.kill(run, signal.SIGTERM)
        if not select.select([ended], [], [], _GRACE_SECONDS)[0]:
            os.kill(run, signal.SIGKILL)
    _, status = os.waitpid(run, 0)
    with contextlib.suppress(OSError):  # nobody may be there to be told
        asker.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _run(request: dict[str, Any], outputs: list[int]) -> None:
    """Be the run; returns or raises SystemExit at its end."""
    _die_with_parent()
    os.dup2(outputs[0], sys.stdout.fileno())
    os.dup2(outputs[1], sys.stderr.fileno())
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["prefect.engine"]
    warnings.simplefilter("ignore", RuntimeWarning)  # that it is imported already
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def _receive(asker: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return a request and the files for its two outputs."""
    size = array.array("i").itemsize
    first, descriptors, _, _ = socket.recv_fds(asker, 65536, 2 * size)
    content = bytearray(first)
    while not content.endswith(b"\n"):
        content += asker.recv(65536)
    request: dict[str, Any] = json.loads(content)
    return request, list(descriptors)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1])
