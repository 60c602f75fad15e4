"""Files of pictures: refused before the work where nothing can be drawn, whole and under their name only when done."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from bntools.core.artifact.targets import check_target, is_directory, publish, write_durably
from bntools.core.errors import require, usage

FORMATS = (".svg", ".png", ".pdf")


def check(path: str, force: bool = True) -> None:
    """Before the work: raises BnError, exit 2 for a name nothing can be drawn to, 5 without matplotlib.

    force: whether a picture that exists may be replaced.
    """
    if Path(path).suffix.lower() not in FORMATS or is_directory(path):
        raise usage(f"--plot {path}: no picture format", f"end the name in {', '.join(FORMATS)}")
    check_target(path, force)
    require("matplotlib", "plot")


def save(figure: Any, path: str, force: bool = True) -> None:
    """Write a matplotlib figure: the same figure, the same bytes. A FIFO or device is written to, never replaced."""
    data = _encode(figure, Path(path).suffix[1:].lower())
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    temporary = target.with_name(f".{target.name}.part-{os.getpid()}")
    try:
        write_durably(temporary, data)
        publish(temporary, target, force)
    finally:
        temporary.unlink(missing_ok=True)


def _encode(figure: Any, form: str) -> bytes:
    import matplotlib as mpl

    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}[form]
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "bntools"}):
        figure.savefig(buffer, format=form, dpi=150, metadata=metadata)
    return buffer.getvalue()
