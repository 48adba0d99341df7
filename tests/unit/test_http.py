"""Requests to a service: what is tried again and when, what errors say, and that they never say a key."""

import asyncio
import email.utils
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import httpx
import pytest
import stamina
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controller.adapters import http
from controller.adapters.http import ATTEMPTS, MAX_ANSWER_SHOWN, MAX_WAIT, RETRIED, HttpError, ServiceClient
from controller.errors import ErrorReason, Service, ServiceError
from tests.unit.fakes import NOW, Answer, Asked, in_jumping_time, in_turn, listening, serving

SECRET = "sb_secret_0123456789"
CLIENT = ServiceClient(Service.PREFECT, "PREFECT_API_URL", [SECRET, "", "hunter2"])


@pytest.fixture
def at_once() -> Iterator[None]:
    """Retries without the waits between them."""
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        yield


def connected(url: str) -> httpx.AsyncClient:
    return CLIENT.http_client(base_url=url)


async def ask(*answers: Answer) -> tuple[httpx.Response, list[Asked]]:
    """A request to a server that gives these answers, through `send`."""
    async with serving(in_turn(*answers)) as (url, asked), connected(url) as client:
        return await CLIENT.send(lambda: client.get("/x")), asked


async def told(*answers: Answer) -> HttpError:
    with pytest.raises(HttpError) as caught:
        await ask(*answers)
    return caught.value


async def failed(request: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await CLIENT.send(request)
    assert caught.value.service is Service.PREFECT
    return caught.value


def raise_(error: Exception) -> Any:
    async def request() -> None:
        raise error

    return request


# Retries


@pytest.mark.parametrize("status", sorted(RETRIED))
async def test_tries_again_what_passes(at_once, status):
    response, asked = await ask(Answer(status=status), Answer(status=status), Answer({"ok": True}))

    assert response.json() == {"ok": True}
    assert len(asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 409, 413, 422, 500, 501])
async def test_does_not_try_again_what_does_not_pass(at_once, status):
    async with (
        serving(in_turn(Answer(status=status), Answer())) as (url, asked),
        CLIENT.http_client(base_url=url) as client,
    ):
        with pytest.raises(HttpError) as caught:
            await CLIENT.send(lambda: client.get("/"))

    assert caught.value.status == status
    assert len(asked) == 1


async def test_gives_up_after_so_many_attempts(at_once):
    async with (
        serving(in_turn(Answer(b"busy", status=503))) as (url, asked),
        CLIENT.http_client(base_url=url) as client,
    ):
        with pytest.raises(HttpError) as caught:
            await CLIENT.send(lambda: client.get("/"))

    assert len(asked) == ATTEMPTS
    assert (caught.value.status, caught.value.text) == (503, "busy")


async def test_tries_an_answer_again_that_was_cut(at_once):
    response, asked = await ask(Answer({"long": "text"}, cut=5), Answer({"ok": True}))

    assert response.json() == {"ok": True}
    assert len(asked) == 2


async def test_an_answer_that_is_cut_each_time_is_no_answer(at_once):
    async with serving(in_turn(Answer(b"12345", cut=1))) as (url, asked), connected(url) as client:
        error = await failed(lambda: client.get("/"))

    assert error.reason is ErrorReason.UNREACHABLE
    assert len(asked) == ATTEMPTS


@pytest.mark.parametrize(
    "error", [httpx.ReadTimeout("slow"), httpx.ConnectTimeout("slow")], ids=lambda e: type(e).__name__
)
async def test_a_service_that_does_not_answer_in_time_is_asked_once(at_once, error):
    calls = []

    async def request() -> None:
        calls.append(1)
        raise error

    assert (await failed(request)).reason is ErrorReason.TIMED_OUT
    assert len(calls) == 1


async def test_a_connection_that_is_refused_is_tried_again(at_once):
    calls = []

    async def request() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise httpx.ConnectError("refused")
        return "answer"

    assert await CLIENT.send(request) == "answer"


def waits(error: Exception) -> float:
    """The seconds between two attempts of which the first fails like this."""
    outcomes: list[Any] = [error, "answer"]

    async def request() -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    answer, seconds = in_jumping_time(lambda: CLIENT.send(request))
    assert answer == "answer"
    return seconds


