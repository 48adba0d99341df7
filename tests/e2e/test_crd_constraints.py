"""Every constraint of the CRD, with an example that is accepted and one that is refused.

One table serves three tests: a real API server judges each example, `parse_policy` judges it alike, and a walk through
the generated schema finds constraints that have no example. To change a bound, change the model and the table.
"""

import copy
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from controller.api.crd import custom_resource_definition
from controller.api.manifest import parse_policy
from controller.api.status import PolicyStatus
from controller.errors import ConfigurationError
from devstack import ControlPlane
from tools.generate.crd import MANIFEST

GROUP, VERSION, PLURAL = "recovery.captiona.cc", "v1alpha1", "videorecoverypolicies"
NAMESPACE = "default"
EXAMPLE = Path(__file__).parents[2] / "manifests" / "example.yaml"

Manifest = dict[str, Any]
Edits = dict[str, object]

MISSING = object()
"""The edit that takes a field away."""

BASE: Manifest = {
    "apiVersion": f"{GROUP}/{VERSION}",
    "kind": "VideoRecoveryPolicy",
    "metadata": {"name": "example", "namespace": NAMESPACE},
    "spec": {
        "supabase": {"secretRef": {"name": "credentials"}},
        "upload": {"bucket": "videos", "objectPath": "{tenant_id}/{id}.mp4"},
        "prefect": {
            "secretRef": {"name": "credentials"},
            "deployment": "process-video/production",
            "parameters": {"video_id": "{id}"},
        },
    },
}


@dataclass(frozen=True)
class Example:
    """One constraint, at its place in the schema, with edits of `BASE` that keep and that break it."""

    place: str
    constraint: str
    accepted: Edits
    refused: Edits
    at: str = field(default="")
    """Where the refusal points to, if not to the place."""

    @property
    def id(self) -> str:
        return f"{self.place} {self.constraint}"


def value(place: str, constraint: str, *, ok: object, bad: object, also: Edits | None = None) -> Example:
    """An example that sets one field; of a list or mapping (`[*]`, `.*`), its only item."""
    return Example(place, constraint, edit(place, ok) | (also or {}), edit(place, bad))


def edit(place: str, content: object) -> Edits:
    if place.endswith("[*]"):
        return {place.removesuffix("[*]"): [content]}
    if place == "spec.prefect.parameters.*":
        return {"spec.prefect.parameters": {"video_id": "{id}", "other": content}}
    if place.endswith(".*"):
        return {place.removesuffix(".*"): {"uploading": content}}
    return {place: content}


def required(place: str) -> Example:
    return Example(place, "required", {}, {place: MISSING})


def duration(
    place: str, shortest: str, longest: str, *, below: str | None, also: Edits | None = None
) -> Iterator[Example]:
    advice = "write a duration such as 90s, 10m or 1h30m"
    above = f"{longest}1s"
    yield value(place, "maxLength 21", ok=longest, bad="000001h000001m000001sx", also=also)
    for bad in ("", "10", "1d", "1.5h", "-5m", "m", "1m1h", "1h1h", " 10m", "10m\n", "1H", "9999999s", "٣m"):
        yield value(place, f"rule: {advice}", ok="1h0m0s", bad=bad)
    bounds = f"rule: write a duration from {shortest} to {longest}"
    yield value(place, bounds, ok=longest, bad=above, also=also)
    yield value(place, bounds, ok=shortest, bad=below or above, also=also)


def number(place: str, least: int, most: int) -> Iterator[Example]:
    yield value(place, f"minimum {least}", ok=least, bad=least - 1)
    yield value(place, f"maximum {most}", ok=most, bad=most + 1)


def text(place: str, longest: int, *, ok: str = "a", also: Edits | None = None) -> Iterator[Example]:
    yield value(place, "minLength 1", ok=ok, bad="", also=also)
    yield value(place, f"maxLength {longest}", ok="a" * longest, bad="a" * (longest + 1), also=also)


COLUMN = 'write the name of a column: no control characters, no spaces around it, none of " \\ , ( ) { }'
NO_COLUMN = COLUMN + '; or "" for no such column'
FITS = "rule: write a column's name of at most 63 bytes, PostgreSQL's limit"
BAD_COLUMNS = ('a"b', "a\\b", "a,b", "a(b", "a)b", "a{b", "a}b", " a", "a ", "a\nb", "a\x7fb", "a\x85b")
NAME = "rule: write a name of letters, digits, _, $, - and spaces that begins with a letter or _"
PREFECT_NAME = "rule: write a name alone: no / % & < > and no control characters"
PLACEHOLDER = "rule: write a column's name in braces, such as {id}; a brace cannot stand for itself"
ZONE = "write an IANA time zone such as Etc/UTC or Europe/Berlin"
SECRET = "rule: write the name of a Secret in the policy's namespace, such as captionacc-credentials"
NOT_SHORTER = "write a duration that is not shorter than retry.backoff"


