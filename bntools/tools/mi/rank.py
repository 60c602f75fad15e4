"""Every column of a table against one: what each alone tells of it, the most telling first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bntools.core.information.estimate import mutual_information
from bntools.core.information.estimators import DEFAULT, Estimation


def rank(
    columns: NDArray[np.float64],
    names: list[str],
    target: str,
    settings: Estimation = DEFAULT,
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> list[dict[str, Any]]:
    """Mutual information of each column [N, C] with the column `target`, descending; rows with NaN in a pair left out.

    `permuted` is the largest value of the columns against a shuffled target: what lies below it is noise.
    """
    y = columns[:, names.index(target)]
    shuffled = np.random.default_rng(settings.seed).permutation(len(y))
    rows = []
    for index, name in enumerate(names):
        if name == target:
            continue
        x = columns[:, index]
        both = np.isfinite(x) & np.isfinite(y)
        entry = mutual_information(x[both], y[both], settings)
        null = mutual_information(x[both], y[shuffled][both & np.isfinite(y[shuffled])][: both.sum()], settings) \
            if np.isfinite(y).all() else None  # fmt: skip
        entry["permuted"] = None if null is None else null["value"]
        rows.append({"name": name, **entry})
        advance(1)
    return sorted(rows, key=lambda entry: -entry["value"])
