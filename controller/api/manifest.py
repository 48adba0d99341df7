"""A whole manifest: from what the API server or a file holds to a policy and its status.

Validates once, at the edge. Pure: reads no file and asks nobody.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from controller.api.constraints import DNS_NAME
from controller.api.messages import in_plain_words
from controller.api.names import API_VERSION, KIND
from controller.api.policy import PolicySpec
from controller.api.status import PolicyStatus
from controller.errors import ConfigurationError, ErrorReason


@dataclass(frozen=True, slots=True)
class Policy:
    """One `VideoRecoveryPolicy`. Read from a file, its `uid` is empty and its `generation` 0."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: PolicySpec


def parse_policy(manifest: Mapping[str, object]) -> Policy:
    """Read a manifest, from a file or from the API server.

    Raises:
        ConfigurationError: It is no valid policy; the message names up to two fields and what to write there.
    """
    for key, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if manifest.get(key) != expected:
            raise _invalid(f"{key}: write {expected}")
    spec = manifest.get("spec")
    if not isinstance(spec, Mapping):
        raise _invalid("spec: required, with at least supabase.secretRef, prefect.secretRef and prefect.deployment")
    try:
        parsed = PolicySpec.model_validate(_as_the_api_server_reads(spec), by_alias=True, by_name=False)
    except ValidationError as error:
        raise _invalid(in_plain_words(error.errors(include_url=False), PolicySpec)) from None
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
        raise _invalid(f"metadata.{key}: write lower-case letters, digits and -, such as captionacc-prod")
    return name


def _as_the_api_server_reads(value: object) -> object:
    """The value with what the API server takes as equal made equal: a null is not written, 5.0 is 5."""
    if isinstance(value, Mapping):
        return {key: _as_the_api_server_reads(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_as_the_api_server_reads(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _invalid(message: str) -> ConfigurationError:
    return ConfigurationError(message, reason=ErrorReason.INVALID_SPEC)


def read_status(manifest: Mapping[str, Any]) -> PolicyStatus:
    """The status of a policy; an empty one if there is none, or none that can be read."""
    try:
        return PolicyStatus.model_validate(manifest.get("status") or {})
    except ValidationError:
        return PolicyStatus()