def column(name: str) -> Iterator[Example]:
    place = f"spec.supabase.columns.{name}"

    def also(column: str) -> Edits:
        return {"spec.prefect.parameters": {"video_id": f"{{{column}}}"}} if name == "id" else {}

    yield value(place, "minLength 1", ok="a", bad="", also=also("a"))
    yield value(place, "maxLength 63", ok="a" * 63, bad="a" * 64, also=also("a" * 63))
    yield value(place, FITS, ok="ä" * 31, bad="ä" * 32, also=also("ä" * 31))
    for bad in BAD_COLUMNS:
        yield value(place, f"rule: {COLUMN}", ok="Größe in MB", bad=bad, also=also("Größe in MB"))


def optional_column(name: str) -> Iterator[Example]:
    place = f"spec.supabase.columns.{name}"
    yield value(place, "maxLength 63", ok="a" * 63, bad="a" * 64)
    yield value(place, FITS, ok="ä" * 31, bad="ä" * 32)
    for bad in BAD_COLUMNS:
        yield value(place, f"rule: {NO_COLUMN}", ok="", bad=bad)


def secret(block: str) -> Iterator[Example]:
    place = f"spec.{block}.secretRef.name"
    yield required(f"spec.{block}.secretRef")
    yield required(place)
    yield from text(place, 253)
    for bad in ("Credentials", "a_b", "a/b", "-a", "a.", "a..b", "../other"):
        yield value(place, SECRET, ok="my-credentials.v2", bad=bad)


def template(place: str, *, shortest: str, also: str = "") -> Iterator[Example]:
    longest = also + "a" * (1024 - len(also))
    yield value(place, "maxLength 1024", ok=longest, bad=longest + "a")
    for bad in ("{id", "id}", "{}", "{{id}}", "{ id }", "{id:>5}}", "a\nb{id}", '{a"b}'):
        yield value(place, PLACEHOLDER, ok=shortest, bad=bad)


def examples() -> Iterator[Example]:
    yield required("spec")
    yield from schedule()
    yield from duration("spec.startingDeadline", "0s", "24h", below=None)
    yield value("spec.mode", "enum Enforce Observe", ok="Observe", bad="observe")
    yield from number("spec.historyLimit", 0, 100)
    yield from stuck()
    yield from supabase()
    yield from upload()
    yield from prefect()
    yield from number("spec.limits.perScan", 1, 10_000)
    yield from number("spec.limits.perTenant", 1, 10_000)
    yield from number("spec.limits.active", 1, 100_000)
    yield from retry()


def schedule() -> Iterator[Example]:
    place = "spec.schedule"
    yield value(place, "minLength 1", ok="* * * * *", bad="")
    yield value(place, "maxLength 100", ok="0," * 46 + "* * * * *"[1:], bad="0," * 50 + " * * * *")
    for bad in ("TZ=UTC * * * * *", "CRON_TZ=Europe/Berlin 0 3 * * *"):
        constraint = "rule: write five fields without TZ= or CRON_TZ=, and the zone in spec.timeZone"
        yield value(place, constraint, ok="0 3 * * MON-FRI", bad=bad)
    constraint = 'rule: write five fields instead of a macro, such as "0 * * * *" instead of @hourly'
    yield value(place, constraint, ok="0 * * * *", bad="@hourly")
    constraint = 'rule: write five fields, minute, hour, day of month, month and day of week, such as "*/15 * * * *"'
    for bad in (
        "* * * *",
        "0 * * * * *",
        "* * * * *\n",
        "*\n* * * *",
        " * * * * *",
        "hourly",
        "*\t* * * *",
        "every 15 minutes",
    ):
        yield value(place, constraint, ok="*/15  0-6,18 L * 1#2", bad=bad)
    place = "spec.timeZone"
    yield value(place, "minLength 1", ok="UTC", bad="")
    yield value(place, "maxLength 64", ok="a" * 64, bad="a" * 65)
    for bad in ("Europe/", "/etc/localtime", "../UTC", "Europe/Ber lin", "UTC\n", "Europe//Berlin"):
        yield value(place, f"rule: {ZONE}", ok="America/Argentina/Buenos_Aires", bad=bad)
    for bad in ("Local", "local", "localtime"):
        yield value(place, f"rule: {ZONE}: the controller has no local time", ok="Etc/GMT+5", bad=bad)


