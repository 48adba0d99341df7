"""The command line with a cluster: `kubectl video-recovery …`, through a real kubectl."""

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from syrupy.assertion import SnapshotAssertion

from tests import terminal
from tests.e2e.conftest import REQUESTED_AT, Controller, Namespace
from tests.support import DEPLOYMENT, ago, merge
from tests.terminal import PLUGIN, Said, Terminal, video_id
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.e2e


@dataclass
class Person:
    """Somebody with a kubectl, and the plugin on the PATH."""

    namespace: Namespace
    home: Path

    @property
    def env(self) -> dict[str, str]:
        path = os.pathsep.join([str(PLUGIN.parent), os.environ["PATH"]])
        return terminal.environment(self.home, {"KUBECONFIG": str(self.namespace.cluster.kubeconfig), "PATH": path})

    def types(self, *arguments: str, env: dict[str, str] | None = None) -> Said:
        """`kubectl video-recovery …`."""
        kubectl = self.namespace.cluster.kubectl_program
        return terminal.run("video-recovery", *arguments, program=kubectl, env=self.env if env is None else env)

    def here(self, command: str, *arguments: str) -> Said:
        """The same with the test's namespace."""
        return self.types(command, *arguments, "-n", self.namespace.name)

    def stable(self, said: Said) -> str:
        return terminal.stable(said, ages=["45m"], names={self.namespace.name: "captionacc"})


@pytest.fixture
def person(namespace: Namespace, tmp_path: Path) -> Person:
    return Person(namespace, tmp_path)


@pytest.fixture
def watched(person: Person, controller: Controller) -> Person:
    """A person with a policy that a controller watches."""
    person.namespace.apply()
    person.namespace.wait_condition("Ready", "True")
    return person


def insert(person: Person, number: int, **columns: Any) -> str:
    row = {"id": video_id(number), "tenant_id": "acme", "display_path": f"video-{number}.mp4", "status": "pending"}
    person.namespace.supabase.insert_videos([merge({**row, "created_at": ago(minutes=45, seconds=20)}, columns)])
    return video_id(number)


def recovered(person: Person) -> list[str]:
    return sorted(run["parameters"]["video_id"] for run in person.namespace.prefect.flow_runs())


# Which policy


def test_takes_the_policy_and_its_secret_from_the_cluster(person: Person, snapshot: SnapshotAssertion):
    person.namespace.apply()
    insert(person, 1)

    assert person.stable(person.here("find")) == snapshot


def test_the_hint_can_be_typed_as_it_is(person: Person):
    person.namespace.apply()
    insert(person, 1)
    hint = person.here("find").out.splitlines()[-1].split()

    said = person.types(*hint[2:])

    assert hint[:2] == ["kubectl", "video-recovery"]
    assert said.code == 0
    assert recovered(person) == [video_id(1)]


def test_names_the_policies_where_there_is_more_than_one(person: Person):
    person.namespace.apply("one")
    person.namespace.apply("two")

    said = person.here("find")

    assert (said.code, said.out) == (2, "")
    where = person.namespace.name
    assert f"more than one policy in namespace {where}; write one -n {where} or two -n {where}" in said.err


def test_names_what_there_is_where_the_name_is_wrong(person: Person):
    person.namespace.apply()

    said = person.here("status", "polcy")

    assert said.code == 2
    name = person.namespace.name
    assert said.err == f"Error: there is no policy {name}/polcy; write policy -n {name}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(["--kubeconfig", "/no/such/file"], "there is no file /no/such/file", id="no_kubeconfig"),
        pytest.param(["--context", "no-such"], "no-such", id="no_such_context"),
    ],
)
def test_a_way_to_no_cluster_is_named(person: Person, arguments, expected):
    said = person.types("find", *arguments)

    assert said.code == 2
    assert expected in said.err
    assert len(said.err.splitlines()) == 1


def test_says_what_to_set_where_there_is_nothing_at_all(person: Person, tmp_path: Path):
    said = terminal.run("find", env=terminal.environment(tmp_path))

    assert said.code == 2
    for way in ("--kubeconfig FILE", "-f FILE", "SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY, PREFECT_API_URL"):
        assert way in said.err


def test_a_secret_that_is_missing_is_named(person: Person):
    person.namespace.apply()
    person.namespace.kubectl("delete", "secret", "captionacc-credentials")

    said = person.here("find")

    assert said.code == 1
    assert f"Error: Secret {person.namespace.name}/captionacc-credentials does not exist; create it" in said.err


def test_the_environment_is_used_where_it_is_set_and_nothing_names_a_cluster(person: Person):
    env = {**person.env, **person.namespace.credentials, "SUPABASE_SCHEMA": "captionacc"}

    assert "Settings: the environment" in person.types("find", env=env).err


# Asking the controller


