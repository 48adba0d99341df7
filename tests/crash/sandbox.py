"""A sandbox: a namespace with policies, videos, a flow and a controller of its own; several run side by side."""

import multiprocessing
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from kubernetes import client, config

from controller.api.names import GROUP, PLURAL, REQUESTED_AT, VERSION
from devstack import ControlPlane, Prefect, Supabase
from tests import secrets
from tests.crash import crashing_controller
from tests.crash.crashing_controller import PlanFiles
from tests.e2e.conftest import Namespace
from tests.support import NEVER, manifest, merge
from tests.waiting import wait_for

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.crash.crashing_controller"])  # a new Python would take a second to import it all

BATCH = 3


class Sandbox:
    """What one controller at a time works on."""

    def __init__(self, cluster: ControlPlane, supabase: Supabase, prefect: Prefect, kubeconfig: Path, directory: Path):
        self.namespace = Namespace(cluster, supabase, prefect)
        self.supabase, self.prefect = supabase, prefect
        self.name = self.namespace.name
        self.waiting = f"waiting in {self.name}"
        """The status in which this sandbox's videos are stuck."""
        self.flow = f"process-{self.name}"
        self.deployment = prefect.create_deployment(f"{self.flow}/production", work_pool=self.name)
        self.pretend_worker()
        supabase.create_bucket(self.name)
        self.plan_files = PlanFiles(directory)
        self.log_file = directory / "log"
        self._kubeconfig, self._directory = kubeconfig, directory
        self._policies: Any = client.CustomObjectsApi(config.new_client_from_config(str(cluster.kubeconfig)))

    def pretend_worker(self) -> None:
        """Let the work pool be ready."""
        self.prefect.pretend_worker(self.name)

    def manifest(self, name: str = "policy", **spec: Any) -> dict[str, Any]:
        """A policy for this sandbox's videos; see `tests.support.manifest`."""
        own = {
            "schedule": NEVER,
            "stuck": {"statuses": [self.waiting], "recentRunWindow": "0s"},
            "prefect": {"deployment": self.deployment.full_name, "flows": [self.flow]},
        }
        body = manifest(**merge(own, spec))
        body["metadata"] = {"name": name, "namespace": self.name}
        return body

    def create(self, body: dict[str, Any]) -> None:
        """Create a policy."""
        self._policies.create_namespaced_custom_object(GROUP, VERSION, self.name, PLURAL, body)

    def delete(self, name: str) -> None:
        """Have a policy deleted as soon as a controller lets it go."""
        self._policies.delete_namespaced_custom_object(GROUP, VERSION, self.name, PLURAL, name)

    def get(self, name: str = "policy") -> dict[str, Any]:
        """A policy as it is now."""
        policy: dict[str, Any] = self._policies.get_namespaced_custom_object(GROUP, VERSION, self.name, PLURAL, name)
        return policy

    def status(self, name: str = "policy") -> dict[str, Any]:
        """A policy's status."""
        status: dict[str, Any] = self.get(name).get("status", {})
        return status

    def ask(self, name: str = "policy") -> str:
        """Ask for a scan; return the token."""
        token = uuid.uuid4().hex
        body = {"metadata": {"annotations": {REQUESTED_AT: token}}}
        self._policies.patch_namespaced_custom_object(GROUP, VERSION, self.name, PLURAL, name, body)
        return token

    def wait_served(self, token: str, name: str = "policy") -> dict[str, Any]:
        """Wait until a request is served; return the status."""
        wait_for(lambda: self.is_served(token, name), what="the request to be served", seen=lambda: self.status(name))
        return self.status(name)

    def is_served(self, token: str, name: str = "policy") -> bool:
        """Whether a request is served."""
        return self.status(name).get("lastHandledReconcileAt") == token

    @contextmanager
    def controller(self, *, batch: int = BATCH) -> Iterator[BaseProcess]:
        """Run a controller for this sandbox until the block ends; it dies or pauses where the crash plan says.

        Its scans create so many recoveries at once: a few, so that a scan of a few videos has several batches.
        """
        arguments = ["run", "-v", "--kubeconfig", str(self._kubeconfig), "--namespace", self.name]
        process = _FORKS.Process(target=crashing_controller.run, args=(self._directory, arguments, batch))
        process.start()
        try:
            yield process
        finally:
            process.kill()
            process.join()

    def assert_good_order(self) -> None:
        """No controller had a defect, and none showed a key."""
        assert "Traceback" not in self.log_file.read_text()
        secrets.refuse_file(self.log_file)
        secrets.refuse(self.namespace.kubectl("get", "vrp,events", "-o", "yaml"), "a policy or an Event")

    def clear(self, *, spare: Sequence[str] = ()) -> None:
        """Take away this sandbox's videos, and its flow runs but for some."""
        self.supabase.execute("delete from captionacc.videos where status = %s", [self.waiting])
        mine = {"deployment_id": {"any_": [self.deployment.id]}, "id": {"not_any_": list(spare)}}
        while self._delete_flow_runs(mine):
            pass

    def _delete_flow_runs(self, wanted: dict[str, Any]) -> bool:
        answer = self.prefect.http.post("flow_runs/bulk_delete", json={"flow_runs": wanted}).raise_for_status()
        return bool(answer.json()["deleted"])
