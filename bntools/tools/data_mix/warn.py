"""What a reader of the report should know before money is spent."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.tools.data_mix.runs.runs import Runs

_FAR = 30.0  # times the largest pilot, beyond which nobody has seen the law hold
_MARGIN = 6  # runs more than sources below which mixing laws were unstable


def warnings_of(runs: Runs, report: dict[str, Any], sizes: NDArray[Any] | None) -> list[dict[str, str]]:
    """Warnings, each with a stable name and a text."""
    named: list[tuple[str, str]] = []
    at, largest, smallest = report["at"], float(runs.n.max()), float(runs.n.min())
    if at > _FAR * largest:
        named.append(
            ("far", f"the target is {at / largest:.0f} times the largest pilot; over {_FAR:.0f} is a guess")
        )
    elif at < smallest:
        named.append(("below", "the target is smaller than the smallest pilot"))
    if len(runs.sizes) == 2 and at > largest:
        named.append(
            ("two-sizes", "of two sizes no floor can be told: a third would narrow the interval most")
        )
    mixtures = len(np.unique(np.round(runs.weights, 9), axis=0))
    if mixtures < len(runs.sources) + _MARGIN:
        named.append(
            (
                "few-mixtures",
                f"{mixtures} mixtures of {len(runs.sources)} sources: more pilots, --next 4 names them",
            )
        )
    if report["decision"] == "best pilot":
        named.append(
            ("best-pilot", "no mixture is surely better than the best pilot, which is therefore advised")
        )
    if report["widened"] > 1.5:
        named.append(
            ("widened", "the largest size missed the intervals of the law of the others; all were widened")
        )
    if runs.failed:
        named.append(("failed", f"{len(runs.failed)} failed runs left out: {', '.join(runs.failed[:5])}"))
    named += _repeated(runs, report, sizes)
    return [{"name": name, "text": text} for name, text in named]


def _repeated(runs: Runs, report: dict[str, Any], sizes: NDArray[Any] | None) -> list[tuple[str, str]]:
    if sizes is None:
        return []
    named = []
    for name, size in zip(runs.sources, sizes, strict=True):
        epochs = report["mixture"][name] * report["at"] / size
        if epochs > 1 + 1e-9:
            named.append(
                (
                    "repeated",
                    f"{name} has {size:.0f} rows: the mixture reads each {epochs:.1f} times; --max caps it",
                )
            )
    return named
