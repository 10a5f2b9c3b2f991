"""For who runs the relay: /healthz, /readyz and /metrics.

Owns what these three say. They need no token; /metrics answers only the addresses that the settings
name.
"""

import contextlib
import os
import time
from ipaddress import ip_address, ip_network

from flask import Blueprint, Response, abort, current_app, request

import billing
from relay import metrics
from server import backups

VERSION = "1.0.0"

pages = Blueprint("ops", __name__)


@pages.after_request
def uncached(response: Response) -> Response:
    """How it is now: whatever lies between must not remember it."""
    response.headers["Cache-Control"] = "no-store"
    return response


@pages.get("/healthz")
def healthz() -> dict:
    """Alive: the process answers.

    It says nothing of disk or upstreams, so that nobody restarts it for theirs.
    """
    return {
        "status": "ok",
        "version": VERSION,
        "demo": current_app.extensions["relay"].catalog.demo,
    }


@pages.get("/readyz")
def readyz() -> tuple[dict, int]:
    """Ready: the database takes writes, and some model has an upstream."""
    relay = current_app.extensions["relay"]
    problem = relay.disk_problem
    upstreams = {each["name"]: each["state"] for each in relay.upstream_report()}
    checks = {
        "database": f"not writable: {problem}" if problem else "ok",
        "upstreams": "ok"
        if any(model.available for model in relay.catalog.models.values())
        else "none is configured",
        "serving": "draining" if relay.draining else "ok",
    }
    backup = backups.state(relay, time.time())
    ready = all(found == "ok" for found in checks.values())
    return {
        "status": "ok" if ready else "not ready",
        "demo": relay.catalog.demo,
        "checks": checks,
        "backup": backup,
        "clock": relay.clock.problem or "ok",
        "limits": "ok" if relay.limiter.problem is None else "counted in memory meanwhile",
        "upstreams": upstreams,
    }, (200 if ready else 503)


def _may_read(address: str | None, settings) -> bool:
    """Whether an address is in one of the networks that may read the metrics."""
    try:
        found = ip_address(address or "")
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in ip_network(each, strict=False) for each in settings.server.metrics_from)


def _weigh(relay) -> None:
    """Look at what is only known by looking: the disk, what is set aside, threads. A file that is
    gone keeps nobody from the other metrics."""
    metrics.held.set(billing.held_in_all(relay.db))
    with contextlib.suppress(OSError):
        disk = os.statvfs(relay.db.path.parent)
        metrics.disk_free.set(disk.f_bavail * disk.f_frsize)
        metrics.database_bytes.set(relay.db.path.stat().st_size)
    busy, most = relay.threads()
    metrics.threads_busy.set(busy)
    metrics.in_flight.set(relay.at_once.running)
    metrics.threads_max.set(most)


@pages.get("/metrics")
def metrics_page() -> Response:
    """Prometheus' text format. For other addresses than those of the settings it does not exist."""
    if not _may_read(request.remote_addr, current_app.extensions["relay"].settings):
        abort(404)
    relay = current_app.extensions["relay"]
    metrics.upstreams_are(relay.upstream_report())
    _weigh(relay)
    return Response(metrics.text(), content_type="text/plain; version=0.0.4; charset=utf-8")
