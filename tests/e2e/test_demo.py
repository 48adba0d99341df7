"""The demonstration, as a new user runs it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from demo.without_cluster import show_without_cluster
from devstack import ControlPlane, Stack
from tests.e2e.conftest import wait_for

PROJECT = Path(__file__).parents[2]


@pytest.mark.e2e
def test_tells_the_whole_story_and_leaves_nothing_behind(cluster: ControlPlane):
    finished = subprocess.run([sys.executable, "-m", "demo"], cwd=PROJECT, capture_output=True, text=True, timeout=300)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    story = finished.stdout
    assert "7 found: 4 recovered, 3 skipped, 0 failed (ActiveFlowRun 2, RecentlyProcessed 1)" in story
    assert "All 4 are ready" in story
    assert "3 found: 0 recovered, 3 skipped, 0 failed" in story
    assert '"confirmed":4' in story
    assert "Traceback" not in story + finished.stderr
    assert "everything that was started is stopped" in story.splitlines()[-1]


@pytest.mark.e2e
def test_keeps_everything_running_until_it_is_interrupted(cluster: ControlPlane, tmp_path: Path):
    output = tmp_path / "output"
    with output.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "demo", "--keep"], cwd=PROJECT, stdout=stream, stderr=subprocess.STDOUT
        )
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
    assert story.count("Successfully triggered: 0") == 1
