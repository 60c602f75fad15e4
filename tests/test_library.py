"""What Python programs may rely on."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import bntools
from bntools.registry import COMMANDS


def test_the_front_door_opens_a_model_and_costs_no_import_before():
    script = (
        "import sys, bntools; assert 'torch' not in sys.modules, 'import bntools became dear';"
        "from bntools import open_model; print(open_model('default:').label)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "default:\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_each_tool_runs(name):
    package = importlib.import_module(f"bntools.tools.{name.replace('-', '_')}")
    tried = doctest.testmod(package)
    assert tried.attempted > 0, f"{name} has no example"
    assert tried.failed == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_a_tool_gives_what_its_face_names(name):
    package = importlib.import_module(f"bntools.tools.{name.replace('-', '_')}")
    modules = {path.stem for path in Path(package.__file__).parent.glob("*.py")}
    assert package.__all__, f"{name} has no library face"
    assert not modules & set(package.__all__), "an import of the module would take the name's place"
    for each in package.__all__:
        assert not isinstance(getattr(package, each), type(bntools))
