"""What Supabase's errors mean for the owner of a policy."""

from controller.adapters.http import HttpError, ServiceClient
from controller.api.policy import Supabase
from controller.errors import ConfigurationError, ErrorReason, ScanError, Service, ServiceError

NO_VALUE_OF_THE_TYPE = frozenset({"22P02", "22003", "22007", "22008"})
"""PostgreSQL's codes for a text that cannot be a value of the column's type: its form, a number or a time too large."""

NOT_COMPARABLE = frozenset({"42883", "42804", "42846", "42725"})
"""PostgreSQL's codes for two values between which there is no such comparison."""


def explain(error: HttpError, service: ServiceClient, supabase: Supabase) -> ScanError:
    """What an error means for the owner of the policy.

    The codes are PostgreSQL's (https://www.postgresql.org/docs/current/errcodes-appendix.html) and PostgREST's
    (https://docs.postgrest.org/en/stable/references/errors.html).
    """
    at = f"{supabase.schema_name}.{supabase.table}"
    said = service.clean(message(error))
    match _code(error):
        case "42P01" | "PGRST205":
            return _configuration(
                ErrorReason.TABLE_NOT_FOUND,
                f"spec.supabase.table: Supabase has no table {at}",
                "write one that its API serves",
            )
        case "42703":
            return _configuration(
                ErrorReason.COLUMN_NOT_FOUND,
                f"spec.supabase.columns, or a placeholder: table {at} lacks a column ({said})",
            )
        case "PGRST106":
            return _configuration(
                ErrorReason.SCHEMA_NOT_EXPOSED,
                f"spec.supabase.schema: Supabase does not serve {supabase.schema_name!r} ({said})",
            )
        case code if code in NO_VALUE_OF_THE_TYPE or code in NOT_COMPARABLE:
            return _configuration(
                ErrorReason.INVALID_FILTER,
                f"spec.stuck.statuses or spec.supabase.columns: table {at} refuses the comparison ({said})",
            )
        case "42501":
            return ServiceError(
                f"Supabase may not read table {at} ({said})",
                "grant its role, service_role, SELECT on it",
                reason=ErrorReason.FORBIDDEN,
                service=Service.SUPABASE,
            )
        case "57014":
            return ServiceError(
                f"Supabase took too long to find the stuck videos ({said})",
                f"an index of {at} on ({supabase.columns.status}, {supabase.columns.created_at}) helps",
                reason=ErrorReason.TIMED_OUT,
                service=Service.SUPABASE,
            )
        case _:
            return service.refused(error)


def is_no_value(error: HttpError) -> bool:
    """Whether a value that was asked for cannot be one of its column, such as a word where ids are UUIDs."""
    return _code(error) in NO_VALUE_OF_THE_TYPE


def _code(error: HttpError) -> str:
    return str(error.field("code") or "")


def message(error: HttpError) -> str:
    """What Supabase said, as it said it."""
    return str(error.field("message") or error.text)


def _configuration(reason: ErrorReason, problem: str, solution: str = "") -> ConfigurationError:
    return ConfigurationError(problem, solution, reason=reason, service=Service.SUPABASE)
