"""Programs and configurations to copy: one table of them, one way to fill them in.

Owns which snippets exist, for which tool, under which file name. Their texts are the files in
`templates/snippets/`, written with plain words for what changes (`BASE_URL`, `MODEL_ID`, ...); a
test parses or runs every one of them. Refuses to know pages and members: whoever shows a fresh
token hands it in.
"""

import base64
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlencode

from console.ui.i18n import lazy_gettext as _

FOLDER = Path(__file__).resolve().parent.parent.parent / "templates" / "snippets"
TOKEN = "YOUR_API_TOKEN"
CONTEXT_LENGTH, OUTPUT_LENGTH = 128_000, 8_192  # where a model's own limits are not configured


@dataclass(frozen=True)
class Snippet:
    """A text to copy.

    `source` is its file in templates/snippets, `file` where the reader puts it.
    """

    source: str
    file: str

    @property
    def id(self) -> str:
        return "snippet-" + re.sub(r"[^a-z0-9]+", "-", self.source.lower())


@dataclass(frozen=True)
class ToolGuide:
    """Something that members connect. `wire` is what it speaks; `input_tokens` what it sends before
    the user says a word, where that is a lot; `links` are the makers of deep links that fill it in
    by a click.
    """

    slug: str
    name: str
    about: str
    wire: str = "chat"
    snippets: tuple[Snippet, ...] = ()
    input_tokens: int = 0
    links: tuple[str, ...] = ()


CURL = Snippet("curl.sh", "curl")
SAMPLES = (
    CURL,
    Snippet("chat.py", "Python"),
    Snippet("chat.mjs", "Node.js"),
    Snippet("Chat.java", "Java"),
)
EMBEDDINGS = Snippet("embeddings.sh", "curl")
CONFIG = Snippet("config.toml", "config.toml")
STREAM_SAMPLES = (
    Snippet("curl-stream.sh", "curl"),
    Snippet("stream.py", "Python"),
    Snippet("stream.mjs", "Node.js"),
)

TOOLS = (
    ToolGuide(
        "claude-code",
        "Claude Code",
        _("Coding agent in the terminal"),
        "messages",
        (
            Snippet("claude-code.json", "~/.claude/settings.json"),
            Snippet("claude-code.sh", "shell"),
        ),
        12_000,
    ),
    ToolGuide(
        "codex",
        "Codex CLI",
        _("Coding agent in the terminal"),
        "responses",
        (Snippet("codex.toml", "~/.codex/config.toml"), Snippet("codex.sh", "shell")),
        9_000,
    ),
    ToolGuide(
        "qwen-code",
        "Qwen Code",
        _("Coding agent in the terminal"),
        "chat",
        (Snippet("qwen-code.json", "~/.qwen/settings.json"),),
    ),
    ToolGuide(
        "opencode",
        "opencode",
        _("Coding agent in the terminal"),
        "chat",
        (Snippet("opencode.json", "~/.config/opencode/opencode.json"),),
    ),
    ToolGuide(
        "claude-code-router",
        "Claude Code Router",
        _("Sends Claude Code's requests to other models"),
        "chat",
        (Snippet("claude-code-router.json", "~/.claude-code-router/config.json"),),
        12_000,
    ),
    ToolGuide(
        "cc-switch",
        "CC Switch",
        _("Switches the providers of coding agents"),
        "messages",
        links=("cc-switch-claude", "cc-switch-codex", "cc-switch-opencode", "cc-switch-openclaw"),
    ),
    ToolGuide(
        "openclaw",
        "OpenClaw",
        _("Personal agent"),
        "chat",
        (Snippet("openclaw.json", "~/.openclaw/openclaw.json"),),
    ),
    ToolGuide("cursor", "Cursor", _("Code editor")),
    ToolGuide(
        "cline",
        "Cline",
        _("Agent for VS Code and the terminal"),
        "chat",
        (Snippet("cline.sh", "shell"),),
    ),
    ToolGuide(
        "continue",
        "Continue",
        _("Assistant for VS Code and JetBrains"),
        "chat",
        (Snippet("continue.yaml", "~/.continue/config.yaml"),),
    ),
    ToolGuide("lingma", "Lingma", _("Assistant for VS Code and JetBrains")),
    ToolGuide("qoder", "Qoder", _("Code editor")),
    ToolGuide("cherry-studio", "Cherry Studio", _("Chat on the desktop"), links=("cherry-studio",)),
    ToolGuide("dify", "Dify", _("Platform for applications")),
    ToolGuide(
        "openai-sdk",
        "OpenAI SDK",
        _("Library for Python and Node.js"),
        "chat",
        (Snippet("openai-sdk.py", "Python"), Snippet("openai-sdk.mjs", "Node.js")),
    ),
    ToolGuide(
        "anthropic-sdk",
        "Anthropic SDK",
        _("Library for Python and Node.js"),
        "messages",
        (Snippet("anthropic-sdk.py", "Python"), Snippet("anthropic-sdk.mjs", "Node.js")),
    ),
    ToolGuide(
        "langchain",
        "LangChain",
        _("Library for Python"),
        "chat",
        (Snippet("langchain.py", "Python"),),
    ),
    ToolGuide("postman", "Postman", _("Tries out requests"), "chat", (CURL,)),
)
BY_SLUG = {tool.slug: tool for tool in TOOLS}


