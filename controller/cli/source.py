"""Where a command gets its settings: a policy in a cluster, manifests in files, or nothing but the environment."""

import binascii
import os
import sys
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import yaml

from controller.adapters.clients import LiveServices
from controller.adapters.credentials import (
    PREFECT_AUTH,
    PREFECT_KEY,
    PREFECT_URL,
    SUPABASE_KEY,
    SUPABASE_URL,
    Secret,
    prefect_credentials,
    supabase_credentials,
)
from controller.api.manifest import Policy, parse_policy
from controller.api.names import API_VERSION, KIND
from controller.api.status import PolicyStatus
from controller.cli.errors import Failed, WrongUseError, in_words
from controller.cli.options import Where
from controller.errors import ConfigurationError, ScanError

NEEDED = (SUPABASE_URL, SUPABASE_KEY, PREFECT_URL)
VARIABLES = (*NEEDED, PREFECT_KEY, PREFECT_AUTH)

SCHEMA = "SUPABASE_SCHEMA"
"""As the scripts that came before this program read it; not set: public."""

DEPLOYMENT = "captionacc-video-initial-processing/captionacc-prod-video-initial-processing"
"""What recovers a video where no policy says it."""

FROM_ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Source:
    """A policy with the way to its services.

    Attributes:
        said: Where it is from, for people.
        arguments: What leads to it again on the command line.
        status: What the controller last wrote; empty without a cluster.
        hint: Where to write what the policy should say, if that is not obvious.
    """

    policy: Policy
    services: LiveServices
    said: str
    arguments: str = ""
    status: PolicyStatus = field(default_factory=PolicyStatus)
    hint: str = ""

    def in_words(self, error: ScanError) -> click.ClickException:
        """What ended a scan, with where the settings can be put right."""
        hint = self.hint if isinstance(error, ConfigurationError) else ""
        return Failed(in_words(error).message + hint)


@asynccontextmanager
async def open_source(where: Where) -> AsyncIterator[Source]:
    """Find the settings.

    Raises:
        WrongUseError: They are missing, or cannot be right.
        ClusterError: The cluster cannot be used.
    """
    if where.files:
        yield from_files(where)
    elif not needs_a_cluster(where):
        yield from_environment()
    else:
        from controller.adapters.kubernetes.errors import NoClusterError
        from controller.cli.policies import open_policy

        try:
            async with open_policy(where) as found:
                yield Source(
                    found.policy,
                    LiveServices(found.cluster.secret),
                    f"policy {found.key.namespace}/{found.key.name} in the cluster at {found.cluster.address}",
                    f" {found.key.name} -n {found.key.namespace}{where.cluster_arguments}",
                    found.status,
                )
        except NoClusterError as error:
            raise WrongUseError(f"{error}; or a policy's file with -f FILE; or set {', '.join(NEEDED)}") from None


def needs_a_cluster(where: Where) -> bool:
    """Whether the settings are neither in files nor in the environment."""
    variables = any(os.environ.get(name) for name in NEEDED[:2])  # noqa: TID251
    return not where.files and (where.names_a_cluster or not variables)


# The environment


def environment_secret() -> Secret:
    """What the environment has in place of a Secret."""
    return Secret("the environment", {name: os.environ[name] for name in VARIABLES if name in os.environ})  # noqa: TID251


def from_environment() -> Source:
    """A policy of nothing but defaults.

    Raises:
        WrongUseError: A variable is missing or wrong.
    """
    secret = environment_secret()
    _check(secret, secret)
    supabase = {"secretRef": {"name": FROM_ENVIRONMENT}, "schema": os.environ.get(SCHEMA) or "public"}  # noqa: TID251
    prefect = {"secretRef": {"name": FROM_ENVIRONMENT}, "deployment": DEPLOYMENT}
    metadata = {"name": FROM_ENVIRONMENT, "namespace": "default"}
    manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata}
    try:
        policy = parse_policy({**manifest, "spec": {"supabase": supabase, "prefect": prefect}})
    except ConfigurationError as error:
        raise WrongUseError(f"{SCHEMA}: {error.message.partition(': ')[2]}") from None
    said = f"the environment, and defaults: table {policy.spec.supabase.schema_name}.videos, deployment {DEPLOYMENT}"
    hint = f" (without a policy, {SCHEMA} names the schema; a policy's file, with -f, can say the rest)"
    return Source(policy, _constant({FROM_ENVIRONMENT: secret}), said, hint=hint)


