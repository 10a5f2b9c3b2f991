"""What the demo says: texts, tool calls and JSON, made up from the request itself.

Owns the words, and when a tool is called; `provider` owns how they travel. No model is asked, and
every text says so. The same request always gets the same answer. Nothing here raises, whatever the
request holds.
"""

import json
import re
from dataclasses import dataclass
from zlib import crc32

from relay.upstream.demo.schema import fit

ASKED_CHARS = 20_000  # of the question are looked at,
QUESTION_CHARS = 60  # so many repeated,
RESULT_CHARS = 300  # and these of a tool's result

_ideographs = re.compile("[\u3400-\u9fff]+")
_spaces = re.compile(r"\s+")
_asks_for_tools = re.compile(r"\b(?:tools?|functions?|call)\b|工具|调用|函数", re.IGNORECASE).search

_WORDS = {
    "zh": {
        "openings": ("你好！", "收到！", "谢谢你的提问。"),
        "demo": "这是内置演示的回答：还没有配置上游密钥，所以没有调用任何模型。",
        "question": "你向 {model} 提的问题是：“{question}”。",
        "result": "工具 {name} 返回的结果是：{result}",
        "closings": (
            "流式输出、用量统计和扣费与真实调用走的是同一条路，可以放心用它来调试客户端。",
            "配置任意一个上游密钥之后，同样的请求就会由真正的模型来回答，代码一行也不用改。",
            "这次调用的用量和费用可以在控制台的明细里看到，价格按真实的规则计算。",
        ),
        "thoughts": "用户问的是：“{question}”。这里只是演示，并没有真正的推理。"
        "先说明这一点，再复述问题，最后告诉用户怎样接入真实的模型。",
        "nothing": "（没有文字）",
    },
    "en": {
        "openings": ("Hello! ", "Got it. ", "Thank you for asking. "),
        "demo": "This is the built-in demo speaking: no upstream key is configured, so no model was called.",
        "question": 'You asked {model}: "{question}"',
        "result": "The tool {name} returned: {result}",
        "closings": (
            "Streaming, usage and charges take the same way as in a real call, so you can test your client with it.",
            "Configure one upstream key and the same request is answered by a real model; your code stays as it is.",
            "The console lists this call with its usage and cost, counted by the real prices.",
        ),
        "thoughts": 'The user asks: "{question}" This is a demo and nothing is really thought through. '
        "I shall say so, repeat the question, and tell how to connect a real model.",
        "nothing": "(no text)",
    },
}


@dataclass(frozen=True, slots=True)
class DemoAnswer:
    """What is said: some thoughts, then a text or tool calls (name, arguments as JSON)."""

    thoughts: str = ""
    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()


def answer(body: dict, choice: int = 0) -> DemoAnswer:
    """The answer to a chat request; its choices differ a little."""
    messages = [message for message in body["messages"] if isinstance(message, dict)]
    asked = next(
        (
            _text(message.get("content"))
            for message in reversed(messages)
            if message.get("role") == "user"
        ),
        "",
    )[:ASKED_CHARS]
    words = _WORDS["zh" if _ideographs.search(asked) else "en"]
    thoughts = words["thoughts"].format(question=_short(asked, words)) if _thinks(body) else ""
    results = _results(messages)
    tools = [] if results else _tools_to_call(body, asked)
    if tools:
        return DemoAnswer(
            thoughts, calls=tuple((tool["name"], _arguments(tool, asked)) for tool in tools)
        )
    return DemoAnswer(
        thoughts, _json_text(body, asked) or _prose(body, asked, results, words, choice)
    )


def _arguments(tool: dict, asked: str) -> str:
    value = fit(tool.get("parameters"), asked)
    return json.dumps(value if isinstance(value, dict) else {}, ensure_ascii=False)


def _prose(body: dict, asked: str, results: list[tuple[str, str]], words: dict, choice: int) -> str:
    seed = crc32(f"{body.get('seed')} {body['model']} {asked}".encode("utf-8", "replace")) + choice
    opening, closing = (words[name][seed % 3] for name in ("openings", "closings"))
    of_results = "".join(
        words["result"].format(name=name, result=_cut(result, RESULT_CHARS)) + "\n\n"
        for name, result in results
    )
    question = words["question"].format(model=body["model"], question=_short(asked, words))
    middle = of_results or question + "\n\n"
    return opening + words["demo"] + "\n\n" + middle + closing


