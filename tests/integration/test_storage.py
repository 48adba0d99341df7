"""Which files are complete, asked of Storage: what is not plainly said is an error, and no token is ever shown."""

import json
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import stamina
from aiohttp import web

from controller.adapters.supabase.storage import SupabaseStorage
from controller.adapters.supabase.table import open_supabase
from controller.decisions.decision import Skip, SkipReason
from controller.errors import ConfigurationError, ErrorReason, ScanError, Service, ServiceError
from devstack import Prefect, Supabase
from tests import proxy
from tests.proxy import Exchange, Proxy, Treatment, at
from tests.support import ago, policy, reasons, recovered, scan, stuck_videos

pytestmark = pytest.mark.integration

BUCKET = "the videos"
THERE = ["tenant/1.mp4", "tenant/3.mp4"]
PATHS = ["tenant/1.mp4", "tenant/2.mp4", "tenant/3.mp4"]
MISSING = "Either the object does not exist or you do not have access to it"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJ1cmwiOiJhIn0.c2ln-bmF0dXJl"

IN_A_TOKEN = ("eyJ", "token=")
BUCKETS, SIGNING = at("/storage/v1/bucket/"), at("/storage/v1/object/sign/")
BOTH = pytest.mark.parametrize("where", [pytest.param(BUCKETS, id="bucket"), pytest.param(SIGNING, id="files")])

Change = Callable[[list[dict[str, Any]]], object]


@pytest.fixture(autouse=True)
def bucket(supabase: Supabase) -> None:
    """The bucket, with two files."""
    supabase.clear_storage()
    supabase.create_bucket(BUCKET)
    supabase.upload_many(BUCKET, THERE)


@pytest.fixture(autouse=True)
def two_attempts() -> Iterator[None]:
    """What fails in a way that passes is tried once more, at once."""
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture(autouse=True)
def no_token_in_any_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No record of any logger, at any level, has a token or a key in its message, its arguments or its fields."""
    caplog.set_level(logging.DEBUG)
    yield
    records = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.get_records("call"))
    assert not [part for part in IN_A_TOKEN if part in records]


@pytest.fixture
async def between(supabase: Supabase) -> AsyncIterator[Proxy]:
    async with proxy.serve(supabase.url) as served:
        yield served


@asynccontextmanager
async def storage(url: str, key: str, bucket: str = BUCKET) -> AsyncIterator[SupabaseStorage]:
    spec = policy(upload={"bucket": bucket, "objectPath": "{tenant_id}/{id}.mp4"}).spec
    async with open_supabase(url, key, spec) as (_, opened):
        assert opened is not None
        yield opened


async def existing_files(supabase: Supabase, between: Proxy, paths: list[str] = PATHS) -> set[str]:
    async with storage(between.url, supabase.secret_key) as opened:
        return await opened.existing_files(paths)


async def failed(supabase: Supabase, between: Proxy, *, key: str = "", bucket: str = BUCKET) -> ScanError:
    """The error of a question that fails, after a look that nothing of an answer hangs on to it."""
    async with storage(between.url, key or supabase.secret_key, bucket) as opened:
        with pytest.raises(ScanError) as caught:
            await opened.existing_files(PATHS)
    error = caught.value
    shown = "\n".join([*traceback.format_exception(error), repr(error.__dict__), repr(error.args)])
    assert not [part for part in IN_A_TOKEN if part in shown]
    assert error.service is Service.SUPABASE
    return error


def changed(change: Change) -> Treatment:
    """Storage's own answer, with its tokens, made into another one."""

    async def treat(exchange: Exchange) -> web.Response:
        whole = await exchange.pass_on()
        assert isinstance(whole.body, bytes)
        assert b"token=eyJ" in whole.body
        return web.json_response(change(json.loads(whole.body)))

    return treat


def first(**fields: object) -> Change:
    """The answer with other fields for its first path; one that is `...` is left out."""

    def change(answer: list[dict[str, Any]]) -> object:
        one = {name: value for name, value in {**answer[0], **fields}.items() if value is not ...}
        return [one, *answer[1:]]

    return change


def error_body(status: object, message: str = "no reason") -> dict[str, object]:
    return {"statusCode": status, "error": "SomeError", "code": "SomeError", "message": message}


