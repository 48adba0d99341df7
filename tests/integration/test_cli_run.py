"""`video-recovery run -f`: the runner without a cluster, as a process with real services."""

import json
import signal
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from devstack import Prefect, Supabase
from tests import secrets, terminal
from tests.loop import Loop
from tests.proxy import at, held
from tests.support import NEVER, SECRET, manifest, stuck_videos
from tests.terminal import PROGRAM, environment
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.integration

BATCH = 100
CREATIONS = at("/create_flow_run/bulk")


@pytest.fixture
def env(tmp_path: Path, supabase: Supabase, prefect: Prefect) -> dict[str, str]:
    """An environment with the credentials of the running services."""
    return environment(tmp_path, supabase.env(), prefect.env())


def write(path: Path, *more: Mapping[str, Any], **spec: Any) -> Path:
    """Write a policy and other manifests; keyword arguments are merged into the policy's spec."""
    path.write_text(yaml.dump_all([manifest(**{"schedule": NEVER, **spec}), *more]))
    return path


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A policy's file; its schedule stays out of the way."""
    return write(tmp_path / "policy.yaml")


def recoveries(prefect: Prefect) -> list[str]:
    """The videos of all flow runs, one for each run."""
    return sorted(run["parameters"]["video_id"] for run in prefect.flow_runs())


# Only once


def test_once_recovers_each_stuck_video_once_and_a_second_time_nothing(env, policy, supabase, prefect):
    videos = stuck_videos(supabase, 3)

    first = terminal.run("run", "-f", policy, "--once", env=env)
    second = terminal.run("run", "-f", policy, "--once", env=env)

    assert (first.code, second.code) == (0, 0)
    [line] = first.err.splitlines()
    assert line.endswith("captionacc/captionacc-prod: Request scan: 3 found: 3 recovered, 0 skipped, 0 failed")
    assert "3 found: 0 recovered, 3 skipped, 0 failed (ActiveFlowRun 3)" in second.err
    assert recoveries(prefect) == sorted(videos)


def test_once_logs_each_decision_with_v(env, policy, supabase):
    [video] = stuck_videos(supabase, 1)

    said = terminal.run("run", "-f", policy, "--once", "-v", env=env)

    assert f"recovered video {video} by flow run" in said.err


def test_once_observes_where_the_policy_says_so(env, policy, supabase, prefect):
    stuck_videos(supabase, 1)

    said = terminal.run("run", "-f", write(policy, mode="Observe"), "--once", env=env)

    assert (said.code, recoveries(prefect)) == (0, [])
    assert "1 found: 0 recovered, 1 skipped, 0 failed (ObserveMode 1)" in said.err


def test_once_reads_the_policy_from_standard_input(env, policy, supabase, prefect):
    videos = stuck_videos(supabase, 1)

    said = terminal.run("run", "-f", "-", "--once", env=env, stdin=policy.read_text())

    assert said.code == 0
    assert recoveries(prefect) == videos


def test_once_logs_json_where_asked_for(env, policy):
    said = terminal.run("run", "-f", policy, "--once", "--log-format", "json", env=env)

    [line] = said.err.splitlines()
    assert json.loads(line)["message"].endswith("Request scan: 0 found: 0 recovered, 0 skipped, 0 failed")


@pytest.mark.parametrize("field", ["stringData", "data"])
@pytest.mark.parametrize("apart", [False, True], ids=["in_one_file", "in_two_files"])
def test_credentials_come_from_a_secret_in_the_files(tmp_path, policy, supabase, prefect, field, apart):
    videos = stuck_videos(supabase, 1)
    values = supabase.env() | prefect.env()
    if field == "data":
        values = {name: b64encode(value.encode()).decode() for name, value in values.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, field: values}
    files: list[str | Path] = ["-f", policy]
    if apart:
        (tmp_path / "secret.yaml").write_text(yaml.dump(secret))
        files += ["-f", tmp_path / "secret.yaml"]
    else:
        write(policy, secret)

    said = terminal.run("run", *files, "--once", env=environment(tmp_path))

    assert said.code == 0, said.err
    assert recoveries(prefect) == videos


