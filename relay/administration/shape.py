"""What the addresses of the administrators' API are made of: how requests are read and answers look.

Owns addresses as rows, pages, money, times, and errors that name what is wrong; no topic.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Generic, NoReturn, TypeVar
from zoneinfo import ZoneInfo

import msgspec

import billing
from db.keyset import Walk
from members import accounts
from relay import errors
from relay.spine import Relay

PAGE, PAGE_MAX = 100, 1000
T = TypeVar("T")

Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)]


class RequestBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a body may say; everything else is refused by name."""


class Query(msgspec.Struct, forbid_unknown_fields=True):
    """What the address of a list may say."""

    limit: Limit = PAGE
    after: Id | None = None


class Listing(msgspec.Struct, Generic[T]):
    """A page of a list. `next` goes into `?after=`; null: this is the last."""

    data: list[T]
    next: int | str | None


class PocketsRecord(msgspec.Struct):
    """Three balances: LLM tokens, and twice yuan. `team`: what a team's wallet paid, if it did."""

    grant: int
    quota: str
    wallet: str
    team: str | msgspec.UnsetType = msgspec.UNSET


class Done(msgspec.Struct):
    """What was done to what has this id."""

    id: int
    done: str


@dataclass(frozen=True)
class Desk:
    """A request to the API: the relay, who asks, the Idempotency-Key, and what address and body
    say."""

    relay: Relay
    by: int
    key: str | None
    query: Any
    body: Any
    base_url: str  # of the site, as the request came

    @property
    def db(self) -> Any:
        return self.relay.db

    @property
    def settings(self) -> Any:
        return self.relay.settings


@dataclass(frozen=True)
class Address:
    """An address: its method and path, what is done (`act(desk, **values of the path)`), the type of
    the answer, and those of the body and the query. `media`: of an answer that is no JSON."""

    method: str
    path: str
    act: Callable[..., Any]
    answer: Any
    body: Any = None
    query: Any = None
    status: int = 200
    keyed: bool = False  # an Idempotency-Key lets it be sent twice and done once
    media: str = "application/json"


# ---- what is asked


def refuse(message: str, param: str) -> NoReturn:
    """Raises BadRequest for what `param` says."""
    raise errors.BadRequest(message, param=param)


def nano(text: str | None, param: str) -> int | None:
    """An amount of yuan in nano-yuan."""
    if text is None:
        return None
    try:
        return billing.nano(text)
    except ValueError as err:
        refuse(f"{param}: {err}.", param)


def zone(desk: Desk) -> ZoneInfo:
    """The site's."""
    return ZoneInfo(desk.settings.site.timezone)


def today(desk: Desk) -> date:
    """The site's day."""
    return datetime.now(zone(desk)).date()


def begin_of(desk: Desk, day: date | None) -> int | None:
    """The first moment (ms) of a day of the site."""
    if day is None:
        return None
    return int(datetime.combine(day, time(), zone(desk)).timestamp() * 1000)


def moment(desk: Desk, text: str | None, param: str) -> int | None:
    """A time (ms): ISO 8601, of the site where it names no zone; a day alone is its last second."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        if len(text) <= len("2027-01-31"):
            at += timedelta(days=1, seconds=-1)
        return int((at if at.tzinfo else at.replace(tzinfo=zone(desk))).timestamp() * 1000)
    except (ValueError, OverflowError):
        refuse(f"{param}: give a day like 2027-01-31, or a time like 2027-01-31T12:00:00Z.", param)


def member_of(desk: Desk, user_id: int) -> accounts.Member:
    """The member of that id. Raises NotFound."""
    found = accounts.find(desk.db, user_id)
    if found is None:
        raise missing("member")
    return found


def missing(what: str) -> errors.NotFound:
    """The error for an id that nothing has."""
    return errors.NotFound(f"There is no such {what}.", code="not_found")


# ---- what is answered


def page_of(walk: Walk, describe: Callable[[Any], T]) -> Listing[T]:
    """A page of a list of the database."""
    after = walk.rows[-1]["key"] if walk.more else walk.edge
    return Listing([describe(each) for each in walk.rows], after)


def cut(found: Iterable[T], limit: int, cursor: Callable[[T], Any]) -> Listing[T]:
    """A page of what stands in order already, from its begin on."""
    rows: list[T] = []
    for each in found:
        if len(rows) == limit:
            return Listing(rows, cursor(rows[-1]))
        rows.append(each)
    return Listing(rows, None)


def when(at: int | None) -> str | None:
    """A time in ms as 2026-11-23T19:50:17Z."""
    return None if at is None else f"{datetime.fromtimestamp(at // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def yuan(amount: int | None) -> str | None:
    """Nano-yuan as a decimal string."""
    return None if amount is None else billing.yuan(amount)


def amount(pocket: str, value: int | None) -> int | str | None:
    """What a pocket holds or moves: LLM tokens of the grant, else yuan."""
    return value if pocket == "grant" else yuan(value)


def pockets(has: billing.Pockets) -> PocketsRecord:
    """The three balances, and the team's part where it has one."""
    team = billing.yuan(has.team) if has.team else msgspec.UNSET
    return PocketsRecord(has.grant, billing.yuan(has.quota), billing.yuan(has.wallet), team)
