"""Keys, right and wrong, of real services: which are taken, what a wrong one is told, and that none is ever shown."""

import logging
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import stamina

from controller.decisions.decision import SkipReason
from controller.errors import ConfigurationError, ErrorReason, Service
from controller.outcome import Outcome
from devstack import Prefect, Supabase
from tests import proxy
from tests.conftest import serve, steady_prefect
from tests.proxy import Proxy
from tests.support import DEPLOYMENT, policy, reasons, recovered, scan, stuck_videos

pytestmark = pytest.mark.integration

PASSWORD = "p:ss w%rd~9"
AUTH_STRING = f"admin:{PASSWORD}"
ENCODED = b64encode(AUTH_STRING.encode()).decode()
WRONG = "sb_secret_wrong-0123456789"
ANY_TOKEN = "eyJhbGciOi"  # how every JWT begins
API_KEY = "pnu_0123456789abcdefghijklmnopqrstuvwxyz"

Key = Callable[[Supabase], str]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Prefect]:
    """A Prefect server that asks for a password, with the deployment."""

    def with_deployment(server: Prefect) -> Prefect:
        server.create_deployment(DEPLOYMENT)
        return server

    yield from map(with_deployment, serve(steady_prefect(auth_string=AUTH_STRING)))


@pytest.fixture(autouse=True)
def no_key_in_any_log(caplog: pytest.LogCaptureFixture, supabase: Supabase) -> Iterator[None]:
    """No record of any logger, at any level, has a key in its message, its arguments or its fields."""
    caplog.set_level(logging.DEBUG)
    yield
    records = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.get_records("call"))
    assert not keys_in(records, supabase)


@pytest.fixture
def two_attempts() -> Iterator[None]:
    """What fails is tried once more, at once."""
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture
async def supabase_proxy(supabase: Supabase) -> AsyncIterator[Proxy]:
    async with proxy.serve(supabase.url) as between:
        yield between


@pytest.fixture
async def prefect_proxy(prefect: Prefect) -> AsyncIterator[Proxy]:
    async with proxy.serve(f"http://127.0.0.1:{prefect.port}") as between:
        yield between
    prefect.clear_flow_runs()


def keys_in(text: str, supabase: Supabase) -> list[str]:
    secrets = [supabase.secret_key, supabase.publishable_key, WRONG, API_KEY, AUTH_STRING, PASSWORD, ENCODED, ANY_TOKEN]
    return [secret for secret in secrets if secret in text]


def message(outcome: Outcome, supabase: Supabase) -> str:
    assert outcome.error is not None
    shown = [*traceback.format_exception(outcome.error), repr(outcome.error.__dict__), repr(outcome.results)]
    assert not keys_in("\n".join(shown), supabase)
    return outcome.error.message


# Supabase


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda s: s.service_role_key, id="the legacy service_role key"),
        pytest.param(lambda s: s.secret_key, id="a secret key"),
        pytest.param(lambda s: f"  {s.secret_key}\n", id="a key with a line break, as `echo` writes it into a Secret"),
    ],
)
async def test_recovers_with_a_key_of_the_service(key: Key, supabase, prefect, prefect_proxy):
    [video] = stuck_videos(supabase, 1)

    outcome = await scan(policy(), {**supabase.env(key(supabase)), **prefect.env()})

    assert outcome.error is None
    assert recovered(outcome) == [video]


async def test_sends_a_legacy_key_in_both_headers_and_a_new_one_only_as_apikey(supabase, supabase_proxy, prefect):
    for key in (supabase.service_role_key, supabase.secret_key):
        await scan(policy(), {**prefect.env(), "SUPABASE_URL": supabase_proxy.url, "SUPABASE_SERVICE_ROLE_KEY": key})

    legacy, new = [request.headers for request in supabase_proxy.requests]
    assert (legacy["apikey"], legacy["Authorization"]) == (
        supabase.service_role_key,
        f"Bearer {supabase.service_role_key}",
    )
    assert new["apikey"] == supabase.secret_key
    assert "Authorization" not in new


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda s: WRONG, id="a secret key of another project"),
        pytest.param(lambda s: "wrong-0123456789", id="something else"),
        pytest.param(lambda s: s.token("service_role", expires_in=-60), id="an expired token"),
        pytest.param(lambda s: s.token("service_role", sub="other"), id="a token that is no key"),
    ],
)
async def test_says_that_supabase_does_not_know_a_key(key: Key, supabase, prefect):
    stuck_videos(supabase, 1)

    outcome = await scan(policy(), {**supabase.env(key(supabase)), **prefect.env()})

    assert "SUPABASE_URL" in message(outcome, supabase)
    assert outcome.error is not None
    assert (outcome.error.service, outcome.error.reason) == (Service.SUPABASE, ErrorReason.UNAUTHORIZED)
    assert outcome.stuck is None


