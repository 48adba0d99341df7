"""The embedded Prefect server: deployments without a worker, runs in any state, a server that comes back."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from devstack import Deployment, Prefect
from devstack.prefect import ACTIVE
from tests.conftest import serve, steady_prefect
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

STATES = [*ACTIVE, "COMPLETED", "FAILED", "CRASHED", "CANCELLED"]


@pytest.fixture
def deployment(prefect: Prefect) -> Deployment:
    return prefect.create_deployment("devstack-flow/devstack-deployment", work_pool="devstack-pool")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Prefect]:
    """A server that asks for a password."""
    yield from serve(steady_prefect(auth_string="user:pass:word"))


def test_a_deployment_is_ready_once_its_pool_is_polled(prefect: Prefect, deployment: Deployment) -> None:
    prefect.pretend_worker(deployment.work_pool)

    def status() -> str:
        return str(prefect.deployment(deployment.full_name)["status"])

    wait_for(lambda: status() == "READY", what="the deployment to be ready", seen=status)
    assert prefect.http.get(f"work_pools/{deployment.work_pool}").json()["status"] == "READY"


def test_creating_a_deployment_again_changes_nothing(prefect: Prefect, deployment: Deployment) -> None:
    assert prefect.create_deployment(deployment.full_name, work_pool=deployment.work_pool) == deployment


def test_creates_a_run_in_every_state(prefect: Prefect, deployment: Deployment) -> None:
    runs = [prefect.create_flow_run(deployment, state, parameters={"video_id": state}) for state in STATES]
    assert [prefect.flow_run(run)["state_type"] for run in runs] == STATES
    assert {run["parameters"]["video_id"] for run in prefect.flow_runs(ACTIVE)} == set(ACTIVE)
    assert prefect.count_flow_runs() == len(STATES)
    assert prefect.count_flow_runs(["RUNNING", "CRASHED"]) == 2


def test_names_a_state(prefect: Prefect, deployment: Deployment) -> None:
    run = prefect.create_flow_run(deployment, state_name="Late", work_queue_name="recovery", tags=["recovery"])
    found = prefect.flow_run(run)
    assert (found["state_name"], found["work_queue_name"], found["tags"]) == ("Late", "recovery", ["recovery"])


def test_moves_a_run_to_another_state(prefect: Prefect, deployment: Deployment) -> None:
    run = prefect.create_flow_run(deployment, "COMPLETED")
    prefect.set_state(run, "RUNNING")
    assert prefect.flow_run(run)["state_type"] == "RUNNING"


def test_creates_more_runs_than_one_request_takes(prefect: Prefect, deployment: Deployment) -> None:
    ids = prefect.create_flow_runs(deployment, [{"n": n} for n in range(101)], "RUNNING")
    assert prefect.flow_run(ids[100])["parameters"] == {"n": 100}
    assert prefect.count_flow_runs(["RUNNING"]) == len(set(ids)) == 101


def test_ends_a_run_in_the_past(prefect: Prefect, deployment: Deployment) -> None:
    before = datetime.now(UTC)
    run = prefect.create_flow_run(deployment, "COMPLETED")
    after = datetime.now(UTC)
    prefect.backdate(run, timedelta(minutes=6))
    ended = datetime.fromisoformat(prefect.flow_run(run)["end_time"])
    assert before <= ended + timedelta(minutes=6) <= after
    recent = {"end_time": {"after_": (before - timedelta(minutes=5)).isoformat()}}
    assert prefect.flow_runs(flow_runs=recent) == []


def test_says_that_a_run_to_change_does_not_exist(prefect: Prefect) -> None:
    with pytest.raises(KeyError, match="no-such-run"):
        prefect.backdate("no-such-run", timedelta(hours=1))
    with pytest.raises(KeyError, match="no-such-run"):
        prefect.clone_flow_run("no-such-run", [{}])


def test_copies_a_run_thousands_of_times(prefect: Prefect, deployment: Deployment) -> None:
    run = prefect.create_flow_run(deployment, "RUNNING", parameters={"video_id": "0"}, tags=["old"])
    copies = prefect.clone_flow_run(run, [{"video_id": str(n)} for n in range(1, 1001)])
    found = {r["id"]: r for r in prefect.flow_runs(["RUNNING"], flow_runs={"tags": {"all_": ["old"]}})}
    assert set(found) == {run, *copies}
    assert [found[copy]["parameters"]["video_id"] for copy in copies] == [str(n) for n in range(1, 1001)]
    assert found[copies[999]]["expected_start_time"] < found[copies[0]]["expected_start_time"]
    prefect.set_state(copies[0], "COMPLETED")
    assert prefect.count_flow_runs(["RUNNING"]) == 1000


def test_refuses_requests_without_the_password(guarded: Prefect) -> None:
    assert httpx.post(f"{guarded.api_url}/flow_runs/count", json={}).status_code == 401
    assert guarded.count_flow_runs() == 0
    assert guarded.env() == {"PREFECT_API_URL": guarded.api_url, "PREFECT_API_AUTH_STRING": "user:pass:word"}


def test_a_killed_server_comes_back_with_its_data_on_its_port(guarded: Prefect) -> None:
    url = guarded.api_url
    guarded.create_deployment("a/b")
    guarded.kill()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
    guarded.restart()
    assert guarded.api_url == url
    assert guarded.deployment("a/b")["name"] == "b"
