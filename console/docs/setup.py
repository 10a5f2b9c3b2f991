"""The script that connects a developer's machine: /setup.sh, and /setup.ps1 for PowerShell.

Owns which tools it sets up. What it writes into their files is the snippets of their pages; how it
does that is the program in `templates/setup/`, which each script carries. No token is in them: the
program asks for it.
"""

import json
import re
from functools import cache
from pathlib import Path

from console.docs import snippets
from console.docs.snippets import SitePlace

FOLDER = Path(__file__).resolve().parent.parent.parent / "templates" / "setup"
PROGRAMS = {  # tools whose settings are a file, and what they are called in a shell
    "claude-code": ("claude",),
    "codex": ("codex",),
    "qwen-code": ("qwen",),
    "opencode": ("opencode",),
    "claude-code-router": ("ccr",),
    "openclaw": ("openclaw",),
    "continue": ("cn",),
}
MERGED = (".json", ".toml", ".yaml")


@cache
def _source(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8").rstrip("\n")


def plan(place: SitePlace) -> dict:
    """What the program is to do: for each tool its file, and the snippet to merge into it."""
    tools = []
    for slug, programs in PROGRAMS.items():
        tool = snippets.BY_SLUG[slug]
        snippet = next(each for each in tool.snippets if each.file.endswith(MERGED))
        text = snippets.render(snippet, place)
        if slug == "codex":  # in a file, for a variable would have to stand in every shell
            text = re.sub(
                r'^env_key = ".*"$',
                f'experimental_bearer_token = "{snippets.TOKEN}"',
                text,
                flags=re.MULTILINE,
            )
        tools.append({"name": tool.name, "programs": programs, "file": snippet.file, "text": text})
    return {"name": place.site_name, "site": place.site_url, "slug": place.slug, "tools": tools}


def script(name: str, place: SitePlace) -> str:
    """setup.sh or setup.ps1, filled in for this site and a model."""
    program = _source("setup.py").replace("PLAN_OF_THIS_SITE", json.dumps(plan(place), indent=1))
    words = {
        "SITE_NAME": re.sub(r"[^\w .-]", "", place.site_name),
        "SITE_URL": re.sub(r"[^\w:/.\[\]-]", "", place.site_url),
        "THE_PROGRAM": program,
    }
    pattern = rf"\b(?:{'|'.join(words)})\b"
    return re.sub(pattern, lambda found: words[found[0]], _source(name)) + "\n"
