"""The CustomResourceDefinition, made from the models of the spec and the status.

Adds what a model cannot say (names, printer columns) and turns pydantic's JSON schema into the structural schema that
the API server wants: no references, no titles, no alternatives. Never says anything about a field that its model does
not say. `tools/generate/crd.py` writes it into `manifests/crd.yaml`.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from controller.api.durations import format_duration
from controller.api.names import API_VERSION, KIND
from controller.api.policy import PolicySpec
from controller.api.status import PolicyStatus

Schema = dict[str, Any]

_LEFT_OUT = {
    "$defs",
    "title",
    "examples",
    "additionalProperties",
    "anyOf",
    "default",
    "description",
    "x-bounds",
}
"""What the API server does not take, and what is written in another way."""

_WIDE = 1


def _column(name: str, kind: str, path: str, description: str, priority: int = 0) -> Schema:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return {**column, "priority": priority} if priority else column


def _ready(field: str) -> str:
    return f'.status.conditions[?(@.type=="Ready")].{field}'


PRINTER_COLUMNS = (
    _column("Schedule", "string", ".spec.schedule", "When it scans."),
    _column("Suspend", "boolean", ".spec.suspend", "Whether scheduled scans are suspended."),
    _column("Mode", "string", ".spec.mode", "Enforce, or Observe: create nothing.", _WIDE),
    _column("Stuck", "integer", ".status.stuck.total", "Stuck videos that the last full scan found."),
    _column("Recovered", "integer", ".status.lastScan.recovered", "Videos that the last scan recovered."),
    _column("Skipped", "integer", ".status.lastScan.skipped", "Videos that the last scan left alone."),
    _column("Failed", "integer", ".status.lastScan.failed", "Videos that the last scan could not recover."),
    _column("Quarantined", "integer", ".status.quarantine.count", "Videos without attempts left.", _WIDE),
    _column("Last Scan", "date", ".status.lastScan.completionTime", "How long ago the last scan was done."),
    # As a date, kubectl prints a time in the future as <invalid>.
    _column("Next Scan", "string", ".status.nextScheduleTime", "When the schedule fires next.", _WIDE),
    _column("Ready", "string", _ready("status"), "Whether the spec is valid and both services were reached."),
    _column("Status", "string", _ready("message"), "What Ready says.", _WIDE),
    _column("Age", "date", ".metadata.creationTimestamp", "How long ago it was created."),
)


class _Generator(GenerateJsonSchema):
    """Writes durations as a policy does, not in ISO 8601."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, timedelta):
            return format_duration(dft)
        return super().encode_default(dft)


def custom_resource_definition() -> Schema:
    """The whole CRD."""
    group, version = API_VERSION.split("/")
    plural = "videorecoverypolicies"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": plural,
                "singular": "videorecoverypolicy",
                "shortNames": ["vrp"],
                # Not `all`: a policy configures, and `kubectl delete all --all` is meant for workloads.
                "categories": ["recovery"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": list(PRINTER_COLUMNS),
                    "schema": {"openAPIV3Schema": _resource_schema()},
                }
            ],
        },
    }


def _resource_schema() -> Schema:
    status = structural_schema(PolicyStatus, defaults=False)
    status["properties"]["conditions"] |= {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
    return {
        "description": "Finds videos that are stuck before processing and recovers each, once, with a run of a"
        " Prefect deployment. Annotate a policy with recovery.captiona.cc/requestedAt to scan now.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{API_VERSION}."},
            "kind": {"type": "string", "description": f"{KIND}."},
            "metadata": {"type": "object"},
            "spec": structural_schema(PolicySpec),
            "status": status,
        },
    }


def structural_schema(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """The model's schema as the API server takes it, with the defaults that it is to fill in or without any."""
    schema = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    schema = schema if defaults else _without_defaults(schema)
    return _structural(schema, schema.get("$defs", {}))


def _structural(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    schema = _resolved(schema, definitions)
    result = {key: value for key, value in schema.items() if key not in _LEFT_OUT}
    if "properties" in schema:
        result["properties"] = {name: _structural(field, definitions) for name, field in schema["properties"].items()}
    if "items" in schema:
        result["items"] = _structural(schema["items"], definitions)
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(schema["additionalProperties"], definitions)
    if schema.get("default") is not None:
        result["default"] = _default_block(schema) if "properties" in schema else schema["default"]
    description = _description(schema, result)
    return {"description": description, **result} if description else result


def _default_block(schema: Schema) -> Schema:
    """What stands for a block that is not written.

    Nothing, as the API server fills in the fields' own defaults; but it judges the default of a block with rules
    before it does.
    """
    if "x-kubernetes-validations" not in schema:
        return {}
    return {name: value for name, value in schema["default"].items() if value is not None}


def _resolved(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """The schema with its reference, and the alternative to null, written out; what the field says wins."""
    for alternative in schema.get("anyOf", ()):
        if alternative.get("type") != "null":
            schema = {**alternative, **schema}
    if "$ref" in schema:
        schema = {**definitions[schema["$ref"].rsplit("/", 1)[-1]], **schema}
    return {key: value for key, value in schema.items() if key != "$ref"}


def _description(schema: Schema, structural: Schema) -> str:
    """What `kubectl explain` shows: the meaning, the bounds, the default and an example."""
    parts = [" ".join(schema.get("description", "").split())]
    if "x-bounds" in schema:
        parts.append(f"{schema['x-bounds']}.")
    elif "minimum" in schema and "maximum" in schema:
        parts.append(f"From {schema['minimum']} to {schema['maximum']}.")
    if "properties" not in schema and structural.get("default") not in (None, {}, []):
        parts.append(f"Default: {_shown(structural['default'])}.")
    if schema.get("examples"):
        parts.append(f"Example: {_shown(schema['examples'][0])}.")
    return " ".join(filter(None, parts))


def _shown(value: object) -> str:
    """A value as one would write it in a manifest, on one line."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).removesuffix("...\n").strip()


def _without_defaults(schema: Schema) -> Schema:
    """A status that says nothing says nothing: the API server is to add no zeros to it."""
    return {
        key: _without_defaults(value) if isinstance(value, dict) else value
        for key, value in schema.items()
        if key != "default"
    }
