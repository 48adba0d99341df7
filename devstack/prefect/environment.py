"""The virtual environment that Prefect runs in, and the variables its programs get.

The controller's own environment never holds Prefect.
"""

import os
import shutil
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from devstack import cache
from devstack.ports import LOOPBACK, on_free_ports
from devstack.process import Child

_HERE = Path(__file__).parent
_LOCK = _HERE / "requirements.lock"
_INSIDE = _HERE / "inside"
DATABASE = "prefect.db"
# What a new server makes in six seconds: the migrated database, and the note that its blocks are registered.
_NEW_HOME = (DATABASE, "memo_store.toml")


def environment() -> Path:
    """Return the directory with the virtual environment (`venv`) and a server's first files (`home`).

    Raises:
        Unavailable: the packages cannot be installed.
    """
    key = cache.digest(_LOCK, _INSIDE / "serve.py", sys.version, sys.base_prefix)
    return cache.build_once("prefect", key, _build)


def python() -> Path:
    """Return the Python that has Prefect."""
    return environment() / "venv" / "bin" / "python"


def new_home(home: Path) -> None:
    """Make the directory of a new server."""
    home.mkdir()
    for name in _NEW_HOME:
        shutil.copy(environment() / "home" / name, home / name)


def variables(home: Path, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the whole environment of a Prefect program: nothing of the user's own Prefect settings is in it."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    return {
        **outer,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "NO_PROXY": f"{LOOPBACK},localhost",
        **(settings or {}),
    }


def serve(interpreter: Path, home: Path, port: int, *, log: Path, settings: Mapping[str, str]) -> Child:
    """Start a server whose data is in `home`, and wait until it answers."""
    url = f"http://{LOOPBACK}:{port}/api/health"
    return Child.start(
        "the Prefect server",
        [interpreter, "-P", _INSIDE / "serve.py", str(port)],
        log=log,
        env=variables(home, settings),
        cwd=home,  # Prefect reads settings from files of the working directory
        ready=lambda: httpx.get(url, trust_env=False).is_success,
        timeout=300,
    )


def _build(directory: Path) -> None:
    venv = directory / "venv"
    venv.mkdir()
    cache.make_venv(venv, "--require-hashes", "-r", _LOCK, advice="pip must reach its registry for Prefect.")
    home = directory / "home"
    home.mkdir()

    def start(port: int) -> Child:
        return serve(venv / "bin" / "python", home, port, log=directory / "first-start.log", settings={})

    on_free_ports(start).stop(grace=20)
    with sqlite3.connect(home / DATABASE) as database:
        database.execute("pragma journal_mode=delete")  # one file, to be copied
    database.close()
