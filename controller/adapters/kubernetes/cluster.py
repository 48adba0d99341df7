"""The Kubernetes API: policies, their status and their Secrets.

Every call has a time limit and is tried again while the API server is away for a moment. Status is written with the
resourceVersion that it was computed from, so that two writers cannot undo each other.
"""

import asyncio
import binascii
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import stamina
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from controller.adapters.credentials import Secret
from controller.adapters.instrumentation import step
from controller.adapters.kubernetes.config import LoadConfiguration
from controller.adapters.kubernetes.errors import ClusterError
from controller.api.names import FIELD_MANAGER, GROUP, PLURAL, VERSION
from controller.errors import ConfigurationError, ErrorReason, ScanError

TIMEOUT = 15.0
"""Seconds for one call."""

PATIENCE = 60.0
"""Seconds for which a call is repeated while the API server does not answer: longer than it takes to restart."""

PAGE = 100
"""Policies in one answer: what is held at once of a list."""

CONFLICTS = 10
"""How often a status is computed anew because somebody else wrote the object in between."""

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PolicyKey:
    """Which policy; `uid` tells it from one of the same name that came after it."""

    namespace: str
    name: str
    uid: str


class Cluster:
    """A client for the API server; made by `connect`."""

    def __init__(self, configuration: client.Configuration, load: LoadConfiguration, patience: float) -> None:
        self._configuration, self._load, self._patience = configuration, load, patience
        self._api = client.ApiClient(configuration)

    @classmethod
    async def connect(cls, load: LoadConfiguration, *, patience: float = PATIENCE) -> Self:
        """Make a client; sends nothing yet.

        Args:
            load: Reads the configuration; called again when the API server no longer takes the token.
            patience: Seconds for which a call is repeated while the API server does not answer.
        """
        return cls(await load(), load, patience)

    @property
    def address(self) -> str:
        """Where the API server is."""
        return self._configuration.host

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()  # type: ignore[no-untyped-call]

    async def policies(self, namespace: str | None) -> AsyncIterator[Manifest]:
        """All policies of a namespace, or of all namespaces; raises `ApiException` as it comes."""
        token = ""
        while True:
            page = await self._once("GET", policy_path(namespace), limit=PAGE, **{"continue": token})
            for manifest in page["items"]:
                yield manifest
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def request(self, method: str, path: str, body: Any = None, **query: object) -> Manifest:
        """Send one request, again while the API server is away for a moment, and read its answer.

        Args:
            method: PATCH sends a merge patch.
            path: Such as `/api/v1/namespaces/default/secrets/name`; `api_path` makes one.
            body: The object to send.
            query: Parameters.

        Raises:
            ApiException: The API server refused.
        """
        return await self._request_with_retry(method, path, body, **query)

    async def missing_rights(self, namespace: str | None) -> list[str]:
        """What the controller may not do with policies in a namespace, or in all of them: such as `update status`."""
        wanted = [("watch", ""), ("get", ""), ("patch", ""), ("update", "status")]
        return [
            f"{verb} {subresource}".rstrip()
            for verb, subresource in wanted
            if not await self._may(verb, subresource, namespace)
        ]

    async def _may(self, verb: str, subresource: str, namespace: str | None) -> bool:
        attributes = {"group": GROUP, "resource": PLURAL, "subresource": subresource, "verb": verb}
        attributes |= {"namespace": namespace} if namespace is not None else {}
        review = await self._once("POST", _RIGHTS, {"spec": {"resourceAttributes": attributes}})
        return bool(review["status"]["allowed"])

    async def policy(self, namespace: str, name: str) -> Manifest | None:
        """The policy as it is now; `None` if it is gone."""
        try:
            return await self._request_with_retry("GET", policy_path(namespace, name))
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    async def update_status(self, key: PolicyKey, compute: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> bool:
        """Write a status that is computed from the current one.

        Args:
            key: The policy; if it is gone, or another one has its name, nothing is written.
            compute: From the status as it is to the status as it should be; may be called more than once.

        Returns:
            Whether something was written; an equal status is not.
        """
        sent: Mapping[str, Any] | None = None
        for _ in range(CONFLICTS):
            manifest = await self.policy(key.namespace, key.name)
            if manifest is None or manifest["metadata"]["uid"] != key.uid:
                return False
            before = manifest.get("status")
            if sent is not None and before == sent:
                return True  # it was written, only the answer was lost; computed again it would count twice
            sent = dict(compute(before or {}))
            if sent == before:
                return False
            written = await self._replace_status(key, {**manifest, "status": sent})
            if written is not None:
                return written
        raise ClusterError(f"the status of {key.namespace}/{key.name} could not be written: it changes all the time")

    async def _replace_status(self, key: PolicyKey, manifest: Manifest) -> bool | None:
        """Write a status; tells whether it is written, or the policy gone (`False`) or somebody else's (`None`)."""
        try:
            await self._request_with_retry(
                "PUT", policy_path(key.namespace, key.name, "status"), manifest, fieldManager=FIELD_MANAGER
            )
        except ApiException as error:
            if error.status not in {404, 409}:
                raise
            return False if error.status == 404 else None
        return True

    async def secret(self, namespace: str, name: str) -> Secret:
        """A Secret; values that are no text are left out.

        Raises:
            ConfigurationError: It does not exist, or the controller may not read it.
            ScanError: The API server does not answer.
        """
        where = f"Secret {namespace}/{name}"
        try:
            secret = await self._request_with_retry("GET", _core(namespace, "secrets", name))
        except ApiException as error:
            if error.status == 404:
                raise ConfigurationError(
                    f"{where} does not exist; create it with SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY and "
                    "PREFECT_API_URL, or name another one in spec.supabase.secretRef and spec.prefect.secretRef",
                    reason=ErrorReason.SECRET_NOT_FOUND,
                ) from None
            if error.status in {401, 403}:
                raise ConfigurationError(
                    f"{where} may not be read by the controller; allow its service account to get it",
                    reason=ErrorReason.SECRET_FORBIDDEN,
                ) from None
            raise ScanError(f"{where} could not be read: {explain(error)}", reason=ErrorReason.UNREACHABLE) from None
        except TRANSPORT_ERRORS as error:
            raise ScanError(f"{where} could not be read: {explain(error)}", reason=ErrorReason.UNREACHABLE) from None
        texts = {key: _decoded(value) for key, value in (secret.get("data") or {}).items()}
        return Secret(where, {key: text for key, text in texts.items() if text is not None})

    async def remove_finalizer(self, manifest: Manifest, finalizer: str) -> None:
        """Take a finalizer off a policy, if it has it, and let everything else be."""
        metadata = manifest["metadata"]
        finalizers = metadata.get("finalizers", [])
        if finalizer not in finalizers:
            return
        remaining = [other for other in finalizers if other != finalizer]
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": remaining}}
        try:
            await self._once("PATCH", policy_path(metadata["namespace"], metadata["name"]), patch)
        except ApiException as error:
            if error.status not in {404, 409}:
                raise

    async def post_event(self, namespace: str, name: str, body: Any) -> None:
        """Create an Event; if it exists, count it once more."""
        try:
            await self._once("POST", _core(namespace, "events"), body)
        except ApiException as error:
            if error.status != 409:
                raise
            known = await self._once("GET", _core(namespace, "events", name))
            again = {"count": known.get("count", 1) + 1, "lastTimestamp": body["lastTimestamp"]}
            await self._once("PATCH", _core(namespace, "events", name), again)

    async def _request_with_retry(self, method: str, path: str, body: Any = None, **query: object) -> Manifest:
        async for attempt in stamina.retry_context(on=_is_transient, attempts=None, timeout=self._patience, wait_max=5):
            with attempt:
                return await self._once(method, path, body, **query)
        raise AssertionError("retry_context returns or raises")

    async def _once(self, method: str, path: str, body: Any = None, **query: object) -> Manifest:
        try:
            return await self._send(method, path, body, query)
        except ApiException as error:
            if error.status != 401:
                raise
        # Tokens run out: those of cloud providers after minutes, those of Pods after an hour.
        self._configuration.api_key = (await self._load()).api_key
        return await self._send(method, path, body, query)

    async def _send(self, method: str, path: str, body: Any, query: Mapping[str, object]) -> Manifest:
        """Send one request and read its answer.

        The client has classes with a method for each request, but to import the one for Secrets and Events takes 24 MB.
        """
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        async with asyncio.timeout(TIMEOUT):
            request = await self._api.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json", "Content-Type": kind},
                body=body,
                auth_settings=["BearerToken"],
            )
            with step(f"Kubernetes {method} {path}"):
                response = await self._api.call_api(*request, _request_timeout=TIMEOUT)
                answer = await response.read()  # type: ignore[no-untyped-call]
        if not 200 <= response.status <= 299:
            raise ApiException(http_resp=response)
        return _parsed(answer)