@pytest.mark.parametrize(
    ("asked_for", "waited"),
    [
        pytest.param(0.0, 0.0, id="none"),
        pytest.param(3.0, 3.0, id="three_seconds"),
        pytest.param(MAX_WAIT, MAX_WAIT, id="the_longest"),
        pytest.param(3600.0, MAX_WAIT, id="an_hour_but_no_longer_than_the_longest"),
        pytest.param(float("inf"), MAX_WAIT, id="for_ever_but_no_longer_than_the_longest"),
    ],
)
def test_waits_as_long_as_the_service_asks(asked_for, waited):
    assert waits(HttpError(429, "", asked_for)) == pytest.approx(waited)


def test_waits_a_moment_where_the_service_asks_for_nothing():
    assert 0.2 <= waits(HttpError(503, "")) <= 0.4


def test_a_service_counts_as_down_after_about_15_seconds():
    async def attempt() -> None:
        with pytest.raises(HttpError):
            await CLIENT.send(raise_(HttpError(503, "")))

    _, seconds = in_jumping_time(attempt)

    assert 15 <= seconds <= 20


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        pytest.param("7", 7.0, id="seconds"),
        pytest.param("0.5", 0.5, id="parts_of_a_second"),
        pytest.param("-3", 0.0, id="a_negative_number"),
        pytest.param("soon", None, id="a_word"),
        pytest.param(email.utils.format_datetime(NOW, usegmt=False), None, id="a_date"),
        pytest.param(None, None, id="nothing"),
    ],
)
async def test_reads_how_long_to_wait(header, seconds):
    headers = {} if header is None else {"Retry-After": header}
    with stamina.set_testing(True, attempts=1):
        error = await told(Answer(status=429, headers=headers))

    assert error.retry_after == seconds


# What errors say


@pytest.mark.parametrize(
    ("status", "reason", "hint"),
    [
        (400, ErrorReason.UNEXPECTED_ANSWER, ""),
        (401, ErrorReason.UNAUTHORIZED, "; check the key beside PREFECT_API_URL"),
        (403, ErrorReason.FORBIDDEN, "; the key beside PREFECT_API_URL has no right to this"),
        (404, ErrorReason.NOT_FOUND, "; check PREFECT_API_URL"),
        (408, ErrorReason.TIMED_OUT, "; see whether it runs, and whether PREFECT_API_URL leads there"),
        (422, ErrorReason.UNEXPECTED_ANSWER, ""),
        (429, ErrorReason.RATE_LIMITED, "; try again in a minute"),
        (500, ErrorReason.SERVER_ERROR, "; its log tells more"),
        (503, ErrorReason.SERVER_ERROR, "; its log tells more"),
        (599, ErrorReason.SERVER_ERROR, "; its log tells more"),
    ],
)
def test_a_refusal_has_a_reason_and_a_hint(status, reason, hint):
    error = CLIENT.refused(HttpError(status, "no"))

    assert error.reason is reason
    assert error.message == f"Prefect answered {status}: no{hint}"
    assert error.service is Service.PREFECT


def test_a_refusal_without_a_text_says_so():
    assert CLIENT.refused(HttpError(500, "")).message == "Prefect answered 500: nothing; its log tells more"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (httpx.ConnectTimeout(""), "could not be connected to within 5 s"),
        (httpx.ReadTimeout(""), "did not answer within 30 s"),
        (httpx.PoolTimeout(""), "did not answer in time"),
    ],
)
async def test_a_time_out_says_how_long_it_waited(at_once, error, message):
    assert message in (await failed(raise_(error))).message


async def test_no_connection_says_why(at_once):
    error = await failed(raise_(httpx.ConnectError("All connection attempts failed")))

    assert "All connection attempts failed" in error.message
    assert error.reason is ErrorReason.UNREACHABLE


async def test_an_error_without_a_text_is_named(at_once):
    assert "RemoteProtocolError" in (await failed(raise_(httpx.RemoteProtocolError("")))).message


async def test_a_redirect_is_not_followed_and_says_what_to_write():
    error = await told(Answer(status=301, headers={"Location": "https://elsewhere"}))

    assert (error.status, error.text) == (301, "a redirect; write the address it leads to")