def stuck() -> Iterator[Example]:
    place = "spec.stuck.statuses"
    yield value(place, "minItems 1", ok=["uploading"], bad=[])
    yield value(place, "maxItems 20", ok=[f"s{i}" for i in range(20)], bad=[f"s{i}" for i in range(21)])
    yield value(place, "set", ok=["a", "A"], bad=["a", "b", "a"])
    yield from text(f"{place}[*]", 63)
    plain = 'rule: write a status without control characters, " and \\, and without spaces around it'
    for bad in ('a"b', "a\\b", "a\nb", "\x00", " a", "a ", " "):
        yield value(f"{place}[*]", plain, ok="wird geprüft", bad=bad)
    yield from duration("spec.stuck.age", "1m", "8760h", below="59s")
    place = "spec.stuck.ageByStatus"
    many = {f"s{i}": "1m" for i in range(20)}
    yield value(place, "maxProperties 20", ok=many, bad=many | {"s20": "1m"}, also={"spec.stuck.statuses": list(many)})
    yield from duration(f"{place}.*", "1m", "8760h", below="59s")
    yield Example(
        "spec.stuck",
        "rule: write only statuses that are also in stuck.statuses",
        {place: {"pending": "1h"}},
        {place: {"done": "1h"}},
        at=place,
    )
    yield from duration("spec.stuck.recentRunWindow", "0s", "24h", below=None)
    yield from duration("spec.stuck.abandonedRunAfter", "10m", "8760h", below="9m59s")
    place = "spec.stuck.abandonedRunAction"
    also: Edits = {"spec.stuck.abandonedRunAfter": "6h"}
    yield value(place, "enum Report Replace", ok="Replace", bad="Cancel", also=also)
    yield Example(
        "spec.stuck",
        "rule: write abandonedRunAfter too, such as 6h: without it no run counts as abandoned",
        {place: "Replace", **also},
        {place: "Replace"},
        at=place,
    )


def supabase() -> Iterator[Example]:
    yield required("spec.supabase")
    yield from secret("supabase")
    for name in ("schema", "table"):
        yield from text(f"spec.supabase.{name}", 63)
        for bad in ("a/b", "..", "a?b", "1a", "a ", 'a"b', "a\n", "größe"):
            yield value(f"spec.supabase.{name}", NAME, ok="My videos_2$-x", bad=bad)
    for name in ("id", "status", "createdAt"):
        yield from column(name)
    for name in ("name", "tenantId", "deletedAt"):
        yield from optional_column(name)


def upload() -> Iterator[Example]:
    yield required("spec.upload.bucket")
    yield required("spec.upload.objectPath")
    yield from text("spec.upload.bucket", 100)
    for bad in ("a/b", "..", ".", "a ", "a%b", "a?b"):
        constraint = "rule: write a bucket's name of letters, digits, _, -, and between them . and spaces"
        yield value("spec.upload.bucket", constraint, ok="My videos.v2", bad=bad)
    place = "spec.upload.objectPath"
    yield from template(place, shortest="{id}", also="{id}")
    path = (
        "rule: write a path inside the bucket, such as {tenant_id}/{id}.mp4: no / at its ends, no empty, . or .. step,"
        " no % and \\"
    )
    for bad in ("/{id}", "{id}/", "a//{id}", "../{id}", "{id}/..", "a/../{id}", "./{id}", "%2e/{id}", "a\\{id}"):
        yield value(place, path, ok="a.b/..{id}../{tenant_id} x.mp4", bad=bad)
    for bad in ("", "video.mp4"):
        constraint = "rule: name a column in braces, such as {id}: otherwise all videos would share one file"
        yield value(place, constraint, ok="{storage key}", bad=bad)
    yield from duration("spec.upload.abandonedAfter", "1h", "8760h", below="59m59s")


def prefect() -> Iterator[Example]:
    yield required("spec.prefect")
    yield required("spec.prefect.deployment")
    yield from secret("prefect")
    place = "spec.prefect.deployment"
    flow = "f" * 255
    yield value(place, "minLength 1", ok="a/b", bad="")
    yield value(place, "maxLength 511", ok=f"{flow}/{flow}", bad=f"{flow}/{flow}f")
    for bad in ("flow", "a/b/c", "/b", "a/", "a&b/c", "a/b%", "<a>/b", "a/b\n"):
        constraint = (
            "rule: write flow/deployment, such as process-video/production: one slash, neither name with % & < >"
        )
        yield value(place, constraint, ok="My flow/it's production", bad=bad)
    yield from parameters()
    place = "spec.prefect.tags"
    yield value(place, "maxItems 20", ok=[f"t{i}" for i in range(20)], bad=[f"t{i}" for i in range(21)])
    yield value(place, "set", ok=[], bad=["a", "a"])
    yield from text(f"{place}[*]", 100)
    place = "spec.prefect.flows"
    yield value(place, "maxItems 50", ok=[f"f{i}" for i in range(50)], bad=[f"f{i}" for i in range(51)])
    yield value(place, "set", ok=["a", "b"], bad=["a", "a"])
    for place in ("spec.prefect.flows[*]", "spec.prefect.workQueue"):
        yield from text(place, 255)
        for bad in ("process-video/production", "a%b", "a&b", "a<b", "a>b", "a\nb"):
            yield value(place, PREFECT_NAME, ok="My flow", bad=bad)


