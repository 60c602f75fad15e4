"""What Python programs may rely on."""

from __future__ import annotations

import subprocess
import sys


def test_the_front_door_opens_a_model_and_costs_no_import_before():
    script = (
        "import sys, bntools; assert 'torch' not in sys.modules, 'import bntools became dear';"
        "from bntools import open_model; print(open_model('default:').label)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "default:\n"
