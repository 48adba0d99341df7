"""What a policy says, and how a wrong one is refused. Bounds and rules: tests/e2e/test_crd_constraints.py."""

import copy
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from controller.api.manifest import Policy, parse_policy
from controller.api.policy import AbandonedRunAction, Mode, Stuck, placeholders
from controller.errors import ConfigurationError

EXAMPLE = Path(__file__).parents[2] / "manifests" / "example.yaml"

MINIMAL = """
apiVersion: recovery.captiona.cc/v1alpha1
kind: VideoRecoveryPolicy
metadata: {name: captionacc-prod}
spec:
  supabase: {secretRef: {name: credentials}}
  prefect: {secretRef: {name: credentials}, deployment: process-video/production}
"""

FULL = """
apiVersion: recovery.captiona.cc/v1alpha1
kind: VideoRecoveryPolicy
metadata: {name: captionacc-prod, namespace: captionacc, uid: 4562f39a, generation: 3}
spec:
  schedule: "0 3 * * *"
  timeZone: Europe/Berlin
  startingDeadline: 1h
  suspend: true
  mode: Observe
  stuck:
    statuses: [uploading, queued]
    age: 1h30m
    ageByStatus: {uploading: 90s}
    recentRunWindow: 0s
    abandonedRunAfter: 6h
    abandonedRunAction: Replace
  supabase:
    secretRef: {name: supabase}
    schema: captionacc
    table: media
    columns: {id: video, status: state, createdAt: at, name: "", tenantId: "", deletedAt: gone}
  upload: {bucket: files, objectPath: "{video}.mp4", abandonedAfter: 72h}
  prefect:
    secretRef: {name: prefect}
    deployment: a/b
    videoIdParameter: id
    parameters: {id: "{video}", fixed: text}
    tags: []
    workQueue: recovery
    flows: [a]
    holdUntilReady: false
  limits: {perScan: 1, perTenant: 2, active: 3}
  retry: {maxAttempts: 4, window: 5h, backoff: 6m, maxBackoff: 7m}
  historyLimit: 0
"""


def manifest(text: str = MINIMAL) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def refusal(content: Mapping[str, object]) -> str:
    with pytest.raises(ConfigurationError) as refused:
        parse_policy(content)
    assert refused.value.reason == "InvalidSpec"
    return str(refused.value)


def test_reads_every_field():
    policy = parse_policy(manifest(FULL))
    spec = policy.spec
    assert (policy.namespace, policy.name, policy.uid, policy.generation) == (
        "captionacc",
        "captionacc-prod",
        "4562f39a",
        3,
    )
    assert (spec.schedule, spec.time_zone, spec.starting_deadline) == ("0 3 * * *", "Europe/Berlin", timedelta(hours=1))
    assert (spec.suspend, spec.mode, spec.history_limit) == (True, Mode.OBSERVE, 0)
    assert (spec.stuck.statuses, spec.stuck.age) == (("uploading", "queued"), timedelta(minutes=90))
    assert spec.stuck.age_by_status == {"uploading": timedelta(seconds=90)}
    assert (spec.stuck.recent_run_window, spec.stuck.abandoned_run_after) == (timedelta(0), timedelta(hours=6))
    assert spec.stuck.abandoned_run_action is AbandonedRunAction.REPLACE
    supabase = spec.supabase
    assert (supabase.secret_ref.name, supabase.schema_name, supabase.table) == ("supabase", "captionacc", "media")
    columns = supabase.columns
    assert (columns.id, columns.status, columns.created_at) == ("video", "state", "at")
    assert (columns.name, columns.tenant_id, columns.deleted_at) == ("", "", "gone")
    assert spec.upload is not None
    assert (spec.upload.bucket, spec.upload.object_path) == ("files", "{video}.mp4")
    assert spec.upload.abandoned_after == timedelta(hours=72)
    prefect = spec.prefect
    assert (prefect.secret_ref.name, prefect.deployment, prefect.video_id_parameter) == ("prefect", "a/b", "id")
    assert prefect.parameters == {"id": "{video}", "fixed": "text"}
    assert (prefect.tags, prefect.work_queue, prefect.flows) == ((), "recovery", ("a",))
    assert prefect.hold_until_ready is False
    assert (spec.limits.per_scan, spec.limits.per_tenant, spec.limits.active) == (1, 2, 3)
    assert (spec.retry.max_attempts, spec.retry.window) == (4, timedelta(hours=5))
    assert (spec.retry.backoff, spec.retry.max_backoff) == (timedelta(minutes=6), timedelta(minutes=7))


def test_fills_in_what_the_replaced_system_did():
    policy = parse_policy(manifest())
    spec = policy.spec
    assert (policy.namespace, policy.uid, policy.generation) == ("default", "", 0)
    assert (spec.schedule, spec.time_zone, spec.mode) == ("*/15 * * * *", "Etc/UTC", Mode.ENFORCE)
    assert (spec.stuck.statuses, spec.stuck.age) == (("uploading", "pending"), timedelta(minutes=10))
    assert spec.stuck.recent_run_window == timedelta(minutes=5)
    assert spec.stuck.abandoned_run_after is None
    assert spec.upload is None
    assert spec.prefect.tags == ("recovery",)
    assert spec.prefect.parameters == {
        "video_id": "{id}",
        "tenant_id": "{tenant_id}",
        "storage_key": "{tenant_id}/client/videos/{id}/video.mp4",
    }


def test_reads_the_policy_of_the_example():
    _, policy = yaml.safe_load_all(EXAMPLE.read_text())
    assert parse_policy(policy).spec.supabase.schema_name == "captionacc"


def test_reads_any_kind_of_mapping():
    content = MappingProxyType({**manifest(), "spec": MappingProxyType(manifest()["spec"])})
    assert parse_policy(content) == parse_policy(manifest())


