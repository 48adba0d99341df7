"""A real Kubernetes control plane: etcd and kube-apiserver, built by Go or brought by the user."""

from devstack.controlplane.cluster import KUBECONFIG_VARIABLE, ControlPlane

__all__ = ["KUBECONFIG_VARIABLE", "ControlPlane"]
