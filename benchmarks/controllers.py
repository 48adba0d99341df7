"""A controller as a process of its own in a cluster of its own, with policies to watch; reads what it uses.

Measures nothing itself.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.parts import SECRET, Services, manifest
from devstack import ControlPlane, Unavailable

PROJECT = Path(__file__).resolve().parent.parent
NAMESPACE = "benchmarks"
CRD = "videorecoverypolicies.recovery.captiona.cc"
PATIENCE = 600
"""Seconds; a thousand policies are checked in one or two minutes."""

AT_ONCE = 500
"""Policies that kubectl creates in one call."""


class Cluster:
    """A cluster with the CRD, the controller's rights, and a namespace with the Secret of the services."""

    def __init__(self, control_plane: ControlPlane, services: Services) -> None:
        self._control_plane, self._services = control_plane, services

    @classmethod
    @contextmanager
    def start(cls, services: Services) -> Iterator["Cluster"]:
        """Start one.

        Raises:
            Unavailable: It cannot be had here.
        """
        with ControlPlane.start() as control_plane:
            if not control_plane.own:
                raise Unavailable("a thousand policies go into a cluster of their own: unset VIDEO_RECOVERY_KUBECONFIG")
            cluster = cls(control_plane, services)
            cluster._install()
            yield cluster

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl in the namespace; return what it prints."""
        return self._control_plane.kubectl("-n", NAMESPACE, *arguments, stdin=stdin)

    def create_policies(self, count: int, **spec: object) -> None:
        """Create policies `policy-0`, `policy-1` … whose schedule is not due before next year."""
        items = [manifest(f"policy-{n}", NAMESPACE, schedule="0 0 1 1 *", **spec) for n in range(count)]
        for start in range(0, count, AT_ONCE):
            body = {"apiVersion": "v1", "kind": "List", "items": items[start : start + AT_ONCE]}
            self.kubectl("create", "-f", "-", stdin=json.dumps(body))

    def wait_until_ready(self, count: int) -> None:
        """Wait until the controller has checked so many policies and found nothing wrong."""
        ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"

        def all_ready() -> bool:
            self._services.prefect.pretend_worker()
            return self.kubectl("get", "vrp", "-o", ready).split().count("True") == count

        wait_for(all_ready, f"{count} policies to be Ready")

    @contextmanager
    def run_controller(self) -> Iterator["Controller"]:
        """Run a controller with just the rights of its service account until the block ends."""
        kubeconfig = self._control_plane.service_account("video-recovery", "video-recovery")
        command = [sys.executable, "-m", "controller", "run", "--kubeconfig", str(kubeconfig)]
        with TemporaryDirectory() as directory, (Path(directory) / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=subprocess.STDOUT)
            try:
                yield Controller(process.pid)
                if process.poll() is not None:
                    raise RuntimeError(f"the controller ended: {Path(log.name).read_text()}")
            finally:
                process.kill()
                process.wait()

    def _install(self) -> None:
        for name in ("crd.yaml", "rbac.yaml"):
            self._control_plane.apply(PROJECT / "manifests" / name)
        self.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{CRD}")
        self.kubectl("create", "namespace", NAMESPACE)
        literals = [f"--from-literal={key}={value}" for key, value in self._services.credentials.items()]
        self.kubectl("create", "secret", "generic", SECRET, *literals)


class Controller:
    """What a running process uses, by its id."""

    def __init__(self, pid: int) -> None:
        self._proc = Path("/proc") / str(pid)

    @property
    def memory_mb(self) -> float:
        """Resident now."""
        return self._status("VmRSS")

    @property
    def peak_memory_mb(self) -> float:
        """The most that was resident so far."""
        return self._status("VmHWM")

    @property
    def cpu_seconds(self) -> float:
        """Computing time since the start."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        user, system = int(fields[11]), int(fields[12])
        return (user + system) / os.sysconf("SC_CLK_TCK")

    def _status(self, name: str) -> float:
        lines = (self._proc / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds.

    Raises:
        RuntimeError: It did not in ten minutes.
    """
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {PATIENCE} s in vain for {what}")
        time.sleep(1)
