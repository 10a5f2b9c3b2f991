"""What is said with an identity provider, by OpenID Connect: where it is, whom it names.

Owns the library that speaks it, and the only network traffic of the console. A provider that is
slow or dead costs a few threads a few seconds, and never a start: it is asked when somebody wants
to come. Refuses to know sessions, members and pages.

    ProviderError           nobody was named; the message is for the log
     ├─ Unreachable         the provider does not answer, or not as one
     └─ NotBelieved         it answered, and what it says does not hold
"""

import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import quote_plus

import certifi
import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.claims import JWTClaims
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from requests.adapters import HTTPAdapter

from settings.sign_in import SignIn

# Signatures with a public key, and no others.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
LEEWAY_S = 60
CONNECT_S, SILENT_S, WHOLE_S = 3, 5, 10
BYTES_MAX = 1 << 20
KNOWN_S, KEYS_KNOWN_S, KEYS_AGAIN_S, DEAD_S = 3600, 3600, 60, 5
AT_ONCE, WAIT_S = 4, 2  # conversations; whoever comes meanwhile waits so long for a place
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
FAILURES = (requests.RequestException, AuthlibBaseError, JoseError, ValueError, KeyError, TypeError)


class ProviderError(Exception):
    """Nobody was named."""


class Unreachable(ProviderError):
    """The provider does not answer, or not as one."""


class NotBelieved(ProviderError):
    """The provider answered, and what it says does not hold."""


@cache
def _trust() -> ssl.SSLContext:
    """Whose certificates are believed: the system's authorities, a company's own among them, and
    Mozilla's."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _is_address(text: str) -> bool:
    return text.startswith(("https://", "http://")) and text.isprintable()


class _Patience(HTTPAdapter):
    """Reads answers whole, within bounds of time and size."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=_trust(), **kwargs)

    def send(self, request, *args: Any, **kwargs: Any) -> requests.Response:
        ends_at = time.monotonic() + WHOLE_S
        kwargs |= {"timeout": (CONNECT_S, SILENT_S), "stream": True}
        response = super().send(request, *args, **kwargs)
        body = bytearray()
        for piece in iter(lambda: response.raw.read1(65536, decode_content=True), b""):
            body += piece
            if len(body) > BYTES_MAX or time.monotonic() > ends_at:
                response.close()
                raise requests.ConnectionError("the answer is too long or too slow")
        response._content = bytes(body)
        response.close()
        return response


def _basic(auth: ClientAuth, method: str, uri: str, headers: dict, body: str) -> tuple:
    """The client's name and secret as RFC 6749 wants them, which the library does not quote."""
    pair = ":".join(quote_plus(each) for each in (auth.client_id, auth.client_secret))
    headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    return uri, headers, body


