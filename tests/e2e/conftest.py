"""A cluster in which the project is installed, controllers as real processes, and a namespace for each test."""

import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devstack import ControlPlane, Prefect, Supabase
from tests import secrets
from tests.support import NEVER, SECRET, manifest
from tests.waiting import PATIENCE, wait_for

PROJECT = Path(__file__).parents[2]
REQUESTED_AT = "recovery.captiona.cc/requestedAt"


@pytest.fixture(scope="session")
def installed(cluster: ControlPlane) -> Iterator[ControlPlane]:
    """The cluster with the CRD and the controller's rights; in the end no status and no Event in it shows a key."""
    cluster.apply(PROJECT / "manifests" / "crd.yaml")
    cluster.apply(PROJECT / "manifests" / "rbac.yaml")
    cluster.kubectl(
        "wait", "--for=condition=Established", "--timeout=300s", "crd/videorecoverypolicies.recovery.captiona.cc"
    )
    yield cluster
    secrets.refuse(cluster.kubectl("get", "vrp,events", "--all-namespaces", "-o", "yaml"), "a status or an Event")


@dataclass
class Controller:
    """A running controller process."""

    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)


@contextmanager
def run_controller(kubeconfig: Path, log_file: Path, *arguments: str, expect: str = "watching") -> Iterator[Controller]:
    """Run the controller until the block ends; at the start, wait for a text in its log or for its end."""
    command = [sys.executable, "-m", "controller", "run", "-v", "--kubeconfig", str(kubeconfig), *arguments]
    with log_file.open("ab") as output:
        process = subprocess.Popen(command, cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT)
    controller = Controller(process, log_file)
    try:
        wait_for(
            lambda: expect in controller.log or process.poll() is not None,
            what=f"{expect!r} in the log",
            seen=lambda: controller.log,
        )
        yield controller
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    secrets.refuse_file(log_file)


class Namespace:
    """A namespace with a Secret, and what a user does in it with kubectl."""

    def __init__(self, cluster: ControlPlane, supabase: Supabase, prefect: Prefect) -> None:
        self.cluster, self.supabase, self.prefect = cluster, supabase, prefect
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        cluster.kubectl("create", "namespace", self.name)
        self.credentials = {**supabase.env(), **prefect.env()}
        self.create_secret(**self.credentials)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.name, *arguments, stdin=stdin)

    def create_secret(self, **values: str) -> None:
        """Create the Secret, or replace it; nobody may see its keys from now on."""
        secrets.know_values(values)
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": self.name},
            "stringData": values,
        }
        self.kubectl("delete", "secret", SECRET, "--ignore-not-found")
        self.kubectl("create", "-f", "-", stdin=json.dumps(secret))

    def apply(self, name: str = "policy", **spec: Any) -> None:
        """Apply a policy; see `tests.support.manifest`. It has no schedule to speak of unless it is given one."""
        body = manifest(**{"schedule": NEVER, **spec})
        body["metadata"] = {"name": name, "namespace": self.name}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def patch_spec(self, spec: dict[str, Any]) -> None:
        self.kubectl("patch", "vrp/policy", "--type=merge", "-p", json.dumps({"spec": spec}))

    def patch_status(self, status: dict[str, Any]) -> None:
        """Change what the controller remembers, as time or another controller would have."""
        self.kubectl(
            "patch", "vrp/policy", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
        )

    def get(self, name: str = "policy") -> dict[str, Any]:
        policy: dict[str, Any] = json.loads(self.kubectl("get", f"vrp/{name}", "-o", "json"))
        return policy

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.get().get("status", {})
        return status

    def condition(self, kind: str, name: str = "policy") -> dict[str, Any]:
        """The condition of a type; empty if there is none."""
        conditions = self.get(name).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def wait_condition(self, kind: str, status: str, reason: str | None = None, name: str = "policy") -> dict[str, Any]:
        """Wait until the policy as it is now has a condition, and return that."""

        def holds() -> dict[str, Any] | None:
            current = self.get(name)
            fresh = current["metadata"]["generation"] == current.get("status", {}).get("observedGeneration")
            found = self.condition(kind, name)
            matches = found.get("status") == status and reason in {None, found.get("reason")}
            return found if fresh and matches else None

        return wait_for(holds, what=f"{kind}={status} {reason or ''}", seen=lambda: self.get(name)) or {}

    def request(self, **annotations: str) -> dict[str, Any]:
        """Ask for a scan, wait until it was served, and return the status."""
        token = uuid.uuid4().hex
        more = [f"recovery.captiona.cc/{name}={value}" for name, value in annotations.items()]
        self.kubectl("annotate", "--overwrite", "vrp/policy", f"{REQUESTED_AT}={token}", *more)
        return self.wait_served(token)

    def wait_served(self, token: str) -> dict[str, Any]:
        """Wait until a request was served, and return the status."""
        wait_for(
            lambda: self.status().get("lastHandledReconcileAt") == token,
            what="the request to be served",
            seen=self.get,
        )
        return self.status()

    def wait_scanned(self) -> dict[str, Any]:
        """Wait until there was a scan, and return the status."""
        wait_for(lambda: "lastScan" in self.status(), what="a scan", seen=self.get)
        return self.status()

    def events(self) -> list[tuple[str, str, str]]:
        """Type, reason and message of each Event."""
        items = json.loads(self.kubectl("get", "events", "-o", "json"))["items"]
        return [(item["type"], item["reason"], item["message"]) for item in items]


@pytest.fixture
def namespace(installed: ControlPlane, supabase: Supabase, prefect: Prefect) -> Iterator[Namespace]:
    """A fresh namespace; afterwards nothing in it may show a key."""
    namespace = Namespace(installed, supabase, prefect)
    yield namespace
    secrets.refuse(namespace.kubectl("get", "vrp,events", "-o", "yaml"), "a status or an Event")


@pytest.fixture
def kubeconfig(installed: ControlPlane) -> Path:
    """The kubeconfig of the controller's own service account, with just the rights of `manifests/rbac.yaml`."""
    return installed.service_account("video-recovery", "video-recovery")


@pytest.fixture
def controller(namespace: Namespace, kubeconfig: Path, tmp_path: Path) -> Iterator[Controller]:
    """A controller that watches the test's namespace; it must leave in good order and log no traceback and no key."""
    with run_controller(kubeconfig, tmp_path / "controller.log", "--namespace", namespace.name) as running:
        yield running
        if running.process.poll() is None:
            assert running.stop() == 0, running.log
    assert "Traceback" not in running.log, running.log