def parameters() -> Iterator[Example]:
    place = "spec.prefect.parameters"
    many = {"video_id": "{id}", **{f"p{i}": "" for i in range(19)}}
    yield value(place, "maxProperties 20", ok=many, bad=many | {"p19": ""})
    yield from template(f"{place}.*", shortest="")
    names = "rule: write the names of the flow's parameters, such as video_id: letters, digits and _, at most 100"
    for name in ("video-id", "1a", "", "a b", "a" * 101, "a\n"):
        good = {"video_id": "{id}", "_Other" + "a" * 94: "x"}
        yield Example("spec.prefect", names, {place: good}, {place: {"video_id": "{id}", name: "x"}}, at=place)
    present = 'rule: write the parameter that videoIdParameter names, such as video_id: "{id}"'
    renamed: Edits = {"spec.prefect.videoIdParameter": "id", place: {"id": "{id}"}}
    for parameters in ({}, {"id": "{id}"}):
        yield Example("spec.prefect", present, renamed, {place: parameters}, at=place)
    found = (
        "rule: write the id column, and nothing else, for the parameter that videoIdParameter names, such as"
        ' video_id: "{id}"; otherwise a run could not be found again'
    )
    other: Edits = {"spec.supabase.columns.id": "video", place: {"video_id": "{video}"}}
    for lost in ({"video_id": "{tenant_id}"}, {"video_id": "v-{id}"}, {"video_id": "id"}):
        yield Example("spec", found, other, {place: lost}, at=place)
    yield Example("spec", found, other, {"spec.supabase.columns.id": "video", place: MISSING}, at=place)
    place = "spec.prefect.videoIdParameter"
    longest = "a" * 100
    also: Edits = {"spec.prefect.parameters": {longest: "{id}", "a": "{id}", "_id2": "{id}"}}
    yield from text(place, 100, also=also)
    for bad in ("video-id", "1a", "a b", "größe", "a\n"):
        constraint = "rule: write the name of a parameter of the flow, such as video_id"
        yield value(place, constraint, ok="_id2", bad=bad, also=also)


def retry() -> Iterator[Example]:
    yield from number("spec.retry.maxAttempts", 1, 20)
    short: Edits = {"spec.retry.backoff": "1m"}
    long: Edits = {"spec.retry.window": "8760h", "spec.retry.maxBackoff": "168h"}
    yield from duration("spec.retry.window", "1m", "8760h", below="59s", also=short)
    yield from duration("spec.retry.backoff", "1m", "168h", below="59s", also=long)
    yield from duration("spec.retry.maxBackoff", "1m", "168h", below="59s", also=short)
    for name, more in (("maxBackoff", ""), ("window", ": otherwise no attempt would ever count")):
        place = f"spec.retry.{name}"
        equal: Edits = {"spec.retry.backoff": "90m", place: "1h30m"}
        shorter: Edits = {"spec.retry.backoff": "90m", place: "1h29m59s"}
        yield Example("spec.retry", f"rule: {NOT_SHORTER}{more}", equal, shorter, at=place)


EXAMPLES = tuple(examples())
EACH = [pytest.param(example, id=f"{example.id} {number}") for number, example in enumerate(EXAMPLES)]


def edited(edits: Edits) -> Manifest:
    manifest = copy.deepcopy(BASE)
    for place, content in edits.items():
        *blocks, last = place.split(".")
        block = manifest
        for name in blocks:
            block = block.setdefault(name, {})
        if content is MISSING:
            del block[last]
        else:
            block[last] = content
    return manifest


# The schema's constraints, found by a walk


