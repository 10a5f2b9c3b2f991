"""Whether a value is what a JSON schema of an OpenAPI document says: as much of it as ours use.

It owns a reading of schemas that is independent of what made them, and fails at a word it does not
know, so that nothing is believed unread.
"""

import re

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
SAID = {"title", "description", "default", "format", "contentEncoding"}
CHECKED = {
    *("$ref", "anyOf", "oneOf", "type", "enum", "const", "properties", "required", "items"),
    *("additionalProperties", "minimum", "maximum", "pattern", "maxLength", "minLength"),
}


def wrong(value, schema: dict, document: dict, place: str = "$") -> list[str]:
    """What of a value is not as the schema says. In an object nothing may be that is not named."""
    assert set(schema) <= SAID | CHECKED, set(schema) - SAID - CHECKED
    if "$ref" in schema:
        found = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return wrong(value, found, document, place)
    if any(each in schema for each in ("anyOf", "oneOf")):
        tried = [
            wrong(value, each, document, place) for each in schema.get("anyOf", schema.get("oneOf"))
        ]
        return [] if any(not each for each in tried) else min(tried, key=len)
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place}: {value!r} is none of {schema['enum']}"]
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return [f"{place}: {value!r} is no {' or '.join(kinds)}"]
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return [f"{place}: {value!r} does not match"]
    if isinstance(value, dict):
        return _object(value, schema, document, place)
    if isinstance(value, list):
        inner = schema.get("items", {})
        return [
            each
            for number, item in enumerate(value)
            for each in wrong(item, inner, document, f"{place}[{number}]")
        ]
    return []


def _is(value, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, TYPES[kind])


def _object(value: dict, schema: dict, document: dict, place: str) -> list[str]:
    known, more = schema.get("properties", {}), schema.get("additionalProperties", not schema)
    found = [
        f"{place}.{each} is missing" for each in schema.get("required", ()) if each not in value
    ]
    for name, each in value.items():
        if name in known:
            found += wrong(each, known[name], document, f"{place}.{name}")
        elif isinstance(more, dict):
            found += wrong(each, more, document, f"{place}.{name}")
        elif "properties" in schema and more is not True:
            found.append(f"{place}.{name} is not named")
    return found
