"""The settings of signing in: passwords, single sign-on by OpenID Connect, or a trusted proxy's
header.

Owns the table [sign_in] and what must be true between its settings and others. Who may come is
decided elsewhere.
"""

import re
from collections.abc import Container, Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from settings.addresses import ISSUER, URL, is_email, is_issuer, is_proxy, is_url, is_wide
from settings.reader import Section, each_must, must

EVERYBODYS = ("accounts.google.com",)  # where anybody in the world may have an account
TENANTS = ("/common", "/organizations", "/consumers")
WIDE = (
    "has strangers in it: give the proxy's own addresses, or no network wider than /8 (IPv6: /16)"
)
UNITS_S = {"m": 60, "h": 3600, "d": 86400}

_header = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,79}", re.ASCII).fullmatch
_domain = re.compile(r"[a-z0-9]([a-z0-9-]*\.)+[a-z0-9-]+", re.ASCII).fullmatch
_secret = re.compile(r"\$[A-Za-z_]\w*|(?!\$)[!-~]*", re.ASCII).fullmatch
_period = re.compile(r"[1-9]\d{0,3}[mhd]", re.ASCII).fullmatch

Header = Annotated[str, must(lambda it: not it or _header(it), "the name of a header")]
Words = Annotated[
    tuple[str, ...], each_must(lambda it: bool(it.strip()) and it.isprintable(), "a name")
]


class SignIn(Section, frozen=True):
    passwords: Annotated[
        bool, "false: nobody comes in by a password; the command line still lets one in."
    ] = True
    issuer: Annotated[
        str,
        must(lambda it: not it or is_url(it), URL),
        must(lambda it: not is_url(it) or is_issuer(it), ISSUER),
        "The identity provider (OpenID Connect), as it calls itself; empty: none.",
    ] = ""
    client_id: Annotated[str, "What the identity provider calls this relay."] = ""
    client_secret: Annotated[
        str,
        must(_secret, "a secret without spaces, or $NAME for the environment variable NAME"),
        "The secret it gave, or $NAME for the environment variable NAME; empty: a public client.",
    ] = ""
    scopes: Annotated[Words, "What it is asked to tell."] = ("openid", "email", "profile")
    button: Annotated[
        str,
        must(lambda it: len(it) <= 40 and it.isprintable(), "one line of at most 40 characters"),
        "The provider's name on the button; empty: single sign-on.",
    ] = ""
    proxy: Annotated[
        str,
        must(lambda it: is_proxy(it) and not it.startswith("socks"), "like http://host:port"),
        "An http proxy on the way to it.",
    ] = ""
    domains: Annotated[
        tuple[str, ...],
        each_must(_domain, "a domain in small letters, like example.com"),
        "Who may come: the domains of their e-mail addresses.",
    ] = ()
    emails: Annotated[
        tuple[str, ...],
        each_must(is_email, "an e-mail address"),
        "Who may come besides: single addresses. Without domains and emails all may.",
    ] = ()
    trust_email: Annotated[
        bool, "true: addresses are believed that the provider does not call verified."
    ] = False
    groups: Annotated[Words, "Only who is in one of these may come; left out: all."] = ()
    group_claim: Annotated[str, "The claim that names the groups; dots lead inward."] = "groups"
    admin_groups: Annotated[
        Words, "Who is in one of these is an administrator, and who is in none is not."
    ] = ()
    name_claim: Annotated[
        str, "The claim that is a newcomer's name; empty: the user name, the name, the address."
    ] = ""
    newcomers: Annotated[bool, "false: only who is a member and has connected it may come."] = True
    plan: Annotated[str, "The plan that newcomers get, renewed by itself; empty: none."] = ""
    check_every: Annotated[
        str,
        must(_period, 'like "8h" or "1d"'),
        "How often the provider is asked again whether somebody may still come.",
    ] = "8h"
    leaving: Annotated[
        Literal["sessions", "disable"],
        "What ends for who may not come any more: sessions, or all, API keys too (disable).",
    ] = "sessions"
    header: Annotated[
        Header, "In place of issuer: the header in which server.trusted_proxy names who comes."
    ] = ""
    header_email: Annotated[Header, "The header with the e-mail address."] = ""
    header_name: Annotated[Header, "The header with a newcomer's name."] = ""
    header_groups: Annotated[Header, "The header with the groups, commas between them."] = ""
    keys: tuple[str, ...] = ()  # not a setting: the client's secret if there is one, filled in

    def __repr__(self) -> str:
        return f"SignIn({self.issuer or self.header!r})"  # a secret must not end up in a log

    @property
    def source(self) -> str:
        """Whose word is taken for who somebody is, as identities are kept under it; empty: nobody's."""
        return self.issuer or (f"header:{self.header.lower()}" if self.header else "")

    @property
    def check_s(self) -> int:
        """`check_every` in seconds."""
        return int(self.check_every[:-1]) * UNITS_S[self.check_every[-1]]

    def mistakes(self):
        if self.issuer and self.header:
            yield "header", "give either issuer or header"
        if self.issuer and not self.client_id:
            yield "client_id", "is missing: the identity provider gives it"
        if self.issuer and "openid" not in self.scopes:
            yield "scopes", "must contain openid"
        if not self.source and not self.passwords:
            yield "passwords", "nobody could come in: give issuer or header first"
        host, path = urlsplit(self.issuer).hostname, urlsplit(self.issuer).path
        rules = self.domains or self.emails or self.groups
        if host in EVERYBODYS and self.newcomers and not rules:
            yield "domains", "say who may come: anybody in the world can have an account there"
        if host == "login.microsoftonline.com" and path.startswith(TENANTS):
            yield (
                "issuer",
                "give your own tenant's: https://login.microsoftonline.com/TENANT-ID/v2.0",
            )

    def misfits(self, plans: Container[str], trusted_proxy: str) -> Iterator[tuple[str, str]]:
        """What is wrong between this table and others: (setting, sentence)."""
        if self.plan and self.plan not in plans:
            yield "sign_in.plan", f"there is no plan '{self.plan}'"
        if self.header and trusted_proxy in ("", "*"):
            yield "sign_in.header", "server.trusted_proxy must name the proxy whose word it is"
        elif self.header and is_wide(trusted_proxy):
            yield "sign_in.header", f"server.trusted_proxy {WIDE}"
