"""What can be wrong with a cluster."""


class ClusterError(Exception):
    """The cluster cannot be used; the message says why in one line."""


class NoClusterError(ClusterError):
    """Nothing leads to a cluster: no service account, no usable kubeconfig."""
