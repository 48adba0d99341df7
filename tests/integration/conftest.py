"""A Prefect behind a proxy, and videos in every situation that the command line tells apart.

Their ids are the same in every run.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.adapters.prefect import abandoned
from controller.adapters.prefect.server import PrefectServer, open_server
from devstack import Prefect, Supabase
from tests import proxy, terminal
from tests.proxy import Proxy
from tests.support import DEPLOYMENT, ago, manifest, policy
from tests.terminal import Said, video_id


@pytest.fixture
async def to_prefect(prefect: Prefect) -> AsyncIterator[Proxy]:
    """A proxy in front of Prefect."""
    async with proxy.serve(f"http://127.0.0.1:{prefect.port}") as between:
        yield between


@pytest.fixture
async def server(to_prefect: Proxy) -> AsyncIterator[PrefectServer]:
    """The way to Prefect that a scan takes, through the proxy."""
    async with open_server(f"{to_prefect.url}/api", {}, [], policy().spec.prefect) as server:
        yield server


@pytest.fixture
def environment(supabase: Supabase, to_prefect: Proxy) -> dict[str, str]:
    """The credentials of both services, with Prefect behind the proxy."""
    return {**supabase.env(), "PREFECT_API_URL": f"{to_prefect.url}/api"}


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is asked to stop gets no time for it."""
    monkeypatch.setattr(abandoned, "CANCEL_WAIT", 0)


@dataclass
class Scene:
    """A table, a Prefect, a directory with the policy's manifest, and a person with a shell."""

    supabase: Supabase
    prefect: Prefect
    home: Path

    @property
    def env(self) -> dict[str, str]:
        credentials = {**self.supabase.env(), **self.prefect.env()}
        return terminal.environment(self.home, credentials, {"SUPABASE_SCHEMA": "captionacc"})

    def run(self, *arguments: str, env: dict[str, str] | None = None, stdin: str = "") -> Said:
        return terminal.run(*arguments, env=self.env if env is None else env, stdin=stdin)

    def write_policy(self, **spec: Any) -> Path:
        path = self.home / "policy.yaml"
        path.write_text(yaml.safe_dump(manifest(**spec)))
        return path

    def insert(self, number: int, **columns: Any) -> str:
        """A video that waits for 45 minutes, unless told otherwise."""
        row = {
            "id": video_id(number),
            "tenant_id": "acme",
            "display_path": f"video-{number}.mp4",
            "status": "pending",
            "created_at": ago(minutes=45, seconds=20),
            **columns,
        }
        self.supabase.insert_videos([row])
        return video_id(number)

    def works_on(self, video: str, state: str) -> str:
        """Let Prefect have a flow run for a video; returns its name."""
        deployment = self.prefect.create_deployment(DEPLOYMENT)
        run_id = self.prefect.create_flow_run(deployment, state, parameters={"video_id": video})
        self.prefect.http.patch(f"flow_runs/{run_id}", json={"name": f"run-of-{video[-1]}"}).raise_for_status()
        return run_id


@pytest.fixture
def scene(supabase: Supabase, prefect: Prefect, tmp_path: Path) -> Scene:
    return Scene(supabase, prefect, tmp_path)


@pytest.fixture
def night(scene: Scene) -> Scene:
    """A queue as somebody finds it at night: two stuck videos, one at work, one just done, three that are not stuck."""
    scene.insert(1, created_at=ago(hours=5, minutes=12, seconds=20), tenant_id="globex", display_path="lecture.mp4")
    scene.insert(2, status="uploading", display_path="holiday.mp4")
    scene.works_on(scene.insert(3, display_path="concert.mp4"), "RUNNING")
    scene.works_on(scene.insert(4, display_path="trailer.mp4"), "COMPLETED")
    scene.insert(5, created_at=ago(minutes=3, seconds=20))
    scene.insert(6, deleted_at=ago(hours=1))
    scene.insert(7, status="ready")
    return scene
