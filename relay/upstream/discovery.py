"""What a provider says of itself: the models that it lists, and servers on this machine.

Owns the GETs: `/models` of an address that somebody typed, mended where its end is missing, and the
usual ports of Ollama, vLLM and LM Studio. It changes nothing and remembers nothing.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from relay import errors
from relay.catalog import Upstream
from relay.upstream import provider_errors
from relay.upstream.connection import Connection, PrivateAddress
from relay.upstream.http1 import ConnectionPool

PATIENCE_S, LOCAL_PATIENCE_S = 15.0, 0.4
LIST_BYTES_MAX, LISTED_MAX = 8 << 20, 2000
NAME_LENGTH_MAX = 200
ENDS = ("/chat/completions", "/messages", "/responses", "/embeddings", "/completions", "/models")
CONTEXTS = ("max_model_len", "context_length", "max_context_length", "context_window")
LOCAL_PORTS = {"ollama": 11434, "lmstudio": 1234, "vllm": 8000}  # and what compose calls them
IN_A_CONTAINER = Path("/.dockerenv")  # only there the names below are worth the wait for an answer

_decode = msgspec.json.Decoder().decode
_pool = ConnectionPool(0)
_embeds = re.compile(r"embed|\bbge-|\bgte-|\be5-", re.IGNORECASE).search


@dataclass(frozen=True, slots=True)
class Listed:
    """A model as its provider lists it: its name there, and its context in LLM tokens if told."""

    name: str
    context: int | None = None

    @property
    def kind(self) -> str:
        return "embeddings" if _embeds(self.name) else "chat"


class NotListed(Exception):
    """The list of models could not be had. `words` say why: the provider's, or the network's.

    `status` is the provider's, None where none answered; `base_url` where somebody did.
    """

    def __init__(self, words: str, status: int | None = None, base_url: str = ""):
        super().__init__(words)
        self.words, self.status, self.base_url = words, status, base_url


def address(text: str) -> str:
    """What somebody typed as a base address: a scheme is added, the path of a wire taken off."""
    text = text.strip()
    text = text if text.endswith("://") else text.rstrip("/")
    if text and "://" not in text:
        host = urlsplit(f"//{text}").hostname or ""
        text = f"{'http' if is_private(host) else 'https'}://{text}"
    for end in ENDS:
        if text.endswith(end):
            return text.removesuffix(end).rstrip("/")
    return text


def is_private(host: str) -> bool:
    """Whether a host is, by its name alone, one of this machine or network."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".local", ".lan", ".internal", ".localhost"))


def models(upstream: Upstream, key: str) -> tuple[str, list[Listed]]:
    """The models of an upstream, and the base address at which they were found: the one given, or
    the same with /v1, which is often forgotten.

    Raises NotListed, with what the address given says.
    """
    first: NotListed | None = None
    given, mark, query = upstream.base_url.partition("?")
    for path, listed_at in _places(given.rstrip("/")):
        base, where = (f"{each}{mark}{query}" for each in (path, listed_at))
        try:
            return base, _listed(upstream, where, key, PATIENCE_S)
        except NotListed as err:
            if err.status in (401, 402, 403):  # somebody is at home, and does not know us
                raise NotListed(err.words, err.status, base) from err
            first = first or err
            if err.status is None:
                break
    assert first is not None
    raise first


def _places(base: str) -> Iterable[tuple[str, str]]:
    """Base addresses, and where each has its list; Ollama has one of its own beside."""
    yield base, f"{base}/models"
    if not re.search(r"/v\d+\w*$", base):
        yield f"{base}/v1", f"{base}/v1/models"
    root = re.sub(r"/v\d+\w*$", "", base)
    if not urlsplit(root).path:
        yield f"{root}/v1", f"{root}/api/tags"


def _listed(upstream: Upstream, url: str, key: str, patience_s: float) -> list[Listed]:
    document = _get(upstream, url, key, patience_s)
    rows = document.get("data", document.get("models")) if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise NotListed("the answer is no list of models", 200)
    named = (_model(row) for row in rows[:LISTED_MAX])
    return list({each.name: each for each in named if each is not None}.values())


def _model(row: object) -> Listed | None:
    if isinstance(row, str):
        row = {"id": row}
    if not isinstance(row, dict):
        return None
    name = row.get("id") or row.get("model") or row.get("name")
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= NAME_LENGTH_MAX:
        return None
    context = next((row[each] for each in CONTEXTS if isinstance(row.get(each), int)), None)
    return Listed(name.strip(), context if context and 0 < context <= 10**9 else None)


def _get(upstream: Upstream, url: str, key: str, patience_s: float) -> object:
    """A document. Raises NotListed."""
    line = Connection(upstream.allow_private, upstream.on_this_machine, proxy=upstream.proxy)
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "relay"}
    if key:
        headers |= {"Authorization": f"Bearer {key}"}
        if "chat" not in upstream.speaks:
            headers |= {"x-api-key": key, "anthropic-version": "2023-06-01"}
    try:
        answer = _pool.get(line, url, headers, min(upstream.connect_s, patience_s), patience_s)
        try:
            body = b""
            while len(body) < LIST_BYTES_MAX and (chunk := answer.read()):
                body += chunk
        finally:
            answer.close()
    except PrivateAddress as err:
        raise NotListed("the address leads into a private network") from err
    except TimeoutError as err:
        raise NotListed("no answer in time") from err
    except (OSError, ValueError) as err:
        words = getattr(err.__cause__ or err, "strerror", None) or str(err)
        raise NotListed(provider_errors.redacted(words, key)) from err
    if answer.status >= 300:
        refused = provider_errors.of_status(answer.status, body, answer.headers, key=key)
        words = getattr(refused, "words", "") if isinstance(refused, errors.UpstreamError) else ""
        raise NotListed(words or f"HTTP {answer.status}", answer.status)
    try:
        return _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as err:
        raise NotListed("the answer is no list of models", 200) from err


def local_servers(own_port: int, ports: dict[str, int] | None = None) -> list[tuple[str, str, int]]:
    """The servers that answer on this machine now: (preset, base address, models).

    `own_port`: where this relay listens, which lists models too.
    """
    found = []
    for preset, port in (ports or LOCAL_PORTS).items():
        hosts = ["127.0.0.1"] if port != own_port else []
        if IN_A_CONTAINER.exists():
            hosts += ["host.docker.internal", preset]
        for host in hosts:
            base = f"http://{host}:{port}/v1"
            upstream = Upstream(preset, base, allow_private=True, connect_s=LOCAL_PATIENCE_S)
            try:
                listed = _listed(upstream, f"{base}/models", "", LOCAL_PATIENCE_S)
            except NotListed:
                continue
            found.append((preset, base, len(listed)))
            break
    return found
