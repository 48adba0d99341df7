"""What the person who runs the controller can set, in one place; the command line fills it."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

TICK = timedelta(seconds=10)
"""How often each policy's clock is looked at. Cron lines have minutes; requests and edits do not wait for a tick."""

RECHECK = timedelta(seconds=30)
"""How often a Stalled policy is checked again, so that a Secret that was put right is seen without an edit."""

LONGEST_BACK_OFF = timedelta(minutes=5)
"""The longest wait after a reconcile that failed for want of the API server; the first one is a tick."""

GRACE = timedelta(seconds=90)
"""How long scans in flight get to finish their batch and write their status when the controller stops."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one controller process.

    Attributes:
        namespaces: The namespaces to watch; none means all.
        kubeconfig: A kubeconfig file; `None` for the service account, `$KUBECONFIG` or `~/.kube/config`.
        context: A context of the kubeconfig; `None` for its current one.
        max_concurrent_scans: How many scans may run at once, each of another policy.
    """

    namespaces: tuple[str, ...] = ()
    kubeconfig: Path | None = None
    context: str | None = None
    max_concurrent_scans: int = 4
