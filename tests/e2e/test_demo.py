"""The demonstration, as a new user runs it."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pexpect
import pytest

from demo.without_cluster import show_without_cluster
from devstack import ControlPlane, Stack
from devstack.cache import cache_root
from devstack.controlplane.programs import ASSETS_VARIABLE, find_programs
from tests.waiting import wait_for

PROJECT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "demo"]
PART_1, PART_2 = "Part 1: without a cluster", "Part 2: with a controller in a cluster"
BUILDING = "Building the Kubernetes API server (once, 5 to 10 minutes)"

COMPILER = """#!/bin/sh
# Takes the place of Go: it "builds" until it is told to end, with a process of its own beside it as Go has.
sleep 600 &
echo "$$ $!" > {pids}
while [ ! -e {finish} ]; do sleep 0.1; done
kill $!
while [ "$1" != -o ]; do shift; done
cp {binary} "$2"
"""


@pytest.mark.e2e
def test_tells_the_whole_story_and_leaves_nothing_behind(cluster: ControlPlane):
    finished = subprocess.run(DEMO, cwd=PROJECT, capture_output=True, text=True, timeout=300)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    story = finished.stdout
    assert "7 found: 4 recovered, 3 skipped, 0 failed (ActiveFlowRun 2, RecentlyProcessed 1)" in story
    assert "All 4 are ready" in story
    assert "3 found: 0 recovered, 3 skipped, 0 failed" in story
    assert '"confirmed":4' in story
    assert "Traceback" not in story + finished.stderr
    assert "everything that was started is stopped" in story.splitlines()[-1]
    check_both_parts(story)


def check_both_parts(story: str) -> None:
    """Each part recovers the same four videos, and the one that needs no cluster comes first."""
    first, second = story.split(PART_2)
    assert PART_1 in first
    assert "Successfully triggered: 4" in first
    assert "kubectl" not in first
    assert "7 found: 4 recovered, 3 skipped, 0 failed" in second
    assert first.count("All 4 are ready") == second.count("All 4 are ready") == 1


@pytest.mark.e2e
def test_keeps_everything_running_until_it_is_interrupted(cluster: ControlPlane, tmp_path: Path):
    output = tmp_path / "output"
    with output.open("w") as stream:
        process = subprocess.Popen([*DEMO, "--keep"], cwd=PROJECT, stdout=stream, stderr=subprocess.STDOUT)
    try:
        wait_for(
            lambda: "kubectl explain" in output.read_text() or process.poll() is not None, what="the hints", seconds=180
        )
        kubeconfig = output.read_text().split("export KUBECONFIG=")[1].splitlines()[0]
        shown = subprocess.run(
            [cluster.kubectl_program, "get", "vrp", "-A"],
            env={**os.environ, "KUBECONFIG": kubeconfig},
            capture_output=True,
            text=True,
        )
        assert "captionacc-prod" in shown.stdout, shown.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=180) == 130
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in output.read_text(), output.read_text()


@pytest.mark.integration
def test_runs_the_policy_from_its_file_where_there_is_no_cluster(capsys):
    with Stack.start(control_plane=False) as stack:
        show_without_cluster(stack)

    story = capsys.readouterr().out
    assert "Total videos found:     7" in story
    assert "Successfully triggered: 4" in story
    assert "Skipped:                3  (ActiveFlowRun 2, RecentlyProcessed 1)" in story
    assert "✗ No flow run works on it" in story
    assert "All 4 are ready" in story
    assert story.count("Successfully triggered: 0") == 1


@dataclass
class FreshMachine:
    """A machine on which the API server was never built, and where building it takes as long as a test wants.

    Attributes:
        env: The environment of a program that runs there.
        cache: Where it keeps what was built.
    """

    place: Path
    env: dict[str, str] = field(init=False)
    cache: Path = field(init=False)

    def __post_init__(self) -> None:
        self.cache = self.place / "cache" / "video-recovery"
        self.cache.mkdir(parents=True)
        for part in ("postgrest", "prefect"):
            for built in cache_root().glob(f"{part}-*[!k]"):  # not its lock
                (self.cache / built.name).symlink_to(built)
        programs = self.place / "bin"
        programs.mkdir()
        compiler = programs / "go"
        binary = find_programs().directory / "controlplane"
        compiler.write_text(COMPILER.format(pids=self._pids, finish=self._finish, binary=binary))
        compiler.chmod(0o755)
        path = f"{programs}:{os.environ['PATH']}"
        self.env = {**os.environ, "XDG_CACHE_HOME": str(self.cache.parent), "PATH": path}

    @property
    def _pids(self) -> Path:
        return self.place / "pids"

    @property
    def _finish(self) -> Path:
        return self.place / "finish"

    @property
    def compilers(self) -> list[int]:
        """The processes of the build."""
        return [int(pid) for pid in self._pids.read_text().split()]

    def finish_build(self) -> None:
        """Let the build end, and succeed."""
        self._finish.touch()

    def demo(self) -> "pexpect.spawn[str]":
        """Run the demonstration on a terminal."""
        return pexpect.spawn(DEMO[0], DEMO[1:], cwd=PROJECT, env=self.env, encoding="utf-8", timeout=120)


@pytest.fixture
def fresh_machine(cluster: ControlPlane, tmp_path: Path) -> FreshMachine:
    if not cluster.own or ASSETS_VARIABLE in os.environ:
        pytest.skip("nothing is built where a cluster or its programs are given")
    return FreshMachine(tmp_path)


@pytest.mark.e2e
def test_shows_what_needs_no_cluster_while_the_api_server_is_built(fresh_machine: FreshMachine):
    demo = fresh_machine.demo()
    try:
        demo.expect_exact(PART_2)
        first = demo.before or ""
        demo.expect(r"minutes\) … \d+ s")  # on one line that moves
        demo.expect(r"minutes\) … \d+ s")
        waiting = demo.before or ""
        fresh_machine.finish_build()
        demo.expect_exact(f"{BUILDING} took")
        demo.expect(pexpect.EOF, timeout=180)
        second = demo.before or ""
        assert demo.wait() == 0, second
    finally:
        demo.close(force=True)
    assert "\n" not in waiting
    check_both_parts(first + PART_2 + second)


@pytest.mark.e2e
@pytest.mark.parametrize(
    "during", [pytest.param(PART_1, id="while part 1 is shown"), pytest.param(f"{BUILDING} …", id="while part 2 waits")]
)
def test_ctrl_c_ends_the_build_too_and_leaves_nothing(fresh_machine: FreshMachine, during: str):
    demo = fresh_machine.demo()
    try:
        demo.expect_exact(during)
        compilers = fresh_machine.compilers
        demo.sendintr()
        demo.expect(pexpect.EOF)
        assert "everything that was started is stopped" in (demo.before or "")
        assert "Traceback" not in (demo.before or "")
        assert demo.wait() == 130
    finally:
        demo.close(force=True)
    wait_for(lambda: not any(runs(pid) for pid in compilers), what="the end of the build's processes", seconds=10)
    assert [left.name for left in fresh_machine.cache.glob("controlplane*") if left.suffix != ".lock"] == []


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for somebody to ask how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.e2e
def test_shows_the_first_part_where_go_is_missing_and_says_what_to_install(fresh_machine: FreshMachine, tmp_path: Path):
    programs = tmp_path / "without-go"
    programs.mkdir()
    (programs / "nice").symlink_to("/usr/bin/nice")
    env = {**fresh_machine.env, "PATH": str(programs)}

    finished = subprocess.run(DEMO, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=120)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    first, second = finished.stdout.split(PART_2)
    assert "All 4 are ready" in first
    assert "install Go 1.26 or newer" in second
    assert "Traceback" not in finished.stdout + finished.stderr