def constraints(schema: Manifest, place: str) -> Iterator[tuple[str, str]]:
    for key in ("minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "maxProperties"):
        # Nothing is shorter than an empty text.
        if key in schema and (key, schema[key]) != ("minLength", 0):
            yield place, f"{key} {schema[key]}"
    if "enum" in schema:
        yield place, " ".join(["enum", *schema["enum"]])
    if schema.get("x-kubernetes-list-type") == "set":
        yield place, "set"
    yield from ((f"{place}.{name}", "required") for name in schema.get("required", ()))
    yield from ((place, f"rule: {rule['message']}") for rule in schema.get("x-kubernetes-validations", ()))
    for name, inner in schema.get("properties", {}).items():
        yield from constraints(inner, f"{place}.{name}")
    if "items" in schema:
        yield from constraints(schema["items"], f"{place}[*]")
    if "additionalProperties" in schema:
        yield from constraints(schema["additionalProperties"], f"{place}.*")


KNOWN_KEYS = {
    "type", "description", "default", "properties", "items", "additionalProperties", "required", "enum",
    "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "maxProperties",
    "x-kubernetes-list-type", "x-kubernetes-validations",
}  # fmt: skip


def keys(schema: Manifest) -> Iterator[str]:
    yield from schema
    for inner in schema.get("properties", {}).values():
        yield from keys(inner)
    for name in {"items", "additionalProperties"} & set(schema):
        yield from keys(schema[name])


def spec_schema() -> Manifest:
    version = custom_resource_definition()["spec"]["versions"][0]
    schema: Manifest = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def test_gives_every_constraint_of_the_schema_an_example_and_no_other():
    found = {("spec", "required"), *constraints(spec_schema(), "spec")}
    assert {(example.place, example.constraint) for example in EXAMPLES} == found


def test_knows_every_kind_of_constraint_in_the_schema():
    assert set(keys(spec_schema())) <= KNOWN_KEYS


# The same examples, read from a file


@pytest.mark.parametrize("example", EACH)
def test_accepts_the_example_from_a_file(example: Example):
    parse_policy(edited(example.accepted))


@pytest.mark.parametrize("example", EACH)
def test_refuses_the_example_from_a_file_and_says_what_to_write(example: Example):
    with pytest.raises(ConfigurationError) as refusal:
        parse_policy(edited(example.refused))
    assert refusal.value.reason == "InvalidSpec"
    expected = FILE_MESSAGES[example.constraint.split()[0]](example.constraint)
    lines = str(refusal.value).splitlines()
    assert any(line.startswith(pointer(example)) and expected in line for line in lines), lines


def pointer(example: Example) -> str:
    return (example.at or example.place).removesuffix("[*]").removesuffix(".*")


def _rest(constraint: str) -> str:
    return constraint.split(" ", 1)[1]


FILE_MESSAGES: dict[str, Callable[[str], str]] = {
    "rule:": _rest,
    "minLength": lambda _: "write at least 1 character",
    # A text that is too long for a duration is none, whatever its length.
    "maxLength": lambda c: (
        "write a duration such as" if c == "maxLength 21" else f"write at most {_rest(c)} characters"
    ),
    "minimum": lambda c: f"write {_rest(c)} or more",
    "maximum": lambda c: f"write {_rest(c)} or less",
    "minItems": lambda _: "write at least 1 item",
    "maxItems": lambda c: f"write at most {_rest(c)} items",
    "maxProperties": lambda c: f"write at most {_rest(c)} items",
    "enum": lambda c: "write " + _rest(c).replace(" ", " or "),
    "required": lambda _: "required",
    "set": lambda _: "write each item once",
}


# A real API server


class Judge:
    """Asks a real API server, which stores nothing."""

    def __init__(self, cluster: ControlPlane) -> None:
        self.kubectl = cluster.kubectl
        self.api = client.CustomObjectsApi(config.new_client_from_config(config_file=str(cluster.kubeconfig)))

    def create(self, manifest: Manifest, *, dry_run: bool = True) -> Manifest:
        options: dict[str, Any] = {"dry_run": "All"} if dry_run else {}
        return self.api.create_namespaced_custom_object(  # type: ignore[return-value]
            GROUP, VERSION, NAMESPACE, PLURAL, manifest,
            field_validation="Strict", **options,
        )  # fmt: skip

    def refusal(self, manifest: Manifest) -> list[tuple[str, str]]:
        """The fields and messages of the refusal."""
        with pytest.raises(ApiException) as refused:
            self.create(manifest)
        assert refused.value.status in {400, 422}, refused.value
        answer = json.loads(str(refused.value.body))
        return [(cause["field"], cause["message"]) for cause in answer["details"]["causes"]]

    def accepts(self, manifest: Manifest) -> bool:
        try:
            self.create(manifest)
        except ApiException as error:
            if error.status not in {400, 422}:
                raise
            return False
        return True


@pytest.fixture(scope="module")
def judge(cluster: ControlPlane) -> Iterator[Judge]:
    cluster.apply(MANIFEST)
    cluster.kubectl("wait", "--for=condition=Established", "-f", MANIFEST, "--timeout=300s")
    judge = Judge(cluster)
    yield judge
    judge.api.api_client.close()


@pytest.mark.e2e
@pytest.mark.parametrize("example", EACH)
def test_accepts_the_example_at_the_api_server(judge: Judge, example: Example):
    judge.create(edited(example.accepted))


@pytest.mark.e2e
@pytest.mark.parametrize("example", EACH)
def test_refuses_the_example_at_the_api_server_and_says_what_to_write(judge: Judge, example: Example):
    causes = judge.refusal(edited(example.refused))
    expected = SERVER_MESSAGES[example.constraint.split()[0]](example.constraint)
    assert any(at.startswith(pointer(example)) and expected in message for at, message in causes), causes


SERVER_MESSAGES: dict[str, Callable[[str], str]] = {
    "rule:": _rest,
    "minLength": lambda c: f"should be at least {_rest(c)} chars long",
    "maxLength": lambda c: f"Too long: may not be more than {_rest(c)} bytes",
    "minimum": lambda c: f"should be greater than or equal to {_rest(c)}",
    "maximum": lambda c: f"should be less than or equal to {_rest(c)}",
    "minItems": lambda c: f"should have at least {_rest(c)} items",
    "maxItems": lambda c: f"must have at most {_rest(c)} items",
    "maxProperties": lambda c: f"must have at most {_rest(c)} items",
    "enum": lambda c: "supported values: " + ", ".join(f'"{word}"' for word in _rest(c).split()),
    "required": lambda _: "Required value",
    "set": lambda _: "Duplicate value",
}


# What both do alike beyond the constraints


WRONG_TYPES = [
    pytest.param("spec.stuck.statuses", [False], "[0]: write text in quotes: YAML reads", id="no as a boolean"),
    pytest.param("spec.stuck.statuses", "uploading", "write a list", id="text for a list"),
    pytest.param("spec.stuck.statuses", [None], "write text", id="a null in a list"),
    pytest.param("spec.stuck.age", 10, "write a duration such as", id="a number for a duration"),
    pytest.param("spec.schedule", 15, "write text in quotes: YAML reads", id="a number for text"),
    pytest.param("spec.supabase.table", ["videos"], "write text", id="a list for text"),
    pytest.param("spec.suspend", "no", "write true or false, without quotes", id="text for a boolean"),
    pytest.param("spec.suspend", 1, "write true or false, without quotes", id="a number for a boolean"),
    pytest.param("spec.limits.perScan", "5", "write a whole number, without quotes", id="text for a number"),
    pytest.param("spec.limits.perScan", 5.5, "write a whole number, without quotes", id="a fraction for a number"),
    pytest.param("spec.limits.perScan", True, "write a whole number, without quotes", id="a boolean for a number"),
    pytest.param("spec.limits", [], "write a block of fields", id="a list for a block"),
    pytest.param("spec.prefect.parameters", "video_id", "write keys with values", id="text for a mapping"),
    pytest.param("spec.prefect.parameters", {"force": True}, "write text in quotes", id="a boolean parameter"),
    pytest.param("spec.mode", False, "write Enforce or Observe", id="off as a mode"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "content", "message"), WRONG_TYPES)
def test_refuses_a_wrong_type_from_a_file_and_says_what_to_write(place: str, content: object, message: str):
    with pytest.raises(ConfigurationError) as refusal:
        parse_policy(edited({place: content}))
    assert str(refusal.value).startswith(place)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.e2e
@pytest.mark.parametrize(("place", "content", "message"), WRONG_TYPES)
def test_refuses_a_wrong_type_at_the_api_server(judge: Judge, place: str, content: object, message: str):
    assert any(at.startswith(place) for at, _ in judge.refusal(edited({place: content})))


ALIKE = [
    pytest.param({"spec.upload": None}, id="a block that is null"),
    pytest.param({"spec.limits": {"perScan": None, "active": 7.0}}, id="a number that is null, and a whole float"),
    pytest.param({"spec.retry": None, "spec.schedule": None}, id="defaults for nulls"),
    pytest.param({"spec.stuck": {"ageByStatus": {"uploading": None, "pending": "1h"}}}, id="a null in a mapping"),
    pytest.param({"spec.supabase.columns": {"name": ""}}, id="a block in part"),
    pytest.param({"spec.upload": MISSING, "spec.prefect.parameters": MISSING}, id="nothing but what is required"),
]


@pytest.mark.e2e
@pytest.mark.parametrize("edits", ALIKE)
def test_fills_in_the_same_defaults_as_the_models(judge: Judge, edits: Edits):
    manifest = edited(edits)
    stored = judge.create(manifest)["spec"]
    assert stored == parse_policy(manifest).spec.model_dump(mode="json", by_alias=True, exclude_none=True)


@pytest.mark.e2e
@pytest.mark.parametrize(
    "block", ["spec", "spec.stuck", "spec.supabase.columns", "spec.upload", "spec.prefect.secretRef"]
)
def test_refuses_an_unknown_field_where_the_models_do(judge: Judge, block: str):
    manifest = edited({f"{block}.time_zone": "UTC"})
    with pytest.raises(ApiException) as refused:
        judge.create(manifest)
    assert f'unknown field \\"{block}.time_zone\\"' in str(refused.value.body)
    with pytest.raises(ConfigurationError, match=re.escape(f"{block}.time_zone: no such field")):
        parse_policy(manifest)


def text_places(schema: Manifest, place: str) -> Iterator[str]:
    if schema["type"] == "string":
        yield place
    for name, inner in schema.get("properties", {}).items():
        yield from text_places(inner, f"{place}.{name}")
    for name, suffix in (("items", "[*]"), ("additionalProperties", ".*")):
        if name in schema:
            yield from text_places(schema[name], place + suffix)


TRICKY = (
    "", " ", "a", "a b", "A", "é", "ß", "ſ", "İ", "\x00", "\t", "\n", "a\n", "a\r", "a\x0b", "a\x7f", "a\x85", "a\xa0",
    "a\xa0b", "\u2028", "\u200b", "😀", "😀" * 40, "ä" * 32, "\\", "'", '"', "`", "$", "-", "_", ".", "..", "/", "a/b",
    "a/é", "//", "{", "{}", "{id}", "{é}", "{id}{id}", "{id}\n", "{id}/", "%", "1", "01", "1m", "01m", "1m1m", "١m",
    "1m\n", "1h60m", "999999h", "0h", "8760h", "8760h0m1s", "0s", "* * * * *", "*  *  *  *  *", "* * * * *\u00a0",
    "é * * * *", "Enforce", "UTC", "Local", "LOCAL", "LocalTime", "ſtc", "\U0010ffff",
)  # fmt: skip


@pytest.mark.e2e
@pytest.mark.parametrize("place", list(text_places(spec_schema(), "spec")))
def test_judges_tricky_texts_as_the_models_do(judge: Judge, place: str):
    disagreements = []
    for content in TRICKY:
        manifest = edited(edit(place, content))
        try:
            parse_policy(manifest)
            accepts = True
        except ConfigurationError:
            accepts = False
        if judge.accepts(manifest) is not accepts:
            disagreements.append((content, f"parse_policy: {accepts}"))
    assert disagreements == []


# What people see with kubectl


STATUS: Manifest = {
    "observedGeneration": 1,
    "observedSchedule": "*/15 * * * * Etc/UTC",
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "ScanSucceeded",
            "message": "Scanned; 12 videos are stuck.",
            "lastTransitionTime": "2026-01-01T10:00:07Z",
            "observedGeneration": 1,
        }
    ],
    "lastHandledReconcileAt": "2026-01-01T09:59:00+01:00",
    "lastScheduleTime": "2026-01-01T10:00:00Z",
    "nextScheduleTime": "2126-01-01T10:15:00Z",
    "lastSuccessfulTime": "2026-01-01T10:00:07Z",
    "lastMissedTime": "2026-01-01T09:45:00Z",
    "stuck": {"total": 12, "oldestAge": "1h5m", "byStatus": {"uploading": 8, "pending": 4}},
    "lastScan": {
        "trigger": "Schedule",
        "startTime": "2026-01-01T10:00:02Z",
        "completionTime": "2026-01-01T10:00:07Z",
        "found": 12,
        "recovered": 5,
        "skipped": 6,
        "failed": 1,
        "waitTime": {"median": "25m", "longest": "1h5m"},
        "confirmations": {"confirmed": 8, "failed": 1},
        "reasons": {"ActiveFlowRun": 6, "InvalidRow": 1},
        "error": "Prefect took too long.",
        "video": "42",
        "decisions": [
            {
                "video": "42",
                "decision": "Skipped",
                "reason": "ActiveFlowRun",
                "message": "A run is active.",
                "flowRun": "7b7a1a4e-0000-4000-8000-000000000000",
                "attempt": 2,
            }
        ],
    },
    "quarantine": {"count": 1, "videos": ["43"]},
    "rampUp": 50,
    "totals": {"scans": 3, "recovered": 9, "confirmed": 8, "failed": 1},
    "recoveryCursor": {
        "createdUntil": "2026-01-01T10:00:07.123456Z",
        "countedLater": 2,
        "endedUntil": "2026-01-01T10:00:02.000000Z",
    },
    "history": [
        {
            "trigger": "Request",
            "startTime": "2026-01-01T10:00:02Z",
            "completionTime": "2026-01-01T10:00:07Z",
            "found": 1,
            "recovered": 0,
            "skipped": 1,
            "failed": 0,
            "reasons": {"ObserveMode": 1},
        },
    ],
}  # fmt: skip


