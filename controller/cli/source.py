"""Where a command gets its settings: a policy in a cluster, manifests in files, or nothing but the environment."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import click

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
from controller.api.manifest import Manifest, Policy, parse_policy
from controller.api.names import API_VERSION, KIND
from controller.api.status import PolicyStatus
from controller.cli.errors import WrongUseError, in_words
from controller.cli.manifests import Manifests
from controller.cli.options import Where
from controller.errors import ConfigurationError, InvalidSpecError, NoClusterError, ScanError
from controller.outcome import PreparedScan
from controller.ports import Clients

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
        description: Where it is from, for people.
        arguments: What leads to it again on the command line.
        status: What the controller last wrote; empty without a cluster.
        hint: Where to write what the policy should say, if that is not obvious.
        manifest: The policy as its file has it; `None` if it is from no file.
    """

    policy: Policy
    services: LiveServices
    description: str
    arguments: str = ""
    status: PolicyStatus = field(default_factory=PolicyStatus)
    hint: str = ""
    manifest: Manifest | None = None

    def in_words(self, error: ScanError) -> click.ClickException:
        """What ended a scan, with where the settings can be put right."""
        return in_words(error, self.hint if isinstance(error, ConfigurationError) else "")

    def checked(self, prepared: PreparedScan) -> PreparedScan:
        """A scan that came as far as its decisions; raises `click.ClickException` for any other one."""
        if prepared.error is not None:
            raise self.in_words(prepared.error)
        return prepared

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[Clients]:
        """The services, for as long as the block takes.

        Args:
            policy: The policy, perhaps with another age from which on videos are stuck.

        Raises:
            click.ClickException: The Secrets cannot be used, or a service does not answer within the block.
        """
        try:
            async with self.services.connect(policy) as clients:
                yield clients
        except ScanError as error:
            raise self.in_words(error) from None


@asynccontextmanager
async def open_source(where: Where) -> AsyncIterator[Source]:
    """Find the settings.

    Raises:
        WrongUseError: They are missing, or cannot be right.
        ClusterError: The cluster cannot be used.
    """
    if where.files:
        yield from_files(where)
    elif not needs_cluster(where):
        yield from_environment()
    else:
        from controller.adapters.kubernetes.secrets import ClusterSecrets
        from controller.cli.policies import open_policy

        try:
            async with open_policy(where) as found:
                yield Source(
                    found.policy,
                    LiveServices(ClusterSecrets(found.cluster)),
                    f"policy {found.key} in the cluster at {found.cluster.address}",
                    f" {found.key.name} -n {found.key.namespace}{where.cluster_arguments}",
                    found.status,
                )
        except NoClusterError as error:
            raise WrongUseError(f"{error}; or a policy's file with -f FILE; or set {', '.join(NEEDED)}") from None


def needs_cluster(where: Where) -> bool:
    """Whether the settings are neither in files nor in the environment."""
    variables = any(os.environ.get(name) for name in NEEDED[:2])  # noqa: TID251
    return not where.files and (where.names_a_cluster or not variables)


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
    except InvalidSpecError as error:
        raise WrongUseError(f"{SCHEMA}: {' and '.join(error.advice.values())}") from None
    table = f"{policy.spec.supabase.schema_name}.videos"
    description = f"the environment, and defaults: table {table}, deployment {DEPLOYMENT}"
    hint = f" (without a policy, {SCHEMA} names the schema; a policy's file, with -f, can say the rest)"
    return Source(policy, _constant({FROM_ENVIRONMENT: secret}), description, hint=hint)


def _check(supabase: Secret, prefect: Secret) -> None:
    """See at once to what would end every scan, all of it in one message."""
    missing = [name for name in NEEDED if not (prefect if name == NEEDED[2] else supabase).values.get(name, "").strip()]
    if missing and supabase is prefect:
        raise WrongUseError(
            f"{supabase.place} lacks {' and '.join(missing)}", f"set {'it' if len(missing) == 1 else 'them'}"
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


def from_files(where: Where) -> Source:
    """The policy that the files hold, with the Secret that they hold or the environment.

    Raises:
        WrongUseError: There is no such policy or Secret, or it cannot be used.
    """
    manifests = Manifests.read(where.files)
    manifest = manifests.policy(where.name)
    try:
        policy = parse_policy(manifest)
    except ConfigurationError as error:
        raise WrongUseError(f"{manifests.place}: {error.message}") from None
    spec = policy.spec
    names = dict.fromkeys([spec.supabase.secret_ref.name, spec.prefect.secret_ref.name])
    secrets = {name: manifests.secret(policy.namespace, name) or environment_secret() for name in names}
    _check(secrets[spec.supabase.secret_ref.name], secrets[spec.prefect.secret_ref.name])
    places = " and ".join(dict.fromkeys(secret.place for secret in secrets.values()))
    arguments = "".join(f" -f {file}" for file in where.files) + (f" {where.name}" if where.name else "")
    description = f"policy {policy.name} of {manifests.place}, with {places}"
    return Source(policy, _constant(secrets), description, arguments, manifest=manifest)
