"""Finds free loopback ports."""

import random
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from devstack.errors import Broken

LOOPBACK = "127.0.0.1"

T = TypeVar("T")

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_240
_TAKEN = re.compile(r"address already in use|could not bind|port \d+ is already in use|resource busy", re.IGNORECASE)


def free_port() -> int:
    """Return a loopback port that nothing listens on now.

    It lies below the ports that the kernel hands to outgoing connections, so that none of those can take it while a
    server that is to come back on it is stopped.
    """
    lowest_ephemeral = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else 0
    for _ in range(100):
        if lowest_ephemeral < _LOWEST + 1000:
            return _bind(0)
        try:
            return _bind(random.randrange(_LOWEST, lowest_ephemeral))
        except OSError:
            continue
    raise Broken("no free loopback port found; stop some of the servers on this machine")


def _bind(port: int) -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, port))
        return int(probe.getsockname()[1])


def on_free_ports(start: Callable[[int], T], *, tries: int = 3) -> T:
    """Call `start` with a free port, again with another one where somebody else took it in the meantime.

    `start` raises `Broken` with the server's log in its message, as `Child.start` does.
    """
    for _ in range(tries - 1):
        try:
            return start(free_port())
        except Broken as error:
            if not _TAKEN.search(str(error)):
                raise
    return start(free_port())
