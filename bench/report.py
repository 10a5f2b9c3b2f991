"""From lists of values to a table, side by side, with the targets that the project has set itself."""

from __future__ import annotations

from statistics import median


def beside(peer: str, factor: float, words: str):
    """A target in terms of a peer's figure: at least so many times it, or, negative, at most."""

    def met(row: dict) -> bool | None:
        if not row.get(peer):  # it is not here, or has failed
            return None
        if factor < 0:
            return row["relay"] <= -factor * row[peer]
        return row["relay"] >= factor * row[peer]

    return words, met


TARGETS = [  # (what, sentence, whether it is met by the medians {label: {target: value}})
    ("1 caller: added p50 ms", "at most 1.5 ms", lambda row: row["relay"] <= 1.5),
    ("300 streams x 50/s: added event p50 ms", "at most 30 ms", lambda row: row["relay"] <= 30),
    ("300 streams x 50/s: completed", "all", lambda row: row["relay"] == 300),
    ("300 messages streams x 50/s: completed", "all", lambda row: row["relay"] == 300),
    ("300 responses streams x 50/s: completed", "all", lambda row: row["relay"] == 300),
    ("500 streams x 10/s: completed", "all", lambda row: row["relay"] == 500),
    ("memory idle, MiB", "at most 50", lambda row: row["relay"] <= 50),
    ("memory at 500 streams, MiB", "at most 90", lambda row: row["relay"] <= 90),
    ("start to first answer, s", "at most 1.5 s", lambda row: row["relay"] <= 1.5),
    ("1000 streams x 2/s: completed", "all", lambda row: row["relay"] == 1000),
    ("1 MiB of body: CPU ms a call", "at most 20 ms", lambda row: row["relay"] <= 20),
    ("32 callers: calls/s", *beside("litellm", 14, "at least 14 x LiteLLM's")),
    ("32 callers: calls/s", *beside("portkey", 1.5, "at least 1.5 x Portkey's")),
    ("32 callers: CPU ms a call", *beside("portkey", -0.7, "at most 0.7 of Portkey's")),
    ("1 caller: p50 ms", *beside("portkey", -1, "not above Portkey's")),
    ("most events/s", *beside("portkey", 3, "at least 3 x Portkey's")),
]
RATIOS = (
    "1 caller: p50 ms",
    "1 caller: CPU ms a call",
    "32 callers: calls/s",
    "32 callers: CPU ms a call",
    "300 streams x 50/s: event p50 ms",
    "300 streams x 50/s: CPU us an event",
    "most events/s",
    "most events: CPU us an event",
    "memory idle, MiB",
    "memory at 500 streams, MiB",
    "1 MiB of body: CPU ms a call",
)
ROWS_LABEL = "call beside rows: p50 ms"
PAGES_LABELS, PAGE_MS = ("pages of", "slowest page of"), 100
TURNED_LABEL = "300 {} streams x 50/s: CPU us an event"


def medians(values: dict) -> dict[str, dict[str, float]]:
    """The median of each cell, with rows for what each target adds to the bare upstream."""
    table = {}
    for label, cells in values.items():
        row = {name: median(known) for name, each in cells.items() if (known := without_none(each))}
        table[label] = row
        if "p50 ms" in label and "direct" in row:
            kind = label.replace("event p50", "added event p50") if "event" in label else None
            kind = kind or label.replace("p50", "added p50")
            table[kind] = {
                name: value - row["direct"] for name, value in row.items() if name != "direct"
            }
    return table


def without_none(values: list) -> list:
    return [each for each in values if each is not None]


def verdicts(table: dict) -> list[tuple[str, str, bool]]:
    """(label, target in words, met) for every target that was measured."""
    found = [
        (label, words, met(table[label]))
        for label, words, met in TARGETS
        if "relay" in table.get(label, {})
    ]
    chat = table.get(TURNED_LABEL.format("chat"), {})
    for label in map(TURNED_LABEL.format, ("messages", "responses")):
        if label in table:
            found.append(
                (label, "at most 1.5 x chat's", table[label]["relay"] <= 1.5 * chat["relay"])
            )
    if ROWS_LABEL in table:
        empty, full = table[ROWS_LABEL].values()
        found.append((ROWS_LABEL, f"within 5 % ({full / empty - 1:+.1%})", full <= empty * 1.05))
    pages = [label for label in table if label.startswith(PAGES_LABELS)]
    found += [(label, f"under {PAGE_MS} ms", table[label]["relay"] < PAGE_MS) for label in pages]
    return [each for each in found if each[2] is not None]


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


def ratios(table: dict) -> list[str]:
    """Our figure divided by each peer's, of the same run."""
    lines = ["Ours as a multiple of a peer's"]
    for label in RATIOS:
        row = table.get(label, {})
        found = [
            f"{row['relay'] / row[name]:.2f} x {name}"
            for name in ("litellm", "portkey")
            if "relay" in row and row.get(name)
        ]
        lines += [f"  {label}: {', '.join(found)}"] if found else []
    return lines if len(lines) > 1 else []


def text(table: dict, about: list[str], failures: list[str]) -> str:
    """The table for people."""
    names = [
        name
        for name in ("direct", "relay", "litellm", "portkey")
        if any(name in row for row in table.values())
    ]
    rows = [label for label in table if label != ROWS_LABEL]
    beside = {
        f"call beside {name}: p50 ms": value for name, value in table.get(ROWS_LABEL, {}).items()
    }
    width = max(map(len, [*rows, *beside]), default=0) + 2
    lines = [*about, "", " " * width + "".join(f"{name:>12}" for name in names)]
    for label in rows:
        lines.append(
            f"{label:<{width}}" + "".join(f"{number(table[label].get(name)):>12}" for name in names)
        )
    column = 12 * (1 + names.index("relay")) if "relay" in names else 12
    lines += [f"{label:<{width}}{number(value):>{column}}" for label, value in beside.items()]
    lines += ["", *ratios(table), "", "Targets"]
    lines += [
        f"  {'met  ' if met else 'MISSED'}  {label}: {words}"
        for label, words, met in verdicts(table)
    ]
    if failures:
        lines += ["", "Failures", *(f"  {each}" for each in failures[:20])]
    return "\n".join(lines)
