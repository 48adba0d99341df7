"""`python -m devstack up`, and what is left of it: nothing."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests import secrets
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@contextmanager
def everything_up(workdir: Path) -> Iterator[tuple["subprocess.Popen[str]", list[str]]]:
    """Run it without Kubernetes and give what it prints."""
    command = [sys.executable, "-m", "devstack", "up", "--no-control-plane", "--no-worker", "--workdir", str(workdir)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            lines: list[str] = []
            while not lines or "Ctrl-C" not in lines[-1]:
                lines.append(program.stdout.readline())
                assert lines[-1], "it ended"
            secrets.refuse("".join(lines), "what it prints")
            yield program, lines
        finally:
            program.terminate()  # so that it removes its files


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_survives_the_end_of_the_program(tmp_path: Path, how: signal.Signals) -> None:
    with everything_up(tmp_path) as (program, _):
        started = children(program.pid)
        assert len(started) >= 4  # PostgreSQL, PostgREST, the gateway, Prefect
        program.send_signal(how)
        program.wait(PATIENCE)
        wait_for(lambda: not alive(started), what="the end of all parts", seen=lambda: alive(started))


def test_prints_addresses_but_keeps_the_keys_in_a_private_file(tmp_path: Path) -> None:
    with everything_up(tmp_path) as (_, lines):
        printed = dict(line.split(maxsplit=1) for line in lines)
        file = tmp_path / "env"
        env = dict(line.removeprefix("export ").split("=", 1) for line in file.read_text().splitlines())
        assert (printed["Supabase"].strip(), printed["Prefect"].strip()) == (
            env["SUPABASE_URL"],
            env["PREFECT_API_URL"],
        )
        assert env["SUPABASE_SERVICE_ROLE_KEY"] not in "".join(lines)
        assert file.stat().st_mode & 0o077 == 0
        assert httpx.get(f"{env['PREFECT_API_URL']}/health").json() is True
