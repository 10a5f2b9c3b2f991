"""What the process keeps in memory, and how often that is looked through."""

import subprocess
import sys

from server import memory
from tests.stage import ROOT


def test_what_the_start_has_made_is_looked_through_no_more():
    code = "import gc; from server import memory; memory.keep()"
    code += "; print(gc.get_freeze_count() > 1000, gc.get_threshold())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == f"True {memory.COLLECT_AT}\n", done.stderr
