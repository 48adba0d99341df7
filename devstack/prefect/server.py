"""A Prefect 3 server on SQLite."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from devstack.ports import LOOPBACK, on_free_ports
from devstack.prefect import database, environment
from devstack.prefect.api import PatientTransport, PrefectApi
from devstack.process import Child
from devstack.workdir import part_directory


class Prefect(PrefectApi):
    """A running Prefect server; see `PrefectApi` for what can be asked of it."""

    def __init__(self, home: Path, log: Path, auth_string: str | None, settings: Mapping[str, str]) -> None:
        headers = {}
        if auth_string is not None:
            settings = {**settings, "PREFECT_SERVER_API_AUTH_STRING": auth_string}
            headers["Authorization"] = f"Basic {base64.b64encode(auth_string.encode()).decode()}"
        super().__init__(httpx.Client(transport=PatientTransport(), trust_env=False, timeout=30, headers=headers))
        self.auth_string = auth_string
        self.port = 0
        self._home, self._log, self._settings = home, log, settings
        self._child: Child | None = None

    @classmethod
    @contextmanager
    def start(
        cls,
        workdir: Path | None = None,
        *,
        auth_string: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Iterator["Prefect"]:
        """Serve an empty Prefect.

        With `auth_string` (`user:password`) the API asks for it (basic authentication); `settings` are more
        environment variables of the server's.

        Raises:
            Unavailable: Prefect cannot be installed.
            Broken: it did not start.
        """
        with ExitStack() as stack:
            directory = stack.enter_context(part_directory(workdir, "prefect"))
            environment.new_home(directory / "home")
            server = cls(directory / "home", directory / "prefect.log", auth_string, settings or {})
            stack.callback(server.http.close)
            stack.callback(server.stop)
            on_free_ports(server._serve)
            yield server

    @property
    def api_url(self) -> str:
        """The value for `PREFECT_API_URL`, without a slash at its end."""
        return f"http://{LOOPBACK}:{self.port}/api"

    def env(self) -> dict[str, str]:
        """Return `PREFECT_API_URL`, and `PREFECT_API_AUTH_STRING` where one is asked for."""
        env = {"PREFECT_API_URL": self.api_url}
        return env if self.auth_string is None else {**env, "PREFECT_API_AUTH_STRING": self.auth_string}

    def stop(self) -> None:
        """End the server; its data stays."""
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """Kill the server, as a crash would; its data stays."""
        if self._child is not None:
            self._child.kill()

    def restart(self) -> None:
        """Start the server again on the same port with the same data; stop it first where it runs."""
        self.stop()
        self._serve(self.port)

    def backdate(self, run_id: str, by: timedelta) -> None:
        """Move all times of a run into the past.

        Raises:
            KeyError: there is no such run.
        """
        database.backdate(self._home / environment.DATABASE, run_id, by)

    def clone_flow_run(
        self, run_id: str, parameters: Sequence[Mapping[str, Any]], *, apart: timedelta = timedelta(seconds=1)
    ) -> list[str]:
        """Add copies of a run with other parameters: thousands in a second, where the API takes a second a hundred.

        Each copy's times are `apart` earlier than those of the one before. Returns the ids, in order.

        Raises:
            KeyError: there is no such run.
        """
        return database.clone(self._home / environment.DATABASE, run_id, parameters, apart)

    def clear_flow_runs(self) -> None:
        """Delete all runs; flows, deployments and pools stay."""
        database.clear(self._home / environment.DATABASE)

    def _serve(self, port: int) -> None:
        self.port = port
        self.http.base_url = httpx.URL(f"{self.api_url}/")
        self._child = environment.serve(environment.python(), self._home, port, log=self._log, settings=self._settings)