# What it finds


async def test_finds_the_files_that_are_complete(supabase, between):
    assert await existing_files(supabase, between) == set(THERE)


@pytest.mark.parametrize(
    "path",
    [
        "a b/c d.mp4",
        "Größe/видео/動画 🎬.mp4",
        "a+b&c=d/e?f#g.mp4",
        "\"quoted\"/'twice'/`thrice`.mp4",
        "100%/%2F/{id}.mp4",
        "a:b/c,d;e@f!.mp4",
        "/",
    ],
)
async def test_finds_a_file_whatever_its_path_holds(path, supabase, between):
    supabase.upload(BUCKET, path)

    assert await existing_files(supabase, between, [f"{path}x", path, f"x{path}"]) == {path}


@pytest.mark.parametrize(("paths", "requests"), [(0, 0), (1, 2), (1000, 2), (1001, 3), (2500, 4)])
async def test_asks_for_a_thousand_files_at_once(paths, requests, supabase, between):
    asked = [f"tenant/{number:04}.mp4" for number in range(paths)]
    supabase.upload_many(BUCKET, asked[::2])

    assert await existing_files(supabase, between, asked) == set(asked[::2])
    assert len(between.requests) == requests
    assert between.count(BUCKETS) == min(requests, 1)


async def test_asks_once_for_a_file_of_several_videos(supabase, between):
    assert await existing_files(supabase, between, PATHS * 1000) == set(THERE)
    assert [len(request.json()["paths"]) for request in between.requests if SIGNING(request)] == [3]


async def test_looks_for_the_bucket_without_asking_for_a_file(supabase, between):
    async with storage(between.url, supabase.secret_key) as opened:
        await opened.check()

    assert [(request.method, request.path) for request in between.requests] == [("GET", f"/storage/v1/bucket/{BUCKET}")]


async def test_shares_one_client_with_the_table(supabase, between):
    [video] = stuck_videos(supabase, 1)
    spec = policy(upload={"bucket": BUCKET, "objectPath": "{tenant_id}/{id}.mp4"}).spec
    async with open_supabase(between.url, supabase.service_role_key, spec) as (table, opened):
        assert opened is not None
        assert await table.still_stuck([video]) == {video}
        assert await opened.existing_files(PATHS) == set(THERE)
        assert await table.still_stuck([video]) == {video}


async def test_there_is_none_for_a_policy_that_does_not_look_at_uploads(supabase):
    async with open_supabase(supabase.url, supabase.secret_key, policy().spec) as (_, opened):
        assert opened is None


# A scan that looks for files

UPLOAD = {"bucket": BUCKET, "objectPath": "{tenant_id}/{id}.mp4", "abandonedAfter": "24h"}


@pytest.fixture(params=[lambda s: s.service_role_key, lambda s: s.secret_key], ids=["legacy key", "new key"])
def environment(request, supabase: Supabase, prefect: Prefect, between: Proxy) -> Iterator[dict[str, str]]:
    yield {**supabase.env(request.param(supabase)), **prefect.env(), "SUPABASE_URL": between.url}
    prefect.clear_flow_runs()


async def test_recovers_a_video_when_its_file_is_complete_and_not_before(environment, supabase):
    whole, uploading = stuck_videos(supabase, 2, status="uploading")
    [abandoned] = stuck_videos(supabase, 1, status="uploading", created_at=ago(hours=25))
    supabase.upload(BUCKET, f"tenant/{whole}.mp4")

    outcome = await scan(policy(upload=UPLOAD), environment)

    assert outcome.error is None
    assert recovered(outcome) == [whole]
    assert {(result.video_id, result.reason) for result in outcome.results if isinstance(result, Skip)} == {
        (uploading, SkipReason.UPLOAD_IN_PROGRESS),
        (abandoned, SkipReason.UPLOAD_ABANDONED),
    }

    supabase.upload_many(BUCKET, [f"tenant/{video}.mp4" for video in (uploading, abandoned)])
    outcome = await scan(policy(upload=UPLOAD), environment)

    assert sorted(recovered(outcome)) == sorted([uploading, abandoned])


