"""From parsed TOML to frozen structures, naming all that is wrong.

Owns the walk over tables, lists and values, and how a mistake is said. It knows no setting. Nothing
stops at a mistake: it is noted with its key, and the default stands in.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Struct

WRONG = object()  # in place of a value that cannot be had

_place = re.compile(r" - at `(?:key in )?\$(.*)`$")

Check = Callable[[object], Iterable[tuple[str, str]]]  # value -> (place within it, sentence)


def must(holds: Callable[[object], object], sentence: str) -> Check:
    """The check that `holds` is true of a value."""
    return lambda value: () if holds(value) else (("", f"must be {sentence}"),)


def each_must(holds: Callable[[object], object], sentence: str) -> Check:
    """The same for every item of a list or value of a table."""

    def check(values):
        places = (
            ((f".{key}", each) for key, each in values.items())
            if isinstance(values, dict)
            else ((f"[{index}]", each) for index, each in enumerate(values))
        )
        return ((place, f"must be {sentence}") for place, each in places if not holds(each))

    return check


class Section(Struct, frozen=True, kw_only=True):
    """A table of config.toml."""

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """What is wrong between the settings of this table: (setting, sentence)."""
        return iter(())


def sentences(kind: type[Section]) -> dict[str, str]:
    """The sentence of each setting of a table."""
    return {
        name: text
        for name, hint in kind.__annotations__.items()
        for text in _notes(hint)
        if isinstance(text, str)
    }


def section(kind: type[Section], given: object, where: str, wrong: list[str]) -> object:
    """A table as a structure, or WRONG. What is wrong in it goes to `wrong`, as `key: sentence`."""
    if not isinstance(given, dict):
        wrong.append(f"{where}: must be a table")
        return WRONG
    start, before = f"{where}." if where else "", len(wrong)
    known = [name for name in kind.__struct_fields__ if name != "keys"]
    wrong += [
        f"{start}{name}: is not a setting{_meant(name, known)}"
        for name in given
        if name not in known
    ]
    values = {
        name: _value(kind.__annotations__[name], given[name], start + name, wrong)
        for name in known
        if name in given
    }
    values = {name: value for name, value in values.items() if value is not WRONG}
    missing = [
        each.name
        for each in msgspec.structs.fields(kind)
        if each.required and each.name not in values
    ]
    wrong += [f"{start}{name}: is missing" for name in missing if name not in given]
    if missing:
        return WRONG
    built, noted = kind(**values), {each.partition(": ")[0] for each in wrong[before:]}
    wrong += [
        f"{start}{key}: {text}"
        for key, text in built.mistakes()
        if not _among(f"{start}{key}", noted)
    ]
    return built


def _value(hint: object, given: object, where: str, wrong: list[str]) -> object:
    """One setting's value: a table, a list of tables, tables by name, or something plain."""
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    inner = next(
        (each for each in _parts(plain) if isinstance(each, type) and issubclass(each, Section)),
        None,
    )
    if inner is None:
        value = _plain(hint, given, where, wrong)
    elif get_origin(plain) is tuple:
        value = _list(inner, given, where, wrong)
    elif get_origin(plain) is dict:
        value = _table(inner, given, where, wrong)
    else:
        value = section(inner, given, where, wrong)
    if value is not WRONG and value is not None:
        wrong += [
            f"{where}{place}: {text}" for each in _checks(hint) for place, text in each(value)
        ]
    return value


def _plain(hint: object, given: object, where: str, wrong: list[str]) -> object:
    """A value of the annotated type. A mistake shows no value, which may be a key."""
    try:
        if isinstance(given, Decimal) and Decimal not in _parts(hint):
            given = float(given)  # floats are read exactly, for money; this is none
        return msgspec.convert(given, hint)
    except msgspec.ValidationError as err:
        place = _place.search(str(err))
        choices = next((get_args(each) for each in _parts(hint) if get_origin(each) is Literal), ())
        text = (
            f"must be one of {', '.join(choices)}"
            if "enum value" in str(err)
            else _place.sub("", str(err))
        )
        wrong.append(f"{where}{place[1].replace('[...]', '') if place else ''}: {text}")
        return WRONG


def _list(kind: type[Section], given: object, where: str, wrong: list[str]) -> object:
    if not isinstance(given, list):
        wrong.append(f"{where}: must be a list of tables")
        return WRONG
    found = [
        section(kind, each, f"{where}{_label(each, index)}", wrong)
        for index, each in enumerate(given)
    ]
    return tuple(each for each in found if each is not WRONG)


def _table(kind: type[Section], given: object, where: str, wrong: list[str]) -> object:
    if not isinstance(given, dict):
        wrong.append(f"{where}: must be a table of tables")
        return WRONG
    found = {name: section(kind, each, f"{where}.{name}", wrong) for name, each in given.items()}
    return {name: each for name, each in found.items() if each is not WRONG}


def _label(given: object, index: int) -> str:
    """How a mistake names an item of a list: by its name if it has one."""
    name = (given.get("name") or given.get("id")) if isinstance(given, dict) else None
    named = isinstance(name, str) and name.isprintable() and "" != name.strip() == name[:80]
    return f".{name}" if named else f"[{index}]"


def _notes(hint: object) -> tuple:
    """What an annotation says besides the type: limits, checks, the sentence."""
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _checks(hint: object) -> Iterator[Check]:
    """The checks of an annotation, and of what it may be besides nothing (`Money | None`)."""
    yield from (note for note in _notes(hint) if callable(note))
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(plain) in (Union, UnionType):
        for each in get_args(plain):
            yield from _checks(each)


def _parts(hint: object) -> list:
    """An annotation and all that it is made of."""
    return [hint, *(part for each in get_args(hint) for part in _parts(each))]


def _among(key: str, noted: set[str]) -> bool:
    """Whether a mistake has been noted of this key, or of the table in which it stands."""
    return any(f"{key}.".startswith(f"{each}.") for each in noted)


def _meant(name: str, known: list[str]) -> str:
    from difflib import get_close_matches  # only ever needed by a file that is wrong

    close = get_close_matches(name, known, 1)
    return f"; {close[0]} is" if close else ""
