"""The embedded Supabase answers as the hosted one does."""

from collections.abc import Callable

import httpx
import pytest

from devstack import Supabase

pytestmark = pytest.mark.integration

Headers = dict[str, str]


def both(key: str) -> Headers:
    return {"apikey": key, "Authorization": f"Bearer {key}"}


def get(supabase: Supabase, path: str, headers: Headers, **params: str) -> httpx.Response:
    return httpx.get(f"{supabase.url}/rest/v1/{path}", headers=headers, params=params, trust_env=False)


def videos(supabase: Supabase, headers: Headers) -> httpx.Response:
    return get(supabase, "videos", {"Accept-Profile": "captionacc", **headers}, select="status", limit="5000")


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        pytest.param(lambda s: both(s.service_role_key), 1, id="the legacy service key reads everything"),
        pytest.param(lambda s: {"apikey": s.secret_key}, 1, id="the new secret key reads everything"),
        pytest.param(lambda s: both(s.anon_key), 0, id="the legacy anon key sees no row"),
        pytest.param(lambda s: {"apikey": s.publishable_key}, 0, id="the new publishable key sees no row"),
        pytest.param(lambda s: {"apikey": s.service_role_key}, 0, id="a legacy service key in one header only is anon"),
        pytest.param(
            lambda s: {"apikey": s.anon_key, "Authorization": f"Bearer {s.service_role_key}"},
            1,
            id="the role is that of the token, not of the key",
        ),
    ],
)
def test_a_key_gives_its_role(supabase: Supabase, headers: Callable[[Supabase], Headers], seen: int) -> None:
    supabase.insert_videos([{"status": "uploading"}])
    answer = videos(supabase, headers(supabase))
    assert (answer.status_code, answer.json()) == (200, [{"status": "uploading"}] * seen)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        pytest.param(lambda s: {}, "No API key found in request", id="no key"),
        pytest.param(
            lambda s: {"Authorization": f"Bearer {s.service_role_key}"}, "No API key found in request", id="no apikey"
        ),
        pytest.param(lambda s: both("sb_secret_wrong"), "Invalid API key", id="unknown key"),
        pytest.param(lambda s: both(s.secret_key), "Invalid API key", id="a new key as a bearer token"),
        pytest.param(lambda s: both(s.token("service_role", sub="me")), "Invalid API key", id="a token that is no key"),
        pytest.param(
            lambda s: {
                "apikey": s.anon_key,
                "Authorization": f"Bearer {s.token('service_role', expires_in=-60)}",
            },
            "JWT expired",
            id="an expired token",
        ),
    ],
)
def test_refuses_a_wrong_key(supabase: Supabase, headers: Callable[[Supabase], Headers], message: str) -> None:
    answer = videos(supabase, headers(supabase))
    assert (answer.status_code, answer.json()["message"]) == (401, message)


def test_cuts_an_answer_at_max_rows_without_an_error(supabase: Supabase) -> None:
    supabase.insert_videos([{"status": "pending"}] * 1001)
    answer = videos(supabase, {"apikey": supabase.secret_key})
    assert (answer.status_code, len(answer.json())) == (200, 1000)


def test_shows_another_schema_only_by_its_profile(supabase: Supabase) -> None:
    key = {"apikey": supabase.secret_key}
    assert get(supabase, "videos", key).status_code == 404
    assert get(supabase, "videos", {**key, "Accept-Profile": "captionacc"}).status_code == 200
    hidden = get(supabase, "videos", {**key, "Accept-Profile": "pg_catalog"})
    assert (hidden.status_code, hidden.json()["code"]) == (406, "PGRST106")


def test_cancels_a_statement_of_the_service_role_after_eight_seconds(supabase: Supabase) -> None:
    supabase.execute(
        "create or replace function public.time_limit() returns text language sql stable"
        " return current_setting('statement_timeout')"
    )
    supabase.reload_schema()
    assert get(supabase, "rpc/time_limit", {"apikey": supabase.secret_key}).json() == "8s"


def test_serves_a_new_table_with_odd_names_at_once(supabase: Supabase) -> None:
    table, column = 'odd "table", 100%', "Größe (cm)"
    supabase.create_table("public", table, {"n": "int primary key", column: "text"})
    supabase.insert("public", table, [{"n": 1, column: "a"}, {"n": 2}])
    path = "odd%20%22table%22%2C%20100%25"
    answer = get(supabase, path, {"apikey": supabase.secret_key}, order="n")
    supabase.execute(f'drop table "{table.replace(chr(34), chr(34) * 2)}"')
    assert answer.json() == [{"n": 1, column: "a"}, {"n": 2, column: None}]


def test_writes_through_the_gateway(supabase: Supabase) -> None:
    (video,) = supabase.insert_videos([{"status": "uploading"}])
    headers = {"apikey": supabase.secret_key, "Content-Profile": "captionacc"}
    url = f"{supabase.url}/rest/v1/videos"
    httpx.patch(url, params={"id": f"eq.{video}"}, json={"status": "ready"}, headers=headers).raise_for_status()
    assert supabase.query("select status from captionacc.videos") == [{"status": "ready"}]


def test_remembers_every_request(supabase: Supabase) -> None:
    get(supabase, "videos", {"apikey": supabase.secret_key, "Accept-Profile": "captionacc"}, select="id", limit="5")
    get(supabase, "videos", {})
    seen = [(r.method, r.path, r.query, r.status) for r in supabase.requests]
    assert seen == [("GET", "/rest/v1/videos", "select=id&limit=5", 200), ("GET", "/rest/v1/videos", "", 401)]
    supabase.reset_requests()
    assert supabase.requests == []


def test_does_not_show_the_requests_to_others(supabase: Supabase) -> None:
    assert httpx.get(f"{supabase.url}/_devstack/requests").status_code == 403


def test_nothing_is_served_beside_the_rest_api(supabase: Supabase) -> None:
    assert httpx.get(f"{supabase.url}/", headers={"apikey": supabase.secret_key}).status_code == 404


def test_a_restarted_database_still_has_its_rows(supabase: Supabase) -> None:
    (video,) = supabase.insert_videos([{"status": "pending"}])
    supabase.postgres.restart()
    assert [str(row["id"]) for row in supabase.query("select id from captionacc.videos")] == [video]
    supabase.reload_schema()  # PostgREST is connected again
    assert videos(supabase, {"apikey": supabase.secret_key}).json() == [{"status": "pending"}]
