"""The report of a screening."""

from __future__ import annotations

from typing import Any

import numpy as np

from bntools.core.datasets.tables import Table
from bntools.tools.screen.run import Screening, default_top
from bntools.tools.screen.scoring.select import q_values
from bntools.tools.screen.settings import Settings

KIND = "screen"
_SHOWN = 500  # columns in the report at most


def report(table: Table, settings: Settings, result: Screening) -> dict[str, Any]:
    """Kind, target, outcome, counts of columns, the best of them, and what plain correlation would select."""
    scored, order = result.scored, result.order
    usable = int((~np.isnan(scored.score)).sum())
    top = order[: min(len(written(settings, result)), _SHOWN, usable)]
    return {
        "kind": KIND,
        "target": settings.target,
        "method": settings.method,
        "outcome": _outcome(table, result),
        "columns": {
            "scored": usable,
            "constant": int((scored.distinct == 1).sum()),
            "too_short": int((np.isnan(scored.score) & (scored.distinct != 1)).sum()),
            "text": len([name for name in table.text_columns if name != settings.target]),
            "with_missing": int((scored.missing > 0).sum()),
            "values_missing": int(scored.missing.sum()),
            "few_values": int(((scored.distinct > 1) & (scored.distinct <= 20)).sum()),
        },
        "covariates": list(settings.covariates),
        "control": settings.control,
        "fdr": settings.level,
        "permutations": settings.sized().permutations,
        "selected": None if settings.method == "fftkde" else int(result.selected.sum()),
        "best": [_entry(table, result, int(index)) for index in top],
        "baseline": _baseline(settings, result),
    }


def written(settings: Settings, result: Screening) -> np.ndarray:
    """Which of the best columns are passed on: the selected with --fdr, at most --top; else --top, or n / ln n."""
    positions = result.best.positions
    if settings.fdr is not None:
        chosen = set(result.positions[result.selected].tolist())
        rows = [i for i, position in enumerate(positions.tolist()) if position in chosen]
        return np.array(rows, np.int64)[: settings.top]
    return np.arange(len(positions))[: settings.top or default_top(len(result.rows))]


def _outcome(table: Table, result: Screening) -> dict[str, Any]:
    classes, codes = result.outcome.classes, result.outcome.codes
    outcome: dict[str, Any] = {
        "kind": "class" if classes else "continuous",
        "rows": len(result.rows),
        "missing": table.rows - len(result.rows),
    }
    if classes:
        outcome["classes"] = dict(
            zip(classes, np.bincount(codes, minlength=len(classes)).tolist(), strict=True)
        )
    return outcome


def _entry(table: Table, result: Screening, index: int) -> dict[str, Any]:
    scored = result.scored
    return {
        "name": table.name(int(result.positions[index])),
        "statistic": _rounded(scored.statistic[index]),
        "score": _rounded(scored.score[index]),
        "p": _rounded(scored.p[index]),
        "q": _rounded(result.q[index]),
        "extrapolated": bool(scored.extrapolated[index]),
        "selected": bool(result.selected[index]),
        "missing": int(scored.missing[index]),
        "p_linear": _rounded(result.linear[index]),
    }


def _baseline(settings: Settings, result: Screening) -> dict[str, Any]:
    """What Pearson's correlation selects at the same level, and how many of the best columns are its best too."""
    count = min(len(written(settings, result)), len(result.order)) or 1
    linear = np.argsort(np.nan_to_num(result.linear, nan=2.0), kind="stable")[:count]
    return {
        "method": "pearson",
        "selected": int((q_values(result.linear) <= settings.level).sum()),
        "among": count,
        "shared": len(set(linear.tolist()) & set(result.order[:count].tolist())),
    }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.6g}")
