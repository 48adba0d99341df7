"""Supabase Storage: tells at which paths there is a complete file. Never reads, writes or removes one.

The one question that Storage answers for many files at once is for signed URLs. They are live download tokens: they are
dropped as soon as they come, and nothing of such an answer goes into a message or a log. What an answer does not say
plainly is an error, never a missing file.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from more_itertools import chunked
from storage3.types import CreateSignedUrlResponse
from supabase import AsyncClient
from typing_extensions import override

from controller.adapters.http import HttpError, ServiceClient
from controller.errors import ConfigurationError, ErrorReason, ScanError, Service
from controller.ports import ObjectStore

MAX_PATHS = 1000
"""Paths in one request: what Storage takes at most."""

EXPIRES_IN = 60
"""Seconds for which the URLs are signed; nobody uses them."""

_STATUS = re.compile(r"[45][0-9]{2}")
_MISSING = re.compile(r"does not exist|not found", re.IGNORECASE)
_TOKEN = re.compile(r"eyJ[\w.-]+|token=[^\s\"'&]+")

T = TypeVar("T")


class SupabaseStorage(ObjectStore):
    """A bucket of Supabase Storage.

    An upload in progress looks exactly like no file. A key that may not see the bucket is told that there is none.
    """

    def __init__(self, client: AsyncClient, service: ServiceClient, bucket: str) -> None:
        self._client, self._service, self._bucket = client, service, bucket

    async def check(self) -> None:
        """Ask whether the bucket is there.

        Raises:
            ScanError: It is not, or Storage does not answer.
        """
        bucket = await self._ask(lambda: self._client.storage.get_bucket(self._bucket), "no details of a bucket")
        if bucket.id != self._bucket:
            raise self._service.unexpected("the details of another bucket")

    @override
    async def existing_files(self, paths: Sequence[str]) -> set[str]:
        if not paths:
            return set()
        # Where there is no such bucket, Storage calls every path missing.
        await self.check()
        there: set[str] = set()
        for chunk in chunked(dict.fromkeys(paths), MAX_PATHS):
            there |= await self._existing_of(chunk)
        return there

    async def _existing_of(self, paths: list[str]) -> set[str]:
        async def request() -> set[str]:
            signed = await self._client.storage.from_(self._bucket).create_signed_urls(paths, EXPIRES_IN)
            if [one["path"] for one in signed] != paths:
                raise ValueError
            return {one["path"] for one in signed if _is_there(one)}

        return await self._ask(request, "not a signed URL or an error for each path, in their order")

    async def _ask(self, request: Callable[[], Awaitable[T]], otherwise: str) -> T:
        async def attempt() -> T:
            try:
                return await request()
            except HttpError as error:
                raise self._meant(error) from None

        try:
            return await self._service.send(attempt)
        except HttpError as error:
            problem = self._explain(error)
        except (ValueError, TypeError, RecursionError):  # no JSON, or JSON of another shape
            problem = self._service.unexpected(f"{otherwise} (Storage)")
        # Out here, where no other error hangs on to it: one of pydantic's shows the answer with its tokens.
        raise problem

    def _meant(self, error: HttpError) -> HttpError:
        """The error with the status that is meant: Storage sends 400 and puts the real one into the body, as a text."""
        status = str(error.field("statusCode"))
        text = _TOKEN.sub("***", self._service.clean(str(error.field("message") or error.text)))
        meant = int(status) if error.status == 400 and _STATUS.fullmatch(status) else error.status
        return HttpError(meant, f"{text} (Storage)", error.retry_after, error.body)

    def _explain(self, error: HttpError) -> ScanError:
        if error.field("code") != "NoSuchBucket" and error.field("message") != "Bucket not found":
            return self._service.refused(error)
        return ConfigurationError(
            f"spec.upload.bucket: Supabase Storage has no bucket {self._bucket!r}",
            "create it, or write the name of one that it has, letter for letter",
            reason=ErrorReason.BUCKET_NOT_FOUND,
            service=Service.SUPABASE,
        )


def _is_there(signed: CreateSignedUrlResponse) -> bool:
    error, url = signed["error"], signed["signedURL"]
    if error is None and url is not None and "token=" in url:
        return True
    if error is not None and url is None and _MISSING.search(error):
        return False
    raise ValueError
