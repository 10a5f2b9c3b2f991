"""What is said with an identity provider, by OpenID Connect: where it is, whom it names.

Owns the library that speaks it, and the only network traffic of the console. A provider that is
slow or dead costs a few threads a few seconds, and never a start: it is asked when somebody wants
to come. Refuses to know sessions, members and pages.

    ProviderError           nobody was named; the message is for the log
     ├─ Unreachable         the provider does not answer, or not as one
     └─ NotBelieved         it answered, and what it says does not hold
"""

import http.client
import io
import json
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
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
from joserfc.jwk import JWKRegistry, KeySet
from joserfc.jws import JWSRegistry
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from settings.addresses import is_queried_url
from settings.sign_in import SignIn

# Signatures with a public key, and no others.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
LEEWAY_S = 60
CONNECT_S, SILENT_S, WHOLE_S = 3, 5, 10
BYTES_MAX = 1 << 20
KNOWN_S, KEYS_KNOWN_S, KEYS_AGAIN_S, DEAD_S = 3600, 3600, 60, 5
LOGOUT_GOOD_S, LOGOUTS_MAX = 600, 10_000  # how long a logout token is good; how many are known
AT_ONCE, WAIT_S = 4, 2  # conversations; whoever comes meanwhile waits so long for a place
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
ADDRESS = ("email", "email_verified", "xms_edov")  # an address, and who vouches for it
ODD = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
FAILURES = (requests.RequestException, AuthlibBaseError, JoseError, *ODD)  # ODD: of an odd shape


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


def _is_address(it: object) -> bool:
    """Whether something is an address that may stand in a header."""
    return isinstance(it, str) and it.isascii() and it.isprintable() and is_queried_url(it)


def _sound(document: object) -> dict[str, Any]:
    """A document that is a JSON object as RFC 8259 has it. Raises ValueError for another, one with
    numbers or letters that are none, or one that is nested beyond measure."""
    if not isinstance(document, dict):
        raise ValueError("it is no object")
    try:
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return document