def test_writes_the_policy_as_it_was_read():
    spec = parse_policy(manifest(FULL)).spec
    written = spec.model_dump(mode="json", by_alias=True)
    assert written["stuck"]["age"] == "1h30m"
    assert parse_policy(manifest(FULL) | {"spec": written}).spec == spec


def test_cannot_be_changed():
    policy = parse_policy(manifest())
    with pytest.raises(ValidationError, match="frozen"):
        policy.spec.suspend = True  # type: ignore[misc]
    with pytest.raises(AttributeError):
        policy.name = "other"  # type: ignore[misc]


def test_shares_no_default_between_policies():
    one, other = parse_policy(manifest()), parse_policy(manifest())
    assert one.spec.prefect.parameters is not other.spec.prefect.parameters


def test_takes_python_names_and_durations_from_code_and_checks_them():
    assert Stuck(recent_run_window=timedelta(0)).recent_run_window == timedelta(0)
    with pytest.raises(ValidationError, match="write a duration from 0s to 24h"):
        Stuck(recent_run_window=timedelta(days=2))


@pytest.mark.parametrize(
    ("place", "content", "message"),
    [
        pytest.param("apiVersion", "v1", "apiVersion: write recovery.captiona.cc/v1alpha1", id="another version"),
        pytest.param("kind", "Secret", "kind: write VideoRecoveryPolicy", id="another kind"),
        pytest.param("metadata", None, "metadata.name: write lower-case letters", id="no metadata"),
        pytest.param("metadata", {"name": 5}, "metadata.name: write lower-case letters", id="a number as a name"),
        pytest.param("metadata", {"name": "A"}, "metadata.name: write lower-case letters", id="an upper-case name"),
        pytest.param(
            "metadata", {"name": "a", "namespace": "a/b"}, "metadata.namespace: write lower-case", id="a bad namespace"
        ),
        pytest.param("spec", None, "spec: required, with at least supabase.secretRef", id="no spec"),
        pytest.param("spec", [], "spec: required, with at least supabase.secretRef", id="a list as spec"),
    ],
)
def test_refuses_what_is_no_policy(place: str, content: object, message: str):
    assert refusal(manifest() | {place: content}).startswith(message)


def test_names_the_field_that_is_missing_with_an_example():
    content = manifest()
    del content["spec"]["prefect"]["deployment"]
    assert refusal(content) == (
        "spec.prefect.deployment: required, for example "
        "captionacc-video-initial-processing/captionacc-prod-video-initial-processing"
    )


def test_takes_a_null_for_a_field_that_is_missing():
    content = manifest()
    content["spec"]["supabase"] = None
    assert refusal(content).startswith("spec.supabase: required, for example {secretRef: {name: ")


def test_suggests_the_field_that_was_meant():
    content = manifest()
    content["spec"]["stuck"] = {"agebystatus": {}}
    assert refusal(content) == "spec.stuck.agebystatus: no such field; write ageByStatus"


def test_lists_the_fields_where_none_is_similar():
    content = manifest()
    content["spec"]["limits"] = {"xyz": 1}
    assert refusal(content) == "spec.limits.xyz: no such field; there are perScan, perTenant, active"


def test_names_two_fields_and_counts_the_rest():
    content = manifest()
    content["spec"]["limits"] = {"perScan": 0, "perTenant": 100_000, "active": "5"}
    content["spec"]["mode"] = "Off"
    assert refusal(content) == (
        "spec.mode: write Enforce or Observe\nspec.limits.perScan: write 1 or more (and 2 more)"
    )


def test_says_of_a_list_with_a_wrong_item_only_what_is_wrong_with_the_item():
    content = manifest()
    content["spec"]["stuck"] = yaml.safe_load("statuses: [no]")
    assert refusal(content) == (
        "spec.stuck.statuses[0]: write text in quotes: YAML reads yes, no, on, off, true and false without them as"
        " booleans"
    )


def test_never_repeats_a_value():
    content = manifest()
    secret = "eyJhbGciOiJIUzI1NiJ9.secret"
    content["spec"]["supabase"]["secretRef"]["name"] = secret
    content["spec"]["stuck"] = {"age": secret, "statuses": secret}
    assert secret not in refusal(content)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3) | st.integers(), inner)
)


def blocks(content: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = content.items() if isinstance(content, dict) else ()
    return [path, *(place for name, value in inner for place in blocks(value, (*path, name)))]


@given(st.sampled_from(blocks(manifest(FULL))), ANYTHING)
@settings(max_examples=100)
def test_says_in_plain_words_what_is_wrong_whatever_is_written(place: tuple[str, ...], content: object):
    edited: Any = copy.deepcopy(manifest(FULL))
    if not place:
        edited = content if isinstance(content, dict) else {}
    else:
        block = edited
        for name in place[:-1]:
            block = block[name]
        block[place[-1]] = content
    try:
        assert isinstance(parse_policy(edited), Policy)
    except ConfigurationError as error:
        message = str(error)
        assert len(message.splitlines()) <= 2
        assert not any(word in message for word in ("Input", "validat", "pydantic", "should be", "something else"))


@pytest.mark.parametrize(
    ("template", "columns"),
    [
        pytest.param("", (), id="nothing"),
        pytest.param("fixed", (), id="none"),
        pytest.param("{id}", ("id",), id="one"),
        pytest.param("{tenant_id}/{id}/{tenant_id}.mp4", ("tenant_id", "id"), id="one twice"),
        pytest.param("{My column}", ("My column",), id="a space"),
    ],
)
def test_finds_the_columns_that_a_template_names(template: str, columns: tuple[str, ...]):
    assert placeholders(template) == columns
