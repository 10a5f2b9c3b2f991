"""A provider that may be connected: it checks its key, lists its models, and answers.

`provider()` makes the script for a FakeUpstream. The refusals are worded as the real ones are.
"""

import json
from collections.abc import Callable

from tests.fake_upstream import Request, answer
from tests.providers import openai_stream, plain, usage

KEY = "sk-live-0123456789abcdef"
REFUSAL = {
    "error": {
        "message": "Incorrect API key provided: sk-live-***. You can find your key in the console.",
        "type": "invalid_request_error",
        "code": "invalid_api_key",
    }
}


def provider(
    models: tuple[str, ...] = ("north-large", "north-embed"),
    key: str | None = KEY,
    below: str = "/v1",
    refusing: Callable[[Request], list | None] = lambda _request: None,
) -> Callable[[Request], list]:
    """A script. `key` None: it asks for none; `refusing` may answer instead."""

    def script(request: Request) -> list:
        if not request.path.startswith(f"{below}/"):
            return answer(b"404 page not found", 404, content_type="text/plain")
        if key is not None and request.headers.get("authorization") != f"Bearer {key}":
            return answer(REFUSAL, 401)
        refused = refusing(request)
        if refused is not None:
            return refused
        if request.path == f"{below}/models":
            listed = [{"id": each, "object": "model", "owned_by": "north"} for each in models]
            return answer({"object": "list", "data": listed})
        counts = usage(20, 10)
        if json.loads(request.body).get("stream"):
            return openai_stream(counts)
        return plain(counts)

    return script
