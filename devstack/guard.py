"""Runs a command that dies with the process that started it: `python -IS guard.py PARENT SIGNAL UID COMMAND...`.

The kernel sends SIGNAL to this process when its parent ends, however it ends. That is asked for here, in the child,
and not by a `preexec_fn`, which is unsafe in a program with threads. Standard library only: it starts in 20 ms.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, signal: int, uid: int, command: list[str]) -> None:
    """Become `command`, as user `uid` where that is not -1."""
    if uid != -1:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    # After the change of user, which would clear it.
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0):
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("the parent is gone already")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
