"""Requests to an API server: whatever goes wrong is a `ClusterError`, with what to do about it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kubernetes.aio import client

from controller.adapters.kubernetes import client as cluster_module
from controller.adapters.kubernetes.access import Right, describe_rights, missing_rights
from controller.adapters.kubernetes.client import Cluster
from controller.adapters.kubernetes.config import load_configuration
from controller.adapters.kubernetes.secrets import ClusterSecrets
from controller.api.names import PLURAL
from controller.errors import ClusterError, ConfigurationError, ErrorReason, NoClusterError, ScanError
from tests.unit.fakes import Answer, Asked, Respond, in_turn, listening, serving

OK = Answer({"kind": "Thing"})


@asynccontextmanager
async def connected(respond: Respond, *, patience: float = 0.001) -> AsyncIterator[tuple[Cluster, list[Asked]]]:
    """A client of a stand-in for an API server, and what it asks."""
    async with serving(respond) as (url, asked), connected_to(url, patience=patience) as cluster:
        yield cluster, asked


@asynccontextmanager
async def connected_to(url: str, *, patience: float = 0.001) -> AsyncIterator[Cluster]:
    async def load() -> client.Configuration:
        configuration = client.Configuration()
        configuration.host = url
        return configuration

    cluster = await Cluster.connect(load, patience=patience)
    try:
        yield cluster
    finally:
        await cluster.close()


async def failed(cluster: Cluster) -> ClusterError:
    with pytest.raises(ClusterError) as caught:
        await cluster.request("GET", "/x")
    return caught.value


@pytest.mark.parametrize(
    ("status", "solution"),
    [
        pytest.param(401, "log in again, or choose another --context", id="a_stale_login"),
        pytest.param(403, "ask for the right to do this", id="a_missing_right"),
        pytest.param(404, "its log tells more", id="something_that_is_not_there"),
        pytest.param(500, "its log tells more", id="a_server_that_is_not_well"),
    ],
)
async def test_a_refusal_has_its_status_and_says_what_to_do(status, solution):
    async with connected(in_turn(Answer({}, status))) as (cluster, _):
        error = await failed(cluster)

    assert (error.status, error.solution) == (status, solution)
    assert error.problem == f"the API server answered {status} As Told"


async def test_a_server_that_is_not_there_is_named_as_such():
    async with serving(in_turn(OK)) as (url, _):
        pass
    async with connected_to(url) as cluster:
        error = await failed(cluster)

    assert error.status is None
    assert error.problem.startswith("the API server cannot be reached (")
    assert "--kubeconfig" in error.solution


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(b"<html>"), id="a_page"),
        pytest.param(Answer([]), id="a_list"),
        pytest.param(Answer({"kind": "Thing"}, cut=3), id="half_an_answer"),
    ],
)
async def test_what_no_api_server_answers_is_no_api_server(answer):
    async with connected(in_turn(answer)) as (cluster, _):
        error = await failed(cluster)

    assert error.problem.startswith("the API server cannot be reached (")


async def test_a_server_that_is_silent_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(cluster_module, "TIMEOUT", 0.2)

    async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with (
        listening(say_nothing) as port,
        asyncio.timeout(30),
        connected_to(f"http://127.0.0.1:{port}") as cluster,
    ):
        error = await failed(cluster)

    assert error.problem == "the API server did not answer within 0.2 s"


@pytest.mark.parametrize("answer", [Answer({}, 429), Answer({}, 503), Answer(b"<html>")])
async def test_what_passes_is_sent_again_while_there_is_patience(answer):
    async with connected(in_turn(answer, OK), patience=30) as (cluster, asked):
        assert await cluster.request("GET", "/x") == {"kind": "Thing"}

    assert len(asked) == 2


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
async def test_what_does_not_pass_is_not_sent_again(status):
    async with connected(in_turn(Answer({}, status), OK), patience=30) as (cluster, asked):
        await failed(cluster)

    assert len(asked) == 1


async def test_a_token_that_ran_out_is_read_anew_once():
    async with connected(in_turn(Answer({}, 401), OK)) as (cluster, asked):
        assert await cluster.request("GET", "/x") == {"kind": "Thing"}

    assert len(asked) == 2


async def test_a_list_is_read_to_its_last_page():
    pages = [
        Answer({"items": [{"n": 1}, {"n": 2}], "metadata": {"continue": "more"}}),
        Answer({"items": [{"n": 3}], "metadata": {}}),
    ]
    async with connected(in_turn(*pages)) as (cluster, asked):
        assert [each["n"] async for each in cluster.list("/things")] == [1, 2, 3]

    assert "continue=more" in asked[1].target


# The way to a cluster


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(None, "there is no file", id="no_file"),
        pytest.param("a: [", "cannot be used", id="no_yaml"),
        pytest.param("{}", "cannot be used", id="no_kubeconfig"),
    ],
)
async def test_a_kubeconfig_that_cannot_be_used_is_no_cluster(tmp_path, content, problem):
    file = tmp_path / "kubeconfig"
    if content is not None:
        file.write_text(content)

    with pytest.raises(NoClusterError) as caught:
        await load_configuration(file, None)

    assert problem in caught.value.problem
    assert caught.value.solution == "name a kubeconfig with --kubeconfig FILE"


async def test_a_certificate_that_is_missing_is_no_cluster(tmp_path: Path):
    async def load() -> client.Configuration:
        configuration = client.Configuration()
        configuration.host, configuration.ssl_ca_cert = "https://127.0.0.1:1", str(tmp_path / "gone.pem")
        return configuration

    with pytest.raises(NoClusterError, match="its configuration cannot be used"):
        await Cluster.connect(load)


# Secrets and rights


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        pytest.param(404, ConfigurationError, ErrorReason.SECRET_NOT_FOUND, id="it_does_not_exist"),
        pytest.param(401, ConfigurationError, ErrorReason.SECRET_FORBIDDEN, id="the_token_is_not_taken"),
        pytest.param(403, ConfigurationError, ErrorReason.SECRET_FORBIDDEN, id="it_may_not_be_read"),
        pytest.param(500, ScanError, ErrorReason.UNREACHABLE, id="the_server_is_not_well"),
    ],
)
async def test_a_secret_that_cannot_be_read_says_why(status, kind, reason):
    async with connected(in_turn(Answer({}, status))) as (cluster, _):
        with pytest.raises(ScanError) as caught:
            await ClusterSecrets(cluster)("shop", "keys")

    assert type(caught.value) is kind
    assert caught.value.reason is reason
    assert caught.value.problem.startswith("Secret shop/keys ")


async def test_a_secret_has_its_texts_and_nothing_else():
    data = {"A": "dGV4dA==", "B": "not base64", "C": "/w=="}
    async with connected(in_turn(Answer({"data": data}))) as (cluster, _):
        secret = await ClusterSecrets(cluster)("shop", "keys")

    assert secret.values == {"A": "text"}


async def test_tells_which_rights_are_missing():
    wanted = [Right("get", PLURAL), Right("update", PLURAL, "status"), Right("get", "secrets")]

    def respond(asked: Asked) -> Answer:
        attributes = asked.json["spec"]["resourceAttributes"]
        return Answer({"status": {"allowed": attributes["verb"] == "get" and attributes["resource"] == PLURAL}})

    async with connected(respond) as (cluster, asked):
        missing = await missing_rights(cluster, wanted, "shop")

    assert describe_rights(missing) == f"update {PLURAL}/status, get secrets"
    assert describe_rights(wanted[:1] * 2) == f"get get {PLURAL}"
    assert [each.json["spec"]["resourceAttributes"]["group"] for each in asked] == [
        "recovery.captiona.cc", "recovery.captiona.cc", "",
    ]  # fmt: skip
    assert {each.json["spec"]["resourceAttributes"]["namespace"] for each in asked} == {"shop"}


@pytest.mark.parametrize(("user", "kind"), [(None, "selfsubjectaccessreviews"), ("somebody", "subjectaccessreviews")])
async def test_asks_for_the_rights_of_the_right_account(user, kind):
    async with connected(in_turn(Answer({"status": {"allowed": True}}))) as (cluster, asked):
        assert await missing_rights(cluster, [Right("get", "secrets")], None, user=user) == []

    assert asked[0].target.endswith(f"/{kind}")
    assert asked[0].json["spec"].get("user") == user
    assert "namespace" not in asked[0].json["spec"]["resourceAttributes"]
