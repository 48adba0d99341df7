"""HTTP to a service: time limits, retries, and errors in words, alike for Supabase and Prefect.

Every failed request becomes a `ServiceError`, unless the adapter that sent it knows the answer better (`HttpError`).
Keys never leave this module in a message: what a service answers is searched for them first.
"""

import json
import logging
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import cache
from typing import TypeVar

import httpx
import stamina
from stamina.instrumentation import RetryDetails

from controller.adapters import instrumentation
from controller.errors import ConfigurationError, ErrorReason, Service, ServiceError
from controller.videos import printable

TIMEOUT = httpx.Timeout(30, connect=5)
"""Seconds. Supabase ends a statement after 8 s; a bulk create on a busy Prefect server was seen to take 10 s."""

ATTEMPTS = 8
"""With waits that grow from 0.2 s to 5 s: about 15 s until a service counts as down."""

MAX_WAIT = 15.0
"""Seconds between two attempts, also where Retry-After asks for more: a scan holds one of few places."""

MAX_ANSWER_SHOWN = 300
"""Characters of a service's answer that go into a message."""

RETRIED = frozenset({429, 502, 503, 504, 520, 522, 524})
"""Statuses that pass: every request of a scan may be sent twice, because creating is idempotent."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


def log_retry(details: RetryDetails) -> None:
    """Log that a request is sent again; for `stamina.instrumentation.set_on_retry_hooks`."""
    cause = details.caused_by
    logger.debug("trying again in %.1f s: %s", details.wait_for, str(cause) or type(cause).__name__)


class HttpError(Exception):
    """An answer of 400 or above.

    Attributes:
        status: The HTTP status.
        text: The body, fit to be shown.
        retry_after: Seconds that the service asks to wait, if it does.
        body: The body as it came, to be parsed and never shown.
    """

    def __init__(self, status: int, text: str, retry_after: float | None = None, body: str = "") -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status, self.text, self.retry_after, self.body = status, text, retry_after, body

    def field(self, name: str) -> object:
        """A field of the body; `None` if it has none, or is no JSON object."""
        try:
            body = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return body.get(name) if isinstance(body, Mapping) else None


class ServiceClient:
    """Sends requests to one service: with time limits, again where that helps, and with errors in words.

    Args:
        service: Which one, for messages.
        address: The name of the Secret's key that holds the URL, for messages.
        secrets: What must never be shown.
    """

    def __init__(self, service: Service, address: str, secrets: Collection[str]) -> None:
        self._service, self._address = service, address
        self._secrets = sorted((secret for secret in secrets if secret), key=len, reverse=True)

    def http_client(
        self, *, base_url: str = "", headers: Mapping[str, str] | None = None, drop: str | None = None
    ) -> httpx.AsyncClient:
        """Make a client whose failed answers raise `HttpError`.

        Args:
            base_url: Prepended to the path of each request.
            headers: Sent with each request.
            drop: A header that a library adds and that must not be sent.
        """

        async def leave_out(request: httpx.Request) -> None:
            if drop is not None:
                request.headers.pop(drop, None)

        return httpx.AsyncClient(
            base_url=base_url,
            headers=headers,
            timeout=TIMEOUT,
            verify=_tls(),
            event_hooks={"request": [leave_out, self._sending], "response": [self._raise_for_status, self._answered]},
        )

    async def _sending(self, request: httpx.Request) -> None:
        instrumentation.notify(instrumentation.Moment.BEFORE, self._step(request))

    async def _answered(self, response: httpx.Response) -> None:
        instrumentation.notify(instrumentation.Moment.AFTER, self._step(response.request))

    def _step(self, request: httpx.Request) -> str:
        return f"{self._service} {request.method} {request.url.path}"

    async def _raise_for_status(self, response: httpx.Response) -> None:
        if response.is_redirect:
            raise HttpError(response.status_code, "a redirect; write the address it leads to")
        await response.aread()
        if not response.is_success:
            raise HttpError(response.status_code, self.clean(response.text), _retry_after(response), response.text)
        if not response.content:
            raise self.unexpected("nothing")

    async def send(self, request: Callable[[], Awaitable[T]]) -> T:
        """Run a request, again while it fails in a way that passes.

        Raises:
            HttpError: The service answered and refused; for the adapter to tell what that means.
            ServiceError: No answer, or none that could be read.
        """
        try:
            async for attempt in stamina.retry_context(
                on=_is_transient, attempts=ATTEMPTS, timeout=60, wait_initial=0.2, wait_jitter=0.2, wait_max=5
            ):
                with attempt:
                    return await request()
        except httpx.TimeoutException as error:
            raise self._failed(ErrorReason.TIMED_OUT, _name(error) or "did not answer in time") from None
        except httpx.DecodingError as error:
            raise self.unexpected(str(error)) from None
        except httpx.TransportError as error:
            problem = self.clean(str(error)) or type(error).__name__
            raise self._failed(ErrorReason.UNREACHABLE, f"cannot be reached: {problem}") from None
        raise AssertionError("retry_context returns or raises")

    def refused(self, error: HttpError) -> ServiceError:
        """What an answer of 400 or above means where the adapter knows nothing better."""
        reason = _REASONS.get(error.status)
        if reason is None:
            reason = ErrorReason.SERVER_ERROR if error.status >= 500 else ErrorReason.UNEXPECTED_ANSWER
        return self._failed(reason, f"answered {error.status}: {error.text or 'nothing'}")

    def unexpected(self, answer: str) -> ServiceError:
        """An answer that is none of this service."""
        what = f"answered what it never does: {self.clean(answer)}"
        return self._failed(ErrorReason.UNEXPECTED_ANSWER, what, "does {address} lead there?")

    def _failed(self, reason: ErrorReason, what: str, solution: str = "") -> ServiceError:
        solution = (solution or _SOLUTIONS.get(reason, "")).format(address=self._address)
        return ServiceError(f"{self._service} {what}", solution, reason=reason, service=self._service)

    def clean(self, text: str) -> str:
        """A text from outside, fit to be shown: one line, cut, without the keys."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        line = printable(" ".join(text.split()))
        return line if len(line) <= MAX_ANSWER_SHOWN else line[:MAX_ANSWER_SHOWN] + "…"


