"""Every error that a person is told of, with how it is to be handled.

What ends a scan is a `ScanError`:

- `ConfigurationError`: the same scan will fail again until somebody edits the policy, its Secret or a service. The
  policy is `Stalled`.
- `ServiceError`, or a plain `ScanError` where no service is to blame: it failed this time. The next scan comes on
  schedule.

What keeps the controller or a person from a cluster is a `ClusterError`. A failure of one video is none of these: it is
a `Failure` in the scan's outcome.

An error is classified where it arises: whoever talks to something turns its exceptions into one of these, and nobody
else catches `OSError` or `TimeoutError`.
"""

from collections.abc import Mapping
from enum import StrEnum

from typing_extensions import override


class Service(StrEnum):
    """The two services that a scan talks to; the value is the name that users know."""

    SUPABASE = "Supabase"
    PREFECT = "Prefect"


class ErrorReason(StrEnum):
    """Why a scan failed, or why a policy cannot be scanned: the `reason` of a condition and of an Event."""

    INVALID_SPEC = "InvalidSpec"
    """The spec does not fit the schema (only seen where no API server checked it first)."""
    INVALID_SCHEDULE = "InvalidSchedule"
    """`spec.schedule` is no cron line that ever fires, or `spec.timeZone` no known zone."""
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, not a secret
    """A Secret that the policy names does not exist in its namespace."""
    SECRET_FORBIDDEN = "SecretForbidden"  # noqa: S105 - a reason, not a secret
    """The controller may not read the Secret: its Role lacks `get` on it."""
    SECRET_KEY_MISSING = "SecretKeyMissing"  # noqa: S105 - a reason, not a secret
    """The Secret lacks a key, or the key is empty or no text."""
    INVALID_URL = "InvalidURL"
    """The URL in the Secret cannot be one."""
    INVALID_KEY = "InvalidKey"
    """The key in the Secret cannot be sent (line breaks, characters that no header carries)."""
    SCHEMA_NOT_EXPOSED = "SchemaNotExposed"
    """Supabase does not serve the schema `spec.supabase.schema`."""
    TABLE_NOT_FOUND = "TableNotFound"
    """Supabase has no table `spec.supabase.table`."""
    COLUMN_NOT_FOUND = "ColumnNotFound"
    """The table lacks a column that the policy names."""
    INVALID_FILTER = "InvalidFilter"
    """The database refuses to compare a column with what the policy says, such as a status that its enum lacks."""
    BUCKET_NOT_FOUND = "BucketNotFound"
    """Supabase Storage has no bucket `spec.upload.bucket`, or none that the key sees."""
    DEPLOYMENT_NOT_FOUND = "DeploymentNotFound"
    """Prefect has no deployment `spec.prefect.deployment`."""
    UNREACHABLE = "Unreachable"
    """No connection, or it broke before the answer was complete."""
    TIMED_OUT = "TimedOut"
    """The service, or a statement in its database, took too long."""
    UNAUTHORIZED = "Unauthorized"
    """401: the service does not know the key."""
    FORBIDDEN = "Forbidden"
    """403: the service knows the key and refuses."""
    NOT_FOUND = "NotFound"
    """404 for the service's own address: most likely a wrong URL."""
    RATE_LIMITED = "RateLimited"
    """429, still after the retries."""
    SERVER_ERROR = "ServerError"
    """5xx, still after the retries."""
    INVALID_CERTIFICATES = "InvalidCertificates"
    """The certificates that `SSL_CERT_FILE` or `SSL_CERT_DIR` names in the environment cannot be used."""
    UNEXPECTED_ANSWER = "UnexpectedAnswer"
    """An answer that is no answer of this service: not JSON, or of another shape."""
    INTERNAL_ERROR = "InternalError"
    """A defect of the controller; its log has the traceback."""


class RecoveryError(Exception):
    """Whatever a person has to be told: what is wrong and, where that does not tell it already, what to do about it.

    Args:
        problem: What is wrong, in one sentence that holds no key.
        solution: What to do about it; empty if nobody can say, or if the problem says it.
    """

    def __init__(self, problem: str, solution: str = "") -> None:
        super().__init__(problem, solution)
        self.problem, self.solution = problem, solution

    @property
    def message(self) -> str:
        """Both in one line."""
        return f"{self.problem}; {self.solution}" if self.solution else self.problem

    @override
    def __str__(self) -> str:
        return self.message


class ScanError(RecoveryError):
    """What ends a scan.

    Args:
        problem: See `RecoveryError`.
        solution: See `RecoveryError`.
        reason: The reason for conditions and Events.
        service: The service that failed or that the configuration is for; `None` if it is neither.
    """

    def __init__(
        self, problem: str, solution: str = "", *, reason: ErrorReason, service: Service | None = None
    ) -> None:
        super().__init__(problem, solution)
        self.reason = reason
        self.service = service


class ConfigurationError(ScanError):
    """Somebody has to edit something first: the policy is Stalled."""


class InvalidSpecError(ConfigurationError):
    """A manifest is no valid policy.

    Args:
        advice: What to write, by the path of the field that is wrong, such as `spec.stuck.age`.
        more: How many other fields are wrong.
    """

    def __init__(self, advice: Mapping[str, str], more: int = 0) -> None:
        lines = "\n".join(f"{path}: {text}" for path, text in advice.items())
        super().__init__(f"{lines} (and {more} more)" if more else lines, reason=ErrorReason.INVALID_SPEC)
        self.advice = advice


class ServiceError(ScanError):
    """A service failed this time: the next scan comes on schedule."""


class ClusterError(RecoveryError):
    """The API server cannot be used, or refused a request.

    Args:
        problem: See `RecoveryError`.
        solution: See `RecoveryError`.
        status: The HTTP status with which the API server refused; `None` if it was not that.
    """

    def __init__(self, problem: str, solution: str = "", *, status: int | None = None) -> None:
        super().__init__(problem, solution)
        self.status = status


class NoClusterError(ClusterError):
    """Nothing leads to a cluster: no service account, no usable kubeconfig."""
