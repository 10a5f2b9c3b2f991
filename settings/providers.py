"""providers.toml: what administrators connect without an editor, kept beside the database.

Owns the file: it is read, changed whole or not at all by one process at a time, and laid under
config.toml, whose word wins name by name. It has the syntax of config.toml, keys included, so it is
for its owner's eyes alone. What the settings mean is not known here.
"""

import fcntl
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

FILE = "providers.toml"
TABLES = {"upstreams": "name", "models": "id"}  # lists of tables, and what tells their items apart
HEAD = (
    "# What administrators connected, in the browser or with `flask upstream add`. config.toml wins\n"
    "# over it, name by name. It holds keys: keep it to yourself.\n"
)
ABOVE, KEPT, SHIPPED = "config.toml", FILE, "config.example.toml"  # where a setting comes from

_bare = re.compile(r"[A-Za-z0-9_-]+").fullmatch
_variable = re.compile(r"\$([A-Za-z_]\w*)", re.ASCII).fullmatch


class ProvidersError(Exception):
    """The file cannot be read or written; the message says which and why."""


def path_beside(database: str | os.PathLike) -> Path:
    """Where the file of a database is."""
    return Path(os.path.realpath(database)).parent / FILE


def read(path: Path) -> dict:
    """What the file holds; nothing if there is none. Raises ProvidersError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except FileNotFoundError:
        return {}
    except OSError as err:
        raise ProvidersError(f"{path}: cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise ProvidersError(f"{path}: {err}") from err


def change(path: Path, edit: Callable[[dict], None], check: Callable[[dict], None]) -> dict:
    """Let `edit` change what the file holds, and write it if `check` has nothing against it.

    A kill at any moment leaves the old file or the new one. Whatever `edit` or `check` raises
    leaves the old one. Returns what is kept now.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent):
            kept = read(path)
            edit(kept)
            check(kept)
            _write(path, HEAD + dumps(kept))
    except OSError as err:
        raise ProvidersError(f"{path}: cannot be written: {err.strerror}") from err
    return kept


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of all threads and processes, only this one changes the file meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)  # the new name is on the disk
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{FILE}.new")  # one name: what a kill leaves is written over next time
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask takes away
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


# ---- together with config.toml


def merged(above: dict, kept: dict, shipped: dict, env: Mapping[str, str]) -> tuple[dict, dict]:
    """The settings of all files together, and where each upstream, model and plan comes from.

    `above`: config.toml's. Its word wins, name by name; `shipped` fills in what neither has: plans,
    and providers with their models as long as nobody has connected any.
    """
    given = dict(above)
    origins: dict[str, str] = {}
    plans = [(ABOVE, above.get("plans", {}))] if "plans" in above else [(SHIPPED, shipped["plans"])]
    plans.insert(0 if "plans" not in above else 1, (KEPT, kept.get("plans", {})))
    given["plans"] = _tables(plans, origins)
    if "upstreams" in above or "models" in above:
        below: dict = {}
    else:
        below = _still_offered(shipped, kept, env) if kept.get("upstreams") else shipped
    layers = ((ABOVE, above), (KEPT, kept), (SHIPPED, below))
    for table, key in TABLES.items():
        given[table] = _lists(table, key, layers, origins)
    _drop_dead_routes(given, origins)
    return given, origins


def _tables(layers: list[tuple[str, object]], origins: dict) -> object:
    """Plans: the first layer that has a name has it. What is no table is left for the check."""
    found: dict = {}
    for origin, plans in layers:
        if not isinstance(plans, dict):
            return plans
        for name, plan in plans.items():
            if name not in found:
                found[name], origins[f"plans.{name}"] = plan, origin
    return found


