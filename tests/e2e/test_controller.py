"""The controller as its users meet it: kubectl against a real API server, real PostgREST, a real Prefect server."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devstack import ControlPlane, Prefect, Supabase
from tests.e2e.conftest import Controller, Namespace, run_controller
from tests.loop import Loop
from tests.proxy import at, held
from tests.support import DEPLOYMENT, NEVER, stuck_videos
from tests.waiting import PATIENCE, wait_for

pytestmark = pytest.mark.e2e


class Hourly:
    """A schedule that fires once in an hour, ten minutes ago for the last time."""

    def __init__(self) -> None:
        self._last = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=10)
        self.line = f"{self._last.minute} * * * *"

    def slot(self, *, hours_before: int = 0) -> str:
        """The last time, or one before it, as a status has it."""
        return (self._last - timedelta(hours=hours_before)).strftime("%Y-%m-%dT%H:%M:%SZ")


# Applying a policy


def test_a_policy_is_ready_soon_after_it_is_applied_and_says_when_it_scans_next(namespace, controller):
    namespace.apply(schedule="0 3 * * *", timeZone="Europe/Berlin")

    namespace.kubectl("wait", "--for=condition=Ready", "--timeout=100s", "vrp/policy")

    status = namespace.status()
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert conditions == dict.fromkeys(["Ready", "SupabaseReachable", "PrefectReachable", "DeploymentReady"], "True")
    assert status["observedGeneration"] == 1
    assert status["nextScheduleTime"][11:] in {"01:00:00Z", "02:00:00Z"}
    assert "lastScan" not in status


def test_kubectl_get_shows_what_a_scan_did(namespace, controller, supabase):
    stuck_videos(supabase, 2)
    namespace.apply()
    namespace.request()

    header, line = namespace.kubectl("get", "vrp").splitlines()

    assert header.split() == [
        "NAME",
        "SCHEDULE",
        "SUSPEND",
        "STUCK",
        "RECOVERED",
        "SKIPPED",
        "FAILED",
        "LAST",
        "SCAN",
        "READY",
        "AGE",
    ]
    assert line.split()[:10] == ["policy", *NEVER.split(), "false", "2", "2", "0"]
    wide = namespace.kubectl("get", "vrp", "-o", "wide")
    assert "MODE" in wide
    assert "2 found: 2 recovered, 0 skipped, 0 failed" in wide


def test_kubectl_explain_tells_what_an_age_is(installed):
    text = installed.kubectl("explain", "vrp.spec.stuck.age")

    assert "10m" in text


# Scans


def test_a_request_recovers_stuck_videos_and_a_second_one_triggers_nothing(namespace, controller, supabase, prefect):
    videos = stuck_videos(supabase, 3)
    namespace.apply()

    first, second = namespace.request(), namespace.request()

    assert first["lastScan"] | {"startTime": "", "completionTime": "", "decisions": [], "waitTime": {}} == {
        "trigger": "Request",
        "waitTime": {},
        "startTime": "",
        "completionTime": "",
        "found": 3,
        "recovered": 3,
        "skipped": 0,
        "failed": 0,
        "reasons": {},
        "decisions": [],
    }
    assert {decision["video"] for decision in first["lastScan"]["decisions"]} == set(videos)
    assert (second["lastScan"]["recovered"], second["lastScan"]["reasons"]) == (0, {"ActiveFlowRun": 3})
    assert second["stuck"]["total"] == 3
    assert second["stuck"]["byStatus"] == {"pending": 3}
    assert second["totals"] == {"scans": 2, "recovered": 3, "confirmed": 0, "failed": 0}
    assert len(second["history"]) == 2
    assert prefect.count_flow_runs() == 3
    assert ("Normal", "Recovered", "3 found: 3 recovered, 0 skipped, 0 failed") in namespace.events()


def test_a_request_is_served_while_suspended_and_the_schedule_is_not(namespace, controller, supabase):
    stuck_videos(supabase, 1)
    namespace.apply(suspend=True)

    status = namespace.request()

    assert status["lastScan"]["recovered"] == 1
    assert "nextScheduleTime" not in status


def test_a_request_can_be_narrowed_to_one_video(namespace, controller, supabase):
    wanted, _ = stuck_videos(supabase, 2)
    namespace.apply()

    status = namespace.request(requestedVideo=wanted)

    assert [decision["video"] for decision in status["lastScan"]["decisions"]] == [wanted]
    assert status["lastScan"]["video"] == wanted
    assert "stuck" not in status, "one video says nothing of the total"


def test_a_request_for_a_video_that_does_not_exist_finds_nothing(namespace, controller):
    namespace.apply()

    status = namespace.request(requestedVideo="no-uuid-at-all")

    assert (status["lastScan"]["found"], status["conditions"][0]["status"]) == (0, "True")


def test_a_request_with_an_endless_token_is_served_once(namespace, controller):
    namespace.apply()
    token = "now " * 1000
    annotations = (f"recovery.captiona.cc/requestedAt={token}", "recovery.captiona.cc/requestedVideo=\x1b[31m\n" * 300)

    namespace.kubectl("annotate", "vrp/policy", *annotations)

    status = namespace.wait_scanned()
    assert token.startswith(status["lastHandledReconcileAt"])
    assert "\x1b" not in status["lastScan"]["video"]
    assert namespace.request()["totals"]["scans"] == 2, "once for it, and once for the request that shows so"


def test_observe_mode_reports_and_triggers_nothing(namespace, controller, supabase, prefect):
    stuck_videos(supabase, 2)
    namespace.apply(mode="Observe")

    assert namespace.request()["lastScan"]["reasons"] == {"ObserveMode": 2}
    assert prefect.count_flow_runs() == 0


def test_a_scan_runs_when_the_cron_line_says(namespace, controller, supabase, prefect):
    stuck_videos(supabase, 1)
    namespace.apply(schedule="* * * * *")

    status = namespace.wait_scanned()

    first = status["history"][-1]  # on a busy machine there may have been another one by now
    assert (first["trigger"], first["recovered"]) == ("Schedule", 1)
    assert status["lastScheduleTime"].endswith(":00Z")
    assert status["nextScheduleTime"] > status["lastScheduleTime"]


# Schedule, suspend, restart


def test_a_missed_scan_is_caught_up_once_and_reported(namespace, kubeconfig, tmp_path, supabase):
    hourly = Hourly()
    with run_controller(kubeconfig, tmp_path / "log", "--namespace", namespace.name) as controller:
        namespace.apply(schedule=hourly.line, startingDeadline="30m")
        namespace.wait_condition("Ready", "True")
        controller.stop()
    stuck_videos(supabase, 1)
    namespace.patch_status({"nextScheduleTime": hourly.slot(hours_before=1)})

    with run_controller(kubeconfig, tmp_path / "log", "--namespace", namespace.name) as controller:
        status = namespace.wait_scanned()
        again = namespace.request()
        controller.stop()

    assert status["lastScan"]["trigger"] == "CatchUp"
    assert status["lastScheduleTime"] == status["lastMissedTime"] == hourly.slot()
    assert [scan["trigger"] for scan in again["history"]] == ["Request", "CatchUp"]
    assert "MissedSchedule" in [reason for _, reason, _ in namespace.events()]


def test_a_scan_missed_too_long_ago_is_reported_and_not_caught_up(namespace, controller):
    hourly = Hourly()
    namespace.apply(schedule=hourly.line, startingDeadline="0s")
    namespace.wait_condition("Ready", "True")

    namespace.patch_status({"nextScheduleTime": hourly.slot(hours_before=1)})

    wait_for(lambda: "lastMissedTime" in namespace.status(), what="the report", seen=namespace.status)
    status = namespace.status()
    assert "lastScan" not in status
    assert status["nextScheduleTime"] > datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({"schedule": NEVER}, id="schedule"),
        pytest.param({"timeZone": "Asia/Tokyo"}, id="zone"),
    ],
)
def test_an_edit_of_the_schedule_never_fires_a_scan_of_the_past(namespace, controller, edit):
    hourly = Hourly()
    namespace.apply(schedule=hourly.line)
    namespace.wait_condition("Ready", "True")
    controller.process.send_signal(19)  # SIGSTOP: the clock goes on and nobody looks
    namespace.patch_status({"nextScheduleTime": hourly.slot()})
    namespace.patch_spec(edit)
    controller.process.send_signal(18)  # SIGCONT

    namespace.wait_condition("Ready", "True")

    assert "lastScan" not in namespace.status()
    assert "lastMissedTime" not in namespace.status()
    assert namespace.status()["nextScheduleTime"] > datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_resuming_never_fires_a_scan_of_the_past(namespace, controller):
    hourly = Hourly()
    namespace.apply(schedule=hourly.line, suspend=True)
    namespace.wait_condition("Ready", "True")
    namespace.patch_status({"nextScheduleTime": hourly.slot()})

    namespace.patch_spec({"suspend": False})

    namespace.wait_condition("Ready", "True")
    assert "lastScan" not in namespace.status()


def test_a_restart_scans_nothing_again_and_loses_nothing(namespace, kubeconfig, tmp_path, supabase, prefect):
    stuck_videos(supabase, 2)
    namespace.apply()
    with run_controller(kubeconfig, tmp_path / "log", "--namespace", namespace.name) as controller:
        before = namespace.request()
        assert controller.stop() == 0

    with run_controller(kubeconfig, tmp_path / "log", "--namespace", namespace.name) as controller:
        namespace.apply("another")
        namespace.wait_condition("Ready", "True", name="another")
        after = namespace.status()
        again = namespace.request()
        controller.stop()

    assert after == before, "the controller was at work: it has seen to a new policy"
    assert again["totals"] == {"scans": 2, "recovered": 2, "confirmed": 0, "failed": 0}
    assert prefect.count_flow_runs() == 2


# Bad configuration: named at once, cured without a restart


@pytest.mark.parametrize(
    ("spec", "reason", "names"),
    [
        pytest.param({"schedule": "61 * * * *"}, "InvalidSchedule", "spec.schedule", id="cron line"),
        pytest.param({"timeZone": "Mars/Olympus"}, "InvalidSchedule", "spec.timeZone", id="zone"),
        pytest.param({"supabase": {"table": "films"}}, "TableNotFound", "captionacc.films", id="table"),
        pytest.param({"supabase": {"columns": {"name": "title"}}}, "ColumnNotFound", "title", id="column"),
        pytest.param({"supabase": {"schema": "secret"}}, "SchemaNotExposed", "spec.supabase.schema", id="schema"),
        pytest.param({"prefect": {"deployment": "no/such"}}, "DeploymentNotFound", "no/such", id="deployment"),
        pytest.param(
            {"supabase": {"secretRef": {"name": "other"}}}, "SecretNotFound", "/other does not exist", id="Secret"
        ),
    ],
)
def test_a_wrong_spec_stalls_the_policy_until_the_next_edit(namespace, controller, spec, reason, names):
    namespace.apply(**spec)

    stalled = namespace.wait_condition("Stalled", "True", reason)

    assert names in stalled["message"]
    assert namespace.condition("Ready") | {"type": "", "lastTransitionTime": ""} == stalled | {
        "type": "",
        "status": "False",
        "lastTransitionTime": "",
    }
    wait_for(
        lambda: ("Warning", reason) in [event[:2] for event in namespace.events()],
        what="the Event",
        seen=namespace.events,
    )

    namespace.apply()

    namespace.wait_condition("Ready", "True")
    assert namespace.condition("Stalled") == {}


@pytest.mark.parametrize(
    ("values", "reason", "names"),
    [
        pytest.param({"SUPABASE_URL": ""}, "SecretKeyMissing", "SUPABASE_URL", id="no URL"),
        pytest.param({"SUPABASE_SERVICE_ROLE_KEY": " "}, "SecretKeyMissing", "SUPABASE_SERVICE_ROLE_KEY", id="no key"),
        pytest.param({"PREFECT_API_URL": "prefect:4200"}, "InvalidURL", "PREFECT_API_URL", id="URL without scheme"),
        pytest.param({"SUPABASE_URL": "https://<project>.supabase.co"}, "InvalidURL", "SUPABASE_URL", id="an example"),
        pytest.param({"SUPABASE_URL": "http://user:pw@host"}, "InvalidURL", "SUPABASE_URL", id="URL with a password"),
    ],
)
def test_a_wrong_secret_stalls_the_policy_and_is_named(namespace, controller, values, reason, names):
    namespace.create_secret(**{**namespace.credentials, **values})
    namespace.apply()

    stalled = namespace.wait_condition("Stalled", "True", reason)

    assert f"Secret {namespace.name}/captionacc-credentials" in stalled["message"]
    assert names in stalled["message"]
    assert "pw" not in stalled["message"].replace("captionacc-credentials", "")


def test_a_secret_that_is_put_right_is_seen_without_an_edit_of_the_policy(namespace, controller):
    namespace.kubectl("delete", "secret", "captionacc-credentials")
    namespace.apply()
    namespace.wait_condition("Stalled", "True", "SecretNotFound")

    namespace.create_secret(**namespace.credentials)

    namespace.wait_condition("Ready", "True")
    assert namespace.condition("Stalled") == {}


def test_an_invalid_policy_is_refused_by_the_api_server_with_what_to_write(namespace):
    with pytest.raises(subprocess.CalledProcessError) as refused:
        namespace.apply(stuck={"age": "10 minutes"})

    assert "10m" in refused.value.stderr


# Services in trouble


def test_a_service_that_is_down_is_named_and_the_next_scan_heals(namespace, controller, supabase, prefect):
    stuck_videos(supabase, 2)
    namespace.apply()
    namespace.wait_condition("Ready", "True")
    namespace.create_secret(**{**namespace.credentials, "PREFECT_API_URL": "http://127.0.0.1:9/api"})

    down = namespace.request()

    ready = namespace.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Unreachable")
    assert "Prefect" in ready["message"]
    assert namespace.condition("PrefectReachable")["status"] == "False"
    assert namespace.condition("SupabaseReachable")["status"] == "True"
    assert namespace.condition("Reconciling")["status"] == "True"
    assert namespace.condition("Stalled") == {}
    assert (down["stuck"]["total"], down["lastScan"]["reasons"]) == (2, {"Interrupted": 2})

    namespace.create_secret(**namespace.credentials)

    assert namespace.request()["lastScan"]["recovered"] == 2
    assert namespace.condition("Ready")["status"] == "True"
    assert namespace.condition("Reconciling") == {}
    assert prefect.count_flow_runs() == 2


def test_a_rotated_key_works_in_the_next_scan(namespace, controller, supabase):
    stuck_videos(supabase, 1)
    namespace.apply()
    namespace.wait_condition("Ready", "True")

    namespace.create_secret(**{**namespace.credentials, "SUPABASE_SERVICE_ROLE_KEY": supabase.secret_key})
    assert namespace.request()["lastScan"]["recovered"] == 1

    namespace.create_secret(**{**namespace.credentials, "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_gone"})
    namespace.request()
    assert namespace.condition("SupabaseReachable")["reason"] == "Unauthorized"


def test_a_paused_deployment_holds_the_backlog_and_says_so(namespace, controller, supabase, prefect):
    stuck_videos(supabase, 2)
    prefect.create_deployment(DEPLOYMENT, paused=True)
    try:
        namespace.apply()
        status = namespace.request()
    finally:
        prefect.create_deployment(DEPLOYMENT, paused=False)

    assert status["lastScan"]["reasons"] == {"DeploymentNotReady": 2}
    assert namespace.condition("DeploymentReady")["reason"] == "DeploymentPaused"
    assert namespace.condition("Ready")["status"] == "True"
    assert prefect.count_flow_runs() == 0


# Leaving, deleting


CREATIONS = at("/create_flow_run/bulk")


@pytest.fixture
def go_on(namespace: Namespace, controller: Controller) -> Iterator[Callable[[], None]]:
    """Lets a scan of four batches go on that stands still in its second one."""
    with Loop.start() as loop, loop.serve(f"http://127.0.0.1:{namespace.prefect.port}") as to_prefect:
        loop.call(to_prefect.treat, held, CREATIONS, after=1)
        namespace.create_secret(**{**namespace.credentials, "PREFECT_API_URL": f"{to_prefect.url}/api"})
        stuck_videos(namespace.supabase, 400)
        namespace.apply(limits={"perTenant": 1000})
        namespace.wait_condition("Ready", "True")
        namespace.kubectl("annotate", "vrp/policy", "recovery.captiona.cc/requestedAt=now")
        wait_for(lambda: to_prefect.count(CREATIONS) == 2, what="the second batch", seen=lambda: controller.log)
        yield lambda: loop.call(to_prefect.heal)


def test_a_policy_deleted_in_the_middle_of_a_scan_is_gone_at_once(namespace, controller, prefect, go_on):
    namespace.kubectl("delete", "vrp/policy", "--timeout=100s")

    assert namespace.kubectl("get", "vrp", "-o", "name") == ""
    go_on()
    wait_for(lambda: "Request scan: 400 found" in controller.log, what="the scan's end", seen=lambda: controller.log)
    assert "400 found: 200 recovered, 200 skipped, 0 failed (Interrupted 200)" in controller.log
    assert prefect.count_flow_runs() == 200, "the scan ends after its batch"


def test_sigterm_lets_a_scan_finish_its_batch_and_write_its_status(namespace, controller, prefect, go_on):
    controller.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "SIGTERM: stopping" in controller.log, what="its last batch", seen=lambda: controller.log)
    go_on()

    assert controller.process.wait(PATIENCE) == 0

    status = namespace.status()
    assert status["lastHandledReconcileAt"] == "now"
    assert (status["lastScan"]["recovered"], status["lastScan"]["reasons"]) == (200, {"Interrupted": 200})
    assert prefect.count_flow_runs() == 200


def test_a_policy_can_be_deleted_after_the_controller_has_left(namespace, controller):
    namespace.apply()
    namespace.wait_condition("Ready", "True")
    assert controller.stop() == 0

    namespace.kubectl("delete", "vrp/policy", "--timeout=100s")


# Starting


def test_without_the_crd_it_ends_with_one_clear_line(cluster: ControlPlane, tmp_path: Path):
    with ControlPlane.start(tmp_path) as empty:
        finished = start_in_vain(empty.kubeconfig, tmp_path)
        assert_one_line(finished, "kubectl apply -f manifests/crd.yaml")

        empty.stop()
        finished = start_in_vain(empty.kubeconfig, tmp_path)
        assert_one_line(finished, "the API server cannot be reached")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(None, "there is no file", id="no file"),
        pytest.param("", "cannot be used", id="an empty file"),
        pytest.param("{apiVersion: v1, kind: Config", "cannot be used", id="no YAML"),
        pytest.param("{apiVersion: v1, kind: Config, current-context: gone}", "cannot be used", id="no such context"),
    ],
)
def test_with_a_wrong_kubeconfig_it_ends_with_one_clear_line(tmp_path, content, text):
    kubeconfig = tmp_path / "kubeconfig"
    if content is not None:
        kubeconfig.write_text(content)

    finished = start_in_vain(kubeconfig, tmp_path)

    assert_one_line(finished, text)
    assert str(kubeconfig) in finished.log


def test_without_permission_it_ends_with_one_clear_line(installed, tmp_path):
    installed.kubectl("create", "serviceaccount", "nobody", "-n", "default")

    finished = start_in_vain(installed.service_account("default", "nobody"), tmp_path)

    assert_one_line(finished, "manifests/rbac.yaml")


def test_without_the_right_to_write_status_it_ends_and_names_that_right(installed, tmp_path):
    installed.kubectl("create", "serviceaccount", "reader", "-n", "default")
    rule = ("--verb=get,list,watch", "--resource=videorecoverypolicies.recovery.captiona.cc")
    installed.kubectl("create", "clusterrole", "policy-reader", *rule)
    bound = ("--clusterrole=policy-reader", "--serviceaccount=default:reader")
    installed.kubectl("create", "clusterrolebinding", "policy-reader", *bound)

    finished = start_in_vain(installed.service_account("default", "reader"), tmp_path)

    assert_one_line(finished, "no permission to update status videorecoverypolicies")


def start_in_vain(kubeconfig: Path, directory: Path) -> Controller:
    with run_controller(
        kubeconfig, directory / f"{time.monotonic_ns()}.log", expect="will not be logged"
    ) as controller:
        controller.process.wait(PATIENCE)
    return controller


def assert_one_line(controller: Controller, text: str) -> None:
    assert controller.process.returncode == 1
    lines = controller.log.strip().splitlines()
    assert len(lines) == 1, lines
    assert text in lines[0]


def test_watches_only_the_namespaces_that_it_is_told(
    namespace: Namespace,
    installed: ControlPlane,
    supabase: Supabase,
    prefect: Prefect,
    kubeconfig: Path,
    tmp_path: Path,
):
    watched = Namespace(installed, supabase, prefect)
    namespace.apply()
    watched.apply()
    with run_controller(kubeconfig, tmp_path / "log", "--namespace", watched.name) as controller:
        watched.wait_condition("Ready", "True")
        watched.request()
        assert namespace.get()["metadata"].get("finalizers", []) == []
        assert namespace.status() == {}
        assert controller.stop() == 0
