"""How far an option of quantize walks."""

from __future__ import annotations

import re
from pathlib import Path

from bntools.tools import quantize

ROOT = Path(quantize.__file__).parent
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")}


def test_the_budget_enters_at_most_ten_rooms():
    """Those that read it; that none imports a room above its own is a contract of import-linter."""
    rooms = [name for name, text in SOURCES.items() if re.search(r"\.budget\b|\bbudget: float", text)]
    assert 0 < len(rooms) <= 10


def test_no_dictionary_of_options_leaves_the_command():
    assert [name for name, text in SOURCES.items() if re.search(r"\*\*given|\bgiven\[", text)] == [
        "command.py"
    ], "the click callback alone has one"
