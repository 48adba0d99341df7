"""Keys and addresses as a Secret holds them: what is accepted, and messages that name the place and never the value."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.adapters.credentials import (
    PREFECT_AUTH,
    PREFECT_KEY,
    PREFECT_URL,
    SUPABASE_KEY,
    SUPABASE_URL,
    Secret,
    prefect_credentials,
    supabase_credentials,
)
from controller.errors import ConfigurationError, ErrorReason, Service

SOURCE = "Secret captionacc/credentials"
SUPABASE = {SUPABASE_URL: "https://project.supabase.co", SUPABASE_KEY: "eyJhbGciOi.eyJyb2xlIjo.c2lnbmF0dXJl"}
PREFECT = {PREFECT_URL: "http://prefect-server:4200/api"}
Read = Callable[[Secret], Any]


def refused(read: Read, values: Mapping[str, str]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read(Secret(SOURCE, values))
    return caught.value


# What is accepted


@pytest.mark.parametrize("key", [SUPABASE[SUPABASE_KEY], "sb_secret_abc-DEF_123"])
def test_reads_supabase(key):
    read = supabase_credentials(Secret(SOURCE, {**SUPABASE, SUPABASE_KEY: key}))

    assert (read.url, read.key) == ("https://project.supabase.co", key)


@pytest.mark.parametrize(
    ("more", "api_key", "auth_string"),
    [
        pytest.param({}, None, None, id="a_server_without_a_key"),
        pytest.param({PREFECT_KEY: "pnu_123"}, "pnu_123", None, id="Prefect_Cloud"),
        pytest.param({PREFECT_AUTH: "admin:pass"}, None, "admin:pass", id="basic_auth"),
        pytest.param(
            {PREFECT_AUTH: "admin:two words:x"}, None, "admin:two words:x", id="a_password_with_spaces_and_colons"
        ),
        pytest.param({PREFECT_KEY: "", PREFECT_AUTH: " \n"}, None, None, id="empty_keys_as_none"),
    ],
)
def test_reads_prefect(more, api_key, auth_string):
    read = prefect_credentials(Secret(SOURCE, {**PREFECT, **more}))

    assert (read.url, read.api_key, read.auth_string) == (PREFECT[PREFECT_URL], api_key, auth_string)


def test_takes_off_the_line_break_that_echo_leaves_at_the_end():
    read = supabase_credentials(Secret(SOURCE, {name: f" {value}\n" for name, value in SUPABASE.items()}))

    assert (read.url, read.key) == (SUPABASE[SUPABASE_URL], SUPABASE[SUPABASE_KEY])


def test_takes_off_a_slash_at_the_end_of_an_address():
    assert prefect_credentials(Secret(SOURCE, {PREFECT_URL: "https://prefect/api//"})).url == "https://prefect/api"


@pytest.mark.parametrize(
    "url",
    ["https://a.supabase.co", "http://127.0.0.1:54321", "http://[::1]:8000", "https://host/some/path", "HTTPS://A.CO"],
)
def test_accepts_the_address(url):
    assert supabase_credentials(Secret(SOURCE, {**SUPABASE, SUPABASE_URL: url})).url == url


# What is refused


@pytest.mark.parametrize(
    ("read", "values", "name"),
    [
        pytest.param(supabase_credentials, {}, SUPABASE_URL, id="no_address_of_supabase"),
        pytest.param(supabase_credentials, {**SUPABASE, SUPABASE_URL: " "}, SUPABASE_URL, id="an_empty_one"),
        pytest.param(supabase_credentials, {SUPABASE_URL: "https://a.co"}, SUPABASE_KEY, id="no_key_of_supabase"),
        pytest.param(supabase_credentials, {**SUPABASE, SUPABASE_KEY: "\n"}, SUPABASE_KEY, id="an_empty_key"),
        pytest.param(prefect_credentials, {}, PREFECT_URL, id="no_address_of_prefect"),
    ],
)
def test_says_what_is_missing(read, values, name):
    error = refused(read, values)

    assert error.reason is ErrorReason.SECRET_KEY_MISSING
    assert error.message.startswith(f"{SOURCE}: {name} is missing or empty; write ")


BAD_URLS = [
    "project.supabase.co", "ftp://secret.example", "https://", "https:///path", "postgresql://u:s3cret@db/x",
    "https://user:s3cret@secret.example", "https://secret.example?apikey=s3cret", "https://secret.example#s3cret",
    "https://secret example", "https://secret.example\nhttps://other", "https://secret.example:0",
    "https://secret.example:99999", "https://secret.example:port", "http://[::1", "javascript:alert(1)",
    "https://s3cret\x00.example", "//secret.example", "https://s3cret@secret.example", "https://:s3cret@secret.example",
]  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS)
@pytest.mark.parametrize(
    ("read", "values", "name"),
    [(supabase_credentials, SUPABASE, SUPABASE_URL), (prefect_credentials, PREFECT, PREFECT_URL)],
    ids=["supabase", "prefect"],
)
def test_refuses_what_is_no_address_without_repeating_it(read, values, name, url):
    error = refused(read, {**values, name: url})

    assert error.reason is ErrorReason.INVALID_URL
    assert error.message.startswith(f"{SOURCE}: {name} ")
    assert "write one such as http" in error.message
    assert "secret.example" not in error.message
    assert "s3cret" not in error.message


@pytest.mark.parametrize("url", ["https://\xfc..de", "http://999.1.1.1", "http://1.2.3.999:80"])
def test_refuses_an_address_that_the_http_client_cannot_use(url):
    with pytest.raises(httpx.InvalidURL):
        httpx.URL(url)  # what would otherwise be raised amid a scan

    assert refused(prefect_credentials, {PREFECT_URL: url}).reason is ErrorReason.INVALID_URL


@pytest.mark.parametrize("path", ["/rest/v1", "/rest/v1/", "/rest"])
def test_refuses_supabases_address_with_the_path_of_its_api(path):
    error = refused(supabase_credentials, {**SUPABASE, SUPABASE_URL: f"https://a.supabase.co{path}"})

    assert error.reason is ErrorReason.INVALID_URL
    assert "write the address without /rest/v1" in error.message


BAD_KEYS = ["s3cret\nX-Other: header", "s3cret\r", "two s3crets", "s3cret\xe9", "s3cret\0", "s3cret\ts", "“s3cret”"]


@pytest.mark.parametrize("key", [f"x{key}x" for key in BAD_KEYS], ids=ascii)
@pytest.mark.parametrize(
    ("read", "values", "name"),
    [(supabase_credentials, SUPABASE, SUPABASE_KEY), (prefect_credentials, PREFECT, PREFECT_KEY)],
    ids=["supabase", "prefect"],
)
def test_refuses_what_no_header_carries_without_repeating_it(read, values, name, key):
    error = refused(read, {**values, name: key})

    assert error.reason is ErrorReason.INVALID_KEY
    assert error.message.startswith(f"{SOURCE}: {name} ")
    assert "s3cret" not in error.message


def test_refuses_basic_auth_without_a_colon_without_repeating_it():
    error = refused(prefect_credentials, {**PREFECT, PREFECT_AUTH: "s3cret"})

    assert error.reason is ErrorReason.INVALID_KEY
    assert error.message == f"{SOURCE}: {PREFECT_AUTH} has no colon; write user:password"


@pytest.mark.parametrize(
    ("read", "service"), [(supabase_credentials, Service.SUPABASE), (prefect_credentials, Service.PREFECT)]
)
def test_an_error_is_the_services_whose_secret_it_is(read, service):
    assert refused(read, {}).service is service


# Never the value

# Marked, since a short value may happen to be a part of what every message says.
values = st.text(max_size=60).map(lambda text: f"{text}s3cret")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys([SUPABASE_URL, SUPABASE_KEY], values)))
@settings(max_examples=80)
def test_no_message_about_supabase_repeats_a_value(given_values):
    assert_keeps_quiet(supabase_credentials, given_values)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys([PREFECT_URL, PREFECT_KEY, PREFECT_AUTH], values)))
@settings(max_examples=80)
def test_no_message_about_prefect_repeats_a_value(given_values):
    assert_keeps_quiet(prefect_credentials, given_values)


def assert_keeps_quiet(read: Read, given_values: Mapping[str, str]) -> None:
    with contextlib.suppress(ConfigurationError):
        read(Secret(SOURCE, given_values))
        return
    with pytest.raises(ConfigurationError) as caught:
        read(Secret(SOURCE, given_values))
    message = caught.value.message
    assert SOURCE in message
    assert "s3cret" not in message


def test_credentials_do_not_show_their_keys_when_printed():
    supabase = supabase_credentials(Secret(SOURCE, SUPABASE))
    prefect = prefect_credentials(Secret(SOURCE, {**PREFECT, PREFECT_KEY: "pnu_s3cret", PREFECT_AUTH: "admin:s3cret"}))

    assert SUPABASE[SUPABASE_KEY] not in repr(supabase)
    assert "s3cret" not in repr(prefect)
    assert "s3cret" not in repr(Secret(SOURCE, {PREFECT_KEY: "pnu_s3cret"}))