@pytest.fixture
def stored(judge: Judge) -> Iterator[str]:
    """A policy that is really there, with a status."""
    name = judge.create(edited({"metadata.name": "seen-with-kubectl"}), dry_run=False)["metadata"]["name"]
    judge.api.patch_namespaced_custom_object_status(GROUP, VERSION, NAMESPACE, PLURAL, name, {"status": STATUS})
    yield name
    judge.api.delete_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, name)


def fields(content: object) -> Iterator[str]:
    if isinstance(content, dict):
        for name, inner in content.items():
            yield name
            yield from fields(inner)
    if isinstance(content, list):
        for inner in content:
            yield from fields(inner)


def schema_fields(schema: Manifest) -> Iterator[str]:
    for name, inner in schema.get("properties", {}).items():
        yield name
        yield from schema_fields(inner)
    if "items" in schema:
        yield from schema_fields(schema["items"])


def test_shows_every_field_of_the_status_in_the_sample():
    status = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert set(schema_fields(status)) <= set(fields(STATUS))


@pytest.mark.e2e
def test_stores_a_status_as_it_is_written(judge: Judge, stored: str):
    policy: Any = judge.api.get_namespaced_custom_object_status(GROUP, VERSION, NAMESPACE, PLURAL, stored)
    found = policy["status"]
    assert found == STATUS
    assert PolicyStatus.model_validate(found).to_manifest() == STATUS