async def test_says_that_a_token_has_expired(supabase, supabase_proxy, prefect):
    # The gateway lets it through by another key, so that PostgREST judges it.
    supabase_proxy.treat(proxy.with_headers(apikey=supabase.anon_key))
    expired = supabase.token("service_role", expires_in=-60)
    environment = {"SUPABASE_URL": supabase_proxy.url, "SUPABASE_SERVICE_ROLE_KEY": expired}

    outcome = await scan(policy(), {**environment, **prefect.env()})

    assert "JWT expired" in message(outcome, supabase)
    assert outcome.error is not None
    assert outcome.error.reason is ErrorReason.UNAUTHORIZED


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda s: s.anon_key, id="the legacy anon key"),
        pytest.param(lambda s: s.publishable_key, id="a publishable key"),
    ],
)
async def test_says_that_a_public_key_sees_no_videos_instead_of_finding_none(key: Key, supabase, prefect):
    stuck_videos(supabase, 1)

    outcome = await scan(policy(), {**supabase.env(key(supabase)), **prefect.env()})

    assert "SUPABASE_SERVICE_ROLE_KEY" in message(outcome, supabase)
    assert isinstance(outcome.error, ConfigurationError)
    assert (outcome.error.service, outcome.error.reason) == (Service.SUPABASE, ErrorReason.INVALID_KEY)


# Prefect


async def test_recovers_with_the_user_and_password_of_a_guarded_server(guarded, supabase):
    guarded.pretend_worker()
    [video] = stuck_videos(supabase, 1)

    outcome = await scan(policy(), {**supabase.env(), **guarded.env()})

    assert outcome.error is None
    assert recovered(outcome) == [video]


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"PREFECT_API_AUTH_STRING": f"{AUTH_STRING}wrong"}, id="a wrong password"),
        pytest.param({"PREFECT_API_KEY": API_KEY}, id="a key of Prefect Cloud"),
    ],
)
async def test_says_that_prefect_does_not_know_a_key(environment, guarded, supabase):
    stuck_videos(supabase, 1)

    outcome = await scan(policy(), {**supabase.env(), "PREFECT_API_URL": guarded.api_url, **environment})

    assert "PREFECT_API_URL" in message(outcome, supabase)
    assert outcome.error is not None
    assert (outcome.error.service, outcome.error.reason) == (Service.PREFECT, ErrorReason.UNAUTHORIZED)
    assert reasons(outcome) == {SkipReason.INTERRUPTED: 1}


@pytest.mark.parametrize(
    ("environment", "header"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"PREFECT_API_KEY": API_KEY}, f"Bearer {API_KEY}", id="a key"),
        pytest.param(
            {"PREFECT_API_AUTH_STRING": AUTH_STRING},
            f"Basic {ENCODED}",
            id="user and password",
        ),
    ],
)
async def test_sends_prefect_with_each_request_what_the_secret_holds(environment, header, supabase, prefect_proxy):
    stuck_videos(supabase, 1)

    outcome = await scan(policy(), {**supabase.env(), "PREFECT_API_URL": f"{prefect_proxy.url}/api", **environment})

    assert outcome.error is None
    assert {request.headers.get("Authorization") for request in prefect_proxy.requests} == {header}


# A service that repeats what it was sent