def _joined(claims: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The claims of an ID token, and what the user info adds. An address and the word that it is
    somebody's are of one source; when somebody proved who they are, only the token says."""
    source = claims if "email" in claims else more
    address = {name: source[name] for name in ADDRESS if name in source}
    apart = (*ADDRESS, "auth_time")
    added = {name: said for name, said in more.items() if name not in apart}
    return added | {k: said for k, said in claims.items() if k not in ADDRESS} | address


def _key(said: Any) -> Any:
    """A key of a set; None for one that cannot be read, which takes none of the others along
    (RFC 7517, section 5)."""
    try:
        key = JWKRegistry.import_key(said)
        key.ensure_kid()
        return key
    except Exception:  # each kind of key has errors of its own
        return None


class _Line(io.RawIOBase):
    """What comes by a socket until a moment, however little at a time."""

    def __init__(self, sock: Any, ends_at: float):
        self._sock, self._raw, self._ends_at = sock, sock.makefile("rb", buffering=0), ends_at

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the answer is too slow")
        self._sock.settimeout(min(SILENT_S, left_s))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer whose every part, from its first line on, must have come by a moment."""

    def __init__(self, ends_at: Callable[[], float], sock: Any, *args: Any, **kwargs: Any):
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Line(sock, ends_at()))


class _Patience(HTTPAdapter):
    """Reads answers whole, within bounds of time and size."""

    _ends_at = 0.0

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=_trust(), **kwargs)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        answer = partial(_Answer, lambda: self._ends_at)
        pool.ConnectionCls = type("_Connection", (pool.ConnectionCls,), {"response_class": answer})
        return pool

    def send(self, request, *args: Any, **kwargs: Any) -> requests.Response:
        self._ends_at = time.monotonic() + WHOLE_S
        kwargs |= {"timeout": (CONNECT_S, SILENT_S), "stream": True}
        response = super().send(request, *args, **kwargs)
        body = bytearray()
        try:
            for piece in iter(lambda: response.raw.read1(65536, decode_content=True), b""):
                body += piece
                if len(body) > BYTES_MAX:
                    raise requests.ConnectionError("the answer is too long")
        except HTTPError as err:  # cut, too slow, or packed as it should not be
            raise requests.ConnectionError(str(err)) from err
        finally:
            response.close()
        response._content = bytes(body)
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
        self._asking = threading.Lock()  # for the keys
        self._metadata: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._known_until = self._dead_until = self._keys_at = 0.0
        self._keys_asked_at = float("-inf")
        self._logouts: dict[
            str, float
        ] = {}  # the tokens that were used, and till when they are good

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
                raise NotBelieved(f"the code was refused: {err.error!r}") from err
            claims = self._id_token(token, nonce)
            if self._lacks(claims) and metadata.get("userinfo_endpoint"):
                said = session.get(metadata["userinfo_endpoint"])
                said.raise_for_status()
                more = _sound(said.json())
                if more.get("sub") != claims["sub"]:
                    raise NotBelieved("the user info is of somebody else")
                claims = _joined(claims, more)
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
        if not isinstance(claims.get("auth_time", 0), int | float):
            raise NotBelieved("its auth_time is no time")
        return dict(claims)

    def logged_out(self, token: str) -> str:
        """The subject whose sessions a logout token ends, once. Raises ProviderError."""
        self._known()
        with self._conversation():
            read = self._signed(token)
            claims = JWTClaims(read.claims, read.header, self._options(), {})
            self._hold(claims)
        events, subject, name = (claims.get(each) for each in ("events", "sub", "jti"))
        event = events.get(LOGOUT_EVENT) if isinstance(events, dict) else None
        if not isinstance(event, dict) or "nonce" in claims:
            raise NotBelieved("it is no logout token")
        if not (isinstance(subject, str) and isinstance(name, str) and subject and name):
            raise NotBelieved("it names nobody, or not itself")
        self._use_logout(name, claims["iat"] + LOGOUT_GOOD_S + LEEWAY_S)
        return subject

    def _use_logout(self, name: str, until: float) -> None:
        """Let a logout token be used this once. It is good for minutes, whatever it says itself, so
        that those that were used need be known no longer."""
        now = time.time()
        if until < now:
            raise NotBelieved("it is a logout token of long ago")
        with self._lock:
            for each in [each for each, end in self._logouts.items() if end < now]:
                del self._logouts[each]
            if name in self._logouts:
                raise NotBelieved("the logout token was used before")
            if len(self._logouts) >= LOGOUTS_MAX:
                del self._logouts[next(iter(self._logouts))]  # the oldest
            self._logouts[name] = until

    def _options(self) -> dict[str, dict[str, Any]]:
        needed = {name: {"essential": True} for name in ("sub", "exp", "iat")}
        return needed | {
            "iss": {"essential": True, "value": self.settings.issuer},
            "aud": {"essential": True, "value": self.settings.client_id},
        }

    def _hold(self, claims: JWTClaims) -> None:
        try:
            claims.validate(leeway=LEEWAY_S)
        except FAILURES as err:
            raise NotBelieved(f"{type(err).__name__}: {err}") from err

    def _signed(self, text: str) -> jwt.Token:
        """A token whose signature holds, by a key of the provider's."""
        try:
            read = self._decoded(text)
            _sound(read.claims)
        except FAILURES as err:
            raise NotBelieved(f"the signature does not hold: {err}") from err
        return read

    def _decoded(self, text: str) -> jwt.Token:
        registry = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
        try:
            return jwt.decode(text, self._key_set(), registry=registry)
        except InvalidKeyIdError:  # a new key, perhaps
            return jwt.decode(text, self._key_set(again=True), registry=registry)

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
            if there is None or not _is_address(there):
                raise Unreachable(f"its {name} is no address")
            if issuer.startswith("https:") and not there.startswith("https:"):
                raise Unreachable(f"its {name} is not https")
        if not isinstance(found.get("token_endpoint_auth_methods_supported") or [], list):
            raise Unreachable("its token_endpoint_auth_methods_supported is no list")
        return found

    def _key_set(self, again: bool = False) -> KeySet:
        """The provider's keys, asked for once an hour; `again`, since one is missing. While somebody
        asks, or if nothing comes, those that are known stay good: others must not wait for it."""
        if self._keys_due(again) and self._asking.acquire(blocking=self._keys is None):
            try:
                if self._keys_due(again):  # still, after whoever asked meanwhile
                    self._keys = self._asked_keys()
                    self._keys_at = time.monotonic()
            except Unreachable:
                if again or self._keys is None:
                    raise
            finally:
                self._asking.release()
        if self._keys is None:
            raise Unreachable("it did not show its keys a moment ago")
        return self._keys

    def _keys_due(self, again: bool) -> bool:
        """Whether to ask for keys: no more than once a minute, answered or not."""
        since = time.monotonic() - self._keys_asked_at
        if self._keys is None:
            return since > DEAD_S
        old = time.monotonic() - self._keys_at > KEYS_KNOWN_S
        return since > KEYS_AGAIN_S and (again or old)

    def _asked_keys(self) -> KeySet:
        try:
            with self._plain_session() as session:
                found = self._fetch(session, self._known()["jwks_uri"]).get("keys")
        finally:
            self._keys_asked_at = time.monotonic()
        keys = [_key(each) for each in found] if isinstance(found, list) else []
        known = [each for each in keys if each is not None]
        if not known:
            raise Unreachable("it has no key that can be read")
        return KeySet(known)

    def _fetch(self, session: OAuth2Session, url: str) -> dict[str, Any]:
        try:
            response = session.get(url, withhold_token=True, headers={"Accept": "application/json"})
            if response.status_code != 200:
                raise Unreachable(f"{url} answers {response.status_code}")
            return _sound(response.json())
        except FAILURES as err:
            raise Unreachable(f"{url}: {type(err).__name__}") from err

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
