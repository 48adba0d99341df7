"""The errors of a scan, each with how it is to be handled and a reason that a user can look up.

What ends a scan is a `ScanError`:

- `ConfigurationError`: the same scan will fail again until somebody edits the policy, its Secret or a service. The
  policy is `Stalled`.
- `ServiceError`, or a plain `ScanError` where no service is to blame: it failed this time. The next scan comes on
  schedule.

A failure of one video is neither: it is a `Failure` in the scan's outcome.
"""

from enum import StrEnum


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
    UNEXPECTED_ANSWER = "UnexpectedAnswer"
    """An answer that is no answer of this service: not JSON, or of another shape."""
    INTERNAL_ERROR = "InternalError"
    """A defect of the controller; its log has the traceback."""


class ScanError(Exception):
    """What ends a scan.

    Args:
        message: One or two sentences for the user, which name what to fix and hold no key.
        reason: The reason for conditions and Events.
        service: The service that failed or that the configuration is for; `None` if it is neither.
    """

    def __init__(self, message: str, *, reason: ErrorReason, service: Service | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.service = service


class ConfigurationError(ScanError):
    """Somebody has to edit something first: the policy is Stalled."""


class ServiceError(ScanError):
    """A service failed this time: the next scan comes on schedule."""
