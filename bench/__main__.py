"""`python -m bench`: starts the fake upstream, the relay and, where they are installed, its peers.

Prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from bench import peer, report, scenarios
from bench.relay import Relay
from bench.target import ROOT, Target


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round of everything: a look, no proof"
    )
    parser.add_argument("--rounds", type=int, help="rounds of each scenario (3, with --quick 1)")
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        help="one scenario: " + ", ".join(scenarios.all_of(False)),
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--no-peer", action="store_true", help="leave the peers out even if they are installed"
    )
    parser.add_argument("--install-peer", action="store_true", help="install the peers and stop")
    parser.add_argument(
        "--folder", type=Path, help="where the files are kept (a temporary one, then removed)"
    )
    return parser.parse_args()


@contextmanager
def fake_upstream():
    """The upstream's process; yields its Target."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.upstream"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Target("direct", int(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.wait(10)


def measure(options: argparse.Namespace, folder: Path) -> scenarios.Bench:
    """Run the scenarios that are wanted."""
    chosen = scenarios.all_of(options.quick)
    wanted = {"start", *(options.only or chosen)}
    if unknown := wanted - set(chosen):
        raise SystemExit(
            f"no such scenario: {', '.join(sorted(unknown))}; there are {', '.join(chosen)}"
        )
    with fake_upstream() as upstream:
        servers = [Relay(folder / "relay", upstream.port)]
        if not options.no_peer:
            servers += [each(folder / each.name, upstream.port) for each in peer.installed()]
        rounds = options.rounds or (1 if options.quick else 3)
        bench = scenarios.Bench(servers, upstream, folder, rounds, options.quick)
        try:
            for name, scenario in chosen.items():
                if name in wanted:
                    print(f"{time.strftime('%H:%M:%S')} {name} ...", file=sys.stderr)
                    scenario(bench)
        finally:
            for server in servers:
                server.stop()
    return bench


def about(options: argparse.Namespace) -> list[str]:
    """What the figures were measured on."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"
    compared = "no peer installed (python -m bench --install-peer)"
    if found := peer.installed():
        named = ", ".join(f"{each.name} {each.version()}" for each in found)
        compared = "peers left out" if options.no_peer else f"peers, one process each: {named}"
    return [f"{machine}; upstream, load and servers share them; {compared}"]


def main() -> None:
    options = arguments()
    if options.install_peer:
        peer.install()
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        bench = measure(options, (options.folder or Path(temporary)).resolve())
    table, facts = report.medians(bench.values), about(options)
    if options.json:
        met = [
            {"label": label, "target": words, "met": met}
            for label, words, met in report.verdicts(table)
        ]
        print(
            json.dumps(
                {"about": facts, "medians": table, "targets": met, "failures": bench.failures}
            )
        )
    else:
        print(report.text(table, facts, bench.failures))


if __name__ == "__main__":
    main()
