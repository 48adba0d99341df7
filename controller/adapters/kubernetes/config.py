"""The way to an API server: the Pod's service account, or a kubeconfig."""

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import yaml
from kubernetes.aio import client, config
from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION

from controller.errors import NoClusterError

UNUSABLE = (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError)
"""What the Kubernetes client raises for a kubeconfig that it cannot use."""

NAME_ONE = "name a kubeconfig with --kubeconfig FILE"

LoadConfiguration = Callable[[], Awaitable[client.Configuration]]


async def load_configuration(kubeconfig: Path | None, context: str | None) -> client.Configuration:
    """Find the way to the API server: the Pod's service account, or a kubeconfig as kubectl finds it.

    Args:
        kubeconfig: A file; `None` for the service account, `$KUBECONFIG` or `~/.kube/config`, in this order.
        context: A context of the kubeconfig; `None` for its current one.

    Raises:
        NoClusterError: None of them is there or can be read.
    """
    configuration = client.Configuration()
    try:
        if kubeconfig is None and context is None:
            with suppress(config.ConfigException):
                config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
                return configuration
        await _load(kubeconfig, context, configuration)
    except UNUSABLE as error:
        where = kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION
        problem = " ".join(str(error).split())
        raise NoClusterError(f"no cluster: {where} cannot be used ({problem})", NAME_ONE) from None
    return configuration


def _validate_exists(files: str) -> None:
    if not any(Path(file).expanduser().is_file() for file in files.split(os.pathsep)):
        raise NoClusterError(f"no cluster: there is no file {files}", NAME_ONE)


async def _load(file: Path | None, context: str | None, configuration: client.Configuration) -> None:
    name = str(file or KUBE_CONFIG_DEFAULT_LOCATION)
    _validate_exists(name)
    await config.load_kube_config(name, context, configuration, persist_config=False)  # type: ignore[no-untyped-call]