async def test_a_body_that_cannot_be_unpacked_is_an_unexpected_answer(at_once):
    async with (
        serving(in_turn(Answer(b"no gzip", headers={"Content-Encoding": "gzip"}))) as (url, _),
        CLIENT.http_client(base_url=url) as client,
    ):
        error = await failed(lambda: client.get("/"))

    assert error.reason is ErrorReason.UNEXPECTED_ANSWER


async def test_a_client_drops_the_header_it_is_told_to():
    async with (
        serving(in_turn(Answer({}))) as (url, asked),
        CLIENT.http_client(base_url=url, headers={"Authorization": "x", "apikey": "y"}, drop="Authorization") as client,
    ):
        await client.get("/")

    assert "authorization" not in asked[0].headers
    assert asked[0].headers["apikey"] == "y"


# Never a key


@pytest.mark.parametrize("secret", [SECRET, "hunter2"])
async def test_a_key_in_an_answer_is_hidden(secret):
    error = await told(Answer(f"unknown key {secret}!".encode(), status=401))

    assert error.text == "unknown key ***!"
    assert secret not in str(error)
    assert secret not in CLIENT.refused(error).message


def test_a_key_is_hidden_also_where_the_text_is_cut():
    text = "x" * (MAX_ANSWER_SHOWN - 5) + SECRET

    assert "sb_se" not in CLIENT.clean(text)


def test_of_two_keys_of_which_one_begins_with_the_other_nothing_stays():
    service = ServiceClient(Service.PREFECT, "PREFECT_API_URL", ["abc", "abcdef"])

    assert service.clean("abcdef abc") == "*** ***"


@pytest.mark.parametrize(
    "error",
    [
        httpx.LocalProtocolError(f"Illegal header value b'Bearer {SECRET}'"),
        httpx.UnsupportedProtocol(f"no protocol in {SECRET}"),
        httpx.ConnectError(f"no host {SECRET}"),
        httpx.DecodingError(f"no gzip: {SECRET}"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_key_in_an_error_of_the_http_client_is_hidden(at_once, error):
    assert SECRET not in (await failed(raise_(error))).message


def test_a_key_in_an_unexpected_answer_is_hidden():
    assert CLIENT.unexpected(f"<html>{SECRET}</html>").message == (
        "Prefect answered what it never does: <html>***</html>; does PREFECT_API_URL lead there?"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("a\r\n  b\tc", "a b c", id="in_one_line"),
        pytest.param("a\x1b[31mb", "a\ufffd[31mb", id="without_escape_sequences"),
        pytest.param("x" * MAX_ANSWER_SHOWN, "x" * MAX_ANSWER_SHOWN, id="uncut_at_exactly_the_longest"),
        pytest.param("x" * (MAX_ANSWER_SHOWN + 1), "x" * MAX_ANSWER_SHOWN + "…", id="cut_one_character_later"),
    ],
)
def test_an_answer_is_shown(text, shown):
    assert CLIENT.clean(text) == shown


# How it is wired


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """What a server needs that signed its own certificate."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path_factory.mktemp("tls") / "server.pem"
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *plain) + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


async def test_a_server_whose_certificate_nobody_signed_is_told_no_key(self_signed):
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1000))

    with stamina.set_testing(True, attempts=1):
        async with (
            listening(answer, tls=self_signed) as port,
            CLIENT.http_client(base_url=f"https://127.0.0.1:{port}") as client,
        ):
            error = await failed(lambda: client.get("/x", headers={"apikey": SECRET}))

    assert error.reason is ErrorReason.UNREACHABLE
    assert "certificate verify failed" in error.message
    assert asked == []


async def test_a_server_that_is_silent_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(http, "TIMEOUT", httpx.Timeout(0.2, connect=5))

    async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with (
        listening(say_nothing) as port,
        asyncio.timeout(30),
        CLIENT.http_client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        error = await failed(lambda: client.get("/x"))

    assert error.reason is ErrorReason.TIMED_OUT
    assert error.message.startswith("Prefect did not answer within 0.2 s")


def test_no_wait_is_longer_than_a_scan_can_afford():
    assert waits(HttpError(429, "", 3600.0)) == 15