async def test_recovers_nothing_and_reports_no_upload_when_storage_does_not_answer(environment, supabase, between):
    videos = stuck_videos(supabase, 2, created_at=ago(hours=25))
    supabase.upload(BUCKET, f"tenant/{videos[0]}.mp4")
    between.treat(proxy.answer(503, "no"), SIGNING)

    outcome = await scan(policy(upload=UPLOAD), environment)

    assert outcome.error is not None
    assert (outcome.error.service, outcome.error.reason) == (Service.SUPABASE, ErrorReason.SERVER_ERROR)
    assert reasons(outcome) == {SkipReason.INTERRUPTED: 2}


async def test_asks_storage_nothing_when_no_video_is_stuck(environment, between):
    await scan(policy(upload=UPLOAD), environment)

    assert not between.count(at("/storage/"))


# The bucket and the key


async def test_names_a_bucket_that_is_not_there_and_asks_for_no_file(supabase, between):
    error = await failed(supabase, between, bucket="viedos")

    assert isinstance(error, ConfigurationError)
    assert error.reason is ErrorReason.BUCKET_NOT_FOUND
    assert "spec.upload.bucket" in error.message
    assert "'viedos'" in error.message
    assert not between.count(SIGNING)


@pytest.mark.parametrize(
    "body",
    [
        {"statusCode": "404", "error": "Bucket not found", "message": "Bucket not found"},
        {"statusCode": "404", "error": "", "message": "the bucket is not there", "code": "NoSuchBucket"},
    ],
)
@pytest.mark.parametrize("status", [400, 404])
async def test_knows_a_missing_bucket_of_an_older_storage(status, body, supabase, between):
    between.treat(proxy.answer(status, body), BUCKETS)

    assert (await failed(supabase, between)).reason is ErrorReason.BUCKET_NOT_FOUND


@pytest.mark.parametrize("key", [lambda s: s.anon_key, lambda s: s.publishable_key], ids=["anon", "publishable"])
async def test_a_key_that_sees_nothing_finds_no_bucket_instead_of_no_file(key, supabase, between):
    assert (await failed(supabase, between, key=key(supabase))).reason is ErrorReason.BUCKET_NOT_FOUND


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda s: "sb_secret_wrong-0123456789", id="a secret key of another project"),
        pytest.param(lambda s: "wrong-0123456789", id="something else"),
        pytest.param(lambda s: s.token("service_role", expires_in=-60), id="an expired key"),
    ],
)
async def test_says_that_storage_refuses_a_key(key, supabase, between):
    error = await failed(supabase, between, key=key(supabase))

    assert isinstance(error, ServiceError)
    assert error.reason is ErrorReason.FORBIDDEN
    assert "SUPABASE_URL" in error.message
    assert key(supabase) not in error.message


@pytest.mark.parametrize("key", [lambda s: s.service_role_key, lambda s: s.secret_key], ids=["legacy", "new"])
async def test_sends_a_legacy_key_in_both_headers_and_a_new_one_only_as_apikey(key, supabase, between):
    async with storage(between.url, key(supabase)) as opened:
        assert await opened.existing_files(PATHS) == set(THERE)

    bearer = None if key(supabase).startswith("sb_") else f"Bearer {key(supabase)}"
    sent = [(request.headers["apikey"], request.headers.get("Authorization")) for request in between.requests]
    assert sent == [(key(supabase), bearer)] * 2


async def test_says_that_the_address_has_no_storage(supabase, between):
    between.treat(proxy.answer(404, {"message": "no Route matched with those values"}))

    error = await failed(supabase, between)
    assert error.reason is ErrorReason.NOT_FOUND
    assert "SUPABASE_URL" in error.message


