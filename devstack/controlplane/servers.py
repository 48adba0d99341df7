"""Starts etcd, the API server and the controller manager."""

import base64
import json
import secrets
import ssl
from contextlib import ExitStack
from pathlib import Path

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from devstack.controlplane.programs import Programs
from devstack.ports import LOOPBACK, free_port, on_free_ports
from devstack.process import Child
from devstack.workdir import write_private

_ISSUER = "https://kubernetes.default.svc.cluster.local"


class Servers:
    """The processes of one control plane, with all their files in `directory`."""

    def __init__(self, programs: Programs, directory: Path) -> None:
        self._admin_token = secrets.token_urlsafe(32)
        self.kubeconfig = directory / "kubeconfig"
        self._programs, self._directory = programs, directory
        self._service_account_key = directory / "service-account.key"
        self._tokens = directory / "tokens.csv"
        self._etcd_url = ""
        self._port = 0
        self._apiserver: Child | None = None

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://{LOOPBACK}:{self._port}"

    @property
    def _certificate(self) -> Path:
        # The API server signs one for itself; the file holds it and the authority that it made for that.
        return self._directory / "certificates" / "apiserver.crt"

    def start(self, stack: ExitStack, *, controller_manager: bool) -> None:
        """Start everything; `stack` stops it."""
        self._write_secrets()
        stack.callback(on_free_ports(self._start_etcd).kill)
        stack.callback(self.kill_apiserver)
        on_free_ports(self._start_apiserver)
        write_private(self.kubeconfig, self._admin_kubeconfig())
        if controller_manager:
            stack.callback(on_free_ports(self._start_controller_manager).kill)

    def stop_apiserver(self) -> None:
        """End the API server; etcd keeps the data."""
        if self._apiserver is not None:
            self._apiserver.stop()

    def kill_apiserver(self) -> None:
        """Kill the API server; etcd keeps the data."""
        if self._apiserver is not None:
            self._apiserver.kill()

    def restart_apiserver(self) -> None:
        """Start the API server again on the same port; stop it first where it runs."""
        self.stop_apiserver()
        self._start_apiserver(self._port)

    def _write_secrets(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(self._service_account_key, pem.decode())
        write_private(self._tokens, f'{self._admin_token},devstack-admin,devstack-admin,"system:masters"\n')

    def _admin_kubeconfig(self) -> str:
        authority = base64.b64encode(self._certificate.read_bytes()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "devstack",
            "clusters": [
                {"name": "devstack", "cluster": {"server": self.url, "certificate-authority-data": authority}}
            ],
            "users": [{"name": "devstack", "user": {"token": self._admin_token}}],
            "contexts": [{"name": "devstack", "context": {"cluster": "devstack", "user": "devstack"}}],
        }
        return json.dumps(config, indent=2)  # which is YAML too

    def _start_etcd(self, port: int) -> Child:
        self._etcd_url = f"http://{LOOPBACK}:{port}"
        peer_url = f"http://{LOOPBACK}:{free_port()}"
        return Child.start(
            "etcd",
            [
                self._programs["etcd"],
                f"--data-dir={self._directory / 'etcd'}",
                f"--listen-client-urls={self._etcd_url}",
                f"--advertise-client-urls={self._etcd_url}",
                f"--listen-peer-urls={peer_url}",
                f"--initial-advertise-peer-urls={peer_url}",
                f"--initial-cluster=default={peer_url}",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
            log=self._directory / "etcd.log",
            ready=lambda: httpx.get(f"{self._etcd_url}/readyz", trust_env=False).is_success,
        )

    def _start_apiserver(self, port: int) -> None:
        self._port = port
        self._apiserver = Child.start(
            "the API server",
            [
                self._programs["kube-apiserver"],
                f"--etcd-servers={self._etcd_url}",
                f"--secure-port={port}",
                f"--bind-address={LOOPBACK}",
                f"--advertise-address={LOOPBACK}",
                f"--cert-dir={self._certificate.parent}",
                f"--service-account-issuer={_ISSUER}",
                f"--service-account-key-file={self._service_account_key}",
                f"--service-account-signing-key-file={self._service_account_key}",
                f"--token-auth-file={self._tokens}",
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.0.0.0/24",
            ],
            log=self._directory / "apiserver.log",
            ready=self._apiserver_ready,
            timeout=300,
        )

    def _apiserver_ready(self) -> bool:
        context = ssl.create_default_context(cafile=self._certificate)
        headers = {"Authorization": f"Bearer {self._admin_token}"}
        return httpx.get(f"{self.url}/readyz", verify=context, headers=headers, trust_env=False).is_success

    def _start_controller_manager(self, port: int) -> Child:
        url = f"https://{LOOPBACK}:{port}/healthz"
        return Child.start(
            "the controller manager",
            [
                self._programs["kube-controller-manager"],
                f"--kubeconfig={self.kubeconfig}",
                f"--authentication-kubeconfig={self.kubeconfig}",
                f"--authorization-kubeconfig={self.kubeconfig}",
                f"--service-account-private-key-file={self._service_account_key}",
                f"--root-ca-file={self._certificate}",
                f"--cert-dir={self._directory / 'controller-manager'}",
                f"--bind-address={LOOPBACK}",
                f"--secure-port={port}",
                "--use-service-account-credentials",
                "--leader-elect=false",
            ],
            log=self._directory / "controller-manager.log",
            # Its certificate is of its own making, and nothing is told to it here.
            ready=lambda: httpx.get(url, verify=False, trust_env=False).is_success,
        )
