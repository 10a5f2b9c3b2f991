"""Connects the coding tools of this machine to a relay, or takes that back.

It merges into the tools' own files, keeps a copy of each as it was, and shows what it will change.
It stands alone: only Python 3.8's standard library, on the machine of whoever runs it.
"""

import difflib
import getpass
import hashlib
import json
import os
import re
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

PLAN = json.loads(r"""PLAN_OF_THIS_SITE""")
STATE = Path.home() / ".config" / "relay-setup" / PLAN["slug"]
TOKEN = "YOUR_API_TOKEN"


class Stop(Exception):
    """Nothing more is done; the message says why."""


def main(arguments):
    options = {"--dry-run", "--undo", "--yes", "--all"}
    wrong = [each for each in arguments if each not in options]
    if wrong:
        raise Stop(f"{wrong[0]}: there are only {', '.join(sorted(options))}")
    if "--undo" in arguments:
        return undo()
    tools = [each for each in PLAN["tools"] if "--all" in arguments or is_there(each)]
    if not tools:
        raise Stop(f"No tool was found that can be set up. By hand: {PLAN['site']}/docs/tools")
    dry = "--dry-run" in arguments
    token = TOKEN if dry else ask_token()
    changes = [each for each in (change_of(tool, token) for tool in tools) if each]
    for path, before, after in changes:
        show(path, before, after, token)
    if not changes:
        print("Everything is set up already.")
    elif dry:
        print("Nothing was changed. (--dry-run)")
    elif "--yes" in arguments or yes("Write these changes?"):
        write(changes)
        print("Done. To take it back: the same command with  | sh -s -- --undo")
    else:
        print("Nothing was changed.")
    return 0


def is_there(tool):
    folder = expanded(tool["file"]).parent
    return folder.is_dir() or any(shutil.which(name) for name in tool["programs"])


def expanded(name):
    return Path.home() / name[2:] if name.startswith("~/") else Path(name)


# ---- the token


def ask_token():
    """The token, from RELAY_TOKEN or typed unseen: never an argument, which a history keeps."""
    token = os.environ.get("RELAY_TOKEN") or ""
    if not token:
        try:
            token = getpass.getpass(f"Token of {PLAN['name']} (not shown): ")
        except (EOFError, OSError) as err:
            raise Stop("There is no terminal to ask for the token: set RELAY_TOKEN.") from err
    token = token.strip()
    if not re.fullmatch(r"[!-~]{8,200}", token) or re.search(r"[\"'`$\\]", token):
        raise Stop("That is no token.")
    request = urllib.request.Request(
        PLAN["site"] + "/api/v1/models", headers={"Authorization": "Bearer " + token}
    )
    try:
        with urllib.request.urlopen(request, timeout=20):
            return token
    except urllib.error.HTTPError as err:
        if err.code == 401:
            raise Stop("The relay does not know this token.") from err
        return token  # it answers; the tools will say what else is the matter
    except OSError as err:
        raise Stop(f"{PLAN['site']} cannot be reached: {err}") from err


def yes(question):
    try:
        with open("/dev/tty" if os.name == "posix" else "CONIN$") as terminal:
            print(question + " [y/N] ", end="", flush=True)
            return terminal.readline().strip().lower() in ("y", "yes")
    except OSError as err:
        raise Stop("There is no terminal to ask: look with --dry-run, then add --yes.") from err


# ---- what a file becomes


def change_of(tool, token):
    """(path, text before or None, text after); None if the file says it all already."""
    path = expanded(tool["file"])
    path = path.resolve() if path.is_symlink() else path  # the link stays one
    try:
        before = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        before = None
    except (OSError, ValueError) as err:
        print(f"{tool['name']}: {path} is left alone, for it cannot be read: {err}")
        return None
    text = tool["text"].replace(TOKEN, token)
    try:
        after = MERGE[path.suffix](before or "", text)
    except ValueError as err:
        print(f"{tool['name']}: {path} is left alone: {err}")
        return None
    return None if after == before else (path, before, after)


def merge_json(before, text):
    try:
        old = json.loads(before.lstrip("\ufeff")) if before.strip() else {}
    except ValueError as err:
        raise ValueError(f"it is no plain JSON ({err}); change it by hand") from err
    if not isinstance(old, dict):
        raise ValueError("it is no JSON object; change it by hand")
    new = merged(old, json.loads(text))
    if new == old and before.strip():
        return before
    indent = re.search(r"\n([ \t]+)\"", before)
    return json.dumps(new, indent=indent[1] if indent else 2, ensure_ascii=False) + "\n"