def test_a_scan_waits_for_its_own_request_and_shows_the_outcome(watched: Person, snapshot: SnapshotAssertion):
    insert(watched, 1)

    said = watched.here("scan")

    assert watched.stable(said) == snapshot
    assert recovered(watched) == [video_id(1)]


def test_a_scan_without_waiting_only_asks(watched: Person):
    said = watched.here("scan", "--no-wait")

    assert (said.code, said.out) == (0, "")
    token = watched.namespace.get()["metadata"]["annotations"][REQUESTED_AT]
    watched.namespace.wait_served(token)


def test_a_scan_is_not_narrowed_by_a_video_that_was_named_before(watched: Person):
    insert(watched, 1)
    watched.namespace.request(requestedVideo="somebody-else")

    watched.here("scan")

    assert recovered(watched) == [video_id(1)]


def test_a_scan_that_fails_is_a_failure(watched: Person):
    insert(watched, 1)
    watched.namespace.patch_spec({"prefect": {"deployment": "no/such"}})
    watched.namespace.wait_condition("Stalled", "True")

    said = watched.here("scan")

    assert said.code == 1
    assert "Ended early: spec.prefect.deployment: Prefect has no deployment 'no/such'" in said.out


def test_a_request_that_nobody_serves_ends_in_time_and_says_where_to_look(person: Person):
    person.namespace.apply()
    said = person.here("scan", "--timeout", "2s")

    assert said.code == 1
    assert "the controller did not serve the request in time; see `kubectl video-recovery doctor`" in said.err


def test_waits_for_the_request_that_took_the_place_of_its_own(person: Person, controller: Controller):
    person.namespace.apply()
    person.namespace.wait_condition("Ready", "True")
    controller.stop()
    said: list[Said] = []
    asking = threading.Thread(target=lambda: said.append(person.here("scan", "--timeout", "10m")))
    asking.start()
    wait_for(
        lambda: REQUESTED_AT in person.namespace.get()["metadata"].get("annotations", {}),
        what="the request",
        seen=person.namespace.get,
    )
    person.namespace.kubectl("annotate", "--overwrite", "vrp/policy", f"{REQUESTED_AT}=another")
    status = {"totals": {"scans": 1}, "lastHandledReconcileAt": "another"}
    scan = {"trigger": "Request", "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:01Z"}
    person.namespace.patch_status({**status, "lastScan": scan})
    asking.join(PATIENCE)

    assert said[0].code == 0
    assert "Another request (another) took the place of this one" in said[0].err


def test_ctrl_c_while_it_waits_leaves_the_request_and_says_so(person: Person):
    person.namespace.apply()
    kubectl = person.namespace.cluster.kubectl_program
    terminal = Terminal("video-recovery", "scan", "-n", person.namespace.name, env=person.env, program=kubectl)
    terminal.wait_for("Asked the controller")
    terminal.wait_for("Waiting for the controller")
    terminal.child.sendintr()

    assert terminal.end() == 130
    assert "The request stays: the controller serves it all the same." in terminal.text
    assert "Traceback" not in terminal.text
    assert REQUESTED_AT in person.namespace.get()["metadata"]["annotations"]


def test_release_recovers_a_quarantined_video_and_leaves_no_trap(watched: Person, snapshot: SnapshotAssertion):
    watched.namespace.patch_spec({"retry": {"maxAttempts": 1}, "stuck": {"recentRunWindow": "0s"}})
    insert(watched, 1)
    watched.here("scan")
    [run] = watched.namespace.prefect.flow_runs()
    watched.namespace.prefect.set_state(run["id"], "CRASHED")
    assert "Quarantined 1" in watched.here("scan").out
    assert f"  {video_id(1)}\n" in watched.here("status").out

    said = watched.here("release", "--video-id", video_id(1))

    assert watched.stable(said) == snapshot
    assert len(recovered(watched)) == 2
    annotations = watched.namespace.get()["metadata"]["annotations"]
    assert "recovery.captiona.cc/requestedVideo" not in annotations


def test_release_tells_an_unknown_video_from_one_that_is_not_stuck(watched: Person):
    insert(watched, 1, status="ready")

    unknown = watched.here("release", "--video-id", video_id(99))
    ready = watched.here("release", "--video-id", video_id(1))

    assert (unknown.code, ready.code) == (1, 1)
    assert f"video {video_id(99)} was not released: not found in captionacc.videos" in unknown.err
    assert "was not released: not stuck (its status is ready; stuck are uploading, pending)" in ready.err


def test_release_says_why_a_video_was_left_alone(watched: Person):
    watched.namespace.prefect.create_flow_run(
        watched.namespace.prefect.create_deployment(DEPLOYMENT), "RUNNING", parameters={"video_id": insert(watched, 1)}
    )

    said = watched.here("release", "--video-id", video_id(1))

    assert said.code == 1
    assert f"Error: video {video_id(1)} was not released: ActiveFlowRun: flow run" in said.err