def _check(supabase: Secret, prefect: Secret) -> None:
    """See at once to what would end every scan, all of it in one message."""
    missing = [name for name in NEEDED if not (prefect if name == NEEDED[2] else supabase).values.get(name, "").strip()]
    if missing and supabase is prefect:
        raise WrongUseError(
            f"{supabase.place} lacks {' and '.join(missing)}; set {'it' if len(missing) == 1 else 'them'}"
        )
    try:
        supabase_credentials(supabase)
        prefect_credentials(prefect)
    except ConfigurationError as error:
        raise WrongUseError(error.message) from None


def _constant(secrets: Mapping[str, Secret]) -> LiveServices:
    async def read_secret(_namespace: str, name: str) -> Secret:
        return secrets[name]

    return LiveServices(read_secret)


# Files


def from_files(where: Where) -> Source:
    """The policy that the files hold, with the Secret that they hold or the environment.

    Raises:
        WrongUseError: There is no such policy or Secret, or it cannot be used.
    """
    documents = [document for file in where.files for document in _documents(file)]
    shown = ", ".join("standard input" if file == "-" else file for file in where.files)
    policy = _the_policy(documents, where.name, shown)
    spec = policy.spec
    names = dict.fromkeys([spec.supabase.secret_ref.name, spec.prefect.secret_ref.name])
    secrets = {name: _secret(documents, policy.namespace, name, shown) for name in names}
    _check(secrets[spec.supabase.secret_ref.name], secrets[spec.prefect.secret_ref.name])
    places = " and ".join(dict.fromkeys(secret.place for secret in secrets.values()))
    arguments = "".join(f" -f {file}" for file in where.files) + (f" {where.name}" if where.name else "")
    return Source(policy, _constant(secrets), f"policy {policy.name} of {shown}, with {places}", arguments)


def _documents(file: str) -> Iterator[Mapping[str, Any]]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        documents = list(yaml.safe_load_all(text))
    except OSError as error:
        raise WrongUseError(f"{file}: {error.strerror}; write the path of a policy's manifest") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        line = f", line {mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else ""
        raise WrongUseError(
            f"{file}{line}: this is no YAML; write a manifest, such as manifests/example.yaml"
        ) from None
    for document in documents:
        yield from _objects(document, file)


def _objects(document: object, file: str) -> Iterator[Mapping[str, Any]]:
    if document is None:
        return
    if not isinstance(document, Mapping):
        raise WrongUseError(f"{file}: a manifest has apiVersion, kind, metadata and spec; see manifests/example.yaml")
    if document.get("kind") == "List":
        items = document.get("items")
        for item in items if isinstance(items, list) else ():
            yield from _objects(item, file)
    else:
        yield document


def _the_policy(documents: Sequence[Mapping[str, Any]], name: str | None, shown: str) -> Policy:
    found = [document for document in documents if document.get("kind") == KIND]
    if not found:
        kinds = ", ".join(sorted({str(document.get("kind")) for document in documents})) or "nothing"
        raise WrongUseError(f"{shown}: there is no {KIND}, only {kinds}; name a file with one")
    named = [document for document in found if name is None or _metadata(document).get("name") == name]
    if len(named) != 1:
        names = ", ".join(str(_metadata(document).get("name")) for document in found)
        advice = "name one of them" if len(found) > 1 else "name that one, or none"
        raise WrongUseError(f"{shown}: the policies there are {names}; {advice}")
    try:
        return parse_policy(named[0])
    except ConfigurationError as error:
        raise WrongUseError(f"{shown}: {error.message}") from None


def _secret(documents: Sequence[Mapping[str, Any]], namespace: str, name: str, shown: str) -> Secret:
    found = [document for document in documents if document.get("kind") == "Secret"]
    if not found:
        return environment_secret()
    for document in found:
        metadata = _metadata(document)
        if metadata.get("name") == name and metadata.get("namespace", namespace) == namespace:
            return Secret(f"Secret {name} of {shown}", _values(document, f"{shown}: Secret {name}"))
    names = ", ".join(str(_metadata(document).get("name")) for document in found)
    raise WrongUseError(
        f"{shown}: the policy names Secret {name}, and there is only {names}; add it, or leave Secrets out"
    )


def _values(secret: Mapping[str, Any], place: str) -> Mapping[str, str]:
    encoded, plain = secret.get("data") or {}, secret.get("stringData") or {}
    if not isinstance(encoded, Mapping) or not isinstance(plain, Mapping):
        raise WrongUseError(f"{place}: write keys with values under stringData")
    values: dict[str, str] = {}
    for key, value in encoded.items():
        try:
            values[key] = b64decode(str(value), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise WrongUseError(f"{place}: {key} under data is not base64; write it under stringData") from None
    return values | {key: str(value) for key, value in plain.items()}


def _metadata(document: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}
