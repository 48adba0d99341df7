"""Child processes: readiness, logs, and that nothing survives."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from devstack import Broken
from devstack.ports import free_port, on_free_ports
from devstack.process import Child
from tests.waiting import wait_for

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waits for counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_waits_until_the_probe_says_ready(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    script = "import pathlib, sys, time; time.sleep(0.2); pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    child = Child.start("it", [sys.executable, "-c", script, flag], log=tmp_path / "log", ready=flag.exists)
    assert flag.exists()
    child.stop()
    assert gone(child.pid)


def test_shows_the_end_of_the_log_of_a_child_that_ends_early(tmp_path: Path) -> None:
    script = "import sys; print('line 1'); sys.exit('no database here')"
    with pytest.raises(Broken, match=r"(?s)it ended with status 1 before it was ready.*no database here"):
        Child.start("it", [sys.executable, "-c", script], log=tmp_path / "log", ready=lambda: False)


def test_kills_a_child_that_does_not_become_ready_in_time(tmp_path: Path) -> None:
    def probe() -> bool:
        raise ConnectionError("nobody listens")

    with pytest.raises(Broken, match=r"not ready within 0 s \(nobody listens\)"):
        Child.start("it", SLEEP, log=tmp_path / "log", ready=probe, timeout=0.1)


def test_says_which_program_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="/no/such/program: No such file"):
        Child.start("it", ["/no/such/program"], log=tmp_path / "log", ready=lambda: False)


def test_kills_a_child_that_ignores_the_polite_signal(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    script = "import pathlib, signal, sys, time; signal.signal(15, signal.SIG_IGN); pathlib.Path(sys.argv[1]).touch()"
    command = [sys.executable, "-c", f"{script}; time.sleep(60)", str(flag)]
    child = Child.start("it", command, log=tmp_path / "log", ready=flag.exists)
    child.stop(grace=0.1)
    assert gone(child.pid)


def test_takes_the_grandchildren_along(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"import pathlib, subprocess, sys, time; p = subprocess.Popen({SLEEP!r})"
    command = [
        sys.executable,
        "-c",
        f"{script}; pathlib.Path(sys.argv[1]).write_text(str(p.pid)); time.sleep(60)",
        str(note),
    ]
    child = Child.start("it", command, log=tmp_path / "log", ready=lambda: bool(note.read_text()))
    child.stop()
    wait_for(lambda: gone(int(note.read_text())), what="the end of the grandchild")


def test_a_child_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    started: list[Child] = []
    thread = threading.Thread(target=lambda: started.append(Child.start("it", SLEEP, log=tmp_path / "log")))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert started[0].running
    started[0].stop()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_the_program_that_started_it(tmp_path: Path, how: signal.Signals) -> None:
    program = (
        "import sys, time; from pathlib import Path; from devstack.process import Child\n"
        f"child = Child.start('it', {SLEEP!r}, log=Path(sys.argv[1]))\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "log"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.send_signal(how)
    wait_for(lambda: gone(pid), what="the end of the child")


def test_takes_another_port_where_the_first_one_is_taken() -> None:
    ports: list[int] = []

    def start(port: int) -> int:
        ports.append(port)
        if len(ports) == 1:
            raise Broken("listen tcp 127.0.0.1:1: bind: address already in use")
        return port

    assert on_free_ports(start) == ports[1]


def test_does_not_try_again_after_another_failure() -> None:
    tries: list[int] = []

    def start(port: int) -> None:
        tries.append(port)
        raise Broken("no such database")

    with pytest.raises(Broken, match="no such database"):
        on_free_ports(start)
    assert len(tries) == 1


def test_free_ports_are_not_those_of_outgoing_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(free_port() < lowest for _ in range(20))
