"""Facts of a corrector of FPGA estimates, from its metadata."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import Artifact


def facts(source: Artifact) -> dict[str, Any]:
    """Method, rows and architectures of its table, and the error on held-out architectures for each target."""
    known, report = source.json("bntools.corrector", dict), source.report
    shown = {name: known[name] for name in ("model", "targets") if name in known}
    shown |= {name: report[name] for name in ("rows", "architectures") if name in report}
    errors = {
        f"smape {name}": target["smape"]
        for name, target in (report.get("targets") or {}).items()
        if isinstance(target, dict) and "smape" in target
    }
    return shown | errors
