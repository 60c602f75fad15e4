"""Files of pictures: refused before the work where nothing can be drawn, replaced at once when it is done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bntools.core.errors import require, usage

FORMATS = (".svg", ".png", ".pdf")


def check(path: str) -> None:
    """Before the work: raises BnError, exit 2 for a name nothing can be drawn to, 5 without matplotlib."""
    if Path(path).suffix.lower() not in FORMATS:
        raise usage(f"--plot {path}: no picture format", f"end the name in {', '.join(FORMATS)}")
    if not Path(path).absolute().parent.is_dir():
        raise usage(f"--plot {path}: no such folder", "make it first")
    require("matplotlib", "plot")


def save(figure: Any, path: str) -> None:
    """Write a matplotlib figure: the same figure, the same bytes."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    metadata = {"Date": None} if target.suffix.lower() == ".svg" else None
    try:
        figure.savefig(partial, format=target.suffix[1:].lower(), dpi=150, metadata=metadata)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