@pytest.mark.e2e
def test_keeps_the_conditions_apart_by_their_type(judge: Judge, stored: str):
    twice = {"status": {"conditions": STATUS["conditions"] * 2}}
    with pytest.raises(ApiException, match="Duplicate value"):
        judge.api.patch_namespaced_custom_object_status(GROUP, VERSION, NAMESPACE, PLURAL, stored, twice)


@pytest.mark.e2e
def test_prints_the_columns_that_people_look_for(judge: Judge, stored: str):
    narrow = judge.kubectl("get", "vrp", stored).splitlines()
    assert narrow[0].split("  ")[0] == "NAME"
    assert re.split(r"\s{2,}|(?<=[A-Z]) (?=AGE)", narrow[0].strip()) == [
        "NAME", "SCHEDULE", "SUSPEND", "STUCK", "RECOVERED", "SKIPPED", "FAILED", "LAST SCAN", "READY", "AGE",
    ]  # fmt: skip
    assert re.search(r"\*/15 \* \* \* \* +false +12 +5 +6 +1 +\d+\w+ +True +\d+s$", narrow[1])


@pytest.mark.e2e
def test_prints_the_next_scan_which_lies_in_the_future(judge: Judge, stored: str):
    wide = judge.kubectl("get", "recovery", stored, "-o", "wide")
    assert "<invalid>" not in wide
    assert re.search(r"Enforce +12 .* 1 +\d+\w+ +2126-01-01T10:15:00Z +True +Scanned; 12 videos are stuck\.", wide)


