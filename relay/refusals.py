"""How the API says no: an exception's error, and that error as an answer in its address's shape.

Owns the shape of errors by address and the headers of every answer of the API. It knows no HTTP
server: what it makes is a status, headers and bytes.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from msgspec.json import encode
from werkzeug.exceptions import HTTPException

from relay import errors, metrics
from relay.wires import chat, messages
from relay.wires.interface import Wire

log = logging.getLogger("relay")

FOR_BROWSERS = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*"}
CALLER_LEFT = "499 Client Closed Request"  # nobody reads it; nginx's number


def error_of(err: Exception, request_id: str) -> errors.RelayError:
    """The error to tell a caller: the relay's own, or what stands for Flask's or for a fault of ours."""
    if isinstance(err, errors.RelayError):
        return err
    if isinstance(err, HTTPException):
        known = {404: errors.NotFound, 405: errors.MethodNotAllowed, 413: errors.BodyTooLarge}
        return known.get(err.code or 0, errors.BadRequest)()
    log.exception("a request failed: %s", request_id, exc_info=err)
    return errors.RelayError()


def answer(
    err: errors.RelayError, environ: Mapping, request_id: str, headers: Mapping[str, str]
) -> tuple[str, dict[str, str], bytes]:
    """Status line, headers and body of an error, in the shape of its address.

    `environ` is WSGI's; `headers` are what the answer would have had anyway.
    """
    if isinstance(err, errors.NotAuthenticated | errors.RateLimited):
        metrics.turned_away.labels(err.code).inc()
    path = environ.get("PATH_INFO", "")
    doc = dialect(path, "HTTP_ANTHROPIC_VERSION" in environ).error(err, request_id)
    codex = environ.get("HTTP_ORIGINATOR", "").startswith("codex")
    if isinstance(err, errors.OverPlan) and codex:
        doc["error"]["code"] = (
            None  # at this code Codex says, in place of our sentence, to start anew
        )
    data = encode(doc)
    own = {"Content-Type": "application/json", "Content-Length": str(len(data))}
    return (
        status_line(err.status),
        own | dressed({**headers, **headers_of(err)}, environ, request_id),
        data,
    )


def status_line(status: int) -> str:
    """An HTTP status with its phrase, where it has one."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


def dressed(headers: Mapping[str, str], environ: Mapping, request_id: str) -> dict[str, str]:
    """The headers of every API answer: these, its id, and leave for browsers to read it."""
    ids = {"x-request-id": request_id}
    if dialect(environ.get("PATH_INFO", ""), "HTTP_ANTHROPIC_VERSION" in environ) is messages:
        ids["request-id"] = request_id
    return {**headers, **ids, **FOR_BROWSERS}


def dialect(path: str, anthropic: bool) -> Wire:
    """Whose shape errors have at an address: Anthropic's under /messages and for its models, else
    OpenAI's.

    `anthropic`: whether the request has a header anthropic-version.
    """
    return messages if "/messages" in path or ("/models" in path and anthropic) else chat


def headers_of(err: errors.RelayError) -> dict[str, str]:
    """The headers of an error's answer: when a retry may help, or that none does."""
    headers = dict(err.headers)
    if err.retry_after is not None:
        headers["retry-after"] = str(err.retry_after)
    if not err.retry_helps:
        headers["x-should-retry"] = "false"
    return headers
