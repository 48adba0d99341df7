"""The stand-in for Storage answers supabase-py's own client as the real Storage does."""

from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest
from storage3 import SyncStorageClient
from storage3.exceptions import StorageApiError

from devstack import Supabase

pytestmark = pytest.mark.integration

BUCKET = "videos"
PATH = "tenant/client/videos/1/video.mp4"
MISSING = "Either the object does not exist or you do not have access to it"

Headers = dict[str, str]


@pytest.fixture(autouse=True)
def bucket(supabase: Supabase) -> None:
    """An empty bucket."""
    supabase.clear_storage()
    supabase.create_bucket(BUCKET)


def both(key: str) -> Headers:
    return {"apikey": key, "Authorization": f"Bearer {key}"}


def client(supabase: Supabase, headers: Headers | None = None) -> SyncStorageClient:
    http = httpx.Client(trust_env=False)
    return SyncStorageClient(
        f"{supabase.url}/storage/v1/", headers or {"apikey": supabase.secret_key}, http_client=http
    )


def sign(supabase: Supabase, body: Any, bucket: str = BUCKET) -> httpx.Response:
    url, headers = f"{supabase.url}/storage/v1/object/sign/{bucket}", {"apikey": supabase.secret_key}
    return httpx.post(url, json=body, headers=headers, trust_env=False)


def there(storage: SyncStorageClient, paths: list[str], bucket: str = BUCKET) -> list[str]:
    with storage.session:
        return [one["path"] for one in storage.from_(bucket).create_signed_urls(paths, 60) if one["error"] is None]


def test_shows_a_file_once_it_is_complete(supabase: Supabase) -> None:
    assert there(client(supabase), [PATH]) == []
    supabase.upload(BUCKET, PATH)
    assert there(client(supabase), [PATH]) == [PATH]


def test_answers_for_each_path_in_the_order_of_the_request(supabase: Supabase) -> None:
    supabase.upload_many(BUCKET, ["b", "d"])
    answer = sign(supabase, {"paths": ["d", "c", "b", "a", "d"], "expiresIn": 60})
    assert answer.status_code == 200
    assert [sorted(one) for one in answer.json()] == [["error", "path", "signedURL"]] * 5
    assert [(one["path"], one["error"]) for one in answer.json()] == [
        ("d", None),
        ("c", MISSING),
        ("b", None),
        ("a", MISSING),
        ("d", None),
    ]
    assert [one["signedURL"] is None for one in answer.json()] == [False, True, False, True, False]


def test_a_signed_url_holds_a_token_for_its_file(supabase: Supabase) -> None:
    supabase.upload(BUCKET, PATH)
    [one] = sign(supabase, {"paths": [PATH], "expiresIn": "60"}).json()
    path, _, token = one["signedURL"].partition("?token=")
    assert path == f"/object/sign/{BUCKET}/{PATH}"
    assert jwt.decode(token, supabase.jwt_secret, algorithms=["HS256"])["url"] == f"{BUCKET}/{PATH}"


@pytest.mark.parametrize(
    "other",
    [f"/{PATH}", PATH.replace("/", "//"), PATH.upper(), PATH.replace("/", "%2F"), f"{PATH}/", f" {PATH}"],
)
def test_compares_paths_exactly(supabase: Supabase, other: str) -> None:
    supabase.upload(BUCKET, PATH)
    assert there(client(supabase), [other, PATH]) == [PATH]


@pytest.mark.parametrize("path", ["a b/c+d.mp4", "Größe/видео/動画.mp4", "\"quoted\" 'twice'?#&=.mp4", "100%/%2F"])
def test_takes_any_path(supabase: Supabase, path: str) -> None:
    supabase.upload(BUCKET, path)
    assert there(client(supabase), [path, "other"]) == [path]


def test_takes_a_thousand_paths_at_once_and_not_one_more(supabase: Supabase) -> None:
    paths = [f"{number}.mp4" for number in range(1001)]
    supabase.upload_many(BUCKET, paths)
    assert there(client(supabase), paths[:1000]) == paths[:1000]
    with pytest.raises(StorageApiError, match="must NOT have more than 1000 items"):
        there(client(supabase), paths)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"expiresIn": 60}, "body must have required property 'paths'"),
        ({"paths": ["a"]}, "body must have required property 'expiresIn'"),
        ({"paths": [], "expiresIn": 60}, "body/paths must NOT have fewer than 1 items"),
        ({"paths": {"a": 1}, "expiresIn": 60}, "body/paths must be array"),
        ({"paths": ["a"], "expiresIn": "soon"}, "body/expiresIn must be integer"),
        ({"paths": ["a"], "expiresIn": 0}, "body/expiresIn must be >= 1"),
        ([], "body must be object"),
    ],
)
def test_refuses_a_body_that_is_no_question(supabase: Supabase, body: Any, message: str) -> None:
    answer = sign(supabase, body)
    assert answer.status_code == 400
    assert answer.json() == {"statusCode": "400", "error": "Error", "code": "InvalidRequest", "message": message}


def test_refuses_a_body_of_more_than_a_mebibyte(supabase: Supabase) -> None:
    answer = sign(supabase, {"paths": ["a" * 2**20], "expiresIn": 60})
    assert (answer.status_code, answer.json()["statusCode"]) == (413, "413")


