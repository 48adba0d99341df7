"""How the controller logs: a line a record, as text or as JSON, on standard error.

The same with and without a cluster, and so without kopf's own set-up, which would load kopf and the Kubernetes client.
"""

import logging

import stamina.instrumentation
from pythonjsonlogger.json import JsonFormatter

from controller.adapters.http import log_retry

TEXT = "[%(asctime)s] %(name)s [%(levelname)s] %(message)s"

NOT_FIELDS = ("k8s_skip", "settings")
"""What kopf hangs on its records for its own use."""

CHATTY = ("kopf", "httpx", "kubernetes")
"""Loggers of which only warnings and errors are worth reading. Kopf logs two lines for each tick of each policy."""


def configure_logging(*, as_json: bool, verbose: bool) -> None:
    """Set up the log of a process that runs for long.

    Args:
        as_json: Whether each line is an object, with the fields `message`, `timestamp`, `severity` (debug, info, warn,
            error or fatal) and, where kopf speaks of a policy, `object`.
        verbose: Whether each decision is logged.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_json() if as_json else logging.Formatter(TEXT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("controller").setLevel(logging.DEBUG if verbose else logging.INFO)
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    stamina.instrumentation.set_on_retry_hooks([log_retry])


def _json() -> logging.Formatter:
    return _SeverityFormatter(timestamp=True, rename_fields={"k8s_ref": "object"}, reserved_attrs=_reserved())


def _reserved() -> list[str]:
    return [*vars(logging.makeLogRecord({})), "message", "asctime", *NOT_FIELDS]


class _SeverityFormatter(JsonFormatter):
    """Adds the level in the words that log collectors know."""

    def format(self, record: logging.LogRecord) -> str:
        record.severity = _SEVERITIES.get(record.levelno, "fatal")
        return super().format(record)


_SEVERITIES = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warn", logging.ERROR: "error"}
