"""A Kubernetes control plane: etcd and an API server with RBAC, but no nodes."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from devstack.controlplane.programs import find_programs
from devstack.controlplane.servers import Servers
from devstack.errors import Unavailable
from devstack.workdir import part_directory, write_private

KUBECONFIG_VARIABLE = "VIDEO_RECOVERY_KUBECONFIG"


class ControlPlane:
    """A cluster's API: `kubeconfig` is the file of an administrator, `kubectl_program` a kubectl that fits.

    `own` is false for a cluster that was there before; that one is never stopped or restarted.
    """

    def __init__(self, kubeconfig: Path, kubectl_program: Path, directory: Path, servers: Servers | None) -> None:
        self.kubeconfig = kubeconfig
        self.kubectl_program = kubectl_program
        self._directory = directory
        self._servers = servers

    @classmethod
    @contextmanager
    def start(cls, workdir: Path | None = None, *, controller_manager: bool = False) -> Iterator["ControlPlane"]:
        """Give the cluster that `VIDEO_RECOVERY_KUBECONFIG` names, or start a control plane.

        Without the controller manager there is no garbage collection, and a deleted namespace stays Terminating.

        Raises:
            Unavailable: there is no cluster and none can be started here; the message says what to install.
        """
        with ExitStack() as stack:
            directory = stack.enter_context(part_directory(workdir, "controlplane"))
            if existing := os.environ.get(KUBECONFIG_VARIABLE):
                yield cls(Path(existing), _kubectl_on_path(), directory, None)
                return
            programs = find_programs()
            servers = Servers(programs, directory)
            servers.start(stack, controller_manager=controller_manager)
            yield cls(servers.kubeconfig, programs["kubectl"], directory, servers)

    @property
    def own(self) -> bool:
        """Whether this control plane was started here."""
        return self._servers is not None

    @property
    def url(self) -> str:
        """The API server's address."""
        return self.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Run kubectl as the administrator, or as `kubeconfig` says, and return what it prints.

        Raises:
            subprocess.CalledProcessError: it failed; its messages are in `stderr`, which is in the notes too.
        """
        command = [self.kubectl_program, "--kubeconfig", kubeconfig or self.kubeconfig, *arguments]
        env = {**os.environ, "HOME": str(self._directory)}  # keeps its caches out of the user's home
        try:
            return subprocess.run(
                command, input=stdin, capture_output=True, text=True, check=True, env=env, timeout=600
            ).stdout
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr)
            raise

    def apply(self, manifest: str | Path) -> None:
        """Apply a file or directory (a path) or a text with manifests, server-side."""
        source, stdin = ("-", manifest) if isinstance(manifest, str) else (str(manifest), None)
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", source, stdin=stdin)

    def service_account(self, namespace: str, name: str) -> Path:
        """Return the kubeconfig of a ServiceAccount that exists: a token for an hour, and its rights only."""
        token = self.kubectl("create", "token", "--namespace", namespace, name, "--duration=1h").strip()
        config = json.loads(self.kubectl("config", "view", "--minify", "--raw", "--flatten", "-o", "json"))
        config["users"][0]["user"] = {"token": token}
        config["contexts"][0]["context"]["namespace"] = namespace
        return write_private(self._directory / f"kubeconfig-{namespace}-{name}", json.dumps(config))

    def stop(self) -> None:
        """End the API server; all objects stay."""
        self._own_servers().stop_apiserver()

    def kill(self) -> None:
        """Kill the API server, as a crash would; all objects stay."""
        self._own_servers().kill_apiserver()

    def restart(self) -> None:
        """Start the API server again on the same port; stop it first where it runs."""
        self._own_servers().restart_apiserver()

    def _own_servers(self) -> Servers:
        if self._servers is None:
            raise Unavailable("this cluster was not started here, so it is not stopped here either")
        return self._servers


def _kubectl_on_path() -> Path:
    found = shutil.which("kubectl")
    if found is None:
        raise Unavailable(f"{KUBECONFIG_VARIABLE} is set: install kubectl too")
    return Path(found)
