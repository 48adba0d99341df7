"""The scenario of one fault: videos, a policy, and a controller process that reaches every service through a proxy."""

import json
import ssl
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import httpx

from devstack import ControlPlane, Prefect, Supabase
from tests import secrets
from tests.e2e.conftest import Controller, Namespace, run_controller
from tests.loop import Loop
from tests.proxy import Proxy
from tests.support import ago
from tests.waiting import wait_for

STUCK = 130
"""Videos to be recovered: two batches."""

AT_WORK, JUST_DONE, YOUNG = 10, 5, 5
"""Videos with an active flow run, with one that has just completed, and too young to be stuck: to be left alone."""


class Part(StrEnum):
    """What a proxy stands in front of."""

    SUPABASE = "Supabase"
    PREFECT = "Prefect"
    KUBERNETES = "the API server"


@dataclass(frozen=True)
class Parts:
    """The real services, the proxies' loop, and the kubeconfig of the controller's own account."""

    cluster: ControlPlane
    supabase: Supabase
    prefect: Prefect
    loop: Loop
    kubeconfig: Path

    @cached_property
    def _account(self) -> Mapping[str, Any]:
        account: Mapping[str, Any] = json.loads(self.kubeconfig.read_text())
        return account

    @cached_property
    def _address(self) -> Mapping[str, str]:
        address: Mapping[str, str] = self._account["clusters"][0]["cluster"]
        return address

    @cached_property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=b64decode(self._address["certificate-authority-data"]).decode())

    def kubernetes(self) -> httpx.Client:
        """A client of the API server itself with the rights of the controller's account; quicker than kubectl."""
        token = self._account["users"][0]["user"]["token"]
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self._address["server"], verify=self.tls, headers=headers, trust_env=False)

    @contextmanager
    def proxies(self) -> Iterator[dict[Part, Proxy]]:
        """One in front of each service."""
        with (
            self.loop.serve(self.supabase.url) as supabase,
            self.loop.serve(f"http://127.0.0.1:{self.prefect.port}") as prefect,
            self.loop.serve(self._address["server"], self.tls) as kubernetes,
        ):
            yield {Part.SUPABASE: supabase, Part.PREFECT: prefect, Part.KUBERNETES: kubernetes}

    def kubeconfig_of(self, proxy: Proxy, file: Path) -> Path:
        """Write the kubeconfig of a controller that is to reach the API server through a proxy."""
        clusters = [{**self._account["clusters"][0], "cluster": {"server": proxy.url}}]
        file.write_text(json.dumps({**self._account, "clusters": clusters}))
        return file


class FaultScenario(Namespace):
    """A namespace with one policy, a deployment, videos in statuses of their own, and a controller behind proxies."""

    def __init__(
        self, parts: Parts, proxies: Mapping[Part, Proxy], kubernetes: httpx.Client, running: ExitStack, directory: Path
    ) -> None:
        super().__init__(parts.cluster, parts.supabase, parts.prefect)
        self.proxies, self._kubernetes, self._running = proxies, kubernetes, running
        addresses = {
            "SUPABASE_URL": proxies[Part.SUPABASE].url,
            "PREFECT_API_URL": f"{proxies[Part.PREFECT].url}/api",
        }
        self.create_secret(**{**self.credentials, **addresses})
        self.deployment = parts.prefect.create_deployment(f"{self.name}/recover")
        self.log_file = directory / f"{self.name}.log"
        self.starts = 0
        self._kubeconfig = parts.kubeconfig_of(proxies[Part.KUBERNETES], directory / self.name)
        self._controller: Controller | None = None

    @classmethod
    @contextmanager
    def begin(cls, parts: Parts, directory: Path) -> Iterator[Self]:
        """A scenario with its backlog, a policy that is Ready, and its controller at work."""
        with parts.proxies() as proxies, parts.kubernetes() as kubernetes, ExitStack() as running:
            scenario = cls(parts, proxies, kubernetes, running, directory)
            scenario._add_videos()
            scenario.keep_running()
            scenario.apply(
                # A scenario takes minutes, and must not be another one by its end.
                stuck={"statuses": [scenario.name], "age": "30m", "recentRunWindow": "2h"},
                prefect={"deployment": scenario.deployment.full_name, "flows": [scenario.name]},
                limits={"perTenant": 1000},
            )
            scenario.wait_for(lambda: scenario.condition("Ready").get("status") == "True", what="Ready")
            yield scenario
            secrets.refuse(scenario.kubectl("get", "vrp,events", "-o", "yaml"), "a status or an Event")

    def _add_videos(self) -> None:
        self.stuck = self._insert(STUCK)
        at_work, just_done = self._insert(AT_WORK), self._insert(JUST_DONE)
        self._insert(YOUNG, created_at=ago(seconds=1))
        create = self.prefect.create_flow_runs
        create(self.deployment, [{"video_id": video} for video in at_work], "RUNNING")
        create(self.deployment, [{"video_id": video} for video in just_done], "COMPLETED")

    def _insert(self, count: int, **columns: str) -> list[str]:
        row = {"tenant_id": "tenant", "status": self.name, "created_at": ago(hours=1), **columns}
        return self.supabase.insert_videos([row] * count)

    # The controller

    def keep_running(self) -> None:
        """Start the controller, and start it again if it has ended: what a cluster does with a Pod."""
        if self._controller is not None and self._controller.process.poll() is None:
            return
        self.starts += 1
        controller = run_controller(self._kubeconfig, self.log_file, "--namespace", self.name, expect="")
        self._controller = self._running.enter_context(controller)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def stop(self) -> int:
        """Ask the controller to leave; its exit status."""
        assert self._controller is not None
        return self._controller.stop()

    # The policy, asked past the proxies

    def get(self, name: str = "policy") -> dict[str, Any]:
        path = f"/apis/recovery.captiona.cc/v1alpha1/namespaces/{self.name}/videorecoverypolicies/{name}"
        policy: dict[str, Any] = self._kubernetes.get(path).raise_for_status().json()
        return policy

    def ask(self, token: str) -> None:
        """Ask for a scan by a token of any words."""
        self.kubectl("annotate", "--overwrite", "vrp/policy", f"recovery.captiona.cc/requestedAt={token}")

    def served(self, token: str) -> dict[str, Any]:
        """Wait until a request was served, and return the status."""
        self.wait_for(lambda: self.status().get("lastHandledReconcileAt") == token, what=token)
        return self.status()

    def wait_for(self, condition: Callable[[], Any], *, what: str) -> None:
        """Wait for something while the controller runs, or is started again."""
        wait_for(
            condition, what=what, seen=lambda: f"the log ends with {self.log[-2000:]}", meanwhile=self.keep_running
        )

    # What became of it

    def recoveries(self) -> Counter[str]:
        """How many recoveries of each video exist."""
        runs = self.prefect.flow_runs(deployments={"id": {"any_": [self.deployment.id]}})
        return Counter(run["parameters"]["video_id"] for run in runs if run["idempotency_key"])