# The schedule


def test_suspends_and_resumes(watched: Person):
    name = watched.namespace.name
    assert watched.here("suspend").out == f"policy {name}/policy is suspended\n"
    assert watched.namespace.get()["spec"]["suspend"] is True
    assert watched.here("suspend").out == f"policy {name}/policy is already suspended\n"
    assert "Next scan: none while suspended; kubectl video-recovery resume policy" in watched.here("status").out
    assert watched.here("resume").out.startswith(f"policy {name}/policy is resumed; the next scan comes 20")
    assert watched.namespace.get()["spec"]["suspend"] is False
    assert watched.here("resume").out.startswith(f"policy {name}/policy is already active; the next scan comes 20")


# Looking


def test_shows_how_a_policy_is(watched: Person, snapshot: SnapshotAssertion):
    insert(watched, 1)
    insert(watched, 2, status="uploading")
    watched.here("scan")

    said = watched.here("status")

    assert watched.stable(said) == snapshot


def test_shows_recent_scans_with_a_picture(watched: Person):
    insert(watched, 1)
    watched.here("scan")
    watched.here("scan")
    watched.here("scan")

    said = watched.here("history")
    lines = said.out.splitlines()

    assert [line.split()[0] for line in lines[:4]] == ["Run", "3", "2", "1"]
    assert lines[4:] == ["", "Found      ███  at most 1", "Recovered  █··  at most 1"]


def test_shows_one_scan_by_its_number(watched: Person):
    insert(watched, 1)
    watched.here("scan")
    watched.here("scan")

    first, last, none = (watched.here("history", number) for number in ("1", "2", "3"))

    assert "Recovered: 1" in first.out
    assert "Decisions are kept for the last scan only" in first.out
    assert "ActiveFlowRun" in last.out
    assert (none.code, none.err) == (2, "Error: the history has no scan 3; write a number from the table: 1 to 2\n")


def test_explains_a_video_of_a_policy_in_the_cluster(watched: Person):
    insert(watched, 1)
    watched.here("suspend")

    said = watched.here("explain", "--video-id", video_id(1))

    assert "A scan would recover it" in said.out
    assert "But the policy is suspended" in said.out


# Rights


def test_somebody_without_rights_is_told_which(person: Person):
    person.namespace.apply()
    person.namespace.kubectl("create", "serviceaccount", "nobody")
    kubeconfig = person.namespace.cluster.service_account(person.namespace.name, "nobody")

    said = person.types("status", "--kubeconfig", str(kubeconfig), "-n", person.namespace.name)

    assert said.code == 1
    assert "403" in said.err
    assert "ask for the right to get and list them" in said.err
    assert len(said.err.splitlines()) == 1


def test_somebody_who_may_see_one_namespace_needs_not_name_it(person: Person):
    person.namespace.apply()
    insert(person, 1)
    name = person.namespace.name
    for noun, arguments in {
        "serviceaccount": ["operator"],
        "role": ["operator", "--verb=get,list", "--resource=secrets,videorecoverypolicies.recovery.captiona.cc"],
        "rolebinding": ["operator", "--role=operator", f"--serviceaccount={name}:operator"],
    }.items():
        person.namespace.kubectl("create", noun, *arguments)
    kubeconfig = person.namespace.cluster.service_account(name, "operator")
    loaded = yaml.safe_load(kubeconfig.read_text())
    loaded["contexts"][0]["context"]["namespace"] = name
    kubeconfig.write_text(json.dumps(loaded))

    said = person.types("find", "-o", "name", "--kubeconfig", str(kubeconfig))

    assert (said.code, said.out) == (0, f"{video_id(1)}\n"), said.err


def test_a_verbose_error_shows_where_it_came_from(person: Person):
    plain, verbose = person.here("status", "nope"), person.here("status", "nope", "-v")

    assert "Traceback" not in plain.err
    assert "Traceback" in verbose.err
    assert verbose.err.splitlines()[-1] == plain.err.splitlines()[-1]


def test_shows_the_wide_table_in_json_too(person: Person):
    person.namespace.apply()
    insert(person, 1)

    data = json.loads(person.here("find", "--json").out)

    assert data["policy"] == {"namespace": person.namespace.name, "name": "policy"}


def test_kubectl_completes_the_plugins_commands_and_options(person: Person):
    kubectl = person.namespace.cluster.kubectl_program
    commands = terminal.run("__complete", "video-recovery", "re", program=kubectl, env=person.env)
    options = terminal.run("__complete", "video-recovery", "find", "--te", program=kubectl, env=person.env)

    assert [line.split("\t")[0] for line in commands.out.splitlines()] == ["retry", "release", "resume", ":4"]
    assert [line.split("\t")[0] for line in options.out.splitlines()] == ["--tenant", ":4"]