# Answers that say nothing plainly


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda answer: answer[:-1], id="one path left out"),
        pytest.param(lambda answer: [], id="all paths left out"),
        pytest.param(lambda answer: [*answer, answer[-1]], id="one path twice"),
        pytest.param(lambda answer: answer[::-1], id="another order"),
        pytest.param(lambda answer: {"data": answer}, id="no list"),
        pytest.param(lambda answer: None, id="null"),
        pytest.param(lambda answer: [1, 2, 3], id="a list of numbers"),
        pytest.param(lambda answer: [*answer[:2], None], id="null for a path"),
        pytest.param(lambda answer: [TOKEN for _ in answer], id="a list of tokens"),
        pytest.param(first(path="tenant/4.mp4"), id="another path"),
        pytest.param(first(path=...), id="no path"),
        pytest.param(first(error=...), id="no error"),
        pytest.param(first(signedURL=...), id="no URL"),
        pytest.param(first(error=MISSING), id="a URL and an error"),
        pytest.param(first(signedURL=None), id="neither a URL nor an error"),
        pytest.param(first(signedURL=""), id="an empty URL"),
        pytest.param(first(signedURL="/object/sign/videos/tenant/1.mp4"), id="a URL without a token"),
        pytest.param(first(signedURL=None, error="canceling statement due to timeout"), id="another error"),
        pytest.param(first(signedURL=None, error=""), id="an empty error"),
        pytest.param(first(signedURL=None, error=404), id="a number for an error"),
    ],
)
async def test_takes_no_file_for_missing_in_an_answer_of_another_shape(change, supabase, between):
    between.treat(changed(change), SIGNING)

    error = await failed(supabase, between)

    assert isinstance(error, ServiceError)
    assert error.reason is ErrorReason.UNEXPECTED_ANSWER
    assert error.message == (
        "Supabase answered what it never does: not a signed URL or an error for each path, in their order (Storage);"
        " does SUPABASE_URL lead there?"
    )
    assert error.__context__ is None
    assert error.__cause__ is None
    assert len(between.requests) == 2


@BOTH
@pytest.mark.parametrize(
    "treatment",
    [
        pytest.param(proxy.answer(200, "<html>Sign in</html>", content_type="text/html"), id="a page"),
        pytest.param(proxy.answer(200, ""), id="nothing"),
        pytest.param(proxy.answer(204), id="no content"),
        pytest.param(proxy.answer(200, '[{"error": null, "path": "tenant/'), id="half a text"),
        pytest.param(proxy.answer(200, "[" * 100_000), id="a text that opens and never closes"),
        pytest.param(proxy.answer(200, "null"), id="null"),
        pytest.param(proxy.answer(200, {"message": "ok"}), id="something else"),
        pytest.param(proxy.answer(200, [[]]), id="a list of lists"),
        pytest.param(proxy.no_gzip, id="a compressed body that is none"),
        pytest.param(proxy.answer(302, "", Location="/login"), id="a redirect"),
    ],
)
async def test_takes_what_is_no_answer_of_storage_for_an_error(treatment, where, supabase, between):
    between.treat(treatment, where)

    error = await failed(supabase, between)

    assert isinstance(error, ServiceError)
    assert error.reason is ErrorReason.UNEXPECTED_ANSWER


async def test_takes_the_details_of_another_bucket_for_an_error(supabase, between):
    async def another(exchange: Exchange) -> web.Response:
        whole = await exchange.pass_on()
        assert isinstance(whole.body, bytes)
        return web.json_response({**json.loads(whole.body), "id": "other"})

    between.treat(another, BUCKETS)

    assert (await failed(supabase, between)).reason is ErrorReason.UNEXPECTED_ANSWER


async def test_says_nothing_of_the_first_files_when_the_last_question_fails(supabase, between):
    between.treat(proxy.answer(500, error_body("500")), SIGNING, after=2)
    paths = [f"{number}.mp4" for number in range(2500)]

    async with storage(between.url, supabase.secret_key) as opened:
        with pytest.raises(ServiceError) as caught:
            await opened.existing_files(paths)

    assert caught.value.reason is ErrorReason.SERVER_ERROR


# Failures, and what passes


@BOTH
@pytest.mark.parametrize(
    "treatment",
    [
        pytest.param(proxy.answer(503, "upstream connect error"), id="503"),
        pytest.param(proxy.answer(429, error_body("429"), Retry_After="0"), id="429"),
        *(pytest.param(proxy.answer(400, error_body(said)), id=f"400 that means {said!r}") for said in ("429", "502")),
        *(pytest.param(proxy.answer(400, error_body(said)), id=f"400 that means {said!r}") for said in ("503", 504)),
        pytest.param(proxy.reset, id="a broken connection"),
        pytest.param(proxy.lost, id="a lost answer"),
        pytest.param(proxy.cut, id="half an answer"),
    ],
)
async def test_asks_again_after_a_failure_that_passes(treatment, where, supabase, between):
    between.treat(treatment, where, times=1)

    assert await existing_files(supabase, between) == set(THERE)
    assert between.count(where) == 2


