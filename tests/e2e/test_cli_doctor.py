"""`video-recovery doctor`: each thing that keeps it from working, really caused, and what is said of it."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from controller.api.crd import custom_resource_definition
from devstack import ControlPlane, Supabase
from tests.e2e.conftest import PROJECT, REQUESTED_AT, Controller, Namespace
from tests.support import DEPLOYMENT, SECRET, ago, manifest
from tests.terminal import Said, environment, run

pytestmark = pytest.mark.e2e

OF_CLUSTER = ["API server", "CRD", "Policy", "Controller", "Last scan", "Your permissions", "Controller permissions"]
OF_SERVICES = ["Supabase table", "Prefect", "Deployment", "Work pool", "Workers"]
CRD = "videorecoverypolicies.recovery.captiona.cc"
POOL = "work_pools/video-processing"


class Doctor:
    """The doctor, asked about the policy of a namespace."""

    def __init__(self, home: Path, namespace: Namespace) -> None:
        self.home, self.namespace = home, namespace

    def __call__(self, kubeconfig: Path | None = None) -> Said:
        env = environment(self.home, {"KUBECONFIG": str(kubeconfig or self.namespace.cluster.kubeconfig)})
        return run("doctor", "policy", "-n", self.namespace.name, env=env)


@pytest.fixture
def doctor(namespace: Namespace, tmp_path: Path) -> Doctor:
    return Doctor(tmp_path, namespace)


def lines(said: Said) -> dict[str, str]:
    """Mark and text of each answer by its title."""
    assert "Traceback" not in said.out + said.err
    found = re.findall(r"^([✓✗!-]) (.{22})  (.+)$", said.out, re.MULTILINE)
    return {title.strip(): f"{mark} {text}" for mark, title, text in found}


def failed(said: Said) -> list[str]:
    """The titles of what failed; the exit code and the last line agree."""
    answers = lines(said)
    bad = [title for title, text in answers.items() if text.startswith("✗")]
    verdict = said.out.splitlines()[-1]
    assert said.code == (1 if bad else 0)
    if bad:
        asked = [text for text in answers.values() if not text.startswith("-")]
        assert verdict.startswith(f"{len(bad)} of {len(asked)} checks failed")
    else:
        assert verdict.startswith("All ")
    return bad


def without(said: Said, mark: str) -> list[str]:
    """The titles of the answers with another mark."""
    return [title for title, text in lines(said).items() if not text.startswith(mark)]


# All is well


def test_finds_everything_well_and_changes_nothing(namespace, controller, doctor, supabase, prefect):
    supabase.create_bucket("videos")
    namespace.apply(upload={"bucket": "videos", "objectPath": "{tenant_id}/{id}.mp4"})
    namespace.wait_condition("Ready", "True")
    before = namespace.get()
    supabase.reset_requests()

    said = doctor()

    assert (said.code, said.err) == (0, "")
    assert list(lines(said)) == [*OF_CLUSTER, "Secret and keys", OF_SERVICES[0], "Upload bucket", *OF_SERVICES[1:]]
    assert without(said, "✓") == []
    assert said.out.splitlines()[-1] == "All 14 checks passed."
    assert namespace.get() == before
    assert {request.method for request in supabase.requests} == {"GET"}
    assert prefect.count_flow_runs() == 0


def test_tells_of_the_last_scan_and_the_next(namespace, controller, doctor, supabase):
    namespace.apply()
    namespace.wait_condition("Ready", "True")
    status = namespace.request()

    said = doctor()

    last, following = (
        f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M} UTC"
        for time in (status["lastScan"]["completionTime"], status["nextScheduleTime"])
    )
    assert following.endswith("-01-01 00:00 UTC")
    assert re.fullmatch(
        rf"✓ the last one {last} \(\w+ ago\), the next one {following} \(in \w+\)", lines(said)["Last scan"]
    )


def test_finds_the_only_policy_of_a_namespace(namespace, controller, doctor):
    namespace.apply()
    namespace.wait_condition("Ready", "True")

    said = run(
        "doctor", "-n", namespace.name, "--kubeconfig", namespace.cluster.kubeconfig, env=environment(doctor.home)
    )

    assert failed(said) == []


# The cluster


@contextmanager
def without_project(directory: Path) -> Iterator[tuple[ControlPlane, dict[str, str]]]:
    with ControlPlane.start(directory / "cluster") as cluster:
        yield cluster, environment(directory, {"KUBECONFIG": str(cluster.kubeconfig)})


def test_goes_with_somebody_who_installs_it_from_one_problem_to_the_next(cluster, tmp_path):
    with without_project(tmp_path) as (bare, env):
        said = run("doctor", env=env)
        assert failed(said) == ["CRD"]
        assert lines(said)["CRD"].endswith("install it with: kubectl apply --server-side -f manifests/crd.yaml")
        assert lines(said)["Policy"] == "- not asked: the cluster knows no policies"
        assert lines(said)["Prefect"].startswith("- not asked")

        bare.apply(older_crd())
        bare.kubectl("wait", "--for=condition=Established", "--timeout=300s", f"crd/{CRD}")
        said = run("doctor", env=env)
        assert failed(said) == ["Policy"]
        assert "there is no policy; apply one, such as manifests/example.yaml" in lines(said)["Policy"]
        assert lines(said)["CRD"].startswith(
            f"! {CRD} is of another version: it lacks spec.historyLimit; update it with: kubectl"
        )
        rights = lines(said)["Controller permissions"]
        assert rights.startswith(
            "! in namespace default system:serviceaccount:video-recovery:video-recovery may not get"
        )
        assert "get secrets, create get patch events" in rights
        assert "update videorecoverypolicies/status" in rights
        assert rights.endswith("kubectl apply -f manifests/rbac.yaml")

        bare.apply(PROJECT / "manifests" / "crd.yaml")
        bare.apply(PROJECT / "manifests" / "rbac.yaml")
        said = run("doctor", env=env)
        assert failed(said) == ["Policy"]
        assert lines(said)["CRD"].startswith("✓")
        assert lines(said)["Controller permissions"].startswith("✓")

        bare.stop()
        said = run("doctor", env=env)
        assert failed(said) == ["API server"]
        assert "the API server cannot be reached" in lines(said)["API server"]
        assert without(said, "-") == ["API server"]


def older_crd() -> str:
    definition = custom_resource_definition()
    del definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][
        "historyLimit"
    ]
    return yaml.safe_dump(definition)


def test_says_which_kubeconfig_is_not_there(tmp_path):
    said = run("doctor", "--kubeconfig", tmp_path / "none", env=environment(tmp_path))

    assert failed(said) == ["API server"]
    assert f"there is no file {tmp_path / 'none'}; name a kubeconfig with --kubeconfig" in lines(said)["API server"]


def test_says_that_a_token_is_no_longer_taken(namespace, tmp_path):
    config = json.loads(namespace.cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": "stale"}
    (tmp_path / "stale").write_text(json.dumps(config))

    said = run("doctor", "-n", namespace.name, "--kubeconfig", tmp_path / "stale", env=environment(tmp_path))

    assert failed(said) == ["API server"]
    assert "401 Unauthorized; log in again" in lines(said)["API server"]


def test_says_which_policies_there_are_if_the_named_one_is_not(namespace, doctor):
    namespace.apply("other")

    said = doctor()

    assert failed(said) == ["Policy"]
    assert f"write other -n {namespace.name}" in lines(said)["Policy"]


def test_says_what_a_schedule_that_never_fires_has_to_be(namespace, controller, doctor):
    namespace.apply(schedule="0 0 31 2 *")
    namespace.wait_condition("Stalled", "True", "InvalidSchedule")

    said = doctor()

    assert failed(said) == ["Policy"]
    assert "spec.schedule: '0 0 31 2 *' is no valid cron line" in lines(said)["Policy"]
    assert lines(said)["Last scan"].startswith("! no scan is planned yet")


# The controller


def test_says_that_no_controller_is_running(namespace, doctor):
    namespace.apply()

    said = doctor()

    assert failed(said) == ["Controller"]
    assert lines(said)["Controller"].startswith("✗ no controller has seen the policy; start the controller with")


def test_sees_that_a_controller_was_killed_once_somebody_asks_it_for_something(namespace, controller, doctor):
    kill(namespace, controller)
    namespace.kubectl("annotate", "vrp/policy", f"{REQUESTED_AT}=now")

    said = doctor()

    assert failed(said) == ["Controller"]
    assert "the scan that was asked for (now) has not been done yet" in lines(said)["Controller"]


def test_sees_that_a_controller_was_killed_once_the_policy_is_edited(namespace, controller, doctor):
    kill(namespace, controller)
    namespace.patch_spec({"historyLimit": 3})

    said = doctor()

    assert failed(said) == ["Controller"]
    assert "no controller has seen the latest version of the policy" in lines(said)["Controller"]


def test_sees_that_a_controller_was_killed_once_a_scan_is_overdue(namespace, controller, doctor):
    kill(namespace, controller)
    namespace.patch_status({"nextScheduleTime": ago(minutes=20)})

    said = doctor()

    assert failed(said) == ["Controller", "Last scan"]
    assert "no controller was there when the last scan was due" in lines(said)["Controller"]
    assert re.search(r"overdue since .+ \(2\dm ago\); see whether a controller is running", lines(said)["Last scan"])


def kill(namespace: Namespace, controller: Controller) -> None:
    """Let the controller see the policy, and kill it so that it takes nothing back."""
    namespace.apply()
    namespace.wait_condition("Ready", "True")
    controller.stop(signal.SIGKILL)


def test_warns_of_a_suspended_schedule(namespace, controller, doctor):
    namespace.apply(suspend=True)
    namespace.wait_condition("Ready", "True")

    said = doctor()

    assert failed(said) == []
    assert without(said, "✓") == ["Last scan"]
    assert f"resume policy -n {namespace.name}" in lines(said)["Last scan"]
    assert said.out.splitlines()[-1] == "All 13 checks passed, 1 with a warning."


# Permissions


def test_tells_somebody_with_few_rights_which_commands_will_not_work(namespace, controller, doctor):
    namespace.apply()
    namespace.wait_condition("Ready", "True")
    namespace.kubectl("create", "serviceaccount", "viewer")
    rule = ("--verb=get", f"--resource={CRD}")
    namespace.kubectl("create", "role", "viewer", *rule)
    namespace.kubectl("create", "rolebinding", "viewer", "--role=viewer", f"--serviceaccount={namespace.name}:viewer")

    said = doctor(namespace.cluster.service_account(namespace.name, "viewer"))

    assert failed(said) == []
    answers = lines(said)
    assert answers["Your permissions"].startswith(f"! in namespace {namespace.name} you may not list")
    assert "patch videorecoverypolicies: scan, release, suspend and resume will not work" in answers["Your permissions"]
    assert "you may not get secrets: find, retry and explain will not work" in answers["Your permissions"]
    assert answers["Controller permissions"].startswith("- not asked: you may not ask what others may do")
    assert answers["Secret and keys"] == f"- not asked: you may not read Secret {namespace.name}/{SECRET}"
    assert answers["CRD"].startswith("✓")
    assert answers["Controller"].startswith("✓")


# Secret and keys


def test_says_that_the_secret_is_missing_and_what_goes_into_it(namespace, doctor):
    namespace.apply()
    namespace.kubectl("delete", "secret", SECRET)

    said = doctor()

    assert failed(said) == ["Controller", "Secret and keys"]
    assert lines(said)["Secret and keys"].startswith(
        f"✗ Secret {namespace.name}/{SECRET} does not exist; create it with"
    )
    assert all(lines(said)[title].startswith("- not asked") for title in OF_SERVICES)


def test_repeats_what_the_controller_has_against_the_policy(namespace, controller, doctor):
    namespace.kubectl("delete", "secret", SECRET)
    namespace.apply()
    namespace.wait_condition("Stalled", "True", "SecretNotFound")

    said = doctor()

    assert failed(said) == ["Policy", "Secret and keys"]
    assert re.search(r"is Stalled: Secret .+ does not exist.+\(looked at again every 30 s\)", lines(said)["Policy"])


def test_names_each_key_that_is_missing_and_asks_nothing_then(namespace, doctor):
    namespace.create_secret(SUPABASE_URL="http://127.0.0.1:1")
    namespace.apply()

    said = doctor()

    keys = lines(said)["Secret and keys"]
    assert keys.startswith("✗")
    assert "SUPABASE_SERVICE_ROLE_KEY is missing or empty; write" in keys
    assert "PREFECT_API_URL is missing or empty; write" in keys
    assert lines(said)["Prefect"].startswith("- not asked: it is not known where Prefect is")


def test_a_public_key_of_supabase_does_not_keep_prefect_from_being_asked(namespace, doctor, supabase, prefect):
    namespace.create_secret(**{**namespace.credentials, "SUPABASE_SERVICE_ROLE_KEY": supabase.anon_key})
    namespace.apply()

    said = doctor()

    assert failed(said) == ["Controller", "Secret and keys"]
    assert "SUPABASE_SERVICE_ROLE_KEY is a public key, which sees no videos" in lines(said)["Secret and keys"]
    assert lines(said)["Supabase table"].startswith("- not asked")
    assert lines(said)["Workers"].startswith("✓")


def test_a_missing_address_of_prefect_does_not_keep_supabase_from_being_asked(namespace, doctor, supabase):
    namespace.create_secret(**supabase.env())
    namespace.apply()

    said = doctor()

    assert failed(said) == ["Controller", "Secret and keys"]
    assert lines(said)["Supabase table"].startswith("✓")


# The services


@pytest.fixture
def watched(namespace: Namespace, controller: Controller) -> Namespace:
    """A namespace whose policy would be well."""
    namespace.apply()
    namespace.wait_condition("Ready", "True")
    return namespace


def test_says_that_the_table_is_not_there(namespace, doctor):
    namespace.apply(supabase={"table": "films"})

    said = doctor()

    assert failed(said) == ["Controller", "Supabase table"]
    assert "Supabase has no table captionacc.films; write one" in lines(said)["Supabase table"]


def test_says_which_column_is_not_there_and_which_bucket(namespace, doctor, supabase):
    columns = {"name": "title"}
    namespace.apply(supabase={"columns": columns}, upload={"bucket": "uploads", "objectPath": "{tenant_id}/{id}.mp4"})

    said = doctor()

    assert failed(said) == ["Controller", "Supabase table", "Upload bucket"]
    assert "lacks a column" in lines(said)["Supabase table"]
    assert "title" in lines(said)["Supabase table"]
    assert "no bucket 'uploads'; create it" in lines(said)["Upload bucket"]


def test_says_that_supabase_cannot_be_reached_and_goes_on_with_prefect(watched, doctor):
    nowhere = "http://127.0.0.1:9"
    watched.create_secret(**{**watched.credentials, "SUPABASE_URL": nowhere})
    watched.request()

    said = doctor()

    assert failed(said) == ["Last scan", "Supabase table"]
    assert re.search("Supabase cannot be reached.+whether SUPABASE_URL leads there", lines(said)["Supabase table"])
    assert re.search(r"ended early: Supabase cannot be reached.+ scan policy -n", lines(said)["Last scan"])
    assert lines(said)["Workers"].startswith("✓")


def test_says_that_prefect_cannot_be_reached(watched, doctor):
    nowhere = "http://127.0.0.1:9/api"
    watched.create_secret(**{**watched.credentials, "PREFECT_API_URL": nowhere})

    said = doctor()

    assert failed(said) == ["Prefect"]
    assert said.err == ""
    assert re.search("Prefect cannot be reached.+; see whether it runs, and whether PREFECT_API_URL", said.out)
    assert lines(said)["Workers"] == "- not asked: Prefect has failed already"


def test_says_that_the_address_of_prefect_leads_elsewhere(watched, doctor, supabase):
    watched.create_secret(**{**watched.credentials, "PREFECT_API_URL": supabase.url})

    said = doctor()

    assert failed(said) == ["Prefect"]
    assert "PREFECT_API_URL" in lines(said)["Prefect"]


def test_says_that_the_deployment_is_not_there(namespace, doctor):
    namespace.apply(prefect={"deployment": "no-flow/no-deployment"})

    said = doctor()

    assert failed(said) == ["Controller", "Deployment"]
    assert "Prefect has no deployment 'no-flow/no-deployment'; write flow/deployment" in lines(said)["Deployment"]
    assert lines(said)["Work pool"] == "- not asked: there is no deployment"


def test_says_that_the_deployment_is_paused_and_looks_at_its_pool_all_the_same(watched, doctor, prefect):
    deployment = prefect.deployment(DEPLOYMENT)["id"]
    prefect.http.post(f"deployments/{deployment}/pause_deployment").raise_for_status()
    try:
        said = doctor()
    finally:
        prefect.http.post(f"deployments/{deployment}/resume_deployment").raise_for_status()

    assert failed(said) == ["Deployment"]
    assert "is paused; resume it in Prefect" in lines(said)["Deployment"]
    assert lines(said)["Work pool"].startswith("✓")


def test_names_the_parameters_that_the_flow_does_not_take(namespace, doctor, prefect):
    name = "strict-flow/strict"
    takes = {"video_id": {"type": "string"}, "bucket": {"type": "string"}}
    schema = {"type": "object", "properties": takes, "required": ["video_id", "bucket"]}
    prefect.create_deployment(name, parameter_openapi_schema=schema, enforce_parameter_schema=True)
    namespace.apply(prefect={"deployment": name})

    said = doctor()

    assert failed(said) == ["Controller", "Deployment"]
    assert lines(said)["Deployment"].endswith(
        "spec.prefect.parameters: the flow needs bucket, and the flow has no parameter storage_key and no tenant_id; "
        "write those it takes: bucket, video_id"
    )


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        pytest.param(POOL, "work pool 'video-processing' is paused; resume it", id="pool"),
        pytest.param(f"{POOL}/queues/default", "work queue 'default' is paused; resume it", id="queue"),
    ],
)
def test_says_what_is_paused(watched, doctor, prefect, path, problem):
    prefect.http.patch(path, json={"is_paused": True}).raise_for_status()
    try:
        said = doctor()
    finally:
        prefect.http.patch(path, json={"is_paused": False}).raise_for_status()

    assert failed(said) == ["Work pool"]
    assert problem in lines(said)["Work pool"]


def test_says_how_to_start_a_worker_where_none_is_online(watched, doctor, prefect):
    prefect.http.delete(f"{POOL}/workers/pretended").raise_for_status()

    said = doctor()

    assert failed(said) == ["Workers"], "the pool counts as ready until Prefect looks for workers that are gone"
    assert lines(said)["Workers"].endswith("start one: prefect worker start --pool video-processing")


def test_says_that_nobody_ever_polled_the_pool(namespace, doctor, prefect):
    prefect.create_deployment("idle-flow/idle", work_pool="idle pool")
    namespace.apply(prefect={"deployment": "idle-flow/idle"})

    said = doctor()

    assert failed(said) == ["Controller", "Work pool", "Workers"]
    assert "no worker polls work pool 'idle pool'; start one" in lines(said)["Work pool"]
    assert lines(said)["Workers"].endswith("idle pool; start one: prefect worker start --pool 'idle pool'")


def test_needs_no_worker_for_a_pool_that_pushes_its_runs(namespace, controller, doctor, prefect):
    prefect.create_work_pool("pushing", kind="cloud-run:push")
    prefect.create_deployment("pushed-flow/pushed", work_pool="pushing")
    namespace.apply(prefect={"deployment": "pushed-flow/pushed"})
    namespace.wait_condition("Ready", "True")

    said = doctor()

    assert lines(said)["Workers"] == "✓ none needed: work pool pushing is of type cloud-run:push"


# Without a cluster


def test_asks_only_the_services_where_there_is_nothing_but_the_environment(supabase: Supabase, prefect, tmp_path):
    env = environment(tmp_path, supabase.env(), prefect.env(), {"SUPABASE_SCHEMA": "captionacc"})

    said = run("doctor", env=env)

    assert failed(said) == []
    assert list(lines(said)) == ["Settings", *OF_SERVICES]
    assert said.out.splitlines()[-1] == "All 6 checks passed."


def test_finds_fault_with_the_services_of_a_file(supabase, prefect, tmp_path):
    body = manifest(supabase={"table": "films"}, schedule="0 0 31 2 *")
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(body))

    said = run("doctor", "-f", tmp_path / "policy.yaml", env=environment(tmp_path, supabase.env(), prefect.env()))

    assert failed(said) == ["Settings", "Supabase table"]
    assert "is no valid cron line" in lines(said)["Settings"]
    assert lines(said)["Workers"].startswith("✓")


def test_settings_that_are_missing_are_wrong_use(supabase, tmp_path):
    said = run("doctor", env=environment(tmp_path, supabase.env()))

    assert (said.code, said.out) == (2, "")
    assert "the environment lacks PREFECT_API_URL; set it" in said.err


def test_shows_no_escapes_to_a_program(tmp_path):
    said = run("doctor", env=environment(tmp_path))

    assert "\x1b" not in said.out