def test_shows_every_path_of_a_bucket_that_is_not_there_as_missing(supabase: Supabase) -> None:
    supabase.upload(BUCKET, PATH)
    answer = sign(supabase, {"paths": [PATH], "expiresIn": 60}, bucket="other")
    assert (answer.status_code, answer.json()) == (200, [{"error": MISSING, "path": PATH, "signedURL": None}])


KEYS = pytest.mark.parametrize(
    ("headers", "sees"),
    [
        pytest.param(lambda s: both(s.service_role_key), True, id="the legacy service key"),
        pytest.param(lambda s: {"apikey": s.secret_key}, True, id="a new secret key"),
        pytest.param(lambda s: both(s.secret_key), True, id="a new secret key, also as a bearer token"),
        pytest.param(lambda s: both(s.anon_key), False, id="the legacy anon key"),
        pytest.param(lambda s: {"apikey": s.publishable_key}, False, id="a new publishable key"),
    ],
)


@KEYS
def test_only_a_service_key_sees_files(supabase: Supabase, headers: Callable[[Supabase], Headers], sees: bool) -> None:
    supabase.upload(BUCKET, PATH)
    assert there(client(supabase, headers(supabase)), [PATH]) == [PATH] * sees


@KEYS
def test_only_a_service_key_sees_a_bucket(
    supabase: Supabase, headers: Callable[[Supabase], Headers], sees: bool
) -> None:
    storage = client(supabase, headers(supabase))
    with storage.session:
        if sees:
            assert storage.get_bucket(BUCKET).name == BUCKET
        else:
            with pytest.raises(StorageApiError, match="Bucket not found"):
                storage.get_bucket(BUCKET)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        pytest.param(lambda s: {"X": "1"}, "Invalid Compact JWS", id="no key"),
        pytest.param(lambda s: {"apikey": "sb_secret_wrong"}, "Invalid Compact JWS", id="an unknown key"),
        pytest.param(lambda s: both("wrong"), "Invalid Compact JWS", id="something else"),
        pytest.param(
            lambda s: both(jwt.encode({"role": "service_role"}, "x" * 32)),
            "signature verification failed",
            id="another project's key",
        ),
        pytest.param(
            lambda s: both(s.token("service_role", expires_in=-60)),
            '"exp" claim timestamp check failed',
            id="an expired key",
        ),
    ],
)
def test_tells_a_wrong_key_in_its_own_way(
    supabase: Supabase, headers: Callable[[Supabase], Headers], message: str
) -> None:
    url, own = f"{supabase.url}/storage/v1", headers(supabase)
    for answer in (
        httpx.get(f"{url}/bucket/{BUCKET}", headers=own, trust_env=False),
        httpx.post(
            f"{url}/object/sign/{BUCKET}", headers=own, json={"paths": [PATH], "expiresIn": 60}, trust_env=False
        ),
    ):
        assert answer.status_code == 400
        assert answer.json() == {
            "statusCode": "403",
            "error": "Unauthorized",
            "code": "AccessDenied",
            "message": message,
        }


def test_tells_the_client_the_status_as_a_text(supabase: Supabase) -> None:
    storage = client(supabase)
    with storage.session, pytest.raises(StorageApiError) as caught:
        storage.get_bucket("other")
    assert (caught.value.status, caught.value.code, caught.value.message) == (
        "404",
        "Bucket not found",
        "Bucket not found",
    )


def test_tells_whether_one_file_is_there(supabase: Supabase) -> None:
    supabase.upload(BUCKET, "a b/Größe+.mp4")
    storage = client(supabase)
    with storage.session:
        files = storage.from_(BUCKET)
        assert (files.exists("a b/Größe+.mp4"), files.exists("a b/other")) == (True, False)
        assert files.info("a b/Größe+.mp4")["name"] == "a b/Größe+.mp4"
        with pytest.raises(StorageApiError, match="Bucket not found"):
            storage.from_("other").exists(PATH)


def test_forgets_files_and_buckets(supabase: Supabase) -> None:
    supabase.upload(BUCKET, PATH)
    supabase.clear_storage()
    with pytest.raises(httpx.HTTPStatusError):
        supabase.upload(BUCKET, PATH)
    supabase.create_bucket(BUCKET)
    assert there(client(supabase), [PATH]) == []


def test_remembers_requests_beside_those_for_rows_and_not_what_a_test_prepares(supabase: Supabase) -> None:
    supabase.reset_requests()
    supabase.create_bucket("a bucket")
    supabase.upload("a bucket", PATH)
    assert there(client(supabase), [PATH], "a bucket") == [PATH]
    seen = [(request.method, request.path, request.status) for request in supabase.requests]
    assert seen == [("POST", "/storage/v1/object/sign/a bucket", 200)]


def test_serves_nothing_else_and_lets_nobody_else_prepare_it(supabase: Supabase) -> None:
    headers = {"apikey": supabase.secret_key}
    for method, path in (("GET", "upload/resumable"), ("DELETE", f"bucket/{BUCKET}")):
        answer = httpx.request(method, f"{supabase.url}/storage/v1/{path}", headers=headers, trust_env=False)
        assert (answer.status_code, answer.json()["statusCode"]) == (404, "404")
    assert httpx.delete(f"{supabase.url}/storage/v1/_devstack", headers=headers, trust_env=False).status_code == 403