SECRETS_SENT = [
    pytest.param({"PREFECT_API_KEY": API_KEY}, API_KEY, id="the key"),
    pytest.param({"PREFECT_API_KEY": API_KEY}, f"Bearer {API_KEY}", id="the header of a key"),
    pytest.param({"PREFECT_API_AUTH_STRING": AUTH_STRING}, AUTH_STRING, id="user and password"),
    pytest.param({"PREFECT_API_AUTH_STRING": AUTH_STRING}, PASSWORD, id="the password alone"),
    pytest.param(
        {"PREFECT_API_AUTH_STRING": AUTH_STRING},
        ENCODED,
        id="user and password as they are sent",
    ),
]


@pytest.mark.parametrize("status", [200, 401, 503])
@pytest.mark.parametrize(("environment", "secret"), SECRETS_SENT)
async def test_shows_no_secret_that_prefect_repeats(environment, secret, status, supabase, prefect_proxy, two_attempts):
    stuck_videos(supabase, 1)
    prefect_proxy.treat(proxy.answer(status, f"You sent {secret}, did you?"))

    outcome = await scan(policy(), {**supabase.env(), "PREFECT_API_URL": f"{prefect_proxy.url}/api", **environment})

    assert "***, did you?" in message(outcome, supabase)


@pytest.mark.parametrize("status", [200, 401, 503])
async def test_shows_no_key_that_supabase_repeats(status, supabase, supabase_proxy, prefect, two_attempts):
    key = supabase.service_role_key
    supabase_proxy.treat(proxy.answer(status, f"You sent {key}, did you?"))

    outcome = await scan(policy(), {**supabase.env(), **prefect.env(), "SUPABASE_URL": supabase_proxy.url})

    assert "***, did you?" in message(outcome, supabase)


async def test_shows_no_key_that_supabase_repeats_in_its_message(supabase, supabase_proxy, prefect):
    body = {"code": "42703", "message": f"column {supabase.service_role_key} does not exist"}
    supabase_proxy.treat(proxy.answer(400, body))

    outcome = await scan(policy(), {**supabase.env(), **prefect.env(), "SUPABASE_URL": supabase_proxy.url})

    assert "column *** does not exist" in message(outcome, supabase)


async def test_shows_no_key_that_prefect_repeats_for_one_run(supabase, prefect_proxy):
    [video] = stuck_videos(supabase, 1)
    refused = {"status": "FAILED", "error": f"You sent {API_KEY}, did you?"}
    prefect_proxy.treat(proxy.answer(200, {"results": [refused]}), proxy.at("/bulk"))
    environment = {**supabase.env(), "PREFECT_API_URL": f"{prefect_proxy.url}/api", "PREFECT_API_KEY": API_KEY}

    outcome = await scan(policy(), environment)

    assert [result.video_id for result in outcome.results] == [video]
    assert "***" in repr(outcome.results)
    assert not keys_in(repr(outcome.results), supabase)


# What cannot be a key


@pytest.mark.parametrize(
    ("environment", "reason", "named"),
    [
        ({"SUPABASE_SERVICE_ROLE_KEY": ""}, ErrorReason.SECRET_KEY_MISSING, "SUPABASE_SERVICE_ROLE_KEY"),
        ({"SUPABASE_SERVICE_ROLE_KEY": "a\nb"}, ErrorReason.INVALID_KEY, "SUPABASE_SERVICE_ROLE_KEY"),
        ({"SUPABASE_SERVICE_ROLE_KEY": "ключ"}, ErrorReason.INVALID_KEY, "SUPABASE_SERVICE_ROLE_KEY"),
        ({"PREFECT_API_KEY": f"{API_KEY}\r\nX-Evil: 1"}, ErrorReason.INVALID_KEY, "PREFECT_API_KEY"),
        ({"PREFECT_API_AUTH_STRING": PASSWORD.replace(":", "")}, ErrorReason.INVALID_KEY, "PREFECT_API_AUTH_STRING"),
    ],
)
async def test_names_a_key_that_cannot_be_one_and_sends_nothing(environment, reason, named, supabase, prefect):
    outcome = await scan(policy(), {**supabase.env(), **prefect.env(), **environment})

    assert named in message(outcome, supabase)
    assert isinstance(outcome.error, ConfigurationError)
    assert outcome.error.reason is reason
    assert supabase.requests == []
