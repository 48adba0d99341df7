"""The CRD: generated, up to date, structural, described. What it accepts: tests/e2e/test_crd_constraints.py."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.api.crd import custom_resource_definition
from controller.api.manifest import parse_policy
from controller.api.policy import PolicySpec
from controller.api.status import PolicyStatus
from tools.generate.crd import MANIFEST, render

ROOT = Path(__file__).parents[2]
POLICY_PAGE = ROOT / "docs" / "policy.md"

Schema = dict[str, Any]

DEFINITION = custom_resource_definition()["spec"]
(RELEASE,) = DEFINITION["versions"]
RESOURCE = RELEASE["schema"]["openAPIV3Schema"]["properties"]

MINIMAL: Schema = {
    "supabase": {"secretRef": {"name": "credentials"}},
    "prefect": {"secretRef": {"name": "credentials"}, "deployment": "process-video/production"},
}


def walk(schema: Schema, place: str) -> Iterator[tuple[str, Schema]]:
    """Every schema inside, with its place."""
    yield place, schema
    for name, inner in schema.get("properties", {}).items():
        yield from walk(inner, f"{place}.{name}")
    for name, suffix in (("items", "[*]"), ("additionalProperties", ".*")):
        if name in schema:
            yield from walk(schema[name], place + suffix)


EVERYTHING = {place: schema for part in ("spec", "status") for place, schema in walk(RESOURCE[part], part)}
FIELDS = {place: schema for place, schema in EVERYTHING.items() if not place.endswith(("[*]", ".*"))}


def test_is_in_the_manifest_as_the_models_have_it():
    assert MANIFEST.read_text() == render(), "run `make generate`"


def test_prints_the_manifest():
    printed = subprocess.run(
        [sys.executable, "-m", "tools.generate.crd"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert printed.stdout == render()


def test_reads_back_as_it_was_generated():
    assert yaml.safe_load(render()) == json.loads(json.dumps(custom_resource_definition()))


def test_has_the_names_that_people_type():
    assert DEFINITION["names"] == {
        "kind": "VideoRecoveryPolicy",
        "listKind": "VideoRecoveryPolicyList",
        "plural": "videorecoverypolicies",
        "singular": "videorecoverypolicy",
        "shortNames": ["vrp"],
        "categories": ["recovery"],
    }
    assert (DEFINITION["group"], RELEASE["name"], DEFINITION["scope"]) == (
        "recovery.captiona.cc",
        "v1alpha1",
        "Namespaced",
    )


def test_prints_the_columns_in_the_order_of_the_design():
    columns = [(column["name"], column.get("priority", 0)) for column in RELEASE["additionalPrinterColumns"]]
    assert columns == [
        ("Schedule", 0),
        ("Suspend", 0),
        ("Mode", 1),
        ("Stuck", 0),
        ("Recovered", 0),
        ("Skipped", 0),
        ("Failed", 0),
        ("Quarantined", 1),
        ("Last Scan", 0),
        ("Next Scan", 1),
        ("Ready", 0),
        ("Status", 1),
        ("Age", 0),
    ]


@pytest.mark.parametrize("column", RELEASE["additionalPrinterColumns"], ids=lambda column: column["name"])
def test_prints_a_column_of_a_field_that_exists(column: Schema):
    path = column["jsonPath"].removeprefix(".").replace('[?(@.type=="Ready")]', "[*]")
    assert path == "metadata.creationTimestamp" or path in EVERYTHING


@pytest.mark.parametrize("place", EVERYTHING)
def test_is_structural(place: str):
    schema = EVERYTHING[place]
    assert isinstance(schema["type"], str)
    assert not {"$ref", "$defs", "title", "anyOf", "oneOf", "allOf", "not", "examples", "x-bounds"} & set(schema)
    assert not {"properties", "additionalProperties"} <= set(schema)


@pytest.mark.parametrize("place", FIELDS)
def test_describes_a_field(place: str):
    description = FIELDS[place].get("description", "")
    assert len(description) > 10
    assert "\n" not in description
    assert description.rstrip(")")[-1] in ".}]" or "Example: " in description


@pytest.mark.parametrize("place", [place for place, schema in FIELDS.items() if place.startswith("spec.")])
def test_describes_a_field_of_the_spec_with_its_bounds_its_default_and_an_example(place: str):
    schema = FIELDS[place]
    description = schema["description"]
    if "properties" not in schema:
        assert "Example: " in description
        assert ("Default: " in description) == (schema.get("default") not in (None, [], {}))
        assert ("From " in description) == (
            "minimum" in schema or "duration(self)" in json.dumps(schema.get("x-kubernetes-validations", []))
        )


@pytest.mark.parametrize("place", [place for place in EVERYTHING if place.startswith("spec.")])
def test_bounds_everything_in_the_spec_so_that_its_rules_are_cheap(place: str):
    schema = EVERYTHING[place]
    bound = {"string": "maxLength", "array": "maxItems", "integer": "maximum"}.get(schema["type"])
    if "additionalProperties" in schema:
        bound = "maxProperties"
    assert bound is None or bound in schema or "enum" in schema


def test_keeps_one_condition_of_each_type():
    conditions = EVERYTHING["status.conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert "type" in conditions["items"]["required"]


def test_adds_nothing_to_a_status():
    assert not [place for place, schema in EVERYTHING.items() if place.startswith("status") and "default" in schema]


def with_defaults(content: Schema, schema: Schema) -> Schema:
    """What the API server makes of it."""
    result = dict(content)
    for name, field in schema.get("properties", {}).items():
        if name not in result and "default" in field:
            result[name] = field["default"]
        if name in result and "properties" in field:
            result[name] = with_defaults(result[name], field)
    return result


def test_has_the_defaults_of_the_models():
    manifest: dict[str, Any] = {
        "apiVersion": "recovery.captiona.cc/v1alpha1",
        "kind": "VideoRecoveryPolicy",
        "metadata": {"name": "x"},
        "spec": {**MINIMAL, "upload": {"bucket": "videos", "objectPath": "{id}"}},
    }
    parsed = parse_policy(manifest).spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert with_defaults(manifest["spec"], RESOURCE["spec"]) == parsed


def test_has_every_field_of_the_models():
    def aliases(model: Any) -> set[str]:
        return {field.alias or name for name, field in model.model_fields.items()}

    assert set(RESOURCE["spec"]["properties"]) == aliases(PolicySpec)
    assert set(RESOURCE["status"]["properties"]) == aliases(PolicyStatus)


@pytest.mark.parametrize("place", [place for place in FIELDS if "." in place])
def test_names_every_field_on_the_page_of_the_policy(place: str):
    path = place.replace("[*]", "").removeprefix("spec.")
    assert f"`{path}`" in POLICY_PAGE.read_text()


DEFAULTED = {
    place: schema["default"]
    for place, schema in FIELDS.items()
    # The default of `parameters` is too long for a cell: the page has it in an example.
    if "default" in schema and "properties" not in schema and place != "spec.prefect.parameters"
}


@pytest.mark.parametrize("place", DEFAULTED)
def test_names_the_default_on_the_page_of_the_policy(place: str):
    path, default = place.removeprefix("spec."), DEFAULTED[place]
    (row,) = [line for line in POLICY_PAGE.read_text().splitlines() if line.startswith(f"| `{path}` ")]
    written = row.split(" | ")[1].strip("`")
    assert (written if isinstance(default, str) else yaml.safe_load(written)) == default


def test_has_policies_on_the_page_that_can_be_applied():
    smallest, full = [yaml.safe_load(block.split("```")[0]) for block in POLICY_PAGE.read_text().split("```yaml\n")[1:]]
    assert parse_policy(smallest).spec.upload is None
    every_field = {place.split(".")[1] for place in FIELDS if place.startswith("spec.")}
    assert set(full["spec"]) == every_field
    assert parse_policy(full).spec.prefect.parameters == parse_policy(smallest).spec.prefect.parameters