def merged(old, new):
    """Ours laid over theirs: tables are merged, named items of lists too, the rest is replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        both = dict(old)
        for name, value in new.items():
            both[name] = merged(old[name], value) if name in old else value
        return both
    if isinstance(old, list) and isinstance(new, list):
        kept = [each for each in old if not any(same(each, mine) for mine in new)]
        return kept + [
            next((merged(each, mine) for each in old if same(each, mine)), mine) for mine in new
        ]
    return new


def same(one, other):
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return one == other
    keys = [each for each in ("id", "name", "baseUrl") if each in one and each in other]
    return bool(keys) and all(one[each] == other[each] for each in keys)


def merge_toml(before, text):
    """Top settings of the same name are replaced, and the table of the same name; all else stays."""
    top, _, tables = text.partition("\n\n")
    header = re.search(r"^\[.*\]", tables, re.M)[0]
    rest = before.split("\n")
    for line in reversed(top.split("\n")):
        name = line.split("=")[0].strip()
        head = next((n for n, each in enumerate(rest) if each.lstrip().startswith("[")), len(rest))
        at = next((n for n in range(head) if re.match(rf"\s*{re.escape(name)}\s*=", rest[n])), None)
        if at is None:
            rest.insert(0, line)
        elif '"""' in rest[at] or "'''" in rest[at]:
            raise ValueError(f"its setting {name} goes over several lines; change it by hand")
        else:
            rest[at] = line
    start = next((n for n, each in enumerate(rest) if each.strip() == header), None)
    block = tables.rstrip("\n").split("\n")
    if start is None:
        body = "\n".join(rest).rstrip("\n")
        return f"{body}\n\n" + "\n".join(block) + "\n"
    end = next(
        (n for n in range(start + 1, len(rest)) if rest[n].lstrip().startswith("[")), len(rest)
    )
    while end > start + 1 and not rest[end - 1].strip():
        end -= 1
    rest[start:end] = block
    return "\n".join(rest)


def merge_yaml(before, text):
    """A whole new file, or our item at the head of `models:`, in place of our own of before."""
    if not before.strip():
        return text + "\n"
    item = text[text.index("models:\n") + len("models:\n") :].rstrip("\n").split("\n")
    lines = before.split("\n")
    at = next((n for n, each in enumerate(lines) if re.match(r"models:\s*(#.*)?$", each)), None)
    if at is None:
        if re.search(r"^models:", before, re.M):
            raise ValueError("its models are written on one line; change it by hand")
        return before.rstrip("\n") + "\nmodels:\n" + "\n".join(item) + "\n"
    first = next((each for each in lines[at + 1 :] if each.strip().startswith("-")), "  - ")
    indent = first[: len(first) - len(first.lstrip())]
    item = [indent + each[2:] for each in item]
    if item == lines[at + 1 : at + 1 + len(item)]:
        return before
    if len(lines) > at + len(item) and lines[at + 1] == item[0] and lines[at + 4] == item[3]:
        del lines[at + 1 : at + 1 + len(item)]  # ours, with another token
    lines[at + 1 : at + 1] = item
    return "\n".join(lines)


MERGE = {".json": merge_json, ".toml": merge_toml, ".yaml": merge_yaml}


def show(path, before, after, token):
    lines = difflib.unified_diff(
        (before or "").splitlines(), after.splitlines(), str(path), str(path), lineterm="", n=1
    )
    for line in lines:
        print(
            re.sub(
                r"(?i)((key|token|secret)\w*\"?\s*[:=]\s*\"?)[^\s\",]{6,}",
                r"\1***",
                line.replace(token, "***"),
            )
        )
    print()


# ---- writing, and taking it back


def write(changes):
    STATE.mkdir(parents=True, exist_ok=True)
    os.chmod(STATE, 0o700)
    kept = known()
    for path, before, after in changes:
        entry = kept.setdefault(str(path), {})
        if "copy" not in entry:
            name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
            if before is not None:
                shutil.copy2(path, STATE / name)
                os.chmod(STATE / name, 0o600)
            entry.update(copy=name if before is not None else None)
            entry["mode"] = path.stat().st_mode & 0o777 if before is not None else None
            entry["folders"] = [] if before is not None else missing_folders(path)
        entry["written"] = hashlib.sha256(after.encode()).hexdigest()
        remember(kept)  # before the file: what is changed can always be taken back
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, after.encode(), entry["mode"] or 0o600)
        print(f"written: {path}")


def missing_folders(path):
    return [str(each) for each in path.parents if not each.exists()]


def replace(path, data, mode):
    draft = path.with_name(f".{path.name}.relay-setup")
    draft.touch(mode=0o600)
    os.chmod(draft, mode)
    draft.write_bytes(data)
    os.replace(draft, path)


def known():
    try:
        return json.loads((STATE / "changed.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def remember(kept):
    replace(STATE / "changed.json", json.dumps(kept, indent=1).encode(), 0o600)


def undo():
    kept = known()
    if not kept:
        raise Stop("There is nothing to take back.")
    left = {}
    for name, entry in kept.items():
        path = Path(name)
        data = path.read_bytes() if path.exists() else b""
        if path.exists() and hashlib.sha256(data).hexdigest() != entry["written"]:
            print(f"left alone, for it was changed since: {path}")
            if entry["copy"]:
                print(f"  as it was before: {STATE / entry['copy']}")
            left[name] = entry
            continue
        if entry["copy"] is None:
            path.unlink() if path.exists() else None
            for folder in entry["folders"]:
                if Path(folder).is_dir() and not any(Path(folder).iterdir()):
                    Path(folder).rmdir()
            print(f"removed: {path}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(path, (STATE / entry["copy"]).read_bytes(), entry["mode"])
            print(f"restored: {path}")
    if left:
        remember(left)
        return 1
    shutil.rmtree(STATE)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Stop as stop:
        print(stop, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
