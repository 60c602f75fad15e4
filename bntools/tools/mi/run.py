"""The report of one pair: the figure, its baselines, and the self-test that may take votes away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.information.estimate import mutual_information
from bntools.core.information.estimators import Estimation
from bntools.tools.mi.selftest import selftest


def pair_report(
    x: NDArray[Any],
    y: NDArray[Any],
    settings: Estimation,
    *,
    labels: bool | None = None,
    tested: bool = False,
) -> dict[str, Any]:
    """The report of bntools-mi(1). `baseline.permuted` is the same estimate with the rows of y in another order."""
    tests, failing = {}, ()
    if tested:
        tests = selftest(x, y, replace(settings, estimator="auto"))
        failing = tuple(name for name, entry in tests.items() if not entry["passed"])
    figure = mutual_information(x, y, settings, labels=labels, failing=failing)
    order = np.random.default_rng([settings.seed, 1]).permutation(len(y))
    null = mutual_information(x, y[order], replace(settings, interval=False), labels=labels)
    report = {"kind": "mi", **figure, "baseline": {"permuted": null["value"]}}
    if tested:
        report["selftest"] = tests
    return report
