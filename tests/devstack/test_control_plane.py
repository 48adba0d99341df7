"""The embedded control plane: a real API server with RBAC."""

import base64
import json
import ssl
import subprocess

import httpx
import pytest

from devstack import ControlPlane, Unavailable
from devstack.controlplane import KUBECONFIG_VARIABLE

pytestmark = pytest.mark.e2e

OBJECTS = """
apiVersion: v1
kind: Namespace
metadata: {name: devstack}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: devstack}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: devstack}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: devstack}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: devstack}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kept, namespace: devstack}
data: {answer: "42"}
"""


@pytest.fixture
def objects(cluster: ControlPlane) -> None:
    cluster.apply(OBJECTS)


def test_tells_its_version(cluster: ControlPlane) -> None:
    version = json.loads(cluster.kubectl("version", "-o", "json"))
    assert version["serverVersion"]["gitVersion"] == version["clientVersion"]["gitVersion"]
    assert version["serverVersion"]["major"] == "1"


@pytest.mark.usefixtures("objects")
def test_a_service_account_has_its_own_rights_only(cluster: ControlPlane) -> None:
    reader = cluster.service_account("devstack", "reader")
    assert "kept" in cluster.kubectl("get", "configmaps", kubeconfig=reader)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        cluster.kubectl("get", "secrets", kubeconfig=reader)
    assert 'cannot list resource "secrets"' in refused.value.stderr


def test_a_client_can_verify_its_certificate(cluster: ControlPlane) -> None:
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--flatten", "-o", "json"))
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{cluster.url}/livez", verify=ssl.create_default_context())
    encoded = config["clusters"][0]["cluster"]["certificate-authority-data"]
    trusting = ssl.create_default_context(cadata=base64.b64decode(encoded).decode())
    assert httpx.get(f"{cluster.url}/livez", verify=trusting).text == "ok"


@pytest.mark.usefixtures("objects")
def test_a_killed_api_server_comes_back_with_its_objects_at_its_address(cluster: ControlPlane) -> None:
    if not cluster.own:
        pytest.skip("this cluster is not ours to kill")
    reader = cluster.service_account("devstack", "reader")
    cluster.kill()
    with pytest.raises(subprocess.CalledProcessError):
        cluster.kubectl("get", "--raw", "/livez")
    cluster.restart()
    kept = cluster.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.answer}", kubeconfig=reader)
    assert kept == "42"


def test_uses_a_cluster_that_is_asked_for_by_name_and_never_stops_it(
    cluster: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KUBECONFIG_VARIABLE, str(cluster.kubeconfig))
    monkeypatch.setenv("PATH", str(cluster.kubectl_program.parent))
    with ControlPlane.start() as given:
        assert (given.own, given.url) == (False, cluster.url)
        with pytest.raises(Unavailable, match="not started here"):
            given.stop()
    assert cluster.kubectl("get", "--raw", "/livez") == "ok"