class _Session(OAuth2Session):
    """The library's client, which follows nobody and knows no environment."""

    def request(self, method, url, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["allow_redirects"] = False
        return super().request(method, url, *args, **kwargs)


class Provider:
    """One identity provider, as the settings name it."""

    def __init__(self, settings: SignIn):
        self.settings = settings
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._metadata: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._known_until = self._dead_until = self._keys_at = 0.0

    # ---- on the way to it

    def way(self, *, state: str, nonce: str, verifier: str, back: str, **more: str) -> str:
        """The address at which the provider asks who somebody is. Raises Unreachable."""
        metadata = self._known()
        with self._session(metadata, back) as session:
            url, _state = session.create_authorization_url(
                metadata["authorization_endpoint"],
                state=state,
                code_verifier=verifier,
                nonce=nonce,
                **more,
            )
        return url

    # ---- on the way back

    def claims(self, *, code: str, nonce: str, verifier: str, back: str) -> dict[str, Any]:
        """What the provider says of who comes with this code: the claims of its ID token, and of
        its user info where the token lacks what the settings want. Raises ProviderError."""
        metadata = self._known()
        with self._conversation(), self._session(metadata, back) as session:
            try:
                token = session.fetch_token(
                    metadata["token_endpoint"],
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=verifier,
                )
            except AuthlibBaseError as err:  # the provider's own "no": a code that is spent
                raise NotBelieved(f"the code was refused: {err.error}") from err
            claims = self._id_token(token, nonce)
            if self._lacks(claims) and metadata.get("userinfo_endpoint"):
                said = session.get(metadata["userinfo_endpoint"])
                said.raise_for_status()
                more = said.json()
                if more.get("sub") != claims["sub"]:
                    raise NotBelieved("the user info is of somebody else")
                claims = {**more, **claims}
        return claims

    def _id_token(self, token: dict[str, Any], nonce: str) -> dict[str, Any]:
        if not isinstance(token.get("id_token"), str):
            raise NotBelieved("there is no ID token")
        read = self._signed(token["id_token"])
        params = {
            "nonce": nonce,
            "client_id": self.settings.client_id,
            "access_token": token.get("access_token"),
        }
        claims = CodeIDToken(read.claims, read.header, self._options(), params)
        self._hold(claims)
        return dict(claims)

    def logged_out(self, token: str) -> str:
        """The subject whose sessions a logout token ends. Raises ProviderError."""
        self._known()
        with self._conversation():
            read = self._signed(token)
            claims = JWTClaims(read.claims, read.header, self._options(), {})
            self._hold(claims)
        if LOGOUT_EVENT not in (claims.get("events") or {}) or "nonce" in claims:
            raise NotBelieved("it is no logout token")
        return claims["sub"]

    def _options(self) -> dict[str, dict[str, Any]]:
        needed = {name: {"essential": True} for name in ("sub", "exp", "iat")}
        return needed | {
            "iss": {"essential": True, "value": self.settings.issuer},
            "aud": {"essential": True, "value": self.settings.client_id},
        }

    def _hold(self, claims: JWTClaims) -> None:
        try:
            claims.validate(leeway=LEEWAY_S)
        except (JoseError, AuthlibBaseError) as err:
            raise NotBelieved(str(err)) from err

    def _signed(self, text: str) -> jwt.Token:
        """A token whose signature holds, by a key of the provider's."""
        registry = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
        try:
            try:
                return jwt.decode(text, self._key_set(), registry=registry)
            except InvalidKeyIdError:  # a new key, perhaps
                return jwt.decode(text, self._key_set(again=True), registry=registry)
        except (JoseError, ValueError, KeyError, TypeError) as err:
            raise NotBelieved(f"the signature does not hold: {err}") from err

    def _lacks(self, claims: dict[str, Any]) -> bool:
        """Whether something that the settings look at is not among these claims."""
        rules = self.settings
        wanted = {"email": True, "groups": bool(rules.groups or rules.admin_groups)}
        missing = wanted["groups"] and rules.group_claim.split(".")[0] not in claims
        named = rules.name_claim or "preferred_username"
        return "email" not in claims or missing or named.split(".")[0] not in claims

    # ---- what is known of it

    def answers_with_issuer(self) -> bool:
        """Whether the provider puts its name on the way back (RFC 9207). Raises Unreachable."""
        return self._known().get("authorization_response_iss_parameter_supported") is True

    def _known(self) -> dict[str, Any]:
        """What the provider says of itself, asked once an hour. Raises Unreachable."""
        now = time.monotonic()
        if now < self._known_until:
            return self._metadata
        if now < self._dead_until:
            raise Unreachable("it did not answer a moment ago")
        with self._conversation(), self._lock:
            if time.monotonic() < self._known_until:
                return self._metadata
            if time.monotonic() < self._dead_until:
                raise Unreachable("it did not answer a moment ago")
            try:
                self._metadata = self._discover()
            except ProviderError:
                self._dead_until = time.monotonic() + DEAD_S
                raise
            self._known_until = time.monotonic() + KNOWN_S
            return self._metadata

    def _discover(self) -> dict[str, Any]:
        issuer = self.settings.issuer
        if self.settings.client_secret and not self.settings.keys:
            raise Unreachable(f"{self.settings.client_secret} is not set")
        with self._plain_session() as session:
            found = self._fetch(
                session, f"{issuer.removesuffix('/')}/.well-known/openid-configuration"
            )
        if found.get("issuer") != issuer:
            raise Unreachable(f"it calls itself {found.get('issuer')!r}, and not {issuer!r}")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"):
            there = found.get(name)
            if there is None and name == "userinfo_endpoint":
                continue
            if not isinstance(there, str) or not _is_address(there):
                raise Unreachable(f"its {name} is no address")
            if issuer.startswith("https:") and not there.startswith("https:"):
                raise Unreachable(f"its {name} is not https")
        return found

    def _key_set(self, again: bool = False) -> KeySet:
        """The provider's keys; `again`, since one is missing, but no more than once a minute."""
        age = time.monotonic() - self._keys_at
        if self._keys is None or age > (KEYS_AGAIN_S if again else KEYS_KNOWN_S):
            with self._plain_session() as session:
                found = self._fetch(session, self._known()["jwks_uri"])
            self._keys, self._keys_at = KeySet.import_key_set(found), time.monotonic()  # type: ignore[arg-type]
        return self._keys

    def _fetch(self, session: OAuth2Session, url: str) -> dict[str, Any]:
        try:
            response = session.get(url, withhold_token=True, headers={"Accept": "application/json"})
            if response.status_code != 200:
                raise Unreachable(f"{url} answers {response.status_code}")
            found = response.json()
        except FAILURES as err:
            raise Unreachable(f"{url}: {type(err).__name__}") from err
        if not isinstance(found, dict):
            raise Unreachable(f"{url} answers no object")
        return found

    # ---- how it is spoken to

    @contextmanager
    def _conversation(self) -> Iterator[None]:
        """A place among those who speak with the provider; what fails in it is a ProviderError."""
        if not self._places.acquire(timeout=WAIT_S):
            raise Unreachable("too many ask it at once")
        try:
            yield
        except FAILURES as err:
            raise Unreachable(f"{type(err).__name__}: {err}") from err
        finally:
            self._places.release()

    def _plain_session(self) -> OAuth2Session:
        session = _Session(self.settings.client_id)
        session.trust_env = False
        for scheme in ("https://", "http://"):
            session.mount(scheme, _Patience())
        if self.settings.proxy:
            session.proxies = dict.fromkeys(("http", "https"), self.settings.proxy)
        return session

    def _session(self, metadata: dict[str, Any], back: str) -> OAuth2Session:
        """The library's client for one conversation."""
        session = self._plain_session()
        methods = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        secret = next(iter(self.settings.keys), None)
        method = "client_secret_post" if "client_secret_post" in methods else _basic
        session.client_secret = secret
        session.token_endpoint_auth_method = method if secret else "none"
        session.scope, session.redirect_uri = " ".join(self.settings.scopes), back
        session.code_challenge_method = "S256"
        return session