def test_once_fails_if_the_scan_ends_early(env, policy, supabase):
    stuck_videos(supabase, 1)

    said = terminal.run("run", "-f", write(policy, prefect={"deployment": "no/such"}), "--once", env=env)

    assert said.code == 1
    assert "Request scan failed: " in said.err
    assert "Traceback" not in said.err


def test_once_fails_if_a_video_could_not_be_recovered(env, policy, supabase):
    stuck_videos(supabase, 1, tenant_id="..")

    said = terminal.run("run", "-f", policy, "--once", env=env)

    assert said.code == 1
    assert "1 found: 0 recovered, 0 skipped, 1 failed" in said.err


# By the schedule


@dataclass
class Running:
    """A runner at work, and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def says(self, text: str, *, times: int = 1) -> None:
        """Wait until the log has a text."""

        def said_so() -> bool:
            return self.log.read_text().count(text) >= times

        wait_for(said_so, what=repr(text), seen=self.log.read_text, meanwhile=self.assert_runs)

    def assert_runs(self) -> None:
        assert self.process.poll() is None, f"it ended:\n{self.log.read_text()}"

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Send a signal and wait for the end; gives the log."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> str:
        """Wait for the end; gives the log."""
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()
        return self.log.read_text()


@contextmanager
def running(tmp_path: Path, env: Mapping[str, str], *arguments: str | Path) -> Iterator[Running]:
    log = tmp_path / "log"
    with log.open("wb") as stream, subprocess.Popen([PROGRAM, "run", *arguments], env=env, stderr=stream) as process:
        try:
            yield Running(process, log)
        finally:
            process.kill()
    secrets.refuse_file(log)


def test_says_what_it_runs_and_leaves_on_a_signal(tmp_path, env, policy):
    for number in (signal.SIGTERM, signal.SIGINT):
        with running(tmp_path, env, "-f", policy) as runner:
            runner.says(f"running policy captionacc-prod of {policy}, with the environment; schedule 0 0 1 1 *")
            said = runner.end(number)
        assert said.splitlines()[-1].endswith(f"{number.name}: stopping; a scan under way finishes its batch")
        assert "Traceback" not in said


def test_a_changed_file_is_taken_and_one_that_cannot_be_used_is_refused(tmp_path, env, policy):
    with running(tmp_path, env, "-f", policy) as runner:
        runner.says("running policy")
        policy.write_text("{")
        runner.says(f"not reloaded, the policy stays as it was: {policy}, line 1: this is no YAML")
        write(policy, schedule="61 * * * *")
        runner.says("not reloaded, the policy stays as it was: spec.schedule: '61 * * * *' is no valid cron line")
        policy.unlink()
        runner.says(f"not reloaded, the policy stays as it was: {policy}: No such file or directory")
        write(policy, suspend=True)
        runner.says(f"reloaded policy captionacc-prod of {policy}, with the environment; suspended")
        said = runner.end()
    assert "Traceback" not in said


def test_sighup_reads_the_file_again(tmp_path, env, policy):
    with running(tmp_path, env, "-f", policy) as runner:
        runner.says("running policy")
        runner.process.send_signal(signal.SIGHUP)
        runner.says("reloaded policy")
        write(policy, suspend=True)
        runner.process.send_signal(signal.SIGHUP)
        runner.says("suspended")
        assert runner.end().count("reloaded policy") == 2


def test_a_secret_that_was_put_right_is_taken(tmp_path, policy, supabase, prefect):
    def secret(key: str) -> dict[str, Any]:
        return {"kind": "Secret", "metadata": {"name": SECRET}, "stringData": supabase.env(key) | prefect.env()}

    write(policy, secret("sb_secret_wrong-0123456789"))
    with running(tmp_path, environment(tmp_path), "-f", policy) as runner:
        runner.says("captionacc/captionacc-prod cannot be scanned: ")
        supabase.reset_requests()
        write(policy, secret(supabase.secret_key))
        runner.says("reloaded policy")
        assert runner.end().count("cannot be scanned") == 1
    assert {request.status for request in supabase.requests} == {200}


def test_sigterm_during_a_scan_ends_it_after_the_batch_with_its_summary(tmp_path, env, policy, supabase, prefect):
    stuck_videos(supabase, 5 * BATCH)
    write(policy, limits={"perScan": 1000, "perTenant": 1000})
    with Loop.start() as loop, loop.serve(f"http://127.0.0.1:{prefect.port}") as to_prefect:
        loop.call(to_prefect.treat, held, CREATIONS, after=1)
        env["PREFECT_API_URL"] = f"{to_prefect.url}/api"
        with running(tmp_path, env, "-f", policy, "--once") as runner:
            wait_for(lambda: to_prefect.count(CREATIONS) == 2, what="the second batch", meanwhile=runner.assert_runs)
            runner.process.send_signal(signal.SIGTERM)
            runner.says("SIGTERM: stopping; a scan under way finishes its batch")
            loop.call(to_prefect.heal)
            said = runner.wait()
    assert prefect.count_flow_runs() == 2 * BATCH
    assert "500 found: 200 recovered, 300 skipped, 0 failed (Interrupted 300)" in said


# Wrong use


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["--once"], "write its file too: video-recovery run -f FILE", id="once_without_a_file"),
        pytest.param(["prod"], "write its file too: video-recovery run -f FILE", id="a_name_without_a_file"),
        pytest.param(["-f", "POLICY", "-n", "x"], "--namespace is about a cluster", id="a_namespace"),
        pytest.param(["-f", "POLICY", "--kubeconfig", "x"], "--kubeconfig is about a cluster", id="a_kubeconfig"),
        pytest.param(["-f", "POLICY", "--context", "x"], "--context is about a cluster", id="a_context"),
        pytest.param(
            ["-f", "POLICY", "--max-concurrent-scans", "4"], "--max-concurrent-scans is about", id="a_number_of_scans"
        ),
        pytest.param(["-f", "-"], "-f - cannot be read again when it changes; write a file's path", id="stdin"),
        pytest.param(["-f", "/dev/stdin"], "-f /dev/stdin cannot be read again when it changes", id="a_pipe"),
        pytest.param(["-f", "missing.yaml"], "missing.yaml: No such file or directory", id="no_such_file"),
        pytest.param(["-f", "POLICY", "other"], "the policies there are captionacc-prod", id="another_name"),
        pytest.param(["-f", "POLICY"], "the environment lacks SUPABASE_URL and", id="no_credentials"),
        pytest.param(["-f", "INVALID"], "spec.schedule: '61 * * * *' is no valid cron line", id="no_schedule"),
        pytest.param(["-f", "INVALID", "--once"], "spec.schedule: '61 * * * *' is no", id="no_schedule_once"),
    ],
)
def test_wrong_use_is_told_in_a_line_or_two(tmp_path, policy, arguments, told):
    variables = {"SUPABASE_URL": "http://x", "SUPABASE_SERVICE_ROLE_KEY": "a-key", "PREFECT_API_URL": "http://x/api"}
    invalid = write(tmp_path / "invalid.yaml", schedule="61 * * * *")
    files = {"POLICY": policy, "INVALID": invalid}
    env = environment(tmp_path, variables if "INVALID" in arguments else {})

    said = terminal.run("run", *(files.get(argument, argument) for argument in arguments), env=env)

    assert said.code == 2, said.err
    assert told in said.err
    assert len(said.err.splitlines()) <= 2
    assert "Traceback" not in said.err
