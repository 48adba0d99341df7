"""Secrets of a cluster, as a scan reads them. Never writes one, and no value goes into a message."""

import binascii
from base64 import b64decode

from controller.adapters.credentials import Secret
from controller.adapters.kubernetes.client import Cluster, core_path
from controller.errors import ClusterError, ConfigurationError, ErrorReason, ScanError


class ClusterSecrets:
    """Reads Secrets; see `controller.adapters.clients.ReadSecret`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def __call__(self, namespace: str, name: str) -> Secret:
        """A Secret; values that are no text are left out.

        Raises:
            ConfigurationError: It does not exist, or may not be read.
            ScanError: The API server does not answer.
        """
        place = f"Secret {namespace}/{name}"
        try:
            secret = await self._cluster.request("GET", core_path(namespace, "secrets", name))
        except ClusterError as error:
            raise _explain(place, error) from None
        texts = {key: _decoded(value) for key, value in (secret.get("data") or {}).items()}
        return Secret(place, {key: text for key, text in texts.items() if text is not None})


def _explain(place: str, error: ClusterError) -> ScanError:
    if error.status == 404:
        return ConfigurationError(
            f"{place} does not exist",
            "create it with SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY and PREFECT_API_URL, or name another one in "
            "spec.supabase.secretRef and spec.prefect.secretRef",
            reason=ErrorReason.SECRET_NOT_FOUND,
        )
    if error.status in {401, 403}:
        return ConfigurationError(
            f"{place} may not be read by the controller",
            "allow its service account to get it",
            reason=ErrorReason.SECRET_FORBIDDEN,
        )
    return ScanError(f"{place} could not be read: {error.problem}", error.solution, reason=ErrorReason.UNREACHABLE)


def _decoded(value: str) -> str | None:
    try:
        return b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
