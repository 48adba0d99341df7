"""The search for keys finds them: whatever form a planted key has, the test that shows it fails and nobody sees it."""

import json
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

import pytest

from tests import secrets

PROJECT = Path(__file__).parents[2]
KEY = "pnu_planted/key+0123456789abcdefghij"
PASSWORD = "sesame:öffne dich"
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJl"
AUTH_STRING = f"admin:{PASSWORD}"

TEST = f"""
import logging
import sys

import pytest

from tests import secrets

KEY = {KEY!r}
secrets.know("the planted key", KEY)


@pytest.fixture
def setup_that_shows_it():
    print(KEY)


@pytest.fixture
def teardown_that_shows_it():
    yield
    print(KEY)


def test_debug_record():
    logging.getLogger("any.library").debug("%s", {{"apikey": KEY}})


def test_traceback():
    try:
        raise ValueError(KEY)
    except ValueError:
        logging.getLogger("controller").exception("it failed")


def test_stdout():
    print(KEY)


def test_stderr():
    print(KEY, file=sys.stderr)


def test_setup(setup_that_shows_it):
    pass


def test_teardown(teardown_that_shows_it):
    pass


def test_failure():
    assert KEY == ""


def test_text():
    secrets.refuse("of " + KEY, "the status")


def test_nothing():
    logging.getLogger("any.library").debug("no key")
    print("no key")
"""


@pytest.fixture(autouse=True)
def only_planted_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_names", {})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(KEY, id="the key"),
        pytest.param(KEY[:20] + "…", id="its beginning"),
        pytest.param("…" + KEY[-20:], id="its end"),
        pytest.param(quote(KEY, safe=""), id="in a URL"),
        pytest.param(b64encode(KEY.encode()).decode(), id="in a Secret"),
        pytest.param(AUTH_STRING, id="user and password"),
        pytest.param(PASSWORD, id="the password alone"),
        pytest.param(b64encode(AUTH_STRING.encode()).decode(), id="in a header"),
        pytest.param(json.dumps(PASSWORD)[1:-1], id="in JSON"),
        pytest.param(JWT, id="a JWT that nobody announced"),
        pytest.param(JWT[:60], id="the beginning of a JWT"),
    ],
)
def test_finds_a_key_in_any_form(text):
    secrets.know_values({"PREFECT_API_KEY": KEY, "PREFECT_API_AUTH_STRING": AUTH_STRING})

    assert secrets.found_in(f"it said: {text} and more")
    assert not secrets.found_in(secrets.hide(f"it said: {text} and more"))


def test_finds_nothing_in_a_text_without_a_key():
    secrets.know_values({"PREFECT_API_KEY": KEY, "PREFECT_API_AUTH_STRING": AUTH_STRING})

    assert secrets.found_in("admin: sb_secret_… and eyJ, in PREFECT_API_KEY") == []


def test_refuses_to_look_for_what_is_found_everywhere():
    with pytest.raises(ValueError, match="a key of 2 characters"):
        secrets.know("a password", "pw")


def test_names_the_line_of_a_log_that_shows_a_key(tmp_path):
    secrets.know("the key", KEY)
    log = tmp_path / "controller.log"
    log.write_text(f"fine\n{KEY}\n")

    with pytest.raises(pytest.fail.Exception, match=r"line 2 of controller\.log shows the key"):
        secrets.refuse_file(log)


def test_a_test_that_shows_a_key_fails_and_the_key_is_not_printed(tmp_path):
    (tmp_path / "test_planted.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-p", "tests.secrets", "-p", "no:cacheprovider", "-rA", "-vv", "-l"]

    run = subprocess.run(
        [*command, "--rootdir", tmp_path, tmp_path],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    shown = run.stdout + run.stderr
    assert "6 failed, 2 passed, 2 errors" in shown, secrets.hide(shown)
    assert "test_planted.py::test_nothing PASSED" in shown
    assert KEY not in shown
    assert KEY[:20] not in shown
    assert "DEBUG of any.library (test_planted.py:" in shown
    assert "the status shows the planted key" in shown
