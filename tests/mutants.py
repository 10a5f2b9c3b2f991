"""What `make mutants` found: the small mistakes that no test noticed, and the score.

    python -m tests.mutants [MODULE ...]        of a finished run of mutmut, in mutants/

A mistake is left out of the second score where it makes no other program: SQLite reads its keywords
and names, and a row its columns, in capital and small letters alike.
"""

import ast
import re
import subprocess
import sys
from collections import Counter
from itertools import zip_longest
from pathlib import Path

FOUND = re.compile(r"\s*([\w.]+?)\.([^.\s]+)__mutmut_(\d+): (.+)")
CASELESS = re.compile(r"\b(select|insert|update|delete|where|returning)\b|\w\['\w+'\]", re.I)


def functions(module: str) -> dict[str, list[str]]:
    """Each function of a mutated module, as lines without its name and docstring."""
    tree = ast.parse(Path("mutants", *module.split(".")).with_suffix(".py").read_text())
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and "__mutmut_" in node.name:
            name, node.name = node.name, "f"
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
            found[name] = ast.unparse(node).split("\n")
    return found


def difference(before: list[str], after: list[str]) -> list[tuple[str, str]]:
    """The lines that differ, each as it was and as it is."""
    pairs = zip_longest(before, after, fillvalue="")
    return [(was.strip(), now.strip()) for was, now in pairs if was != now]


def same(changes: list[tuple[str, str]]) -> bool:
    """Whether nothing but letters' case was changed where it says nothing."""
    return all(
        was.lower() == now.lower() and CASELESS.search(_around(was, now)) for was, now in changes
    )


def _around(was: str, now: str) -> str:
    """The string in which two lines differ, with what stands before it."""
    at = [i for i, (a, b) in enumerate(zip(was, now, strict=True)) if a != b]
    start = max(was.rfind("'", 0, at[0]), was.rfind('"', 0, at[0]))
    ends = [end for end in (was.find("'", at[-1]), was.find('"', at[-1])) if end >= 0]
    return was[max(0, start - 2) : min(ends, default=len(was)) + 2]


def main(only: list[str]) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "mutmut", "results", "--all", "true"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    known: dict[str, dict[str, list[str]]] = {}
    counts: dict[str, Counter] = {}
    alike: Counter = Counter()
    for module, function, number, state in FOUND.findall(said):
        if only and module not in only:
            continue
        count = counts.setdefault(module, Counter())
        count[state] += 1
        if state in ("killed", "not checked"):
            continue
        bodies = known[module] if module in known else known.setdefault(module, functions(module))
        changes = difference(
            bodies[f"{function}__mutmut_orig"], bodies[f"{function}__mutmut_{number}"]
        )
        if state == "survived" and same(changes):
            alike[module] += 1
            continue
        print(f"{module}.{function} {number}: {state}")
        for was, now in changes[:2] if state == "survived" else ():
            print(f"    - {was[:200]}\n    + {now[:200]}")
    for module, count in counts.items():
        total, killed = count.total() - count["not checked"], count["killed"] + count["timeout"]
        others = total - alike[module]
        if not others:
            continue
        print(
            f"{module}: {killed} of {total} noticed ({killed / total:.1%}), {killed / others:.1%} of"
            f" the {others} that are another program; {count['not checked']} were not tried"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