@dataclass(frozen=True)
class SitePlace:
    """What fills the snippets in: this site, a model, perhaps a token."""

    site_url: str
    site_name: str
    model: str
    context: int | None = None
    output_max: int | None = None
    token: str = TOKEN

    @property
    def base_url(self) -> str:
        return self.site_url + "/api/v1"

    @property
    def slug(self) -> str:
        """The site's name as a key of a configuration: pingtoken."""
        return re.sub(r"[^a-z0-9]+", "-", self.site_name.lower()).strip("-") or "relay"

    @property
    def variable(self) -> str:
        """The site's name as an environment variable: PINGTOKEN_API_KEY."""
        name = re.sub(r"[^A-Z0-9]+", "_", self.site_name.upper()).strip("_") or "RELAY"
        return ("_" + name if name[0].isdigit() else name) + "_API_KEY"


def _harmless(text: str) -> str:
    """A value without the characters that end or expand a quoted string in a shell, JSON, TOML or a
    program."""
    return re.sub(r"""["'`$\\\x00-\x1f\x7f]""", "", text)


@cache
def _source(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8").rstrip("\n")


def render(snippet: Snippet, place: SitePlace) -> str:
    """A snippet's text, filled in."""
    words = {
        "BASE_URL": _harmless(place.base_url),
        "SITE_URL": _harmless(place.site_url),
        "SITE_NAME": _harmless(place.site_name),
        "SITE_SLUG": place.slug,
        "SITE_VARIABLE": place.variable,
        "MODEL_ID": _harmless(place.model),
        TOKEN: _harmless(place.token),
        "CONTEXT_LENGTH": str(place.context or CONTEXT_LENGTH),
        "OUTPUT_LENGTH": str(place.output_max or OUTPUT_LENGTH),
    }
    # In one pass: a value that looks like one of the words stays as it is.
    return re.sub(
        rf"\b(?:{'|'.join(words)})\b", lambda found: words[found[0]], _source(snippet.source)
    )


def _cc_switch(app: str, place: SitePlace) -> str:
    models = {"model": place.model}
    if app == "claude":
        models.update(haikuModel=place.model, sonnetModel=place.model, opusModel=place.model)
    endpoint = place.site_url + "/api" if app == "claude" else place.base_url
    return "ccswitch://v1/import?" + urlencode(
        {
            "resource": "provider",
            "app": app,
            "name": place.site_name,
            "homepage": place.site_url,
            "endpoint": endpoint,
            "apiKey": place.token,
            **models,
        },
        quote_via=quote,
    )


def _cherry_studio(place: SitePlace) -> str:
    provider = {
        "id": place.slug,
        "name": place.site_name,
        "type": "openai",
        "baseUrl": place.site_url + "/api",
        "apiKey": place.token,
    }
    data = base64.b64encode(json.dumps(provider, ensure_ascii=False).encode()).decode()
    return "cherrystudio://providers/api-keys?" + urlencode({"v": "1", "data": data})


LINKS = {
    "cc-switch-claude": ("Claude Code", lambda place: _cc_switch("claude", place)),
    "cc-switch-codex": ("Codex", lambda place: _cc_switch("codex", place)),
    "cc-switch-opencode": ("opencode", lambda place: _cc_switch("opencode", place)),
    "cc-switch-openclaw": ("OpenClaw", lambda place: _cc_switch("openclaw", place)),
    "cherry-studio": ("Cherry Studio", _cherry_studio),
}


def link(name: str, place: SitePlace) -> str:
    """A deep link that opens a program on the reader's machine and fills this site in."""
    return LINKS[name][1](place)
