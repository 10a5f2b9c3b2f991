"""A fake identity provider on a real socket, as the specifications of OpenID Connect have it: it
checks what a relay sends (PKCE, the redirect address, the client's secret), and lies when told to.

Owns keys of its own. It knows no relay.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import html
import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, parse_qsl, quote, unquote_plus, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT, SECRET = "relay", "a+secret:50%of/it"
ALICE = {
    "sub": "subject-of-alice",
    "preferred_username": "alice",
    "name": "Alice Liddell",
    "email": "alice@example.com",
    "email_verified": True,
    "groups": ["staff"],
}


@functools.cache
def new_key(kid: str) -> RSAKey:
    """A key of this name, made once: it takes long."""
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


class IdentityProvider:
    """Signs in `person` at once, or after a click (`asks`). What it says can be bent: `bend` is
    given the ID token's claims before they are signed, `sign` replaces the signing."""

    def __init__(self) -> None:
        self.person: dict = dict(ALICE)
        self.asks = False
        self.bend: Callable[[dict], dict] = lambda claims: claims
        self.sign: Callable[[dict], str] | None = None
        self.userinfo: dict | None = None  # None: what the ID token says
        self.metadata: dict = {}  # laid over what is discovered
        self.denies: str = ""  # the error with which everybody is sent back
        self.leads_back: dict = {}  # laid over the parameters of the way back
        self.broken: set[str] = set()  # paths that answer 500
        self.silent: set[str] = set()  # paths that do not answer
        self.dripping: set[str] = set()  # paths that answer a byte a moment
        self.asked: list[tuple[str, dict]] = []  # (path, parameters)
        self.key = new_key("first")
        self.keys = [self.key]
        self.codes: dict[str, dict] = {}
        self._woken = threading.Event()

    def __enter__(self) -> Self:
        handler = type("Answers", (_Answers,), {"provider": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        serve = functools.partial(self._server.serve_forever, poll_interval=0.01)
        threading.Thread(target=serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._woken.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def settings(self) -> dict:
        """The [sign_in] that knows it."""
        return {"issuer": self.url, "client_id": CLIENT, "client_secret": SECRET}

    def wait(self) -> None:
        """Be silent till the end of the test."""
        self._woken.wait()

    def woken(self, seconds: float) -> bool:
        return self._woken.wait(seconds)

    def discovered(self) -> dict:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "authorization_response_iss_parameter_supported": True,
        } | self.metadata

    def rotate(self) -> None:
        """Sign with another key from now on."""
        self.key = new_key("second")
        self.keys = [self.key]

    def authorize(self, asked: dict) -> str:
        """The address that leads back, with a code for whoever is signed in here."""
        assert asked["response_type"] == "code" and asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256" and len(asked["code_challenge"]) == 43
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(12)
        self.codes[code] = {**asked, "person": dict(self.person)}
        given = {"state": asked["state"], "iss": self.url}
        given |= {"error": self.denies} if self.denies else {"code": code}
        given = {k: v for k, v in (given | self.leads_back).items() if v is not None}
        return f"{asked['redirect_uri']}?{urlencode(given)}"

    def redeem(self, authorization: str, sent: dict) -> tuple[int, dict]:
        """What the token endpoint answers."""
        pair = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        name, word = unquote_plus(pair[0]), unquote_plus(pair[2])
        if self.metadata.get("token_endpoint_auth_methods_supported") == ["client_secret_post"]:
            name, word = sent.get("client_id", ""), sent.get("client_secret", "")
        if (name, word) != (CLIENT, SECRET):
            return 401, {"error": "invalid_client"}
        asked = self.codes.pop(sent.get("code", ""), None)  # a code is good once
        if asked is None or sent["redirect_uri"] != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        if _s256(sent["code_verifier"]) != asked["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        access = secrets.token_urlsafe(12)
        claims = self.bend(
            asked["person"]
            | {
                "iss": self.url,
                "aud": CLIENT,
                "iat": int(time.time()),
                "exp": int(time.time()) + 300,
                "nonce": asked["nonce"],
                "at_hash": _half(access),
            }
        )
        token = self.sign(claims) if self.sign else self.signed(claims)
        return 200, {"access_token": access, "token_type": "Bearer", "id_token": token}

    def signed(self, claims: dict, **header: str) -> str:
        """A token with this provider's signature."""
        return jwt.encode({"alg": "RS256", "kid": self.key.kid} | header, claims, self.key)

    def unsigned(self, claims: dict) -> str:
        """A token that says it needs no signature."""
        parts = ({"alg": "none", "typ": "JWT"}, claims)
        return ".".join(_b64(json.dumps(each).encode()) for each in parts) + "."

    def signed_with_public_key(self, claims: dict) -> str:
        """A token signed with what everybody knows, as if it were a shared secret."""
        secret = self.key.as_pem(private=False)
        head = _b64(json.dumps({"alg": "HS256", "kid": self.key.kid}).encode())
        text = f"{head}.{_b64(json.dumps(claims).encode())}"
        mac = hmac.new(secret, text.encode(), hashlib.sha256).digest()
        return f"{text}.{_b64(mac)}"

    def logout_token(self, **changes: object) -> str:
        """What it posts when somebody has signed out here."""
        event = {"http://schemas.openid.net/event/backchannel-logout": {}}
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 120, "jti": "1"}
        claims |= {"sub": self.person["sub"], "events": event} | changes
        return self.signed(claims, typ="logout+jwt")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _s256(text: str) -> str:
    return _b64(hashlib.sha256(text.encode()).digest())


def _half(text: str) -> str:
    return _b64(hashlib.sha256(text.encode()).digest()[:16])


class _Answers(BaseHTTPRequestHandler):
    provider: IdentityProvider
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(dict(parse_qsl(urlsplit(self.path).query)))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._answer({name: values[0] for name, values in parse_qs(body).items()})

    def _answer(self, given: dict) -> None:
        there, path = self.provider, urlsplit(self.path).path
        there.asked.append((path, given))
        if path in there.silent:
            there.wait()
            return
        if path in there.broken:
            self._say(500, {"error": "server_error"})
        elif path == "/.well-known/openid-configuration":
            self._say(200, there.discovered())
        elif path == "/keys":
            self._say(200, KeySet(there.keys).as_dict(private=False))
        elif path == "/authorize" and there.asks and "agreed" not in given:
            link = html.escape(f"/authorize?{urlsplit(self.path).query}&agreed={quote('yes')}")
            self._page(f'<h1>Company</h1><a href="{link}">Sign in as {there.person["name"]}</a>')
        elif path == "/authorize":
            self._lead(there.authorize(given))
        elif path == "/token":
            self._say(*there.redeem(self.headers.get("Authorization", ""), given))
        elif path == "/userinfo":
            self._say(200, there.userinfo if there.userinfo is not None else there.person)
        else:
            self._say(404, {"error": "not_found"})

    def _say(self, status: int, said: dict) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if urlsplit(self.path).path not in self.provider.dripping:
            self.wfile.write(body)
            return
        for number in range(len(body)):
            try:
                self.wfile.write(body[number : number + 1])
            except OSError:
                return
            if self.provider.woken(0.05):
                return

    def _page(self, text: str) -> None:
        body = f"<!doctype html><meta charset=utf-8><title>Company</title><link rel=icon href=data:,>{text}".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _lead(self, address: str) -> None:
        self.send_response(302)
        self.send_header("Location", address)
        self.send_header("Content-Length", "0")
        self.end_headers()
