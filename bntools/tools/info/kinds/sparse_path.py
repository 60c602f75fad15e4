"""Facts of a path of sparse regressions, from its metadata."""

from __future__ import annotations

from typing import Any

from bntools.core.artifact.reader import Artifact


def facts(source: Artifact) -> dict[str, Any]:
    """Target, family, penalty, steps, and what the step that was chosen selects."""
    report = source.report
    shown = ("target", "family", "penalty", "shape", "rows", "columns", "choose", "lambda", "explained")
    known = {name: report[name] for name in shown if report.get(name) is not None}
    entry = source.entries.get("lambda")
    steps = {"steps": entry.shape[0]} if entry is not None and entry.shape else {}
    selected = report.get("selected")
    names = (
        [each["name"] for each in selected if isinstance(each, dict) and "name" in each] if selected else []
    )
    return known | steps | ({"selected": names[:20]} if names else {})
