"""What the members of a Messages request must be: each wrong one is refused by its path."""

from typing import Any

from relay.errors import BadRequest

_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a number",
    (int, float): "a number",
}


def optional(
    holder: dict[str, Any], name: str, kind: type | tuple[Any, ...], path: str = ""
) -> Any:
    """A member that may be missing or null. Raises BadRequest for any other kind."""
    value = holder.get(name)
    return None if value is None else want(value, kind, f"{path}.{name}" if path else name)


def string(holder: dict[str, Any], name: str, path: str, least: int = 0) -> str:
    """A member that must be a text of at least so many letters. Raises BadRequest."""
    value: str = want(holder.get(name), str, f"{path}.{name}")
    if len(value) < least:
        raise BadRequest(f"'{path}.{name}' must not be empty.", param=f"{path}.{name}")
    return value


def want(value: object, kind: type | tuple[Any, ...], path: str) -> Any:
    """The value, which must be of this kind. Raises BadRequest, whose `param` is the path."""
    if not isinstance(value, kind) or isinstance(value, bool) and kind is not bool:
        raise BadRequest(f"'{path}' must be {_KINDS[kind]}.", param=path)
    return value
