"""The keys and addresses of the services, as a Secret or the environment holds them.

Says what is missing or wrong by the name of its place; a value never appears in a message.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import jwt

from controller.errors import ConfigurationError, ErrorReason, Service

SUPABASE_URL = "SUPABASE_URL"
SUPABASE_KEY = "SUPABASE_SERVICE_ROLE_KEY"
SUPABASE_KEY_WANTED = "the service_role key, or a secret key (sb_secret_…)"
PREFECT_URL = "PREFECT_API_URL"
PREFECT_KEY = "PREFECT_API_KEY"
PREFECT_AUTH = "PREFECT_API_AUTH_STRING"


@dataclass(frozen=True, slots=True)
class Secret:
    """The contents of a Secret, or of what stands in for one.

    Attributes:
        place: What to call it in a message, such as `Secret captionacc/captionacc-credentials`.
        values: By key.
    """

    place: str
    values: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SupabaseCredentials:
    """Where Supabase is, and the key for it."""

    url: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PrefectCredentials:
    """Where Prefect is; a key for Prefect Cloud, a `user:password` for basic auth, or neither."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    auth_string: str | None = field(default=None, repr=False)


def supabase_credentials(secret: Secret) -> SupabaseCredentials:
    """Read Supabase's credentials.

    Raises:
        ConfigurationError: Something is missing or cannot be right.
    """
    place = _Place(secret, Service.SUPABASE)
    url = place.url(SUPABASE_URL, "https://<project>.supabase.co")
    if urlsplit(url).path.startswith("/rest"):
        raise place.error(ErrorReason.INVALID_URL, SUPABASE_URL, "ends in a path", "write the address without /rest/v1")
    key = place.key(SUPABASE_KEY)
    if key is None:
        raise place.missing(SUPABASE_KEY, SUPABASE_KEY_WANTED)
    if _is_public(key):
        # Row level security hides all videos from it: every scan would find none, and nobody would notice.
        problem = "is a public key, which sees no videos"
        raise place.error(ErrorReason.INVALID_KEY, SUPABASE_KEY, problem, f"write {SUPABASE_KEY_WANTED}")
    return SupabaseCredentials(url, key)


def _is_host(name: str | None) -> bool:
    return all(character.isalnum() or character in ".-_:" for character in name) if name else False


def _is_public(key: str) -> bool:
    """Whether a Supabase key is one that is made for browsers: a publishable one, or a JWT of the role anon."""
    if key.startswith("sb_publishable_"):
        return True
    try:
        claims = jwt.decode(key, options={"verify_signature": False})
    except jwt.PyJWTError:
        return False
    return claims.get("role") in {"anon", "authenticated"}


def prefect_credentials(secret: Secret) -> PrefectCredentials:
    """Read Prefect's credentials; errors as for `supabase_credentials`."""
    place = _Place(secret, Service.PREFECT)
    url = place.url(PREFECT_URL, "http://prefect-server:4200/api")
    auth_string = place.key(PREFECT_AUTH)
    if auth_string is not None and ":" not in auth_string:
        raise place.error(ErrorReason.INVALID_KEY, PREFECT_AUTH, "has no colon", "write user:password")
    return PrefectCredentials(url, place.key(PREFECT_KEY), auth_string)


@dataclass(frozen=True, slots=True)
class _Place:
    secret: Secret
    service: Service

    def url(self, name: str, example: str) -> str:
        text = self.secret.values.get(name, "").strip()
        if not text:
            raise self.missing(name, f"the address, such as {example}")
        try:
            parts = urlsplit(text)
            usable = httpx.URL(text).scheme in {"http", "https"} and _is_host(parts.hostname) and parts.port != 0
        except (ValueError, httpx.InvalidURL):
            usable = False
        if not usable or any(c.isspace() or not c.isprintable() for c in text):
            raise self.error(ErrorReason.INVALID_URL, name, "is no http(s) address", f"write one such as {example}")
        if parts.username is not None or parts.query or parts.fragment:
            problem = "holds more than an address (a user, a query or a fragment)"
            raise self.error(ErrorReason.INVALID_URL, name, problem, f"write one such as {example}")
        return text.rstrip("/")

    def key(self, name: str) -> str | None:
        text = self.secret.values.get(name, "").strip()
        if not text:
            return None
        if not (text.isascii() and text.isprintable()) or (" " in text and name != PREFECT_AUTH):
            raise self.error(
                ErrorReason.INVALID_KEY, name, "has characters that no key has", "copy it again, in one line"
            )
        return text

    def missing(self, name: str, what: str) -> ConfigurationError:
        return self.error(ErrorReason.SECRET_KEY_MISSING, name, "is missing or empty", f"write {what}")

    def error(self, reason: ErrorReason, name: str, problem: str, solution: str) -> ConfigurationError:
        place = f"{self.secret.place}: {name}"
        return ConfigurationError(f"{place} {problem}", solution, reason=reason, service=self.service)