@BOTH
@pytest.mark.parametrize(
    ("treatment", "reason", "attempts"),
    [
        pytest.param(proxy.answer(503, "no"), ErrorReason.SERVER_ERROR, 2, id="503"),
        pytest.param(proxy.answer(500, error_body("500")), ErrorReason.SERVER_ERROR, 1, id="500"),
        pytest.param(proxy.answer(400, error_body("503")), ErrorReason.SERVER_ERROR, 2, id="400 that means 503"),
        pytest.param(proxy.answer(400, error_body("544")), ErrorReason.SERVER_ERROR, 1, id="400 that means 544"),
        pytest.param(proxy.answer(400, error_body("429")), ErrorReason.RATE_LIMITED, 2, id="400 that means 429"),
        pytest.param(proxy.answer(400, error_body("401")), ErrorReason.UNAUTHORIZED, 1, id="400 that means 401"),
        pytest.param(proxy.answer(400, error_body("403")), ErrorReason.FORBIDDEN, 1, id="400 that means 403"),
        pytest.param(proxy.answer(400, error_body(403)), ErrorReason.FORBIDDEN, 1, id="400 that means 403, a number"),
        pytest.param(proxy.answer(401, "no"), ErrorReason.UNAUTHORIZED, 1, id="401"),
        pytest.param(proxy.answer(403, "no"), ErrorReason.FORBIDDEN, 1, id="403"),
        pytest.param(proxy.answer(400, error_body("200")), ErrorReason.UNEXPECTED_ANSWER, 1, id="400 that means 200"),
        pytest.param(proxy.answer(400, error_body(None)), ErrorReason.UNEXPECTED_ANSWER, 1, id="400 that means none"),
        pytest.param(proxy.answer(400, "no"), ErrorReason.UNEXPECTED_ANSWER, 1, id="400 without a body of Storage"),
        pytest.param(proxy.answer(400, ["no"]), ErrorReason.UNEXPECTED_ANSWER, 1, id="400 with a list"),
        pytest.param(proxy.reset, ErrorReason.UNREACHABLE, 2, id="a broken connection"),
        pytest.param(proxy.cut, ErrorReason.UNREACHABLE, 2, id="half an answer"),
    ],
)
async def test_says_what_went_wrong(treatment, reason, attempts, where, supabase, between):
    between.treat(treatment, where)

    error = await failed(supabase, between)

    assert isinstance(error, ServiceError)
    assert error.reason is reason
    assert between.count(where) == attempts


async def test_keeps_the_status_when_what_the_body_says_is_none(supabase, between):
    between.treat(proxy.answer(400, error_body("200")))

    assert "answered 400" in (await failed(supabase, between)).message


async def test_tells_what_storage_said(supabase, between):
    between.treat(proxy.answer(400, error_body("403", "signature verification failed")))

    assert "403: signature verification failed (Storage)" in (await failed(supabase, between)).message


# An answer that repeats what nobody may see


@pytest.mark.parametrize("status", [400, 403, 500, 503])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"see /object/sign/videos/a.mp4?token={TOKEN}&download=", id="a URL"),
        pytest.param(f"the token {TOKEN} has expired", id="a token"),
        pytest.param(f"{'-' * 280} {TOKEN}", id="half a token, because the text is cut there"),
    ],
)
async def test_shows_no_token_that_an_error_repeats(text, status, supabase, between):
    body = error_body("403", text) if status == 400 else text
    between.treat(proxy.answer(status, body), SIGNING)

    assert "***" in (await failed(supabase, between)).message


async def test_shows_no_key_that_an_error_repeats(supabase, between):
    between.treat(proxy.answer(400, error_body("403", f"the key {supabase.secret_key} is not known")))

    error = await failed(supabase, between)

    assert "the key *** is not known" in error.message
    assert supabase.secret_key not in repr(error.__dict__)
