"""What `doctor` makes of what it sees, where no real part shows it in all its forms."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import stamina

from controller.adapters.prefect.health import Pool, parameter_problem, read_workers, version_of
from controller.adapters.prefect.server import PrefectServer, open_server
from controller.api.crd import custom_resource_definition
from controller.api.manifest import read_status
from controller.api.names import REQUESTED_AT
from controller.cli.commands.doctor import verdict
from controller.cli.doctor.cluster import differences_of, is_overdue, missing_sign, none_served
from controller.cli.doctor.context import (
    CheckResult,
    CheckSkippedError,
    CheckWarningError,
    DoctorContext,
    Mark,
    run_check,
)
from controller.cli.errors import Failed
from controller.cli.options import Where
from controller.errors import ClusterError, ConfigurationError, ErrorReason, Service, ServiceError
from controller.schedule import MAX_JITTER, ON_TIME
from tests.support import merge, policy
from tests.unit.fakes import NOW, SECOND, Answer, Asked, serving

LATEST = ON_TIME + MAX_JITTER


# The verdict


@pytest.mark.parametrize(
    ("marks", "text"),
    [
        pytest.param("✓✓✓", "All 3 checks passed.", id="all_is_well"),
        pytest.param("✓!!", "All 3 checks passed, 2 with a warning.", id="a_warning_is_no_failure"),
        pytest.param("✓--", "All 1 checks passed, 2 not asked.", id="what_was_not_asked_did_not_pass"),
        pytest.param("✓✗!-", "1 of 3 checks failed, 1 with a warning, 1 not asked.", id="something_of_each"),
    ],
)
def test_counts_what_was_asked(marks, text):
    assert verdict([CheckResult(Mark(mark), "title", "text") for mark in marks]) == text


# What is raised, as an answer


def service_error(problem: str, solution: str = "") -> ServiceError:
    return ServiceError(problem, solution, reason=ErrorReason.UNREACHABLE, service=Service.PREFECT)


@pytest.mark.parametrize(
    ("error", "mark", "text"),
    [
        pytest.param(
            CheckSkippedError("there is none"), "-", "not asked: there is none", id="a_question_without_sense"
        ),
        pytest.param(CheckWarningError("suspended"), "!", "suspended", id="a_doubt"),
        pytest.param(Failed("gone; make one"), "✗", "gone; make one", id="a_failure"),
        pytest.param(
            service_error("Prefect cannot be reached", "see whether it runs"),
            "✗",
            "Prefect cannot be reached; see whether it runs",
            id="a_service_that_is_down",
        ),
        pytest.param(service_error("it took too long"), "✗", "it took too long", id="an_error_without_a_solution"),
        pytest.param(
            ClusterError("the API server answered 401 Unauthorized", "log in again", status=401),
            "✗",
            "the API server answered 401 Unauthorized; log in again",
            id="a_stale_login",
        ),
        pytest.param(
            KeyError("x"),
            "✗",
            "this is a defect of the program (KeyError); -v shows where it happened",
            id="a_defect",
        ),
    ],
)
async def test_says_what_is_wrong_and_what_to_do(error, mark, text):
    async def ask(_it: DoctorContext) -> str:
        raise error

    given = await run_check("Title", ask, DoctorContext(Where(), NOW, AsyncExitStack()))

    assert given == CheckResult(Mark(mark), "Title", text)


async def test_does_not_wait_again_for_a_service_that_failed():
    it = DoctorContext(Where(), NOW, AsyncExitStack(), usable=set(Service))

    async def ask(_it: DoctorContext) -> str:
        raise service_error("Prefect cannot be reached")

    await run_check("Prefect", ask, it)

    with pytest.raises(CheckSkippedError, match="Prefect has failed already"):
        it.require_clients(Service.PREFECT)


# The CRD


def established(**spec: Any) -> dict[str, Any]:
    crd = custom_resource_definition()
    crd["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
    return merge(crd, {"spec": spec})


def test_our_own_crd_differs_in_nothing():
    assert none_served(established()) is None
    assert differences_of(established()) == ""


def test_a_crd_that_is_not_established_serves_nobody():
    assert "is not established" in str(none_served(custom_resource_definition()))


def test_a_crd_of_another_version_only_serves_nobody():
    crd = established()
    crd["spec"]["versions"][0]["served"] = False

    assert "does not serve v1alpha1" in str(none_served(crd))


def test_names_fields_at_any_depth_that_one_side_lacks():
    crd = established()
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del spec["retry"]["properties"]["window"]
    spec["prefect"]["properties"]["colour"] = {"type": "string"}

    assert differences_of(crd) == (
        "it lacks spec.retry.window; update it with: kubectl apply --server-side -f manifests/crd.yaml; "
        "this program does not know spec.prefect.colour; update this program"
    )


# The controller


def seen(**changes: Any) -> dict[str, Any]:
    """A policy as a controller leaves it that is alive."""
    well = {
        "metadata": {"generation": 2, "annotations": {REQUESTED_AT: "t"}},
        "spec": {"suspend": False},
        "status": {
            "observedGeneration": 2,
            "lastHandledReconcileAt": "t",
            "nextScheduleTime": (NOW - LATEST).isoformat(),
        },
    }
    return merge(well, changes)


@pytest.mark.parametrize(
    ("changes", "sign"),
    [
        pytest.param({}, None, id="all_are_there"),
        pytest.param({"metadata": {"annotations": None}}, None, id="nobody_asked_for_a_scan"),
        pytest.param({"metadata": {"generation": 3}}, "no controller has seen the latest version", id="an_edit"),
        pytest.param({"status": None}, "no controller has seen the policy", id="no_status"),
        pytest.param({"metadata": {"annotations": {REQUESTED_AT: "u"}}}, "scan that was asked for (u)", id="a_request"),
        pytest.param(
            {"status": {"nextScheduleTime": (NOW - LATEST - SECOND).isoformat()}},
            "no controller was there when the last scan was due",
            id="a_scan_is_overdue",
        ),
    ],
)
def test_misses_a_sign_of_life_of_the_controller(changes, sign):
    missing = missing_sign(seen(**changes), now=NOW)

    assert missing is None if sign is None else sign in str(missing)


@pytest.mark.parametrize(
    ("planned", "suspend", "overdue"),
    [
        pytest.param(NOW + SECOND, False, False, id="it_is_yet_to_come"),
        pytest.param(NOW - LATEST, False, False, id="it_is_as_late_as_it_may_be"),
        pytest.param(NOW - LATEST - SECOND, False, True, id="it_is_later"),
        pytest.param(NOW - timedelta(days=1), True, False, id="it_is_suspended"),
        pytest.param(None, False, False, id="none_is_planned"),
    ],
)
def test_calls_a_scan_overdue_only_when_it_can_no_longer_come_on_time(planned, suspend, overdue):
    manifest = seen(spec={"suspend": suspend}, status={"nextScheduleTime": planned and planned.isoformat()})

    assert is_overdue(manifest, read_status(manifest), now=NOW) is overdue


# Prefect


@pytest.fixture
def at_once():
    """Requests are sent once, without waiting."""
    with stamina.set_testing(True, attempts=1):
        yield


@asynccontextmanager
async def prefect(**answers: Answer) -> AsyncIterator[PrefectServer]:
    """A server that answers these paths, by their last word, and nothing else."""

    def respond(asked: Asked) -> Answer:
        return answers.get(asked.target.rpartition("/")[2], Answer({"detail": "Not Found"}, 404))

    async with (
        serving(respond) as (url, _),
        open_server(url, {}, ["a-secret-key"], policy().spec.prefect) as server,
    ):
        yield server


async def test_tells_the_version_of_a_server():
    async with prefect(version=Answer("3.8.1")) as server:
        assert await version_of(server.api) == "3.8.1"


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_need_not_tell_its_version(status):
    async with prefect(version=Answer({}, status), count=Answer(0)) as server:
        assert await version_of(server.api) is None


async def test_refuses_an_older_prefect_and_says_what_to_do():
    async with prefect(version=Answer("2.20.4")) as server:
        with pytest.raises(ConfigurationError, match=r"Prefect is version 2\.20\.4.+ upgrade the server"):
            await version_of(server.api)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        pytest.param({}, ErrorReason.NOT_FOUND, id="an_address_that_knows_nothing"),
        pytest.param({"version": Answer({}, 401)}, ErrorReason.UNAUTHORIZED, id="a_key_that_it_does_not_know"),
        pytest.param({"version": Answer(b"<html>")}, ErrorReason.UNEXPECTED_ANSWER, id="a_page"),
        pytest.param({"version": Answer({"v": 3})}, ErrorReason.UNEXPECTED_ANSWER, id="an_object"),
        pytest.param({"version": Answer("a-secret-key")}, ErrorReason.UNEXPECTED_ANSWER, id="its_own_key"),
    ],
)
async def test_tells_what_is_no_prefect(at_once, answers, reason):
    async with prefect(**answers) as server:
        with pytest.raises(ServiceError) as raised:
            await version_of(server.api)

    assert raised.value.reason is reason
    assert "PREFECT_API_URL" in raised.value.message
    assert "a-secret-key" not in raised.value.message


async def test_tells_which_workers_are_online_and_when_they_were_heard_of():
    answer = [
        {"name": "a", "status": "ONLINE", "last_heartbeat_time": NOW.isoformat()},
        {"name": "b", "status": "OFFLINE", "last_heartbeat_time": None},
    ]
    async with prefect(filter=Answer(answer)) as server:
        workers = await read_workers(server.api, Pool("pool", "process"))

    assert [(each.name, each.online, each.last_heartbeat) for each in workers] == [("a", True, NOW), ("b", False, None)]


@pytest.mark.parametrize("answer", [{}, ["a"], [{"status": "ONLINE"}]])
async def test_takes_no_odd_answer_for_workers(answer):
    async with prefect(filter=Answer(answer)) as server:
        with pytest.raises(ServiceError, match="answered what it never does"):
            await read_workers(server.api, Pool("pool", "process"))


@pytest.mark.parametrize(
    ("kind", "has_workers"),
    [
        pytest.param("kubernetes", True, id="kubernetes"),
        pytest.param("ecs:push", False, id="push"),
        pytest.param("prefect:managed", False, id="managed"),
    ],
)
def test_tells_which_pools_have_workers(kind, has_workers):
    assert Pool("pool", kind).has_workers is has_workers


TAKES = {"properties": {"video_id": {}, "size": {}}, "required": ["video_id"]}


@pytest.mark.parametrize(
    ("parameters", "deployment", "problem"),
    [
        pytest.param(["video_id"], {}, None, id="all_it_needs"),
        pytest.param(["video_id", "size"], {}, None, id="all_it_takes"),
        pytest.param(
            ["video_id", "tenant"],
            {},
            "spec.prefect.parameters: the flow has no parameter tenant; write those it takes: size, video_id",
            id="one_it_does_not_take",
        ),
        pytest.param(
            ["video_id"],
            {"parameter_openapi_schema": {**TAKES, "required": ["video_id", "size"]}},
            "spec.prefect.parameters: the flow needs size; write those it takes: size, video_id",
            id="one_missing",
        ),
        pytest.param(
            ["video_id"],
            {"parameter_openapi_schema": {**TAKES, "required": ["size"]}, "parameters": {"size": 1}},
            None,
            id="one_that_the_deployment_has_a_value_for",
        ),
        pytest.param(
            ["video_id", "tenant"],
            {"parameter_openapi_schema": {**TAKES, "additionalProperties": True}},
            None,
            id="any_others",
        ),
        pytest.param(["video_id", "tenant"], {"enforce_parameter_schema": False}, None, id="nobody_checks"),
        pytest.param(["video_id", "tenant"], {"parameter_openapi_schema": {}}, None, id="nobody_knows"),
        pytest.param(["video_id", "tenant"], {"parameter_openapi_schema": None}, None, id="no_schema"),
    ],
)
def test_compares_parameters_with_what_the_flow_takes(parameters, deployment, problem):
    replaced = dict.fromkeys(("video_id", "tenant_id", "storage_key"))
    spec = policy(prefect={"parameters": {**replaced, **dict.fromkeys(parameters, "{id}")}}).spec.prefect
    known = {"enforce_parameter_schema": True, "parameter_openapi_schema": TAKES, **deployment}

    assert parameter_problem(spec, known) == problem