@pytest.mark.e2e
def test_is_no_part_of_kubectl_get_all(judge: Judge, stored: str):
    assert stored not in judge.kubectl("get", "all")


@pytest.mark.e2e
def test_explains_a_field_with_its_bounds_default_and_an_example(judge: Judge):
    explained = " ".join(judge.kubectl("explain", "vrp.spec.stuck.age").split())
    assert "How long a video waits" in explained
    assert "From 1m to 8760h. Default: 10m. Example: 45m." in explained


@pytest.mark.e2e
def test_tells_a_user_of_kubectl_what_to_write_instead(judge: Judge):
    manifest = json.dumps(edited({"spec.stuck.age": "1 day", "spec.schedule": "@hourly"}))
    with pytest.raises(subprocess.CalledProcessError) as refused:
        judge.kubectl("apply", "--dry-run=server", "-f", "-", stdin=manifest)
    message = refused.value.stderr
    assert 'spec.stuck.age: Invalid value: "1 day": write a duration such as 90s, 10m or 1h30m' in message
    assert 'write five fields instead of a macro, such as "0 * * * *" instead of @hourly' in message
    assert "evaluat" not in message


@pytest.mark.e2e
def test_applies_the_example(judge: Judge):
    applied = judge.kubectl("apply", "--dry-run=server", "-n", NAMESPACE, "-f", EXAMPLE)
    assert "videorecoverypolicy.recovery.captiona.cc" in applied


@pytest.mark.e2e
def test_is_structural_and_has_no_warnings(judge: Judge):
    found = json.loads(judge.kubectl("get", "crd", f"{PLURAL}.{GROUP}", "-o", "json"))
    conditions = {condition["type"]: condition["status"] for condition in found["status"]["conditions"]}
    assert conditions["NamesAccepted"] == conditions["Established"] == "True"
    assert "NonStructuralSchema" not in conditions
    judge.kubectl("apply", "--dry-run=server", "--server-side", "--warnings-as-errors", "-f", MANIFEST)
