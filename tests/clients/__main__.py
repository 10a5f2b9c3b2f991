"""`python -m clients [NAME ...]`.

Installs what is missing, plays every scene or those named, says how it went.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.clients import agents, install, samples
from tests.clients.stage import Stage, Wrong, stage

SCENES = {scene.name: scene for scene in (*samples.SCENES, *agents.SCENES)}


def play(scene, on: Stage) -> bool:
    """Play one scene and print its line; whether it went well."""
    started = time.monotonic()
    try:
        scene.run(on)
        flaw = None
    except (Wrong, install.Missing, AssertionError) as error:
        flaw = error
    print(
        f"{'FAILED' if flaw else 'ok':8}{time.monotonic() - started:6.1f} s  {scene.name}",
        flush=True,
    )
    if flaw:
        print(f"{flaw}\n\nThe relay's log:\n{on.relay.log.read_text()[-3000:]}\n", flush=True)
    return flaw is None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m clients", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCENES))
    wanted = parser.parse_args().names or list(SCENES)
    if unknown := set(wanted) - set(SCENES):
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    try:
        install.agents()
    except install.Missing as error:
        print(f"The clients cannot be installed: {error}", file=sys.stderr)
        return 1
    with (
        tempfile.TemporaryDirectory(prefix="clients-", dir=install.FOLDER) as folder,
        stage(Path(folder)) as on,
    ):
        failed = [name for name in wanted if not play(SCENES[name], on)]
    print(
        f"{len(wanted) - len(failed)} of {len(wanted)} went well"
        + f"; not {', '.join(failed)}" * bool(failed)
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
