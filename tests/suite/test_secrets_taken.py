"""A key is found also in output that a test takes for itself: by capsys and the like, and from programs it runs."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
KEY = "pnu_planted/key+0123456789abcdefghij"

TEST = f"""
import os
import subprocess
import sys

import pytest

from tests import secrets

KEY = {KEY!r}
secrets.know("the planted key", KEY)
SHOW = [sys.executable, "-c", "import os, sys; print(os.environ['KEY']); print(os.environ['KEY'], file=sys.stderr)"]
ENV = {{**os.environ, "KEY": KEY}}


@pytest.mark.parametrize("capture", ["capsys", "capfd", "capsysbinary"])
def test_captured(capture, request):
    taken = request.getfixturevalue(capture)
    print(KEY)
    taken.readouterr()


def test_captured_and_not_read(capsys):
    print(KEY)


@pytest.mark.parametrize("text", [True, False])
def test_run(text):
    subprocess.run(SHOW, capture_output=True, text=text, env=ENV)


def test_standard_error_alone():
    subprocess.run(SHOW, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENV)


def test_check_output():
    subprocess.check_output(" ".join(repr(word) for word in SHOW), shell=True, env=ENV)


def test_communicate():
    subprocess.Popen(SHOW, stdout=subprocess.PIPE, env=ENV).communicate(timeout=60)


def test_nothing(capsys):
    print("no key")
    assert capsys.readouterr().out == "no key\\n"
    assert subprocess.run(["echo", "no key"], capture_output=True, text=True).stdout == "no key\\n"


def test_asked_for():
    subprocess.run(["echo", "create", "token", KEY], capture_output=True)
"""


def test_a_test_that_takes_a_key_fails_and_the_key_is_not_printed(tmp_path: Path):
    (tmp_path / "test_planted.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-p", "tests.secrets", "-p", "no:cacheprovider", "-rA", "-vv", "-l"]

    finished = subprocess.run(
        [*command, "--rootdir", tmp_path, tmp_path], cwd=PROJECT, capture_output=True, text=True, check=False
    )

    shown = finished.stdout + finished.stderr
    outcomes = sorted(line.split("::")[1] for line in shown.splitlines() if line.startswith("PASSED "))
    assert outcomes == ["test_asked_for", "test_nothing"], shown
    assert "9 failed, 2 passed" in shown, shown
    assert "stdout, which the test read itself, shows the planted key" in shown
    assert "the stderr of `" in shown
    assert KEY not in shown
