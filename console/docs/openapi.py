"""The files that describe the API to programs: an OpenAPI document and a Postman collection.

Pure functions of the site's name and address. The errors in the OpenAPI document are those of the
code.
"""

import re

import msgspec

from relay import administration, errors
from relay.administration.shape import Address

CHAT_FIELDS = {
    "model": {"type": "string", "description": "ID of a model of this site."},
    "messages": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}},
    "stream": {
        "type": "boolean",
        "default": False,
        "description": "Send the answer in pieces as it is made.",
    },
    "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "minimum": 0, "maximum": 1},
    "max_tokens": {
        "type": "integer",
        "minimum": 1,
        "description": "At most so many tokens of output.",
    },
    "stop": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "tools": {"type": "array", "items": {"type": "object"}},
    "tool_choice": {"oneOf": [{"type": "string"}, {"type": "object"}]},
    "response_format": {"type": "object"},
}
USAGE = {
    "type": "object",
    "properties": {
        "prompt_tokens": {"type": "integer"},
        "completion_tokens": {"type": "integer"},
        "total_tokens": {"type": "integer"},
        "prompt_tokens_details": {
            "type": "object",
            "properties": {"cached_tokens": {"type": "integer"}},
        },
    },
}
SCHEMAS = {
    "Message": {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {
                "type": "string",
                "enum": ["system", "developer", "user", "assistant", "tool"],
            },
            "content": {
                "oneOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "object"}},
                    {"type": "null"},
                ]
            },
        },
    },
    "ChatRequest": {
        "type": "object",
        "required": ["model", "messages"],
        "properties": CHAT_FIELDS,
        "additionalProperties": True,
    },
    "ChatAnswer": {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "chat.completion"},
            "model": {"type": "string"},
            "choices": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "index": {"type": "integer"},
                        "message": {"$ref": "#/components/schemas/Message"},
                        "finish_reason": {"type": ["string", "null"]},
                    },
                },
            },
            "usage": USAGE,
        },
    },
    "EmbeddingsRequest": {
        "type": "object",
        "required": ["model", "input"],
        "properties": {
            "model": {"type": "string"},
            "input": {
                "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
            },
            "encoding_format": {"type": "string", "enum": ["float", "base64"]},
        },
        "additionalProperties": True,
    },
    "ModelList": {
        "type": "object",
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
        },
    },
    "Model": {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "model"},
            "owned_by": {"type": "string"},
        },
    },
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    },
    "Any": {"type": "object", "additionalProperties": True},
}
POSTS = (  # path, name, what it is, request, answer
    ("/chat/completions", "chat", "Chat completions", "ChatRequest", "ChatAnswer"),
    ("/messages", "messages", "Anthropic Messages", "Any", "Any"),
    (
        "/messages/count_tokens",
        "count_tokens",
        "Count the tokens of a message, free of charge",
        "Any",
        "Any",
    ),
    ("/responses", "responses", "OpenAI Responses", "Any", "Any"),
    ("/embeddings", "embeddings", "Embeddings", "EmbeddingsRequest", "Any"),
    ("/rerank", "rerank", "Documents by how well they answer a query", "Any", "Any"),
    ("/completions", "completions", "Legacy completions", "Any", "Any"),
)
ANSWERING = (
    errors.BadRequest,
    errors.NotAuthenticated,
    errors.InsufficientBalance,
    errors.ModelNotAllowed,
    errors.ModelNotFound,
    errors.BodyTooLarge,
    errors.RateLimited,
    errors.UpstreamError,
    errors.Unavailable,
    errors.UpstreamTimeout,
)


def _json(schema: str) -> dict:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _answers(schema: str, streams: bool) -> dict:
    good = {"description": "The answer", "content": _json(schema)}
    if streams:
        good["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    refused = {
        str(each.status): {"description": each.sentence, "content": _json("Error")}
        for each in ANSWERING
    }
    return {"200": good, **refused}


