"""Constraints, each written once for Python and for the API server, and the texts that several fields share.

A rule has its CEL, its Python and one message, which says what to write; a block is a model whose JSON schema carries
its rules. Knows nothing about what a policy is.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from controller.api.durations import DURATION_ADVICE, DURATION_PATTERN, LONGEST_TEXT, format_duration, parse_duration


@dataclass(frozen=True, slots=True)
class Rule:
    """A constraint in CEL for the API server and in Python for us, with one message that says what to write.

    Attributes:
        field: For a rule of a whole block: the field that the message is about.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    field: str = ""

    def check(self, value: Any) -> Any:
        """Return the value, or raise the error that carries the message."""
        if not self.holds(value):
            raise _refusal(self.message, self.field)
        return value

    def as_validation(self) -> dict[str, str]:
        """An item of `x-kubernetes-validations`."""
        path = {"fieldPath": f".{self.field}"} if self.field else {}
        return {"rule": self.cel, "message": self.message, **path}

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return _with_rules(handler(core), (self,))


def _refusal(message: str, field: str = "") -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": message, "field": field})


def _with_rules(schema: JsonSchemaValue, rules: tuple[Rule, ...]) -> JsonSchemaValue:
    if rules:
        schema.setdefault("x-kubernetes-validations", []).extend(rule.as_validation() for rule in rules)
    return schema


def matching(pattern: str, message: str) -> Rule:
    """The text matches a pattern whose syntax RE2 and Python share."""
    compiled = re.compile(pattern)
    return Rule(f"self.matches(r'{pattern}')", message, lambda text: compiled.fullmatch(text) is not None)


def text(longest: int, *, shortest: int = 1) -> StringConstraints:
    """Text, and nothing that could be read as text."""
    return StringConstraints(strict=True, min_length=shortest, max_length=longest)


def number(least: int, most: int) -> Any:
    """A whole number within bounds, and no text or boolean."""
    return Field(strict=True, ge=least, le=most)


@dataclass(frozen=True, slots=True)
class Between:
    """A duration, written as text, with its bounds."""

    shortest: str
    longest: str

    def parse(self, value: object) -> timedelta:
        """Read the text that a policy holds; a timedelta comes from Python code and is taken as it is."""
        if not isinstance(value, str | timedelta):
            raise _refusal(DURATION_ADVICE)
        try:
            duration = parse_duration(value) if isinstance(value, str) else value
        except ValueError as error:
            raise _refusal(str(error)) from None
        if not parse_duration(self.shortest) <= duration <= parse_duration(self.longest):
            raise _refusal(self.advice)
        return duration

    @property
    def advice(self) -> str:
        """What to write if the duration is out of bounds."""
        return f"write a duration from {self.shortest} to {self.longest}"

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        as_text = core_schema.plain_serializer_function_ser_schema(format_duration)
        return core_schema.no_info_plain_validator_function(self.parse, serialization=as_text)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        at_least = f"duration(self) >= duration('{self.shortest}')"
        at_most = f"duration(self) <= duration('{self.longest}')"
        rules = [
            {"rule": _is_duration("self"), "message": DURATION_ADVICE},
            {"rule": f"!({_is_duration('self')}) || ({at_least} && {at_most})", "message": self.advice},
        ]
        return {
            "type": "string",
            "maxLength": LONGEST_TEXT,
            "x-bounds": f"From {self.shortest} to {self.longest}",
            "x-kubernetes-validations": rules,
        }


def _is_duration(cel: str) -> str:
    return f"{cel} != '' && {cel}.matches('{DURATION_PATTERN}')"


def not_shorter(longer: str, shorter: str) -> str:
    """CEL that compares two durations; a malformed one has a message of its own."""
    both = " && ".join(_is_duration(f"self.{name}") for name in (longer, shorter))
    return f"!({both}) || duration(self.{longer}) >= duration(self.{shorter})"


@dataclass(frozen=True, slots=True)
class Unique:
    """Each item of the list is there once."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(core), "x-kubernetes-list-type": "set"}

    def check(self, items: tuple[str, ...]) -> tuple[str, ...]:
        """Return the items, or raise the error that says so."""
        if len(set(items)) < len(items):
            raise _refusal("write each item once")
        return items


class Block(BaseModel):
    """A block of the spec: frozen, camelCase outside, snake_case inside."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()
    """Rules between the fields of the block."""

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for rule in self.rules:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        return _with_rules(schema, cls.rules)


# The texts that several fields share

_CONTROL = r"\x00-\x1f\x7f-\x9f"
_IN_COLUMN = rf'[^{_CONTROL}"\\,(){{}}]'
_AT_ITS_ENDS = rf'[^{_CONTROL} "\\,(){{}}]'
_COLUMN = rf"{_AT_ITS_ENDS}({_IN_COLUMN}*{_AT_ITS_ENDS})?"
_DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_NAME = rf"^{_DNS_LABEL}(\.{_DNS_LABEL})*$"
PREFECT_NAME = rf"[^/%&<>{_CONTROL}]+"

_COLUMN_ADVICE = 'write the name of a column: no control characters, no spaces around it, none of " \\ , ( ) { }'
_PLACEHOLDER_ADVICE = "write a column's name in braces, such as {id}; a brace cannot stand for itself"
_NAME_ADVICE = "write a name of letters, digits, _, $, - and spaces that begins with a letter or _"

_column_fits = Rule(
    "size(bytes(self)) <= 63",
    "write a column's name of at most 63 bytes, PostgreSQL's limit",
    lambda name: len(name.encode()) <= 63,
)
_prefect_name = matching(f"^{PREFECT_NAME}$", "write a name alone: no / % & < > and no control characters")

ColumnName = Annotated[str, text(63), matching(f"^{_COLUMN}$", _COLUMN_ADVICE), _column_fits]
OptionalColumnName = Annotated[
    str,
    text(63, shortest=0),
    matching(f"^({_COLUMN})?$", _COLUMN_ADVICE + '; or "" for no such column'),
    _column_fits,
]
SqlName = Annotated[str, text(63), matching("^[A-Za-z_]([A-Za-z0-9_$ -]*[A-Za-z0-9_$-])?$", _NAME_ADVICE)]
Template = Annotated[
    str, text(1024, shortest=0), matching(rf"^([^{{}}{_CONTROL}]|\{{{_COLUMN}\}})*$", _PLACEHOLDER_ADVICE)
]
Status = Annotated[
    str,
    text(63),
    # A char(n) column pads its values, so spaces at the end could never be told from that.
    matching(
        rf'^[^ "\\{_CONTROL}]([^"\\{_CONTROL}]*[^ "\\{_CONTROL}])?$',
        'write a status without control characters, " and \\, and without spaces around it',
    ),
]
PrefectName = Annotated[str, text(255), _prefect_name]
