"""Somebody of whom an issuer has spoken, and the rules of who may come.

Owns the decision, from the settings alone. Refuses to know where the words come from, and whether
somebody is a member.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from settings.addresses import in_small_letters, is_email
from settings.sign_in import SignIn

LENGTH_MAX = 255
GOOGLE = "https://accounts.google.com"


class Refused(Exception):
    """Somebody may not come; `reason` is a word for logs, and for the page that says so."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Person:
    """Who somebody is (issuer, subject), and what the issuer says of them."""

    issuer: str
    subject: str
    name: str = ""
    email: str = ""
    verified: bool = False  # the issuer vouches that the address is theirs
    domain: str = ""  # the company that the issuer itself names, where it does
    groups: tuple[str, ...] = ()


def from_claims(rules: SignIn, claims: Mapping[str, Any]) -> Person:
    """The person of whom a provider's claims speak. Raises Refused for a subject that is none."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= LENGTH_MAX:
        raise Refused("no_subject")  # cut short it might be somebody else's
    email = _text(claims.get("email"))
    email = email if is_email(email) else ""
    names = (rules.name_claim,) if rules.name_claim else ("preferred_username", "name")
    found = [_text(within(claims, each)) for each in names]
    return Person(
        issuer=rules.issuer,
        subject=subject,
        name=next(filter(None, (*found, email)), "").partition("@")[0],
        email=email,
        verified=_is_verified(claims),
        domain=in_small_letters(_text(claims.get("hd"))),
        groups=_words(within(claims, rules.group_claim)),
    )


def _is_verified(claims: Mapping[str, Any]) -> bool:
    """Whether the address is verified: some providers write it as a text, and Entra ID has a claim
    of its own in its place. What is denied is not verified, whatever else is said."""
    said = claims.get("email_verified", claims.get("xms_edov"))
    return said is True or said == 1 or str(said).lower() in ("true", "1")


def _domain(person: Person) -> str:
    """Whose address it is. Google lets anybody register an address of a company's as a private
    account, and keeps it verified when its owner has left: there only `hd` speaks of the company."""
    if person.issuer == GOOGLE:
        return person.domain
    return in_small_letters(person.email).partition("@")[2]


def within(claims: Mapping[str, Any], path: str) -> Any:
    """A claim, or one inside another: `groups`, `realm_access.roles`, or a name with dots in it."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _text(said: object) -> str:
    """A text as it was said, or nothing: cut short it might be something else."""
    text = said.strip() if isinstance(said, str) else ""
    return text if len(text) <= LENGTH_MAX else ""


def _words(said: object) -> tuple[str, ...]:
    listed = said if isinstance(said, list) else [said]
    return tuple(each for each in listed if isinstance(each, str) and each)


def check(rules: SignIn, person: Person) -> None:
    """Whether the rules let this person come. Raises Refused."""
    if rules.domains or rules.emails:
        if not is_email(person.email):
            raise Refused("no_email")
        if not (person.verified or rules.trust_email):
            raise Refused("email_not_verified")
        listed = in_small_letters(person.email) in map(in_small_letters, rules.emails)
        if not listed and _domain(person) not in rules.domains:
            raise Refused("not_of_the_company")
    if rules.groups and not set(rules.groups) & set(person.groups):
        raise Refused("not_in_the_groups")


def role(rules: SignIn, person: Person) -> str | None:
    """The role that the groups give; None where the settings let none give any."""
    if not rules.admin_groups:
        return None
    return "admin" if set(rules.admin_groups) & set(person.groups) else "member"
