"""JSON documents as typed values: one library decodes them and says what their schema is."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec

from hnswcheck.errors import FormatError

T = TypeVar("T")

PLACE = re.compile(r"(.*) - at `(.*)`", re.DOTALL)


def read_document(text: str | bytes, kind: type[T], schema: str, what: str) -> T:
    """A document of the form ``schema``, as a value.

    Args:
        text: JSON.
        kind: a dataclass or a ``msgspec.Struct``.
        schema: what the member ``schema`` must say.
        what: what the document is called in errors.

    Raises:
        FormatError: it is no such document; the message is one line and names the place.
    """
    try:
        found = json.loads(text, object_hook=_encodable)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"invalid {what}: no JSON: {error}") from error
    named = found.get("schema") if isinstance(found, dict) else None
    if named != schema:
        says = f"its schema is {named!r}" if isinstance(named, str) else "it names no schema"
        raise FormatError(f"invalid {what}: {says}; this version reads {schema}")
    return from_plain(found, kind, what)


def _encodable(found: dict[str, Any]) -> dict[str, Any]:
    """The same with members whose names msgspec can look up: it fails on lone surrogates."""
    if all(map(str.isascii, found)):
        return found
    return {name.encode("utf-8", "backslashreplace").decode(): found[name] for name in found}


def from_plain(found: object, kind: type[T], what: str) -> T:
    """The value of what ``json.loads`` gave.

    Raises:
        FormatError: it is none.
    """
    try:
        return msgspec.convert(found, kind)
    except (msgspec.ValidationError, UnicodeEncodeError, OverflowError, RecursionError) as error:
        match = PLACE.fullmatch(str(error))
        says, place = match.groups() if match else (str(error), "$")
        said = says[:1].lower() + says[1:].replace("`", "")
        raise FormatError(f"invalid {what} at {place}: {said}") from error


def schema_of(kind: type, schema: str, title: str, description: str) -> dict[str, Any]:
    """The JSON Schema of what is written of a class: every member is there, and no other."""
    found = msgspec.json.schema(kind)
    for each in found["$defs"].values():
        if "properties" in each:
            each["required"] = list(each["properties"])
            each["additionalProperties"] = False
            for member in each["properties"].values():
                member.pop("default", None)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": schema}
    return head | {"title": title, "description": description} | found