_REASONS = {
    401: ErrorReason.UNAUTHORIZED,
    403: ErrorReason.FORBIDDEN,
    404: ErrorReason.NOT_FOUND,
    408: ErrorReason.TIMED_OUT,
    429: ErrorReason.RATE_LIMITED,
}
_SOLUTIONS = {
    ErrorReason.UNREACHABLE: "see whether it runs, and whether {address} leads there",
    ErrorReason.TIMED_OUT: "see whether it runs, and whether {address} leads there",
    ErrorReason.UNAUTHORIZED: "check the key beside {address}",
    ErrorReason.FORBIDDEN: "the key beside {address} has no right to this",
    ErrorReason.NOT_FOUND: "check {address}",
    ErrorReason.RATE_LIMITED: "try again in a minute",
    ErrorReason.SERVER_ERROR: "its log tells more",
}
"""What to do about a failure where the adapter knows nothing better."""


def _is_transient(error: Exception) -> bool | float:
    if isinstance(error, HttpError):
        if error.status not in RETRIED:
            return False
        return min(error.retry_after, MAX_WAIT) if error.retry_after is not None else True
    # A read time-out is not repeated: the service was given its time, and others wait for the scan's place.
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.ReadTimeout | httpx.ConnectTimeout)


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):  # absent, or a date, which nobody sends with these statuses
        return None


def _name(error: httpx.TimeoutException) -> str:
    step = {httpx.ConnectTimeout: "could not be connected to", httpx.ReadTimeout: "did not answer"}.get(type(error))
    seconds = TIMEOUT.connect if isinstance(error, httpx.ConnectTimeout) else TIMEOUT.read
    return f"{step} within {seconds:g} s" if step else ""


@cache
def _tls() -> ssl.SSLContext:
    """One TLS context for the process: reading the certificates costs more than a whole idle scan."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # which ssl.SSLError is, too
        raise ConfigurationError(
            f"the certificates that this process is to trust cannot be read ({error.strerror or error})",
            "write into SSL_CERT_FILE or SSL_CERT_DIR of its environment where they are, or unset both",
            reason=ErrorReason.INVALID_CERTIFICATES,
        ) from None
