"""The names of the resource and of what it is annotated with. Everything else takes them from here."""

GROUP = "recovery.captiona.cc"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "VideoRecoveryPolicy"
PLURAL = "videorecoverypolicies"
CRD_NAME = f"{PLURAL}.{GROUP}"

REQUESTED_AT = f"{GROUP}/requestedAt"
"""The annotation that asks for a scan: any text; a new one asks for a new scan."""

REQUESTED_VIDEO = f"{GROUP}/requestedVideo"
"""The annotation that narrows a requested scan to one video."""

FIELD_MANAGER = "video-recovery"
"""What the controller calls itself in managed fields and in Events."""
