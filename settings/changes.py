"""What a reload will change, before it does: the settings in force beside those of the files.

Owns a picture of settings that may be kept and shown, for it holds no key: only how many there are.
"""

import hashlib
from collections.abc import Mapping

import msgspec

NAMED = {"upstreams": "name", "models": "id"}
SECRET = {"api_key", "api_keys", "keys", "webhook", "hooks", "client_secret"}

Picture = dict[str, dict[str, str]]  # table -> name -> digest of what is said of it


def picture(settings: msgspec.Struct) -> Picture:
    """Settings as names and digests; the tables of plain settings stand together in `settings`."""
    found: Picture = {"settings": {}}
    for table in settings.__struct_fields__:
        value = getattr(settings, table)
        if table in NAMED:
            found[table] = {getattr(each, NAMED[table]): _digest(each) for each in value}
        elif isinstance(value, dict):
            found[table] = {name: _digest(each) for name, each in value.items()}
        else:
            for name in value.__struct_fields__:
                found["settings"][f"{table}.{name}"] = _digest(getattr(value, name), name)
    return found


def _digest(value: object, name: str = "") -> str:
    """A short digest; of a secret only whether there is one."""
    if name in SECRET:
        text = f"{len(value) if isinstance(value, tuple) else bool(value)}"
    elif isinstance(value, msgspec.Struct):
        fields = value.__struct_fields__
        text = "|".join(f"{each}={_digest(getattr(value, each), each)}" for each in fields)
    else:
        text = repr(value)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def difference(before: Picture, after: Picture) -> dict[str, dict[str, list[str]]]:
    """What is added, removed and changed, table by table; tables without a change are left out."""
    found = {}
    for table in dict.fromkeys([*before, *after]):
        old, new = before.get(table, {}), after.get(table, {})
        parts = {
            "added": [each for each in new if each not in old],
            "removed": [each for each in old if each not in new],
            "changed": [each for each in new if each in old and old[each] != new[each]],
        }
        if any(parts.values()):
            found[table] = {part: names for part, names in parts.items() if names}
    return found


def sentence(found: Mapping[str, Mapping[str, list[str]]]) -> str:
    """A difference in short: `models -17 +1 ~2; settings ~1`. Empty if there is none."""
    signs = {"removed": "-", "added": "+", "changed": "~"}
    return "; ".join(
        f"{table} "
        + " ".join(f"{sign}{len(parts[part])}" for part, sign in signs.items() if part in parts)
        for table, parts in found.items()
    )