def openapi(name: str, base: str) -> dict:
    """The API as an OpenAPI 3.1 document: the site's name, its base address."""
    paths = {}
    for path, operation, summary, asked, answered in POSTS:
        streams = operation in ("chat", "messages", "responses", "completions")
        paths[path] = {
            "post": {
                "operationId": operation,
                "summary": summary,
                "requestBody": {"required": True, "content": _json(asked)},
                "responses": _answers(answered, streams),
            }
        }
    paths["/models"] = {
        "get": {
            "operationId": "models",
            "summary": "The models that this API key may use",
            "responses": _answers("ModelList", False),
        }
    }
    paths["/models/{id}"] = {
        "get": {
            "operationId": "model",
            "summary": "One model",
            "responses": _answers("Model", False),
            "parameters": [
                {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
            ],
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": "1"},
        "servers": [{"url": base}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": SCHEMAS,
        },
    }


def administration_api(name: str, base: str) -> dict:
    """The administrators' API as an OpenAPI document: addresses, parameters, bodies and answers are
    those of the code."""
    types = [
        each
        for address in administration.ADDRESSES
        for each in (address.answer, address.body)
        if each not in (None, str, bytes)
    ]
    refs, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    found = dict(zip(types, refs, strict=True))
    paths: dict = {}
    for address in administration.ADDRESSES:
        where = re.sub(r"<(?:int:)?(\w+)>", r"{\1}", address.path)
        paths.setdefault(where, {})[address.method.lower()] = _operation(address, where, found)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{name}: administration", "version": "1"},
        "servers": [{"url": base + "/admin"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": components | {"Error": SCHEMAS["Error"]},
        },
    }


def _operation(address: Address, where: str, schemas: dict) -> dict:
    """An address of the administrators' API; `schemas` are those of the types."""
    written = {str: {"type": "string"}, bytes: {"type": "string", "format": "binary"}}
    schema = written.get(address.answer) or schemas[address.answer]
    refused = {
        str(status): {"description": said, "content": _json("Error")}
        for status, said in REFUSALS.items()
    }
    good = {"description": "The answer", "content": {address.media: {"schema": schema}}}
    operation: dict = {
        "operationId": address.act.__name__,
        "summary": " ".join((address.act.__doc__ or "").split()),
        "parameters": [*_of_path(address, where), *_of_query(address)],
        "responses": {str(address.status): good, **refused},
    }
    if address.body is bytes:
        content = {"text/csv": {"schema": {"type": "string"}}}
        operation["requestBody"] = {"required": True, "content": content}
    elif address.body is not None:
        content = {"application/json": {"schema": schemas[address.body]}}
        operation["requestBody"] = {"content": content}
    return operation


REFUSALS = {
    400: "What is wrong is named in `param`.",
    401: errors.NotAuthenticated.sentence,
    403: "The API key is not for this, or its holder is no administrator.",
    404: "Nothing has this id or name.",
}


def _of_path(address: Address, where: str) -> list[dict]:
    numbers = set(re.findall(r"<int:(\w+)>", address.path))
    return [
        {
            "name": each,
            "in": "path",
            "required": True,
            "schema": {"type": "integer" if each in numbers else "string"},
        }
        for each in re.findall(r"{(\w+)}", where)
    ]


def _of_query(address: Address) -> list[dict]:
    """What the address may say after `?`, and the header that lets it be sent twice."""
    found = []
    if address.query is not None:
        schema = msgspec.json.schema(address.query)["$defs"][address.query.__name__]
        needed = schema.get("required", ())
        found = [
            {"name": name, "in": "query", "required": name in needed, "schema": each}
            for name, each in schema["properties"].items()
        ]
    if address.keyed:
        key = {"type": "string", "maxLength": 255}
        found.append({"name": "Idempotency-Key", "in": "header", "schema": key})
    return found


def _request(name: str, method: str, path: str, body: str | None = None) -> dict:
    request = {"method": method, "url": "{{base_url}}" + path, "header": []}
    if body is not None:
        request["header"] = [{"key": "Content-Type", "value": "application/json"}]
        request["body"] = {"mode": "raw", "raw": body, "options": {"raw": {"language": "json"}}}
    return {"name": name, "request": request}


def postman(name: str, base: str, model: str) -> dict:
    """The API as a Postman collection; address, token and model are its variables."""
    hello = '[{"role": "user", "content": "Hello"}]'
    return {
        "info": {
            "name": name,
            "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
        },
        "auth": {
            "type": "bearer",
            "bearer": [{"key": "token", "value": "{{api_token}}", "type": "string"}],
        },
        "variable": [
            {"key": "base_url", "value": base},
            {"key": "api_token", "value": ""},
            {"key": "model", "value": model},
        ],
        "item": [
            _request("Models", "GET", "/models"),
            _request(
                "Chat",
                "POST",
                "/chat/completions",
                '{\n  "model": "{{model}}",\n  "messages": ' + hello + "\n}",
            ),
            _request(
                "Chat, streamed",
                "POST",
                "/chat/completions",
                '{\n  "model": "{{model}}",\n  "messages": ' + hello + ',\n  "stream": true\n}',
            ),
            _request(
                "Anthropic Messages",
                "POST",
                "/messages",
                '{\n  "model": "{{model}}",\n  "max_tokens": 1024,\n  "messages": ' + hello + "\n}",
            ),
            _request(
                "OpenAI Responses",
                "POST",
                "/responses",
                '{\n  "model": "{{model}}",\n  "input": "Hello"\n}',
            ),
            _request("Balance", "GET", "/usage"),
        ],
    }