def _lists(table: str, key: str, layers: tuple, origins: dict) -> object:
    rows, names = [], set()
    for origin, given in layers:
        listed = given.get(table, [])
        if not isinstance(listed, list):
            return listed  # a mistake, which the check names
        new = [each for each in listed if _name(each, key) not in names]
        rows += new
        for each in new:
            names.add(_name(each, key))
            origins[f"{table}.{_name(each, key)}"] = origin
        names.discard(None)
    return rows


def _name(row: object, key: str) -> str | None:
    name = row.get(key) if isinstance(row, dict) else None
    return name if isinstance(name, str) else None


def _still_offered(shipped: dict, kept: dict, env: Mapping[str, str]) -> dict:
    """Of the shipped providers those whose key stands in the environment, and their models.

    Who has connected a provider has chosen; a catalogue of what cannot be asked would hide it.
    """
    own = {_name(each, "name") for each in kept["upstreams"]}
    upstreams = [
        each
        for each in shipped["upstreams"]
        if each["name"] not in own and secret(each.get("api_key", ""), env)
    ]
    names = {each["name"] for each in upstreams}
    models = [
        each
        for each in shipped["models"]
        if any(route["upstream"] in names for route in each["routes"])
    ]
    return {"upstreams": upstreams, "models": models}


def _drop_dead_routes(given: dict, origins: dict) -> None:
    """A route of a model that nobody wrote by hand may lead to what config.toml has no more."""
    if not (isinstance(given["models"], list) and isinstance(given["upstreams"], list)):
        return
    names = {_name(each, "name") for each in given["upstreams"]}
    for index, model in enumerate(given["models"]):
        by_hand = origins.get(f"models.{_name(model, 'id')}") == ABOVE
        if by_hand or not isinstance(model, dict) or not isinstance(model.get("routes"), list):
            continue
        routes = [each for each in model["routes"] if _name(each, "upstream") in names]
        given["models"][index] = model | {"routes": routes}


# ---- secrets


def secret(text: str, env: Mapping[str, str]) -> str:
    """A key as it is sent: `$NAME` is the variable NAME, else the file that NAME_FILE names, else
    the systemd credential NAME. Empty if there is none. Raises ProvidersError for a file that
    cannot be read."""
    variable = _variable(text)
    if not variable:
        return text
    name = variable[1]
    if env.get(name, "").strip():
        return env[name].strip()
    if env.get(f"{name}_FILE"):
        return secret_file(env[f"{name}_FILE"], env)
    folder = env.get("CREDENTIALS_DIRECTORY")
    if folder and (Path(folder) / name).is_file():
        return secret_file(str(Path(folder) / name), env)
    return ""


def secret_file(path: str, env: Mapping[str, str]) -> str:
    """The key that a file holds. A path without a slash is a systemd credential. Raises
    ProvidersError."""
    folder = env.get("CREDENTIALS_DIRECTORY", "")
    try:
        return (Path(folder) / path).read_text(encoding="utf-8").strip()
    except OSError as err:
        raise ProvidersError(f"the file {path} cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise ProvidersError(f"the file {path} is no text") from err


# ---- writing TOML


def dumps(document: dict) -> str:
    """A document of plain tables, lists of tables and values as TOML."""
    lines = [f"{_key(name)} = {_value(each)}" for name, each in document.items() if _plain(each)]
    for name, each in document.items():
        if isinstance(each, dict):
            for inner, value in each.items():
                lines += ["", f"[{_key(name)}.{_key(inner)}]", *_lines(value)]
        elif not _plain(each):
            for row in each:
                lines += ["", f"[[{_key(name)}]]", *_lines(row)]
    return "\n".join(lines) + "\n"


def _plain(value: object) -> bool:
    tables = isinstance(value, list) and bool(value) and all(isinstance(x, dict) for x in value)
    return not tables and not isinstance(value, dict)


def _lines(table: dict) -> list[str]:
    return [f"{_key(name)} = {_value(each)}" for name, each in table.items()]


def _key(name: str) -> str:
    return name if _bare(name) else _value(name)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)  # numbers, dates
