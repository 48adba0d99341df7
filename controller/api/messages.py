"""What is wrong with a policy, in words for somebody who never heard of pydantic.

Turns validation errors into at most two lines that name the field and what to write. Never repeats a value.
"""

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from controller.api.constraints import Block
from controller.errors import InvalidSpecError

NAMED = 2
"""Fields that a message names; of more it tells the number."""


def explain_invalid(errors: list[ErrorDetails], spec: type[Block]) -> InvalidSpecError:
    """What to write for the first errors. Never a value: somebody may have put a key into the wrong field."""
    causes = [error for error in errors if not _follows(error, errors)]
    advice: dict[str, str] = {}
    for error in causes[:NAMED]:
        path = _path(error)
        advice[path] = " and ".join(filter(None, [advice.get(path), _advice(error, spec)]))
    return InvalidSpecError(advice, more=len(causes[NAMED:]))


def _follows(error: ErrorDetails, errors: list[ErrorDetails]) -> bool:
    """Whether a list is too short only because its items are wrong, which is what the user has to know."""
    loc = error["loc"]
    return error["type"] == "too_short" and any(
        other["loc"][: len(loc)] == loc for other in errors if other is not error
    )


def _path(error: ErrorDetails) -> str:
    keys = [key for key in error["loc"] if key != "[key]"]
    path = "spec" + "".join(f"[{key}]" if isinstance(key, int) else f".{_on_one_line(key)}" for key in keys)
    field = error.get("ctx", {}).get("field")
    return f"{path}.{field}" if field else path


def _on_one_line(key: str) -> str:
    """A key as the user wrote it, which may be anything, so that it breaks no message."""
    return "".join(character if character.isprintable() else "?" for character in key[:100])


def _advice(error: ErrorDetails, spec: type[Block]) -> str:
    """What to write instead."""
    kind, loc = error["type"], error["loc"]
    if kind == "missing":
        return f"required, for example {_example(_field(spec, loc))}"
    if kind == "extra_forbidden":
        return _no_such_field(spec, loc)
    if kind == "string_type":
        return _text_advice(error["input"])
    if kind == "enum":
        return "write {expected}".format_map(error["ctx"]).replace("'", "")
    return _ADVICE.get(kind, "write something else, see `kubectl explain`").format_map(error.get("ctx", {}))


_ADVICE = {
    "refused": "{message}",
    "string_too_short": "write at least {min_length} character",
    "string_too_long": "write at most {max_length} characters",
    "string_unicode": "write text without broken characters",
    "too_short": "write at least {min_length} item",
    "too_long": "write at most {max_length} items",
    "greater_than_equal": "write {ge} or more",
    "less_than_equal": "write {le} or less",
    "int_type": "write a whole number, without quotes",
    "bool_type": "write true or false, without quotes",
    "model_type": "write a block of fields",
    "dict_type": 'write keys with values, such as video_id: "{{id}}"',
    "tuple_type": "write a list, such as [one, two]",
    "invalid_key": "write the name of a field",
}


def _text_advice(value: object) -> str:
    if isinstance(value, bool):
        return "write text in quotes: YAML reads yes, no, on, off, true and false without them as booleans"
    if value is None or isinstance(value, Mapping | list):
        return "write text"
    return "write text in quotes: YAML reads this without them as a number or a date"


def _example(field: FieldInfo) -> str:
    return str((field.examples or ["..."])[0])


def _no_such_field(spec: type[Block], loc: tuple[int | str, ...]) -> str:
    block = _block(_field(spec, loc[:-1]).annotation) if len(loc) > 1 else spec
    known = [str(field.alias) for field in block.model_fields.values()]
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"no such field; write {close[0]}" if close else f"no such field; there are {', '.join(known)}"


def _field(spec: type[Block], loc: tuple[int | str, ...]) -> FieldInfo:
    """The definition of the field at a path."""
    block = spec
    for key in loc[:-1]:
        block = _block(_by_alias(block, key).annotation)
    return _by_alias(block, loc[-1])


def _by_alias(block: type[Block], key: int | str) -> FieldInfo:
    return next(field for field in block.model_fields.values() if field.alias == key)


def _block(annotation: Any) -> type[Block]:
    """The block of a field, which may be optional."""
    kinds = (annotation, *get_args(annotation))
    return next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Block))
