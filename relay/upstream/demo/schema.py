"""A JSON value that fits a JSON schema, for the demo's tool calls and JSON answers.

Owns the guesses: strings and numbers are taken from the message where that makes sense. It heeds
types, enums, bounds, formats, references and branches, not patterns, conditions or uniqueness. It
never raises, and the size of a value is bounded whatever the schema says.
"""

import re

DEPTH_MAX = 10  # levels that are filled; deeper ones get null
VALUES_MAX = 500  # values in one answer, after which only null is given
TEXT_CHARS = 80  # of the message, where a string is wanted
NUMBER_MAX = 1e15

_FORMATS = {
    "date": "2026-01-31",
    "time": "09:30:00Z",
    "date-time": "2026-01-31T09:30:00Z",
    "duration": "PT1H",
    "email": "alice@example.com",
    "uri": "https://example.com/",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

# A client may run what a tool call says. What the message says must not become a command, nor name
# a file of theirs.
_HARMLESS = (
    (re.compile("command|cmd|shell|script|bash", re.IGNORECASE).search, "echo demo"),
    (re.compile("sql", re.IGNORECASE).search, "SELECT 1"),
    (re.compile("code|expression|patch|diff", re.IGNORECASE).search, "0"),
    (re.compile("path|file|folder|dir", re.IGNORECASE).search, "relay-demo.txt"),
    (re.compile("ur[il]", re.IGNORECASE).search, "https://example.com/"),
)

_number = re.compile(r"-?\d{1,12}(?:\.\d{1,6})?").search
_quoted = re.compile('["“「『](.{1,80}?)["”」』]').search
_asks_for_place = re.compile("city|location|place|region|城市|地点|位置|地区", re.IGNORECASE).search
_place = re.compile(r"\b(?:in|at|to|from|for|of)\s+([A-Z][\w'-]*(?:\s[A-Z][\w'-]*)*)").search
_chinese_place = re.compile(
    "(北京|上海|广州|深圳|杭州|成都|南京|武汉|西安|重庆|天津|苏州|香港|台北"
    "|[\u4e00-\u9fff]{2}(?=市|的天气))"
).search


def fit(schema: object, message: str = "", *, whole: bool = False) -> object:
    """A value for the schema: of objects the required members (`whole`.

    All), of enums the first value.
    """
    return _Maker(schema, message, whole).value(schema or {"type": "object"})


class _Maker:
    """Makes one value; counts how many it has made."""

    def __init__(self, root: object, message: str, whole: bool):
        self._root, self._message, self._whole = root, message, whole
        self._left = VALUES_MAX

    def value(self, schema: object, name: str = "", depth: int = 0) -> object:
        """A value for a schema that stands under `name`, `depth` levels deep."""
        self._left -= 1
        if not isinstance(schema, dict) or depth > DEPTH_MAX or self._left < 0:
            return None
        if isinstance(schema.get("$ref"), str):
            return self.value(_resolved(self._root, schema["$ref"]), name, depth + 1)
        for given in ("const", "default"):
            if given in schema:
                return schema[given]
        for given in ("enum", "examples"):
            if _list(schema.get(given)):
                return schema[given][0]
        branch = _branch(schema)
        return self.value(branch, name, depth + 1) if branch else self._typed(schema, name, depth)

    def _typed(self, schema: dict, name: str, depth: int) -> object:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((each for each in kind if each != "null"), "null")
        if kind == "object" or (kind is None and ("properties" in schema or "required" in schema)):
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind in ("integer", "number"):
            return self._amount(schema, kind)
        if kind in ("boolean", "null"):
            return True if kind == "boolean" else None
        return self._string(schema, name)

    def _object(self, schema: dict, depth: int) -> dict:
        properties = schema.get("properties") if isinstance(schema.get("properties"), dict) else {}
        names = [name for name in _list(schema.get("required")) if isinstance(name, str)]
        if self._whole and depth < DEPTH_MAX // 2:  # a schema may contain itself
            names = [*properties, *names]
        return {
            name: self.value(properties.get(name, {}), name, depth + 1)
            for name in dict.fromkeys(names)
        }

    def _array(self, schema: dict, name: str, depth: int) -> list:
        count = min(
            max(1, _count(schema, "minItems", 1)),
            _count(schema, "maxItems", VALUES_MAX),
            VALUES_MAX,
        )
        items = schema.get("items") or {"type": "string"}
        return [self.value(items, name, depth + 1) for _ in range(count) if self._left > 0]

    def _amount(self, schema: dict, kind: str) -> int | float:
        """A number out of the message, brought within bounds; 1 if there is none."""
        found = _number(self._message)
        least, most = _bound(schema, "inimum", 1, kind), _bound(schema, "aximum", -1, kind)
        number = min(max(float(found[0]) if found else 1.0, least), most)
        step = schema.get("multipleOf", 1 if kind == "integer" else None)
        if isinstance(step, int | float) and 1e-6 <= step <= NUMBER_MAX:
            number = -(-number // step) * step
            number -= step if number > most else 0
        return int(number) if number == int(number) else number

    def _string(self, schema: dict, name: str) -> str:
        """A text of the given format; a place for what is named like one.

        Else what the message quotes or says.
        """
        form = schema.get("format")
        if isinstance(form, str) and form in _FORMATS:
            return _FORMATS[form]
        text = next((harmless for looks_like, harmless in _HARMLESS if looks_like(name)), None)
        if text is None and _asks_for_place(f"{name} {schema.get('description')}"):
            found = _place(self._message) or _chinese_place(self._message)
            text = found[1] if found else "Beijing"
        if text is None:
            found = _quoted(self._message)
            text = found[1] if found else self._message[:TEXT_CHARS].strip() or "demo"
        return text[: _count(schema, "maxLength", TEXT_CHARS)].ljust(
            min(_count(schema, "minLength", 0), 10_000), "."
        )


def _branch(schema: dict) -> dict | None:
    """What stands beside anyOf, oneOf or allOf together with one branch, or with all of them."""
    for name in ("anyOf", "oneOf", "allOf"):
        branches = [each for each in _list(schema.get(name)) if isinstance(each, dict)]
        if branches:
            rest = {key: value for key, value in schema.items() if key != name}
            if name != "allOf":
                branches = [
                    next((each for each in branches if each.get("type") != "null"), branches[0])
                ]
            for branch in branches:
                rest = _joined(rest, branch)
            return rest
    return None


def _joined(left: dict, right: dict) -> dict:
    """Two schemas that both must hold.

    Their members are put together, and what both of them list is too.
    """
    both = left | right
    for name, empty in (("properties", {}), ("required", [])):
        one, other = left.get(name, empty), right.get(name, empty)
        if isinstance(one, dict) and isinstance(other, dict):
            both |= {name: one | other} if one or other else {}
        elif isinstance(one, list) and isinstance(other, list):
            both |= {name: one + other} if one or other else {}
    return both


def _resolved(root: object, ref: str) -> object:
    """What a reference such as `#/$defs/Name` points at."""
    for step in filter(None, ref.removeprefix("#").split("/")):
        root = (
            root.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(root, dict) else None
        )
    return root


def _bound(schema: dict, name: str, inward: int, kind: str) -> float:
    """The least ("inimum") or greatest ("aximum") number allowed.

    What is excluded is left by a small step.
    """
    for given, step in (
        ("exclusiveM" + name, inward if kind == "integer" else inward * 1e-3),
        ("m" + name, 0),
    ):
        bound = schema.get(given)
        if (
            isinstance(bound, int | float)
            and not isinstance(bound, bool)
            and abs(bound) <= NUMBER_MAX
        ):
            return bound + step
    return -inward * NUMBER_MAX


def _count(schema: dict, name: str, otherwise: int) -> int:
    value = schema.get(name)
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0
        else otherwise
    )


def _list(value: object) -> list:
    return value if isinstance(value, list) else []
