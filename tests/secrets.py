"""No key in anything that is shown: the keys in use, where they are looked for, and what a find is called.

As a pytest plugin it reads every log record of every logger, whatever its level, what tests print, also where a test
takes it for itself, and what the programs print that tests run. A find fails the test that it happened in, with its
place and never with the key.
"""

import json
import logging
import re
import subprocess
from base64 import b64encode
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from devstack import ControlPlane, Prefect, Supabase

SHORTEST = 6
"""Characters: anything shorter is found in texts that do not show it."""

PIECE = 16
"""Of a longer key, this many characters at either end tell it: messages are cut, in front or behind."""

ANY_JWT = re.compile(r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}")
"""Keys of Supabase, tokens of Storage and of service accounts."""

VARIABLES = ("SUPABASE_SERVICE_ROLE_KEY", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")

_names: dict[str, str] = {}
"""What each key is called, whole or a piece of it, in each of its forms."""


def know(name: str, key: str) -> None:
    """Look for a key from now on, also as HTTP headers, URLs and Secrets hold it.

    Raises:
        ValueError: It is too short to be looked for.
    """
    if len(key) < SHORTEST:
        raise ValueError(f"{name}: a key of {len(key)} characters would be found everywhere")
    encoded = b64encode(key.encode()).decode()
    for form in (key, quote(key, safe=""), json.dumps(key)[1:-1], encoded.rstrip("=")):
        pieces = (form[:PIECE], form[-PIECE:]) if len(form) >= 2 * PIECE else ()
        _names.update(dict.fromkeys((form, *pieces), name))


def know_values(values: Mapping[str, str]) -> None:
    """Look for the keys among the values of a Secret or of the environment."""
    for name in VARIABLES:
        key = values.get(name, "").strip()
        if len(key) >= SHORTEST:
            know(name, key)
        password = key.partition(":")[2]
        if name == "PREFECT_API_AUTH_STRING" and len(password) >= SHORTEST:
            know("the password of PREFECT_API_AUTH_STRING", password)


def know_part(part: object) -> None:
    """Look for the keys of a part of the embedded stack."""
    if isinstance(part, Supabase):
        for name in ("service_role_key", "anon_key", "secret_key", "publishable_key", "jwt_secret"):
            know(f"Supabase's {name}", getattr(part, name))
    elif isinstance(part, Prefect):
        know_values(part.env())
    elif isinstance(part, ControlPlane) and part.own:
        know("the administrator's token", json.loads(part.kubeconfig.read_text())["users"][0]["user"]["token"])


def found_in(text: str) -> list[str]:
    """The names of the keys that a text shows."""
    found = {name for piece, name in _names.items() if piece in text}
    return sorted(found | {"a JWT"} if ANY_JWT.search(text) else found)


def hide(text: str) -> str:
    """A text without the keys that it shows."""
    for piece in sorted(_names, key=len, reverse=True):
        text = re.sub(rf"[^\s'\"]*{re.escape(piece)}[^\s'\"]*", "***", text)
    return ANY_JWT.sub("***", text)


def refuse(text: str, place: str) -> None:
    """Fail the test if a text shows a key."""
    if found := found_in(text):
        pytest.fail(_told(place, found), pytrace=False)


def refuse_file(path: Path) -> None:
    """Fail the test if a line of a log file shows a key."""
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        refuse(line, f"line {number} of {path.name}")


def _told(place: str, found: list[str]) -> str:
    return f"{place} shows {' and '.join(found)}"


class Listener(logging.Handler):
    """Reads every record as a log would show it, and remembers which ones show a key."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.leaks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if found := found_in(self.format(record)):
            place = f"{record.levelname} of {record.name} ({Path(record.pathname).name}:{record.lineno})"
            self.leaks.append(_told(f"a log record, {place},", found))

    def read(self, output: str | bytes | None, place: str) -> None:
        """Read what somebody else took: it fails the test at the end of its phase, whatever becomes of the output."""
        text = output.decode(errors="replace") if isinstance(output, bytes) else output or ""
        if found := found_in(text):
            self.leaks.append(_told(place, found))

    def take(self) -> list[str]:
        leaks, self.leaks = self.leaks, []
        return leaks


_listener = Listener()

_SHOWS_KEYS = (("create", "token"), ("config", "view", "--raw"))
"""What kubectl is asked for in order to be given a key: such output is no leak."""

_taken = pytest.CaptureFixture.readouterr
_communicate = subprocess.Popen.communicate


def _read_out_err(capture: pytest.CaptureFixture[Any]) -> Any:
    """Stands for `capsys.readouterr` and the like: what a test takes, pytest does not report any more."""
    taken = _taken(capture)
    for name, output in zip(("stdout", "stderr"), taken, strict=True):
        _listener.read(output, f"{name}, which the test read itself,")
    return taken


def _communicate_and_read(process: "subprocess.Popen[Any]", *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Stands for `Popen.communicate`, and so for `subprocess.run`: reads what a program wrote to a pipe."""
    outputs = _communicate(process, *args, **kwargs)
    words = _words(process.args)
    if not any(set(asked) <= set(words) for asked in _SHOWS_KEYS):
        for name, output in zip(("stdout", "stderr"), outputs, strict=True):
            _listener.read(output, f"the {name} of `{hide(' '.join(words[:3]))} …`")
    return outputs


def _words(command: Any) -> list[str]:
    several = isinstance(command, Sequence) and not isinstance(command, str | bytes)
    return [str(word) for word in (command if several else [command])]


def _replace(readouterr: Any, communicate: Any) -> None:
    capture: Any = pytest.CaptureFixture
    process: Any = subprocess.Popen
    capture.readouterr, process.communicate = readouterr, communicate


def pytest_configure(config: pytest.Config) -> None:
    """Have every record made, and shown to tests as before: those from WARNING up."""
    if config.getoption("log_level") is None:
        config.option.log_level = "WARNING"
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    root.addHandler(_listener)
    _replace(_read_out_err, _communicate_and_read)


def pytest_unconfigure() -> None:
    logging.getLogger().removeHandler(_listener)
    _replace(_taken, _communicate)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a phase of a test that showed a key, and take the keys out of what pytest says of it."""
    report = yield
    leaks = _listener.take()
    new = [(title, text) for title, text in report.sections if title.endswith(f" {report.when}")]
    leaks += [_told(title, found) for title, text in new if (found := found_in(text))]
    report.sections = [(title, hide(text)) for title, text in report.sections]
    if report.longrepr is not None and found_in(str(report.longrepr)):
        report.longrepr = hide(str(report.longrepr))  # it failed already, and may well be about keys
    if leaks:
        report.outcome = "failed"
        told = "\n".join(dict.fromkeys(leaks))
        report.longrepr = f"{report.longrepr}\n{told}" if report.longrepr is not None else told
    return report
