"""The settings in force as a table: what each says, and which file says so. Keys are only counted."""

from collections.abc import Iterator
from typing import Any

import msgspec

from settings import changes


def values(found: Any, written: dict, origins: dict[str, str]) -> Iterator[dict]:
    """{"key", "value", "from": a file or "default"} of each setting, plan, upstream and model, of
    what all files say together and where each stands."""
    for table in found.__struct_fields__:
        value = getattr(found, table)
        if isinstance(value, dict):
            for name, each in value.items():
                yield _entry(f"{table}.{name}", each, origins)
        elif isinstance(value, tuple):
            for each in value:
                yield _entry(f"{table}.{getattr(each, 'name', None) or each.id}", each, origins)
        else:
            stands = written.get(table)
            for name in value.__struct_fields__:
                origin = "config.toml" if isinstance(stands, dict) and name in stands else "default"
                yield {"key": f"{table}.{name}", "value": _plain(value, name), "from": origin}


def _entry(key: str, each: msgspec.Struct, origins: dict[str, str]) -> dict:
    """An upstream, model or plan in a line: what differs from the defaults."""
    said = {
        field.name: _plain(each, field.name)
        for field in msgspec.structs.fields(each)
        if getattr(each, field.name) != field.default and field.name not in ("name", "id")
    }
    value = ", ".join(f"{name}={value}" for name, value in said.items() if value != "")
    return {"key": key, "value": value, "from": origins.get(key, "default")}


def _plain(section: msgspec.Struct, name: str) -> object:
    """A setting's value; of a secret, how many there are."""
    value = getattr(section, name)
    if name in changes.SECRET:
        count = len(value) if isinstance(value, tuple) else bool(value)
        return f"({count:d} set)"
    if name == "routes":
        return " ".join(f"{each.upstream}:{each.model}" for each in value)
    if name == "prices" and value is not None:
        return f"{value.input}/{value.cached}/{value.output}"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return value if isinstance(value, (int, float, str, bool)) or value is None else str(value)
