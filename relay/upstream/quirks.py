"""Small named filters for providers that want a request to be a little different.

Each filter is a pure function: it takes the members of a request and returns those to be changed (a
value of None takes the member out). An upstream or a route names those that it needs in its
`quirks`; what a quirk means on each wire that a provider may speak itself stands in `FILTERS`. Code
exists per quirk, never per provider. Sources:
the providers' documentation of parameters and their error messages.
"""

import json
import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

Filter = Callable[[Mapping], dict]
ABOVE_HIGH = ("xhigh", "max", "ultra")
# Ark refuses these where it does not document them; none changes what a model answers.
OPENAIS_OWN = (
    *("parallel_tool_calls", "metadata", "client_metadata", "user", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_retention", "service_tier", "stream_options"),
)


def developer_as_system(body: Mapping) -> dict:
    """The role `developer` is not known: say `system`."""
    return _messages(
        body,
        lambda message: (
            {**message, "role": "system"} if message.get("role") == "developer" else message
        ),
    )


def developer_items_as_system(body: Mapping) -> dict:
    """The same of Responses, whose messages stand among other items."""
    changed = developer_as_system({"messages": body.get("input")})
    return {"input": changed["messages"]} if changed else {}


def reasoning_content_required(body: Mapping) -> dict:
    """An assistant's turn with tool calls is refused without its reasoning.

    Where it is lost, a space stands for it.
    """
    return _messages(
        body,
        lambda message: (
            {**message, "reasoning_content": " "}
            if message.get("role") == "assistant"
            and message.get("tool_calls")
            and not message.get("reasoning_content")
            else message
        ),
    )


def tool_choice_auto(body: Mapping) -> dict:
    """Only `auto` and `none` are known as tool_choice.

    A call that must or shall use a tool may use one, and reads at its end that it should: what
    stands before is the provider's to keep in its cache.
    """
    choice = body.get("tool_choice")
    if choice in (None, "auto", "none"):
        return {}
    last = {"role": "user", "content": _demand(choice)}
    return {"tool_choice": "auto"} | _followed(body, "messages", last)


def tool_item_as_auto(body: Mapping) -> dict:
    """The same of Responses."""
    choice = body.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind in (None, "auto", "none", "allowed_tools"):
        return {}
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    last = {"role": "user", "content": _demand(choice)}
    return {"tool_choice": "auto"} | _followed({"input": items}, "input", last)


def any_tool_as_auto(body: Mapping) -> dict:
    """The same of Messages, where the last turn is the user's own or answers calls."""
    choice = body.get("tool_choice")
    demands = isinstance(choice, dict) and choice.get("type") in ("any", "tool")
    if not demands:
        return {}
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    said: dict = {"tool_choice": {"type": "auto"}}
    if not isinstance(messages, list) or not isinstance(last, dict) or last.get("role") != "user":
        return said
    content = last.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(blocks, list):
        return said
    turn = {**last, "content": [*blocks, {"type": "text", "text": _demand(choice)}]}
    return said | {"messages": [*messages[:-1], turn]}


def _where_it_thinks(filter: Filter) -> Filter:
    """A filter for calls whose thinking was not switched off, which is on by default."""

    def where_it_thinks(body: Mapping) -> dict:
        thinking = body.get("thinking")
        off = isinstance(thinking, dict) and thinking.get("type") == "disabled"
        return {} if off or body.get("enable_thinking") is False else filter(body)

    return where_it_thinks


def _demand(choice: object) -> str:
    """What a choice of a tool asks for, in words."""
    inner = choice.get("function") if isinstance(choice, dict) else None
    holder = inner if isinstance(inner, dict) else choice
    name = holder.get("name") if isinstance(holder, dict) else None
    which = f"the tool `{name}`" if isinstance(name, str) and name else "one of the tools"
    return f"<system-reminder>\nAnswer by calling {which}.\n</system-reminder>"


def _followed(body: Mapping, name: str, last: dict) -> dict:
    """A list with one more at its end."""
    given = body.get(name)
    return {name: [*given, last]} if isinstance(given, list) and given else {}


def temperature_one(body: Mapping) -> dict:
    """The sampling is fixed.

    Any other temperature, top_p or penalty is refused, so none is sent.
    """
    fixed = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
    return {name: None for name in fixed if body.get(name) is not None}


def temperature_above_zero(body: Mapping) -> dict:
    """temperature must be above 0."""
    temperature = body.get("temperature")
    return (
        {"temperature": 0.01} if isinstance(temperature, int | float) and temperature <= 0 else {}
    )


def top_p_below_one(body: Mapping) -> dict:
    """top_p must be below 1."""
    top_p = body.get("top_p")
    return {"top_p": 0.99} if isinstance(top_p, int | float) and top_p >= 1 else {}


def text_content_only(body: Mapping) -> dict:
    """Content must be a string: parts that are all text are joined.

    Null beside tool calls becomes "" .
    """
    return _messages(body, _joined)


def plain_without_thinking(body: Mapping) -> dict:
    """Without a stream thinking is refused, and it is on by default."""
    return {} if body.get("stream") or "enable_thinking" in body else {"enable_thinking": False}


def enable_thinking(body: Mapping) -> dict:
    """`thinking` is not known: what switches thinking off is `enable_thinking`.

    On stays the model's own default.
    """
    thinking = body.get("thinking")
    if not isinstance(thinking, dict):
        return {}
    off = thinking.get("type") == "disabled" and "enable_thinking" not in body
    return {"thinking": None} | ({"enable_thinking": False} if off else {})


def up_to_high(effort: str) -> str:
    """How hard to think goes no higher than `high`."""
    return "high" if effort in ABOVE_HIGH else effort


def high_or_max(effort: str) -> str:
    """How hard to think is `high` or `max`."""
    return "max" if effort in ABOVE_HIGH else "high"


def effort_up_to_high(body: Mapping) -> dict:
    """reasoning_effort goes no higher than `high`."""
    return _effort(body, up_to_high)


def effort_high_or_max(body: Mapping) -> dict:
    """reasoning_effort is `high` or `max`; who wants none switches thinking off."""
    if body.get("reasoning_effort") == "none":
        return {"reasoning_effort": None, "thinking": {"type": "disabled"}}
    return _effort(body, high_or_max)


def _effort(body: Mapping, allowed: Callable[[str], str]) -> dict:
    effort = body.get("reasoning_effort")
    wanted = allowed(effort) if isinstance(effort, str) else effort
    return {"reasoning_effort": wanted} if wanted != effort else {}


def _within(holder: str, allowed: Callable[[str], str]) -> Filter:
    """The same where the effort stands in a member, as those of Messages and Responses do."""

    def filter(body: Mapping) -> dict:
        given = body.get(holder)
        effort = given.get("effort") if isinstance(given, dict) else None
        if not isinstance(given, dict) or not isinstance(effort, str) or effort == "none":
            return {}
        wanted = allowed(effort)
        return {holder: given | {"effort": wanted}} if wanted != effort else {}

    return filter


def known_fields_only(body: Mapping) -> dict:
    """Of Responses: what OpenAI alone knows is refused."""
    return {name: None for name in OPENAIS_OWN if name in body}


def untyped_tools(body: Mapping) -> dict:
    """Of Messages: a tool's type `custom`, which goes without saying, must not be said."""
    tools = body.get("tools")
    if not isinstance(tools, list) or not any(_is_custom(tool) for tool in tools):
        return {}
    return {
        "tools": [
            {name: value for name, value in tool.items() if name != "type"}
            if _is_custom(tool)
            else tool
            for tool in tools
        ]
    }


def no_stream_options(body: Mapping) -> dict:
    """stream_options are refused, or ignored; usage comes without them."""
    return {"stream_options": None} if "stream_options" in body else {}


def spark_chunks(body: Mapping) -> dict:
    """Tool calls come as a list only if asked for.

    (The chunks' missing members are completed for every provider.)
    """
    return {"tool_calls_switch": True} if body.get("tools") else {}


def max_tokens_only(body: Mapping) -> dict:
    """max_completion_tokens is ignored: say max_tokens, or nothing bounds the answer."""
    limit = body.get("max_completion_tokens")
    if limit is None:
        return {}
    return {"max_completion_tokens": None, "max_tokens": body.get("max_tokens") or limit}


def max_completion_tokens_only(body: Mapping) -> dict:
    """The other way round: max_tokens is refused, as by OpenAI's models that reason."""
    limit = body.get("max_tokens")
    if limit is None:
        return {}
    return {"max_tokens": None, "max_completion_tokens": body.get("max_completion_tokens") or limit}


def json_object_only(body: Mapping) -> dict:
    """Of response_format only `json_object` is known: the schema becomes an instruction."""
    wanted = body.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return {}
    schema = wanted.get("json_schema")
    schema = schema.get("schema", schema) if isinstance(schema, dict) else {}
    said = f"Answer with one JSON object that fits this JSON Schema, and nothing else:\n{_json(schema)}"
    return {"response_format": {"type": "json_object"}} | _instructed(body, said)


def prefill_partial(body: Mapping) -> dict:
    """An assistant's turn at the end is begun anew unless it is marked as `partial`."""
    return _prefilled(body, "partial")


def prefill_prefix(body: Mapping) -> dict:
    """The same with `prefix`, which is known below /beta only (api-docs.deepseek.com, "Chat Prefix
    Completion"): `address` says where such a request goes."""
    return _prefilled(body, "prefix")


_PREFIX = re.compile(rb'"prefix" ?: ?true')


def address(names: tuple[str, ...], url: str, payload: bytes) -> str:
    """Where a request goes: mostly to the wire's address, with a prefix below /beta."""
    if "prefill_prefix" not in names or not _PREFIX.search(payload):
        return url
    parts = urlsplit(url)
    path = parts.path.removeprefix("/v1").removeprefix("/beta")
    return parts._replace(path="/beta" + path).geturl()


def _prefilled(body: Mapping, mark: str) -> dict:
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    begun = (
        isinstance(last, dict) and last.get("role") == "assistant" and not last.get("tool_calls")
    )
    if not isinstance(messages, list) or not isinstance(last, dict) or not begun:
        return {}
    return {"messages": [*messages[:-1], {**last, mark: True}]}


def _everywhere(filter: Filter) -> dict[str, Filter]:
    """A filter whose members have the same names on all wires."""
    return dict.fromkeys(("chat", "messages", "responses"), filter)


FILTERS: dict[str, dict[str, Filter]] = {
    "developer_as_system": {
        "chat": developer_as_system,
        "responses": developer_items_as_system,
    },
    "reasoning_content_required": {"chat": reasoning_content_required},
    "tool_choice_auto": {
        "chat": tool_choice_auto,
        "responses": tool_item_as_auto,
        "messages": any_tool_as_auto,
    },
    "thinking_tool_choice_auto": {
        "chat": _where_it_thinks(tool_choice_auto),
        "responses": _where_it_thinks(tool_item_as_auto),
        "messages": _where_it_thinks(any_tool_as_auto),
    },
    "temperature_one": _everywhere(temperature_one),
    "temperature_above_zero": _everywhere(temperature_above_zero),
    "top_p_below_one": _everywhere(top_p_below_one),
    "text_content_only": {"chat": text_content_only},
    "plain_without_thinking": {"chat": plain_without_thinking},
    "enable_thinking": {"chat": enable_thinking},
    "effort_up_to_high": {
        "chat": effort_up_to_high,
        "messages": _within("output_config", up_to_high),
        "responses": _within("reasoning", up_to_high),
    },
    "effort_high_or_max": {
        "chat": effort_high_or_max,
        "messages": _within("output_config", high_or_max),
        "responses": _within("reasoning", high_or_max),
    },
    "untyped_tools": {"messages": untyped_tools},
    "known_fields_only": {"responses": known_fields_only},
    "plain_as_plain": {},  # `payload.streams` asks for it
    "no_stream_options": {"chat": no_stream_options},
    "spark_chunks": {"chat": spark_chunks},
    "max_tokens_only": {"chat": max_tokens_only},
    "max_completion_tokens_only": {"chat": max_completion_tokens_only},
    "json_object_only": {"chat": json_object_only},
    "prefill_partial": {"chat": prefill_partial},
    "prefill_prefix": {"chat": prefill_prefix},
}


def apply(names: tuple[str, ...], body: Mapping, wire: str = "chat") -> dict:
    """All changes that these quirks make to a request of that wire, the later seeing what the
    earlier changed."""
    changes: dict = {}
    for name in names:
        if filter := FILTERS[name].get(wire):
            changes.update(filter({**body, **changes} if changes else body))
    return changes


def _messages(body: Mapping, change: Callable[[dict], dict]) -> dict:
    before = body.get("messages")
    if not isinstance(before, list):
        return {}
    after = [change(message) if isinstance(message, dict) else message for message in before]
    return (
        {"messages": after}
        if any(new is not old for new, old in zip(after, before, strict=True))
        else {}
    )


def _instructed(body: Mapping, said: str) -> dict:
    """The messages with one more instruction, in the first one that gives some."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return {}
    first = messages[0] if messages and isinstance(messages[0], dict) else {}
    if first.get("role") not in ("system", "developer") or not isinstance(
        first.get("content"), str
    ):
        return {"messages": [{"role": "system", "content": said}, *messages]}
    return {"messages": [{**first, "content": f"{first['content']}\n\n{said}"}, *messages[1:]]}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _is_custom(tool: object) -> bool:
    return isinstance(tool, dict) and tool.get("type") == "custom"


def _joined(message: dict) -> dict:
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        return {**message, "content": ""}
    if not isinstance(content, list):
        return message
    texts = [
        part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        for part in content
    ]
    if not all(isinstance(text, str) for text in texts):
        return message
    return {**message, "content": "\n".join(texts)}
