"""One request to the API server and its answer. Knows no policy.

Every request has a time limit and is sent again while the API server is away for a moment. Whatever goes wrong is a
`ClusterError`: no exception of the Kubernetes client, of aiohttp or of the system leaves this module.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import stamina
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from controller.adapters.instrumentation import step
from controller.adapters.kubernetes.config import NAME_ONE, UNUSABLE, LoadConfiguration
from controller.api.manifest import Manifest
from controller.errors import ClusterError, NoClusterError

TIMEOUT = 15.0
"""Seconds for one request."""

PATIENCE = 60.0
"""Seconds for which a request is repeated while the API server does not answer: longer than it takes to restart."""

PAGE = 100
"""Objects in one answer: what is held at once of a list."""


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
            patience: Seconds for which a request is repeated while the API server does not answer.

        Raises:
            NoClusterError: Nothing leads to a cluster.
        """
        configuration = await load()
        try:
            return cls(configuration, load, patience)
        except UNUSABLE as error:  # such as a file of certificates that is missing
            raise NoClusterError(f"no cluster: its configuration cannot be used ({error})", NAME_ONE) from None

    @property
    def address(self) -> str:
        """Where the API server is."""
        return self._configuration.host

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()  # type: ignore[no-untyped-call]

    async def request(self, method: str, path: str, body: Any = None, **query: object) -> Manifest:
        """Send a request, again while the API server is away for a moment, and read its answer.

        Args:
            method: PATCH sends a merge patch.
            path: Such as `/api/v1/namespaces/default/secrets/name`; `api_path` makes one.
            body: The object to send.
            query: Parameters.

        Raises:
            ClusterError: The API server refused (then it has a `status`), or did not answer for `patience`.
        """
        async for attempt in stamina.retry_context(on=_is_transient, attempts=None, timeout=self._patience, wait_max=5):
            with attempt:
                return await self.request_once(method, path, body, **query)
        raise AssertionError("retry_context returns or raises")

    async def request_once(self, method: str, path: str, body: Any = None, **query: object) -> Manifest:
        """Send a request whose failure is not worth waiting for; arguments and errors as for `request`."""
        try:
            return await self._send(method, path, body, query)
        except ClusterError as error:
            if error.status != 401:
                raise
        # Tokens run out: those of cloud providers after minutes, those of Pods after an hour.
        self._configuration.api_key = (await self._load()).api_key
        return await self._send(method, path, body, query)

    async def list(self, path: str) -> AsyncIterator[Manifest]:
        """All objects that a path has, a page at a time; errors as for `request_once`."""
        token = ""
        while True:
            page = await self.request_once("GET", path, limit=PAGE, **{"continue": token})
            for manifest in page["items"]:
                yield manifest
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def _send(self, method: str, path: str, body: Any, query: Mapping[str, object]) -> Manifest:
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._exchange(method, path, body, query)
        except ApiException as error:
            raise _refusal(error) from None
        except TimeoutError:
            raise ClusterError(f"the API server did not answer within {TIMEOUT:g} s", SEE_WHETHER_IT_RUNS) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ClusterError(f"the API server cannot be reached ({error})", SEE_WHETHER_IT_RUNS) from None

    async def _exchange(self, method: str, path: str, body: Any, query: Mapping[str, object]) -> Manifest:
        """Send one request and read its answer.

        The client has classes with a method for each request, but to import the one for Secrets and Events takes 24 MB.
        """
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
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


SEE_WHETHER_IT_RUNS = "see whether it runs and the kubeconfig leads there (--kubeconfig, --context)"

_SOLUTIONS = {401: "log in again, or choose another --context", 403: "ask for the right to do this"}


def _refusal(error: ApiException) -> ClusterError:
    problem = f"the API server answered {error.status} {error.reason}"
    return ClusterError(problem, _SOLUTIONS.get(error.status, "its log tells more"), status=error.status)


def _is_transient(error: Exception) -> bool:
    if not isinstance(error, ClusterError) or isinstance(error, NoClusterError):
        return False
    return error.status is None or error.status == 429 or error.status >= 500


def _parsed(answer: bytes) -> Manifest:
    """Make sure that it is the API server that answers: whatever stands in front of it answers with a page."""
    try:
        parsed = json.loads(answer)
    except ValueError as error:
        raise aiohttp.ClientPayloadError(f"the answer is no JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise aiohttp.ClientPayloadError("the answer is no JSON object")
    return parsed


def api_path(api: str, namespace: str | None, *names: str) -> str:
    """A path of the API; `api` is such as `apis/apps/v1`."""
    within = () if namespace is None else ("namespaces", namespace)
    return "/".join(["", api, *(quote(name, safe="") for name in (*within, *names))])


def core_path(namespace: str, *names: str) -> str:
    """A path of the core API in a namespace, such as that of a Secret."""
    return api_path("api/v1", namespace, *names)
