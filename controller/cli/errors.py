"""What the command line says when something is wrong, and the exit code that goes with it.

0: nothing failed. 1: something did. 2: wrong use, which includes settings that are missing or cannot be right.
"""

import click

from controller.errors import ErrorReason, ScanError, Service

ADVICE = {
    ErrorReason.UNREACHABLE: "; see whether it runs, and whether {address} leads there",
    ErrorReason.TIMED_OUT: "; see whether it runs, and whether {address} leads there",
    ErrorReason.SERVER_ERROR: "; its log tells more",
    ErrorReason.RATE_LIMITED: "; try again in a minute",
}
"""What to do about a service that is not well."""

ADDRESSES = {Service.SUPABASE: "SUPABASE_URL", Service.PREFECT: "PREFECT_API_URL"}


class Failed(click.ClickException):
    """Something did not work; the message says what, and what to do."""

    exit_code = 1


class WrongUseError(click.ClickException):
    """Something has to be written differently; the message says what to write."""

    exit_code = 2


def in_words(error: Exception) -> click.ClickException:
    """An error of any layer as one that the command line shows."""
    if isinstance(error, ScanError):
        return Failed(error.message + _advice(error))
    from kubernetes.aio.client.exceptions import ApiException

    from controller.adapters.kubernetes.cluster import TRANSPORT_ERRORS, explain
    from controller.adapters.kubernetes.errors import ClusterError

    if isinstance(error, ClusterError):
        return Failed(str(error))
    if isinstance(error, TRANSPORT_ERRORS):
        return Failed(f"{explain(error)}; see whether it runs and the kubeconfig leads there (--kubeconfig, --context)")
    if isinstance(error, ApiException):
        todo = {401: "log in again, or choose another --context", 403: "ask for the right to do this"}
        return Failed(f"{explain(error)}; {todo.get(error.status, 'its log tells more')}")
    return Failed(f"this is a defect of the program ({type(error).__name__}); -v shows where it happened")


def _advice(error: ScanError) -> str:
    """What to do, where the error itself does not tell."""
    if error.service is None or ";" in error.message:
        return ""
    return ADVICE.get(error.reason, "").format(address=ADDRESSES[error.service])