def policy_path(namespace: str | None, *names: str) -> str:
    """Where the API server has the policies of a namespace, or one of them."""
    return api_path(f"apis/{GROUP}/{VERSION}", namespace, PLURAL, *names)


def _core(namespace: str, *names: str) -> str:
    return api_path("api/v1", namespace, *names)


def api_path(api: str, namespace: str | None, *names: str) -> str:
    """A path of the API; `api` is such as `apis/apps/v1`."""
    within = () if namespace is None else ("namespaces", namespace)
    return "/".join(["", api, *(quote(name, safe="") for name in (*within, *names))])


_RIGHTS = api_path("apis/authorization.k8s.io/v1", None, "selfsubjectaccessreviews")


def _parsed(answer: bytes) -> Manifest:
    """See to it that it is the API server that answers: whatever stands in front of it answers with a page."""
    try:
        parsed = json.loads(answer)
    except ValueError as error:
        raise aiohttp.ClientPayloadError(f"the answer is no JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise aiohttp.ClientPayloadError("the answer is no JSON object")
    return parsed


TRANSPORT_ERRORS = (aiohttp.ClientError, OSError, TimeoutError)
"""What a call raises when the API server cannot be talked to."""


def _is_transient(error: Exception) -> bool:
    if isinstance(error, ApiException):
        return bool(error.status == 429 or error.status >= 500)
    return isinstance(error, TRANSPORT_ERRORS)


def explain(error: Exception) -> str:
    """An error of a call in one line, with what the API server said if it said something."""
    if isinstance(error, ApiException):
        return f"the API server answered {error.status} {error.reason}"
    if isinstance(error, TimeoutError):
        return f"the API server did not answer within {TIMEOUT:g} s"
    return f"the API server cannot be reached ({error})"


def _decoded(value: str) -> str | None:
    try:
        return b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