def _json_text(body: dict, asked: str) -> str:
    """The answer as JSON if the request wants it so, else nothing."""
    wanted = body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_schema":
        given = wanted.get("json_schema")
        return json.dumps(
            fit(given.get("schema") if isinstance(given, dict) else None, asked, whole=True),
            ensure_ascii=False,
        )
    if kind == "json_object":
        return json.dumps(
            {"answer": "demo", "question": _cut(asked, QUESTION_CHARS), "model_called": False},
            ensure_ascii=False,
        )
    return ""


def _thinks(body: dict) -> bool:
    """True for models that always reason, and where the request asks any model to."""
    if re.search("r1|reasoner|thinking", body["model"].lower()):
        return True
    thinking, effort = body.get("thinking"), body.get("reasoning_effort")
    if isinstance(thinking, dict):
        return thinking.get("type") in ("enabled", "auto", "adaptive")
    return body.get("enable_thinking") is True or effort not in (None, "none", "minimal")


def _results(messages: list[dict]) -> list[tuple[str, str]]:
    """Tool results (name, text) that nobody has answered yet.

    Those after the last turn of the assistant.
    """
    names, results = {}, []
    for message in messages:
        if message.get("role") == "assistant":
            results = []
            calls = message.get("tool_calls")
            for call in calls if isinstance(calls, list) else ():
                function = call.get("function") if isinstance(call, dict) else None
                if isinstance(function, dict):
                    names[str(call.get("id"))] = str(function.get("name"))
        elif message.get("role") in ("tool", "function"):
            name = names.get(str(message.get("tool_call_id"))) or str(message.get("name") or "?")
            results.append((name, _text(message.get("content"))))
    return results


def _tools_to_call(body: dict, asked: str) -> list[dict]:
    """The functions to call.

    The one demanded, else those that the message names, else the one that fits it best.
    """
    tools = _functions(body.get("tools"))
    choice = body.get("tool_choice", "auto")
    if not tools or choice == "none":
        return []
    if isinstance(choice, dict):
        function = choice.get("function")
        wanted = function.get("name") if isinstance(function, dict) else None
        return [tool for tool in tools if tool["name"] == wanted] or tools[:1]
    named = [
        tool
        for tool in tools
        if re.search(rf"(?<!\w){re.escape(tool['name'])}(?!\w)", asked, re.ASCII)
    ]
    if named:
        return named[:1] if body.get("parallel_tool_calls") is False else named
    terms = _terms(asked)
    likeness = [
        len(terms & (_terms(tool["name"]) | _terms(str(tool.get("description")), words=False)))
        for tool in tools
    ]
    asks = _asks_for_tools(asked) or any(likeness) or choice == "required"
    return [tools[likeness.index(max(likeness))]] if asks else []


def _functions(tools: object) -> list[dict]:
    """The functions among the tools offered, as far as they have a name."""
    functions = (
        [tool.get("function") for tool in tools if isinstance(tool, dict)]
        if isinstance(tools, list)
        else []
    )
    return [
        each
        for each in functions
        if isinstance(each, dict) and isinstance(each.get("name"), str) and each["name"]
    ]


def _terms(text: str, words: bool = True) -> set[str]:
    """What likeness is told by: longer words (of descriptions no `words`.

    They are common) and pairs of ideographs.
    """
    text = text[:ASKED_CHARS].lower()
    runs = _ideographs.findall(text)
    pairs = {run[at : at + 2] for run in runs for at in range(len(run) - 1)}
    return pairs | {word for word in re.findall("[a-z]+", text) if words and len(word) > 3}


def _text(content: object) -> str:
    """The text of a message's content, its parts joined."""
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else part for part in content)
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _short(asked: str, words: dict) -> str:
    return _cut(asked, QUESTION_CHARS) or words["nothing"]


def _cut(text: str, chars: int) -> str:
    text = _spaces.sub(" ", text[: 4 * chars]).strip()
    return text if len(text) <= chars else text[:chars] + "…"
