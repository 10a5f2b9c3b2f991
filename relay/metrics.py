"""What `/metrics` shows: counters of this process, in prometheus-client's own registry.

Owns names and labels. Labels come from closed sets (wires, outcomes, codes, configured names):
nothing that a client sends becomes a label, and no member is named.
"""

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

registry = CollectorRegistry()

calls = Counter(
    "relay_calls_total",
    "Calls that were relayed or refused.",
    ["wire", "outcome"],
    registry=registry,
)
turned_away = Counter(
    "relay_turned_away_total",
    "Requests that left no row: bad tokens, rate limits, a full house.",
    ["code"],
    registry=registry,
)
attempts = Counter(
    "relay_upstream_attempts_total",
    "Attempts on upstreams.",
    ["upstream", "result"],
    registry=registry,
)
llm_tokens = Counter(
    "relay_llm_tokens_total", "LLM tokens of finished calls.", ["kind"], registry=registry
)
searches = Counter(
    "relay_searches_total", "Searches that providers made for finished calls.", registry=registry
)
cost = Counter(
    "relay_cost_nano_yuan_total", "Cost of finished calls in nano-yuan.", registry=registry
)
backup_age = Gauge(
    "relay_backup_age_seconds", "Age of the newest backup; -1: there is none.", registry=registry
)
first_byte = Histogram(
    "relay_first_byte_seconds",
    "Time to the first byte of an answer.",
    ["wire"],
    registry=registry,
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
model_calls = Counter(
    "relay_model_calls_total",
    "Calls by model, by the upstream that was asked last, and by how they ended.",
    ["model", "upstream", "outcome"],
    registry=registry,
)
model_first_byte = Histogram(
    "relay_model_first_byte_seconds",
    "Time to the first byte of an answer, by model and upstream.",
    ["model", "upstream"],
    registry=registry,
    buckets=BUCKETS_S,
)
model_duration = Histogram(
    "relay_model_duration_seconds",
    "Time to the end of a call, by model and upstream.",
    ["model", "upstream"],
    registry=registry,
    buckets=BUCKETS_S,
)
held = Gauge(
    "relay_held_nano_yuan", "What running calls have set aside, in nano-yuan.", registry=registry
)
disk_free = Gauge("relay_disk_free_bytes", "Free space beside the database.", registry=registry)
database_bytes = Gauge("relay_database_bytes", "Size of the database file.", registry=registry)
threads_busy = Gauge("relay_threads_busy", "Threads that serve somebody.", registry=registry)
threads_max = Gauge("relay_threads_max", "Threads that there may be.", registry=registry)
in_flight = Gauge("relay_calls_in_flight", "Calls being relayed now.", registry=registry)
unrecorded = Gauge(
    "relay_unrecorded_endings", "Endings that wait for the disk to be written.", registry=registry
)
upstream_up = Gauge(
    "relay_upstream_up",
    "1 while an upstream may be asked, 0 while it rests.",
    ["upstream"],
    registry=registry,
)


LLM_TOKENS = ("input", "cached", "output", "cache_read", "cache_write", "cache_write_1h")
for kind in LLM_TOKENS[:3]:  # the others are shown where they occur
    llm_tokens.labels(kind)


@cache
def of(metric, *labels: str):
    """The metric with these labels; looking them up each time takes longer than counting."""
    return metric.labels(*labels)


def upstreams_are(report: list[dict]) -> None:
    """Take over the picture of the upstreams' health.

    One without a key is not down: nobody asks it.
    """
    upstream_up.clear()
    for each in report:
        if each["state"] != "keyless":
            upstream_up.labels(each["name"]).set(each["state"] == "ok")


def text() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(registry)
