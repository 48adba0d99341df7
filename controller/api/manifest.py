"""A whole manifest: from what the API server or a file holds to a policy and its status.

Validates once, at the edge. Pure: reads no file and asks nobody.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from controller.api.constraints import DNS_NAME
from controller.api.messages import explain_invalid
from controller.api.names import API_VERSION, KIND
from controller.api.policy import PolicySpec
from controller.api.status import PolicyStatus
from controller.errors import InvalidSpecError

Manifest = dict[str, Any]
"""A Kubernetes object as its JSON or YAML has it."""


@dataclass(frozen=True, slots=True)
class PolicyKey:
    """Which policy; `uid` tells it from one of the same name that came after it."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def key_of(manifest: Mapping[str, Any]) -> PolicyKey:
    """The key of a policy that a store holds."""
    metadata = manifest["metadata"]
    return PolicyKey(metadata["namespace"], metadata["name"], metadata["uid"])


@dataclass(frozen=True, slots=True)
class Policy:
    """One `VideoRecoveryPolicy`. Read from a file, its `uid` is empty and its `generation` 0."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: PolicySpec

    @property
    def key(self) -> PolicyKey:
        """Which policy it is."""
        return PolicyKey(self.namespace, self.name, self.uid)


def parse_policy(manifest: Mapping[str, object]) -> Policy:
    """Read a manifest, from a file or from the API server.

    Raises:
        InvalidSpecError: It is no valid policy; the message names up to two fields and what to write there.
    """
    for key, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if manifest.get(key) != expected:
            raise InvalidSpecError({key: f"write {expected}"})
    spec = manifest.get("spec")
    if not isinstance(spec, Mapping):
        raise InvalidSpecError(
            {"spec": "required, with at least supabase.secretRef, prefect.secretRef and prefect.deployment"}
        )
    try:
        parsed = PolicySpec.model_validate(_as_the_api_server_reads(spec), by_alias=True, by_name=False)
    except ValidationError as error:
        raise explain_invalid(error.errors(include_url=False), PolicySpec) from None
    metadata = manifest.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    generation = metadata.get("generation")
    return Policy(
        namespace=_name(metadata, "namespace", default="default"),
        name=_name(metadata, "name"),
        uid=str(metadata.get("uid") or ""),
        generation=generation if isinstance(generation, int) else 0,
        spec=parsed,
    )


def _name(metadata: Mapping[str, object], key: str, default: object = None) -> str:
    name = metadata.get(key, default)
    if not isinstance(name, str) or not re.fullmatch(DNS_NAME, name):
        raise InvalidSpecError({f"metadata.{key}": "write lower-case letters, digits and -, such as captionacc-prod"})
    return name


def _as_the_api_server_reads(value: object) -> object:
    """The value with what the API server takes as equal made equal: a null is not written, 5.0 is 5."""
    if isinstance(value, Mapping):
        return {key: _as_the_api_server_reads(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_as_the_api_server_reads(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_status(manifest: Mapping[str, Any]) -> PolicyStatus:
    """The status of a policy; an empty one if there is none, or none that can be read."""
    try:
        return PolicyStatus.model_validate(manifest.get("status") or {})
    except ValidationError:
        return PolicyStatus()
