"""The wire `rerank`: which of some documents answer a query best, as Jina and Cohere ask it.

Owns what such a request must look like and where its usage stands. No other wire can stand in for
it, so it goes to upstreams that speak it themselves. Facts: jina.ai/reranker and
docs.cohere.com/reference/rerank for the shapes; SiliconFlow and Model Studio answer in either. What
is charged is what the provider counts as read: the query is read with each document.
"""

from typing import Any

from billing import Usage
from relay import estimate
from relay.body import Ask, Body
from relay.errors import BadRequest, UpstreamError
from relay.wires import chat
from relay.wires.chat import (
    DONE,
    FORWARDED_HEADERS,
    HEADERS,
    as_events,
    changes,
    clean,
    error,
    error_event,
    folded,
    plain,
    signs,
)
from relay.wires.interface import NO_CONTEXT, Context, EventInfo
from relay.wires.usage import natural

__all__ = [
    "DONE",
    "FORWARDED_HEADERS",
    "HEADERS",
    "NAME",
    "PATH",
    "TEXT_FIELDS",
    "as_events",
    "changes",
    "clean",
    "complete",
    "error",
    "error_event",
    "folded",
    "plain",
    "read",
    "signs",
    "signs_of",
    "usage",
]

NAME = "rerank"
PATH = "/rerank"
TEXT_FIELDS: tuple[str, ...] = ()  # scores are no text

DOCUMENTS_MAX = 2048


def read(body: Body, context: Context = NO_CONTEXT) -> Ask:
    """A rerank request: a query, and documents that are texts or hold one. Raises BadRequest."""
    query, documents = body.get("query"), body.get("documents")
    if not isinstance(query, str) or not query:
        raise BadRequest("'query' must be a text that is not empty.", param="query")
    if not isinstance(documents, list) or not 0 < len(documents) <= DOCUMENTS_MAX:
        raise BadRequest(
            f"'documents' must be a list of 1 to {DOCUMENTS_MAX} texts.", param="documents"
        )
    texts = [_text(each, f"documents[{index}]") for index, each in enumerate(documents)]
    chat.count(body, "top_n")
    chat.flag(body, "return_documents")
    read_tokens = sum(map(estimate.text, texts)) + estimate.text(query) * len(texts)
    return Ask(model=chat.model(body), body=body, choices=0, input_tokens=read_tokens)


def complete(doc: dict[str, Any], ask_body: dict[str, Any]) -> dict[str, Any] | None:
    """The answer as tools know it: `results`, each with its index and score, and the document where
    it was asked for.

    Raises UpstreamError where a result is of no document.
    """
    documents, results = ask_body["documents"], []
    for each in _results(doc):
        index = each.get("index") if isinstance(each, dict) else None
        if not isinstance(index, int) or not 0 <= index < len(documents):
            raise UpstreamError("The model's provider gave a result of no document.")
        told = {"document": {"text": _text(documents[index], "")}}
        results.append((told if ask_body.get("return_documents") else {}) | each)
    used = usage(doc)
    read_tokens = max(used.input_tokens, 0) if used else 0
    return {
        **{name: value for name, value in doc.items() if name not in ("output", "data")},
        "model": doc.get("model") or ask_body.get("model"),
        "results": results,
        "usage": {"prompt_tokens": read_tokens, "total_tokens": read_tokens},
    }


def usage(doc: dict[str, Any]) -> Usage | None:
    """What was read: in `usage`, as a total or as input, or in Cohere's `meta`."""
    meta = _object(doc, "meta")
    for used in (
        _object(doc, "usage"),
        _object(meta, "tokens"),
        _object(meta, "billed_units"),
    ):
        for name in ("total_tokens", "prompt_tokens", "input_tokens"):
            if used.get(name) is not None:
                return Usage(natural(used[name]), 0, 0)
    return None


def signs_of(doc: dict[str, Any]) -> EventInfo:
    """What an answer tells the spine."""
    return EventInfo(content=bool(_results(doc)), usage=usage(doc), error=chat.error_in(doc))


def _results(doc: dict[str, Any]) -> list[Any]:
    """The results, which some put into `output`, or call `data`."""
    for holder in (doc, _object(doc, "output")):
        for name in ("results", "data"):
            if isinstance(holder.get(name), list):
                results: list[Any] = holder[name]
                return results
    return []


def _text(document: object, at: str) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str) or not text:
        raise BadRequest("Each document must be a text, and not empty.", param=at)
    return text


def _object(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}
